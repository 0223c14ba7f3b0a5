//! A restore of what is in an archive class: it is asked for once, and then watched by HEADs with growing pauses.
//!
//! The store remembers what was asked for, so this daemon's successor does not ask again. Some stores tell neither the
//! class nor the thaw; there it is tried to read the object, and it is asked for again ever more rarely.

use std::time::Duration;

use super::JobError;
use super::run::Run;
use crate::store::{Location, ObjectInfo, Thawing};
use crate::transfer::TransferError;

/// Pauses grow to so many of the first one,
const MOST_PAUSES: u32 = 12;
/// and no further than to this, unless the first one is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// An object that can't be read yet.
#[derive(Debug)]
pub(super) struct FrozenObject {
    pub(super) at: Location,
    /// What its HEAD told, if it was looked at.
    pub(super) found: Option<ObjectInfo>,
}

/// An object that was asked for in an earlier round and still thaws; `None`: it is worth a try to read it, also where
/// the look at it says that it is not there.
pub(super) fn still_thaws(run: Run<'_>, at: &Location, rounds: u32) -> Result<Option<FrozenObject>, TransferError> {
    if rounds == 0 {
        return Ok(None);
    }
    match run.transfer.head(at.at(), at.version.as_deref()) {
        Ok(found) if found.thawing == Thawing::Asked => Ok(Some(FrozenObject {
            at: at.clone(),
            found: Some(found),
        })),
        Ok(_) | Err(TransferError::Store(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks for it, unless that was done before.
pub(super) fn ask(run: Run<'_>, frozen: FrozenObject, rounds: u32) -> Result<(), JobError> {
    let FrozenObject { at, found } = frozen;
    let found = match found {
        Some(found) => found,
        None => run.transfer.head(at.at(), at.version.as_deref())?,
    };
    if is_to_be_asked(found.thawing, rounds) {
        run.transfer.thaw_found(&at, &found)?;
    }
    if rounds == 0 {
        tracing::info!(key = %at.key, "the object is in an archive class; waiting until it is thawed");
    } else {
        tracing::debug!(key = %at.key, rounds, state = ?found.thawing, "not thawed yet");
    }
    Ok(())
}

/// A thaw that nobody knows of any more is asked for again. Where the store's word and its refusal to read the object do
/// not go together, its word is not relied on.
const fn is_to_be_asked(thawing: Thawing, rounds: u32) -> bool {
    match thawing {
        Thawing::Asked => false,
        Thawing::Frozen => true,
        Thawing::Untold | Thawing::Thawed => rounds == 0 || rounds.is_power_of_two(),
    }
}

/// Until the next look, after so many rounds: twice as long each time.
pub(super) fn pause(first: Duration, rounds: u32) -> Duration {
    let longest = (first * MOST_PAUSES).min(LONGEST_PAUSE).max(first);
    let factor = 1u32.checked_shl(rounds).unwrap_or(MOST_PAUSES).min(MOST_PAUSES);
    (first * factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn pauses_grow_and_a_thaw_of_two_days_is_some_fifty_looks() {
        let first = Duration::from_secs(300);
        let minutes = |rounds| pause(first, rounds).as_secs() / 60;
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 40, u32::MAX].map(minutes),
            [5, 10, 20, 40, 60, 60, 60, 60]
        );
        let (mut waited, mut looks) = (Duration::ZERO, 0);
        while waited < 2 * DAY {
            waited += pause(first, looks);
            looks += 1;
        }
        assert!(looks < 60, "{looks}");
        // One who wants to look once a day does.
        assert_eq!(pause(DAY, 0), DAY);
        assert_eq!(pause(DAY, 9), DAY);
    }

    #[test]
    fn a_thaw_is_asked_for_again_only_when_nobody_knows_of_it() {
        let asked = |thawing| {
            (0..20)
                .filter(|rounds| is_to_be_asked(thawing, *rounds))
                .collect::<Vec<u32>>()
        };
        assert!(asked(Thawing::Asked).is_empty());
        assert_eq!(asked(Thawing::Frozen).len(), 20);
        assert_eq!(asked(Thawing::Untold), [0, 1, 2, 4, 8, 16]);
    }
}
