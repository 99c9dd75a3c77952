//! A configuration while it is being written: TOML, with comments for people.
//!
//! Prose starts with `# `, and what is a line of configuration but for the `#` has no blank behind it.

use std::fmt::Write as _;

use crate::name::Name;

/// Characters of a line of prose.
const WIDTH: usize = 100;

/// What is written so far.
#[derive(Default)]
pub(crate) struct Draft(String);

impl Draft {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }

    pub(crate) fn table(&mut self, name: &str) {
        self.0 += &format!("\n[{name}]\n");
    }

    pub(crate) fn gap(&mut self) {
        self.0.push('\n');
    }

    /// One key with a value that is TOML.
    pub(crate) fn key(&mut self, key: &str, value: &str) {
        self.0 += &format!("{key} = {value}\n");
    }

    /// A line of configuration that does not count yet.
    pub(crate) fn off(&mut self, line: &str) {
        self.0 += &format!("#{line}\n");
    }

    /// Prose. What others wrote is in it as `{:?}` writes it, which leaves no character that ends a
    /// line.
    pub(crate) fn say(&mut self, prose: &str) {
        let mut line = String::from("#");
        for word in prose.split(' ') {
            if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.0 += &(line + "\n");
                line = String::from("#");
            }
            line += &format!(" {word}");
        }
        self.0 += &(line + "\n");
    }
}

/// A basic string of TOML: what is not printable is escaped, too.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\'' => quoted.push(c),
            // Rust's own notion of what may be shown, whose escapes TOML does not have.
            _ if c.escape_debug().count() > 1 => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
            _ => quoted.push(c),
        }
    }
    quoted + "\""
}

pub(crate) fn list<T: AsRef<str>>(texts: &[T]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A name as configurations have it.
pub(crate) fn bare(name: &Name) -> String {
    let text = name.to_string();
    text.strip_suffix('.').map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prose_is_broken_at_blanks() {
        let mut draft = Draft::default();
        draft.say(&["twelve chars"; 10].join(" "));
        let long = "x".repeat(120);
        draft.say(&format!("a {long} b"));
        let first = "# ".to_owned() + &["twelve chars"; 7].join(" ") + " twelve";
        let rest = "# chars twelve chars twelve chars";
        assert_eq!(draft.text(), format!("{first}\n{rest}\n# a\n# {long}\n# b\n"));
    }

    #[test]
    fn what_is_not_printable_is_escaped() {
        let text = "\u{202e}\u{2028}\r\n\t\0\u{7f}'é\"\\";
        let escaped = r"\U0000202E\U00002028\U0000000D\U0000000A\U00000009\U00000000\U0000007F'é";
        assert_eq!(quoted(text), format!("\"{escaped}\\\"\\\\\""));
    }

    proptest! {
        #[test]
        fn a_string_is_read_as_it_was_written(text in any::<String>()) {
            let read: toml::Table = toml::from_str(&format!("text = {}", quoted(&text))).unwrap();
            prop_assert_eq!(read["text"].as_str(), Some(&*text));
        }
    }
}
