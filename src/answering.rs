//! What all sockets of the bundled server share.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::answer::{Circumstances, Recursion, Transport, Verdict, answer};
use crate::served::Served;

/// What is answered from, replaced as a whole while it is read.
pub(crate) struct Answering {
    served: ArcSwap<Served>,
}

impl Answering {
    pub(crate) fn new(served: Served) -> Answering {
        Answering { served: ArcSwap::from_pointee(served) }
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
        answer(served, request, &Circumstances { transport, random, recursion, reserved: 0 }, reply)
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
