//! Transaction signatures, RFC 8945: signing what we ask, verifying every answer. What a server does
//! with them is in [`countersign`](crate::countersign).
//!
//! Works on finished messages and takes the time as an argument, in seconds since 1970.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit};
use zeroize::Zeroizing;

use crate::name::{Name, NameError};
use crate::rr::Type;
use crate::wire::{CLASS_ANY, HEADER_LEN, Header, Rcode, Reader, WireError};

/// Seconds a signature's time may be off, RFC 8945, section 10.
pub const FUDGE: u16 = 300;
/// No algorithm's name is longer.
const ALGORITHM_SHOWN_MAX: usize = 20;
/// How many messages of a transfer may go unsigned between signed ones, RFC 8945, section 5.3.1.
pub const UNSIGNED_MAX: usize = 99;

/// The HMACs of RFC 8945, section 6, less MD5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [(&'static str, Algorithm); 5] = [
        ("hmac-sha1", Algorithm::Sha1),
        ("hmac-sha224", Algorithm::Sha224),
        ("hmac-sha256", Algorithm::Sha256),
        ("hmac-sha384", Algorithm::Sha384),
        ("hmac-sha512", Algorithm::Sha512),
    ];

    fn text(self) -> &'static str {
        Algorithm::ALL.iter().find(|(_, a)| *a == self).map_or("", |(text, _)| text)
    }

    pub(crate) fn name(self) -> Name {
        self.text().parse().expect("each text in ALL is one plain label")
    }

    pub(crate) fn full_len(self) -> usize {
        match self {
            Algorithm::Sha1 => 20,
            Algorithm::Sha224 => 28,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }

    fn mac(self, secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Algorithm::Sha1 => hmac::<Hmac<sha1::Sha1>>(secret, parts),
            Algorithm::Sha224 => hmac::<Hmac<sha2::Sha224>>(secret, parts),
            Algorithm::Sha256 => hmac::<Hmac<sha2::Sha256>>(secret, parts),
            Algorithm::Sha384 => hmac::<Hmac<sha2::Sha384>>(secret, parts),
            Algorithm::Sha512 => hmac::<Hmac<sha2::Sha512>>(secret, parts),
        }
    }
}

fn hmac<M: hmac::Mac + KeyInit>(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).expect("an HMAC takes any key length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// A shared key. Its secret is zeroed on drop and never printed.
#[derive(Clone)]
pub struct Key {
    name: Name,
    pub(crate) algorithm: Algorithm,
    /// Octets of a MAC: all of them, or fewer for names like `hmac-sha256-128`.
    pub(crate) mac_len: usize,
    secret: Zeroizing<Vec<u8>>,
}

/// Why a text is no TSIG key. Never quotes the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("no `key \"name\" {{ algorithm ...; secret \"...\"; }};` in it")]
    NoKey,
    #[error("more than one key in it")]
    TwoKeys,
    #[error("key name: {0}")]
    Name(#[from] NameError),
    #[error("no `{0}` statement in the key")]
    Missing(&'static str),
    #[error(
        "{0} is not one of hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384, hmac-sha512, or one \
         of these cut to a number of bits (hmac-sha256-128)"
    )]
    Algorithm(String),
    #[error("the secret is not base64")]
    Secret,
    #[error("the secret is empty")]
    Empty,
}

impl Key {
    /// A key from the statement that `tsig-keygen` writes and `named.conf` includes.
    pub fn parse(text: &str) -> Result<Key, KeyError> {
        let words = statement_words(text);
        let mut words = words.iter().map(|word| word.as_str());
        if words.next() != Some("key") {
            return Err(KeyError::NoKey);
        }
        let name: Name = words.next().ok_or(KeyError::NoKey)?.parse()?;
        if words.next() != Some("{") {
            return Err(KeyError::NoKey);
        }
        let (mut algorithm, mut secret) = (None, None);
        loop {
            match words.next().ok_or(KeyError::NoKey)? {
                "}" => break,
                "algorithm" => algorithm = words.next(),
                "secret" => secret = words.next(),
                _ => {}
            }
        }
        if words.any(|word| word == "key") {
            return Err(KeyError::TwoKeys);
        }
        let algorithm = algorithm.ok_or(KeyError::Missing("algorithm"))?;
        let secret = secret.ok_or(KeyError::Missing("secret"))?;
        Key::new(name, algorithm, secret)
    }

