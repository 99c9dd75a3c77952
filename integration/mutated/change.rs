//! Changes of octets and of JSON, as values: a failing case is read as the list of its changes.

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// No mutated input is longer.
const OCTETS_MAX: usize = 300_000;

/// One change of octets. Places and lengths are taken modulo what is there.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    /// Everything behind it is gone.
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    Swap(Index, Index, usize),
    Insert(Index, &'static [u8]),
    /// Two octets become this number.
    Number(Index, u16),
    /// The next run of decimal digits becomes this text.
    Digits(Index, &'static str),
    /// Another input follows.
    Join(Index),
}

/// What parsers stumble over, in one place or another.
const ODD: [&[u8]; 22] = [
    b"\"",
    b"\\",
    b"\\\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"\0",
    b"0",
    b"*",
    b"**.",
    b"/*",
    b"#",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xc3\x28",
    b"\xc0\x0c",
    b"\xe2\x80\xae",
];

const DIGITS: [&str; 12] = [
    "",
    "0",
    "-1",
    "00",
    "1e400",
    "-0.0",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "999999999999",
    "0x10",
];

pub(super) fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let length = || prop_oneof![1..8_usize, 1..2_000_usize];
    let number = prop::sample::select(vec![0_u16, 1, 0x7fff, 0x8000, 0xc000, 0xc00c, 0xffff]);
    prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, octet)| Change::Set(at, octet)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), length()).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (at(), length(), 1..60_usize).prop_map(|(at, len, n)| Change::Repeat(at, len, n)),
        2 => (at(), at(), length()).prop_map(|(a, b, length)| Change::Swap(a, b, length)),
        3 => (at(), prop::sample::select(ODD.to_vec())).prop_map(|(a, o)| Change::Insert(a, o)),
        3 => (at(), number).prop_map(|(at, number)| Change::Number(at, number)),
        3 => (at(), prop::sample::select(DIGITS.to_vec())).prop_map(|(a, d)| Change::Digits(a, d)),
        1 => at().prop_map(Change::Join),
    ]
}

pub(super) fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..5)
}

/// The octets with the changes made, one after the other.
pub(super) fn changed(octets: &[u8], changes: &[Change], others: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = octets.to_vec();
    for change in changes {
        apply(change, &mut octets, others);
        octets.truncate(OCTETS_MAX);
    }
    octets
}

/// One of the inputs with the changes made.
pub(super) fn seeded(inputs: &[Vec<u8>], at: &Index, changes: &[Change]) -> Vec<u8> {
    changed(at.get::<Vec<u8>>(inputs), changes, inputs)
}

fn apply(change: &Change, octets: &mut Vec<u8>, others: &[Vec<u8>]) {
    let room = octets.len();
    let run = |at: &Index, length: usize| -> Range<usize> {
        let from = at.index(room + 1);
        from..(from + length).min(room)
    };
    match change {
        Change::Flip(at, bit) if room > 0 => octets[at.index(room)] ^= 1 << bit,
        Change::Set(at, octet) if room > 0 => octets[at.index(room)] = *octet,
        Change::Flip(..) | Change::Set(..) => {}
        Change::Cut(at) => octets.truncate(at.index(room + 1)),
        Change::Remove(at, length) => drop(octets.drain(run(at, *length))),
        Change::Repeat(at, length, times) => {
            let run = run(at, *length);
            let more = octets[run.clone()].repeat(*times);
            octets.splice(run.end..run.end, more);
        }
        Change::Swap(a, b, length) => {
            let (a, b) = (run(a, *length), run(b, *length));
            if a.end <= b.start || b.end <= a.start {
                let (first, second) = if a.start < b.start { (a, b) } else { (b, a) };
                let (left, right) =
                    (octets[first.clone()].to_vec(), octets[second.clone()].to_vec());
                octets.splice(second, left);
                octets.splice(first, right);
            }
        }
        Change::Insert(at, odd) => {
            let at = at.index(room + 1);
            octets.splice(at..at, odd.iter().copied());
        }
        Change::Number(at, number) => {
            let run = run(at, 2);
            let value = number.to_be_bytes();
            octets[run.clone()].copy_from_slice(&value[..run.len()]);
        }
        Change::Digits(at, text) => {
            let from = at.index(room + 1);
            let digits = |octet: &u8| octet.is_ascii_digit();
            let start = octets[from..].iter().position(digits).map_or(room, |start| from + start);
            let length = octets[start..].iter().take_while(|octet| digits(octet)).count();
            octets.splice(start..start + length, text.bytes());
        }
        Change::Join(other) if !others.is_empty() => octets.extend(other.get(others)),
        Change::Join(_) => {}
    }
}

