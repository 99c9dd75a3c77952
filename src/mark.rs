//! How far the desired records may fall before removals wait for an approval: a fault that makes
//! a cluster look half empty must not empty the zone by half.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// What came within this time may go again: a deployment that starts every new task before it
/// ends the old ones is no loss.
const WINDOW: Duration = Duration::from_secs(600);
/// Counts closer together than this are one.
const GRAIN: Duration = Duration::from_secs(1);

/// How much may go at once. Both must be exceeded for removals to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shrink {
    /// Of the mark; none: whatever it is.
    pub percent_max: Option<u32>,
    /// Records.
    pub floor: usize,
}

impl Shrink {
    fn allows(self, loss: Loss) -> bool {
        let lost = loss.mark.saturating_sub(loss.desired);
        let within = |percent: u32| lost.saturating_mul(100) <= loss.mark * percent as usize;
        lost <= self.floor || self.percent_max.is_none_or(within)
    }
}

/// So many records are desired where so many were before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    pub mark: usize,
    pub desired: usize,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the desired records fell from {} to {}", self.mark, self.desired)
    }
}

/// What the desired records are measured against: their number ten minutes ago, or when they
/// were first counted.
#[derive(Clone, Default, Debug)]
pub struct Mark {
    /// Since when there were how many, oldest first; the first one is the mark.
    counts: VecDeque<(Duration, usize)>,
    /// The mark while too much is lost.
    frozen: Option<usize>,
}

impl Mark {
    /// Whether anything was counted yet.
    pub fn is_set(&self) -> bool {
        !self.counts.is_empty()
    }

    /// Takes note of how many records are desired at `now`, of any clock that only goes forward.
    pub fn count(&mut self, now: Duration, desired: usize) {
        let is_first = self.counts.len() <= 1;
        match self.counts.back_mut() {
            Some((_, count)) if *count == desired => {}
            Some((since, count)) if !is_first && now.saturating_sub(*since) < GRAIN => {
                *count = desired;
            }
            _ => self.counts.push_back((now, desired)),
        }
        while self.counts.get(1).is_some_and(|(since, _)| *since + WINDOW <= now) {
            self.counts.pop_front();
        }
    }

    /// The loss, if it is more than allowed. While there is one the mark stays; when there is none
    /// any more, it starts again from what is desired.
    pub fn loss(&mut self, now: Duration, desired: usize, allowed: Shrink) -> Option<Loss> {
        self.count(now, desired);
        let mark = self.frozen.or(self.counts.front().map(|(_, count)| *count)).unwrap_or(desired);
        let loss = Loss { mark, desired };
        if !allowed.allows(loss) {
            self.frozen = Some(mark);
            return Some(loss);
        }
        if self.frozen.is_some() {
            self.restart(now, desired);
        }
        None
    }

    /// So many records went by approval.
    pub fn lower(&mut self, removed: usize) {
        self.frozen = self.frozen.map(|mark| mark.saturating_sub(removed));
    }

    /// Takes note of a count that nothing is decided by: it may begin a hold, but end none.
    pub fn watch(&mut self, now: Duration, desired: usize, allowed: Shrink) {
        self.count(now, desired);
        let Some(mark) = self.frozen.or(self.counts.front().map(|(_, count)| *count)) else {
            return;
        };
        if !allowed.allows(Loss { mark, desired }) {
            self.frozen = Some(mark);
        }
    }

    /// Of the desired records so many were not ours to publish, and now are so many others.
    pub fn exclude(&mut self, before: usize, now: usize) {
        let shift = |count: usize| (count + before).saturating_sub(now);
        self.frozen = self.frozen.map(shift);
        self.counts.iter_mut().for_each(|(_, counted)| *counted = shift(*counted));
    }

    /// So many records of the zone, which nobody desires, are ours from now on: to remove them is a loss.
    pub fn admit(&mut self, count: usize) {
        let mark = self.frozen.or(self.counts.front().map(|(_, count)| *count));
        self.frozen = mark.map(|mark| mark + count);
    }

