//! Dynamic updates, RFC 2136: changes packed into messages by octets and names, each with the
//! fence as its prerequisite, and the same as a script for `nsupdate`.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use crate::cluster::Endpoint;
use crate::name::Name;
use crate::plan::Change;
use crate::rr::{Rdata, Rrset, Ttl, Type};
use crate::wire::{CLASS_ANY, CLASS_IN, CLASS_NONE, OPCODE_UPDATE, Writer};
use crate::zone::Key;

/// The most octets and records that one name may fill in a message; a larger change is split at
/// record borders. Octets, because a message ends at 65,535; records, because PowerDNS needs
/// time proportional to the RRset for each: 3,750 in one message took it 63 seconds.
const NAME_OCTETS_MAX: usize = 60_000;
const NAME_RECORD_MAX: usize = 500;
/// A step that deletes counts as this many that add: PowerDNS searches the whole zone for each.
const DELETION_WEIGHT: usize = 5;

/// One step of the update section, RFC 2136, section 2.5.
enum Op<'c> {
    DeleteRrset(&'c Key),
    Delete(&'c Key, &'c Rdata),
    Add(&'c Key, Ttl, &'c Rdata),
}

impl Op<'_> {
    fn is_deletion(&self) -> bool {
        !matches!(self, Op::Add(..))
    }
}

/// Single records go and come while the TTL stays. A changed TTL replaces the RRset: Knot
/// ignores a known record that is added with another TTL. A PTR record goes alone whatever happens:
/// others, who may have come since the zone was read, have theirs in the same RRset.
fn ops(change: &Change) -> Vec<Op<'_>> {
    let key = &change.key;
    match (&change.old, &change.new) {
        (old, None) => deletions(key, old.as_ref()),
        (Some(old), Some(new)) if old.ttl() == new.ttl() => {
            let deleted = change.removed().map(|rdata| Op::Delete(key, rdata));
            deleted.chain(change.added().map(|rdata| Op::Add(key, new.ttl(), rdata))).collect()
        }
        (old, Some(new)) => {
            let deleted = deletions(key, old.as_ref()).into_iter();
            let added = new.rdata().iter().map(|rdata| Op::Add(key, new.ttl(), rdata));
            deleted.chain(added).collect()
        }
    }
}

/// The steps that take away all that we have there.
fn deletions<'c>(key: &'c Key, old: Option<&'c Rrset>) -> Vec<Op<'c>> {
    match old {
        None => Vec::new(),
        Some(old) if key.rtype == Type::PTR => {
            old.rdata().iter().map(|rdata| Op::Delete(key, rdata)).collect()
        }
        Some(_) => vec![Op::DeleteRrset(key)],
    }
}

/// The steps of the changes of one name: what goes before what comes.
fn ops_of_name(changes: &[Change]) -> Vec<Op<'_>> {
    let (mut ops, added): (Vec<Op<'_>>, Vec<Op<'_>>) =
        changes.iter().flat_map(ops).partition(Op::is_deletion);
    ops.extend(added);
    ops
}

/// What the fence must be for a message to be carried out, and what that message makes of it.
#[derive(Clone, Debug)]
pub struct FenceStep {
    pub name: Name,
    /// None: there must be no TXT record.
    pub before: Option<Rdata>,
    /// None: it stays.
    pub after: Option<Rdata>,
    /// Fences of others, as they must be, that go with this message.
    pub replaced: Vec<(Name, Rdata)>,
}

impl FenceStep {
    /// RFC 2136, sections 2.4.2 (the RRset is exactly this) and 2.4.3 (there is no such RRset).
    fn write(&self, writer: &mut Writer) {
        let class = if self.before.is_some() { CLASS_IN } else { CLASS_NONE };
        writer.record(1, (&self.name, Type::TXT, class), Ttl::ZERO, self.before.as_ref());
        for (name, rdata) in &self.replaced {
            writer.record(1, (name, Type::TXT, CLASS_IN), Ttl::ZERO, Some(rdata));
        }
        for (name, _) in &self.replaced {
            writer.record(2, (name, Type::TXT, CLASS_ANY), Ttl::ZERO, None);
        }
        if let Some(after) = &self.after {
            writer.record(2, (&self.name, Type::TXT, CLASS_ANY), Ttl::ZERO, None);
            writer.record(2, (&self.name, Type::TXT, CLASS_IN), Ttl::ZERO, Some(after));
        }
    }
}

