//! Keeping the view of a target's zone up to date: reading what changed, comparing it with what was
//! known, and verifying what was written.

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::connection::{Connection, ConnectionError};
use crate::current::Current;
use crate::drift::Drift;
use crate::fence::{Adoption, Found};
use crate::held::Entry;
use crate::reading::{Gathering, View};
use crate::rr::Serial;
use crate::scope::Foreign;
use crate::target::{Cause, Hold, Step, Target, TargetError};
use crate::transfer::{Ask, Item, Outcome, TransferError};
use crate::zone::{Key, Zone};

/// After so many whole answers in a row a server is taken to know no differences (PowerDNS); any
/// server answers whole when the difference is larger than the zone.
const WHOLE_ANSWERS: u8 = 3;

impl Target {
    /// Brings the view up to date: one SOA question when nothing changed, the difference when
    /// something did, the whole zone when there is no other way.
    pub async fn read(&mut self, desired: &Zone) -> Result<(), TargetError> {
        if self.is_unread() {
            if self.view.is_some() && self.connection.is_some() {
                // Once an hour a whole zone is asked for on a connection that may have been idle.
                self.serial().await?;
            }
            return self.read_whole(desired).await;
        }
        let serial = self.serial().await?;
        match self.view.take() {
            Some(view) if view.serial == serial => {
                self.view = Some(view);
                Ok(())
            }
            Some(view) => self.read_since(view, desired).await,
            None => self.read_whole(desired).await,
        }
    }

    /// Whether the next reading is one of the whole zone.
    pub fn is_unread(&self) -> bool {
        let due = self.read_at.is_none_or(|at| at.elapsed() > self.read_again);
        self.view.is_none() || due
    }

    pub(crate) async fn serial(&mut self) -> Result<Serial, TargetError> {
        let zone = self.zone().clone();
        let reused = self.connection.is_some();
        let key = self.keys.transfer.clone();
        let mut answer = self.connect().await?.serial(&zone, &key).await;
        // A server closes connections that have been idle: that is no failure.
        if reused && answer.as_ref().is_err_and(ConnectionError::is_loss) {
            self.connection = None;
            answer = self.connect().await?.serial(&zone, &key).await;
        }
        answer.map_err(|cause| self.failed(Step::Soa, cause))
    }

    async fn read_whole(&mut self, desired: &Zone) -> Result<(), TargetError> {
        self.known = self.view.take().or(self.known.take());
        let (outcome, gathering) = self.transfer(Ask::Axfr).await?;
        match outcome {
            Outcome::Whole(serial) => {
                debug!(target = self.config.name, %serial, "zone transferred");
                let view = gathering.into_view(serial, desired, &self.seen);
                self.seen.remember_name_servers(&view.foreign);
                let epoch = if let Found::Fence(fence) = &view.fence { fence.epoch } else { 0 };
                self.epoch_seen.get_or_insert(epoch);
                self.view = Some(view);
                self.read_at = Some(Instant::now());
                if let Some(known) = self.known.take() {
                    self.compare(known, desired);
                }
                Ok(())
            }
            // An AXFR ends whole or not at all.
            _ => Err(self.failed(Step::Transfer, TransferError::NoSoa)),
        }
    }

    async fn read_since(&mut self, view: View, desired: &Zone) -> Result<(), TargetError> {
        self.known = Some(view.clone());
        let (outcome, gathering) = self.transfer(Ask::Ixfr(view.serial)).await?;
        self.view = match outcome {
            Outcome::UpToDate => Some(view),
            Outcome::Differences(serial) => gathering.applied_to(&view, serial),
            Outcome::Whole(serial) => Some(gathering.into_view(serial, desired, &self.seen)),
            Outcome::WholeComing | Outcome::AskAxfr => {
                // What is left of that answer is not for the next question.
                self.connection = None;
                None
            }
        };
        if let Some(view) = &self.view {
            self.seen.remember_name_servers(&view.foreign);
        }
        match (&self.view, self.known.take()) {
            (Some(_), Some(known)) => self.compare(known, desired),
            (Some(_), None) => {}
            (None, known) => {
                self.known = known;
                self.read_whole(desired).await?;
            }
        }
        Ok(())
    }

