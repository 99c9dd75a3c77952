//! Carrying out an approved plan on one target: messages under the fence, each answered and
//! verified, as many at a time as the server gains from.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::connection::{Answered, ConnectionError};
use crate::fence::{Adoption, Fence, Found, Until};
use crate::name::Name;
use crate::plan::{Approved, Change};
use crate::report::chain;
use crate::rr::{Rdata, Rrset};
use crate::target::{Also, Cause, Hold, Step, Target, TargetError};
use crate::update::{self, Batch, FenceStep, Limits, Packer};
use crate::wire::Rcode;

/// How a carried out plan ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    Done,
    /// RRsets have to be cut for this server, or refused names are left to be found: plan again.
    PlanAgain,
    /// Asked to stop in between; every message sent was answered.
    Stopped,
}

/// A message on its way.
struct Sent {
    id: u16,
    batch: Batch,
    /// The fence's data before it, and what it makes of the fence.
    before: Option<Rdata>,
    after: Option<Fence>,
    replaced: Vec<(Name, Rdata)>,
}

/// One burst under way.
pub(crate) struct Burst {
    pub(crate) packer: Packer,
    /// Names that were refused before, each in a message of its own behind all others.
    apart: VecDeque<Batch>,
    /// The fence's data in the zone as it is now.
    pub(crate) fence: Option<Rdata>,
    /// The fences of others that the first message replaces.
    replaced: Vec<(Name, Rdata)>,
    /// What the last message makes of it.
    release: Option<Fence>,
    sent: VecDeque<Sent>,
    /// Messages and records sent so far, and since when.
    message_count: usize,
    record_count: usize,
    started: Instant,
    last_answer: Instant,
    pub(crate) refused: VecDeque<(Rcode, Batch)>,
    /// A message with records was accepted.
    pub(crate) accepted: bool,
    /// What the zone says of it from the first message on.
    adoption: Adoption,
}

impl Burst {
    fn new(changes: Vec<Change>, fence: Option<Rdata>, adoption: Adoption) -> Burst {
        Burst {
            packer: Packer::new(changes),
            apart: VecDeque::new(),
            fence,
            replaced: Vec::new(),
            release: None,
            sent: VecDeque::new(),
            message_count: 0,
            record_count: 0,
            started: Instant::now(),
            last_answer: Instant::now(),
            refused: VecDeque::new(),
            accepted: false,
            adoption,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.packer.is_empty() && self.apart.is_empty()
    }

    /// What goes next, empty at the end.
    pub(crate) fn take(&mut self, limits: Limits) -> Batch {
        let next = if self.packer.is_empty() { self.apart.pop_front() } else { None };
        next.unwrap_or_else(|| self.packer.take(limits))
    }
}

impl Target {
    /// Carries out what was approved. Takes the fence with the first message if it is not ours
    /// yet; with nothing to change, that alone.
    pub async fn apply(
        &mut self,
        approved: Approved,
        hold: Hold,
        stop: &watch::Receiver<bool>,
    ) -> Result<Applied, TargetError> {
        let (found, mut fence) = self.claim(hold.until())?;
        if matches!(&found, Found::Fence(found) if *found == fence) {
            // Ours, if of an epoch that we never heard was taken.
            self.held = Some(fence.clone());
        }
        if approved.adopts() {
            fence.adoption = Adoption::Adopted;
            self.created.clear();
        }
        let before = match &found {
            Found::Fence(found) => Some(found.rdata()),
            Found::Absent | Found::Other(_) => None,
        };
        self.before.clone_from(&self.view);
        self.accepted = 0;
        let there = self.view.as_ref().map(|view| view.current.clone()).unwrap_or_default();
        let (again, changes): (Vec<Change>, Vec<Change>) = approved
            .into_changes()
            .into_iter()
            .partition(|change| self.quarantine.contains(&change.key.name));
        let mut burst = Burst::new(changes, before, fence.adoption);
        burst.replaced = self.replaced();
        burst.apart = again.chunk_by(|a, b| a.key.name == b.key.name).map(Batch::of).collect();
        burst.release =
            (hold == Hold::Release).then(|| Fence { until: Until::Released, ..fence.clone() });
        for name in burst.packer.split_names() {
            info!(target = self.config.name, %name, "too many records for one message: it changes in steps");
        }
        let ended = self.send_all(&mut burst, fence, stop).await;
        if ended.as_ref().is_err_and(|error| matches!(*error.cause, Cause::Connection(_))) {
            // One of our messages may still arrive, after others that we will have sent.
            self.doubt = true;
            if burst.adoption == Adoption::FirstContact {
                let unanswered = burst.sent.iter().flat_map(|sent| &sent.batch.changes);
                let names = unanswered.map(|change| change.key.name.clone());
                self.unsure.extend(names.filter(|name| !there.has_name(name)));
            }
        }
        ended
    }

