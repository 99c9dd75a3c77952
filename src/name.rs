//! Domain names, held so that their order is the order of a zone.
//!
//! A [`Name`] keeps its labels root first, lower-cased, each ended by a zero octet. Comparing the
//! octets is then the canonical order of RFC 4034, section 6.1, "is within" is `starts_with`, and
//! everything below a name is one range of an ordered map. A zero or one inside a label is written
//! as two octets (`01 02`, `01 03`), so that the ending zero stays unique.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most octets a name takes on the wire, RFC 1035, section 2.3.4.
pub const NAME_MAX: usize = 255;
/// The most octets of one label, RFC 1035, section 2.3.4.
pub const LABEL_MAX: usize = 63;

/// An absolute domain name in lower case, at most 255 octets on the wire. Cloning is free.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

/// Why some text or octets are no domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("empty label in name")]
    EmptyLabel,
    #[error("label of {0} octets, 63 is the limit")]
    LabelTooLong(usize),
    #[error("name of {0} octets, 255 is the limit")]
    TooLong(usize),
    #[error("bad escape in name")]
    Escape,
}

impl Name {
    pub fn root() -> Name {
        Name(Arc::from([]))
    }

    /// The name with `label` put in front.
    pub fn child(&self, label: &[u8]) -> Result<Name, NameError> {
        self.below([label])
    }

    /// The name with several labels put in front, the one nearest to the root first:
    /// `mesos.` below `["marathon", "web"]` is `web.marathon.mesos.`.
    pub fn below<'l>(&self, labels: impl IntoIterator<Item = &'l [u8]>) -> Result<Name, NameError> {
        let mut octets = Octets::of(self);
        for label in labels {
            octets.push_label(label)?;
        }
        octets.into_name()
    }

    /// The labels as on the wire: leaf first, the root's empty label left out.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = Cow<'_, [u8]>> {
        let body = self.0.strip_suffix(&[0]).unwrap_or(&self.0);
        let stored = (!self.0.is_empty()).then(|| body.split(|octet| *octet == 0));
        stored.into_iter().flatten().rev().map(unescape)
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this name is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Name) -> bool {
        self.0.starts_with(&ancestor.0)
    }

    /// Whether this name lies below `ancestor` and is not the same.
    pub fn is_below(&self, ancestor: &Name) -> bool {
        self.0.len() > ancestor.0.len() && self.is_within(ancestor)
    }

    /// The name without its first label; none for the root.
    pub fn parent(&self) -> Option<Name> {
        let body = self.0.strip_suffix(&[0])?;
        let cut = body.iter().rposition(|octet| *octet == 0).map_or(0, |at| at + 1);
        Some(Name(Arc::from(&self.0[..cut])))
    }

    /// This name and every name above it, up to and without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Name> {
        std::iter::successors(Some(self.clone()), Name::parent).filter(|name| !name.is_root())
    }

    /// Octets on the wire, uncompressed.
    pub fn wire_len(&self) -> usize {
        self.0.len() - self.0.iter().filter(|octet| **octet == 1).count() + 1
    }

    /// The stored octets, for comparing the beginnings of names: one `0` ends each label.
    pub fn stored(&self) -> &[u8] {
        &self.0
    }

    /// Appends the uncompressed wire form, in lower case.
    pub fn write(&self, out: &mut Vec<u8>) {
        for label in self.labels() {
            out.push(label.len() as u8); // At most 63: a Name exists only when valid.
            out.extend_from_slice(&label);
        }
        out.push(0);
    }

    /// A name from labels as on the wire, leaf first.
    pub fn from_wire_labels<'l>(
        labels: impl DoubleEndedIterator<Item = &'l [u8]>,
    ) -> Result<Name, NameError> {
        Name::root().below(labels.rev())
    }
}

/// A name on the stack, where one is made or only looked up.
pub struct Octets {
    /// Two octets at most for each on the wire.
    stored: [u8; 2 * NAME_MAX],
    stored_len: usize,
    /// Counted beyond the limit, where nothing is stored any more.
    wire_len: usize,
}

impl Octets {
    /// A name from labels as on the wire, leaf first.
    pub fn from_wire_labels<'l>(
        labels: impl DoubleEndedIterator<Item = &'l [u8]>,
    ) -> Result<Octets, NameError> {
        let mut octets = Octets { stored: [0; 2 * NAME_MAX], stored_len: 0, wire_len: 1 };
        labels.rev().try_for_each(|label| octets.push_label(label))?;
        match octets.wire_len {
            len if len > NAME_MAX => Err(NameError::TooLong(len)),
            _ => Ok(octets),
        }
    }

    /// As [`Name::stored`].
    pub fn stored(&self) -> &[u8] {
        &self.stored[..self.stored_len]
    }

    /// As [`Name::wire_len`].
    pub fn wire_len(&self) -> usize {
        self.wire_len
    }

    fn of(name: &Name) -> Octets {
        let mut stored = [0; 2 * NAME_MAX];
        stored[..name.0.len()].copy_from_slice(&name.0);
        Octets { stored, stored_len: name.0.len(), wire_len: name.wire_len() }
    }

    fn push_label(&mut self, label: &[u8]) -> Result<(), NameError> {
        if label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        if label.len() > LABEL_MAX {
            return Err(NameError::LabelTooLong(label.len()));
        }
        self.wire_len += label.len() + 1;
        if self.wire_len > NAME_MAX {
            return Ok(());
        }
        let start = self.stored_len;
        match label.iter().all(|octet| *octet > 1) {
            true => self.push(label),
            false => label.iter().for_each(|octet| match octet {
                0 | 1 => self.push(&[1, octet + 2]),
                _ => self.push(&[*octet]),
            }),
        }
        self.stored[start..self.stored_len].make_ascii_lowercase();
        self.push(&[0]);
        Ok(())
    }

    fn push(&mut self, octets: &[u8]) {
        self.stored[self.stored_len..][..octets.len()].copy_from_slice(octets);
        self.stored_len += octets.len();
    }

    fn into_name(self) -> Result<Name, NameError> {
        match self.wire_len {
            len if len > NAME_MAX => Err(NameError::TooLong(len)),
            _ => Ok(Name(Arc::from(&self.stored[..self.stored_len]))),
        }
    }
}

