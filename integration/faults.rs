//! What goes wrong between mesozone and a name server, and what comes of it: afterwards the zone is
//! the desired one, and nobody else's record has changed.

mod operator;
mod stage;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::peer::{Peer, on_every_peer};
use crate::proxy::{Fault, How, Moment, Which};
use stage::{Outcome, Stage};

/// A fault by its name in a table.
pub(crate) struct Scenario {
    pub(crate) fault: String,
    play: Box<dyn Fn(Peer) -> Stage + Send + Sync>,
}

impl Scenario {
    fn new(fault: &str, play: impl Fn(Peer) -> Stage + Send + Sync + 'static) -> Scenario {
        Scenario { fault: fault.to_owned(), play: Box::new(play) }
    }

    /// Plays it on a server of its own.
    pub(crate) fn on(&self, peer: Peer) -> Outcome {
        (self.play)(peer).ends()
    }
}

/// Every fault there is, for the table.
pub(crate) fn all() -> Vec<Scenario> {
    [lost(), answers(), silences(), servers(), zones(), transfers(), others()]
        .into_iter()
        .flatten()
        .collect()
}

/// Which message of a burst of a dozen.
#[derive(Clone, Copy)]
enum At {
    First,
    Middle,
    Last,
}

/// A fault that strikes while the whole zone is published; the first message takes the fence.
fn in_burst(peer: Peer, at: At, fault: Fault) -> Stage {
    let mut stage = Stage::set(peer);
    let count = stage.message_count();
    assert!(count >= 10, "{count} messages are no burst");
    let which = match at {
        At::First => 1,
        At::Middle => count / 2,
        At::Last => count,
    };
    stage.proxy.arm(Which::Update(which), fault);
    stage.run();
    stage.until("the fault strikes", |stage| stage.proxy.armed() == 0);
    stage.strikes();
    stage
}

/// Connections that break.
fn lost() -> Vec<Scenario> {
    let places = [(At::First, "the fence's"), (At::Middle, "a middle"), (At::Last, "the last")];
    let moments = [(Moment::Before, "before"), (Moment::Reply, "in place of the reply to")];
    let mut scenarios = vec![Scenario::new("RST right behind a middle message", |peer| {
        in_burst(peer, At::Middle, Fault::Break(Moment::Behind, How::Rst))
    })];
    for (how, name) in [(How::Fin, "FIN"), (How::Rst, "RST")] {
        for (moment, when) in moments {
            for (at, place) in places {
                let fault = format!("{name} {when} {place} message");
                scenarios.push(Scenario::new(&fault, move |peer| {
                    in_burst(peer, at, Fault::Break(moment, how))
                }));
            }
            let fault = format!("{name} {when} the only message");
            scenarios.push(Scenario::new(&fault, move |peer| {
                let mut stage = Stage::published(peer);
                stage.proxy.arm(Which::Update(1), Fault::Break(moment, how));
                stage.start_task("fresh");
                stage.until("the fault strikes", |stage| stage.proxy.armed() == 0);
                stage.strikes();
                stage
            }));
        }
    }
    scenarios
}

/// Answers that are not what the server said, or not when.
fn answers() -> Vec<Scenario> {
    let flip =
        |fault, bit| Scenario::new(fault, move |peer| in_burst(peer, At::Middle, Fault::Flip(bit)));
    vec![
        flip("a bit of a reply's id flips", 3),
        flip("a bit of a reply's rcode flips", 31),
        flip("a bit of a reply's signature flips", 8 * 80),
        Scenario::new("unsigned NOERROR in place of a reply", |peer| {
            in_burst(peer, At::Middle, Fault::Forge)
        }),
        Scenario::new("a reply comes behind the next", |peer| {
            in_burst(peer, At::Middle, Fault::Overtaken)
        }),
        Scenario::new("a message arrives after its connection", arrives_late),
    ]
}

/// A message is delivered once its name is not wanted any more.
fn arrives_late(peer: Peer) -> Stage {
    let mut stage = Stage::published(peer);
    stage.proxy.arm(Which::Update(1), Fault::Hold);
    stage.start_task("late");
    stage.until("the message is held back", |stage| stage.proxy.silences() == 1);
    stage.strikes();
    stage.kill_task("late");
    stage.proxy.close_all();
    stage.says("well again");
    stage.until("all is well", Stage::is_well);
    let rcodes = stage.proxy.deliver();
    assert_eq!(rcodes, [Some(8)], "{peer:?} carries out what the fence forbids");
    stage.is_over();
    stage
}

