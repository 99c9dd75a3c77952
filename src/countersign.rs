//! A server's side of transaction signatures, RFC 8945, section 5: verifying what is asked, signing
//! what is answered, refusing signatures in words that clients understand.

use crate::name::Name;
use crate::tsig::{FUDGE, Key, Mac, Signature, Variables, append, equal};
use crate::wire::{HEADER_LEN, Header, Rcode, Reader, WireError};

const BADSIG: u16 = 16;
const BADKEY: u16 = 17;
const BADTIME: u16 = 18;
const BADTRUNC: u16 = 22;
/// No code of fewer octets is one at all, RFC 8945, section 5.2.2.1.
const MAC_MIN: usize = 10;

/// A request, looked at for its signature.
#[derive(Debug)]
pub enum Opened<'k> {
    Unsigned,
    /// It is not one that can be verified: FORMERR.
    Malformed,
    /// The request as it was before it was signed, and who signs the answer.
    Signed(Vec<u8>, Countersigner<'k>),
    Refused(Refusal<'k>),
}

/// Signs the messages of one answer, each on top of those before it.
#[derive(Debug)]
pub struct Countersigner<'k> {
    key: &'k Key,
    prior: Mac,
    is_first: bool,
}

/// Why a signature is refused, with what the answer repeats of it.
#[derive(Debug)]
pub struct Refusal<'k> {
    key_name: Name,
    algorithm: Name,
    time: u64,
    fudge: u16,
    error: u16,
    /// Our time, where the clocks differ.
    other: Vec<u8>,
    /// Where the client has proved that it has the key, the answer is signed.
    signer: Option<Countersigner<'k>>,
}

/// Verifies the signature at a request's end, at `now`, in seconds since 1970.
pub fn open<'k>(request: &[u8], key: Option<&'k Key>, now: u64) -> Opened<'k> {
    let read = Header::parse(request).and_then(|header| {
        Ok(Signature::find(request, &header)?.map(|signature| (header, signature)))
    });
    match read {
        Ok(Some((header, found))) => check(request, &header, &found, key, now),
        Ok(None) => Opened::Unsigned,
        Err(_) => Opened::Malformed,
    }
}

/// Key, code, time and length are looked at in this order, RFC 8945, section 5.2.
fn check<'k>(
    request: &[u8],
    header: &Header,
    found: &Signature<'_>,
    key: Option<&'k Key>,
    now: u64,
) -> Opened<'k> {
    let refused = |error, signer: Option<Countersigner<'k>>| {
        let other = match error {
            BADTIME => now.to_be_bytes()[2..].to_vec(),
            _ => Vec::new(),
        };
        let (key_name, algorithm) = (found.key_name.clone(), found.algorithm.clone());
        let (time, fudge) = (found.time, found.fudge);
        Opened::Refused(Refusal { key_name, algorithm, time, fudge, error, other, signer })
    };
    let known =
        |key: &&Key| *key.name() == found.key_name && key.algorithm.name() == found.algorithm;
    let Some(key) = key.filter(known) else { return refused(BADKEY, None) };
    let full_len = key.algorithm.full_len();
    if !(MAC_MIN.max(full_len / 2)..=full_len).contains(&found.mac.len()) {
        // A client that has been refused, or sends no code at all, is none that could read more.
        return if found.mac.is_empty() { refused(BADSIG, None) } else { Opened::Malformed };
    }
    let stripped = found.strip(request, header);
    let (time, fudge, error, other) = (found.time, found.fudge, found.error, found.other);
    let variables = Variables { time, fudge, error, other };
    let expected = key.mac(&[&stripped, &variables.whole(key)]);
    if !equal(&expected[..found.mac.len()], found.mac) {
        return refused(BADSIG, None);
    }
    let signer = Countersigner { key, prior: Mac(found.mac.to_vec()), is_first: true };
    if now.abs_diff(found.time) > u64::from(found.fudge) {
        return refused(BADTIME, Some(signer));
    }
    match found.mac.len() < key.mac_len {
        true => refused(BADTRUNC, Some(signer)),
        false => Opened::Signed(stripped, signer),
    }
}

