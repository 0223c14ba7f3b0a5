//! Directories that get very many entries: Lustre is slow in them, and whoever imports should know.
//!
//! Counts are kept for directories that get many, in bounded memory: when there are too many counts, those of small
//! directories are forgotten, so that a directory which fills up slowly among others may be found late.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// From here on a directory is too full.
const FULL: u64 = 1_000_000;
/// Directories that are counted at a time.
const MOST: usize = 1 << 16;
/// Fewer are forgotten first.
const SMALL: u64 = 1000;

/// The counts of one import.
#[derive(Debug, Default)]
pub struct Crowds(HashMap<PathBuf, u64>);

impl Crowds {
    /// Counts an entry; `true`: just now it became too full.
    pub(super) fn add(&mut self, directory: &Path) -> bool {
        if let Some(count) = self.0.get_mut(directory) {
            *count += 1;
            return *count == FULL;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, count| *count >= SMALL);
            if self.0.len() >= MOST {
                // As many directories of a thousand entries: what is forgotten is found late.
                self.0.clear();
            }
        }
        self.0.insert(directory.to_owned(), 1);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_million_is_told_once_among_many_small_ones() {
        let mut crowds = Crowds::default();
        let mut told = 0;
        for n in 0..FULL + 10 {
            told += u32::from(crowds.add(Path::new("large")));
            if n % 4 == 0 {
                assert!(!crowds.add(Path::new(&format!("small/{n}"))));
            }
        }
        assert_eq!(told, 1);
        assert!(crowds.0.len() <= MOST);
    }
}
