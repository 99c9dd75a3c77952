//! The names of addresses, RFC 1035, section 3.5, and RFC 3596, section 2.5.

use std::net::IpAddr;

use crate::name::Name;

/// The name of an address: below `in-addr.arpa` for IPv4 and for IPv4-mapped IPv6, else below
/// `ip6.arpa`.
pub fn name(address: IpAddr) -> Name {
    let labels: Vec<String> = match address.to_canonical() {
        IpAddr::V4(v4) => {
            let octets = v4.octets().map(|octet| octet.to_string());
            ["arpa", "in-addr"].map(str::to_owned).into_iter().chain(octets).collect()
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            let nibbles = nibbles.map(|nibble| format!("{nibble:x}"));
            ["arpa", "ip6"].map(str::to_owned).into_iter().chain(nibbles).collect()
        }
    };
    let name = Name::root().below(labels.iter().map(String::as_bytes));
    name.expect("at most 34 labels of one to seven octets")
}

/// Whether a zone of this name holds names of addresses: some octets of IPv4 below
/// `in-addr.arpa`, or some nibbles of IPv6 below `ip6.arpa`.
pub fn is_zone(name: &Name) -> bool {
    let labels: Vec<_> = name.labels().collect();
    let text = |label: &[u8]| std::str::from_utf8(label).map(str::to_owned).unwrap_or_default();
    let labels: Vec<String> = labels.iter().rev().map(|label| text(label)).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match &labels[..] {
        ["arpa", "in-addr", octets @ ..] => {
            let is_octet =
                |label: &&str| label.parse::<u8>().is_ok_and(|o| o.to_string() == *label);
            (1..=4).contains(&octets.len()) && octets.iter().all(is_octet)
        }
        ["arpa", "ip6", nibbles @ ..] => {
            let is_nibble =
                |label: &&str| label.len() == 1 && u8::from_str_radix(label, 16).is_ok();
            (1..=32).contains(&nibbles.len()) && nibbles.iter().all(is_nibble)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: &str) {
        let name = name(address.parse().unwrap());
        assert_eq!(name.to_string(), expected);
        assert!(is_zone(&name), "the deepest of its zones");
    }

    #[test]
    fn addresses_have_names() {
        check("10.1.2.30", "30.2.1.10.in-addr.arpa.");
        check("::ffff:10.1.2.30", "30.2.1.10.in-addr.arpa.");
        check(
            "2001:db8::1",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
        );
    }

    #[track_caller]
    fn check_zone(text: &str, expected: bool) {
        assert_eq!(is_zone(&text.parse().unwrap()), expected, "{text}");
    }

    #[test]
    fn a_reverse_zone_is_the_name_of_a_part_of_the_address_space() {
        check_zone("10.in-addr.arpa", true);
        check_zone("168.192.IN-ADDR.ARPA.", true);
        check_zone("8.b.d.0.1.0.0.2.ip6.arpa", true);
        check_zone("in-addr.arpa", false);
        check_zone("arpa", false);
        check_zone("mesos", false);
        check_zone("256.in-addr.arpa", false);
        check_zone("010.in-addr.arpa", false);
        check_zone("0-63.2.0.192.in-addr.arpa", false);
        check_zone("1.4.3.2.1.in-addr.arpa", false);
        check_zone("20.ip6.arpa", false);
        check_zone("g.ip6.arpa", false);
    }
}