fn unescape(stored: &[u8]) -> Cow<'_, [u8]> {
    if !stored.contains(&1) {
        return Cow::Borrowed(stored);
    }
    let mut octets = stored.iter();
    let mut label = Vec::with_capacity(stored.len());
    while let Some(octet) = octets.next() {
        match octet {
            1 => label.extend(octets.next().map(|escaped| escaped - 2)),
            _ => label.push(*octet),
        }
    }
    Cow::Owned(label)
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads the text form of RFC 1035, section 5.1, as absolute whether or not it ends in a dot.
    fn from_str(text: &str) -> Result<Name, NameError> {
        if text == "." {
            return Ok(Name::root());
        }
        let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
        let mut octets = text.bytes();
        while let Some(octet) = octets.next() {
            let label = labels.last_mut().expect("starts with one label and only grows");
            match octet {
                b'.' => labels.push(Vec::new()),
                b'\\' => label.push(escaped(&mut octets)?),
                _ => label.push(octet),
            }
        }
        if labels.len() > 1 && labels.last().is_some_and(Vec::is_empty) {
            labels.pop();
        }
        Name::from_wire_labels(labels.iter().map(Vec::as_slice))
    }
}

fn escaped(octets: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = octets.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = octets.next().filter(u8::is_ascii_digit).ok_or(NameError::Escape)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::Escape)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        // All octets are looked at and none decides early, which is what processors do at once.
        let plain =
            self.0.iter().fold(true, |plain, octet| plain & (is_plain(*octet) | (*octet == 0)));
        if plain {
            return self.fmt_plain(f);
        }
        for label in self.labels() {
            for octet in label.iter() {
                match octet {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(*octet))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(*octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

fn is_plain(octet: u8) -> bool {
    octet.is_ascii_lowercase() | octet.is_ascii_digit() | (octet == b'-') | (octet == b'_')
}

impl Name {
    /// Writes a name without anything to escape, in one piece.
    fn fmt_plain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'.'; NAME_MAX];
        let mut rest = &self.0[..];
        let mut len = 0;
        while let Some(body) = rest.strip_suffix(&[0]) {
            let cut = body.iter().rposition(|octet| *octet == 0).map_or(0, |at| at + 1);
            text[len..][..body.len() - cut].copy_from_slice(&body[cut..]);
            len += rest.len() - cut;
            rest = &rest[..cut];
        }
        f.write_str(std::str::from_utf8(&text[..len]).map_err(|_| fmt::Error)?) // ASCII.
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check(text: &str, shown: &str) {
        assert_eq!(name(text).to_string(), shown);
    }

    #[test]
    fn text_comes_back_in_lower_case_and_absolute() {
        check("Search.Marathon.MESOS", "search.marathon.mesos.");
        check("a.", "a.");
        check(".", ".");
        check(r"a\.b.c", r"a\.b.c.");
        check(r"\000\001\255.x", r"\000\001\255.x.");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!("a..b".parse::<Name>(), Err(NameError::EmptyLabel));
        assert_eq!("".parse::<Name>(), Err(NameError::EmptyLabel));
        assert_eq!(r"a\2".parse::<Name>(), Err(NameError::Escape));
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::LabelTooLong(64)));
        assert_eq!("a.".repeat(128).parse::<Name>(), Err(NameError::TooLong(257)));
    }

    #[test]
    fn within_ends_at_label_borders() {
        assert!(name("a.mesos").is_within(&name("mesos")));
        assert!(name("mesos").is_within(&name("mesos")));
        assert!(!name("mesos").is_below(&name("mesos")));
        assert!(!name("xmesos").is_within(&name("mesos")));
        assert!(name("mesos").is_within(&Name::root()));
        assert_eq!(name("a.b.c").parent(), Some(name("b.c")));
        assert_eq!(name("c").parent(), Some(Name::root()));
        assert_eq!(Name::root().parent(), None);
    }

    fn labels() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..8), 0..6)
    }

    proptest! {
        #[test]
        fn order_is_canonical(a in labels(), b in labels()) {
            // RFC 4034, section 6.1, by its own words: labels compared root first, lower-cased.
            let lower = |labels: &[Vec<u8>]| -> Vec<Vec<u8>> {
                labels.iter().rev().map(|label| label.to_ascii_lowercase()).collect()
            };
            let made = |labels: &[Vec<u8>]| {
                Name::from_wire_labels(labels.iter().map(Vec::as_slice)).unwrap()
            };
            prop_assert_eq!(made(&a).cmp(&made(&b)), lower(&a).cmp(&lower(&b)));
        }

        #[test]
        fn text_and_wire_lose_nothing(labels in labels()) {
            let made = Name::from_wire_labels(labels.iter().map(Vec::as_slice)).unwrap();
            prop_assert_eq!(name(&made.to_string()), made.clone());
            let mut wire = Vec::new();
            made.write(&mut wire);
            prop_assert_eq!(wire.len(), made.wire_len());
            let back: Vec<Vec<u8>> = made.labels().map(|label| label.into_owned()).collect();
            let sent: Vec<Vec<u8>> = labels.iter().map(|l| l.to_ascii_lowercase()).collect();
            prop_assert_eq!(back, sent);
        }
    }
}
