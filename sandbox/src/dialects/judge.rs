//! What came of one verb, and how that is held against what must come of it.

use crate::table::Row;
use crate::verbs::Verb;

/// What came of it, from the best to the worst.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Done, and all of it is right.
    Works,
    /// Refused, in these words, and nothing is lost.
    Told(String),
    /// Neither: it hangs, it says nothing, or what was refused has lost something.
    Broken(String),
    /// Done, as it says, and what it made is wrong.
    Silent(String),
}

impl Outcome {
    const fn rank(&self) -> u8 {
        match self {
            Self::Works => 0,
            Self::Told(_) => 1,
            Self::Broken(_) => 2,
            Self::Silent(_) => 3,
        }
    }

    /// The worse one of two.
    pub(crate) fn and(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    /// As the expected outcome is named.
    pub(crate) const fn class(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Told(_) => "told",
            Self::Broken(_) => "BROKEN",
            Self::Silent(_) => "SILENT",
        }
    }

    /// What was said.
    pub(crate) fn words(&self) -> &str {
        match self {
            Self::Works => "",
            Self::Told(words) | Self::Broken(words) | Self::Silent(words) => words,
        }
    }

    /// Whether it is what the table says.
    pub(crate) fn is_expected(&self, row: &Row, verb: Verb) -> bool {
        match self {
            Self::Works => !row.told.contains(&verb),
            Self::Told(_) => row.told.contains(&verb),
            Self::Broken(_) | Self::Silent(_) => false,
        }
    }
}

/// `Silent` with these words unless that is so.
pub(crate) fn right(is_so: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if is_so {
        Outcome::Works
    } else {
        Outcome::Silent(otherwise())
    }
}

/// The sums of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) dialects: usize,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) silent: usize,
}

impl Tally {
    /// One verb more.
    pub(crate) fn count(&mut self, outcome: &Outcome, is_expected: bool) {
        match outcome {
            Outcome::Silent(_) => self.silent += 1,
            _ if is_expected => self.passed += 1,
            _ => self.failed += 1,
        }
    }

    pub(crate) fn json(&self) -> String {
        format!(
            "{{\"dialects\":{},\"verbs\":{},\"passed\":{},\"failed\":{},\"silent\":{}}}",
            self.dialects,
            Verb::ALL.len(),
            self.passed,
            self.failed,
            self.silent
        )
    }

    pub(crate) const fn is_whole(&self) -> bool {
        self.failed == 0 && self.silent == 0
    }
}

#[cfg(test)]
mod tests {
    use lhsm_sandbox_s3::Dialect;

    use super::*;
    use crate::table::expected;

    #[test]
    fn the_worst_counts_and_a_lie_is_never_expected() {
        let told = || Outcome::Told("no".into());
        let silent = || Outcome::Silent("wrong".into());
        assert_eq!(Outcome::Works.and(told()), told());
        assert_eq!(silent().and(told()), silent());
        let row = expected(Dialect::RangeIgnored);
        assert!(told().is_expected(&row, Verb::Check) && !told().is_expected(&row, Verb::Restore));
        assert!(Outcome::Works.is_expected(&row, Verb::Restore) && !Outcome::Works.is_expected(&row, Verb::Check));
        assert!(Verb::ALL.iter().all(|verb| !silent().is_expected(&row, *verb)));
        let mut tally = Tally::default();
        tally.count(&silent(), false);
        tally.count(&told(), true);
        tally.count(&told(), false);
        assert_eq!((tally.passed, tally.failed, tally.silent), (1, 1, 1));
        assert!(!tally.is_whole());
    }
}
