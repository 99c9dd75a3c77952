//! Finding the names that a server refuses: a message refused for its content is halved until the
//! name at fault stands alone, and that one is set apart, so that all others go on.

use std::collections::BTreeSet;

use tokio::sync::watch;
use tracing::{debug, warn};

use crate::cut::RECORD_MAX_OF_BIND;
use crate::fence::Fence;
use crate::name::Name;
use crate::plan::{Change, wanted};
use crate::publish::{Applied, Burst, names};
use crate::rr::{Rrset, Type};
use crate::target::{Also, Cause, Step, Target, TargetError};
use crate::update::Batch;
use crate::wire::Rcode;
use crate::zone::Key;

/// So many names are found in one pass; other refused messages wait for the next.
const NAMES_MAX: usize = 20;
/// A known RRset no larger than this shows whether the server takes records at all.
const SAMPLE_MAX: usize = 10;
/// So many of them are tried.
const SAMPLES_MAX: usize = 4;

impl Target {
    /// Goes on with a burst of which messages were refused, one message at a time.
    pub(crate) async fn sift(
        &mut self,
        burst: &mut Burst,
        fence: Fence,
        stop: &watch::Receiver<bool>,
    ) -> Result<Applied, TargetError> {
        let Some((rcode, first)) = burst.refused.front() else {
            return Ok(self.finish(burst, false));
        };
        let (rcode, named) = match first.changes.is_empty() {
            true => (*rcode, "no name".to_owned()),
            false => (*rcode, names(first)),
        };
        if rcode == Rcode::NOTIMP {
            return Err(self.refused(rcode, named, Also::Unknown));
        }
        if self.prove_writable(burst, fence).await? == Proof::Refused {
            return Err(self.refused(rcode, named, Also::Everything));
        }
        let (mut found, mut left) = (Vec::new(), 0);
        while !(burst.refused.is_empty() && burst.is_over()) {
            if *stop.borrow() {
                self.finish(burst, true);
                return Ok(Applied::Stopped);
            }
            let batch = match burst.refused.pop_front() {
                Some((_, batch)) if found.len() >= NAMES_MAX => {
                    left += batch.changes.len();
                    continue;
                }
                // What was refused in a crowd may have been taken down by another message.
                Some((_, batch)) => batch,
                None => burst.take(self.pace.limits()),
            };
            let batch = without(batch, &found);
            if batch.changes.is_empty() {
                continue;
            }
            let Some(rcode) = self.try_alone(burst, batch.clone()).await? else { continue };
            match batch.halves() {
                None if self.cuts(rcode, &batch) => {
                    self.view = None;
                    return Ok(Applied::PlanAgain);
                }
                None => found.push((rcode, batch)),
                Some((first, second)) => {
                    burst.refused.push_front((rcode, second));
                    burst.refused.push_front((rcode, first));
                }
            }
        }
        self.set_apart(burst, found).await?;
        let applied = self.finish(burst, false);
        // The steps of a large change may have come in another order.
        let unsure = left > 0 || !burst.packer.split_names().is_empty();
        Ok(if unsure { Applied::PlanAgain } else { applied })
    }

    /// A real change, which carries no record: who refuses that refuses everything.
    async fn prove_writable(
        &mut self,
        burst: &mut Burst,
        fence: Fence,
    ) -> Result<Proof, TargetError> {
        // The message that was to put it there may be the one that was refused.
        let raised = match burst.fence == Some(fence.rdata()) {
            true => Fence { epoch: fence.epoch + 1, ..fence },
            false => fence,
        };
        match self.swap_fence(burst.fence.clone(), &raised).await {
            Ok(()) => {
                burst.fence = Some(raised.rdata());
                Ok(Proof::Taken)
            }
            Err(error) if matches!(*error.cause, Cause::Refused { .. }) => Ok(Proof::Refused),
            Err(error) => Err(error),
        }
    }

    /// Sends one message with nothing else in flight. Some: it was refused.
    async fn try_alone(
        &mut self,
        burst: &mut Burst,
        batch: Batch,
    ) -> Result<Option<Rcode>, TargetError> {
        let others = std::mem::take(&mut burst.refused);
        self.send(burst, batch, None).await?;
        self.await_answers(burst, 0).await?;
        let refused = std::mem::replace(&mut burst.refused, others);
        Ok(refused.front().map(|(rcode, _)| *rcode))
    }