    fn new(name: Name, algorithm: &str, secret: &str) -> Result<Key, KeyError> {
        let lower = algorithm.trim_end_matches('.').to_ascii_lowercase();
        // Where a word is missing, the secret may stand in its place.
        let unknown = || {
            let is_name = lower.starts_with("hmac-") && lower.len() <= ALGORITHM_SHOWN_MAX;
            KeyError::Algorithm(match is_name {
                true => format!("algorithm `{lower}`"),
                false => "the algorithm".to_owned(),
            })
        };
        let (algorithm, bits) = Algorithm::ALL
            .iter()
            .find_map(|(text, found)| Some((*found, lower.strip_prefix(text)?)))
            .ok_or_else(unknown)?;
        let full = algorithm.full_len();
        let mac_len = match bits.strip_prefix('-') {
            None if bits.is_empty() => full,
            None => return Err(unknown()),
            // RFC 8945, section 5.2.2.1: at least ten octets and at least half.
            Some(bits) => match bits.parse::<usize>() {
                Ok(bits) if bits % 8 == 0 && (10.max(full / 2)..=full).contains(&(bits / 8)) => {
                    bits / 8
                }
                _ => return Err(unknown()),
            },
        };
        let secret = Zeroizing::new(BASE64.decode(secret).map_err(|_| KeyError::Secret)?);
        match secret.is_empty() {
            true => Err(KeyError::Empty),
            false => Ok(Key { name, algorithm, mac_len, secret }),
        }
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Octets that signing adds to a message.
    pub fn signature_len(&self) -> usize {
        self.name.wire_len() + 10 + self.algorithm.name().wire_len() + 16 + self.mac_len
    }

    pub(crate) fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.algorithm.mac(&self.secret, parts)
    }

    /// A code as this key signs with it.
    pub(crate) fn cut_mac(&self, parts: &[&[u8]]) -> Mac {
        let mut mac = self.mac(parts);
        mac.truncate(self.mac_len);
        Mac(mac)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.name, self.algorithm.text())
    }
}

/// The words of a `named.conf` statement: comments and quotes taken off, `;` dropped.
fn statement_words(text: &str) -> Zeroizing<Vec<String>> {
    let mut words = Zeroizing::new(Vec::new());
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        let comment_end = match rest {
            "" => return words,
            _ if rest.starts_with('#') || rest.starts_with("//") => Some("\n"),
            _ if rest.starts_with("/*") => Some("*/"),
            _ => None,
        };
        if let Some(end) = comment_end {
            rest = rest.split_once(end).map_or("", |(_, after)| after);
            continue;
        }
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None if rest.starts_with(['{', '}']) => rest.split_at(1),
            None => {
                let stops = |c: char| c.is_whitespace() || matches!(c, ';' | '{' | '}' | '"');
                rest.split_at(rest.find(stops).unwrap_or(rest.len()))
            }
        };
        words.push(word.to_owned());
        rest = after;
    }
}

/// A message authentication code as sent, to be digested with the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mac(pub(crate) Vec<u8>);

/// When a request says it was signed, and by how many seconds the server's clock may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub time: u64,
    pub fudge: u16,
}

impl Stamp {
    pub fn usual(now: u64) -> Stamp {
        Stamp { time: now, fudge: FUDGE }
    }
}

/// Signs a finished request, RFC 8945, section 5.1, and returns the code that its answer rests on.
pub fn sign(message: &mut Vec<u8>, key: &Key, now: u64) -> Mac {
    sign_at(message, key, Stamp::usual(now))
}

