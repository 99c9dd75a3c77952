//! A cluster in unrest for a long time: tasks move without pause, the leading master dies every
//! minute, and names are asked for all the while.
//!
//!     cargo bench --bench soak -- [minutes=15] [tasks=5000] [changes=200]
//!
//! Fails if at the end BIND's zone is not what the state makes, or if any answer in between was
//! wrong: of a name that always has tasks, nothing; of a task that ran before and after, nothing.
//! Each line is a minute, with mesozone's memory, open files and CPU time.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

#[path = ".."]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod tests {
    pub(crate) mod peer;
    pub(crate) mod simulated;
    pub(crate) mod site;
}

mod running;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peer::{Peer, Setup};
use running::Daemon;
use serde_json::{Value, json};
use simulated::{Request, Simulated};
use site::Site;
use tests::{peer, simulated, site};

/// A name that many tasks share: it is never empty.
const STEADY: &str = "steady";
const STEADY_TASKS: usize = 40;
/// Names asked for beside it, of tasks of their own.
const SAMPLE: usize = 200;
const MINUTE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(2);

/// What goes on while the cluster moves.
struct Unrest {
    over: AtomicBool,
    /// No changes are asked for: the master is away.
    pause: AtomicBool,
    changes: AtomicUsize,
    asked: AtomicUsize,
    wrong: AtomicUsize,
    /// The names to ask for, by task; and of which no answer came.
    sample: Mutex<BTreeMap<String, String>>,
    missed: Mutex<Vec<String>>,
}

fn main() {
    let (mut minutes, mut tasks, mut rate) = (15, 5_000, 200);
    // Cargo adds `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| arg != "--bench") {
        let (key, number) = arg.split_once('=').expect("KEY=NUMBER");
        let number = number.parse().expect("a number");
        match key {
            "minutes" => minutes = number,
            "tasks" => tasks = number,
            "changes" => rate = number,
            _ => panic!("{key} is neither minutes, tasks nor changes"),
        }
    }
    let options = ["--tasks", &tasks.to_string(), "--agents", "100", "--elected-ago", "60"];
    let master = Simulated::living(Duration::from_secs(3600 + 60 * minutes as u64), &options);
    master.control(json!({"start": {"framework": "marathon", "name": STEADY,
        "count": STEADY_TASKS}}));
    let site = Site::start(Peer::Bind, &Setup::default());
    let config = std::fs::read_to_string(site.config()).expect("a configuration");
    std::fs::write(site.config(), config.replace("10.0.0.1:5050", &master.address))
        .expect("a file");
    let before = site.peer.axfr();
    let daemon = Daemon::start(site.command(&["run"]));
    daemon.says("published");
    let unrest = Unrest {
        over: AtomicBool::new(false),
        pause: AtomicBool::new(false),
        changes: AtomicUsize::new(0),
        asked: AtomicUsize::new(0),
        wrong: AtomicUsize::new(0),
        sample: Mutex::default(),
        missed: Mutex::default(),
    };
    println!(
        "{:>6}{:>10}{:>10}{:>7}{:>7}{:>7}{:>9}",
        "minute", "changes", "asked", "wrong", "MiB", "files", "CPU s"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| change(&unrest, &master, rate));
        scope.spawn(|| ask(&unrest, site.peer.addr()));
        for minute in 1..=minutes {
            let started = Instant::now();
            choose(&unrest, &master);
            rest(MINUTE * 2 / 3);
            judge(&unrest, &master);
            fail_over(&unrest, &master);
            rest(MINUTE.saturating_sub(started.elapsed()));
            judge(&unrest, &master);
            println!(
                "{minute:>6}{:>10}{:>10}{:>7}{:>7}{:>7}{:>9.1}",
                unrest.changes.load(Ordering::Relaxed),
                unrest.asked.load(Ordering::Relaxed),
                unrest.wrong.load(Ordering::Relaxed),
                daemon.resident().0,
                daemon.files(),
                daemon.cpu().as_secs_f64(),
            );
        }
        unrest.over.store(true, Ordering::Relaxed);
    });
    let desired = site.run(&["records", "--format", "tsv"]).exits(0).stdout;
    let deadline = Instant::now() + MINUTE;
    while site.published(&before) != desired {
        assert!(Instant::now() < deadline, "the zone is not what the state makes");
        rest(Duration::from_millis(100));
    }
    assert_eq!(unrest.wrong.load(Ordering::Relaxed), 0, "wrong answers");
    println!("the zone is what the state makes: {} records", desired.lines().count());
}