    /// What others changed between a view and the one now, while we held the fence. Our own
    /// changes are in both.
    fn compare(&mut self, known: View, desired: &Zone) {
        let fence = self.fence_name().clone();
        self.note_admitted(&known, desired);
        let (Some(view), Some(held)) = (&mut self.view, &self.held) else { return };
        let is_held = |found: &Found| matches!(found, Found::Fence(fence) if fence == held);
        let is_gone = view.fence == Found::Absent;
        if self.doubt || !is_held(&known.fence) || !(is_gone || is_held(&view.fence)) {
            return;
        }
        if is_gone {
            self.drift_count += 1;
            let (target, zone) = (&self.config.name, &self.config.scope.zone);
            warn!(
                "target {target}, zone {zone}: somebody else removed the fence, the TXT record at \
                 {fence}: it is made again"
            );
        }
        let mut before = known.current;
        before.rebase(desired);
        view.current.rebase(desired);
        let scope = &self.config.scope;
        let is_ours = |key: &_| scope.check(key, &view.foreign).is_ok();
        let mut drift = Drift::between(&before, &view.current, desired, is_ours);
        // In a reverse zone another fence may have come or gone, and records are theirs or ours by it.
        drift.gone.retain(|(_, rdata)| scope.is_ours(rdata, &view.foreign));
        drift.come.retain(|(_, rdata)| scope.is_ours(rdata, &known.foreign));
        self.note(drift);
    }

    /// Another owner, a delegation or the like is gone, and what stood there is ours: it is removed
    /// after a while if it is little, and else held.
    fn note_admitted(&mut self, known: &View, desired: &Zone) {
        let is_other = |view: &&View| !view.foreign.decides_like(&known.foreign);
        let Some(view) = self.view.as_ref().filter(is_other) else { return };
        let scope = &self.config.scope;
        let owns = |(key, rdata): &Entry, foreign: &Foreign| {
            scope.check(key, foreign).is_ok() && scope.is_ours(rdata, foreign)
        };
        let undesired = view.current.differing(desired).into_iter().flat_map(|key| {
            let undesired = view.current.get(&key).map(|set| set.minus(desired.get(&key)));
            let entries = undesired.into_iter().flatten().map(|rdata| (key.clone(), rdata.clone()));
            entries.collect::<Vec<Entry>>()
        });
        let is_admitted =
            |entry: &Entry| owns(entry, &view.foreign) && !owns(entry, &known.foreign);
        let entries: Vec<Entry> = undesired.filter(is_admitted).collect();
        let Some((key, _)) = entries.first() else { return };
        let (target, zone, count) = (&self.config.name, self.zone(), entries.len());
        warn!(
            "target {target}, zone {zone}: {count} records, first {} {}, are in our space since \
             what kept us from there is gone; they are removed after {} s if they are few, and \
             held else; `protect` would keep them",
            key.name,
            key.rtype,
            self.config.hold_down.as_secs()
        );
        let due = self.clock() + self.config.hold_down;
        self.admit(count);
        self.young.note(entries, due);
    }

    /// Tells of what others did: what is gone comes back at once, what came is removed after a while.
    fn note(&mut self, drift: Drift) {
        if drift.is_empty() {
            return;
        }
        let Drift { gone, come } = drift;
        self.drift_count += (gone.len() + come.len()) as u64; // Far below 2^64.
        let (target, zone) = (&self.config.name, self.zone());
        let is_adopted = self.held.as_ref().is_some_and(|held| held.adoption == Adoption::Adopted);
        if let Some((key, rdata)) = gone.first() {
            let count = gone.len();
            let then = match is_adopted {
                true => "put back",
                false => "put back at names that we made",
            };
            warn!(
                "target {target}, zone {zone}: somebody else removed {count} records of ours, \
                 first {} {} {rdata}: {then}",
                key.name, key.rtype
            );
        }
        if let Some((key, rdata)) = come.first() {
            let count = come.len();
            let seconds = self.config.hold_down.as_secs();
            let then = match is_adopted {
                true => format!("removed after {seconds} s"),
                false => format!(
                    "removed after {seconds} s at names that we made, and held else with what \
                     was found at first contact"
                ),
            };
            warn!(
                "target {target}, zone {zone}: somebody else added {count} records in our space, \
                 first {} {} {rdata}: {then}; `protect` would keep them",
                key.name, key.rtype
            );
        }
        let due = self.clock() + self.config.hold_down;
        self.young.note(come, due);
    }

    async fn transfer(&mut self, ask: Ask) -> Result<(Outcome, Gathering), TargetError> {
        let (zone, key) = (self.zone().clone(), self.keys.transfer.clone());
        let mut gathering = Gathering::new(self.config.scope.clone(), self.fence_name().clone());
        let mut sink = |item: Item<'_, '_>| gathering.take(item);
        let outcome = self.connect().await?.transfer(&zone, ask, &key, &mut sink).await;
        match outcome {
            Ok(outcome) => Ok((outcome, gathering)),
            Err(cause) => Err(self.failed(Step::Transfer, cause)),
        }
    }

