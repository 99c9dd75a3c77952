//! A model server, a proxy before it, and the publishers of a sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesozone::connection::REPLY_LIMIT;
use mesozone::held::{Approval, PlanId};
use mesozone::name::Name;
use mesozone::pass::Passed;
use mesozone::rr::{Rdata, Rrset, Ttl, Type};
use mesozone::target::Hold;
use mesozone::wire::Rcode;
use mesozone::zone::{Key, Zone};
use tokio::runtime::Runtime;

use super::publisher::{Part, Publisher, snapshot};
use super::space::{Space, foreign};
use super::step::{Other, Setting, Step, Who};
use crate::model::{Client, Content, Model, Rights, Rr, add, remove};
use crate::peer::Peer;
use crate::proxy::Proxy;
use crate::signing::Shared;

/// Passes after the last fault in which the zone must become the desired one: first some with
/// time between them, in which whatever was to wait has waited, then some in a row.
const PASSES: (usize, usize) = (8, 4);
/// Longer than anything waits.
const LONG: Duration = Duration::from_secs(7_200);
/// More than BIND takes.
const MANY: u8 = 120;
/// The first addresses of apps by their last octet; the app's number is the third.
type Tasks = BTreeSet<(u8, u8)>;

pub(super) struct Site {
    setting: Setting,
    model: Model,
    proxy: Proxy,
    runtime: Runtime,
    domain: String,
    spaces: BTreeMap<&'static str, Space>,
    /// Every instance that a key was used by.
    instances: BTreeMap<&'static str, BTreeSet<u64>>,
    runs: [Publisher; 2],
    below: Publisher,
    thief: Publisher,
    next_instance: u64,
    tasks: Tasks,
    before: Tasks,
    complete: bool,
    saved: Option<Content>,
    /// How many passes were made.
    passes: usize,
    /// Whose messages were held back, their ids, in which pass.
    held: Vec<(&'static str, u16, usize)>,
    /// The last pass of each in which a message was carried out, since another hand changed the
    /// fence or restored the zone: what it brings back may let a message of before pass.
    carried_out: BTreeMap<&'static str, usize>,
}

/// What a pass came to.
#[derive(Debug)]
struct Told {
    ended: Result<Passed, String>,
    held: Vec<PlanId>,
    /// Messages sent.
    updates: usize,
}

const KEYS: [&str; 5] = ["run0", "run1", "sync", "below", "thief"];

fn key(name: &str) -> Shared {
    Shared { name: name.parse().expect("a name"), secret: format!("secret of {name}").into_bytes() }
}

impl Site {
    pub(super) fn start(setting: &Setting) -> Site {
        let domain = if setting.deep { "prod.mesos" } else { "mesos" }.to_owned();
        let found = setting.found.iter().map(|(app, address)| Rr {
            owner: name(&domain, *app),
            rtype: Type::A,
            ttl: 30,
            rdata: vec![10, 9, *app, *address],
        });
        let zone = crate::model::Zone::new(setting.peer, "mesos", found.collect());
        let mut spaces = BTreeMap::new();
        for who in KEYS {
            let owner = if who.starts_with("run") || who == "sync" { "cluster" } else { who };
            let below = if who == "below" { format!("sub.{domain}") } else { domain.clone() };
            let domain = below.parse().expect("a name");
            spaces.insert(who, Space { apex: "mesos".parse().expect("a name"), domain, owner });
        }
        let clients = KEYS
            .map(|who| Client { key: key(who), rights: Rights::Below(spaces[who].domain.clone()) });
        let model = Model::start(zone, clients.to_vec(), setting.records_max);
        let proxy = Proxy::to(model.addr());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let new = |who: &'static str, instance| {
            Publisher::new(&part(setting, &proxy, &spaces, who), instance)
        };
        let (runs, below, thief) =
            ([new("run0", 1), new("run1", 2)], new("below", 3), new("thief", 4));
        let instances = ["run0", "run1", "below", "thief"].into_iter().zip(1..);
        let instances = instances.map(|(who, n)| (who, BTreeSet::from([n]))).collect();
        Site {
            setting: setting.clone(),
            runtime: runtime.expect("a runtime"),
            domain,
            runs,
            below,
            thief,
            instances,
            spaces,
            model,
            proxy,
            next_instance: 5,
            tasks: Tasks::new(),
            before: Tasks::new(),
            complete: true,
            saved: None,
            passes: 0,
            held: Vec::new(),
            carried_out: BTreeMap::new(),
        }
    }

