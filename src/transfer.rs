//! Zone transfers as a state machine: AXFR (RFC 5936) and IXFR (RFC 1995) in each shape that
//! servers answer. Takes verified messages; anything but the first SOA to the same SOA is an error.

use std::cmp::Ordering;

use crate::name::Name;
use crate::rr::{Serial, Type};
use crate::wire::{Header, Rcode, Reader, Record, WireError};

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    Axfr,
    /// Everything since this serial.
    Ixfr(Serial),
    /// The same, but not the whole zone in place of differences.
    Differences(Serial),
}

/// What a finished transfer was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The zone still has the serial asked from.
    UpToDate,
    /// The whole zone; its records went out as [`Item::Record`].
    Whole(Serial),
    /// Differences up to this serial; they went out as [`Item::Deleted`] and [`Item::Added`].
    Differences(Serial),
    /// The whole zone is on its way in place of the differences that alone were wanted.
    WholeComing,
    /// The server cannot tell what changed since: ask for the whole zone.
    AskAxfr,
}

/// A record on its way, in the order of the transfer.
pub enum Item<'r, 'm> {
    Record(&'r Record<'m>),
    Deleted(&'r Record<'m>),
    Added(&'r Record<'m>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("the server answered {0}{hint}", hint = refusal_hint(*.0))]
    Refused(Rcode),
    #[error("the transfer does not begin with the zone's SOA")]
    NoSoa,
    #[error("the transfer goes on behind its end")]
    BehindEnd,
    #[error("the zone changed in the middle of its transfer: SOA {0}, then {1}")]
    Changed(Serial, Serial),
    #[error("the record {0} lies outside the zone")]
    Outside(Name),
    #[error("the transfer has an empty message")]
    Empty,
    #[error(transparent)]
    Wire(#[from] WireError),
}

fn refusal_hint(rcode: Rcode) -> &'static str {
    match rcode {
        Rcode::REFUSED => ": it does not allow this key to transfer the zone",
        Rcode::NOTAUTH => ": it is not authoritative for the zone",
        _ => "",
    }
}

/// A transfer under way.
pub struct Transfer {
    zone: Name,
    ask: Ask,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Start,
    /// Only the first SOA has come.
    First(Serial),
    Whole(Serial),
    /// Between an old SOA and the SOA that ends the deletions.
    Deleting {
        last: Serial,
        from: Serial,
    },
    /// Behind the SOA of `to`, up to the next old SOA or the end.
    Adding {
        last: Serial,
        to: Serial,
    },
    Done,
}

impl Transfer {
    pub fn new(zone: Name, ask: Ask) -> Transfer {
        Transfer { zone, ask, state: State::Start }
    }

    /// Takes the next message; its records go to `sink`. Some once the transfer is finished.
    pub fn take(
        &mut self,
        message: &[u8],
        sink: &mut impl FnMut(Item<'_, '_>) -> Result<(), WireError>,
    ) -> Result<Option<Outcome>, TransferError> {
        let (header, mut reader) = Reader::behind_question(message)?;
        if header.rcode() != Rcode::NOERROR {
            return self.refused(&header);
        }
        if header.counts[1] == 0 {
            return Err(TransferError::Empty);
        }
        let mut outcome = None;
        for _ in 0..header.counts[1] {
            if outcome.is_some() {
                return Err(TransferError::BehindEnd);
            }
            let record = reader.record()?;
            if !record.owner.is_within(&self.zone) {
                return Err(TransferError::Outside(record.owner));
            }
            outcome = match record.rtype == Type::SOA && record.owner == self.zone {
                true => self.soa(record.soa_serial()?, &record, sink)?,
                false => self.record(&record, sink)?,
            };
        }
        Ok(outcome.or_else(|| self.early_end()))
    }

    /// A server that cannot do IXFR is asked for the whole zone.
    fn refused(&self, header: &Header) -> Result<Option<Outcome>, TransferError> {
        match (self.ask, header.rcode()) {
            (Ask::Axfr, rcode) => Err(TransferError::Refused(rcode)),
            (_, Rcode::NOTIMP | Rcode::FORMERR | Rcode::SERVFAIL) => Ok(Some(Outcome::AskAxfr)),
            (_, rcode) => Err(TransferError::Refused(rcode)),
        }
    }

