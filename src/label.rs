//! How texts become labels: the rule of mesos-dns (`records/labels`), less the trailing dash that
//! it can leave. A label is a few octets on the stack, since a cluster makes millions of them.

use sha1::{Digest, Sha1};

use crate::name::{LABEL_MAX, NameError};

/// How texts become labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelRules {
    /// At most 63 octets.
    Rfc1123,
    /// At most 24 octets, beginning with a letter.
    Rfc952,
}

/// Lower-case letters, digits and dashes, maybe after an underscore: at most 63, maybe none.
#[derive(Clone)]
pub struct Label {
    octets: [u8; LABEL_MAX],
    len: usize,
}

impl Label {
    const EMPTY: Label = Label { octets: [0; LABEL_MAX], len: 0 };

    /// What is left of a text under the rules.
    pub fn of(text: &str, rules: LabelRules) -> Label {
        // What is not ASCII is dropped, octet by octet.
        let kept = text.bytes().filter_map(|octet| match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => Some(octet.to_ascii_lowercase()),
            b'-' | b'.' | b'_' => Some(b'-'),
            _ => None,
        });
        let (longest, digits) = match rules {
            LabelRules::Rfc1123 => (LABEL_MAX, false),
            LabelRules::Rfc952 => (24, true),
        };
        let mut kept = kept.skip_while(|o| *o == b'-' || digits && o.is_ascii_digit());
        let mut label = Label::EMPTY;
        label.fill(kept.by_ref(), longest);
        if label.as_bytes().ends_with(b"-") {
            label.trim_dashes();
            label.fill(kept.skip_while(|octet| *octet == b'-'), longest);
            label.trim_dashes();
        }
        label
    }

    /// `n-hash5(task id)-tail`, `n` cut so that the whole fits a label.
    pub fn canonical(n: &Label, task_id: &str, tail: &Label) -> Result<Label, NameError> {
        let ending = "-".len() + HASH_LEN + "-".len() + tail.len;
        let room = LABEL_MAX.checked_sub(ending).ok_or(NameError::LabelTooLong(ending))?;
        let mut label = n.cut(room);
        label.put(b"-");
        label.put(&hash5(task_id));
        label.put(b"-");
        label.put(tail.as_bytes());
        Ok(label)
    }

    /// The label after an underscore, cut to leave room for it.
    pub fn underscored(&self) -> Label {
        let mut label = Label::EMPTY;
        label.put(b"_");
        label.put(self.cut(LABEL_MAX - 1).as_bytes());
        label
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn cut(&self, longest: usize) -> Label {
        let mut label = Label { len: self.len.min(longest), ..self.clone() };
        label.trim_dashes();
        label
    }

    fn trim_dashes(&mut self) {
        while self.as_bytes().ends_with(b"-") {
            self.len -= 1;
        }
    }

    /// Appends octets, for which there is room.
    fn put(&mut self, octets: &[u8]) {
        self.octets[self.len..][..octets.len()].copy_from_slice(octets);
        self.len += octets.len();
    }

    /// Appends octets while there are fewer than `longest`.
    fn fill(&mut self, octets: impl Iterator<Item = u8>, longest: usize) {
        for (place, octet) in self.octets[self.len..longest].iter_mut().zip(octets) {
            *place = octet;
            self.len += 1;
        }
    }
}

const HASH_LEN: usize = 5;

/// The first five characters of the z-base-32 of SHA-1 of a task id.
pub fn hash5(task_id: &str) -> [u8; HASH_LEN] {
    const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
    let digest = Sha1::digest(task_id.as_bytes());
    let bits = digest[..4].iter().fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet));
    // Five bits a character, the highest first.
    std::array::from_fn(|at| ALPHABET[(bits >> (27 - 5 * at)) as usize & 31])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, rules: LabelRules, expected: &str) {
        assert_eq!(Label::of(text, rules).as_bytes(), expected.as_bytes());
    }

    #[test]
    fn labels_follow_the_rule() {
        let check_1123 = |text: &str, expected: &str| check(text, LabelRules::Rfc1123, expected);
        check_1123("Search.App_1", "search-app-1");
        check_1123("/group/app one", "groupappone");
        check_1123("--a--", "a");
        check_1123("日本", "");
        check_1123(&"a".repeat(70), &"a".repeat(63));
        let run = format!("hello{}f", "-".repeat(58));
        check_1123(&run, "hellof");
        let joined = format!("{}---ab-c", "q".repeat(60));
        check_1123(&joined, &format!("{}ab", "q".repeat(60)));
        check("9lives", LabelRules::Rfc952, "lives");
        check(&"b".repeat(30), LabelRules::Rfc952, &"b".repeat(24));
    }

    #[test]
    fn what_is_put_to_a_label_takes_the_place_of_its_end() {
        let label = |text: &str| Label::of(text, LabelRules::Rfc1123);
        let long = format!("{}-{}", "a".repeat(52), "b".repeat(10));
        let canonical = |n: &str, tail: &str| Label::canonical(&label(n), "test", &label(tail));
        let made = canonical(&long, "s12").unwrap();
        assert_eq!(made.as_bytes(), format!("{}-iffe9-s12", "a".repeat(52)).as_bytes());
        assert_eq!(label(&long).underscored().as_bytes(), format!("_{}", &long[..62]).as_bytes());
        assert_eq!(canonical("n", &"t".repeat(55)).unwrap().as_bytes()[..2], *b"n-");
        let too_long = canonical("n", &"t".repeat(57)).err();
        assert_eq!(too_long, Some(NameError::LabelTooLong(64)));
    }

    #[test]
    fn the_hash_is_the_one_of_mesos_dns() {
        assert_eq!(&hash5("test"), b"iffe9");
    }
}