/// The same with any time and any fudge.
pub fn sign_at(message: &mut Vec<u8>, key: &Key, stamp: Stamp) -> Mac {
    let variables = Variables { time: stamp.time, fudge: stamp.fudge, error: 0, other: &[] };
    let mac = key.cut_mac(&[message, &variables.whole(key)]);
    append(message, (&key.name, &key.algorithm.name()), &variables, &mac.0);
    mac
}

/// Puts a TSIG record with a key's name and algorithm at the end of a message.
pub(crate) fn append(
    message: &mut Vec<u8>,
    (key, algorithm): (&Name, &Name),
    variables: &Variables<'_>,
    mac: &[u8],
) {
    let id = [message[0], message[1]];
    key.write(message);
    message.extend(Type::TSIG.0.to_be_bytes());
    message.extend(CLASS_ANY.to_be_bytes());
    message.extend([0; 4]);
    let mut rdata = Vec::with_capacity(96);
    algorithm.write(&mut rdata);
    rdata.extend(variables.timers());
    rdata.extend((mac.len() as u16).to_be_bytes()); // A MAC has at most 64 octets.
    rdata.extend_from_slice(mac);
    rdata.extend(id);
    rdata.extend(variables.error.to_be_bytes());
    rdata.extend((variables.other.len() as u16).to_be_bytes()); // Empty or six octets.
    rdata.extend_from_slice(variables.other);
    message.extend((rdata.len() as u16).to_be_bytes()); // Bounded by name and MAC length.
    message.extend(rdata);
    let additional = u16::from_be_bytes([message[10], message[11]]) + 1;
    message[10..HEADER_LEN].copy_from_slice(&additional.to_be_bytes());
}

/// The TSIG variables of RFC 8945, section 4.3.3.
pub(crate) struct Variables<'o> {
    pub(crate) time: u64,
    pub(crate) fudge: u16,
    pub(crate) error: u16,
    pub(crate) other: &'o [u8],
}

impl Variables<'_> {
    pub(crate) fn timers(&self) -> Vec<u8> {
        [&self.time.to_be_bytes()[2..], &self.fudge.to_be_bytes()].concat()
    }

    pub(crate) fn whole(&self, key: &Key) -> Vec<u8> {
        let mut octets = Vec::with_capacity(96);
        key.name.write(&mut octets);
        octets.extend(CLASS_ANY.to_be_bytes());
        octets.extend([0; 4]);
        key.algorithm.name().write(&mut octets);
        octets.extend(self.timers());
        octets.extend(self.error.to_be_bytes());
        octets.extend((self.other.len() as u16).to_be_bytes()); // Taken from a u16 length.
        octets.extend_from_slice(self.other);
        octets
    }
}

/// Why an answer is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TsigError {
    #[error("{0} without a signature: nobody vouches for that answer")]
    Unsigned(Rcode),
    #[error(
        "the server does not know the key {key} (BADKEY), knows it by another algorithm, or does \
         not allow it this"
    )]
    BadKey { key: Name },
    #[error("the server has another secret for the key {key} (BADSIG)")]
    BadSig { key: Name },
    #[error("clocks differ (BADTIME): the server's is {} ours", ahead(*.0))]
    BadTime(i64),
    #[error("the server refuses signatures cut to this length (BADTRUNC)")]
    BadTrunc,
    #[error("the server reports TSIG error {0}")]
    Error(u16),
    #[error("signed with the key {0}, not with ours")]
    OtherKey(Name),
    #[error("the answer's signature is wrong: the secrets differ, or someone changed it")]
    Forged,
    #[error("{0} messages in a row without a signature, 99 are the limit")]
    TooManyUnsigned(usize),
    #[error("the last message of the transfer is not signed")]
    EndUnsigned,
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// "13 s ahead of", "600 s behind".
fn ahead(seconds: i64) -> String {
    let word = if seconds < 0 { "behind" } else { "ahead of" };
    format!("{} s {word}", seconds.unsigned_abs())
}

