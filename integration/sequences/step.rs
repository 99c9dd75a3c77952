//! What can happen, as values: a failing sequence is read as the list of its steps.

use proptest::prelude::*;

use crate::peer::Peer;
use crate::proxy::{Fault, How, Moment, Which};

/// What a sequence begins with.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) peer: Peer,
    /// The domain is the zone, or lies below it.
    pub(super) deep: bool,
    /// Records in each message of a transfer.
    pub(super) records_max: usize,
    /// Addresses in our space before we come.
    pub(super) found: Vec<(u8, u8)>,
    /// A small loss is held as well.
    pub(super) careful: bool,
    /// What the server's policy refuses it refuses for ever.
    pub(super) strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Who {
    /// One of two `run` of one owner.
    Run(usize),
    /// A `sync` of the same.
    Sync,
    /// An owner of a domain below ours.
    Below,
    /// Another owner of the same domain.
    Thief,
}

/// What another hand writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Other {
    /// TXT at a name of ours.
    Text,
    Cname,
    Delegation,
    Dname,
    /// An address at a name that we are told to leave alone.
    Protected,
    /// A name server of the zone at a name of ours.
    NameServer,
    /// What is outside of the domain.
    Outside,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A task of an app starts at an address.
    Starts(u8, u8),
    Ends(u8, u8),
    Moves(u8, u8, u8),
    /// All tasks are gone, or as they were before.
    Vanish,
    Return,
    /// More tasks of one app than BIND takes.
    Grows,
    /// Whether the cluster is known to be complete.
    Recovers(bool),
    Pass(Who),
    /// Its process ends without a word, and another begins.
    Restarts(usize),
    Strikes(Which, Fault),
    /// What was held back reaches the server.
    Delivers,
    /// Another hand adds or removes what is not ours.
    Adds(Other),
    Removes(Other),
    /// Another hand writes in our space: adds an address, removes a name.
    Drifts(u8, u8),
    Erases(u8),
    Unfences,
    /// Another hand puts a text beside our fence.
    Junks,
    Freezes(bool),
    /// The server's policy refuses every change of an app's name, or no longer does.
    Refuses(u8, bool),
    /// So many seconds pass.
    Waits(u64),
    Saves,
    Restores,
    Rolls,
    /// The server closes its connections.
    Closes,
}

pub(super) fn setting(peer: Peer) -> impl Strategy<Value = Setting> {
    let found = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec((0..8_u8, 0..4_u8), 0..4),
    ];
    let sizes = prop_oneof![1..10_usize, Just(200)];
    let setting = (any::<bool>(), sizes, found, any::<bool>(), any::<bool>());
    setting.prop_map(move |(deep, records_max, found, careful, strict)| Setting {
        peer,
        deep,
        records_max,
        found,
        careful,
        strict,
    })
}

fn fault() -> impl Strategy<Value = (Which, Fault)> {
    let which =
        prop_oneof![(1..4_usize).prop_map(Which::Update), (1..5_usize).prop_map(Which::Message),];
    let how = || prop::sample::select(vec![How::Fin, How::Rst]);
    let moment = prop::sample::select(vec![Moment::Before, Moment::Behind, Moment::Reply]);
    let fault = prop_oneof![
        4 => (moment, how()).prop_map(|(moment, how)| Fault::Break(moment, how)),
        1 => Just(Fault::SwallowRequest),
        1 => Just(Fault::SwallowReply),
        3 => Just(Fault::Hold),
        2 => (0..4_usize, 0..40_usize, how()).prop_map(|(n, o, how)| Fault::CutAnswer(n, o, how)),
        1 => (0..2_000_usize).prop_map(Fault::Flip),
        1 => Just(Fault::Forge),
    ];
    (which, fault)
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let app = || 0..8_u8;
    let address = || 0..4_u8;
    let who = prop_oneof![
        8 => (0..2_usize).prop_map(Who::Run),
        2 => Just(Who::Sync),
        1 => Just(Who::Below),
        1 => Just(Who::Thief),
    ];
    let other = || {
        prop::sample::select(vec![
            Other::Text,
            Other::Cname,
            Other::Delegation,
            Other::Dname,
            Other::Protected,
            Other::NameServer,
            Other::Outside,
        ])
    };
    let cluster = prop_oneof![
        5 => (app(), address()).prop_map(|(app, address)| Step::Starts(app, address)),
        3 => (app(), address()).prop_map(|(app, address)| Step::Ends(app, address)),
        2 => (app(), address(), address()).prop_map(|(app, from, to)| Step::Moves(app, from, to)),
        1 => Just(Step::Vanish),
        1 => Just(Step::Return),
        1 => Just(Step::Grows),
        1 => any::<bool>().prop_map(Step::Recovers),
    ];
    let others = prop_oneof![
        3 => other().prop_map(Step::Adds),
        2 => other().prop_map(Step::Removes),
        1 => (app(), address()).prop_map(|(app, address)| Step::Drifts(app, address)),
        1 => app().prop_map(Step::Erases),
        1 => Just(Step::Unfences),
        1 => Just(Step::Junks),
    ];
    let server = prop_oneof![
        2 => any::<bool>().prop_map(Step::Freezes),
        2 => (app(), any::<bool>()).prop_map(|(app, refuses)| Step::Refuses(app, refuses)),
        2 => prop::sample::select(vec![31, 61, 601, 4_500]).prop_map(Step::Waits),
        2 => Just(Step::Saves),
        2 => Just(Step::Restores),
        1 => Just(Step::Rolls),
        1 => Just(Step::Closes),
    ];
    prop_oneof![
        6 => cluster,
        8 => who.prop_map(Step::Pass),
        1 => (0..2_usize).prop_map(Step::Restarts),
        4 => fault().prop_map(|(which, fault)| Step::Strikes(which, fault)),
        2 => Just(Step::Delivers),
        2 => others,
        3 => server,
    ]
}
