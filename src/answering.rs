//! What all sockets of the bundled server share.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc};

use crate::answer::{Circumstances, Recursion, Transport, Verdict, answer};
use crate::connection::now;
use crate::countersign::{self, Opened};
use crate::name::Name;
use crate::outgoing::{Asker, Outgoing, Secondaries};
use crate::rr::Serial;
use crate::served::Served;
use crate::wire::Rcode;

/// Zones on their way at once; the next waits.
const TRANSFERS_MAX: usize = 8;

/// What is answered from, replaced as a whole while it is read.
pub(crate) struct Answering {
    served: ArcSwap<Served>,
    secondaries: Arc<Secondaries>,
    /// Room for transfers.
    pub(crate) transfers: Semaphore,
    /// Where it is told that a secondary has a later serial than ours.
    ahead: mpsc::Sender<(Name, Serial)>,
}

impl Answering {
    pub(crate) fn new(
        served: Served,
        secondaries: Arc<Secondaries>,
        ahead: mpsc::Sender<(Name, Serial)>,
    ) -> Answering {
        let (served, transfers) = (ArcSwap::from_pointee(served), Semaphore::new(TRANSFERS_MAX));
        Answering { served, secondaries, transfers, ahead }
    }

    /// Answers from this from now on.
    pub(crate) fn publish(&self, served: Served) {
        self.served.store(Arc::new(served));
    }

    /// The zones as they are now.
    pub(crate) fn served(&self) -> arc_swap::Guard<Arc<Served>> {
        self.served.load()
    }

    /// Writes the answer for this client in place of whatever `reply` held.
    pub(crate) fn answer(
        &self,
        served: &Served,
        request: &[u8],
        (_client, transport): (IpAddr, Transport),
        chance: &mut Chance,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let (random, recursion) = (chance.next(), Recursion::Refused);
        let circumstances = Circumstances { transport, random, recursion, reserved: 0 };
        match answer(served, request, &circumstances, reply) {
            Verdict::Signed => self.answer_signed(served, request, circumstances, reply),
            verdict => verdict,
        }
    }

    /// Answers a signed request with a signature: as what was signed, or refusing that.
    fn answer_signed(
        &self,
        served: &Served,
        request: &[u8],
        circumstances: Circumstances,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let refusal = match countersign::open(request, self.secondaries.key.as_ref(), now()) {
            Opened::Signed(request, mut signer) => {
                let reserved = signer.signature_len();
                let circumstances = Circumstances { reserved, ..circumstances };
                let verdict = answer(served, &request, &circumstances, reply);
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
    pub(crate) fn transfer(
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
        let circumstances = Circumstances { transport, random: 0, recursion, reserved: 0 };
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