/// The verification of one answer, of however many messages.
pub struct Verifier<'k> {
    key: &'k Key,
    prior: Mac,
    first: bool,
    signed_at: Option<u64>,
    /// Messages since the last signed one, as digested.
    unsigned: Vec<u8>,
    unsigned_count: usize,
}

impl<'k> Verifier<'k> {
    /// A verifier of the answer to the request that [`sign`] gave `request` for.
    pub fn new(key: &'k Key, request: Mac) -> Verifier<'k> {
        let (unsigned, signed_at) = (Vec::new(), None);
        Verifier { key, prior: request, first: true, signed_at, unsigned, unsigned_count: 0 }
    }

    /// Takes the next message. The first must be signed; later ones may go unsigned for a while,
    /// and then [`Verifier::finish`] is what believes them.
    pub fn take(&mut self, message: &[u8], now: u64) -> Result<(), TsigError> {
        let header = Header::parse(message)?;
        let Some(found) = Signature::find(message, &header)? else {
            if self.first {
                return Err(TsigError::Unsigned(header.rcode()));
            }
            self.unsigned_count += 1;
            self.unsigned.extend_from_slice(message);
            return match self.unsigned_count {
                count if count > UNSIGNED_MAX => Err(TsigError::TooManyUnsigned(count)),
                _ => Ok(()),
            };
        };
        let mac = self.check(message, &header, &found)?;
        found.check_error(self.key, now)?;
        let skew = found.time as i64 - now as i64; // Both have 48 bits.
        if skew.unsigned_abs() > u64::from(found.fudge) {
            return Err(TsigError::BadTime(skew));
        }
        self.prior = mac;
        self.first = false;
        self.signed_at = Some(found.time);
        self.unsigned.clear();
        self.unsigned_count = 0;
        Ok(())
    }

    /// When the server signed the last message, by its own clock; PowerDNS repeats what the
    /// request said.
    pub fn signed_at(&self) -> Option<u64> {
        self.signed_at
    }

    /// Whether every message taken is now vouched for.
    pub fn finish(&self) -> Result<(), TsigError> {
        match self.unsigned_count {
            0 => Ok(()),
            _ => Err(TsigError::EndUnsigned),
        }
    }

    fn check(
        &self,
        message: &[u8],
        header: &Header,
        found: &Signature<'_>,
    ) -> Result<Mac, TsigError> {
        // BADKEY and BADSIG come without a MAC, RFC 8945, section 5.3.2: a hint in words, never
        // a success.
        if found.mac.is_empty() {
            found.check_error(self.key, found.time)?;
            return Err(TsigError::Unsigned(header.rcode()));
        }
        if found.key_name != self.key.name {
            return Err(TsigError::OtherKey(found.key_name.clone()));
        }
        let stripped = found.strip(message, header);
        let variables = Variables {
            time: found.time,
            fudge: found.fudge,
            error: found.error,
            other: found.other,
        };
        let end = if self.first { variables.whole(self.key) } else { variables.timers() };
        let prior_len = (self.prior.0.len() as u16).to_be_bytes(); // At most 64.
        let parts: [&[u8]; 5] = [&prior_len, &self.prior.0, &self.unsigned, &stripped, &end];
        let expected = self.key.mac(&parts);
        let algorithm_agrees = found.algorithm == self.key.algorithm.name();
        let long_enough = (self.key.mac_len..=expected.len()).contains(&found.mac.len());
        let same = long_enough && equal(&expected[..found.mac.len()], found.mac);
        match algorithm_agrees && same {
            true => Ok(Mac(found.mac.to_vec())),
            false => Err(TsigError::Forged),
        }
    }
}

/// Equality whose time does not depend on where the octets differ.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// The TSIG record at the end of a message.
pub(crate) struct Signature<'m> {
    pub(crate) start: usize,
    pub(crate) key_name: Name,
    pub(crate) algorithm: Name,
    pub(crate) time: u64,
    pub(crate) fudge: u16,
    pub(crate) mac: &'m [u8],
    original_id: [u8; 2],
    pub(crate) error: u16,
    pub(crate) other: &'m [u8],
}