    /// What the end of a message tells. A first one that is one SOA: up to date if it equals ours;
    /// newer, and the whole zone follows (PowerDNS); else the zone went back.
    fn early_end(&self) -> Option<Outcome> {
        match (self.state, self.ask) {
            (State::Whole(_), Ask::Differences(_)) => Some(Outcome::WholeComing),
            (State::First(serial), Ask::Ixfr(ours) | Ask::Differences(ours)) => {
                match serial.partial_cmp(&ours) {
                    Some(Ordering::Equal) => Some(Outcome::UpToDate),
                    Some(Ordering::Greater) => None,
                    Some(Ordering::Less) | None => Some(Outcome::AskAxfr),
                }
            }
            _ => None,
        }
    }

    fn soa(
        &mut self,
        serial: Serial,
        record: &Record<'_>,
        sink: &mut impl FnMut(Item<'_, '_>) -> Result<(), WireError>,
    ) -> Result<Option<Outcome>, TransferError> {
        let (state, outcome) = match (self.state, self.ask) {
            (State::Start, _) => (State::First(serial), None),
            (State::First(last), Ask::Ixfr(ours) | Ask::Differences(ours))
                if serial == ours && serial != last =>
            {
                (State::Deleting { last, from: serial }, None)
            }
            (State::First(last) | State::Whole(last), _) if serial == last => {
                sink(Item::Record(record))?;
                (State::Done, Some(Outcome::Whole(last)))
            }
            (State::First(_), Ask::Ixfr(_) | Ask::Differences(_)) => {
                (State::Done, Some(Outcome::AskAxfr))
            }
            (State::First(last) | State::Whole(last), _) => {
                return Err(TransferError::Changed(last, serial));
            }
            (State::Deleting { last, .. }, _) => (State::Adding { last, to: serial }, None),
            (State::Adding { last, to }, _) if to == last && serial == last => {
                (State::Done, Some(Outcome::Differences(last)))
            }
            (State::Adding { last, to }, _) if serial == to => {
                (State::Deleting { last, from: serial }, None)
            }
            (State::Adding { .. }, _) => (State::Done, Some(Outcome::AskAxfr)),
            (State::Done, _) => return Err(TransferError::BehindEnd),
        };
        self.state = state;
        Ok(outcome)
    }

