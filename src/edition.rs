//! The zone as secondaries get it: editions of it, each with its serial.
//!
//! Answers follow the cluster at once. The transferable zone follows it at most once a second, so
//! that its serial can be Unix time and a process that starts anew goes on where the last one was.

use crate::rr::Serial;
use crate::zone::Zone;

/// The newest edition.
#[derive(Clone, Debug)]
pub struct Editions {
    serial: Serial,
    zone: Zone,
}

impl Editions {
    pub fn of(serial: Serial, zone: Zone) -> Editions {
        Editions { serial, zone }
    }

    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The whole zone, its SOA and NS among the RRsets.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The serial of the next edition at `now`, in seconds of Unix time.
    pub fn next_serial(&self, now: Serial) -> Serial {
        if self.serial < now { now } else { Serial(self.serial.0.wrapping_add(1)) }
    }

    pub fn add(&mut self, serial: Serial, zone: Zone) {
        (self.serial, self.zone) = (serial, zone);
    }
}