impl<'m> Signature<'m> {
    pub(crate) fn find(
        message: &'m [u8],
        header: &Header,
    ) -> Result<Option<Signature<'m>>, WireError> {
        let (_, mut reader) = Reader::behind_question(message)?;
        let count: u32 = header.counts[1..].iter().map(|count| u32::from(*count)).sum();
        if header.counts[3] == 0 {
            return Ok(None);
        }
        for _ in 1..count {
            reader.skip_record()?;
        }
        let start = reader.position();
        let record = reader.record()?;
        if record.rtype != Type::TSIG {
            return Ok(None);
        }
        let mut rdata = Reader::new(record.octets());
        let algorithm = rdata.name()?;
        let high = u64::from(rdata.u16()?);
        let time = high << 32 | u64::from(rdata.u32()?);
        let fudge = rdata.u16()?;
        let mac_len = usize::from(rdata.u16()?);
        let mac = rdata.take(mac_len)?;
        let id = rdata.take(2)?;
        let error = rdata.u16()?;
        let other_len = usize::from(rdata.u16()?);
        let other = rdata.take(other_len)?;
        let original_id = [id[0], id[1]];
        let key_name = record.owner;
        let found =
            Signature { start, key_name, algorithm, time, fudge, mac, original_id, error, other };
        Ok(Some(found))
    }

    /// The message as it was signed.
    pub(crate) fn strip(&self, message: &[u8], header: &Header) -> Vec<u8> {
        let mut stripped = message[..self.start].to_vec();
        stripped[..2].copy_from_slice(&self.original_id);
        stripped[10..HEADER_LEN].copy_from_slice(&(header.counts[3] - 1).to_be_bytes());
        stripped
    }

    fn check_error(&self, key: &Key, now: u64) -> Result<(), TsigError> {
        match self.error {
            0 => Ok(()),
            16 => Err(TsigError::BadSig { key: key.name.clone() }),
            17 => Err(TsigError::BadKey { key: key.name.clone() }),
            18 => {
                let server = self.other.iter().fold(0_u64, |time, o| time << 8 | u64::from(*o));
                let server = if self.other.len() == 6 { server } else { self.time };
                Err(TsigError::BadTime(server as i64 - now as i64)) // Both have 48 bits.
            }
            22 => Err(TsigError::BadTrunc),
            error => Err(TsigError::Error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CLASS_IN, Writer};
    use domain::base::{Message, MessageBuilder};
    use domain::rdata::tsig::Time48;
    use domain::tsig as oracle;

    const SECRET: &str = "qvn1CquTPVExE7Spq9HjVHqTGGrDAEdqCzrKVZF2YnA=";

    fn key(algorithm: &str) -> Key {
        Key::new("pub-key".parse().unwrap(), algorithm, SECRET).unwrap()
    }

    fn request() -> Vec<u8> {
        let mut writer = Writer::new(4711, 0);
        writer.question(&"mesos".parse().unwrap(), Type::SOA, CLASS_IN);
        writer.finish()
    }

    #[track_caller]
    fn check_key(text: &str, expected: Result<&str, KeyError>) {
        let read = Key::parse(text).map(|key| format!("{key:?}"));
        assert_eq!(read, expected.map(|debug| format!("Key({debug})")));
    }

    #[test]
    fn keys_are_read_as_tsig_keygen_writes_them() {
        let plain = "key \"k\" {\n\talgorithm hmac-sha256;\n\tsecret \"qvn1\";\n};\n";
        check_key(plain, Ok("k. hmac-sha256"));
        check_key(
            "# c\nkey k.example. { secret qvn1; algorithm HMAC-SHA512; };",
            Ok("k.example. hmac-sha512"),
        );
        check_key(
            "// c\n/* key x */ key k{algorithm hmac-sha1;secret\"qvn1\";};",
            Ok("k. hmac-sha1"),
        );
        check_key("", Err(KeyError::NoKey));
        check_key("key k { algorithm hmac-sha256; };", Err(KeyError::Missing("secret")));
        check_key("key k { secret qvn1; };", Err(KeyError::Missing("algorithm")));
        check_key("key k { algorithm hmac-sha256; secret \"!\"; };", Err(KeyError::Secret));
        check_key("key k { algorithm hmac-sha256; secret \"\"; };", Err(KeyError::Empty));
        check_key(&plain.repeat(2), Err(KeyError::TwoKeys));
        for bad in ["hmac-md5", "hmac-sha256-64", "hmac-sha256-129", "hmac-sha256x"] {
            let text = plain.replace("hmac-sha256", bad);
            check_key(&text, Err(KeyError::Algorithm(format!("algorithm `{bad}`"))));
        }
        let misplaced = "key k { algorithm qvn1CquTPVExE7; secret hmac-sha256; };";
        check_key(misplaced, Err(KeyError::Algorithm("the algorithm".to_owned())));
    }

    /// Signs with us, answers with `domain` as the server, verifies with us.
    #[track_caller]
    fn check_exchange(ours: &str, theirs: oracle::Algorithm, cut: Option<usize>) {
        let key = key(ours);
        let secret = BASE64.decode(SECRET).unwrap();
        let name = "pub-key".parse().unwrap();
        let oracle_key = oracle::Key::new(theirs, &secret, name, cut, cut).unwrap();
        let now = 1_800_000_000;
        let mut signed = request();
        let unsigned_len = signed.len();
        let mac = sign(&mut signed, &key, now);
        assert_eq!(signed.len() - unsigned_len, key.signature_len());

        let mut asked = Message::from_octets(signed).unwrap();
        let time = Time48::from_u64(now);
        let server = oracle::ServerSequence::request(&oracle_key, &mut asked, time);
        let mut server = server.expect("domain accepts our signature").expect("signed");
        let mut verifier = Verifier::new(&key, mac);
        // The crate chains whole MACs where it cut them; RFC 8945, section 5.3.1, and BIND chain
        // what was sent. So a cut one is compared on its first answer only.
        for _ in 0..if cut.is_some() { 1 } else { 3 } {
            let builder = MessageBuilder::new_vec();
            let mut answer = builder
                .start_answer(&asked, domain::base::iana::Rcode::NOERROR)
                .unwrap()
                .additional();
            server.answer(&mut answer, time).unwrap();
            verifier.take(&answer.finish(), now + 1).expect("its answer verifies");
        }
        verifier.finish().unwrap();
    }

    #[test]
    fn the_domain_crate_agrees_on_every_algorithm_it_has() {
        check_exchange("hmac-sha1", oracle::Algorithm::Sha1, None);
        check_exchange("hmac-sha256", oracle::Algorithm::Sha256, None);
        check_exchange("hmac-sha384", oracle::Algorithm::Sha384, None);
        check_exchange("hmac-sha512", oracle::Algorithm::Sha512, None);
        check_exchange("hmac-sha256-128", oracle::Algorithm::Sha256, Some(16));
        check_exchange("hmac-sha512-256", oracle::Algorithm::Sha512, Some(32));
    }

    /// An answer as a server makes it: header, question, and a signature over the chain so far.
    fn answer(key: &Key, prior: &Mac, first: bool, variables: &Variables<'_>) -> (Vec<u8>, Mac) {
        let mut message = request();
        message[2] |= 0x80;
        let end = if first { variables.whole(key) } else { variables.timers() };
        let prior_len = (prior.0.len() as u16).to_be_bytes();
        let mac = key.mac(&[&prior_len, &prior.0, &message, &end]);
        append(&mut message, (&key.name, &key.algorithm.name()), variables, &mac);
        (message, Mac(mac))
    }

    fn plain(time: u64) -> Variables<'static> {
        Variables { time, fudge: FUDGE, error: 0, other: &[] }
    }

    #[track_caller]
    fn check_refused(variables: &Variables<'_>, now: u64, expected: TsigError) {
        let key = key("hmac-sha224");
        let mac = sign(&mut request(), &key, now);
        let (message, _) = answer(&key, &mac, true, variables);
        assert_eq!(Verifier::new(&key, mac).take(&message, now), Err(expected));
    }

    #[test]
    fn clocks_apart_are_told_in_seconds() {
        check_refused(&plain(1_000), 2_000, TsigError::BadTime(-1_000));
        check_refused(&plain(2_301), 2_000, TsigError::BadTime(301));
        let server = 2_600_u64.to_be_bytes();
        let bad_time = Variables { error: 18, other: &server[2..], ..plain(2_000) };
        check_refused(&bad_time, 2_000, TsigError::BadTime(600));
        assert!(TsigError::BadTime(-600).to_string().contains("600 s behind ours"));
    }

    #[test]
    fn key_errors_are_told_in_words() {
        let name: Name = "pub-key".parse().unwrap();
        let bad_key = Variables { error: 17, ..plain(2_000) };
        check_refused(&bad_key, 2_000, TsigError::BadKey { key: name.clone() });
        let bad_sig = Variables { error: 16, ..plain(2_000) };
        check_refused(&bad_sig, 2_000, TsigError::BadSig { key: name });
    }

    #[test]
    fn a_changed_octet_is_noticed_wherever_it_is() {
        let key = key("hmac-sha256");
        let mac = sign(&mut request(), &key, 1_000);
        let (message, _) = answer(&key, &mac, true, &plain(1_000));
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            let taken = Verifier::new(&key, mac.clone()).take(&changed, 1_000);
            // The TSIG record's TTL and class are not digested, nor is the id on the wire.
            let outside = at < 2
                || (message.len() - key.signature_len() + key.name.wire_len() + 2
                    ..message.len() - key.signature_len() + key.name.wire_len() + 8)
                    .contains(&at);
            assert!(taken.is_err() || outside, "octet {at} changed and nobody noticed");
        }
    }

    #[test]
    fn unsigned_messages_are_believed_only_by_a_later_signature() {
        let key = key("hmac-sha256");
        let mac = sign(&mut request(), &key, 1_000);
        let unsigned = request();
        let mut verifier = Verifier::new(&key, mac.clone());
        assert_eq!(verifier.take(&unsigned, 1_000), Err(TsigError::Unsigned(Rcode::NOERROR)));

        let (first, prior) = answer(&key, &mac, true, &plain(1_000));
        let mut verifier = Verifier::new(&key, mac);
        verifier.take(&first, 1_000).unwrap();
        verifier.take(&unsigned, 1_000).unwrap();
        assert_eq!(verifier.finish(), Err(TsigError::EndUnsigned));
        let stripped = request();
        let mut last = request();
        last[2] |= 0x80;
        let prior_len = (prior.0.len() as u16).to_be_bytes();
        let end = plain(1_000).timers();
        let mac = key.mac(&[&prior_len, &prior.0, &stripped, &last, &end]);
        append(&mut last, (&key.name, &key.algorithm.name()), &plain(1_000), &mac);
        verifier.take(&last, 1_000).unwrap();
        verifier.finish().unwrap();
        for _ in 0..UNSIGNED_MAX {
            verifier.take(&unsigned, 1_000).unwrap();
        }
        assert_eq!(verifier.take(&unsigned, 1_000), Err(TsigError::TooManyUnsigned(100)));
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let shown = format!("{:?}", key("hmac-sha256"));
        assert_eq!(shown, "Key(pub-key. hmac-sha256)");
    }
}
