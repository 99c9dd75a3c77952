//! Telling systemd how we are: ready, reading the configuration again, alive, stopping. Without
//! systemd nobody hears it.

use std::future::pending;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

/// What systemd is told.
pub(crate) struct Supervisor {
    /// How often it wants to hear of us, and when it is due; none: not at all.
    watchdog: Option<(Duration, Instant)>,
}

impl Supervisor {
    /// What has to be had at the start is had.
    pub(crate) fn ready() -> Supervisor {
        tell(&[NotifyState::Ready]);
        // Twice in its time, so that one that comes late is in time.
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Supervisor { watchdog: every.map(|every| (every, Instant::now() + every)) }
    }

    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => debug!("systemd is not told of the reload: {error}"),
        }
    }

    pub(crate) fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// When it wants to hear of us next.
    pub(crate) async fn due(&self) {
        match self.watchdog {
            Some((_, at)) => sleep_until(at).await,
            None => pending().await,
        }
    }

    pub(crate) fn alive(&mut self) {
        tell(&[NotifyState::Watchdog]);
        if let Some((every, at)) = &mut self.watchdog {
            *at = Instant::now() + *every;
        }
    }

    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("systemd cannot be told: {error}");
    }
}
