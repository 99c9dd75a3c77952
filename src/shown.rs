//! Texts of others on the page: harmless, and never too long.
//!
//! What frameworks, masters and name servers say is written by whoever runs there. Markup is
//! escaped by maud; here is what escaping leaves: characters that hide others or turn a line
//! round, and sheer length.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use maud::{Markup, PreEscaped, Render};

/// The most characters of one text.
const CHARS_MAX: usize = 600;
/// How long all lists together may become, in octets of the page.
const ROOM: usize = 160_000;

/// Anything that has a text, shown as what it is: a character that cannot be seen, or that moves
/// others, is written as its number.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: Display> Render for Shown<T> {
    fn render_to(&self, out: &mut String) {
        let text = self.0.to_string();
        let mut plain = String::with_capacity(text.len());
        let mut chars = text.chars();
        for c in chars.by_ref().take(CHARS_MAX) {
            match is_hidden(c) {
                true => plain.extend(c.escape_default()),
                false => plain.push(c),
            }
        }
        let more = chars.count();
        if more > 0 {
            // Writing to a String cannot fail.
            let _ = write!(plain, "… ({} more characters)", number(more));
        }
        plain.render_to(out);
    }
}

/// Control and format characters, and spaces that are none to the eye (Unicode, 23.1 and 23.2).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffc}' | '\u{e0000}'..='\u{e0fff}')
}

/// A number with commas between thousands.
pub(crate) fn number(count: usize) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// So many of something, which takes an s.
pub(crate) fn many(count: usize, what: &str) -> String {
    format!("{} {what}{}", number(count), if count == 1 { "" } else { "s" })
}

/// A span of time in its two largest units, as one says it.
pub(crate) fn span(span: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let secs = span.as_secs();
    let two = |large: u64, word: &str, small: u64, less: &str| match secs % large / small {
        0 => format!("{} {word}", secs / large),
        rest => format!("{} {word} {rest} {less}", secs / large),
    };
    match secs {
        0..MINUTE => format!("{secs} s"),
        MINUTE..HOUR => two(MINUTE, "min", 1, "s"),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        _ => two(DAY, "d", HOUR, "h"),
    }
}

/// What is left for lists on one page: however much is held, the page stays one that a browser on
/// a bad line can load.
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Room {
        Room(ROOM)
    }
}

impl Room {
    /// As many of the lines as there is room for, and how many of `count` are left.
    pub(crate) fn fit(
        &mut self,
        count: usize,
        lines: impl Iterator<Item = Markup>,
    ) -> (Markup, usize) {
        let (mut fit, mut fitting) = (String::new(), 0);
        for PreEscaped(line) in lines {
            let Some(left) = self.0.checked_sub(line.len()) else { break };
            self.0 = left;
            fit.push_str(&line);
            fitting += 1;
        }
        (PreEscaped(fit), count.saturating_sub(fitting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, shown: &str) {
        assert_eq!(Shown(text).render().into_string(), shown);
    }

    #[test]
    fn what_cannot_be_seen_is_written_as_its_number_and_markup_is_escaped() {
        check("web.marathon.mesos. A 10.0.0.1", "web.marathon.mesos. A 10.0.0.1");
        check("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;");
        check("\" onmouseover=\"", "&quot; onmouseover=&quot;");
        check("abc\u{202e}gpj.exe", "abc\\u{202e}gpj.exe");
        check("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}");
        check("one\ntwo\r\t\u{1b}[31m\u{0}", "one\\ntwo\\r\\t\\u{1b}[31m\\u{0}");
        check("größe 東京", "größe 東京");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let shown = Shown("x".repeat(2_000)).render().into_string();
        assert!(shown.ends_with("x… (1,400 more characters)"), "{shown}");
    }

    #[test]
    fn spans_and_numbers_are_short() {
        let said = |secs| span(Duration::from_secs(secs));
        assert_eq!(said(0), "0 s");
        assert_eq!(said(60), "1 min");
        assert_eq!(said(61), "1 min 1 s");
        assert_eq!(said(7_380), "2 h 3 min");
        assert_eq!(said(3 * 86_400), "3 d");
        assert_eq!(said(90_000), "1 d 1 h");
        assert_eq!(many(1, "record"), "1 record");
        assert_eq!(many(1_234_567, "record"), "1,234,567 records");
        assert_eq!(number(999), "999");
    }

    #[test]
    fn lists_share_what_room_there_is() {
        let mut room = Room(10);
        let lines = || ["four", "4444", "xxx"].map(|line| PreEscaped(line.to_owned())).into_iter();
        let (fit, more) = room.fit(30, lines());
        assert_eq!((fit.into_string().as_str(), more), ("four4444", 28));
        let (fit, more) = room.fit(3, lines().skip(1));
        assert_eq!((fit.into_string().as_str(), more), ("", 3));
    }
}