#[expect(clippy::disallowed_methods, reason = "a soak is a matter of time")]
fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// Moves one task after the other, so many a second.
fn change(unrest: &Unrest, master: &Simulated, rate: usize) {
    let names = ["search", "checkout", "billing", "cart", "gateway", "session", STEADY];
    let pause = Duration::from_secs(1) / u32::try_from(rate).expect("a rate");
    let (mut next, mut turn) = (Instant::now(), 0);
    while !unrest.over.load(Ordering::Relaxed) {
        next = next.max(Instant::now() - MINUTE / 60) + pause;
        rest(next.saturating_duration_since(Instant::now()));
        if unrest.pause.load(Ordering::Relaxed) {
            continue;
        }
        turn += 1;
        let body = json!({"move": {"name": names[turn % names.len()]}}).to_string();
        let (method, path) = ("POST".to_owned(), "/control".to_owned());
        let answer = master.send(&Request { method, path, headers: vec![], body });
        // Refused while none of the name is shown, right after a failover.
        if answer.status == "200 OK" {
            unrest.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The leading master dies, and the next one sees its cluster come back piece by piece.
fn fail_over(unrest: &Unrest, master: &Simulated) {
    let second = Duration::from_secs(1);
    unrest.pause.store(true, Ordering::Relaxed);
    rest(second / 2);
    for stage in [
        json!({"stage": "down"}),
        json!({"stage": "recovering", "new-process": true}),
        json!({"stage": "recovered"}),
        json!({"frameworks-back": ["marathon"]}),
        json!({"agents-back": 30}),
        json!({"agents-back": 69}),
        json!({"frameworks-back": true}),
    ] {
        master.control(stage);
        rest(second);
    }
    unrest.pause.store(false, Ordering::Relaxed);
    // Changes go on while the last agent is still away.
    rest(second);
    master.control(json!({"agents-back": true}));
}

/// The name that a task has for itself, by task: those of one framework, and so many at most.
fn names(master: &Simulated, max: usize) -> BTreeMap<String, String> {
    let state = master.get("/state");
    let frameworks = state["frameworks"].as_array().cloned().unwrap_or_default();
    let marathon = frameworks.iter().find(|framework| framework["name"] == "marathon");
    let tasks = marathon.and_then(|framework| framework["tasks"].as_array().cloned());
    let running = |task: &&Value| task["state"] == "TASK_RUNNING";
    let tasks = tasks.unwrap_or_default();
    let step = (tasks.len() / max).max(1);
    let names = tasks.iter().filter(running).step_by(step).filter_map(|task| {
        let (id, agent) = (task["id"].as_str()?, task["slave_id"].as_str()?);
        let label = |text: &str| text.replace('.', "-");
        let name = label(task["discovery"]["name"].as_str()?);
        let tail = agent.rsplit('-').next()?.to_lowercase();
        let hash = mesozone::label::hash5(id);
        let hash = std::str::from_utf8(&hash).expect("ASCII");
        Some((id.to_owned(), format!("{name}-{hash}-{tail}.marathon.mesos")))
    });
    names.take(max).collect()
}

fn choose(unrest: &Unrest, master: &Simulated) {
    let sample = names(master, SAMPLE);
    assert!(sample.len() > SAMPLE / 2, "too few tasks to ask for");
    *unrest.sample.lock().expect("no panic under the lock") = sample;
}

/// A task that runs now and of which no answer came before was never away: it had its name then.
fn judge(unrest: &Unrest, master: &Simulated) {
    let missed = std::mem::take(&mut *unrest.missed.lock().expect("no panic under the lock"));
    let running = names(master, usize::MAX);
    for task in missed.iter().filter(|task| running.contains_key(*task)) {
        println!("wrong: no address of the running task {task}");
        unrest.wrong.fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks for the steady name and for the sample in turn.
fn ask(unrest: &Unrest, server: SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
    socket.set_read_timeout(Some(ANSWER)).expect("a timeout above zero");
    while !unrest.over.load(Ordering::Relaxed) {
        let sample = unrest.sample.lock().expect("no panic under the lock").clone();
        for (task, name) in sample {
            if !is_answered(&socket, server, &format!("{STEADY}.marathon.mesos")) {
                println!("wrong: nothing of {STEADY}");
                unrest.wrong.fetch_add(1, Ordering::Relaxed);
            }
            if !is_answered(&socket, server, &name) {
                unrest.sample.lock().expect("no panic under the lock").remove(&task);
                unrest.missed.lock().expect("no panic under the lock").push(task);
            }
            unrest.asked.fetch_add(2, Ordering::Relaxed);
            rest(Duration::from_millis(1));
        }
        rest(Duration::from_millis(1));
    }
}

fn is_answered(socket: &UdpSocket, server: SocketAddr, name: &str) -> bool {
    let mut message = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').chain([""]) {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 1, 0, 1]);
    let mut reply = [0; 4096];
    socket.send_to(&message, server).expect("a loopback address");
    let length = socket.recv(&mut reply).expect("an answer in time");
    // The steady name has more addresses than a plain answer holds: cut short is answered too.
    let answers = u16::from_be_bytes([reply[6], reply[7]]);
    length > 12 && reply[3] & 0x0f == 0 && (answers > 0 || reply[2] & 0x02 != 0)
}
