//! Questions that tell what a key may do and what a clock says, and that change nothing: updates
//! that could change nothing even where they are carried out, and questions signed at other times.

use crate::name::{Name, NameError};
use crate::rr::{Rdata, Ttl, Type};
use crate::scope::{Scope, Space};
use crate::tsig::Stamp;
use crate::wire::{CLASS_ANY, CLASS_IN, CLASS_NONE, OPCODE_UPDATE, Rcode, Writer};

/// The types that a key has to be allowed to update.
pub fn types(space: Space) -> Vec<Type> {
    space.types().iter().copied().chain([Type::TXT]).collect()
}

/// Where a right is tried.
pub struct Place<'p> {
    pub zone: &'p Name,
    /// In the space, where nothing is.
    pub absent: &'p Name,
    /// The only name that needs TXT.
    pub fence: &'p Name,
}

impl<'p> Place<'p> {
    fn of(&self, rtype: Type) -> &'p Name {
        if rtype == Type::TXT { self.fence } else { self.absent }
    }
}

/// A name in the space that nobody has.
pub fn absent_name(scope: &Scope, random: u64) -> Result<Name, NameError> {
    let parent = if scope.space == Space::Reverse { &scope.zone } else { &scope.domain };
    parent.child(format!("mesozone-check-{random:016x}").as_bytes())
}

