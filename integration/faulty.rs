//! The proxy's faults are what they say, before each real server.

use std::net::SocketAddr;

use mesozone::cluster::Endpoint;
use mesozone::connection::{Connection, ConnectionError};
use mesozone::fence::FENCE_LABEL;
use mesozone::name::Name;
use mesozone::plan::Change;
use mesozone::rr::{Rdata, Rrset, Ttl, Type};
use mesozone::transfer::{Ask, Item, Outcome};
use mesozone::tsig::Key;
use mesozone::update::{self, FenceStep, Limits, Packer};
use mesozone::wire::Rcode;
use mesozone::zone;
use tokio::runtime::Runtime;

use crate::peer::{Peer, Running, Setup, on_every_peer};
use crate::proxy::{Fault, How, Moment, Proxy, Which};

const BOTH: [How; 2] = [How::Fin, How::Rst];

fn mesos() -> Name {
    "mesos".parse().unwrap()
}

/// A server, the proxy before it and a client of both.
struct Site {
    server: Running,
    proxy: Proxy,
    key: Key,
    runtime: Runtime,
}

impl Site {
    fn start(peer: Peer) -> Site {
        let server = peer.start(&Setup::default());
        let proxy = Proxy::to(server.addr());
        let key = Key::parse(&std::fs::read_to_string(server.key_file()).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Site { server, proxy, key, runtime }
    }

    fn connect(&self, to: SocketAddr) -> Connection {
        let server = Endpoint::parse(&to.to_string()).unwrap();
        self.runtime.block_on(Connection::open(&server, None)).unwrap()
    }

    /// Sends an update that makes a name, over a connection of its own, and has its answer.
    fn add(&self, owner: &str) -> Result<Rcode, ConnectionError> {
        self.add_over(&mut self.connect(self.proxy.addr()), owner)
    }

    fn add_over(&self, over: &mut Connection, owner: &str) -> Result<Rcode, ConnectionError> {
        self.runtime.block_on(async {
            over.send_update(addition(owner), &self.key).await?;
            over.receive_update(&self.key).await.map(|answered| answered.rcode)
        })
    }

    fn has(&self, owner: &str) -> bool {
        !self.server.query(&format!("{owner}.mesos"), "A").is_empty()
    }

    fn transfer(&self) -> Result<Outcome, ConnectionError> {
        let mut connection = self.connect(self.proxy.addr());
        let mut sink = |_: Item<'_, '_>| Ok(());
        self.runtime.block_on(connection.transfer(&mesos(), Ask::Axfr, &self.key, &mut sink))
    }
}

/// An update that makes a name if there is no fence.
fn addition(owner: &str) -> Vec<u8> {
    let name = mesos().child(owner.as_bytes()).unwrap();
    let key = zone::Key { name, rtype: Type::A };
    let new = Some(Rrset::of_one(Ttl::from_secs(60), Rdata::A([10, 0, 0, 1].into())));
    let batch = Packer::new(vec![Change { key, old: None, new }])
        .take(Limits { record_max: 100, octets_max: 8_000 });
    let fence = FenceStep {
        name: mesos().child(FENCE_LABEL).unwrap(),
        before: None,
        after: None,
        replaced: Vec::new(),
    };
    update::encode(7, &mesos(), &fence, &batch)
}

#[test]
fn what_breaks_before_the_server_has_it_is_never_carried_out() {
    on_every_peer(|peer| {
        let site = Site::start(peer);
        for how in BOTH {
            site.proxy.arm(Which::Update(1), Fault::Break(Moment::Before, how));
            let lost = site.add("a").unwrap_err();
            // The first reads as an end, the second as an error.
            assert!(lost.is_loss(), "{peer:?} {how:?}: {lost}");
            assert_eq!(matches!(lost, ConnectionError::Closed), how == How::Fin, "{lost:?}");
            assert!(!site.has("a"), "{peer:?} {how:?}");
        }
        let rcodes: Vec<_> = site.proxy.seen().iter().map(|seen| seen.rcode).collect();
        assert_eq!(rcodes, [None, None]);
        assert_eq!(site.add("a").unwrap(), Rcode::NOERROR);
    });
}

#[test]
fn what_breaks_in_place_of_the_reply_is_carried_out() {
    on_every_peer(|peer| {
        let site = Site::start(peer);
        for (how, owner) in BOTH.into_iter().zip(["a", "b"]) {
            site.proxy.arm(Which::Update(1), Fault::Break(Moment::Reply, how));
            assert!(site.add(owner).unwrap_err().is_loss(), "{peer:?} {how:?}");
            assert!(site.has(owner), "{peer:?} {how:?}");
        }
        let seen = site.proxy.seen();
        let told: Vec<_> = seen.iter().map(|s| (s.connection, s.records, s.rcode)).collect();
        assert_eq!(told, [(0, 1, Some(0)), (1, 1, Some(0))]);
    });
}

#[test]
fn the_nth_message_is_struck_and_no_other() {
    on_every_peer(|peer| {
        let site = Site::start(peer);
        site.proxy.arm(Which::Update(2), Fault::Break(Moment::Behind, How::Fin));
        site.proxy.arm(Which::Message(4), Fault::Break(Moment::Before, How::Fin));
        let serial = |over: &mut Connection| {
            site.runtime.block_on(over.serial(&mesos(), &site.key)).map(drop)
        };
        let mut over = site.connect(site.proxy.addr());
        assert_eq!(site.add_over(&mut over, "a").unwrap(), Rcode::NOERROR);
        serial(&mut over).unwrap();
        // All three carry out a message that its client did not wait for.
        assert!(site.add_over(&mut over, "b").unwrap_err().is_loss());
        let mut over = site.connect(site.proxy.addr());
        assert!(serial(&mut over).unwrap_err().is_loss());
        assert_eq!(site.proxy.disarm(), 0);
        serial(&mut site.connect(site.proxy.addr())).unwrap();
    });
}

#[test]
fn a_message_held_back_is_carried_out_once_it_is_delivered() {
    on_every_peer(|peer| {
        let site = Site::start(peer);
        site.proxy.arm(Which::Update(1), Fault::Hold);
        let waits = async {
            let server = Endpoint::parse(&site.proxy.addr().to_string()).unwrap();
            let mut over = Connection::open(&server, None).await.unwrap();
            over.send_update(addition("late"), &site.key).await.unwrap();
            over.receive_update(&site.key).await.map(|answered| answered.rcode)
        };
        let cut = async {
            while site.proxy.silences() == 0 {
                tokio::task::yield_now().await;
            }
            site.proxy.close_all();
        };
        let (lost, ()) = site.runtime.block_on(async { tokio::join!(waits, cut) });
        assert!(lost.unwrap_err().is_loss(), "{peer:?}");
        assert_eq!(site.add("sooner").unwrap(), Rcode::NOERROR);
        assert!(!site.has("late"), "{peer:?}");
        assert_eq!(site.proxy.deliver(), [Some(0)], "{peer:?}");
        assert!(site.has("late"), "{peer:?}");
        assert_eq!(site.proxy.seen()[0].rcode, Some(0));
    });
}

#[test]
fn nobody_answers_what_is_swallowed() {
    on_every_peer(|peer| {
        let site = Site::start(peer);
        for (fault, carried_out) in [(Fault::SwallowRequest, false), (Fault::SwallowReply, true)] {
            site.proxy.arm(Which::Update(1), fault);
            let before = site.proxy.silences();
            let owner = format!("{fault:?}").to_lowercase();
            let mut over = site.connect(site.proxy.addr());
            let waits = async {
                over.send_update(addition(&owner), &site.key).await.unwrap();
                tokio::select! {
                    answered = over.receive_update(&site.key) => {
                        panic!("{:?}", answered.map(|answered| answered.rcode));
                    }
                    () = async {
                        while site.proxy.silences() == before {
                            tokio::task::yield_now().await;
                        }
                    } => {}
                }
                // The connection is as good as before.
                over.serial(&mesos(), &site.key).await
            };
            site.runtime.block_on(waits).unwrap();
            assert_eq!(site.has(&owner), carried_out, "{peer:?} {fault:?}");
        }
    });
}

#[test]
fn a_reply_that_was_changed_or_forged_is_refused() {
    on_every_peer(|peer| {
        let site = Site::start(peer);
        site.proxy.arm(Which::Update(1), Fault::Flip(30));
        let changed = site.add("a").unwrap_err();
        assert!(matches!(changed, ConnectionError::Tsig(_)), "{peer:?}: {changed:?}");
        assert!(site.has("a"));
        site.proxy.arm(Which::Update(1), Fault::Forge);
        let forged = site.add("b").unwrap_err();
        assert!(matches!(forged, ConnectionError::Tsig(_)), "{peer:?}: {forged:?}");
        assert!(!site.has("b"));
    });
}

#[test]
fn a_transfer_broken_off_anywhere_is_an_error() {
    on_every_peer(|peer| {
        let site = Site::start(peer);
        let script: String = (0..1_200)
            .map(|n| format!("add t{n}.mesos 60 A 10.0.{}.{}\n", n / 250, n % 250))
            .collect();
        for lines in script.lines().collect::<Vec<_>>().chunks(500) {
            site.server.nsupdate(&lines.join("\n"));
        }
        let mut messages = 0;
        loop {
            for (octets, how) in [(0, How::Fin), (1, How::Rst), (2, How::Fin), (500, How::Rst)] {
                let cut = Fault::CutAnswer(messages, octets, how);
                site.proxy.arm(Which::Message(1), cut);
                match site.transfer() {
                    Err(error) => assert!(error.is_loss(), "{peer:?} {cut:?}: {error:?}"),
                    // There was no such message to cut.
                    Ok(Outcome::Whole(_)) if octets == 0 && messages > 0 => {
                        assert!(messages > 1, "{peer:?} needs one message");
                        return;
                    }
                    Ok(outcome) => panic!("{peer:?} {cut:?}: {outcome:?}"),
                }
            }
            messages += 1;
        }
    });
}