    /// Takes a step; what is wrong with what it did.
    pub(super) fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Starts(app, address) => drop(self.tasks.insert((*app, *address))),
            Step::Ends(app, address) => drop(self.tasks.remove(&(*app, *address))),
            Step::Moves(app, from, to) => {
                if self.tasks.remove(&(*app, *from)) {
                    self.tasks.insert((*app, *to));
                }
            }
            Step::Vanish => self.before = std::mem::take(&mut self.tasks),
            Step::Return => self.tasks.extend(self.before.iter().copied()),
            Step::Grows => self.tasks.extend((0..MANY).map(|address| (7, address))),
            Step::Recovers(complete) => self.complete = *complete,
            Step::Pass(who) => return self.pass(*who),
            Step::Restarts(run) => {
                let who = KEYS[*run];
                self.runs[*run] = self.replaced(who);
            }
            Step::Strikes(which, fault) => self.proxy.arm(*which, *fault),
            Step::Delivers => return self.deliver(),
            Step::Adds(other) => self.others(*other, true),
            Step::Removes(other) => self.others(*other, false),
            Step::Drifts(app, address) => {
                let (owner, rdata) = (name(&self.domain, *app), vec![10, 8, *app, *address]);
                let rr = Rr { owner, rtype: Type::A, ttl: 30, rdata };
                self.edit(|content| {
                    let alias = (rr.owner.clone(), Type::CNAME);
                    if !content.contains_key(&alias) {
                        add(content, rr);
                    }
                });
            }
            Step::Erases(app) => {
                let owner = name(&self.domain, *app);
                self.edit(|content| drop(content.remove(&(owner, Type::A))));
            }
            Step::Unfences => {
                let fence = self.spaces["run0"].fence_name();
                self.edit(|content| drop(content.remove(&(fence, Type::TXT))));
                self.carried_out.clear();
            }
            Step::Junks => {
                let fence = self.spaces["run0"].fence_name().to_string();
                self.edit(|content| {
                    add(content, Rr::txt(&fence, 0, "junk"));
                });
            }
            Step::Refuses(app, refuses) => {
                let owner = name(&self.domain, *app);
                self.model.with(|zone| match refuses {
                    true => zone.refused.insert(owner),
                    false => zone.refused.remove(&owner),
                });
            }
            Step::Waits(seconds) => self.wait(Duration::from_secs(*seconds)),
            Step::Freezes(frozen) => self.model.with(|zone| zone.frozen = *frozen),
            Step::Saves => self.saved = Some(self.model.zone().content),
            Step::Restores => {
                if let Some(saved) = self.saved.clone() {
                    self.model.with(|zone| zone.restore(saved));
                    self.carried_out.clear();
                }
            }
            Step::Rolls => self.model.with(|zone| zone.roll_journal()),
            Step::Closes => self.model.restart(),
        }
        Ok(())
    }

    fn edit(&self, edit: impl FnOnce(&mut Content)) {
        self.model.with(|zone| zone.edit(edit));
    }

    /// Another process with the same configuration.
    fn replaced(&mut self, who: &'static str) -> Publisher {
        let instance = self.next_instance;
        self.next_instance += 1;
        self.instances.entry(who).or_default().insert(instance);
        Publisher::new(&part(&self.setting, &self.proxy, &self.spaces, who), instance)
    }

    fn others(&self, other: Other, adds: bool) {
        let at = |app: u8| name(&self.domain, app).to_string();
        let records = match other {
            Other::Text => vec![Rr::txt(&at(1), 60, "theirs")],
            Other::Cname => vec![Rr::of_name(&at(2), Type::CNAME, 60, "elsewhere.example")],
            Other::Delegation => {
                let server = format!("ns.{}", at(3));
                let glue = Rr::a(&server, 60, [10, 7, 0, 1]);
                vec![Rr::of_name(&at(3), Type::NS, 60, &server), glue]
            }
            Other::Dname => vec![Rr::of_name(&at(5), Type::DNAME, 60, "elsewhere.example")],
            Other::Protected => vec![Rr::a(&format!("vip-1.{}", self.domain), 60, [10, 7, 0, 2])],
            Other::NameServer => vec![Rr::of_name("mesos", Type::NS, 60, &at(4))],
            Other::Outside => {
                vec![Rr::txt("mesos", 60, "theirs"), Rr::txt("x.mesos", 60, "theirs")]
            }
        };
        self.edit(|content| {
            // No server lets another hand put a CNAME beside what is there.
            let taken =
                |rr: &Rr| rr.rtype == Type::CNAME && content.keys().any(|(o, _)| *o == rr.owner);
            if adds && records.iter().any(taken) {
                return;
            }
            for rr in records {
                if adds {
                    add(content, rr);
                } else {
                    remove(content, &rr);
                }
            }
        });
    }

    /// The zone that a publisher should make.
    fn desired(&self, who: Who) -> Zone {
        let ttl = Ttl::from_secs(60);
        let at = |owner: Name, rtype: Type| Key { name: owner, rtype };
        let domain = match who {
            Who::Below => format!("sub.{}", self.domain),
            _ => self.domain.clone(),
        };
        let mut zone = Zone::default();
        let apps: BTreeSet<u8> = self.tasks.iter().map(|(app, _)| *app).collect();
        // What each of them wants differs.
        let shift = match who {
            Who::Run(_) | Who::Sync => 0,
            Who::Below => 1,
            Who::Thief => 2,
        };
        for app in apps {
            let addresses = self.tasks.iter().filter(|(of, _)| *of == app);
            let data = addresses.map(|(_, n)| Rdata::A([10, shift, app, *n].into())).collect();
            let owner = name(&domain, app);
            let srv = Rdata::Srv { priority: 0, weight: 1, port: 31_000, target: owner.clone() };
            let service = owner.child(b"_srv").expect("a short name");
            zone.set(at(owner, Type::A), Rrset::new(ttl, data));
            zone.set(at(service, Type::SRV), Some(Rrset::of_one(ttl, srv)));
        }
        if shift == 0 && !self.tasks.is_empty() {
            // What may not be published: a protected name, and one that another owner has.
            for text in [format!("vip-1.{domain}"), format!("app0.sub.{domain}")] {
                let data = Rdata::A([10, 0, 99, 1].into());
                let owner = text.parse().expect("a name");
                zone.set(at(owner, Type::A), Some(Rrset::of_one(ttl, data)));
            }
        }
        zone
    }

    fn wait(&self, time: Duration) {
        self.runtime.block_on(forward(time));
    }

    fn pass(&mut self, who: Who) -> Result<(), String> {
        // What goes wrong in a pass may go wrong: what it did is what counts.
        self.pass_with(who, &[]).map(drop)
    }

    /// A pass, and what it came to.
    fn pass_with(&mut self, who: Who, approvals: &[Approval]) -> Result<Told, String> {
        let desired = snapshot(self.desired(who), self.complete);
        let before = self.model.zone().content;
        let (waiting, behind) = (self.proxy.held().len(), self.proxy.behind());
        self.passes += 1;
        let mut sync = (who == Who::Sync).then(|| self.replaced("sync"));
        let (key, publisher) = match who {
            Who::Run(run) => (KEYS[run], &mut self.runs[run]),
            Who::Sync => ("sync", sync.as_mut().expect("made above")),
            Who::Below => ("below", &mut self.below),
            Who::Thief => ("thief", &mut self.thief),
        };
        let passed = self.runtime.block_on(impatient(&self.proxy, async {
            let passed = publisher.pass(&desired, approvals).await;
            if who == Who::Sync {
                publisher.give_back().await;
            }
            passed
        }));
        if self.proxy.behind() > behind {
            // What the server has it carries out now, not at some time.
            self.model.restart();
        }
        let held = self.proxy.held().split_off(waiting);
        self.held.extend(held.into_iter().map(|id| (key, id, self.passes)));
        let (ended, held) = match passed {
            Ok((passed, held)) => (Ok(passed), held),
            Err(error) => (Err(chain(&error)), Vec::new()),
        };
        let updates = self.check(&before, false).map_err(|fault| format!("{fault}; {ended:?}"))?;
        Ok(Told { ended, held, updates })
    }

    fn deliver(&mut self) -> Result<(), String> {
        let before = self.model.zone().content;
        self.proxy.deliver();
        self.check(&before, true)?;
        self.held.clear();
        Ok(())
    }

    /// What is wrong with what was sent since, and with what it did; else how much was sent.
    fn check(&mut self, before: &Content, late: bool) -> Result<usize, String> {
        let log = self.model.take_log();
        for logged in &log {
            let who = logged.who.to_string();
            let who = KEYS.into_iter().find(|key| who.strip_suffix('.') == Some(key));
            let who = who.ok_or("a key that nobody has")?;
            self.spaces[who].check(logged, &self.instances[who], late)?;
            if logged.rcode != Rcode::NOERROR {
                continue;
            }
            let sent = self.held.iter().find(|(of, id, _)| *of == who && *id == logged.id);
            let sent = sent.map(|(.., pass)| *pass);
            match sent.filter(|_| late) {
                Some(sent) if self.carried_out.get(who).is_some_and(|last| *last > sent) => {
                    return Err(format!("a message of {who} lands behind newer ones: {logged:?}"));
                }
                Some(_) => {}
                None => drop(self.carried_out.insert(who, self.passes)),
            }
        }
        let after = self.model.zone().content;
        let spaces: Vec<&Space> = self.spaces.values().collect();
        let (was, is) = (foreign(before, &spaces), foreign(&after, &spaces));
        if was != is {
            let changed: Vec<_> = was.symmetric_difference(&is).collect();
            return Err(format!("what is not ours changed: {changed:?}"));
        }
        if !self.complete && !late {
            let space = &self.spaces["run0"];
            let (was, is) = (space.held(before), space.held(&after));
            let ours = |(owner, rtype, _): &&(Name, Type, _)| space.owns(&after, owner, *rtype);
            if let Some(gone) = was.difference(&is).find(ours) {
                return Err(format!("{gone:?} went while the cluster recovers"));
            }
        }
        Ok(log.len())
    }

    /// When all is over the zone becomes the desired one.
    pub(super) fn conclude(mut self) -> Result<(), String> {
        self.proxy.disarm();
        self.deliver()?;
        let strict = self.setting.strict;
        self.model.with(|zone| {
            zone.frozen = false;
            zone.refused.retain(|_| strict);
        });
        self.complete = true;
        let fence = self.spaces["run0"].fence_name();
        // What is no fence of ours is removed by its operator, who is told to.
        self.edit(|content| {
            let key = (fence, Type::TXT);
            let ours = |rdata: &Vec<u8>| String::from_utf8_lossy(rdata).contains("owner=cluster ");
            if content.get(&key).is_some_and(|set| !set.data.iter().all(ours)) {
                content.remove(&key);
            }
        });
        self.runs[0] = self.replaced("run0");
        let (mut approvals, mut said) = (Vec::new(), Vec::new());
        for at in 0..PASSES.0 + PASSES.1 {
            if at < PASSES.0 {
                self.wait(LONG);
            }
            let told = self.pass_with(Who::Run(0), &approvals)?;
            let rests = told.ended == Ok(Passed::Done) && told.held.is_empty() && told.updates == 0;
            if rests && (at >= PASSES.0 || !strict) {
                return self.converged().map_err(|fault| format!("{fault}\n{said:#?}"));
            }
            approvals = told.held.iter().map(|id| Approval::Id(*id)).collect();
            said.push(format!("{told:?}"));
        }
        // Where nothing but refused names is left to change, the server may as well be to blame.
        let refuses = self.model.with(|zone| !zone.refused.is_empty());
        let converged = self.converged().err().filter(|_| refuses);
        match (refuses, converged) {
            (true, None) => Ok(()),
            (_, fault) => Err(format!("it never comes to rest: {fault:?} {said:#?}")),
        }
    }

    fn converged(&self) -> Result<(), String> {
        let content = self.model.zone().content;
        let space = &self.spaces["run0"];
        let desired = self.desired(Who::Run(0));
        let refused = self.model.with(|zone| zone.refused.clone());
        let wanted = desired.iter().filter(|(key, _)| space.owns(&content, &key.name, key.rtype));
        let wanted = wanted.filter(|(key, _)| !refused.contains(&key.name));
        let mut missing = Vec::new();
        let mut keys = BTreeSet::new();
        for (key, rrset) in wanted {
            let there = content.get(&(key.name.clone(), key.rtype));
            let data: BTreeSet<Vec<u8>> = rrset.rdata().iter().map(octets).collect();
            let full = match self.setting.peer {
                Peer::Bind => data.len().min(100),
                Peer::Knot | Peer::PowerDns => data.len(),
            };
            let same = there.is_some_and(|set| {
                set.ttl == rrset.ttl().secs() && set.data.len() == full && set.data.is_subset(&data)
            });
            if !same {
                missing.push(format!("{} {} is {there:?}", key.name, key.rtype));
            }
            keys.insert((key.name.clone(), key.rtype));
        }
        let left = space
            .held(&content)
            .into_iter()
            .filter(|(owner, _, _)| !refused.contains(owner))
            .filter(|(owner, rtype, _)| !keys.contains(&(owner.clone(), *rtype)));
        let left: Vec<_> = left.collect();
        match missing.is_empty() && left.is_empty() {
            true => Ok(()),
            false => Err(format!("it rests, but {missing:#?} and too much: {left:?}")),
        }
    }
}