/// One change of a JSON value: the place counts its values, outermost first.
#[derive(Clone, Debug)]
pub(super) enum JsonChange {
    Replace(Index, Odd),
    Remove(Index),
    /// A list's members once more, an object's under other keys.
    Double(Index),
    Rename(Index, &'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Odd {
    Null,
    True,
    Zero,
    Minus,
    Huge,
    Fraction,
    Empty,
    List,
    Object,
    /// A text of so many letters.
    Long(usize),
    /// Lists within lists, so many.
    Deep(usize),
    Text(&'static str),
}

impl Odd {
    fn value(self) -> Value {
        match self {
            Odd::Null => Value::Null,
            Odd::True => json!(true),
            Odd::Zero => json!(0),
            Odd::Minus => json!(i64::MIN),
            Odd::Huge => json!(u64::MAX),
            Odd::Fraction => json!(1.5e300),
            Odd::Empty => json!(""),
            Odd::List => json!([]),
            Odd::Object => json!({}),
            Odd::Long(length) => Value::String("x".repeat(length)),
            Odd::Deep(depth) => (0..depth).fold(Value::Null, |inner, _| json!([inner])),
            Odd::Text(text) => json!(text),
        }
    }
}

const TEXTS: [&str; 14] = [
    "\0",
    "a@b",
    "x@[::1]:5051",
    "slave(1)@10.0.0.1:99999",
    "TASK_RUNNING",
    "TASK_LOST",
    "[1-65535]",
    "[1-65535, 1-65535, 1-65535, 1-65535]",
    "[9-3]",
    "[-9223372036854775808-1]",
    "é",
    "\u{202e}",
    "..",
    "::ffff:10.0.0.1",
];

/// Keys that mean something to somebody.
const KEYS: [&str; 12] = [
    "id",
    "slaves",
    "frameworks",
    "tasks",
    "completed_tasks",
    "recovered_slaves",
    "subscribed",
    "type",
    "agent_info",
    "framework_id",
    "state",
    "",
];

pub(super) fn json_change() -> impl Strategy<Value = JsonChange> {
    let at = any::<Index>;
    let odd = prop_oneof![
        4 => prop::sample::select(vec![
            Odd::Null, Odd::True, Odd::Zero, Odd::Minus, Odd::Huge, Odd::Fraction, Odd::Empty,
            Odd::List, Odd::Object,
        ]),
        1 => (1..70_000_usize).prop_map(Odd::Long),
        1 => (1..120_usize).prop_map(Odd::Deep),
        3 => prop::sample::select(TEXTS.to_vec()).prop_map(Odd::Text),
    ];
    prop_oneof![
        5 => (at(), odd).prop_map(|(at, odd)| JsonChange::Replace(at, odd)),
        2 => at().prop_map(JsonChange::Remove),
        1 => at().prop_map(JsonChange::Double),
        1 => (at(), prop::sample::select(KEYS.to_vec())).prop_map(|(a, k)| JsonChange::Rename(a, k)),
    ]
}

pub(super) fn json_changed(mut value: Value, changes: &[JsonChange]) -> Value {
    for change in changes {
        let at = match change {
            JsonChange::Replace(at, _) | JsonChange::Rename(at, _) => at,
            JsonChange::Remove(at) | JsonChange::Double(at) => at,
        };
        let mut place = at.index(count(&value));
        reshape(&mut value, &mut place, change);
    }
    value
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(object) => object.values().map(count).sum(),
        _ => 0,
    }
}

/// Makes the change at the value that `place` values come before; true once it is made.
fn reshape(value: &mut Value, place: &mut usize, change: &JsonChange) -> bool {
    if *place == 0 {
        match (change, &mut *value) {
            (JsonChange::Replace(_, odd), value) => *value = odd.value(),
            (JsonChange::Remove(_), value) => *value = Value::Null,
            (JsonChange::Double(_), Value::Array(list)) => list.extend(list.clone()),
            (JsonChange::Double(_), Value::Object(object)) => {
                let more = object.clone().into_iter().map(|(key, value)| (key + "2", value));
                object.extend(more);
            }
            (JsonChange::Rename(_, to), Value::Object(object)) => {
                if let Some(key) = object.keys().next().cloned()
                    && let Some(value) = object.remove(&key)
                {
                    object.insert((*to).to_owned(), value);
                }
            }
            _ => {}
        }
        return true;
    }
    *place -= 1;
    match value {
        Value::Array(list) => {
            for at in 0..list.len() {
                let here = *place == 0;
                if reshape(&mut list[at], place, change) {
                    if here && matches!(change, JsonChange::Remove(_)) {
                        list.remove(at);
                    }
                    return true;
                }
            }
            false
        }
        Value::Object(object) => {
            let keys: Vec<String> = object.keys().cloned().collect();
            for key in keys {
                let here = *place == 0;
                if object.get_mut(&key).is_some_and(|inner| reshape(inner, place, change)) {
                    if here && matches!(change, JsonChange::Remove(_)) {
                        object.remove(&key);
                    }
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

/// The octets in pieces of these sizes, in turn.
pub(super) fn pieces<'o>(octets: &'o [u8], sizes: &[usize]) -> Vec<&'o [u8]> {
    let mut sizes = sizes.iter().copied().cycle();
    let mut rest = octets;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (piece, after) = rest.split_at(size);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Sizes of pieces: mostly large ones, or a body would take as many steps as it has octets.
pub(super) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..4_usize, 1..100_usize, 100..20_000_usize], 1..6)
}
