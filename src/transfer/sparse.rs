//! Holes: found in what is read, made in what is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::unistd::Whence;

use crate::types::ErrorClass;

/// The granule of holes: Linux's page and Lustre's smallest block.
const BLOCK: u64 = 4096;
static ZEROS: [u8; 4096] = [0; 4096];

/// Tells data from holes along a file that is read front to back.
#[derive(Debug, Default)]
pub(super) struct Segments {
    data: std::ops::Range<u64>,
}

/// What lies at an offset, and how far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Segment {
    Data(u64),
    Hole(u64),
}

impl Segments {
    /// What lies at `offset` and how many bytes of it there are up to `end`.
    pub(super) fn at(&mut self, file: &File, offset: u64, end: u64) -> Segment {
        if offset >= self.data.end {
            self.data = next_data(file, offset, end);
        }
        if offset < self.data.start {
            Segment::Hole(self.data.start.min(end) - offset)
        } else {
            Segment::Data(self.data.end.min(end) - offset)
        }
    }
}

/// A file system that can't tell has no holes.
fn next_data(file: &File, offset: u64, end: u64) -> std::ops::Range<u64> {
    let seek = |at: u64, whence| -> io::Result<u64> {
        let at = i64::try_from(at).map_err(io::Error::other)?;
        let found = nix::unistd::lseek(file, at, whence).map_err(io::Error::from)?;
        Ok(found.cast_unsigned())
    };
    match seek(offset, Whence::SeekData) {
        Ok(start) => {
            let stop = seek(start, Whence::SeekHole).unwrap_or(end);
            start..stop.max(start + 1)
        }
        // No data from here to the end of the file.
        Err(error) if ErrorClass::of_io(&error) == ErrorClass::Nothing => end..end,
        Err(_) => offset..end,
    }
}

/// Writes `bytes` at `offset` of a file that has only zeros there, leaving out its blocks of zeros.
pub(super) fn write(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut at = offset;
    let mut rest = bytes;
    let mut run = 0usize;
    let mut pending = bytes;
    while !rest.is_empty() {
        let room = usize::try_from(BLOCK - at % BLOCK).unwrap_or(rest.len());
        let (block, after) = rest.split_at(room.min(rest.len()));
        if ZEROS.get(..block.len()) == Some(block) {
            flush(file, at - run as u64, pending, run)?;
            run = 0;
            pending = after;
        } else {
            run += block.len();
        }
        at += block.len() as u64;
        rest = after;
    }
    flush(file, at - run as u64, pending, run)
}

fn flush(file: &File, offset: u64, pending: &[u8], run: usize) -> io::Result<()> {
    match pending.get(..run) {
        Some(data) if run > 0 => file.write_all_at(data, offset),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt as _;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            offset in 0u64..20_000,
            runs in prop::collection::vec((any::<bool>(), 1usize..9000), 0..8),
            cut in 1usize..7000,
        ) {
            let file = tempfile::tempfile().unwrap();
            let bytes: Vec<u8> = runs.iter().flat_map(|(data, n)| vec![u8::from(*data) * 7; *n]).collect();
            file.set_len(offset + bytes.len() as u64).unwrap();
            let mut at = offset;
            for chunk in bytes.chunks(cut) {
                write(&file, at, chunk).unwrap();
                at += chunk.len() as u64;
            }
            let mut back = vec![1; bytes.len()];
            file.read_exact_at(&mut back, offset).unwrap();
            prop_assert_eq!(back, bytes);
        }
    }

    #[test]
    fn blocks_of_zeros_stay_holes() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0u8; 9 << 20];
        bytes[5 << 20..(5 << 20) + 4096].fill(1);
        file.set_len(bytes.len() as u64).unwrap();
        write(&file, 0, &bytes).unwrap();
        assert!(file.metadata().unwrap().blocks() <= 64);

        let mut segments = Segments::default();
        let end = bytes.len() as u64;
        assert_eq!(segments.at(&file, 0, end), Segment::Hole(5 << 20));
        assert_eq!(segments.at(&file, 5 << 20, end), Segment::Data(4096));
        assert_eq!(
            segments.at(&file, (5 << 20) + 4096, end),
            Segment::Hole((4 << 20) - 4096)
        );
    }
}
