//! LOST marks wait until it is known how many copies are missing.
//!
//! A wrong bucket or prefix, or a bucket that was copied, looks as if all copies were gone. A mark is no harm to data,
//! but nobody restores a marked file: where many are missing at once, none is marked, and it is said why.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::FindingKind;
use super::files::FileSnapshot;
use crate::walk::Named;

/// A share of few files is no sign of anything: so many may be missing whatever the share.
const LEAST: u64 = 10;
/// Files that wait for their marks.
const MOST_WAITING: usize = 50_000;

/// How many copies may be missing for `--repair` to mark files LOST.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaxMissing {
    /// So many files.
    Files(u64),
    /// So many of 10,000 files that have a copy.
    Share(u64),
}

impl MaxMissing {
    const ALL: Self = Self::Share(10_000);

    /// Nothing is too many.
    pub(super) fn is_all(self) -> bool {
        self == Self::ALL
    }

    const fn of(self, looked: u64) -> u64 {
        match self {
            Self::Files(files) => files,
            Self::Share(0) => 0,
            Self::Share(share) => {
                let files = looked.saturating_mul(share) / 10_000;
                if files > LEAST { files } else { LEAST }
            }
        }
    }
}

impl FromStr for MaxMissing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is neither a number of files nor a share such as 1% or 0.25%");
        let Some(share) = text.strip_suffix('%') else {
            return text.parse().map(Self::Files).map_err(|_| wrong());
        };
        let (whole, part) = share.split_once('.').unwrap_or((share, "0"));
        let hundredths = format!("{part:0<2}");
        if hundredths.len() != 2 {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let part: u64 = hundredths.parse().map_err(|_| wrong())?;
        let share = whole.saturating_mul(100).saturating_add(part);
        if share > 10_000 {
            return Err(wrong());
        }
        Ok(Self::Share(share))
    }
}

impl fmt::Display for MaxMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => write!(f, "{files}"),
            Self::Share(share) if share % 100 == 0 => write!(f, "{}%", share / 100),
            Self::Share(share) => write!(f, "{}.{:02}%", share / 100, share % 100),
        }
    }
}

/// A released file whose copy is gone.
#[derive(Debug)]
pub(super) struct MissingCopy {
    pub(super) file: Named,
    pub(super) seen: FileSnapshot,
    pub(super) what: FindingKind,
}

/// What is known of missing copies.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Files that should have a copy.
    looked: AtomicU64,
    /// Of these, without one that is theirs.
    gone: AtomicU64,
    waiting: Mutex<Vec<MissingCopy>>,
    overflown: AtomicBool,
}

impl Lost {
    pub(super) fn look(&self) {
        self.looked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn miss(&self) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wait(&self, waiting: MissingCopy) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_WAITING {
            self.overflown.store(true, Ordering::Relaxed);
        } else {
            all.push(waiting);
        }
    }

    /// Those that are to be marked now that all files were looked at, or why none is.
    pub(super) fn decide(&self, most: MaxMissing) -> Result<Vec<MissingCopy>, String> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let looked = self.looked.load(Ordering::Relaxed);
        let gone = self.gone.load(Ordering::Relaxed);
        if waiting.is_empty() || (gone <= most.of(looked) && !self.overflown.load(Ordering::Relaxed)) {
            return Ok(waiting);
        }
        let limit = if gone > most.of(looked) {
            format!("more than --max-missing {most}")
        } else {
            format!("more than the {MOST_WAITING} that can wait for a mark")
        };
        Err(format!(
            "no file was marked LOST: {gone} of {looked} files have no copy that is theirs, {limit}. See whether this is \
             the right bucket, prefix and account, and whether the objects were copied there by other tools; if the \
             copies really are gone, give --max-missing 100%"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_or_a_number_is_read_and_written() {
        for text in ["1%", "0.25%", "100%", "0%", "500"] {
            assert_eq!(text.parse::<MaxMissing>().unwrap().to_string(), text);
        }
        assert_eq!("2.5%".parse(), Ok(MaxMissing::Share(250)));
        for text in ["", "%", "-1%", "101%", "1.234%", "x", "1.x%"] {
            assert!(text.parse::<MaxMissing>().is_err(), "{text}");
        }
    }

    #[test]
    fn few_files_may_be_missing_whatever_their_share_is() {
        let one: MaxMissing = "1%".parse().unwrap();
        assert_eq!((one.of(5), one.of(1000), one.of(5000)), (10, 10, 50));
        assert_eq!(MaxMissing::Share(0).of(1_000_000), 0);
        assert_eq!(MaxMissing::Files(3).of(1_000_000), 3);
        assert!("100%".parse::<MaxMissing>().unwrap().is_all());
    }
}
