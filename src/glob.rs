//! Texts in which `*` stands for any run of octets.

/// A pattern for texts, whatever their case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob(String);

/// Why some text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    #[error("an empty pattern fits nothing")]
    Empty,
    #[error("only * stands for something else, not {0:?}")]
    Special(char),
}

impl Glob {
    /// Reads a pattern. What other programs take for a wildcard is refused, lest it is meant as one.
    pub fn parse(text: &str) -> Result<Glob, GlobError> {
        let special = text.chars().find(|c| "?[]{}\\".contains(*c));
        match special {
            Some(special) => Err(GlobError::Special(special)),
            None if text.is_empty() => Err(GlobError::Empty),
            None => Ok(Glob(text.to_ascii_lowercase())),
        }
    }

    /// The pattern of all texts.
    pub fn all() -> Glob {
        Glob("*".to_owned())
    }

    pub fn matches(&self, text: &str) -> bool {
        self.is_all() || fits(self.0.as_bytes(), text.to_ascii_lowercase().as_bytes())
    }

    /// Whether it matches every text.
    fn is_all(&self) -> bool {
        self.0.bytes().all(|octet| octet == b'*')
    }
}

/// Whether `text` is `pattern` with each `*` standing for some run of octets.
pub fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let mut parts = pattern.split(|octet| *octet == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let found = rest.windows(part.len().max(1)).position(|window| window.starts_with(part));
        let Some(at) = found.or(part.is_empty().then_some(0)) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let glob = Glob::parse(pattern).unwrap();
        matching.iter().for_each(|text| assert!(glob.matches(text), "{text}"));
        others.iter().for_each(|text| assert!(!glob.matches(text), "{text}"));
    }

    #[test]
    fn a_star_stands_for_any_run() {
        check("*", &["", "marathon", "a.b"], &[]);
        check("marathon", &["marathon", "Marathon"], &["marathon-2", "a marathon"]);
        check("Dev-*", &["dev-", "DEV-a.b"], &["dev", "x-dev-a"]);
        check("*-dev", &["a-dev", "-dev"], &["a-dev-b"]);
        check("a*b**c", &["abc", "axbxbc"], &["ab", "acb"]);
    }

    #[test]
    fn what_may_be_meant_as_another_wildcard_is_refused() {
        assert_eq!(Glob::parse(""), Err(GlobError::Empty));
        assert_eq!(Glob::parse("dev-?"), Err(GlobError::Special('?')));
        assert_eq!(Glob::parse("{a,b}"), Err(GlobError::Special('{')));
    }
}