    fn record(
        &mut self,
        record: &Record<'_>,
        sink: &mut impl FnMut(Item<'_, '_>) -> Result<(), WireError>,
    ) -> Result<Option<Outcome>, TransferError> {
        match self.state {
            State::Start => return Err(TransferError::NoSoa),
            State::First(last) => {
                self.state = State::Whole(last);
                sink(Item::Record(record))?;
            }
            State::Whole(_) => sink(Item::Record(record))?,
            State::Deleting { .. } => sink(Item::Deleted(record))?,
            State::Adding { .. } => sink(Item::Added(record))?,
            State::Done => return Err(TransferError::BehindEnd),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::{Rdata, Ttl};
    use crate::wire::{CLASS_IN, Writer};
    use std::sync::Arc;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// A message of records written `5` for an SOA of that serial, `a` for another record.
    fn message(records: &str) -> Vec<u8> {
        let mut writer = Writer::new(1, Header::QR);
        for word in records.split_whitespace() {
            match word.parse::<u32>() {
                Ok(serial) => {
                    let rest = [serial, 60, 60, 60, 60].map(u32::to_be_bytes).concat();
                    let soa = Rdata::Other(Arc::from([&[0, 0][..], &rest].concat()));
                    writer.record(1, (&name("mesos"), Type::SOA, CLASS_IN), Ttl::ZERO, Some(&soa));
                }
                Err(_) => {
                    let octets = Rdata::Other(Arc::from([0x7f, 0, 0, 1]));
                    let owner = name(word);
                    writer.record(1, (&owner, Type::A, CLASS_IN), Ttl::ZERO, Some(&octets));
                }
            }
        }
        writer.finish()
    }

    /// Plays `messages`, separated by `|`, and writes what came out: `+a` added, `-a` deleted.
    #[track_caller]
    fn check(
        ask: Ask,
        messages: &str,
        seen: &str,
        expected: Result<Option<Outcome>, TransferError>,
    ) {
        let mut transfer = Transfer::new(name("mesos"), ask);
        let mut out: Vec<String> = Vec::new();
        let mut result = Ok(None);
        for text in messages.split('|') {
            assert_eq!(result, Ok(None), "went on behind the outcome");
            result = transfer.take(&message(text), &mut |item| {
                let (sign, record) = match item {
                    Item::Record(record) => ("", record),
                    Item::Deleted(record) => ("-", record),
                    Item::Added(record) => ("+", record),
                };
                if record.rtype != Type::SOA {
                    out.push(format!("{sign}{}", record.owner.to_string().replace(".mesos.", "")));
                }
                Ok(())
            });
        }
        assert_eq!(result, expected, "{messages}");
        assert_eq!(out.join(" "), seen, "{messages}");
    }

    #[test]
    fn axfr_goes_from_soa_to_the_same_soa() {
        let whole = || Ok(Some(Outcome::Whole(Serial(5))));
        check(Ask::Axfr, "5 a.mesos b.mesos 5", "a b", whole());
        check(Ask::Axfr, "5|a.mesos|b.mesos 5", "a b", whole());
        check(Ask::Axfr, "5 5", "", whole());
        check(Ask::Axfr, "5 a.mesos", "a", Ok(None));
        check(Ask::Axfr, "5", "", Ok(None));
        check(Ask::Axfr, "a.mesos 5", "", Err(TransferError::NoSoa));
        check(Ask::Axfr, "5 a.mesos 6", "a", Err(TransferError::Changed(Serial(5), Serial(6))));
        check(Ask::Axfr, "5 a.mesos 5 b.mesos", "a", Err(TransferError::BehindEnd));
        check(Ask::Axfr, "5 a.other", "", Err(TransferError::Outside(name("a.other"))));
        check(Ask::Axfr, "", "", Err(TransferError::Empty));
    }

    #[test]
    fn ixfr_comes_in_three_shapes() {
        let ask = Ask::Ixfr(Serial(5));
        let to = |serial| Ok(Some(Outcome::Differences(Serial(serial))));
        check(ask, "5", "", Ok(Some(Outcome::UpToDate)));
        check(ask, "6 5 a.mesos 6 b.mesos 6", "-a +b", to(6));
        check(ask, "7 5 a.mesos 6 b.mesos|6 7 c.mesos 7", "-a +b +c", to(7));
        check(ask, "7 5 a.mesos|6 6 b.mesos 7|7", "-a -b", to(7));
        check(ask, "6 a.mesos 6", "a", Ok(Some(Outcome::Whole(Serial(6)))));
        check(ask, "6|a.mesos 6", "a", Ok(Some(Outcome::Whole(Serial(6)))));
        check(ask, "6|6", "", Ok(Some(Outcome::Whole(Serial(6)))));
    }

    #[test]
    fn who_wants_differences_alone_waits_for_no_whole_zone() {
        let ask = Ask::Differences(Serial(5));
        check(ask, "6 5 a.mesos 6 b.mesos 6", "-a +b", Ok(Some(Outcome::Differences(Serial(6)))));
        check(ask, "6 a.mesos", "a", Ok(Some(Outcome::WholeComing)));
        check(ask, "6|a.mesos b.mesos", "a b", Ok(Some(Outcome::WholeComing)));
        check(ask, "5", "", Ok(Some(Outcome::UpToDate)));
        check(ask, "4", "", Ok(Some(Outcome::AskAxfr)));
    }

    #[test]
    fn what_does_not_follow_from_our_serial_asks_for_the_whole() {
        let ask = Ask::Ixfr(Serial(5));
        check(ask, "4", "", Ok(Some(Outcome::AskAxfr)));
        check(ask, "2147483653", "", Ok(Some(Outcome::AskAxfr)));
        check(ask, "7 6", "", Ok(Some(Outcome::AskAxfr)));
        check(ask, "7 5 6 8", "", Ok(Some(Outcome::AskAxfr)));
    }

    #[test]
    fn a_refusal_is_told_in_words() {
        let refused = Writer::new(1, Header::QR | 5).finish();
        let mut transfer = Transfer::new(name("mesos"), Ask::Axfr);
        let error = transfer.take(&refused, &mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("REFUSED: it does not allow this key"));
        let unable = Writer::new(1, Header::QR | 4).finish();
        let mut transfer = Transfer::new(name("mesos"), Ask::Ixfr(Serial(1)));
        assert_eq!(transfer.take(&unable, &mut |_| Ok(())), Ok(Some(Outcome::AskAxfr)));
    }
}
