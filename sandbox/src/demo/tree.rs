//! The files of the demo.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

/// One file and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) sum: [u8; 32],
}

const LARGE: u64 = 256 << 20;

/// Copies the regular files of `source` below `to`; `tick` is told of each.
pub(crate) fn copy(source: &Path, to: &Path, mut tick: impl FnMut(u64)) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let walk = WalkDir::new(source).sort_by_file_name().into_iter();
    let is_ours = |name: &std::ffi::OsStr| name != "target" && name != ".git";
    for found in walk.filter_entry(|entry| entry.depth() == 0 || is_ours(entry.file_name())) {
        let found = found.map_err(io::Error::other)?;
        let relative = found.path().strip_prefix(source).map_err(io::Error::other)?;
        let path = to.join(relative);
        if found.file_type().is_dir() {
            fs::create_dir_all(&path)?;
        } else if found.file_type().is_file() {
            fs::copy(found.path(), &path)?;
            entries.push(measure(path)?);
            tick(entries.last().map_or(0, |entry| entry.bytes));
        }
    }
    Ok(entries)
}

/// A file of 256 MiB that does not compress and has a hole.
pub(crate) fn large(path: PathBuf) -> io::Result<Entry> {
    let mut file = File::create(&path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..LARGE >> 20 {
        for word in block.chunks_exact_mut(8) {
            // xorshift64*: noise without a dependency.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            word.copy_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    measure(path)
}

/// Reads a file.
pub(crate) fn measure(path: PathBuf) -> io::Result<Entry> {
    let mut file = File::open(&path)?;
    let mut sum = Sha256::new();
    let mut block = vec![0u8; 1 << 20];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut block)?;
        if n == 0 {
            break;
        }
        sum.update(block.get(..n).unwrap_or_default());
        bytes += n as u64;
    }
    Ok(Entry {
        path,
        bytes,
        sum: sum.finalize().into(),
    })
}

/// Bytes that files take on the disk.
pub(crate) fn space(entries: &[Entry]) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    entries
        .iter()
        .map(|entry| Ok(fs::metadata(&entry.path)?.blocks() * 512))
        .sum()
}
