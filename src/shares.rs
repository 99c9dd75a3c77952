//! Room that is shared out among client networks, so that none of them takes it all.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::network::Network;

/// Who has one IPv6 address has a whole network of them.
const IPV6_PREFIX: u8 = 56;

/// Places, and who has how many of them.
#[derive(Debug)]
pub(crate) struct Shares {
    all_max: usize,
    /// For one network.
    one_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default, Debug)]
struct Taken {
    all: usize,
    by_network: HashMap<Network, usize>,
}

/// A socket that nothing can be had from, which is told once and not ten times a second.
#[derive(Default, Debug)]
pub(crate) struct Failing {
    is_told: bool,
}

impl Failing {
    pub(crate) fn tell(&mut self, over: &str, error: &io::Error) {
        // A client that has left again is no trouble of ours.
        if !self.is_told && error.kind() != io::ErrorKind::ConnectionAborted {
            tracing::warn!("nothing can be taken in over {over} for now: {error}");
            self.is_told = true;
        }
    }

    pub(crate) fn ends(&mut self, over: &str) {
        if std::mem::take(&mut self.is_told) {
            tracing::info!("requests over {over} are taken in again");
        }
    }
}

/// One place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    network: Network,
}

impl Shares {
    pub(crate) fn new(all_max: usize, one_max: usize) -> Arc<Shares> {
        Arc::new(Shares { all_max, one_max, taken: Mutex::default() })
    }

    /// A place for this client; none where all are taken but `kept`, or its network has its share.
    pub(crate) fn take(self: &Arc<Self>, client: IpAddr, kept: usize) -> Option<Share> {
        let bits = if client.to_canonical().is_ipv4() { 32 } else { IPV6_PREFIX };
        let network = Network::of(client, bits);
        let mut taken = self.lock();
        if taken.all + kept >= self.all_max {
            return None;
        }
        let count = taken.by_network.entry(network).or_default();
        if *count >= self.one_max {
            return None;
        }
        *count += 1;
        taken.all += 1;
        Some(Share { shares: self.clone(), network })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        taken.all -= 1;
        if let Some(count) = taken.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.by_network.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_share_and_leaves_the_rest() {
        let shares = Shares::new(5, 2);
        let take = |client: &str, kept| shares.take(client.parse().unwrap(), kept);
        let (first, second) = (take("10.0.0.1", 0), take("::ffff:10.0.0.1", 0));
        assert!(first.is_some() && second.is_some() && take("10.0.0.1", 0).is_none());
        let (third, fourth) = (take("2001:db8::1", 0), take("2001:db8::2:1", 0));
        assert!(third.is_some() && fourth.is_some() && take("2001:db8:0:ff::1", 0).is_none());
        assert!(take("10.0.0.2", 1).is_none(), "the last is kept for others");
        let last = take("10.0.0.2", 0);
        assert!(last.is_some() && take("10.0.0.3", 0).is_none());
        drop(first);
        assert!(take("10.0.0.1", 0).is_some());
        drop((second, third, fourth, last));
        assert!(shares.lock().by_network.is_empty());
    }
}
