//! Networks of addresses: who may be forwarded for, and who is counted together.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The octets of `::ffff:0:0/96` before an IPv4 address in IPv6 clothes.
const MAPPED_PREFIX: u8 = 96;

/// An address and how many of its first bits count; the others are zero. IPv4-mapped IPv6
/// addresses count as IPv4, whoever writes or shows them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why some text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("{0:?} is no network: write it as 10.0.0.0/8, 2001:db8::/32 or a single address")]
    Form(String),
    #[error("{0:?} has bits set behind its prefix: write the network as {1}")]
    HostBits(String, Network),
}

impl Network {
    const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Network {
        Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(first: u16, prefix: u8) -> Network {
        Network { address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), prefix }
    }

    /// Whoever has no address on the Internet: RFC 1918, shared addresses (RFC 6598), loopback,
    /// link-local, unique local IPv6 (RFC 4193).
    pub const PRIVATE: [Network; 9] = [
        Network::v4([10, 0, 0, 0], 8),
        Network::v4([172, 16, 0, 0], 12),
        Network::v4([192, 168, 0, 0], 16),
        Network::v4([100, 64, 0, 0], 10),
        Network::v4([127, 0, 0, 0], 8),
        Network::v4([169, 254, 0, 0], 16),
        Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
        Network::v6(0xfe80, 10),
        Network::v6(0xfc00, 7),
    ];

    /// Every address there is.
    pub const ANY: [Network; 2] = [Network::v4([0; 4], 0), Network::v6(0, 0)];

    /// The network of this many bits that an address is in; at most all of its bits.
    pub fn of(address: IpAddr, prefix: u8) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let prefix = prefix.min(32);
                let bits = v4.to_bits() & !u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                Network { address: Ipv4Addr::from_bits(bits).into(), prefix }
            }
            IpAddr::V6(v6) => {
                let prefix = prefix.min(128);
                let bits = v6.to_bits() & !u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
                Network { address: Ipv6Addr::from_bits(bits).into(), prefix }
            }
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Network::of(address, self.prefix) == *self
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let wrong = || NetworkError::Form(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| wrong())?;
        let address = written.to_canonical();
        let bits = if written.is_ipv4() { 32 } else { 128 };
        let is_number = |prefix: &str| prefix.bytes().all(|octet| octet.is_ascii_digit());
        let prefix = match prefix.filter(|prefix| is_number(prefix)).map(str::parse::<u8>) {
            Some(Ok(prefix)) if prefix <= bits => prefix,
            None if !text.contains('/') => bits,
            _ => return Err(wrong()),
        };
        let is_mapped = written.is_ipv6() && address.is_ipv4();
        let prefix = match is_mapped {
            true => prefix.checked_sub(MAPPED_PREFIX).ok_or_else(wrong)?,
            false => prefix,
        };
        let network = Network::of(address, prefix);
        match network.address == address {
            true => Ok(network),
            false => Err(NetworkError::HostBits(text.to_owned(), network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, shown: &str) {
        match text.parse::<Network>() {
            Ok(network) => assert_eq!(network.to_string(), shown),
            Err(error) => assert_eq!(error.to_string(), shown),
        }
    }

    #[test]
    fn a_network_is_an_address_and_its_first_bits() {
        check("10.0.0.0/8", "10.0.0.0/8");
        check("10.1.2.3", "10.1.2.3/32");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("2001:DB8::/32", "2001:db8::/32");
        check("::1", "::1/128");
        check("::/0", "::/0");
        check("::ffff:10.0.0.0/104", "10.0.0.0/8");
        check("::ffff:10.0.0.1", "10.0.0.1/32");
    }

    #[test]
    fn what_is_no_network_is_said_to_be_none() {
        let form = ": write it as 10.0.0.0/8, 2001:db8::/32 or a single address";
        let bad = |text: &str| check(text, &format!("{text:?} is no network{form}"));
        for text in ["", "10", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "1.0.0.0/8/8"] {
            bad(text);
        }
        for text in ["intern", "10.0.0.0/-1", "::ffff:10.0.0.0/90", " 10.0.0.0/8"] {
            bad(text);
        }
        let host = "has bits set behind its prefix: write the network as";
        check("10.0.0.1/8", &format!("\"10.0.0.1/8\" {host} 10.0.0.0/8"));
        check("2001:db8::1/64", &format!("\"2001:db8::1/64\" {host} 2001:db8::/64"));
    }

    #[track_caller]
    fn check_private(address: &str, expected: bool) {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(Network::PRIVATE.iter().any(|n| n.contains(address)), expected);
        assert!(Network::ANY.iter().any(|n| n.contains(address)));
    }

    #[test]
    fn private_is_what_has_no_address_on_the_internet() {
        for inside in ["10.255.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"] {
            check_private(inside, true);
        }
        for inside in ["127.9.9.9", "169.254.1.1", "::1", "fe80::1", "febf::1", "fc00::1", "fdff::"]
        {
            check_private(inside, true);
        }
        for outside in ["9.255.255.255", "11.0.0.0", "172.15.0.1", "172.32.0.0", "192.169.0.1"] {
            check_private(outside, false);
        }
        for outside in ["100.63.0.1", "100.128.0.0", "8.8.8.8", "2001:db8::1", "::2", "fec0::1"] {
            check_private(outside, false);
        }
        check_private("::ffff:10.0.0.1", true);
        check_private("::ffff:8.8.8.8", false);
    }

    proptest! {
        #[test]
        fn an_address_is_in_its_own_networks_and_no_neighbour(bits: u128, prefix in 1_u8..=128) {
            let (v4, v6) = (Ipv4Addr::from_bits(bits as u32), Ipv6Addr::from_bits(bits));
            for address in [v4.into(), IpAddr::from(v6)] {
                let width = if address.to_canonical().is_ipv4() { 32 } else { 128 };
                let network = Network::of(address, prefix);
                prop_assert!(network.contains(address));
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
                // The last bit that counts, turned.
                let last = width - prefix.min(width);
                let turned = match address.to_canonical() {
                    IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ 1 << last).into(),
                    IpAddr::V6(v6) => IpAddr::from(Ipv6Addr::from_bits(v6.to_bits() ^ 1 << last)),
                };
                prop_assert!(!network.contains(turned));
            }
        }
    }
}
