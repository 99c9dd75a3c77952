//! Resource records: types, TTLs, serials, data, and the RRset that a zone holds.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::name::Name;

/// A record type by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type(pub u16);

impl Type {
    pub const A: Type = Type(1);
    pub const NS: Type = Type(2);
    pub const CNAME: Type = Type(5);
    pub const SOA: Type = Type(6);
    pub const PTR: Type = Type(12);
    pub const TXT: Type = Type(16);
    pub const AAAA: Type = Type(28);
    pub const SRV: Type = Type(33);
    pub const DNAME: Type = Type(39);
    pub const OPT: Type = Type(41);
    pub const DS: Type = Type(43);
    pub const TSIG: Type = Type(250);
    pub const IXFR: Type = Type(251);
    pub const AXFR: Type = Type(252);
    pub const ANY: Type = Type(255);
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The mnemonics are hickory's; what it does not know is TYPEn, RFC 3597, section 5.
        match hickory_proto::rr::RecordType::from(self.0) {
            hickory_proto::rr::RecordType::Unknown(number) => write!(f, "TYPE{number}"),
            known => known.fmt(f),
        }
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A time to live in seconds, 0 to 2^31 - 1 (RFC 2181, section 8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Ttl(u32);

impl Ttl {
    pub const ZERO: Ttl = Ttl(0);

    /// The TTL of a number from the wire: one with the top bit set counts as zero.
    pub fn from_secs(seconds: u32) -> Ttl {
        Ttl(if seconds > i32::MAX as u32 { 0 } else { seconds })
    }

    pub fn secs(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A zone's serial number. It has no total order (RFC 1982, section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Serial(pub u32);

impl PartialOrd for Serial {
    fn partial_cmp(&self, other: &Serial) -> Option<Ordering> {
        match other.0.wrapping_sub(self.0) {
            0 => Some(Ordering::Equal),
            0x8000_0000 => None,
            ahead if ahead < 0x8000_0000 => Some(Ordering::Less),
            _ => Some(Ordering::Greater),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record's data: the types that mesozone publishes, and any other as its octets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rdata {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// RFC 2782.
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: Name,
    },
    Ptr(Name),
    Other(Arc<[u8]>),
}

impl Rdata {
    /// A for IPv4 and for IPv4-mapped IPv6, else AAAA.
    pub fn of_address(address: IpAddr) -> Rdata {
        match address.to_canonical() {
            IpAddr::V4(v4) => Rdata::A(v4),
            IpAddr::V6(v6) => Rdata::Aaaa(v6),
        }
    }

    /// Appends the wire form; names in it are not compressed (RFC 3597, section 4).
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Rdata::A(address) => out.extend(address.octets()),
            Rdata::Aaaa(address) => out.extend(address.octets()),
            Rdata::Srv { priority, weight, port, target } => {
                out.extend(priority.to_be_bytes());
                out.extend(weight.to_be_bytes());
                out.extend(port.to_be_bytes());
                target.write(out);
            }
            Rdata::Ptr(name) => name.write(out),
            Rdata::Other(octets) => out.extend_from_slice(octets),
        }
    }

    /// Octets of the wire form.
    pub fn wire_len(&self) -> usize {
        match self {
            Rdata::A(_) => 4,
            Rdata::Aaaa(_) => 16,
            Rdata::Srv { target, .. } => 6 + target.wire_len(),
            Rdata::Ptr(name) => name.wire_len(),
            Rdata::Other(octets) => octets.len(),
        }
    }
}

impl fmt::Display for Rdata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rdata::A(address) => address.fmt(f),
            Rdata::Aaaa(address) => address.fmt(f),
            Rdata::Srv { priority, weight, port, target } => {
                write!(f, "{priority} {weight} {port} {target}")
            }
            Rdata::Ptr(name) => name.fmt(f),
            Rdata::Other(octets) => {
                // RFC 3597, section 5.
                write!(f, "\\# {}", octets.len())?;
                let separator = if octets.is_empty() { "" } else { " " };
                f.write_str(separator)?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

impl fmt::Debug for Rdata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The records of one name and type: one TTL (RFC 2181, section 5.2), a sorted set of data,
/// never empty. Cloning is free.
#[derive(Clone)]
pub struct Rrset {
    ttl: Ttl,
    data: Data,
}

/// Most RRsets are of one record, which then needs no place of its own.
#[derive(Clone)]
enum Data {
    One(Rdata),
    Many(Arc<[Rdata]>),
}

impl Rrset {
    /// None when there is no data: an empty RRset does not exist.
    pub fn new(ttl: Ttl, mut rdata: Vec<Rdata>) -> Option<Rrset> {
        rdata.sort_unstable();
        rdata.dedup();
        let data = match rdata.len() {
            0 => return None,
            1 => Data::One(rdata.pop()?),
            _ => Data::Many(Arc::from(rdata)),
        };
        Some(Rrset { ttl, data })
    }

    pub fn of_one(ttl: Ttl, rdata: Rdata) -> Rrset {
        Rrset { ttl, data: Data::One(rdata) }
    }

    pub fn ttl(&self) -> Ttl {
        self.ttl
    }

    /// The same data with another TTL.
    pub fn with_ttl(&self, ttl: Ttl) -> Rrset {
        Rrset { ttl, ..self.clone() }
    }

    /// Sorted, without duplicates, at least one.
    pub fn rdata(&self) -> &[Rdata] {
        match &self.data {
            Data::One(rdata) => std::slice::from_ref(rdata),
            Data::Many(rdata) => rdata,
        }
    }

    pub fn contains(&self, rdata: &Rdata) -> bool {
        self.rdata().binary_search(rdata).is_ok()
    }

    /// Whether the data is the same, whatever the TTL.
    pub fn same_data(&self, other: &Rrset) -> bool {
        let is_shared = match (&self.data, &other.data) {
            (Data::Many(mine), Data::Many(others)) => Arc::ptr_eq(mine, others),
            _ => false,
        };
        is_shared || self.rdata() == other.rdata()
    }

    /// The data that is not in `other`.
    pub fn minus<'r>(&'r self, other: Option<&'r Rrset>) -> impl Iterator<Item = &'r Rdata> {
        self.rdata().iter().filter(move |rdata| !other.is_some_and(|set| set.contains(rdata)))
    }
}

#[cfg(test)]
thread_local! {
    /// How many RRsets this thread compared: what a walk through zones costs.
    pub(crate) static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl PartialEq for Rrset {
    fn eq(&self, other: &Rrset) -> bool {
        #[cfg(test)]
        COMPARED.set(COMPARED.get() + 1);
        self.ttl == other.ttl && self.same_data(other)
    }
}

impl Eq for Rrset {}

impl fmt::Debug for Rrset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.ttl, self.rdata())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_compare_around_the_circle() {
        assert!(Serial(1) < Serial(2));
        assert!(Serial(u32::MAX) < Serial(0));
        assert!(Serial(0) < Serial(0x7fff_ffff));
        assert_eq!(Serial(0).partial_cmp(&Serial(0x8000_0000)), None);
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped: IpAddr = "::ffff:10.1.0.9".parse().unwrap();
        assert_eq!(Rdata::of_address(mapped).to_string(), "10.1.0.9");
    }

    #[test]
    fn an_rrset_is_a_sorted_set() {
        let a = Rdata::A(Ipv4Addr::new(10, 0, 0, 2));
        let b = Rdata::A(Ipv4Addr::new(10, 0, 0, 1));
        let set = Rrset::new(Ttl::from_secs(60), vec![a.clone(), b.clone(), a.clone()]).unwrap();
        assert_eq!(set.rdata(), [b, a]);
        assert_eq!(Rrset::new(Ttl::ZERO, Vec::new()), None);
    }

    #[test]
    fn types_have_their_mnemonics() {
        assert_eq!(Type::SRV.to_string(), "SRV");
        assert_eq!(Type(65534).to_string(), "TYPE65534");
    }
}