impl Countersigner<'_> {
    /// Octets that signing adds to each message.
    pub fn signature_len(&self) -> usize {
        self.key.signature_len()
    }

    /// Signs the next message of the answer, finished but for this.
    pub fn sign(&mut self, message: &mut Vec<u8>, now: u64) {
        self.sign_with(message, &Variables { time: now, fudge: FUDGE, error: 0, other: &[] });
    }

    fn sign_with(&mut self, message: &mut Vec<u8>, variables: &Variables<'_>) {
        let end = if self.is_first { variables.whole(self.key) } else { variables.timers() };
        let prior_len = (self.prior.0.len() as u16).to_be_bytes(); // At most 64.
        let mac = self.key.cut_mac(&[&prior_len, &self.prior.0, message, &end]);
        append(message, (self.key.name(), &self.key.algorithm.name()), variables, &mac.0);
        (self.prior, self.is_first) = (mac, false);
    }
}

impl Refusal<'_> {
    /// The answer to the request whose signature is refused, RFC 8945, section 5.3.2.
    pub fn answer(mut self, request: &[u8]) -> Result<Vec<u8>, WireError> {
        let mut message = error(request, Rcode::NOTAUTH)?;
        let (time, fudge, error) = (self.time, self.fudge, self.error);
        let variables = Variables { time, fudge, error, other: &self.other };
        match &mut self.signer {
            Some(signer) => signer.sign_with(&mut message, &variables),
            None => append(&mut message, (&self.key_name, &self.algorithm), &variables, &[]),
        }
        Ok(message)
    }
}