    async fn send_all(
        &mut self,
        burst: &mut Burst,
        fence: Fence,
        stop: &watch::Receiver<bool>,
    ) -> Result<Applied, TargetError> {
        let first = burst.take(self.pace.limits());
        let after = match &burst.release {
            Some(release) if burst.is_over() => release,
            _ => &fence,
        };
        let after = Some(after.clone()).filter(|after| burst.fence != Some(after.rdata()));
        self.send(burst, first, after).await?;
        self.await_answers(burst, 0).await?;
        while burst.refused.is_empty() && !burst.is_over() && !*stop.borrow() {
            let alone = burst.packer.is_empty();
            let batch = burst.take(self.pace.limits());
            let last = burst.is_over();
            let room = if last || alone { 0 } else { self.pace.window() - 1 };
            let release = burst.release.clone().filter(|_| last);
            if burst.sent.len() > room {
                self.await_answers(burst, room).await?;
            }
            if burst.refused.is_empty() {
                self.send(burst, batch, release).await?;
            } else {
                burst.apart.push_front(batch);
            }
        }
        self.await_answers(burst, 0).await?;
        match burst.refused.is_empty() {
            true => Ok(self.finish(burst, *stop.borrow())),
            false => self.sift(burst, fence, stop).await,
        }
    }

    /// Sends one batch; `after` is what it makes of the fence.
    pub(crate) async fn send(
        &mut self,
        burst: &mut Burst,
        batch: Batch,
        after: Option<Fence>,
    ) -> Result<(), TargetError> {
        let before = burst.fence.clone();
        let data = after.as_ref().map(Fence::rdata);
        let step = FenceStep {
            name: self.fence_name().clone(),
            before: before.clone(),
            after: data.clone(),
            replaced: std::mem::take(&mut burst.replaced),
        };
        let (zone, key) = (self.zone().clone(), self.keys.update.clone());
        let connection = self.connect().await?;
        let id = connection.fresh_id();
        let message = update::encode(id, &zone, &step, &batch);
        let sent = connection.send_update(message, &key).await;
        burst.message_count += 1;
        burst.record_count += batch.record_count;
        if data.is_some() {
            burst.fence = data;
        }
        let replaced = step.replaced;
        burst.sent.push_back(Sent { id, batch, before, after, replaced });
        sent.map_err(|cause| self.failed(Step::Update, cause))
    }

    /// Waits until at most `room` messages are unanswered.
    pub(crate) async fn await_answers(
        &mut self,
        burst: &mut Burst,
        room: usize,
    ) -> Result<(), TargetError> {
        while burst.sent.len() > room {
            let key = self.keys.update.clone();
            let answered = self.connect().await?.receive_update(&key).await;
            let answered = answered.map_err(|cause| self.failed(Step::Update, cause))?;
            self.answered(burst, &answered)?;
        }
        Ok(())
    }

    fn answered(&mut self, burst: &mut Burst, answered: &Answered) -> Result<(), TargetError> {
        let at = burst.sent.iter().position(|sent| sent.id == answered.id);
        let Some(sent) = at.and_then(|at| burst.sent.remove(at)) else {
            return Err(self.failed(Step::Update, ConnectionError::OtherId));
        };
        if let Some(metrics) = &self.metrics {
            metrics.answered(answered.rcode);
        }
        let since = std::mem::replace(&mut burst.last_answer, Instant::now()).elapsed();
        match answered.rcode {
            // NOERROR that is none: who refuses the key has signed nothing.
            Rcode::NOERROR if answered.denied.is_none() => {
                self.pace.answered(sent.batch.record_count, answered.latency, since);
                self.accepted += 1;
                burst.accepted |= sent.batch.record_count > 0;
                let created = self.created_by(&sent.batch, burst.adoption);
                self.created.extend(created);
                if let Some(metrics) = &self.metrics {
                    metrics.changed(&sent.batch.changes);
                }
                self.commit(&sent.batch);
                for (fence, _) in &sent.replaced {
                    self.view.iter_mut().for_each(|view| view.foreign.forget_rival(fence));
                }
                if let Some(after) = sent.after {
                    self.held = Some(after).filter(|after| after.until != Until::Released);
                }
            }
            Rcode::NXRRSET | Rcode::YXRRSET | Rcode::NXDOMAIN | Rcode::YXDOMAIN => {
                self.connection = None;
                self.view = None;
                self.held.take_if(|_| burst.release.is_some());
                return Err(self.error(Step::Update, Cause::FenceLost));
            }
            // On Knot a bad message takes others in flight with it: which one it was is found out.
            rcode => {
                if sent.after.is_some() {
                    burst.fence = sent.before;
                }
                burst.replaced.extend(sent.replaced);
                burst.refused.push_back((rcode, sent.batch));
            }
        }
        Ok(())
    }

    /// The names that a message creates in a space not adopted yet.
    fn created_by(&self, batch: &Batch, adoption: Adoption) -> Vec<Name> {
        let Some(view) = self.view.as_ref().filter(|_| adoption == Adoption::FirstContact) else {
            return Vec::new();
        };
        let names = batch.changes.iter().map(|change| &change.key.name);
        names.filter(|name| !view.current.has_name(name)).cloned().collect()
    }

