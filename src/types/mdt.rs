//! Metadata targets, and which of them files are on, as far as that is known.
//!
//! A call about a file of a dead MDT comes back when the MDT does. So whoever makes calls for many files sorts them by
//! MDT first, and that by what is known here: nobody is asked, nobody waits.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::{ArchiveId, Fid};

/// A metadata target, by its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mdt(pub u32);

impl fmt::Display for Mdt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MDT{:04x}", self.0)
    }
}

/// A part of the file system that fails alone: an MDT. `None`: where a file is has not been found out yet.
pub type Domain = Option<Mdt>;

/// What actions want that a mover may not reach.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum OutOfReach {
    /// The MDT of their files.
    Mdt(Mdt),
    /// The store of their archive.
    Archive(ArchiveId),
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mdt(mdt) => write!(f, "{mdt}"),
            Self::Archive(id) => write!(f, "the store of archive {}", id.get()),
        }
    }
}

/// What a domain is called in logs.
#[must_use]
pub fn domain_name(domain: Domain) -> String {
    domain.map_or_else(|| "an MDT".to_owned(), |mdt| mdt.to_string())
}

/// Sequences below this one are inodes of old file systems (IGIF), which had one MDT.
const FIRST_SEQUENCE: u64 = 0x1_0000_0000;
/// More are never told apart: some hundred thousand clients would have to write.
const MOST: usize = 1 << 20;

/// Which MDT each sequence of FIDs is on. A sequence never moves, so what is known stays true.
#[derive(Clone, Debug, Default)]
pub struct Sequences(Arc<RwLock<SequenceMap>>);

#[derive(Debug, Default)]
struct SequenceMap {
    of: HashMap<u64, Mdt>,
    /// The last one that was learnt of each MDT.
    on: HashMap<Mdt, u64>,
}

impl Sequences {
    /// Where a file is; `None` when that is not known yet.
    #[must_use]
    pub fn domain(&self, fid: Fid) -> Domain {
        if fid.seq < FIRST_SEQUENCE {
            return Some(Mdt(0));
        }
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.of.get(&fid.seq).copied()
    }

    /// A file is there, and so is all of its sequence.
    pub fn learn(&self, fid: Fid, mdt: Mdt) {
        if fid.seq < FIRST_SEQUENCE {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.of.len() >= MOST {
            known.of.clear();
        }
        known.of.insert(fid.seq, mdt);
        known.on.insert(mdt, fid.seq);
    }

    /// A sequence of that MDT, by a FID that is no file's.
    #[must_use]
    pub fn unused_on(&self, mdt: Mdt) -> Option<Fid> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let seq = *known.on.get(&mdt)?;
        // Sequences end far below (LUSTRE_DATA_SEQ_MAX_WIDTH).
        Some(Fid {
            seq,
            oid: u32::MAX - 1,
            ver: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fid(seq: u64) -> Fid {
        Fid { seq, oid: 7, ver: 0 }
    }

    #[test]
    fn a_sequence_is_known_for_all_its_files_and_no_other() {
        let sequences = Sequences::default();
        assert_eq!(sequences.domain(fid(0x2_4000_0401)), None);
        sequences.learn(fid(0x2_4000_0401), Mdt(1));
        let other = Fid {
            oid: 9,
            ..fid(0x2_4000_0401)
        };
        assert_eq!(sequences.domain(other), Some(Mdt(1)));
        assert_eq!(sequences.domain(fid(0x2_4000_0402)), None);
        assert_eq!(sequences.unused_on(Mdt(1)).map(|fid| fid.seq), Some(0x2_4000_0401));
        assert_eq!(sequences.unused_on(Mdt(0)), None);
        // An old file system's inode.
        assert_eq!(sequences.domain(fid(12345)), Some(Mdt(0)));
        assert_eq!(domain_name(Some(Mdt(0x1f))), "MDT001f");
    }
}