fn name(domain: &str, app: u8) -> Name {
    format!("app{app}.{domain}").parse().expect("a name")
}

fn octets(rdata: &Rdata) -> Vec<u8> {
    let mut octets = Vec::new();
    rdata.write(&mut octets);
    octets
}

fn part(
    setting: &Setting,
    proxy: &Proxy,
    spaces: &BTreeMap<&'static str, Space>,
    who: &'static str,
) -> Part {
    Part {
        server: proxy.addr().to_string(),
        domain: spaces[who].domain.to_string(),
        owner: spaces[who].owner,
        key: key(who),
        hold: if who == "sync" { Hold::Release } else { Hold::Keep },
        shrink: if setting.careful { "max_shrink_floor = 2" } else { "max_shrink = \"off\"" },
    }
}

async fn forward(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Lets the time pass that a client waits for what never comes.
async fn impatient<T>(proxy: &Proxy, pass: impl Future<Output = T>) -> T {
    let mut pass = std::pin::pin!(pass);
    let (mut silences, mut quiet, mut last) = (proxy.silences(), 0, 0);
    loop {
        tokio::select! {
            biased;
            done = &mut pass => return done,
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        let seen = proxy.seen().len();
        quiet = if seen == last { quiet + 1 } else { 0 };
        last = seen;
        if proxy.silences() > silences && quiet > 5 {
            silences = proxy.silences();
            quiet = 0;
            forward(REPLY_LIMIT + Duration::from_secs(1)).await;
        }
    }
}
