//! Random sequences of what happens to publishers and a zone: tasks come and go, connections
//! break, rivals publish, others write, the zone is frozen, restored, restarted. Whatever happens,
//! no message leaves its scope and nothing of others changes; once it is over, the zone becomes
//! the desired one.

mod publisher;
mod site;
mod space;
mod step;

use proptest::prelude::*;

use crate::hunting::hunt;
use crate::peer::Peer;
use crate::proxy::{Fault, Which};
use site::Site;
use step::{Setting, Step, Who, setting, step};

fn run(setting: &Setting, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut site = Site::start(setting);
    for (at, step) in steps.iter().enumerate() {
        site.take(step).map_err(|fault| TestCaseError::fail(format!("step {at}: {fault}")))?;
    }
    site.conclude().map_err(TestCaseError::fail)
}

fn every_sequence_converges(peer: Peer) {
    let steps = prop::collection::vec(step(), 1..25);
    hunt(80, (setting(peer), steps), |(setting, steps)| run(&setting, &steps));
}

#[test]
fn every_sequence_converges_on_bind() {
    every_sequence_converges(Peer::Bind);
}

#[test]
fn every_sequence_converges_on_knot() {
    every_sequence_converges(Peer::Knot);
}

#[test]
fn every_sequence_converges_on_powerdns() {
    every_sequence_converges(Peer::PowerDns);
}

/// A sequence that was found or thought of.
#[track_caller]
fn check(steps: &[Step]) {
    for peer in Peer::ALL {
        let setting = Setting {
            peer,
            deep: false,
            records_max: 100,
            found: Vec::new(),
            careful: false,
            strict: false,
        };
        let ran = run(&setting, steps);
        assert!(ran.is_ok(), "{peer:?}: {ran:?}");
    }
}

#[test]
fn a_restored_zone_lets_no_message_of_before_pass() {
    let ours = Step::Pass(Who::Run(0));
    check(&[
        Step::Starts(0, 0),
        ours.clone(),
        Step::Saves,
        Step::Starts(1, 0),
        Step::Strikes(Which::Update(1), Fault::Hold),
        ours.clone(),
        ours.clone(),
        Step::Restores,
        Step::Starts(2, 0),
        ours,
        Step::Delivers,
    ]);
}
