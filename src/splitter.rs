//! Takes a JSON text as it arrives and hands out the members of its long lists one by one, so that
//! a text of any size costs the memory of one member.
//!
//! What is left when every member has been taken out, a `0` in the place of each, is the
//! skeleton: a small text with the syntax of the whole. Splitting itself checks nothing. Whoever
//! reads the skeleton and each member with a JSON parser has checked the text to its last
//! bracket: one cut short, or continued past its end, leaves a skeleton that is no JSON.

/// Where the long lists are: the keys of an object that lead to one.
pub type Keys<L> = &'static [(&'static str, Leads<L>)];

/// What stands behind a key.
pub enum Leads<L: 'static> {
    /// An object, in which some keys lead on.
    To(Keys<L>),
    /// A list whose members are handed out as `L`. In a member that is an object some keys may
    /// lead on: their members are handed out first, then the skeleton of the object.
    List(L, Keys<L>),
}

/// A bracket that was opened on the way to a list.
#[derive(Clone, Copy)]
enum Level<L: 'static> {
    Object(Keys<L>),
    List(L, Keys<L>),
}

/// What the last octets belong to.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Structure,
    String,
    /// A string, right behind a backslash.
    Escape,
    /// A number or a word that is itself a member.
    Scalar,
}

/// A member being read, or the whole text.
struct Piece<L> {
    list: Option<L>,
    /// How many levels are open around it.
    depth: usize,
    /// What came of it with earlier chunks.
    text: Vec<u8>,
}

pub struct Splitter<L: 'static> {
    root: Keys<L>,
    levels: Vec<Level<L>>,
    /// Brackets open below the last level, in what leads nowhere.
    opaque: usize,
    within: Within,
    /// The last string in an object that leads on: its key, once a colon follows.
    key: Vec<u8>,
    /// The value of the key comes next.
    valued: bool,
    /// The text and the members that are open, innermost last; never empty.
    pieces: Vec<Piece<L>>,
}

impl<L: Copy> Splitter<L> {
    /// Reads one object in which these keys lead to lists.
    pub fn new(root: Keys<L>) -> Splitter<L> {
        Splitter {
            root,
            levels: Vec::new(),
            opaque: 0,
            within: Within::Structure,
            key: Vec::new(),
            valued: false,
            pieces: vec![Piece { list: None, depth: 0, text: Vec::new() }],
        }
    }

    /// Takes the next octets; gives each member that they complete.
    pub fn push(&mut self, chunk: &[u8], mut give: impl FnMut(L, &[u8])) {
        let (mut at, mut from) = (0, 0);
        while at < chunk.len() {
            match self.within {
                Within::String | Within::Escape => {
                    at = self.string(chunk, at);
                    if self.within == Within::Structure && self.opaque == 0 {
                        self.end_member(&chunk[..at], &mut from, &mut give);
                    }
                    continue;
                }
                Within::Structure if self.opaque > 0 => {
                    at = self.skip(chunk, at);
                    if self.opaque == 0 {
                        self.end_member(&chunk[..at], &mut from, &mut give);
                    }
                    continue;
                }
                Within::Structure | Within::Scalar => {}
            }
            match self.levels.last() {
                Some(Level::List(list, keys)) => {
                    let (list, keys) = (*list, *keys);
                    self.list(chunk, at, (list, keys), &mut from, &mut give);
                }
                Some(Level::Object(keys)) => {
                    let keys = *keys;
                    self.object(chunk[at], keys);
                    if matches!(chunk[at], b'}' | b']') {
                        self.end_member(&chunk[..=at], &mut from, &mut give);
                    }
                }
                None => self.outside(chunk[at]),
            }
            at += 1;
        }
        self.piece().text.extend_from_slice(&chunk[from..]);
    }

    /// The text with a `0` in the place of each member that was given.
    pub fn skeleton(mut self) -> Vec<u8> {
        self.pieces.swap_remove(0).text
    }

    fn piece(&mut self) -> &mut Piece<L> {
        self.pieces.last_mut().expect("the first piece is never taken out")
    }

    /// On through a string; answers where to go on, behind its end or at the end of the chunk.
    fn string(&mut self, chunk: &[u8], at: usize) -> usize {
        let keyed = self.opaque == 0 && matches!(self.levels.last(), Some(Level::Object(_)));
        let mut end = at;
        if self.within == Within::Escape {
            self.within = Within::String;
            end += 1;
        }
        loop {
            match memchr::memchr2(b'"', b'\\', &chunk[end..]) {
                None => end = chunk.len(),
                Some(length) if chunk[end + length] == b'"' => {
                    if keyed {
                        self.key.extend_from_slice(&chunk[at..end + length]);
                    }
                    self.within = Within::Structure;
                    return end + length + 1;
                }
                Some(length) => end += length + 2,
            }
            if end >= chunk.len() {
                if end > chunk.len() {
                    self.within = Within::Escape;
                }
                if keyed {
                    self.key.extend_from_slice(&chunk[at..]);
                }
                return chunk.len();
            }
        }
    }

