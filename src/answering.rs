//! What all sockets of the bundled server share.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Semaphore, mpsc};

use crate::answer::{
    Answered, Circumstances, Identity, Recursion, Transport, Verdict, answer, cut_short,
};
use crate::connection::{now, random};
use crate::cookie::{ANSWER_LEN, Secrets};
use crate::countersign::{self, Opened};
use crate::forward::Forwarder;
use crate::forwarding::{Admission, Errand, Forwarding};
use crate::limit::{Judgement, Limit};
use crate::metrics::Metrics;
use crate::name::Name;
use crate::outgoing::{Asker, Outgoing, Secondaries};
use crate::rr::Serial;
use crate::served::Served;
use crate::wire::Rcode;

/// Zones on their way at once; the next waits.
const TRANSFERS_MAX: usize = 8;
/// For so long new cookies are made with one secret, and taken for twice as long.
pub(crate) const SECRET_AGE: Duration = Duration::from_secs(24 * 3_600);

/// What is answered from, replaced as a whole while it is read, and what else decides.
pub(crate) struct Answering {
    served: ArcSwap<Served>,
    secondaries: Arc<Secondaries>,
    /// Room for transfers.
    pub(crate) transfers: Arc<Semaphore>,
    /// Where it is told that a secondary has a later serial than ours.
    ahead: mpsc::Sender<(Name, Serial)>,
    pub(crate) forwarder: Arc<Forwarder>,
    limit: Option<Limit>,
    /// None where there is no chance to make them of.
    secrets: ArcSwapOption<Secrets>,
    pub(crate) metrics: Metrics,
    started: Instant,
}

/// How is answered now: whoever answers looks here anew for each batch of requests.
pub(crate) type Current = ArcSwap<Answering>;

/// What decides beside the zones.
pub(crate) struct Terms {
    pub(crate) secondaries: Arc<Secondaries>,
    pub(crate) forwarding: Forwarding,
    pub(crate) rate_limit: Option<NonZeroU32>,
    pub(crate) metrics: Metrics,
}

/// What becomes of a request.
pub(crate) enum Outcome<'a> {
    Silence,
    /// What was written is the answer.
    Answer,
    /// Another name server is asked first.
    Forward(Errand),
    /// The answer is made message by message.
    Transfer(Outgoing<'a>),
}

/// When requests are answered: one reading of the clocks serves for a batch of them.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    since_start: Duration,
    unix: u64,
}

impl Answering {
    pub(crate) fn new(
        served: Served,
        ahead: mpsc::Sender<(Name, Serial)>,
        terms: Terms,
    ) -> Answering {
        let Terms { secondaries, forwarding, rate_limit, metrics } = terms;
        let answering = Answering {
            served: ArcSwap::from_pointee(served),
            secondaries,
            transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            ahead,
            forwarder: Forwarder::counted(forwarding, metrics.clone()),
            limit: rate_limit.map(|rate| Limit::new(rate, [random(), random()])),
            secrets: ArcSwapOption::empty(),
            metrics,
            started: Instant::now(),
        };
        answering.renew_secret();
        answering
    }

    /// The same on other terms: cookies stay good, and room that is taken stays taken.
    pub(crate) fn on(&self, served: Served, terms: Terms) -> Answering {
        let Answering { transfers, ahead, secrets, .. } = self;
        Answering {
            transfers: transfers.clone(),
            secrets: ArcSwapOption::new(secrets.load_full()),
            ..Answering::new(served, ahead.clone(), terms)
        }
    }

    /// Makes cookies with another secret from now on, and takes those of the one before.
    pub(crate) fn renew_secret(&self) {
        let mut secret = [0; 16];
        if let Err(error) = getrandom::fill(&mut secret) {
            tracing::warn!(
                "no randomness for a new secret of cookies: {error}; the one before goes on"
            );
            return;
        }
        let before = self.secrets.load();
        let secrets = before.as_ref().map_or_else(|| Secrets::new(secret), |s| s.rotated(secret));
        self.secrets.store(Some(Arc::new(secrets)));
    }

    /// Answers from this from now on.
    pub(crate) fn publish(&self, served: Served) {
        self.served.store(Arc::new(served));
    }

    /// The zones as they are now.
    pub(crate) fn served(&self) -> arc_swap::Guard<Arc<Served>> {
        self.served.load()
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment { since_start: self.started.elapsed(), unix: now() }
    }

