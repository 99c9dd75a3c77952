//! What a check found: a line each, which a person reads at night and a program greps.

use std::fmt::Write as _;

use crate::report::Style;

/// How well it is, the worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Well,
    Warning,
    Failure,
}

impl Level {
    /// The first word of a line.
    fn word(self) -> &'static str {
        match self {
            Level::Well => "ok",
            Level::Warning => "warn",
            Level::Failure => "FAIL",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Level::Well => "32",
            Level::Warning => "33",
            Level::Failure => "1;31",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub level: Level,
    /// What it is about: `target bind, server 10.0.0.53:53, zone mesos.`
    pub about: String,
    pub text: String,
    /// What to do about it; empty where all is well.
    pub remedy: String,
}

impl Finding {
    pub fn well(about: impl Into<String>, text: impl Into<String>) -> Finding {
        let (about, text) = (about.into(), text.into());
        Finding { level: Level::Well, about, text, remedy: String::new() }
    }

    pub fn warning(
        about: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { level: Level::Warning, remedy: remedy.into(), ..Finding::well(about, text) }
    }

    pub fn failure(
        about: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { level: Level::Failure, remedy: remedy.into(), ..Finding::well(about, text) }
    }

    /// One line, whatever a server put into it.
    fn line(&self, style: Style) -> String {
        let word = style.paint(self.level.colour(), self.level.word());
        let gap = " ".repeat(6 - self.level.word().len());
        let link = if self.remedy.is_empty() { "" } else { "; " };
        let text = format!("{}: {}{link}{}", self.about, self.text, self.remedy);
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        format!("{word}{gap}{}", text.chars().map(shown).collect::<String>())
    }
}

/// The lines of some findings.
pub fn text(findings: &[Finding], style: Style) -> String {
    let mut out = String::new();
    for finding in findings {
        writeln!(out, "{}", finding.line(style)).expect("writing to a String cannot fail");
    }
    out
}

/// The worst of them; all well if there are none.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Well)
}

/// `1 master`, `2 masters`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// The first few of many, and how many more there are.
pub fn some<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 3;
    let all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    let (shown, more) = all.split_at(all.len().min(SHOWN));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_a_server_put_into_it() {
        let finding = Finding::failure("master m", "it said \x1b[2Jhi\n", "ask it");
        let line = text(&[finding], Style::Plain);
        assert_eq!(line, "FAIL  master m: it said \u{fffd}[2Jhi\u{fffd}; ask it\n");
    }

    #[test]
    fn colour_is_on_the_first_word_alone() {
        let findings = [Finding::well("a", "b"), Finding::warning("c", "d", "e")];
        let coloured = text(&findings, Style::Coloured);
        assert_eq!(coloured, "\x1b[32mok\x1b[0m    a: b\n\x1b[33mwarn\x1b[0m  c: d; e\n");
        assert_eq!(text(&findings, Style::Plain), "ok    a: b\nwarn  c: d; e\n");
    }

    #[test]
    fn the_worst_counts() {
        let well = Finding::well("a", "b");
        assert_eq!(worst(&[]), Level::Well);
        let warning = Finding::warning("a", "b", "c");
        assert_eq!(worst(&[well.clone(), warning.clone(), well]), Level::Warning);
        assert_eq!(worst(&[Finding::failure("a", "b", "c"), warning]), Level::Failure);
    }

    #[test]
    fn of_many_the_first_few_are_named() {
        assert_eq!(some(["a", "b", "c"]), "a, b, c");
        assert_eq!(some(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