/// How large messages may be. A single name may exceed both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Steps that add; one that deletes counts as several.
    pub record_max: usize,
    /// Of the records; fence and signature come on top.
    pub octets_max: usize,
}

/// The changes that go into one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// Steps in its update section, the fence aside.
    pub record_count: usize,
}

impl Batch {
    /// Changes that go together whatever their size, in the order of names.
    pub fn of(changes: &[Change]) -> Batch {
        let record_count = changes.iter().map(|change| ops(change).len()).sum();
        Batch { changes: changes.to_vec(), record_count }
    }

    /// Two of about the same number of names; none for a single name.
    pub fn halves(&self) -> Option<(Batch, Batch)> {
        let mut groups: Vec<&[Change]> =
            self.changes.chunk_by(|a, b| a.key.name == b.key.name).collect();
        let second = groups.split_off(groups.len().div_ceil(2));
        (!second.is_empty()).then(|| (Batch::of(&groups.concat()), Batch::of(&second.concat())))
    }
}

/// Changes on their way into messages.
pub struct Packer {
    /// In the order of names, each with the steps it takes and their octets.
    queue: VecDeque<Sized>,
    split: Vec<Name>,
}

struct Sized {
    change: Change,
    record_count: usize,
    weight: usize,
    octets: usize,
    /// It goes into the same message as the one before it.
    together: bool,
}