    pub(crate) async fn connect(&mut self) -> Result<&mut Connection, TargetError> {
        if self.connection.is_none() {
            let opened = Connection::open(&self.config.server, self.tls.as_ref()).await;
            self.connection = Some(opened.map_err(|cause| self.error(Step::Connect, cause))?);
        }
        Ok(self.connection.as_mut().expect("opened just now if it was not"))
    }

    /// Drops a connection on which something went wrong: what else it may carry is not for us.
    pub(crate) fn failed(&mut self, step: Step, cause: impl Into<ConnectionError>) -> TargetError {
        self.connection = None;
        let view = self.view.take();
        match step {
            // What became of our own changes is not known.
            Step::Update | Step::Fence | Step::Verify => self.known = None,
            Step::Connect | Step::Soa | Step::Transfer => self.known = view.or(self.known.take()),
        }
        self.before = None;
        self.error(step, cause.into())
    }

    /// Reads back what a burst made of the zone, and compares. Where the server answers with the
    /// whole zone, its replies must do, if they explain the serial: one step a message.
    pub async fn verify(&mut self, desired: &Zone, hold: Hold) -> Result<(), TargetError> {
        let (Some(before), Some(mut expected)) = (self.before.take(), self.view.take()) else {
            return Ok(());
        };
        expected.current.rebase(desired);
        let explained = Serial(before.serial.0.wrapping_add(self.accepted));
        self.view = self.differences(before, desired).await?;
        if self.view.is_none() {
            expected.serial = self.serial().await?;
            if expected.serial == explained {
                self.view = Some(expected);
                return Ok(());
            }
            self.read_whole(desired).await?;
        }
        let Some(actual) = &mut self.view else { return Ok(()) };
        self.seen.remember_name_servers(&actual.foreign);
        actual.current.rebase(desired);
        if hold == Hold::Keep {
            self.compare(expected, desired);
            return Ok(());
        }
        let scope = &self.config.scope;
        let ours = |key: &Key| scope.check(key, &actual.foreign).is_ok();
        match drift(&expected.current, &actual.current, ours) {
            None => Ok(()),
            Some(cause) => Err(self.error(Step::Verify, cause)),
        }
    }

    /// The view now, by the differences since an earlier one; none where the server tells none.
    async fn differences(
        &mut self,
        before: View,
        desired: &Zone,
    ) -> Result<Option<View>, TargetError> {
        if self.whole_answers >= WHOLE_ANSWERS {
            return Ok(None);
        }
        let (outcome, gathering) = self.transfer(Ask::Differences(before.serial)).await?;
        Ok(match outcome {
            Outcome::UpToDate => Some(before),
            Outcome::Differences(serial) => {
                self.whole_answers = 0;
                match gathering.applied_to(&before, serial) {
                    Some(view) => Some(view),
                    None => {
                        self.read_whole(desired).await?;
                        self.view.take()
                    }
                }
            }
            Outcome::Whole(serial) => Some(gathering.into_view(serial, desired, &self.seen)),
            Outcome::WholeComing | Outcome::AskAxfr => {
                self.connection = None;
                self.whole_answers += 1;
                None
            }
        })
    }
}

fn drift(expected: &Current, actual: &Current, is_ours: impl Fn(&Key) -> bool) -> Option<Cause> {
    let mut drift = expected.drift(actual);
    drift.retain(|(key, ..)| is_ours(key));
    let (key, ..) = drift.first()?;
    Some(Cause::Drift { count: drift.len(), first: format!("{} {}", key.name, key.rtype) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::{Rdata, Rrset, Ttl, Type};

    #[test]
    fn what_is_not_ours_is_no_drift() {
        let zone = |names: &[&str]| -> Zone {
            let data = || Rrset::of_one(Ttl::from_secs(60), Rdata::A([10, 0, 0, 1].into()));
            let key = |name: &str| Key { name: name.parse().unwrap(), rtype: Type::A };
            names.iter().map(|name| (key(name), data())).collect()
        };
        let desired = zone(&["web.mesos"]);
        let [expected, actual] = [&["web.mesos"][..], &["web.mesos", "ns.ext.mesos"]]
            .map(|names| Current::of_reading(&desired, &zone(names)));
        assert!(drift(&expected, &actual, |key| key.name.to_string() != "ns.ext.mesos.").is_none());
        let found = drift(&expected, &actual, |_| true).map(|cause| cause.to_string());
        assert!(found.is_some_and(|text| text.contains("ns.ext.mesos. A")));
    }
}
