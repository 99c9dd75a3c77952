//! What a name server answers from a zone: plain questions, AXFR, and IXFR in each server's shape.

use std::cmp::Ordering;

use mesozone::name::Name;
use mesozone::rr::{Rdata, Serial, Ttl, Type};
use mesozone::wire::{CLASS_IN, Header, Rcode, Reader, Writer};

use super::zone::{Delta, Rr, Zone, octets, records, serial};
use crate::peer::Peer;

/// A question, as far as it is looked at.
pub(super) struct Question {
    id: u16,
    name: Name,
    rtype: Type,
    /// Of an IXFR: that of the client's zone.
    since: Option<Serial>,
}

impl Question {
    pub(super) fn read(message: &[u8]) -> Option<Question> {
        let (header, mut behind) = Reader::behind_question(message).ok()?;
        let mut reader = Reader::new(message);
        reader.take(12).ok()?;
        let (name, rtype) = (reader.name().ok()?, Type(reader.u16().ok()?));
        let since = match header.counts[2] {
            0 => None,
            _ => behind.record().ok().and_then(|record| record.soa_serial().ok()),
        };
        Some(Question { id: header.id, name, rtype, since })
    }

    pub(super) fn is_transfer(&self) -> bool {
        matches!(self.rtype, Type::AXFR | Type::IXFR)
    }

    fn message(&self, rcode: Rcode, answers: &[Rr]) -> Vec<u8> {
        let mut writer = Writer::new(self.id, Header::QR | Header::AA | rcode.0);
        writer.question(&self.name, self.rtype, CLASS_IN);
        for rr in answers {
            let rdata = Rdata::Other(rr.rdata.clone().into());
            let key = (&rr.owner, rr.rtype, CLASS_IN);
            writer.record(1, key, Ttl::from_secs(rr.ttl), Some(&rdata));
        }
        writer.finish()
    }
}

/// Every message of the answer, `records_max` records in each of a transfer.
pub(super) fn answers(zone: &Zone, question: &Question, records_max: usize) -> Vec<Vec<u8>> {
    if question.is_transfer() {
        if question.name != zone.apex {
            return vec![question.message(Rcode::NOTAUTH, &[])];
        }
        let parts = match question.since.filter(|_| question.rtype == Type::IXFR) {
            Some(since) => incremental(zone, since),
            None => whole(zone),
        };
        let chunks = parts.iter().flat_map(|part| part.chunks(records_max.max(1)));
        return chunks.map(|chunk| question.message(Rcode::NOERROR, chunk)).collect();
    }
    if !question.name.is_within(&zone.apex) {
        return vec![question.message(Rcode::REFUSED, &[])];
    }
    let key = (question.name.clone(), question.rtype);
    let found = zone.content.get(&key).map(|set| (key, set.clone()));
    let found: Vec<Rr> = records(&found.into_iter().collect()).collect();
    let exists = zone.content.keys().any(|(owner, _)| owner.is_within(&question.name));
    let rcode = if exists { Rcode::NOERROR } else { Rcode::NXDOMAIN };
    vec![question.message(rcode, &found)]
}

/// From SOA to SOA; PowerDNS sends the first in a message of its own.
fn whole(zone: &Zone) -> Vec<Vec<Rr>> {
    let soa = zone.soa();
    let plain = records(&zone.content).filter(|rr| rr.rtype != Type::SOA);
    let rest: Vec<Rr> = plain.chain([soa.clone()]).collect();
    match zone.peer {
        Peer::PowerDns => vec![vec![soa], rest],
        Peer::Bind | Peer::Knot => vec![[vec![soa], rest].concat()],
    }
}

fn incremental(zone: &Zone, since: Serial) -> Vec<Vec<Rr>> {
    let soa = zone.soa();
    let ours = zone.serial();
    match since.partial_cmp(&ours) {
        Some(Ordering::Less) => {}
        Some(Ordering::Equal | Ordering::Greater) => return vec![vec![soa]],
        None => return whole(zone),
    }
    let from = zone.journal.iter().position(|delta| serial(&delta.from) == since);
    let Some(from) = from.filter(|_| zone.peer != Peer::PowerDns) else { return whole(zone) };
    // BIND's `max-ixfr-ratio` of 100 %.
    let journal: usize = zone.journal.iter().skip(from).map(Delta::octets).sum();
    if zone.peer == Peer::Bind && journal * 100 / octets(&zone.content) > 100 {
        return whole(zone);
    }
    let mut answer = vec![soa.clone()];
    for delta in zone.journal.iter().skip(from) {
        answer.push(delta.from.clone());
        answer.extend(delta.deleted.iter().cloned());
        answer.push(delta.to.clone());
        answer.extend(delta.added.iter().cloned());
    }
    answer.push(soa);
    vec![answer]
}