    /// Starts again from what is desired: nothing is left that a hold would keep.
    pub fn restart(&mut self, now: Duration, desired: usize) {
        self.frozen = None;
        self.counts = VecDeque::from([(now, desired)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Shrink = Shrink { percent_max: Some(10), floor: 5 };

    /// Counts `second:desired` words, each with `!` where the loss is to be too much.
    #[track_caller]
    fn check(counts: &str) {
        let mut mark = Mark::default();
        for word in counts.split_whitespace() {
            let expected = word.ends_with('!');
            let (second, desired) = word.trim_end_matches('!').split_once(':').unwrap();
            let now = Duration::from_secs(second.parse().unwrap());
            let loss = mark.loss(now, desired.parse().unwrap(), TENTH);
            assert_eq!(loss.is_some(), expected, "{word} in {counts}: {loss:?}");
        }
    }

    #[test]
    fn a_loss_is_measured_against_ten_minutes_ago() {
        check("0:1000 5:900 6:899!");
        check("0:1000 300:950 600:901 900:855 950:854!");
        check("0:40 5:35 6:34!");
        check("0:10 5:5 6:4!");
    }

    #[test]
    fn what_came_lately_may_go() {
        check("0:1000 10:2000 200:1000");
        check("0:1000 10:2000 700:1000!");
        check("0:0 10:1000 20:0");
    }

    #[test]
    fn a_hold_lasts_until_enough_is_back() {
        check("0:1000 5:500! 2000:500! 2100:899! 2101:900 2102:810 2103:809!");
    }

    #[test]
    fn approved_removals_lower_the_mark() {
        let mut mark = Mark::default();
        let at = Duration::from_secs;
        assert_eq!(mark.loss(at(0), 1000, TENTH), None);
        assert_eq!(mark.loss(at(1), 500, TENTH), Some(Loss { mark: 1000, desired: 500 }));
        mark.lower(300);
        assert_eq!(mark.loss(at(2), 500, TENTH), Some(Loss { mark: 700, desired: 500 }));
        mark.lower(200);
        assert_eq!(mark.loss(at(3), 500, TENTH), None);
        assert_eq!(mark.loss(at(4), 449, TENTH), Some(Loss { mark: 500, desired: 449 }));
    }

    #[test]
    fn what_is_not_ours_any_more_is_no_loss() {
        let (mut mark, at) = (Mark::default(), Duration::from_secs);
        assert_eq!(mark.loss(at(0), 1000, TENTH), None);
        mark.exclude(0, 400);
        assert_eq!(mark.loss(at(1), 600, TENTH), None);
        assert_eq!(mark.loss(at(2), 500, TENTH), Some(Loss { mark: 600, desired: 500 }));
        mark.restart(at(3), 500);
        assert_eq!(mark.loss(at(4), 490, TENTH), None);
    }

    #[test]
    fn what_is_ours_again_ends_no_hold() {
        let (mut mark, at) = (Mark::default(), Duration::from_secs);
        assert_eq!(mark.loss(at(0), 1000, TENTH), None);
        let held = Some(Loss { mark: 1000, desired: 500 });
        assert_eq!(mark.loss(at(1), 500, TENTH), held);
        mark.exclude(0, 400);
        assert_eq!(mark.loss(at(2), 100, TENTH), Some(Loss { mark: 600, desired: 100 }));
        mark.exclude(400, 0);
        assert_eq!(mark.loss(at(3), 500, TENTH), held);
    }

    #[test]
    fn what_becomes_ours_and_is_not_desired_is_a_loss_if_it_is_much() {
        let (mut mark, at) = (Mark::default(), Duration::from_secs);
        assert_eq!(mark.loss(at(0), 1000, TENTH), None);
        mark.admit(100);
        assert_eq!(mark.loss(at(1), 1000, TENTH), None);
        mark.admit(500);
        assert_eq!(mark.loss(at(2), 1000, TENTH), Some(Loss { mark: 1500, desired: 1000 }));
    }

    #[test]
    fn what_is_only_watched_begins_a_hold_and_ends_none() {
        let (mut mark, at) = (Mark::default(), Duration::from_secs);
        assert_eq!(mark.loss(at(0), 1000, TENTH), None);
        mark.watch(at(1), 500, TENTH);
        mark.watch(at(2), 1000, TENTH);
        assert_eq!(mark.loss(at(3), 700, TENTH), Some(Loss { mark: 1000, desired: 700 }));
    }

    #[test]
    fn no_limit_allows_everything() {
        let mut mark = Mark::default();
        let off = Shrink { percent_max: None, floor: 0 };
        assert_eq!(mark.loss(Duration::ZERO, 1000, off), None);
        assert_eq!(mark.loss(Duration::from_secs(1), 0, off), None);
    }
}
