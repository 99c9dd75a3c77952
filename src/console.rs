//! What commands print: results on stdout, everything else on stderr, and the exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::report::Style;

/// How a command ended, the worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Well,
    Changes,
    Trouble,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> ExitCode {
        ExitCode::from(ending as u8)
    }
}

pub(crate) fn complain(line: &str) {
    // With nobody to read stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "mesozone: {line}");
}

pub(crate) fn say(text: &str) -> Result<()> {
    print(|out| out.write_all(text.as_bytes()))
}

/// Writes the result to stdout, as it is made.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        // The reader has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing the result"),
    }
}

pub(crate) fn pretty(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context("writing JSON")? + "\n")
}

pub(crate) fn style() -> Style {
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if coloured { Style::Coloured } else { Style::Plain }
}