    /// Whether RRsets are cut from now on, since that of this one name was too large for the server.
    fn cuts(&mut self, rcode: Rcode, batch: &Batch) -> bool {
        let is_large = |change: &Change| {
            change.new.as_ref().is_some_and(|new| new.rdata().len() > RECORD_MAX_OF_BIND)
        };
        rcode == Rcode::SERVFAIL && batch.changes.iter().any(is_large) && self.cut_rrsets()
    }

    /// Sets the names at fault apart, unless the trouble is the server's: it has to have taken
    /// some record, if only one that it has.
    async fn set_apart(
        &mut self,
        burst: &mut Burst,
        found: Vec<(Rcode, Batch)>,
    ) -> Result<(), TargetError> {
        let Some((rcode, first)) = found.first() else { return Ok(()) };
        if !burst.accepted && self.takes_records(burst, &found).await? == Proof::Refused {
            return Err(self.refused(*rcode, names(first), Also::Records));
        }
        for (rcode, batch) in found {
            let name = batch.changes[0].key.name.clone(); // A batch of one name.
            let again = self.quarantine.contains(&name);
            let (wanted, now) = (wanted(&batch.changes), self.clock());
            let pause = self.quarantine.refuse(name.clone(), wanted, rcode, now).as_secs();
            let (target, zone) = (&self.config.name, self.zone());
            if again {
                debug!("target {target}, zone {zone}: {name} is still refused: {rcode}");
                continue;
            }
            warn!(
                "target {target}, server {}, zone {zone}: updating: the server answered {rcode} to \
                 {name} alone{}: it stays as it is and is tried again in {pause} s; others go on",
                self.server(),
                hint(rcode)
            );
        }
        Ok(())
    }

    /// Whether the server takes a record that it has already, of a type that it refused if there
    /// is one. A few are tried: it may refuse their names as well.
    async fn takes_records(
        &mut self,
        burst: &mut Burst,
        found: &[(Rcode, Batch)],
    ) -> Result<Proof, TargetError> {
        let mut tried: Vec<Key> = Vec::new();
        while tried.len() < SAMPLES_MAX
            && let Some((key, set)) = self.sample(found, &tried)
        {
            tried.push(key.clone());
            let sample = Batch::of(&[Change { key, old: None, new: Some(set) }]);
            if self.try_alone(burst, sample).await?.is_none() {
                return Ok(Proof::Taken);
            }
        }
        Ok(Proof::Refused)
    }

    /// A small RRset that the server has, of a type and at no name that it refused.
    fn sample(&self, found: &[(Rcode, Batch)], tried: &[Key]) -> Option<(Key, Rrset)> {
        let changes = || found.iter().flat_map(|(_, batch)| &batch.changes);
        let view = self.view.as_ref()?;
        let is_apart = |name: &Name| {
            self.quarantine.contains(name)
                || changes().map(|change| &change.key).chain(tried).any(|key| key.name == *name)
        };
        let types: BTreeSet<Type> = changes().map(|change| change.key.rtype).collect();
        types.into_iter().find_map(|rtype| {
            view.current.find(|key, set| {
                key.rtype == rtype
                    && set.rdata().len() <= SAMPLE_MAX
                    && self.config.scope.check(key, &view.foreign).is_ok()
                    && !is_apart(&key.name)
            })
        })
    }

    fn refused(&mut self, rcode: Rcode, names: String, also: Also) -> TargetError {
        // Where nothing was accepted the zone is as it was read.
        self.view.take_if(|_| self.accepted > 0);
        self.error(Step::Update, Cause::Refused { rcode, names, also })
    }
}

/// What a trial showed.
#[derive(PartialEq)]
enum Proof {
    Taken,
    Refused,
}

/// A batch without the names that were found to be at fault: of a name that goes in several
/// steps, those behind the refused one.
fn without(batch: Batch, found: &[(Rcode, Batch)]) -> Batch {
    let is_found = |change: &Change| {
        found.iter().any(|(_, found)| found.changes[0].key.name == change.key.name) // Of one name.
    };
    match batch.changes.iter().any(is_found) {
        true => {
            let left = batch.changes.into_iter().filter(|change| !is_found(change));
            Batch::of(&left.collect::<Vec<_>>())
        }
        false => batch,
    }
}

fn hint(rcode: Rcode) -> &'static str {
    match rcode {
        Rcode::SERVFAIL => " (its log says why; BIND takes no more than max-records-per-type)",
        Rcode::REFUSED | Rcode::NOTAUTH => " (its rights or name checks refuse this name)",
        _ => "",
    }
}