fn silences() -> Vec<Scenario> {
    vec![
        Scenario::new("silence in place of the fence's message", |peer| {
            in_burst(peer, At::First, Fault::SwallowRequest)
        }),
        Scenario::new("silence in place of a reply", |peer| {
            in_burst(peer, At::Middle, Fault::SwallowReply)
        }),
    ]
}

/// Servers that die or stand still.
fn servers() -> Vec<Scenario> {
    vec![
        Scenario::new("server killed in mid-burst, started again", |peer| {
            let mut stage = in_burst(peer, At::Middle, Fault::Hold);
            stage.site.peer.kill();
            stage.site.peer.start();
            stage.is_over();
            stage
        }),
        Scenario::new("server down for 10 s", |peer| {
            let mut stage = Stage::published(peer);
            stage.site.peer.kill();
            stage.strikes();
            stage.start_task("fresh");
            pass(&mut stage, Duration::from_secs(10));
            stage.site.peer.start();
            stage.is_over();
            stage
        }),
        Scenario::new("server stopped for 3 s", |peer| {
            let mut stage = Stage::published(peer);
            stage.site.peer.signal("STOP");
            stage.strikes();
            stage.start_task("fresh");
            pass(&mut stage, Duration::from_secs(3));
            stage.site.peer.signal("CONT");
            stage.is_over();
            stage
        }),
    ]
}

/// Lets a fault last.
fn pass(stage: &mut Stage, time: Duration) {
    let started = Instant::now();
    stage.until("the time is over", |_| started.elapsed() > time);
}

/// Zones that are not what they were.
fn zones() -> Vec<Scenario> {
    vec![
        Scenario::new("journal gone", |peer| {
            let mut stage = Stage::set(peer);
            let operator = stage.operator();
            stage.run();
            stage.until("all is well", Stage::is_well);
            stage.daemon().signal("STOP");
            operator.forget(&stage.site.peer);
            stage.others_add("add other.mesos 60 TXT \"theirs\"");
            stage.site.peer.nsupdate("delete search.marathon.mesos A");
            stage.daemon().signal("CONT");
            stage.strikes();
            stage
        }),
        Scenario::new("zone from an old file, older fence", |peer| {
            let mut stage = Stage::set(peer);
            let operator = stage.operator();
            stage.run();
            stage.until("all is well", Stage::is_well);
            operator.save(&stage.site.peer);
            stage.proxy.lose_next_reply();
            stage.start_task("fresh");
            stage.says("well again");
            stage.until("all is well", Stage::is_well);
            stage.strikes();
            operator.restore(&mut stage.site.peer);
            stage.is_over();
            stage
        }),
        Scenario::new("zone from an old file, no fence", |peer| {
            let mut stage = Stage::set(peer);
            let operator = stage.operator();
            operator.save(&stage.site.peer);
            stage.run();
            stage.until("all is well", Stage::is_well);
            stage.strikes();
            operator.restore(&mut stage.site.peer);
            stage.is_over();
            stage
        }),
        Scenario::new("zone frozen for 5 s", |peer| {
            let mut stage = Stage::set(peer);
            let mut operator = stage.operator();
            stage.run();
            stage.until("all is well", Stage::is_well);
            operator.freeze(&stage.site.peer);
            stage.strikes();
            stage.start_task("fresh");
            pass(&mut stage, Duration::from_secs(5));
            operator.thaw(&stage.site.peer);
            stage.is_over();
            stage
        }),
    ]
}

/// Transfers broken off.
fn transfers() -> Vec<Scenario> {
    vec![
        Scenario::new("AXFR broken off behind its first message", |peer| {
            let mut stage = Stage::published(peer);
            stage.daemon().signal("STOP");
            stage.site.peer.nsupdate("delete search.marathon.mesos A");
            stage.proxy.arm(Which::Message(1), Fault::CutAnswer(1, 0, How::Fin));
            stage.run();
            stage.until("the fault strikes", |stage| stage.proxy.armed() == 0);
            stage.strikes();
            stage
        }),
        Scenario::new("IXFR broken off in its first message", |peer| {
            let mut stage = Stage::published(peer);
            stage.daemon().signal("STOP");
            let script: Vec<String> = (0..2_000)
                .map(|n| format!("add other-{n}.mesos 60 TXT \"theirs, to fill a message\""))
                .collect();
            for lines in script.chunks(400) {
                stage.others_add(&lines.join("\n"));
            }
            stage.site.peer.nsupdate("delete search.marathon.mesos A");
            // The SOA comes first.
            stage.proxy.arm(Which::Message(2), Fault::CutAnswer(0, 500, How::Rst));
            stage.daemon().signal("CONT");
            stage.until("the fault strikes", |stage| stage.proxy.armed() == 0);
            stage.strikes();
            stage
        }),
    ]
}

