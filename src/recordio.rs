//! RecordIO, the framing of an event stream (Mesos, `docs/recordio.md`): each record is its length
//! in decimal, a line feed, and so many octets. Chunks of the transport are not records.

/// More digits than any record has octets.
const DIGITS_MAX: usize = 12;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream has no record length where one belongs")]
pub struct FramingError;

/// What the octets are.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'c> {
    /// Some octets of a record.
    Octets(&'c [u8]),
    /// The record is whole.
    End,
}

/// Cuts a stream into its records.
#[derive(Default)]
pub struct RecordIo {
    /// Of the record being read; none while its length is read.
    left: Option<u64>,
    length: u64,
    digits: usize,
}

impl RecordIo {
    /// Takes the next octets; gives the parts of records in them, in order.
    pub fn push(
        &mut self,
        mut chunk: &[u8],
        mut give: impl FnMut(Part<'_>),
    ) -> Result<(), FramingError> {
        while !chunk.is_empty() {
            match self.left {
                None => chunk = self.length(chunk)?,
                Some(left) => {
                    // A record longer than memory addresses is given in as many parts as come.
                    let size = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                    let (octets, rest) = chunk.split_at(size);
                    give(Part::Octets(octets));
                    chunk = rest;
                    self.left = Some(left - size as u64);
                }
            }
            if self.left == Some(0) {
                self.left = None;
                give(Part::End);
            }
        }
        Ok(())
    }

    fn length<'c>(&mut self, chunk: &'c [u8]) -> Result<&'c [u8], FramingError> {
        let (octet, rest) = chunk.split_first().ok_or(FramingError)?;
        match octet {
            b'0'..=b'9' if self.digits < DIGITS_MAX => {
                self.length = self.length * 10 + u64::from(octet - b'0');
                self.digits += 1;
            }
            b'\n' if self.digits > 0 => {
                self.left = Some(std::mem::take(&mut self.length));
                self.digits = 0;
            }
            _ => return Err(FramingError),
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(stream: &[u8], size: usize) -> Result<Vec<Vec<u8>>, FramingError> {
        let (mut framing, mut found, mut record) = (RecordIo::default(), Vec::new(), Vec::new());
        for chunk in stream.chunks(size) {
            framing.push(chunk, |part| match part {
                Part::Octets(octets) => record.extend_from_slice(octets),
                Part::End => found.push(std::mem::take(&mut record)),
            })?;
        }
        Ok(found)
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for bad in ["x", "1x", "\n", "-1\n", " 1\n", "1234567890123\n", "2\nab3"] {
            let read = records(bad.as_bytes(), 1);
            assert_eq!(read.is_err(), bad != "2\nab3", "{bad:?}: {read:?}");
        }
        assert_eq!(records(b"0\n2\nab", 1), Ok(vec![vec![], b"ab".to_vec()]));
    }

    proptest! {
        #[test]
        fn chunks_are_not_records(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            size in 1_usize..50,
        ) {
            let mut stream = Vec::new();
            for record in &sent {
                stream.extend(format!("{}\n", record.len()).into_bytes());
                stream.extend(record);
            }
            prop_assert_eq!(records(&stream, size), Ok(sent));
        }
    }
}
