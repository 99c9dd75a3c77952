//! How many messages to have unanswered, and how many records to put into one: found by trying,
//! since servers differ. Knot commits waiting messages together and gains eighteenfold from a
//! window; BIND and PowerDNS gain no more than that they need not wait for the next message.

use std::time::Duration;

use crate::update::Limits;

/// The most messages without an answer.
pub const WINDOW_MAX: usize = 32;
/// BIND's own answers wait for all that is in flight. Knot starts a commit with the first message
/// that comes and takes what came meanwhile into the next, so two at a time are as slow there as
/// one; the first trial is always doubled, and four show the gain.
const WINDOW_START: usize = 2;
/// BIND answers nobody while it carries out a message: larger ones gain little and delay its answers.
const RECORD_MAX: usize = 200;
const OCTETS_MAX: usize = 10_240;
/// A reply slower than this means that messages are too large.
const SLOW: Duration = Duration::from_secs(1);
/// A doubled window must bring this much more to stay.
const GAIN: f64 = 1.3;
/// So many answers after a doubled window did not stay, it is tried again: the server may have been
/// busy with something else. Twice as many after each time, up to the second number.
const REST: (usize, usize) = (50, 3_200);

/// What was learnt about one server.
#[derive(Clone, Debug)]
pub struct Pace {
    window: usize,
    record_max: usize,
    trial: Trial,
    /// The throughput of half the window, in records a second; none while the window itself is measured.
    half: Option<f64>,
    /// Answers until the next trial, and how many come between trials.
    rest: usize,
    rest_next: usize,
    /// Answers to come to messages that were on their way when one before them was slow.
    late: usize,
}

#[derive(Clone, Copy, Default, Debug)]
struct Trial {
    answers: usize,
    records: usize,
    took: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            window: WINDOW_START,
            record_max: RECORD_MAX,
            trial: Trial::default(),
            half: None,
            rest: 0,
            rest_next: REST.0,
            late: 0,
        }
    }
}

impl Pace {
    pub fn window(&self) -> usize {
        self.window
    }

    pub fn limits(&self) -> Limits {
        Limits { record_max: self.record_max, octets_max: OCTETS_MAX }
    }

    /// A message was answered `latency` after it was sent and `since` after the answer before it.
    pub fn answered(&mut self, records: usize, latency: Duration, since: Duration) {
        if self.late > 0 {
            self.late -= 1;
            return;
        }
        if latency > SLOW {
            self.record_max = (self.record_max / 2).max(1);
            self.late = self.window - 1;
            self.window = 1;
            return self.pause();
        }
        self.record_max = (self.record_max + self.record_max / 16 + 1).min(RECORD_MAX);
        if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        self.trial.answers += 1;
        self.trial.records += records;
        self.trial.took += since;
        // The first answers are to messages that were sent before the window was this one.
        if self.trial.answers >= 3 * self.window {
            self.judge();
        }
    }

    fn judge(&mut self) {
        let trial = std::mem::take(&mut self.trial);
        let throughput = trial.records as f64 / trial.took.as_secs_f64().max(1e-6); // A ratio.
        match self.half {
            Some(half) if throughput <= half * GAIN => {
                self.window = (self.window / 2).max(1);
                self.pause();
            }
            _ if self.window == WINDOW_MAX => self.pause(),
            _ => {
                self.half = Some(throughput);
                self.window *= 2;
            }
        }
    }

    fn pause(&mut self) {
        (self.trial, self.half) = (Trial::default(), None);
        self.rest = self.rest_next;
        self.rest_next = (self.rest_next * 2).min(REST.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a server that needs `each` a message and `commit` for all that wait together.
    #[track_caller]
    fn check(each: Duration, commit: Duration, expected: std::ops::RangeInclusive<usize>) {
        let mut pace = Pace::default();
        for _ in 0..400 {
            let window = pace.window();
            let since = each + commit / window as u32;
            pace.answered(200, since * window as u32, since);
        }
        assert!(expected.contains(&pace.window()), "window {}", pace.window());
    }

    #[test]
    fn the_window_grows_only_where_it_helps() {
        let ms = Duration::from_millis;
        check(ms(2), ms(0), 2..=4);
        check(Duration::from_micros(100), ms(12), 16..=32);
    }

    #[test]
    fn a_server_that_was_busy_with_something_else_is_tried_again() {
        let mut pace = Pace::default();
        for at in 0..400 {
            let commit = Duration::from_millis(if (6..20).contains(&at) { 100 } else { 12 });
            let since = commit / pace.window() as u32;
            pace.answered(200, since * pace.window() as u32, since);
        }
        assert!(pace.window() >= 16, "window {}", pace.window());
    }

    #[test]
    fn one_stall_costs_a_wide_window_little() {
        let mut pace = Pace::default();
        let mut answer = |latency: Duration| {
            let since = Duration::from_millis(12) / pace.window() as u32;
            pace.answered(200, latency, since);
            (pace.window(), pace.limits().record_max)
        };
        while answer(Duration::from_millis(12)).0 < 32 {}
        for _ in 0..32 {
            assert_eq!(answer(Duration::from_secs(2)), (1, RECORD_MAX / 2));
        }
        let (window, record_max) =
            (0..1_000).map(|_| answer(Duration::from_millis(12))).last().unwrap();
        assert!(window >= 16 && record_max == RECORD_MAX, "{window}, {record_max}");
    }

    #[test]
    fn slow_replies_shrink_messages_and_quick_ones_let_them_grow_back() {
        let mut pace = Pace::default();
        // The second was on its way with the first.
        for _ in 0..4 {
            pace.answered(200, Duration::from_secs(2), Duration::from_secs(2));
        }
        assert_eq!(pace.limits().record_max, 25);
        for _ in 0..100 {
            pace.answered(62, Duration::from_millis(5), Duration::from_millis(5));
        }
        assert_eq!(pace.limits().record_max, RECORD_MAX);
    }
}
