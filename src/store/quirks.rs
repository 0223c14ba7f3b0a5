//! What a store always does otherwise than S3: learned once, for all threads, and kept as long as the daemon lives.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ObjectKey;

/// Objects of trials that ran out of time and are kept in mind.
const MOST_PROBES: usize = 16;

/// One thing that a store does otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Quirk {
    /// Conditional writes are refused or ignored, on one of the paths at least: keys are looked at before.
    NoConditions = 1,
    /// Conditional writes were tried, and work.
    Conditions = 1 << 1,
    /// `If-Match` holds only without quotes.
    BareETags = 1 << 2,
    /// ETags are in capitals.
    UpperETags = 1 << 3,
    /// Bodies in `aws-chunked` form are refused, limited or kept as they come: they go plain.
    Unchunked = 1 << 4,
    /// A range is answered by the whole object.
    RangesIgnored = 1 << 5,
    /// The ETag of a single PUT is the MD5 of its bytes.
    Md5ETags = 1 << 6,
    /// The ETag of a single PUT is no MD5.
    OpaqueETags = 1 << 7,
    /// It was said that objects of others can't be proved.
    UnprovenSaid = 1 << 8,
    /// Deletes heed no condition.
    NoDeleteConditions = 1 << 9,
    /// A body that would have gone in chunks was taken plain.
    PlainIsTaken = 1 << 10,
    /// Somebody tries the conditions, or has tried them in vain.
    ConditionsTried = 1 << 11,
    /// An `aws-chunked` body was refused without a word, and none was taken since.
    ChunkedDoubted = 1 << 12,
}

impl Quirk {
    const ALL: [Self; 13] = [
        Self::NoConditions,
        Self::Conditions,
        Self::BareETags,
        Self::UpperETags,
        Self::Unchunked,
        Self::RangesIgnored,
        Self::Md5ETags,
        Self::OpaqueETags,
        Self::UnprovenSaid,
        Self::NoDeleteConditions,
        Self::PlainIsTaken,
        Self::ConditionsTried,
        Self::ChunkedDoubted,
    ];

    /// For `status` and metrics; `None`: as S3, or nothing that anybody needs to know.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::NoConditions => Some("no-conditional-writes"),
            Self::BareETags => Some("if-match-without-quotes"),
            Self::UpperETags => Some("etags-in-capitals"),
            Self::Unchunked => Some("no-aws-chunked"),
            Self::RangesIgnored => Some("ranges-ignored"),
            Self::OpaqueETags => Some("etags-are-no-md5"),
            Self::NoDeleteConditions => Some("no-conditional-deletes"),
            Self::Conditions
            | Self::Md5ETags
            | Self::UnprovenSaid
            | Self::PlainIsTaken
            | Self::ConditionsTried
            | Self::ChunkedDoubted => None,
        }
    }
}

/// What is known of one store.
#[derive(Debug, Default)]
pub struct Quirks {
    habits: AtomicU32,
    /// Objects that a trial has begun to make: those of one that ran out of time are left to the next.
    probes: Mutex<Vec<ObjectKey>>,
}

impl Quirks {
    /// Whether the store was found to do that.
    #[must_use]
    pub fn has(&self, quirk: Quirk) -> bool {
        self.habits.load(Ordering::Relaxed) & quirk as u32 != 0
    }

    /// `true`: it was not known before.
    pub(super) fn learn(&self, quirk: Quirk) -> bool {
        self.habits.fetch_or(quirk as u32, Ordering::Relaxed) & quirk as u32 == 0
    }

    pub(super) fn unlearn(&self, quirk: Quirk) {
        self.habits.fetch_and(!(quirk as u32), Ordering::Relaxed);
    }

    fn probes(&self) -> MutexGuard<'_, Vec<ObjectKey>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object is going to be made to try the store.
    pub(super) fn makes_probe(&self, key: &ObjectKey) {
        let mut probes = self.probes();
        // One that can't be kept in mind is found by the listing, later.
        if probes.len() < MOST_PROBES {
            probes.push(key.clone());
        }
    }

    /// It is gone again.
    pub(super) fn removed_probe(&self, key: &ObjectKey) {
        self.probes().retain(|probe| probe != key);
    }

    /// Those that are not gone yet.
    pub(super) fn left_probes(&self) -> Vec<ObjectKey> {
        self.probes().clone()
    }

    /// The names of all that it does otherwise.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let known = Quirk::ALL.into_iter().filter(|quirk| self.has(*quirk));
        known.filter_map(Quirk::name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_told_until_it_is_unlearned() {
        let quirks = Quirks::default();
        assert!(quirks.names().is_empty());
        assert!(quirks.learn(Quirk::Unchunked));
        assert!(!quirks.learn(Quirk::Unchunked), "it is known");
        assert!(quirks.learn(Quirk::Conditions));
        assert_eq!(quirks.names(), ["no-aws-chunked"]);
        quirks.unlearn(Quirk::Unchunked);
        assert!(!quirks.has(Quirk::Unchunked) && quirks.has(Quirk::Conditions));
    }

    #[test]
    fn habits_share_no_bit() {
        let bits = Quirk::ALL.iter().fold(0, |bits, quirk| bits | *quirk as u32);
        assert_eq!(bits.count_ones() as usize, Quirk::ALL.len());
    }
}