    /// On through what leads nowhere, up to a string or the last closing bracket.
    fn skip(&mut self, chunk: &[u8], at: usize) -> usize {
        for (offset, octet) in chunk[at..].iter().enumerate() {
            match octet {
                b'"' => {
                    self.within = Within::String;
                    return at + offset + 1;
                }
                b'{' | b'[' => self.opaque += 1,
                b'}' | b']' => {
                    self.opaque -= 1;
                    if self.opaque == 0 {
                        return at + offset + 1;
                    }
                }
                _ => {}
            }
        }
        chunk.len()
    }

    fn outside(&mut self, octet: u8) {
        match octet {
            b'{' => self.levels.push(Level::Object(self.root)),
            b'[' => self.opaque = 1,
            b'"' => self.within = Within::String,
            _ => {}
        }
    }

    fn object(&mut self, octet: u8, keys: Keys<L>) {
        match octet {
            b'"' => {
                self.within = Within::String;
                if !self.valued {
                    self.key.clear();
                }
            }
            b':' => self.valued = true,
            b',' => self.valued = false,
            b'{' | b'[' => {
                match (self.leads(keys), octet) {
                    (Some(Leads::To(keys)), b'{') => self.levels.push(Level::Object(keys)),
                    (Some(Leads::List(list, keys)), b'[') => {
                        self.levels.push(Level::List(*list, keys));
                    }
                    _ => self.opaque = 1,
                }
                self.valued = false;
            }
            // The wrong closing bracket closes as well: the skeleton has it and is then no JSON.
            b'}' | b']' => {
                self.levels.pop();
                self.valued = false;
            }
            _ => {}
        }
    }

