//! A body as pieces, or a stream as records, most of them texts that tasks already hold: a body of a hundred
//! thousand tasks is neither built nor copied as a whole.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::task::{Part, Task};

pub(crate) const CHUNK: usize = 64 * 1024;

enum Piece {
    Text(String),
    Of(Arc<Task>, Part),
}

#[derive(Default)]
pub(crate) struct Pieces(Vec<Piece>);

impl Piece {
    fn as_str(&self) -> &str {
        match self {
            Piece::Text(text) => text,
            Piece::Of(task, part) => task.text(*part),
        }
    }
}

impl Pieces {
    pub(crate) fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
    }

    pub(crate) fn append(&mut self, other: Pieces) {
        self.0.extend(other.0);
    }

    pub(crate) fn value(&mut self, value: &Value) {
        self.text(&value.to_string());
    }

    /// An object whose last members are still to come: all of it but the closing brace.
    pub(crate) fn open(&mut self, object: &Value) {
        let text = object.to_string();
        self.text(text.strip_suffix('}').unwrap_or(&text));
    }

    /// This part of each task, with commas between.
    pub(crate) fn tasks<'a>(&mut self, tasks: impl Iterator<Item = &'a Arc<Task>>, part: Part) {
        for (index, task) in tasks.enumerate() {
            if index > 0 {
                self.text(",");
            }
            self.0.push(Piece::Of(task.clone(), part));
        }
    }

    /// The values as an array, each written before the next is made.
    pub(crate) fn array(&mut self, values: impl Iterator<Item = Value>) {
        self.text("[");
        for (index, value) in values.enumerate() {
            self.text(if index > 0 { "," } else { "" });
            self.value(&value);
        }
        self.text("]");
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.as_str().len()).sum()
    }

    pub(crate) fn gzip(&self) -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        for piece in &self.0 {
            encoder.write_all(piece.as_str().as_bytes())?;
        }
        encoder.finish()
    }

    /// The body in chunks of about 64 KiB.
    pub(crate) fn chunks(self) -> impl Iterator<Item = Bytes> {
        let mut pieces = self.0.into_iter();
        std::iter::from_fn(move || {
            let mut chunk = String::new();
            while chunk.len() < CHUNK
                && let Some(piece) = pieces.next()
            {
                chunk.push_str(piece.as_str());
            }
            (!chunk.is_empty()).then(|| Bytes::from(chunk))
        })
    }

    /// The first half of the body, in chunks.
    pub(crate) fn first_half(self) -> impl Iterator<Item = Bytes> {
        let mut left = self.len() / 2;
        self.chunks().map_while(move |mut chunk| {
            chunk.truncate(left);
            left -= chunk.len();
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}

impl From<Value> for Pieces {
    fn from(value: Value) -> Pieces {
        Pieces(vec![Piece::Text(value.to_string())])
    }
}

impl From<String> for Pieces {
    fn from(text: String) -> Pieces {
        Pieces(vec![Piece::Text(text)])
    }
}

/// One record of a stream.
pub(crate) enum Record {
    Text(String),
    /// TASK_ADDED of a task with all its statuses.
    TaskAdded(Arc<Task>),
}

const TASK_ADDED: [&str; 2] = [r#"{"type":"TASK_ADDED","task_added":{"task":"#, "}}"];

impl Record {
    /// The record behind its length in decimal.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let parts = match self {
            Record::Text(text) => [text, "", ""],
            Record::TaskAdded(task) => [TASK_ADDED[0], task.text(Part::V1), TASK_ADDED[1]],
        };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.extend_from_slice(format!("{length}\n").as_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    }
}

impl From<Value> for Record {
    fn from(value: Value) -> Record {
        Record::Text(value.to_string())
    }
}
