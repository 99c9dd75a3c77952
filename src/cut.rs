//! RRsets larger than a server takes: which of their records are published.

use sha1::{Digest, Sha1};

use crate::rr::{Rdata, Rrset};

/// What BIND takes in an RRset unless told otherwise (`max-records-per-type`).
pub const RECORD_MAX_OF_BIND: usize = 100;

/// How large an RRset may become; none: whatever it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RrsetLimit {
    pub record_max: Option<usize>,
    /// As answered: twelve octets a record and its data.
    pub octets_max: Option<usize>,
    /// To so many records an earlier process may have had to cut: what it left is not tried
    /// again until it changes.
    pub earlier_max: Option<usize>,
}

impl RrsetLimit {
    /// All of `old`, with the TTL of `new` and as much of it as fits.
    pub fn grown(&self, old: &Rrset, new: &Rrset) -> Rrset {
        let record_max =
            self.record_max.or(self.earlier_max.filter(|max| old.rdata().len() == *max));
        let mut data = old.rdata().to_vec();
        let mut size: usize = data.iter().map(octets).sum();
        for rdata in new.minus(Some(old)) {
            size += octets(rdata);
            if record_max.is_some_and(|max| data.len() >= max)
                || self.octets_max.is_some_and(|max| size > max)
            {
                break;
            }
            data.push(rdata.clone());
        }
        Rrset::new(new.ttl(), data).unwrap_or_else(|| old.clone())
    }

    /// Whether `old` is what an earlier process cut `wanted` to.
    pub fn is_earlier_cut(&self, old: &Rrset, wanted: &Rrset) -> bool {
        self.earlier_max.is_some_and(|max| {
            let limit = RrsetLimit { record_max: Some(max), ..RrsetLimit::default() };
            old.rdata().len() == max && wanted.rdata().len() > max && cut(wanted, limit) == *old
        })
    }
}

/// Octets of a record in an answer, its owner compressed.
fn octets(rdata: &Rdata) -> usize {
    12 + rdata.wire_len()
}

/// Those records of a large RRset that have the lowest hash: the same ones on every run, and
/// one that leaves is replaced by one.
pub fn cut(set: &Rrset, limit: RrsetLimit) -> Rrset {
    let record_max = limit.record_max.unwrap_or(usize::MAX);
    let octets_max = limit.octets_max.unwrap_or(usize::MAX);
    let size: usize = set.rdata().iter().map(octets).sum();
    if set.rdata().len() <= record_max && size <= octets_max {
        return set.clone();
    }
    let hash = |rdata: &Rdata| -> [u8; 20] {
        let mut octets = Vec::with_capacity(64);
        rdata.write(&mut octets);
        Sha1::digest(&octets).into()
    };
    let mut hashed: Vec<_> = set.rdata().iter().map(|rdata| (hash(rdata), rdata)).collect();
    hashed.sort_unstable();
    let mut size = 0;
    let fits = |(_, rdata): &([u8; 20], &Rdata)| {
        size += octets(rdata);
        size <= octets_max
    };
    let kept = hashed.into_iter().take(record_max).take_while(fits);
    let kept = kept.map(|(_, rdata)| rdata.clone()).collect();
    Rrset::new(set.ttl(), kept).unwrap_or_else(|| set.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::Ttl;
    use std::net::Ipv4Addr;

    fn set(ttl: u32, numbers: impl IntoIterator<Item = u8>) -> Rrset {
        let data = numbers.into_iter().map(|n| Rdata::A(Ipv4Addr::new(10, 0, 0, n)));
        Rrset::new(Ttl::from_secs(ttl), data.collect()).unwrap()
    }

    #[test]
    fn an_rrset_that_only_grows_stays_within_its_limit() {
        let grown =
            |limit: RrsetLimit| limit.grown(&set(60, [1, 2, 3]), &set(30, [3, 4, 5])).rdata().len();
        assert_eq!(grown(RrsetLimit::default()), 5);
        assert_eq!(grown(RrsetLimit { record_max: Some(4), ..RrsetLimit::default() }), 4);
        assert_eq!(grown(RrsetLimit { earlier_max: Some(3), ..RrsetLimit::default() }), 3);
        assert_eq!(grown(RrsetLimit { octets_max: Some(70), ..RrsetLimit::default() }), 4);
    }

    #[test]
    fn a_large_rrset_is_cut_the_same_way_each_time() {
        let (large, smaller) = (set(60, 1..151), set(60, 1..150));
        let limit = RrsetLimit { record_max: Some(100), ..RrsetLimit::default() };
        assert_eq!(cut(&large, limit).rdata().len(), 100);
        assert!(cut(&large, limit).minus(Some(&cut(&smaller, limit))).count() <= 1);
        let octets = RrsetLimit { octets_max: Some(16 * 70 + 5), ..RrsetLimit::default() };
        assert_eq!(cut(&large, octets).rdata().len(), 70);
    }
}