    /// Where the last key leads.
    fn leads(&self, keys: Keys<L>) -> Option<&'static Leads<L>> {
        let find = |key: &[u8]| keys.iter().find(|(name, _)| name.as_bytes() == key);
        let found = match self.key.contains(&b'\\') {
            false => find(&self.key),
            true => {
                let quoted = [b"\"", self.key.as_slice(), b"\""].concat();
                find(serde_json::from_slice::<String>(&quoted).ok()?.as_bytes())
            }
        };
        found.filter(|_| self.valued).map(|(_, leads)| leads)
    }

    /// One octet between the members of a list, or the first of one.
    fn list(
        &mut self,
        chunk: &[u8],
        at: usize,
        (list, keys): (L, Keys<L>),
        from: &mut usize,
        give: &mut impl FnMut(L, &[u8]),
    ) {
        let octet = chunk[at];
        let between = matches!(octet, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
        if self.within == Within::Scalar {
            if !between {
                return;
            }
            self.within = Within::Structure;
            self.end_member(&chunk[..at], from, give);
        }
        if between {
            if matches!(octet, b']' | b'}') {
                self.levels.pop();
            }
            return;
        }
        let outer = self.piece();
        outer.text.extend_from_slice(&chunk[*from..at]);
        outer.text.push(b'0');
        *from = at;
        let depth = self.levels.len();
        self.pieces.push(Piece { list: Some(list), depth, text: Vec::new() });
        match octet {
            b'{' if keys.is_empty() => self.opaque = 1,
            b'{' => self.levels.push(Level::Object(keys)),
            b'[' => self.opaque = 1,
            b'"' => self.within = Within::String,
            _ => self.within = Within::Scalar,
        }
    }

    /// Gives the member that ends with the last octet of `read`, if one does.
    fn end_member(&mut self, read: &[u8], from: &mut usize, give: &mut impl FnMut(L, &[u8])) {
        let depth = self.levels.len();
        let Some(Piece { list: Some(list), .. }) = self.pieces.last().filter(|p| p.depth == depth)
        else {
            return;
        };
        let list = *list;
        let rest = &read[*from..];
        *from = read.len();
        if let Some(mut piece) = self.pieces.pop() {
            if piece.text.is_empty() {
                return give(list, rest);
            }
            piece.text.extend_from_slice(rest);
            give(list, &piece.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const KEYS: Keys<&str> = &[
        ("a", Leads::List("a", &[("b", Leads::List("b", &[])), ("c", Leads::List("c", &[]))])),
        ("d", Leads::To(&[("b", Leads::List("d", &[]))])),
    ];

    /// Members in the order given, and the skeleton.
    fn split<'t>(
        chunks: impl Iterator<Item = &'t [u8]>,
    ) -> (Vec<(&'static str, Vec<u8>)>, Vec<u8>) {
        let (mut splitter, mut members) = (Splitter::new(KEYS), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |list, text| members.push((list, text.to_vec())));
        }
        (members, splitter.skeleton())
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)], skeleton: &str) {
        for size in 1..=text.len() {
            let (members, left) = split(text.as_bytes().chunks(size));
            let members: Vec<(&str, &str)> =
                members.iter().map(|(l, t)| (*l, std::str::from_utf8(t).unwrap())).collect();
            assert_eq!(members, expected, "chunks of {size}");
            assert_eq!(String::from_utf8(left).unwrap(), skeleton, "chunks of {size}");
        }
    }

    #[test]
    fn members_are_taken_out_whatever_they_are() {
        check(r#"{"a":[]}"#, &[], r#"{"a":[]}"#);
        check(
            r#"{"a": [1, "]\"", {"x":[{}]} ,[2],null]}"#,
            &[("a", "1"), ("a", r#""]\"""#), ("a", r#"{"x":[{}]}"#), ("a", "[2]"), ("a", "null")],
            r#"{"a": [0, 0, 0 ,0,0]}"#,
        );
        check(
            r#"{"d":{"b":[7]},"a":[{"b":[{"b":[1]}],"x":"a","c":[8]}],"b":[9]}"#,
            &[("d", "7"), ("b", r#"{"b":[1]}"#), ("c", "8"), ("a", r#"{"b":[0],"x":"a","c":[0]}"#)],
            r#"{"d":{"b":[0]},"a":[0],"b":[9]}"#,
        );
    }

    #[test]
    fn only_the_key_itself_leads_to_a_list() {
        check(r#"{"x":"a","y":[1]}"#, &[], r#"{"x":"a","y":[1]}"#);
        check(r#"{"x":{"a":[1]}}"#, &[], r#"{"x":{"a":[1]}}"#);
        check(r#"{"a":{"a":[1]}}"#, &[], r#"{"a":{"a":[1]}}"#);
        check(r#"{"\u0061":[1]}"#, &[("a", "1")], r#"{"\u0061":[0]}"#);
        check(r#"[{"a":[1]}]"#, &[], r#"[{"a":[1]}]"#);
    }

    /// The skeleton with the members put back, if all of it is JSON.
    fn joined(members: &[(&str, Vec<u8>)], skeleton: &[u8]) -> Option<Value> {
        let mut read = std::collections::HashMap::<&str, std::collections::VecDeque<Value>>::new();
        for (list, text) in members {
            let mut member: Value = serde_json::from_slice(text).ok()?;
            if *list == "a" {
                put_back(&mut member, KEYS_OF_A, &mut read)?;
            }
            read.entry(list).or_default().push_back(member);
        }
        let mut whole: Value = serde_json::from_slice(skeleton).ok()?;
        put_back(&mut whole, &[("a", "a")], &mut read)?;
        if let Some(inner) = whole.get_mut("d") {
            put_back(inner, &[("b", "d")], &mut read)?;
        }
        Some(whole)
    }

    const KEYS_OF_A: &[(&str, &str)] = &[("b", "b"), ("c", "c")];

    fn put_back<'l>(
        value: &mut Value,
        lists: &[(&'l str, &'l str)],
        read: &mut std::collections::HashMap<&'l str, std::collections::VecDeque<Value>>,
    ) -> Option<()> {
        for (key, list) in lists {
            let Some(Value::Array(members)) = value.get_mut(*key) else { continue };
            for member in members {
                *member = read.get_mut(list)?.pop_front()?;
            }
        }
        Some(())
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            r#"["\\\[\]{},:a é]{0,5}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 60, 5, |inner| {
            let keys = prop_oneof!["[abcd]", r#"["\\a]{1,2}"#];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map(keys, inner, 0..5)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    fn chunks(text: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
        let (mut rest, mut made) = (text, Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            made.push(chunk.to_vec());
            rest = after;
        }
        made
    }

    proptest! {
        #[test]
        fn put_together_again_it_is_the_text(
            whole in json(),
            pretty: bool,
            sizes in prop::collection::vec(1_usize..9, 1..4),
        ) {
            let text = if pretty { serde_json::to_vec_pretty(&whole) } else { serde_json::to_vec(&whole) };
            let text = text.unwrap();
            let (members, skeleton) = split(chunks(&text, &sizes).iter().map(Vec::as_slice));
            prop_assert_eq!(joined(&members, &skeleton), Some(whole));
            for cut in 0..text.len() {
                let (members, skeleton) = split(std::iter::once(&text[..cut]));
                let plain = serde_json::from_slice::<Value>(&text[..cut]).ok();
                prop_assert_eq!(joined(&members, &skeleton), plain, "cut at {}", cut);
            }
        }

        #[test]
        fn what_is_no_json_leaves_something_that_is_none(
            whole in json(),
            at: prop::sample::Index,
            octet in prop::sample::select(b"\"\\[]{},:0a \xff".to_vec()),
            insert: bool,
        ) {
            let mut text = serde_json::to_vec(&whole).unwrap();
            let at = at.index(text.len());
            if insert { text.insert(at, octet) } else { text[at] = octet }
            let (members, skeleton) = split(std::iter::once(text.as_slice()));
            if serde_json::from_slice::<Value>(&text).is_err() {
                prop_assert_eq!(joined(&members, &skeleton), None);
            }
        }
    }
}
