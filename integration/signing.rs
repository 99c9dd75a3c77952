//! Transaction signatures as a server makes them, RFC 8945, with HMAC-SHA256: written apart from
//! the program's own, so that either finds the other's mistakes.

use hmac::{Hmac, KeyInit, Mac};
use mesozone::name::Name;
use mesozone::rr::Type;
use mesozone::wire::{HEADER_LEN, Header, Reader};
use sha2::Sha256;

const FUDGE: u64 = 300;

/// A key that both sides have.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) name: Name,
    pub(crate) secret: Vec<u8>,
}

/// A request whose signature is right.
pub(crate) struct Opened {
    /// Without its TSIG record.
    pub(crate) message: Vec<u8>,
    pub(crate) mac: Vec<u8>,
}

impl Shared {
    /// Takes the signature off a request; none if there is none, or not by this key.
    pub(crate) fn open(&self, message: &[u8]) -> Option<Opened> {
        let (header, mut reader) = Reader::behind_question(message).ok()?;
        let count: u32 = header.counts[1..].iter().map(|count| u32::from(*count)).sum();
        for _ in 1..count {
            reader.skip_record().ok()?;
        }
        let start = reader.position();
        let record = reader.record().ok().filter(|record| record.rtype == Type::TSIG)?;
        let mut rdata = Reader::new(record.octets());
        rdata.skip_name().ok()?;
        let timers = rdata.take(8).ok()?;
        let length = rdata.u16().ok()?;
        let mac = rdata.take(length.into()).ok()?.to_vec();
        let mut message = message[..start].to_vec();
        message[10..HEADER_LEN].copy_from_slice(&(header.counts[3] - 1).to_be_bytes());
        let expected = self.mac(&[&message, &self.variables(timers)]);
        (record.owner == self.name && expected == mac).then_some(Opened { message, mac })
    }

    /// Signs an answer behind the signature before it: the request's, or that of the message
    /// before it in a transfer.
    pub(crate) fn sign(
        &self,
        answer: &mut Vec<u8>,
        prior: &[u8],
        first: bool,
        now: u64,
    ) -> Vec<u8> {
        let timers = [&now.to_be_bytes()[2..], &FUDGE.to_be_bytes()[6..]].concat();
        let end = if first { self.variables(&timers) } else { timers.clone() };
        let length = (prior.len() as u16).to_be_bytes();
        let mac = self.mac(&[&length, prior, answer, &end]);
        let id = [answer[0], answer[1]];
        let algorithm = algorithm();
        let octets = (mac.len() as u16).to_be_bytes();
        let rdata = [&algorithm[..], &timers, &octets, &mac, &id, &[0; 4]].concat();
        self.name.write(answer);
        answer.extend([0, 250, 0, 255, 0, 0, 0, 0]); // TSIG, ANY, TTL 0.
        answer.extend((rdata.len() as u16).to_be_bytes());
        answer.extend(rdata);
        let header = Header::parse(answer).expect("an answer has a header");
        answer[10..HEADER_LEN].copy_from_slice(&(header.counts[3] + 1).to_be_bytes());
        mac
    }

    fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length will do");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }

    /// Name, class ANY, TTL 0, algorithm, timers, no error, no other data.
    fn variables(&self, timers: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        self.name.write(&mut octets);
        [&octets[..], &[0, 255, 0, 0, 0, 0], &algorithm(), timers, &[0; 4]].concat()
    }
}

fn algorithm() -> Vec<u8> {
    [&[11], &b"hmac-sha256"[..], &[0]].concat()
}