/// An answer to a request that is this code and the question.
pub fn error(request: &[u8], rcode: Rcode) -> Result<Vec<u8>, WireError> {
    let (header, reader) = Reader::behind_question(request)?;
    let flags = Header::QR | header.flags & (Header::OPCODE | Header::RD) | rcode.0;
    // Thousands of them would leave no room for a signature.
    let is_one = header.counts[0] == 1;
    let mut message = request[..if is_one { reader.position() } else { HEADER_LEN }].to_vec();
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[4..HEADER_LEN].fill(0);
    message[5] = u8::from(is_one);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::Type;
    use crate::tsig::{Stamp, TsigError, Verifier, sign, sign_at};
    use crate::wire::{CLASS_IN, Writer};
    use domain::base::{Message, MessageBuilder};
    use domain::rdata::tsig::Time48;
    use domain::tsig as oracle;

    const NOW: u64 = 1_800_000_000;

    fn key(name: &str, algorithm: &str, secret: &str) -> Key {
        let text = format!("key {name} {{ algorithm {algorithm}; secret \"{secret}\"; }};");
        Key::parse(&text).unwrap()
    }

    fn usual(algorithm: &str) -> Key {
        key("k", algorithm, "qvn1CquTPVExE7Spq9HjVHqTGGrDAEdqCzrKVZF2YnA=")
    }

    fn request() -> Vec<u8> {
        let mut writer = Writer::new(4711, Header::RD);
        writer.question(&"mesos".parse().unwrap(), Type::SOA, CLASS_IN);
        writer.finish()
    }

    fn reply() -> Vec<u8> {
        let mut reply = request();
        reply[2] |= 0x80;
        reply
    }

    #[test]
    fn what_a_client_signs_is_answered_so_that_it_verifies() {
        for algorithm in
            ["hmac-sha1", "hmac-sha224", "hmac-sha256-128", "hmac-sha384", "hmac-sha512"]
        {
            let key = usual(algorithm);
            let mut asked = request();
            let mac = sign(&mut asked, &key, NOW);
            let Opened::Signed(stripped, mut signer) = open(&asked, Some(&key), NOW + 300) else {
                panic!("{algorithm} is refused");
            };
            assert_eq!(stripped, request());
            let mut verifier = Verifier::new(&key, mac);
            for at in 0..3 {
                let mut message = reply();
                signer.sign(&mut message, NOW + at);
                assert_eq!(message.len(), reply().len() + signer.signature_len());
                verifier.take(&message, NOW).unwrap();
            }
            verifier.finish().unwrap();
        }
    }

    #[test]
    fn the_domain_crate_verifies_each_message_of_an_answer() {
        let key = usual("hmac-sha256");
        let secret = [
            0xaa, 0xf9, 0xf5, 0x0a, 0xab, 0x93, 0x3d, 0x51, 0x31, 0x13, 0xb4, 0xa9, 0xab, 0xd1,
            0xe3, 0x54, 0x7a, 0x93, 0x18, 0x6a, 0xc3, 0x00, 0x47, 0x6a, 0x0b, 0x3a, 0xca, 0x55,
            0x91, 0x76, 0x62, 0x70,
        ];
        let name = "k".parse().unwrap();
        let theirs =
            oracle::Key::new(oracle::Algorithm::Sha256, &secret, name, None, None).unwrap();
        let mut asked = MessageBuilder::new_vec().additional();
        let time = Time48::from_u64(NOW);
        let mut client = oracle::ClientSequence::request(&theirs, &mut asked, time).unwrap();
        let Opened::Signed(_, mut signer) = open(&asked.finish(), Some(&key), NOW) else {
            panic!("refused");
        };
        for at in 0..3 {
            let mut message = vec![0; 12];
            message[2] = 0x80;
            signer.sign(&mut message, NOW + at);
            let mut message = Message::from_octets(message).unwrap();
            client.answer(&mut message, Time48::from_u64(NOW + at)).unwrap();
        }
        client.done().unwrap();
    }

    /// What a client with `theirs` understands of the answer to what it signed at `signed_at`.
    #[track_caller]
    fn check_refused(theirs: &Key, ours: Option<&Key>, signed_at: u64, expected: TsigError) {
        let mut asked = request();
        let mac = sign_at(&mut asked, theirs, Stamp::usual(signed_at));
        let Opened::Refused(refusal) = open(&asked, ours, NOW) else { panic!("not refused") };
        let answer = refusal.answer(&asked).unwrap();
        let header = Header::parse(&answer).unwrap();
        assert_eq!(
            (header.id, header.rcode(), header.counts),
            (4711, Rcode::NOTAUTH, [1, 0, 0, 1])
        );
        assert_eq!(Verifier::new(theirs, mac).take(&answer, signed_at), Err(expected));
    }

    #[test]
    fn a_signature_is_refused_in_words() {
        let ours = usual("hmac-sha256");
        let bad_key = || TsigError::BadKey { key: "k".parse().unwrap() };
        check_refused(&ours, None, NOW, bad_key());
        check_refused(&usual("hmac-sha512"), Some(&ours), NOW, bad_key());
        let elsewhere = key("other", "hmac-sha256", "qvn1");
        let bad_other = TsigError::BadKey { key: "other".parse().unwrap() };
        check_refused(&elsewhere, Some(&ours), NOW, bad_other);
        let wrong = key("k", "hmac-sha256", "qvn1");
        check_refused(&wrong, Some(&ours), NOW, TsigError::BadSig { key: "k".parse().unwrap() });
        check_refused(&ours, Some(&ours), NOW - 301, TsigError::BadTime(301));
        check_refused(&ours, Some(&ours), NOW + 301, TsigError::BadTime(-301));
        let mut asked = request();
        sign(&mut asked, &usual("hmac-sha256-128"), NOW);
        let Opened::Refused(refusal) = open(&asked, Some(&ours), NOW) else { panic!("accepted") };
        assert_eq!((refusal.error, refusal.signer.is_some()), (BADTRUNC, true));
    }

    #[test]
    fn no_octet_of_a_request_can_be_changed_or_cut_off() {
        let key = usual("hmac-sha256");
        let mut asked = request();
        sign(&mut asked, &key, NOW);
        let start = request().len();
        // Neither the TSIG record's class and TTL are signed nor the id on the wire.
        let outside = |at: usize| at < 2 || (start + 5..start + 11).contains(&at);
        for at in (0..asked.len()).filter(|at| !outside(*at)) {
            let mut changed = asked.clone();
            changed[at] ^= 1;
            let opened = open(&changed, Some(&key), NOW);
            assert!(!matches!(opened, Opened::Signed(..)), "octet {at} changed and nobody noticed");
            assert!(!matches!(open(&asked[..at], Some(&key), NOW), Opened::Signed(..)));
        }
    }
}
