//! Response rate limiting: so many answers a second to one network of clients, lest a server that
//! is asked in a victim's name floods the victim.
//!
//! What BIND, Knot and NSD call RRL, with one difference: an answer counts for its network alone,
//! whatever was asked, so that asking for other names gains nothing. Clients whose address is
//! proven, by TCP or a valid cookie, are not for this to judge. Over the limit every second answer
//! is an empty one with TC ("slip 2"), no larger than its question: a real client that shares the
//! victim's network asks again over TCP and is answered.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siphasher::sip::SipHasher13;

/// How many counts there are, a power of two; together 1 MiB. Networks are put to them by a hash
/// and never told apart there, so that memory is fixed and no flood of made-up networks frees a
/// flooded one from its count. What that costs: while `n` networks are over the limit, any other is
/// limited with them by a chance of `n` in this many.
const COUNTS: usize = 1 << 17;

/// The bits of a client's address that make its network, as in the other servers.
const IPV4_PREFIX: u32 = 24;
const IPV6_PREFIX: u32 = 56;

const SECOND: u64 = 1_000_000_000;

/// What is due to a query over UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    Answer,
    /// The question back, with TC and without records.
    Truncate,
    Silence,
}

/// Counts of answers, shared by all threads that answer.
///
/// Each is a virtual schedule (the "generic cell rate algorithm"): the time at which the answers
/// given so far would have been given, one an interval. An answer may be at most a second ahead of
/// its schedule. So in any `t` seconds a network gets at most `rate * (t + 1)` answers, the
/// second's worth of them at once.
pub struct Limit {
    /// Nanoseconds between answers that keep to the rate.
    interval: u64,
    /// A second, or what rounding makes of it: as many intervals as the rate.
    ahead_max: u64,
    key: (u64, u64),
    /// The schedule's time in nanoseconds, above a bit that turns with each answer refused.
    counts: Box<[AtomicU64]>,
}

impl Limit {
    /// A limit of `rate` answers a second and network. With a random `key` nobody can choose
    /// networks that share a count.
    pub fn new(rate: NonZeroU32, key: [u64; 2]) -> Limit {
        let counts = (0..COUNTS).map(|_| AtomicU64::new(0)).collect();
        let rate = u64::from(rate.get());
        // Rounded up: never more than the rate.
        let interval = SECOND.div_ceil(rate);
        Limit { interval, ahead_max: interval * rate, key: (key[0], key[1]), counts }
    }

    /// Judges one answer, and counts it when it is given. `now` is since any fixed moment, and may
    /// differ a little from thread to thread.
    pub fn judge(&self, client: IpAddr, now: Duration) -> Judgement {
        let count = &self.counts[self.place(client)];
        let now = now.as_nanos() as u64; // The bit above it lasts for 292 years.
        let mut seen = count.load(Ordering::Relaxed);
        loop {
            let scheduled = (seen >> 1).max(now);
            if scheduled + self.interval > now + self.ahead_max {
                let turned = count.fetch_xor(1, Ordering::Relaxed);
                return if turned & 1 == 0 { Judgement::Truncate } else { Judgement::Silence };
            }
            let next = (scheduled + self.interval) << 1 | seen & 1;
            match count.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Judgement::Answer,
                Err(other) => seen = other,
            }
        }
    }

    /// Where the client's network is counted.
    fn place(&self, client: IpAddr) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        match client.to_canonical() {
            IpAddr::V4(v4) => hasher.write_u32(v4.to_bits() >> (32 - IPV4_PREFIX)),
            // Eight octets where IPv4 has four: never the same input.
            IpAddr::V6(v6) => hasher.write_u64((v6.to_bits() >> (128 - IPV6_PREFIX)) as u64),
        }
        hasher.finish() as usize % COUNTS
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("interval", &self.interval).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicUsize;

    fn limit(rate: u32) -> Limit {
        Limit::new(NonZeroU32::new(rate).unwrap(), [1, 2])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// Of this many queries at once, how many get each judgement.
    #[track_caller]
    fn check(limit: &Limit, client: &str, now: f64, queries: usize, expected: [usize; 3]) {
        let mut counts = [0; 3];
        for _ in 0..queries {
            counts[limit.judge(ip(client), secs(now)) as usize] += 1;
        }
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_seconds_worth_at_once_and_then_the_rate() {
        let limit = limit(100);
        check(&limit, "192.0.2.1", 0.0, 120, [100, 10, 10]);
        check(&limit, "192.0.2.1", 0.1, 20, [10, 5, 5]);
        check(&limit, "192.0.2.1", 0.1, 1, [0, 1, 0]);
        check(&limit, "192.0.2.1", 9.0, 102, [100, 1, 1]);
    }

    #[test]
    fn one_answer_a_second_is_a_rate_too() {
        let limit = limit(1);
        check(&limit, "192.0.2.1", 0.0, 3, [1, 1, 1]);
        check(&limit, "192.0.2.1", 0.9, 1, [0, 1, 0]);
        check(&limit, "192.0.2.1", 1.0, 2, [1, 0, 1]);
    }

    #[test]
    fn a_network_is_counted_together_and_others_are_not_touched() {
        let limit = limit(10);
        check(&limit, "192.0.2.1", 0.0, 10, [10, 0, 0]);
        check(&limit, "192.0.2.254", 0.0, 2, [0, 1, 1]);
        check(&limit, "::ffff:192.0.2.9", 0.0, 2, [0, 1, 1]);
        check(&limit, "192.0.3.1", 0.0, 10, [10, 0, 0]);
        check(&limit, "2001:db8::1", 0.0, 10, [10, 0, 0]);
        check(&limit, "2001:db8:0:ff:1::", 0.0, 2, [0, 1, 1]);
        check(&limit, "2001:db8:0:100::1", 0.0, 10, [10, 0, 0]);
    }

    #[test]
    fn threads_together_get_no_more_than_one() {
        let (limit, given) = (limit(1000), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let judged = limit.judge(ip("192.0.2.1"), Duration::ZERO);
                        given
                            .fetch_add(usize::from(judged == Judgement::Answer), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(given.into_inner(), 1000);
    }

    #[test]
    fn networks_are_spread_over_the_counts() {
        let limit = limit(1);
        let networks = (0..10_000_u32).map(|n| IpAddr::from((n << 8).to_be_bytes()));
        let places: std::collections::HashSet<usize> =
            networks.map(|client| limit.place(client)).collect();
        // By chance alone about 375 of them share one.
        assert!(places.len() > 9_500, "{}", places.len());
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_second_ahead(
            rate in 1_u32..200,
            pauses in prop::collection::vec(0_u64..50, 1..1000),
        ) {
            let limit = limit(rate);
            let mut now = Duration::ZERO;
            let mut given: Vec<Duration> = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                if limit.judge(ip("2001:db8::1"), now) == Judgement::Answer {
                    given.push(now);
                }
                let back = given.len().saturating_sub(2 * rate as usize);
                for (at, first) in given.iter().enumerate().skip(back) {
                    let most = f64::from(rate) * ((now - *first).as_secs_f64() + 1.0) + 1e-6;
                    prop_assert!((given.len() - at) as f64 <= most);
                }
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_always_answered(rate in 1_u32..2000, client: [u8; 4]) {
            let limit = limit(rate);
            for n in 0..3000 {
                let now = Duration::from_nanos(n * SECOND.div_ceil(rate.into()));
                prop_assert_eq!(limit.judge(client.into(), now), Judgement::Answer);
            }
        }
    }
}
