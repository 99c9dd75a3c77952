//! Runs a claim on many cases: a few, always the same, with the other tests; as many as there is
//! time for, each time others, when `integration/hunt` asks for them.
//!
//! `MESOZONE_HUNT_SECONDS` is that time for each claim. A failure is made as small as can be and
//! shown with its seed; `MESOZONE_SEED` runs that seed again.

use std::env;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

/// A single case that takes longer hangs.
const HANG: Duration = Duration::from_secs(120);

/// What a claim says of one case.
pub(crate) type Said = Result<(), TestCaseError>;

/// Runs the claim on `cases` cases, or on as many batches of them as there is time for.
#[track_caller]
pub(crate) fn hunt<S: Strategy>(cases: u32, strategy: S, claim: impl Fn(S::Value) -> Said)
where
    S::Value: Debug,
{
    let test = thread::current().name().expect("a test's thread has its name").to_owned();
    if let Some(seed) = number("MESOZONE_SEED") {
        return batch(&test, seed, cases, &strategy, &claim);
    }
    let Some(seconds) = number("MESOZONE_HUNT_SECONDS") else {
        return batch(&test, 0, cases, &strategy, &claim);
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut batches = 0;
    while Instant::now() < end {
        // Fresh from the operating system.
        batch(&test, RandomState::new().hash_one(batches), cases, &strategy, &claim);
        batches += 1;
    }
    eprintln!("{test}: {} cases", batches * u64::from(cases));
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[track_caller]
fn batch<S: Strategy>(
    test: &str,
    seed: u64,
    cases: u32,
    strategy: &S,
    claim: &impl Fn(S::Value) -> Said,
) where
    S::Value: Debug,
{
    let again = format!("MESOZONE_SEED={seed} integration/test --test integration -- {test}");
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4_000,
        max_shrink_time: 60_000, // Milliseconds.
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4));
    let mut runner = TestRunner::new_with_rng(config, rng);
    let (begins, begun) = channel();
    let failed = thread::scope(|scope| {
        let again = again.as_str();
        scope.spawn(move || watch(&begun, again));
        let ran = runner.run(strategy, |case| {
            // Whoever watches is gone only when it ended this process.
            let _ = begins.send(());
            claim(case)
        });
        drop(begins);
        ran
    });
    match failed {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{why}\nin {case:?}\nagain: {again}"),
        Err(TestError::Abort(why)) => panic!("{why}\nagain: {again}"),
    }
}

/// Ends the process when a case never does.
#[expect(clippy::disallowed_methods, reason = "a thread that hangs ends in no other way")]
fn watch(begun: &Receiver<()>, again: &str) {
    loop {
        match begun.recv_timeout(HANG) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("a case does not end\nagain: {again}");
                std::process::exit(101);
            }
        }
    }
}