/// Others who write in our space.
fn others() -> Vec<Scenario> {
    let fence_by_hand = |fault, text: &'static str, words: &'static str| {
        Scenario::new(fault, move |peer| {
            let mut stage = Stage::published(peer);
            stage.strikes();
            stage.site.peer.nsupdate(&format!(
                "delete _mesozone.mesos TXT\nadd _mesozone.mesos 0 TXT \"{text}\"\n\
                 delete search.marathon.mesos A"
            ));
            stage.says(words);
            assert!(stage.site.peer.query("search.marathon.mesos", "A").is_empty());
            stage.site.peer.nsupdate("delete _mesozone.mesos TXT");
            stage.is_over();
            stage
        })
    };
    vec![
        Scenario::new("records of ours removed", |peer| {
            let mut stage = Stage::published(peer);
            stage.strikes();
            stage.site.peer.nsupdate("delete search.marathon.mesos A");
            stage.is_over();
            stage
        }),
        Scenario::new("records added in our space, hold_down 2s", |peer| {
            let mut stage = Stage::set(peer);
            let text = std::fs::read_to_string(stage.site.config()).unwrap();
            let text = text.replace("hold_down = \"0s\"", "hold_down = \"2s\"");
            std::fs::write(stage.site.config(), text).unwrap();
            stage.run();
            stage.until("all is well", Stage::is_well);
            stage.strikes();
            stage.site.peer.nsupdate(
                "add stray.marathon.mesos 60 A 192.0.2.77\nadd search.marathon.mesos 60 A 192.0.2.78",
            );
            stage.is_over();
            stage.says("somebody else added 2 records in our space");
            assert_eq!(stage.site.peer.query("stray.marathon.mesos", "A"), ["192.0.2.77"]);
            stage
        }),
        Scenario::new("fence removed", |peer| {
            let mut stage = Stage::published(peer);
            stage.strikes();
            stage.site.peer.nsupdate("delete _mesozone.mesos TXT\ndelete search.marathon.mesos A");
            stage.is_over();
            stage
        }),
        fence_by_hand(
            "fence of another owner, then removed",
            "v=1 owner=other instance=00000000000000ff epoch=9 adopted=yes until=run",
            "the fence belongs to the owner",
        ),
        fence_by_hand("a text that is no fence, then removed", "hands off", "are not one fence"),
    ]
}

/// Plays the scenarios on every server, so many at once.
#[track_caller]
fn check(at_once: usize, scenarios: &[Scenario]) {
    on_every_peer(|peer| {
        let next = AtomicUsize::new(0);
        let play = || {
            while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = scenario.on(peer);
                let (fault, row) = (&scenario.fault, outcome.row());
                assert!(outcome.foreign.is_empty(), "{peer:?}, {fault}: {row}");
            }
        };
        std::thread::scope(|scope| {
            (0..at_once).for_each(|_| drop(scope.spawn(play)));
        });
    });
}

#[test]
fn no_two_rows_of_the_table_have_one_name() {
    let all = all();
    let names: HashSet<&str> = all.iter().map(|scenario| scenario.fault.as_str()).collect();
    assert_eq!(names.len(), all.len());
}

#[test]
fn whatever_is_lost_the_zone_becomes_the_desired_one() {
    check(2, &lost());
}

#[test]
fn no_answer_but_the_servers_is_believed() {
    check(1, &answers());
}

#[test]
fn silence_ends_with_the_limit_of_a_reply() {
    check(2, &silences());
}

#[test]
fn servers_that_come_back_are_brought_up_to_date() {
    check(1, &servers());
}

#[test]
fn zones_set_back_are_brought_up_to_date() {
    check(1, &zones());
}

#[test]
fn a_transfer_broken_off_is_made_again() {
    check(1, &transfers());
}

#[test]
fn what_others_do_in_our_space_is_repaired_or_told() {
    check(1, &others());
}

#[test]
fn a_first_transfer_broken_off_anywhere_changes_nothing() {
    on_every_peer(|peer| {
        let mut stage = Stage::published(peer);
        stage.stop();
        stage.start_task("fresh");
        let serial = stage.site.peer.serial();
        for messages in 0.. {
            stage.proxy.arm(Which::Message(1), Fault::CutAnswer(messages, 0, How::Fin));
            let ran = stage.site.run(&["sync"]);
            if ran.code == 0 {
                // There was no such message to cut.
                assert!(messages > 1, "{peer:?} needs one message");
                break;
            }
            let told = ran.exits(2).stderr;
            assert!(told.contains("transferring the zone: the server closed"), "{told}");
            assert_eq!(stage.site.peer.serial(), serial);
        }
        assert_ne!(stage.site.peer.serial(), serial);
    });
}
