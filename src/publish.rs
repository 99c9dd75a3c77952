//! Carrying out an approved plan on one target: messages under the fence, each answered and
//! verified, as many at a time as the server gains from.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::connection::{Answered, ConnectionError, now};
use crate::fence::{Adoption, Fence, Found, Until};
use crate::plan::{Approved, Change};
use crate::report::chain;
use crate::rr::Rdata;
use crate::target::{Cause, RRSET_MAX_OF_BIND, Step, Target, TargetError};
use crate::update::{self, Batch, FenceStep, Packer};
use crate::wire::Rcode;

/// How a carried out plan ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    Done,
    /// RRsets have to be cut for this server: plan again.
    PlanAgain,
    /// Asked to stop in between; every message sent was answered.
    Stopped,
}

/// Whether the fence is kept behind a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// `run` keeps it.
    Keep,
    /// `sync` releases it with its last message.
    Release,
}

/// How long a `sync` may hold the fence, in seconds.
const SYNC_LIMIT: u64 = 300;

impl Hold {
    pub fn until(self) -> Until {
        match self {
            Hold::Keep => Until::Run,
            Hold::Release => Until::Time(now() + SYNC_LIMIT),
        }
    }
}

/// One burst under way.
struct Burst {
    packer: Packer,
    /// The fence's data in the zone as it is now.
    fence: Option<Rdata>,
    /// What the last message makes of it.
    release: Option<Fence>,
    sent: VecDeque<(u16, Batch)>,
    /// Messages and records sent so far, and since when.
    message_count: usize,
    record_count: usize,
    started: Instant,
    last_answer: Instant,
    refused: Option<(Rcode, Batch)>,
    /// What the zone says of it from the first message on.
    adoption: Adoption,
}

impl Burst {
    fn new(changes: Vec<Change>, fence: Option<Rdata>, adoption: Adoption) -> Burst {
        Burst {
            packer: Packer::new(changes),
            fence,
            release: None,
            sent: VecDeque::new(),
            message_count: 0,
            record_count: 0,
            started: Instant::now(),
            last_answer: Instant::now(),
            refused: None,
            adoption,
        }
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
        let mut burst = Burst::new(approved.into_changes(), before, fence.adoption);
        burst.release =
            (hold == Hold::Release).then(|| Fence { until: Until::Released, ..fence.clone() });
        for name in burst.packer.split_names() {
            info!(target = self.config.name, %name, "too many records for one message: it changes in steps");
        }
        let ended = self.send_all(&mut burst, fence, stop).await;
        if ended.as_ref().is_err_and(|error| matches!(*error.cause, Cause::Connection(_))) {
            // One of our messages may still arrive, after others that we will have sent.
            self.doubt = true;
        }
        ended
    }

    async fn send_all(
        &mut self,
        burst: &mut Burst,
        fence: Fence,
        stop: &watch::Receiver<bool>,
    ) -> Result<Applied, TargetError> {
        let first = burst.packer.take(self.pace.limits());
        let after = match &burst.release {
            Some(release) if burst.packer.is_empty() => release,
            _ => &fence,
        };
        let after = Some(after.clone()).filter(|after| burst.fence != Some(after.rdata()));
        self.send(burst, first, after).await?;
        self.await_answers(burst, 0).await?;
        if burst.refused.is_none() {
            self.held = Some(fence);
        }
        while burst.refused.is_none() && !burst.packer.is_empty() && !*stop.borrow() {
            let batch = burst.packer.take(self.pace.limits());
            let last = burst.packer.is_empty();
            let room = if last { 0 } else { self.pace.window() - 1 };
            let release = burst.release.clone().filter(|_| last);
            if burst.sent.len() > room {
                self.await_answers(burst, room).await?;
            }
            if burst.refused.is_none() {
                self.send(burst, batch, release).await?;
            }
        }
        self.await_answers(burst, 0).await?;
        let stopped = *stop.borrow();
        self.finish(burst, stopped).await
    }

    /// Sends one batch; `after` is what it makes of the fence.
    async fn send(
        &mut self,
        burst: &mut Burst,
        batch: Batch,
        after: Option<Fence>,
    ) -> Result<(), TargetError> {
        let after = after.map(|fence| fence.rdata());
        let step = FenceStep {
            name: self.fence_name().clone(),
            before: burst.fence.clone(),
            after: after.clone(),
        };
        let (zone, key) = (self.zone().clone(), self.keys.update.clone());
        let connection = self.connect().await?;
        let id = connection.fresh_id();
        let message = update::encode(id, &zone, &step, &batch);
        let sent = connection.send_update(message, &key).await;
        self.claim_names(&batch, burst.adoption);
        burst.message_count += 1;
        burst.record_count += batch.record_count;
        burst.sent.push_back((id, batch));
        if after.is_some() {
            burst.fence = after;
        }
        sent.map_err(|cause| self.failed(Step::Update, cause))
    }

    /// Waits until at most `room` messages are unanswered.
    async fn await_answers(&mut self, burst: &mut Burst, room: usize) -> Result<(), TargetError> {
        while burst.sent.len() > room {
            let key = self.keys.update.clone();
            let answered = self.connect().await?.receive_update(&key).await;
            let answered = answered.map_err(|cause| self.failed(Step::Update, cause))?;
            self.note(burst, &answered)?;
        }
        Ok(())
    }

