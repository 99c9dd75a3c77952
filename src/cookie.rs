//! DNS cookies, RFC 7873, with the server cookies of RFC 9018: a client that shows one got an
//! answer of ours at its address before, so its address is no victim's.
//!
//! Nothing is remembered of clients: a cookie is a keyed hash of the client's part, its address and
//! the time.

use std::fmt;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// The option's code, RFC 7873, section 4.
pub const COOKIE: u16 = 10;

const CLIENT_LEN: usize = 8;
/// The octets of a server cookie of ours: version, three reserved, time and hash (RFC 9018,
/// section 4).
const SERVER_LEN: usize = 16;
/// The octets of the option's data in an answer, behind its code and length.
pub const ANSWER_LEN: usize = CLIENT_LEN + SERVER_LEN;

/// The only version, RFC 9018, section 4.1.
const VERSION: u8 = 1;
/// For how many seconds a cookie is good, and how far ahead the clock of another server with our
/// secret may be: RFC 9018, section 4.3.
const AGE_MAX: u32 = 3_600;
const AHEAD_MAX: u32 = 300;

/// What a request's COOKIE option says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie {
    client: [u8; CLIENT_LEN],
    /// None: the client knows none, or shows one that is not of our form.
    server: Option<[u8; SERVER_LEN]>,
}

/// A COOKIE option of no allowed length, or options that are cut short: FORMERR is due, RFC 7873,
/// section 5.2.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed EDNS options")]
pub struct Malformed;

/// The octets of the whole option in an answer.
pub const OPTION_LEN: usize = 4 + ANSWER_LEN;

/// Appends the option with this data.
pub fn write(octets: &mut Vec<u8>, data: &[u8; ANSWER_LEN]) {
    for word in [COOKIE, ANSWER_LEN as u16] {
        octets.extend(word.to_be_bytes());
    }
    octets.extend(data);
}

/// The cookie among the options of an OPT record (its data, RFC 6891, section 6.1.2); the first of
/// several counts, RFC 7873, section 5.2.
pub fn read(mut options: &[u8]) -> Result<Option<Cookie>, Malformed> {
    let mut cookie = None;
    while !options.is_empty() {
        let ([code_high, code_low, len_high, len_low], rest) =
            options.split_first_chunk().ok_or(Malformed)?;
        let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
        let (data, rest) = rest.split_at_checked(len).ok_or(Malformed)?;
        if cookie.is_none() && u16::from_be_bytes([*code_high, *code_low]) == COOKIE {
            cookie = Some(Cookie::read(data)?);
        }
        options = rest;
    }
    Ok(cookie)
}

impl Cookie {
    /// From the data of a COOKIE option: the client's 8 octets, then none or 8 to 32 of a server.
    fn read(data: &[u8]) -> Result<Cookie, Malformed> {
        let (client, server) = data.split_first_chunk().ok_or(Malformed)?;
        match server.len() {
            0 | 8..=32 => Ok(Cookie { client: *client, server: server.try_into().ok() }),
            _ => Err(Malformed),
        }
    }
}

/// What makes the server cookies of one server: a random secret, and the one before it, so that a
/// new secret does not cost the cookies that clients hold.
#[derive(Clone)]
pub struct Secrets {
    new: [u8; 16],
    old: Option<[u8; 16]>,
}

impl Secrets {
    pub fn new(secret: [u8; 16]) -> Secrets {
        Secrets { new: secret, old: None }
    }

    /// With a new secret in front; the one before the last is forgotten. Cookies last for an hour,
    /// so this costs none if it is done less often.
    pub fn rotated(&self, secret: [u8; 16]) -> Secrets {
        Secrets { new: secret, old: Some(self.new) }
    }

    /// The data of the COOKIE option in the answer: the client's cookie and a fresh one of ours.
    /// `now` is Unix time in seconds, which may go around.
    pub fn answer_option(&self, cookie: &Cookie, client: IpAddr, now: u32) -> [u8; ANSWER_LEN] {
        let mut data = [0; ANSWER_LEN];
        let (ours, server) = data.split_at_mut(CLIENT_LEN);
        ours.copy_from_slice(&cookie.client);
        server[0] = VERSION;
        server[4..8].copy_from_slice(&now.to_be_bytes());
        let (said, hash) = server.split_at_mut(8);
        hash.copy_from_slice(&hashed(&self.new, &cookie.client, said, client));
        data
    }