impl Packer {
    /// `changes` in the order of names.
    pub fn new(changes: Vec<Change>) -> Packer {
        let mut packer =
            Packer { queue: VecDeque::with_capacity(changes.len()), split: Vec::new() };
        for group in changes.chunk_by(|a, b| a.key.name == b.key.name) {
            let sized: Vec<Sized> = group.iter().map(Sized::new).collect();
            let octets: usize = sized.iter().map(|sized| sized.octets).sum();
            let records: usize = sized.iter().map(|sized| sized.record_count).sum();
            if octets <= NAME_OCTETS_MAX && records <= NAME_RECORD_MAX {
                let together = sized.into_iter().enumerate();
                packer.queue.extend(together.map(|(at, s)| Sized { together: at > 0, ..s }));
                continue;
            }
            packer.split.push(group[0].key.name.clone());
            packer.queue.extend(group.iter().flat_map(split).map(|part| Sized::new(&part)));
        }
        packer
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The names that do not fit one message, so that their change is not atomic.
    pub fn split_names(&self) -> &[Name] {
        &self.split
    }

    /// What goes into the next message; empty at the end.
    pub fn take(&mut self, limits: Limits) -> Batch {
        let (mut count, mut weight, mut octets) = (0, 0, 0);
        while count < self.queue.len() {
            let mut end = count + 1;
            end += self.queue.range(end..).take_while(|sized| sized.together).count();
            let more: usize = self.queue.range(count..end).map(|s| s.weight).sum();
            let size: usize = self.queue.range(count..end).map(|s| s.octets).sum();
            let full = weight + more > limits.record_max || octets + size > limits.octets_max;
            if count > 0 && full {
                break;
            }
            (count, weight, octets) = (end, weight + more, octets + size);
        }
        let record_count = self.queue.range(..count).map(|sized| sized.record_count).sum();
        let changes = self.queue.drain(..count).map(|sized| sized.change).collect();
        Batch { changes, record_count }
    }
}

impl Sized {
    fn new(change: &Change) -> Sized {
        let ops = ops(change);
        let octets = change.key.name.wire_len() + ops.iter().map(octets).sum::<usize>();
        let deletions = ops.iter().filter(|op| op.is_deletion()).count();
        let (record_count, weight) = (ops.len(), ops.len() + (DELETION_WEIGHT - 1) * deletions);
        Sized { change: change.clone(), record_count, weight, octets, together: false }
    }
}

/// Encodes a message that is not signed yet.
pub fn encode(id: u16, zone: &Name, fence: &FenceStep, batch: &Batch) -> Vec<u8> {
    let mut writer = Writer::new(id, u16::from(OPCODE_UPDATE) << 11);
    writer.question(zone, Type::SOA, CLASS_IN);
    fence.write(&mut writer);
    for group in batch.changes.chunk_by(|a, b| a.key.name == b.key.name) {
        ops_of_name(group).iter().for_each(|op| write(op, &mut writer));
    }
    writer.finish()
}

fn write(op: &Op<'_>, writer: &mut Writer) {
    match op {
        Op::DeleteRrset(key) => {
            writer.record(2, (&key.name, key.rtype, CLASS_ANY), Ttl::ZERO, None);
        }
        Op::Delete(key, rdata) => {
            writer.record(2, (&key.name, key.rtype, CLASS_NONE), Ttl::ZERO, Some(rdata));
        }
        Op::Add(key, ttl, rdata) => {
            writer.record(2, (&key.name, key.rtype, CLASS_IN), *ttl, Some(rdata));
        }
    }
}

/// Octets of a step whose owner is compressed to a pointer.
fn octets(op: &Op<'_>) -> usize {
    let rdata = match op {
        Op::DeleteRrset(_) => 0,
        Op::Delete(_, rdata) | Op::Add(_, _, rdata) => rdata.wire_len(),
    };
    12 + rdata
}

/// A change too large for one message as smaller ones in a row, each within the limit.
fn split(change: &Change) -> Vec<Change> {
    let ops = in_turn(ops(change));
    let mut parts: Vec<Change> = Vec::new();
    let mut rest = ops.as_slice();
    while !rest.is_empty() {
        let mut size = 0;
        let fits = rest.iter().take(NAME_RECORD_MAX).take_while(|op| {
            size += octets(op);
            size <= NAME_OCTETS_MAX
        });
        let (part, after) = rest.split_at(fits.count());
        rest = after;
        let old = parts.last().map_or(&change.old, |last| &last.new).clone();
        let new = applied(old.as_ref(), part);
        parts.push(Change { key: change.key.clone(), old, new });
    }
    parts
}

/// Deletions and additions in turn, so that no part of a large change leaves the name with far
/// fewer records than before.
fn in_turn(ops: Vec<Op<'_>>) -> Vec<Op<'_>> {
    let (deletions, additions): (Vec<_>, Vec<_>) = ops.into_iter().partition(Op::is_deletion);
    let (mut deletions, mut additions) = (deletions.into_iter(), additions.into_iter());
    let next = || match (deletions.next(), additions.next()) {
        (None, None) => None,
        (deletion, addition) => Some(deletion.into_iter().chain(addition)),
    };
    std::iter::from_fn(next).flatten().collect()
}

fn applied(rrset: Option<&Rrset>, ops: &[Op<'_>]) -> Option<Rrset> {
    let mut ttl = rrset.map_or(Ttl::ZERO, Rrset::ttl);
    let mut data: BTreeSet<&Rdata> = rrset.iter().flat_map(|set| set.rdata()).collect();
    for op in ops {
        match op {
            Op::DeleteRrset(_) => data.clear(),
            Op::Delete(_, gone) => {
                data.remove(gone);
            }
            Op::Add(_, new_ttl, come) => {
                ttl = *new_ttl;
                data.insert(come);
            }
        }
    }
    Rrset::new(ttl, data.into_iter().cloned().collect())
}

/// Writes a batch as commands for `nsupdate`.
pub fn script(server: &Endpoint, zone: &Name, fence: &FenceStep, batch: &Batch) -> String {
    let port = server.port.unwrap_or(53);
    let mut text = format!("server {} {port}\nzone {zone}\n", server.host);
    let mut line = |line: std::fmt::Arguments<'_>| {
        writeln!(text, "{line}").expect("writing to a String cannot fail");
    };
    match &fence.before {
        Some(rdata) => line(format_args!("prereq yxrrset {} IN TXT {rdata}", fence.name)),
        None => line(format_args!("prereq nxrrset {} IN TXT", fence.name)),
    }
    for group in batch.changes.chunk_by(|a, b| a.key.name == b.key.name) {
        for op in ops_of_name(group) {
            match op {
                Op::DeleteRrset(key) => {
                    line(format_args!("update delete {} {}", key.name, key.rtype))
                }
                Op::Delete(key, rdata) => {
                    line(format_args!("update delete {} {} {rdata}", key.name, key.rtype));
                }
                Op::Add(key, ttl, rdata) => {
                    line(format_args!("update add {} {ttl} {} {rdata}", key.name, key.rtype));
                }
            }
        }
    }
    line(format_args!("send"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Header, MESSAGE_MAX, Reader};
    use hickory_proto::op::Message;
    use hickory_proto::serialize::binary::BinDecodable;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const LIMITS: Limits = Limits { record_max: 200, octets_max: 8_192 };

    fn set(ttl: u32, numbers: impl IntoIterator<Item = u32>) -> Option<Rrset> {
        let data = numbers.into_iter().map(|n| Rdata::A(Ipv4Addr::from(0x0a00_0000 + n)));
        Rrset::new(Ttl::from_secs(ttl), data.collect())
    }

    fn change(name: &str, old: Option<Rrset>, new: Option<Rrset>) -> Change {
        Change { key: Key { name: name.parse().unwrap(), rtype: Type::A }, old, new }
    }

    fn fence() -> FenceStep {
        let rdata = Rdata::Other(std::sync::Arc::from(*b"\x03v=1"));
        let name = "_mesozone.mesos".parse().unwrap();
        FenceStep { name, before: Some(rdata), after: None, replaced: Vec::new() }
    }

    fn packed(changes: Vec<Change>, limits: Limits) -> Vec<Batch> {
        let mut packer = Packer::new(changes);
        let mut batches = Vec::new();
        while !packer.is_empty() {
            batches.push(packer.take(limits));
        }
        batches
    }

    fn encoded(batch: &Batch) -> Vec<u8> {
        encode(1, &"mesos".parse().unwrap(), &fence(), batch)
    }

    #[track_caller]
    fn check(old: Option<Rrset>, new: Option<Rrset>, expected: &[&str]) {
        let batch = packed(vec![change("a.mesos", old, new)], LIMITS).remove(0);
        let text = script(
            &Endpoint::parse("127.0.0.1:53").unwrap(),
            &"mesos".parse().unwrap(),
            &fence(),
            &batch,
        );
        let updates: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("update ")).collect();
        assert_eq!(updates, expected);
    }

    #[test]
    fn each_change_takes_the_fewest_steps() {
        check(None, set(60, [1]), &["add a.mesos. 60 A 10.0.0.1"]);
        check(set(60, [1, 2]), None, &["delete a.mesos. A"]);
        check(
            set(60, [1, 2]),
            set(60, [2, 3]),
            &["delete a.mesos. A 10.0.0.1", "add a.mesos. 60 A 10.0.0.3"],
        );
        check(
            set(30, [1]),
            set(60, [1, 2]),
            &["delete a.mesos. A", "add a.mesos. 60 A 10.0.0.1", "add a.mesos. 60 A 10.0.0.2"],
        );
    }

    #[test]
    fn pointers_go_one_by_one() {
        let key = || Key { name: "1.0.0.10.in-addr.arpa".parse().unwrap(), rtype: Type::PTR };
        let set = |ttl, targets: &str| {
            let data = targets.split_whitespace().map(|t| Rdata::Ptr(t.parse().unwrap()));
            Rrset::new(Ttl::from_secs(ttl), data.collect())
        };
        let steps = |old, new| {
            let batch = Batch::of(&[Change { key: key(), old, new }]);
            let server = Endpoint::parse("127.0.0.1:53").unwrap();
            let text = script(&server, &"10.in-addr.arpa".parse().unwrap(), &fence(), &batch);
            assert_eq!(batch.record_count, text.matches("update ").count());
            let steps = text.lines().filter_map(|line| line.strip_prefix("update "));
            steps.collect::<Vec<_>>().join("; ").replace("1.0.0.10.in-addr.arpa. ", "")
        };
        assert_eq!(steps(set(60, "a b"), None), "delete PTR a.; delete PTR b.");
        let moved = steps(set(60, "a b"), set(60, "b c"));
        assert_eq!(moved, "delete PTR a.; add 60 PTR c.");
        assert_eq!(steps(set(30, "a"), set(60, "a")), "delete PTR a.; add 60 PTR a.");
    }

    #[test]
    fn a_message_carries_its_fence_and_reads_back() {
        let batch = packed(vec![change("a.mesos", None, set(60, [1]))], LIMITS).remove(0);
        let read = Message::from_bytes(&encoded(&batch)).unwrap();
        assert_eq!(read.answers.len(), 1, "one prerequisite");
        assert_eq!(read.answers[0].name.to_ascii(), "_mesozone.mesos.");
        assert_eq!(read.authorities.len(), 1, "one update");
        let header = Header::parse(&encoded(&batch)).unwrap();
        assert_eq!(header.opcode(), OPCODE_UPDATE);
    }

    #[test]
    fn a_name_stays_in_one_message_up_to_its_limit() {
        let names: Vec<Change> =
            (0..500).map(|n| change(&format!("n{n:03}.mesos"), None, set(60, [n]))).collect();
        let batches = packed(names, LIMITS);
        assert!(batches.iter().all(|b| b.record_count <= 200 && encoded(b).len() <= 8_192));
        let large = packed(vec![change("a.mesos", None, set(60, 0..500))], LIMITS);
        assert_eq!(large.len(), 1);
    }

    #[test]
    fn a_batch_is_halved_between_names() {
        let names = ["a", "a", "b", "c"];
        let changes: Vec<Change> =
            names.map(|n| change(&format!("{n}.mesos"), None, set(60, [1, 2]))).into();
        let (first, second) = Batch::of(&changes).halves().unwrap();
        assert_eq!((first.changes.len(), second.changes.len()), (3, 1));
        assert_eq!((first.record_count, second.record_count), (6, 2));
        assert_eq!(second.halves(), None);
        assert_eq!(Batch::of(&changes[..2]).halves(), None);
    }

    #[test]
    fn deletions_fill_a_message_sooner() {
        let gone = (0..100).map(|n| change(&format!("n{n:03}.mesos"), set(60, [n]), None));
        let batches = packed(gone.collect(), LIMITS);
        assert!(batches[..2].iter().all(|batch| batch.record_count == 40));
    }

    #[test]
    fn a_name_beyond_the_limit_is_split_at_record_borders() {
        let cases = [
            (None, set(60, 0..9_000)),
            (set(60, 0..9_000), set(60, 9_000..18_000)),
            (set(30, 0..9_000), set(60, 0..9_000)),
        ];
        for (old, new) in cases {
            let batches = packed(vec![change("a.mesos", old.clone(), new.clone())], LIMITS);
            assert!(batches.len() > 1);
            let ttl_changes = old.as_ref().is_some_and(|old| old.ttl().secs() == 30);
            let mut reached = old.clone();
            for batch in &batches {
                assert!(encoded(batch).len() + 400 <= MESSAGE_MAX);
                for part in &batch.changes {
                    assert_eq!(part.old, reached);
                    reached = part.new.clone();
                    let left = reached.as_ref().map_or(0, |set| set.rdata().len());
                    assert!(old.is_none() || ttl_changes || left >= 9_000 - 1, "{left} left");
                }
            }
            assert_eq!(reached, new);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled_in_packing(
            sizes in prop::collection::vec(1_u32..40, 1..60),
            record_max in 1_usize..100,
            octets_max in 200_usize..4_000,
        ) {
            let changes: Vec<Change> = sizes
                .iter()
                .enumerate()
                .map(|(n, size)| change(&format!("n{n:03}.mesos"), None, set(60, 0..*size)))
                .collect();
            let batches = packed(changes.clone(), Limits { record_max, octets_max });
            let sent: Vec<Change> = batches.iter().flat_map(|b| b.changes.clone()).collect();
            prop_assert_eq!(sent, changes);
            for batch in batches {
                let message = encoded(&batch);
                let (header, mut reader) = Reader::behind_question(&message).unwrap();
                reader.skip_record().unwrap();
                for _ in 0..header.counts[2] {
                    let record = reader.record().unwrap();
                    prop_assert!(record.owner.is_below(&"mesos".parse().unwrap()));
                }
                prop_assert!(reader.is_at_end());
                prop_assert_eq!(usize::from(header.counts[2]), batch.record_count);
            }
        }
    }
}