    fn note(&mut self, burst: &mut Burst, answered: &Answered) -> Result<(), TargetError> {
        let at = burst.sent.iter().position(|(id, _)| *id == answered.id);
        let Some((_, batch)) = at.and_then(|at| burst.sent.remove(at)) else {
            return Err(self.failed(Step::Update, ConnectionError::OtherId));
        };
        let since = std::mem::replace(&mut burst.last_answer, Instant::now()).elapsed();
        match answered.rcode {
            Rcode::NOERROR => {
                self.pace.answered(batch.record_count, answered.latency, since);
                self.accepted += 1;
                self.commit(&batch);
            }
            Rcode::NXRRSET | Rcode::YXRRSET | Rcode::NXDOMAIN | Rcode::YXDOMAIN => {
                self.connection = None;
                self.view = None;
                self.held.take_if(|_| burst.release.is_some());
                return Err(self.error(Step::Update, Cause::FenceLost));
            }
            // The first refusal is the telling one: on Knot it takes others in flight with it.
            rcode => {
                burst.refused.get_or_insert((rcode, batch));
            }
        }
        Ok(())
    }

    /// Notes the names that a message creates in a space not adopted yet, whether or not its
    /// answer will come.
    fn claim_names(&mut self, batch: &Batch, adoption: Adoption) {
        let Some(view) = self.view.as_ref().filter(|_| adoption == Adoption::FirstContact) else {
            return;
        };
        let names = batch.changes.iter().map(|change| &change.key.name);
        self.created.extend(names.filter(|name| !view.current.has_name(name)).cloned());
    }

    fn commit(&mut self, batch: &Batch) {
        let Some(view) = &mut self.view else { return };
        for change in &batch.changes {
            view.current.set(&change.key, change.new.clone());
        }
    }

    async fn finish(&mut self, burst: &mut Burst, stopped: bool) -> Result<Applied, TargetError> {
        let Some((rcode, batch)) = burst.refused.take() else {
            let (messages, records) = (burst.message_count, burst.record_count);
            let (window, millis) = (self.pace.window(), burst.started.elapsed().as_millis());
            debug!(target = self.config.name, messages, records, window, millis, "zone updated");
            if let (Some(view), Some(fence)) = (&mut self.view, &burst.fence) {
                view.fence = Found::of(std::slice::from_ref(fence));
            }
            if let Some(view) = &self.view {
                self.created.retain(|name| view.current.has_name(name));
            }
            let unfinished = stopped && !burst.packer.is_empty();
            if !unfinished && burst.release.is_some() {
                self.held = None;
            }
            return Ok(if unfinished { Applied::Stopped } else { Applied::Done });
        };
        self.view = None;
        let too_large = batch.changes.iter().any(|change| {
            change.new.as_ref().is_some_and(|new| new.rdata().len() > RRSET_MAX_OF_BIND)
        });
        if rcode == Rcode::SERVFAIL && too_large && self.cut_rrsets() {
            return Ok(Applied::PlanAgain);
        }
        if let Some(held) = self.held.take_if(|_| burst.release.is_some()) {
            self.release(&held).await;
        }
        let names = names(&batch);
        Err(self.error(Step::Update, Cause::Refused { rcode, names }))
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
            if let Err(error) = self.raise_epoch(Hold::Release).await {
                info!("the fence is not released: {}", chain(&error));
            }
            return;
        }
        let Some(held) = self.held.take() else { return };
        // A server closes connections that have been idle; asking for the SOA opens a new one.
        match self.serial().await {
            Ok(_) => self.release(&held).await,
            Err(error) => warn!("the fence is not released: {}", chain(&error)),
        }
    }

    /// After a lost reply: raises the epoch, so that no message of ours that is still on its way
    /// can land behind a newer one.
    pub async fn raise_epoch(&mut self, hold: Hold) -> Result<(), TargetError> {
        let (name, key) = (self.fence_name().clone(), self.keys.transfer.clone());
        let records = self.connect().await?.txt(&name, &key).await;
        let records = records.map_err(|cause| self.failed(Step::Fence, cause))?;
        let found = Found::of(&records);
        let (mut fence, before) = self.next_epoch(&found, hold.until())?;
        if hold == Hold::Release {
            fence.until = Until::Released;
        }
        self.swap_fence(before, &fence).await?;
        self.held = Some(fence).filter(|_| hold == Hold::Keep);
        self.doubt = false;
        Ok(())
    }

    /// Puts one fence in the place of another, in a message of its own.
    async fn swap_fence(
        &mut self,
        before: Option<Rdata>,
        after: &Fence,
    ) -> Result<(), TargetError> {
        let mut burst = Burst::new(Vec::new(), before, after.adoption);
        let nothing = burst.packer.take(self.pace.limits());
        self.send(&mut burst, nothing, Some(after.clone())).await?;
        self.await_answers(&mut burst, 0).await?;
        match burst.refused {
            None => Ok(()),
            Some((rcode, batch)) => {
                Err(self.error(Step::Fence, Cause::Refused { rcode, names: names(&batch) }))
            }
        }
    }
}

/// "a.mesos." or "a.mesos. and 3 more names".
fn names(batch: &Batch) -> String {
    let mut names: Vec<String> = batch.changes.iter().map(|c| c.key.name.to_string()).collect();
    names.dedup();
    match names.len() {
        0 => "the fence alone".to_owned(),
        1 => names.remove(0),
        more => format!("{} and {} more names", names[0], more - 1),
    }
}