/// Data that no record has.
fn data(rtype: Type, absent: &Name) -> Rdata {
    match rtype {
        // RFC 5737 and RFC 3849: addresses that nobody has.
        Type::A => Rdata::A([192, 0, 2, 1].into()),
        Type::AAAA => Rdata::Aaaa([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
        Type::SRV => Rdata::Srv { priority: 0, weight: 0, port: 0, target: absent.clone() },
        Type::PTR => Rdata::Ptr(absent.clone()),
        _ => {
            let text = absent.labels().next().unwrap_or_default();
            // A label has at most 63 octets.
            Rdata::Other([&[text.len() as u8], &*text].concat().into())
        }
    }
}

/// Updates, not yet signed, that a server refuses to a key without the right to this type, each
/// with an id of `ids`. It takes two, because
///
/// - the deletion of a record that is not there is refused by Knot and PowerDNS, and by BIND but
///   for SRV and PTR, where BIND looks only at what is there;
/// - an addition whose prerequisites cannot hold is refused by BIND, which looks at rights first
///   (since 9.16.37 and 9.18.11), but not by PowerDNS, which looks at the prerequisites first.
pub fn updates(place: &Place<'_>, rtype: Type, ids: [u16; 2]) -> Vec<Vec<u8>> {
    let (name, data) = (place.of(rtype), data(rtype, place.absent));
    let message = |id| {
        let mut writer = Writer::new(id, u16::from(OPCODE_UPDATE) << 11);
        writer.question(place.zone, Type::SOA, CLASS_IN);
        writer
    };
    let mut deletion = message(ids[0]);
    deletion.record(2, (name, rtype, CLASS_NONE), Ttl::ZERO, Some(&data));
    let mut messages = vec![deletion.finish()];
    if [Type::SRV, Type::PTR].contains(&rtype) {
        let mut addition = message(ids[1]);
        // RFC 2136, sections 2.4.1 and 2.4.3: the RRset is there and is not. One of them fails even
        // where a wildcard were to count.
        addition.record(1, (name, rtype, CLASS_ANY), Ttl::ZERO, None);
        addition.record(1, (name, rtype, CLASS_NONE), Ttl::ZERO, None);
        addition.record(2, (name, rtype, CLASS_IN), Ttl::ZERO, Some(&data));
        messages.push(addition.finish());
    }
    messages
}

/// Whether the answer to one of [`updates`] means that the key has the right.
pub fn grants(rcode: Rcode) -> bool {
    // The others for prerequisites that cannot hold.
    [Rcode::NOERROR, Rcode::NXRRSET, Rcode::YXRRSET].contains(&rcode)
}

/// Seconds by which clocks are known to differ, ahead of ours above zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skew {
    pub least: i64,
    pub most: i64,
}

/// Beyond this a skew is worth a warning: of the fudge, little is left for delays.
pub const SKEW_MAX: i64 = 60;
/// How exactly a clock that nobody tells is asked for.
const SKEW_EXACT: i64 = 30;

impl Skew {
    pub fn exactly(seconds: i64) -> Skew {
        Skew { least: seconds, most: seconds }
    }

    /// Of a server that took a signature with this fudge.
    pub fn within(fudge: u16) -> Skew {
        Skew { least: -i64::from(fudge), most: i64::from(fudge) }
    }

    /// The signature that halves what is not known: by a server's taking it or not. None once it
    /// is known well enough.
    pub fn question(self, now: u64) -> Option<Stamp> {
        let below = self.below();
        let (middle, half) = ((below.least + below.most).div_euclid(2), below.width() / 2 + 1);
        let time = now.checked_add_signed(middle).filter(|_| self.width() > SKEW_EXACT)?;
        Some(Stamp { time, fudge: u16::try_from(half).unwrap_or(u16::MAX) })
    }

    /// What is known after the server took that signature, or did not.
    pub fn narrowed(self, taken: Taken) -> Skew {
        match taken {
            Taken::Yes => self.below(),
            Taken::No => Skew { least: self.below().most, ..self },
        }
    }

    fn below(self) -> Skew {
        Skew { most: (self.least + self.most).div_euclid(2), ..self }
    }

    fn width(self) -> i64 {
        self.most - self.least
    }

    /// The middle of what is known.
    pub fn seconds(self) -> i64 {
        (self.least + self.most) / 2
    }

    /// Whether signatures are still good, and will be tomorrow.
    pub fn is_small(self) -> bool {
        self.seconds().abs() < SKEW_MAX
    }
}

/// Whether a server took a signature for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Reader;

    fn messages(rtype: Type) -> Vec<Vec<u8>> {
        let [zone, absent, fence] =
            ["mesos", "x.mesos", "_mesozone.mesos"].map(|text| text.parse().unwrap());
        updates(&Place { zone: &zone, absent: &absent, fence: &fence }, rtype, [1, 2])
    }

    #[test]
    fn no_probe_adds_anything_without_prerequisites_that_cannot_hold() {
        for rtype in [types(Space::Below), types(Space::Reverse)].concat() {
            for message in messages(rtype) {
                let (header, mut reader) = Reader::behind_question(&message).unwrap();
                let needed: Vec<u16> = (0..header.counts[1])
                    .map(|_| reader.record().unwrap())
                    .inspect(|needed| assert_eq!(needed.owner, "x.mesos".parse().unwrap()))
                    .map(|needed| needed.class)
                    .collect();
                let step = reader.record().unwrap();
                assert_eq!((step.rtype, header.counts[2]), (rtype, 1));
                assert!(step.class == CLASS_NONE || needed == [CLASS_ANY, CLASS_NONE], "{rtype}");
                assert!(reader.is_at_end());
            }
        }
        assert_eq!([Type::SRV, Type::PTR].map(|rtype| messages(rtype).len()), [2, 2]);
    }

    /// Asks a server whose clock is so far ahead, and that never tells its time.
    fn found(ahead: i64, fudge: u16) -> Skew {
        let (now, mut skew) = (1_800_000_000, Skew::within(fudge));
        let mut questions = 0;
        while let Some(stamp) = skew.question(now) {
            let off = now as i64 + ahead - stamp.time as i64;
            let taken = if off.abs() <= i64::from(stamp.fudge) { Taken::Yes } else { Taken::No };
            skew = skew.narrowed(taken);
            questions += 1;
        }
        assert!(questions <= 13, "{questions}");
        skew
    }

    #[test]
    fn a_clock_that_is_not_told_is_found_by_halving() {
        for ahead in [-40_000, -3_601, -299, -60, -1, 0, 1, 45, 120, 300] {
            let skew = found(ahead, if ahead.abs() > 300 { u16::MAX } else { 300 });
            assert!((skew.seconds() - ahead).abs() <= SKEW_EXACT, "{ahead}: {skew:?}");
        }
        assert!(found(0, 300).is_small() && !found(120, 300).is_small());
    }
}