    /// Writes the answer for this client in place of whatever `reply` held, where nobody else has to
    /// be asked.
    pub(crate) fn answer(
        &self,
        served: &Served,
        request: &[u8],
        (client, transport, moment): (IpAddr, Transport, Moment),
        chance: &mut Chance,
        reply: &mut Vec<u8>,
    ) -> Outcome<'_> {
        let serves = !self.forwarder.is_off() && self.forwarder.serves(client);
        let recursion = if serves { Recursion::Available } else { Recursion::Refused };
        let secrets = self.secrets.load();
        let cookies = secrets.as_deref().map(|secrets| (secrets, moment.unix as u32)); // RFC 9018, 4.3.
        let random = chance.next();
        let circumstances =
            Circumstances { client, transport, cookies, random, recursion, reserved: 0 };
        let Answered { verdict, identity, cookie } = answer(served, request, &circumstances, reply);
        let verdict = match verdict {
            Verdict::Signed => self.answer_signed(served, request, circumstances, reply),
            verdict => verdict,
        };
        let is_limited = transport == Transport::Udp && identity == Identity::Claimed;
        let judgement = match &self.limit {
            Some(limit) if is_limited && verdict != Verdict::Silence => {
                limit.judge(client, moment.since_start)
            }
            _ => Judgement::Answer,
        };
        match (verdict, judgement) {
            (Verdict::Silence | Verdict::Signed, _) | (_, Judgement::Silence) => Outcome::Silence,
            (Verdict::Elsewhere, judgement) if serves => {
                self.forward(request, (client, transport, cookie), judgement, reply)
            }
            (_, Judgement::Truncate) => {
                cut_short(reply);
                Outcome::Answer
            }
            (Verdict::Transfer, _) => {
                let outgoing = self.transfer(served, request, (client, transport));
                outgoing.map_or(Outcome::Silence, Outcome::Transfer)
            }
            (Verdict::Answer | Verdict::Elsewhere, Judgement::Answer) => Outcome::Answer,
        }
    }

    fn forward(
        &self,
        request: &[u8],
        (client, transport, cookie): (IpAddr, Transport, Option<[u8; ANSWER_LEN]>),
        judgement: Judgement,
        reply: &mut Vec<u8>,
    ) -> Outcome<'_> {
        let errand = match self.forwarder.admit(request, client, transport) {
            Admission::Silence => return Outcome::Silence,
            Admission::Ask(errand) => match cookie {
                Some(cookie) => errand.with_cookie(cookie),
                None => errand,
            },
            Admission::Answer(answer) => {
                *reply = answer;
                return Outcome::Answer;
            }
        };
        if judgement == Judgement::Answer {
            return Outcome::Forward(errand);
        }
        *reply = errand.truncated();
        Outcome::Answer
    }

    /// Whether this is the address of a secondary.
    pub(crate) fn is_secondary(&self, client: IpAddr) -> bool {
        self.secondaries.has(client)
    }

    /// Answers a signed request with a signature: as what was signed, or refusing that.
    fn answer_signed(
        &self,
        served: &Served,
        request: &[u8],
        circumstances: Circumstances<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let refusal = match countersign::open(request, self.secondaries.key.as_ref(), now()) {
            Opened::Signed(request, mut signer) => {
                let reserved = signer.signature_len();
                let circumstances = Circumstances { reserved, ..circumstances };
                let Answered { verdict, .. } = answer(served, &request, &circumstances, reply);
                signer.sign(reply, now());
                return match verdict {
                    // Nobody else's answer would bear a signature of ours.
                    Verdict::Elsewhere => Verdict::Answer,
                    verdict => verdict,
                };
            }
            Opened::Refused(refusal) => refusal.answer(request),
            Opened::Malformed | Opened::Unsigned => countersign::error(request, Rcode::FORMERR),
        };
        let Ok(refusal) = refusal else { return Verdict::Silence };
        *reply = refusal;
        Verdict::Answer
    }

    /// The answer to a request that the verdict was a transfer on.
    fn transfer(
        &self,
        served: &Served,
        request: &[u8],
        (client, transport): (IpAddr, Transport),
    ) -> Option<Outgoing<'_>> {
        let opened = countersign::open(request, self.secondaries.key.as_ref(), now());
        let (request, signer) = match opened {
            Opened::Signed(request, signer) => (request, Some(signer)),
            Opened::Unsigned => (request.to_vec(), None),
            Opened::Refused(_) | Opened::Malformed => return None,
        };
        let (recursion, mut refusal) = (Recursion::Refused, Vec::new());
        let (cookies, random, reserved) = (None, 0, 0);
        let circumstances =
            Circumstances { client, transport, cookies, random, recursion, reserved };
        answer(served, &request, &circumstances, &mut refusal);
        let asker = Asker { client, transport, signer };
        let outgoing = Outgoing::new(served, &request, &refusal, asker, &self.secondaries).ok()?;
        if let Some(ahead) = outgoing.ahead() {
            // Where many are told already, this one will be told again.
            let _ = self.ahead.try_send(ahead.clone());
        }
        Some(outgoing)
    }
}

/// Which record comes first, anew for each answer: SplitMix64. Nothing secret hangs on it.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new() -> Chance {
        // Without entropy a fixed start costs only the variety between sockets.
        Chance(getrandom::u64().unwrap_or_default())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