    /// Whether the client shows a server cookie that one of our secrets made for its address less
    /// than an hour ago.
    pub fn is_valid(&self, cookie: &Cookie, client: IpAddr, now: u32) -> bool {
        let Some(server) = &cookie.server else { return false };
        let (said, hash) = server.split_at(8);
        let made = u32::from_be_bytes([said[4], said[5], said[6], said[7]]);
        let (age, ahead) = (now.wrapping_sub(made), made.wrapping_sub(now));
        let is_timely = age <= AGE_MAX || ahead <= AHEAD_MAX;
        let secrets = [Some(&self.new), self.old.as_ref()].into_iter().flatten();
        let mut made_hashes = secrets.map(|secret| hashed(secret, &cookie.client, said, client));
        // No constant time: what a comparison takes is not to be told through a network in an hour.
        said[0] == VERSION && is_timely && made_hashes.any(|made| made == hash)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// RFC 9018, section 4.4, with the eight octets that the cookie says before its hash.
fn hashed(secret: &[u8; 16], client: &[u8; CLIENT_LEN], said: &[u8], address: IpAddr) -> [u8; 8] {
    let mut input = [0; 32];
    input[..CLIENT_LEN].copy_from_slice(client);
    input[CLIENT_LEN..16].copy_from_slice(said);
    let len = match address.to_canonical() {
        IpAddr::V4(v4) => {
            input[16..20].copy_from_slice(&v4.octets());
            20
        }
        IpAddr::V6(v6) => {
            input[16..].copy_from_slice(&v6.octets());
            32
        }
    };
    // As SipHash writes its result.
    SipHasher24::new_with_key(secret).hash(&input[..len]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn octets<const LEN: usize>(hex: &str) -> [u8; LEN] {
        let digits = hex.as_bytes().chunks(2);
        let octets =
            digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap());
        octets.collect::<Vec<u8>>().try_into().unwrap()
    }

    fn cookie(hex: &str) -> Cookie {
        let data: Vec<u8> =
            (0..hex.len() / 2).map(|at| octets::<1>(&hex[2 * at..2 * at + 2])[0]).collect();
        Cookie::read(&data).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The secrets, addresses and times of RFC 9018, appendix A.
    const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
    const OLD: &str = "dd3bdf9344b678b185a6f5cb60fca715";
    const NEW: &str = "445536bcd2513298075a5d379663c962";
    const FIRST: &str = "198.51.100.100";
    const SECOND: &str = "203.0.113.203";
    const THIRD: &str = "2001:db8:220:1:59de:d0f4:8769:82b8";

    fn secrets(hex: &str) -> Secrets {
        Secrets::new(octets(hex))
    }

    #[track_caller]
    fn check_made(secrets: &Secrets, client: &str, asked: &str, now: u32, expected: &str) {
        let made = secrets.answer_option(&cookie(asked), ip(client), now);
        assert_eq!(made, octets(expected));
        assert!(secrets.is_valid(&cookie(expected), ip(client), now));
    }

    #[test]
    fn cookies_are_those_of_the_rfc() {
        let first = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
        check_made(&secrets(SECRET), FIRST, "2464c4abcf10c957", 1_559_731_985, first);
        let renewed = "2464c4abcf10c957010000005cf7a871d4a564a1442aca77";
        check_made(&secrets(SECRET), FIRST, first, 1_559_734_385, renewed);
        let other = "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5";
        let renewed = "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e";
        check_made(&secrets(SECRET), SECOND, other, 1_559_734_700, renewed);
        let rolled = "22681ab97d52c298010000005cf7c609a6bb79d16625507a";
        let before = "22681ab97d52c298010000005cf7c57926556bd0934c72f8";
        check_made(&secrets(OLD).rotated(octets(NEW)), THIRD, before, 1_559_741_961, rolled);
    }

    #[track_caller]
    fn check_shown(secrets: &Secrets, client: &str, shown: &str, now: u32, expected: bool) {
        assert_eq!(secrets.is_valid(&cookie(shown), ip(client), now), expected);
    }

    #[test]
    fn a_cookie_is_good_for_an_hour_at_its_address() {
        let shown = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
        let (made, ours) = (1_559_731_985, secrets(SECRET));
        check_shown(&ours, FIRST, shown, made, true);
        check_shown(&ours, FIRST, shown, made + 3_600, true);
        check_shown(&ours, FIRST, shown, made + 3_601, false);
        check_shown(&ours, FIRST, shown, made - 300, true);
        check_shown(&ours, FIRST, shown, made - 301, false);
        check_shown(&ours, "::ffff:198.51.100.100", shown, made, true);
        check_shown(&ours, SECOND, shown, made, false);
        check_shown(&secrets(NEW), FIRST, shown, made, false);
        check_shown(&ours, FIRST, &shown.replace("2464", "2465"), made, false);
        check_shown(&ours, FIRST, &shown.replace("9480", "9481"), made, false);
        check_shown(&ours, FIRST, &shown.replace("0100", "0200"), made, false);
        check_shown(&ours, FIRST, "2464c4abcf10c957", made, false);
        check_shown(&ours, FIRST, "2464c4abcf10c9571f8130c3eee29480", made, false);
    }

    #[test]
    fn the_reserved_octets_are_hashed_as_they_are_shown() {
        let shown = "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5";
        check_shown(&secrets(SECRET), SECOND, shown, 1_559_727_985, true);
        check_shown(&secrets(SECRET), SECOND, &shown.replace("cdef", "0000"), 1_559_727_985, false);
    }

    #[test]
    fn a_secret_is_good_until_the_next_but_one() {
        let shown = "22681ab97d52c298010000005cf7c57926556bd0934c72f8";
        let now = 1_559_741_961;
        let rolled = secrets(OLD).rotated(octets(NEW));
        check_shown(&rolled, THIRD, shown, now, true);
        check_shown(&rolled.rotated(octets(SECRET)), THIRD, shown, now, false);
    }

    #[test]
    fn times_may_go_around() {
        let ours = secrets(SECRET);
        let made = ours.answer_option(&cookie("2464c4abcf10c957"), ip(FIRST), u32::MAX - 9);
        let shown = Cookie::read(&made).unwrap();
        assert!(ours.is_valid(&shown, ip(FIRST), 20));
        assert!(!ours.is_valid(&shown, ip(FIRST), 3_600));
    }

    #[track_caller]
    fn check_read(options: &[&[u8]], expected: Result<Option<Cookie>, Malformed>) {
        assert_eq!(read(&options.concat()), expected);
    }

    #[test]
    fn the_first_cookie_among_the_options_counts() {
        let (client, server) = ([7; 8], [9; 32]);
        let known = |server| Ok(Some(Cookie { client, server }));
        check_read(&[], Ok(None));
        check_read(&[&[0, 3, 0, 0], &[0, 11, 0, 2, 1, 1]], Ok(None));
        check_read(&[&[0, 10, 0, 8], &client], known(None));
        check_read(&[&[0, 3, 0, 1, 0], &[0, 10, 0, 8], &client, &[0, 10, 0, 0]], known(None));
        check_read(&[&[0, 10, 0, 16], &client, &server[..8]], known(None));
        check_read(&[&[0, 10, 0, 24], &client, &server[..16]], known(Some([9; 16])));
        check_read(&[&[0, 10, 0, 40], &client, &server], known(None));
    }

    #[test]
    fn lengths_that_are_not_allowed_are_malformed() {
        for len in (0..8).chain(9..16).chain(41..50) {
            check_read(&[&[0, 10, 0, len], &[7; 50][..len.into()]], Err(Malformed));
        }
        check_read(&[&[0, 10, 0, 8], &[7; 7]], Err(Malformed));
        check_read(&[&[0, 10, 0, 8], &[7; 8], &[0, 3, 0]], Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_none_are_valid(
            options in prop::collection::vec(any::<u8>(), 0..60),
            data in prop::collection::vec(any::<u8>(), 0..50),
            now: u32,
        ) {
            let framed = [&[0, 10, 0, data.len() as u8][..], &data, &options].concat();
            for options in [&options, &framed] {
                if let Ok(Some(cookie)) = read(options) {
                    prop_assert!(!secrets(SECRET).is_valid(&cookie, ip(FIRST), now));
                }
            }
        }
    }
}