    fn commit(&mut self, batch: &Batch) {
        let Some(view) = &mut self.view else { return };
        for change in &batch.changes {
            let reached = reached(view.current.get(&change.key), change);
            view.current.set(&change.key, reached);
            if self.quarantine.release(&change.key.name) {
                let (target, name) = (&self.config.name, &change.key.name);
                info!(target, %name, "the server takes this name now");
            }
        }
    }

    /// What a burst leaves behind when all that was sent of it was answered.
    pub(crate) fn finish(&mut self, burst: &Burst, stopped: bool) -> Applied {
        let (messages, records) = (burst.message_count, burst.record_count);
        let (window, millis) = (self.pace.window(), burst.started.elapsed().as_millis());
        debug!(target = self.config.name, messages, records, window, millis, "zone updated");
        if let (Some(view), Some(fence)) = (&mut self.view, &burst.fence) {
            view.fence = Found::of(std::slice::from_ref(fence));
        }
        if let Some(view) = &self.view {
            self.created.retain(|name| view.current.has_name(name));
        }
        match stopped && !burst.is_over() {
            true => Applied::Stopped,
            false => Applied::Done,
        }
    }

    /// Gives back a fence that we hold, as well as can be: who finds it held waits it out.
    pub async fn release(&mut self, held: &Fence) {
        let released = Fence { until: Until::Released, ..held.clone() };
        match self.swap_fence(Some(held.rdata()), &released).await {
            Ok(()) => info!(target = self.config.name, "fence released"),
            Err(error) => warn!("the fence is not released: {}", chain(&error)),
        }
    }

    /// Gives back the fence at the end of a process, whether or not it is known to be held.
    pub async fn give_back(&mut self) {
        if self.doubt {
            // Raising the epoch as well stops what is still on its way.
            let raised = match self.find_fence().await {
                Ok(found) => self.raise_epoch(&found, Hold::Release).await,
                Err(error) => Err(error),
            };
            if let Err(error) = raised {
                warn!("the fence is not released: {}", chain(&error));
            }
            return;
        }
        let holds = self.view.is_none() || self.holds_fence();
        let Some(held) = self.held.take().filter(|_| holds) else { return };
        // A server closes connections that have been idle; asking for the SOA opens a new one.
        match self.serial().await {
            Ok(_) => self.release(&held).await,
            Err(error) => warn!("the fence is not released: {}", chain(&error)),
        }
    }

    /// The fence as the zone has it now.
    pub async fn find_fence(&mut self) -> Result<Found, TargetError> {
        let (name, key) = (self.fence_name().clone(), self.keys.transfer.clone());
        let records = self.connect().await?.txt(&name, &key).await;
        let records = records.map_err(|cause| self.failed(Step::Fence, cause))?;
        Ok(Found::of(&records))
    }

    /// After a lost reply: raises the epoch of the fence that was found, so that no message of ours
    /// that is still on its way can land behind a newer one.
    pub async fn raise_epoch(&mut self, found: &Found, hold: Hold) -> Result<(), TargetError> {
        let (mut fence, before) = self.next_epoch(found, hold.until())?;
        if hold == Hold::Release {
            fence.until = Until::Released;
        }
        self.swap_fence(before, &fence).await?;
        self.doubt = false;
        Ok(())
    }

    /// Puts one fence in the place of another, in a message of its own.
    pub(crate) async fn swap_fence(
        &mut self,
        before: Option<Rdata>,
        after: &Fence,
    ) -> Result<(), TargetError> {
        let mut burst = Burst::new(Vec::new(), before, after.adoption);
        let nothing = burst.take(self.pace.limits());
        self.send(&mut burst, nothing, Some(after.clone())).await?;
        self.await_answers(&mut burst, 0).await?;
        match burst.refused.pop_front() {
            None => Ok(()),
            Some((rcode, batch)) => {
                let names = names(&batch);
                let (also, space) = (Also::Unknown, self.config.scope.space);
                Err(self.error(Step::Fence, Cause::Refused { rcode, names, also, space }))
            }
        }
    }
}

/// What a change makes of an RRset, which is not always what was planned: one of the steps of a
/// large change may have been refused and the next accepted.
fn reached(now: Option<&Rrset>, change: &Change) -> Option<Rrset> {
    match (now, &change.old, &change.new) {
        (Some(now), Some(old), Some(new)) if now != old && old.ttl() == new.ttl() => {
            let gone: Vec<&Rdata> = change.removed().collect();
            let left = now.rdata().iter().filter(|rdata| !gone.contains(rdata));
            Rrset::new(new.ttl(), left.chain(change.added()).cloned().collect())
        }
        _ => change.new.clone(),
    }
}

/// "a.mesos." or "a.mesos. and 3 more names".
pub(crate) fn names(batch: &Batch) -> String {
    let mut names: Vec<String> = batch.changes.iter().map(|c| c.key.name.to_string()).collect();
    names.dedup();
    match names.len() {
        0 => "the fence alone".to_owned(),
        1 => names.remove(0),
        more => format!("{} and {} more names", names[0], more - 1),
    }
}
