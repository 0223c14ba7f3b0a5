//! The keys that files' records point at, in bounded memory.
//!
//! A Bloom filter: it may take a key for known that is not, so that an orphan is not found, and never the other way,
//! so that a copy is not taken for an orphan. 32 MiB: of ten million files 1 key in 10,000 is taken so, of a hundred
//! million 1 in 5. Keys are counted whatever bucket they are in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crc_fast::{CrcAlgorithm, checksum};

use crate::store::ObjectKey;

/// A power of two.
const WORDS: usize = 4 << 20;
const HASHES: u64 = 4;

#[derive(Debug)]
pub(crate) struct KeyFilter {
    words: Vec<AtomicU64>,
    /// A record could not be read: it may mean any key.
    blind: AtomicBool,
}

impl Default for KeyFilter {
    fn default() -> Self {
        Self::with(WORDS)
    }
}

impl KeyFilter {
    /// With so many words, a power of two.
    pub(crate) fn with(words: usize) -> Self {
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            blind: AtomicBool::new(false),
        }
    }

    /// The word of a hash and the bit in it.
    fn place(&self, hash: u64) -> (Option<&AtomicU64>, u64) {
        let index = usize::try_from(hash >> 6).unwrap_or(0) & self.words.len().wrapping_sub(1);
        (self.words.get(index), 1 << (hash & 63))
    }

    pub(crate) fn add(&self, key: &ObjectKey) {
        for hash in hashes(key) {
            if let (Some(word), bit) = self.place(hash) {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn add_unreadable(&self) {
        self.blind.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_blind(&self) -> bool {
        self.blind.load(Ordering::Relaxed)
    }

    /// Whether a file may have its copy there.
    pub(super) fn may_have(&self, key: &ObjectKey) -> bool {
        let is_set = |hash| {
            let (word, bit) = self.place(hash);
            word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
        };
        self.is_blind() || hashes(key).all(is_set)
    }
}

/// Two halves of work make as many as are wanted.
fn hashes(key: &ObjectKey) -> impl Iterator<Item = u64> {
    let first = checksum(CrcAlgorithm::Crc64Nvme, key.as_str().as_bytes());
    // Odd, so that the steps do not repeat.
    let step = first.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..HASHES).map(move |n| first.wrapping_add(step.wrapping_mul(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> ObjectKey {
        ObjectKey::new(format!("scratch/lab/run-{n:06}/out.h5")).unwrap()
    }

    #[test]
    fn every_key_that_was_added_is_known_and_hardly_any_other() {
        let known = KeyFilter::default();
        for n in 0..200_000 {
            known.add(&key(n));
        }
        assert!((0..200_000).all(|n| known.may_have(&key(n))));
        let taken = (200_000..400_000).filter(|n| known.may_have(&key(*n))).count();
        assert!(taken < 20, "{taken}");
    }

    #[test]
    fn a_record_that_cannot_be_read_may_mean_any_key() {
        let known = KeyFilter::default();
        assert!(!known.may_have(&key(1)));
        known.add_unreadable();
        assert!(known.may_have(&key(1)));
    }
}
