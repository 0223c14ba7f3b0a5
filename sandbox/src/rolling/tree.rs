//! The files, each with bytes of its own that its number tells.

use std::io;
use std::path::Path;

const IN_DIRECTORY: u32 = 1000;
/// One file in so many goes in parts.
const LARGE_ONE_IN: u32 = 250;
/// Above the movers' threshold for parts.
const LARGE: u64 = 6 << 20;
/// Of the others, in bytes.
const SMALL: u64 = 20_000;

/// Where a file is below the mount, and its object in the bucket.
pub(crate) fn name(number: u32) -> String {
    format!("d{:05}/f{number:08}", number / IN_DIRECTORY)
}

/// Makes the directories of so many files.
pub(crate) fn directories(mount: &Path, files: u32) -> io::Result<()> {
    for first in (0..files).step_by(IN_DIRECTORY as usize) {
        if let Some(parent) = mount.join(name(first)).parent() {
            std::fs::create_dir_all(parent)?;
        }
    }
    Ok(())
}

/// A file's bytes.
pub(crate) fn content(number: u32) -> Vec<u8> {
    let mut state = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut word = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let size = if number.is_multiple_of(LARGE_ONE_IN) {
        LARGE + word() % 1000
    } else {
        100 + word() % SMALL
    };
    let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
    for chunk in content.chunks_mut(8) {
        let bytes = word().to_le_bytes();
        chunk.copy_from_slice(bytes.get(..chunk.len()).unwrap_or_default());
    }
    content
}

/// What is wrong with bytes that should be a file's, if anything is.
pub(crate) fn difference(number: u32, bytes: &[u8]) -> Option<String> {
    let wanted = content(number);
    if bytes == wanted {
        return None;
    }
    let same = bytes
        .iter()
        .zip(&wanted)
        .take_while(|(one, other)| one == other)
        .count();
    Some(format!(
        "{} bytes instead of {}, other ones from byte {same} on",
        bytes.len(),
        wanted.len()
    ))
}
