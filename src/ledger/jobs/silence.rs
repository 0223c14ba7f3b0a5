//! Whether the process of a job lives, as one sees it who wants to go on with the job: by the rule for movers, and no clock
//! decides. Its row has to stand still for as long as such a process needs at most, in looks without a gap each of which changed the
//! row; and nobody knows whether there was an outage before the first one, after which everybody comes back in their own time. A gap
//! that is short beside that time counts for nothing; a longer one has it begin anew.

use std::time::{Duration, Instant};

use super::super::peers::RETURN;
use super::JobRow;

/// Of a gap. The process is back soon after one.
const SHORT: Duration = Duration::from_secs(5);

/// What a look shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Its process, or another one, has told of it since the first look.
    Lives,
    /// Nothing yet, and for so long more.
    NotYet(Duration),
    /// Nothing.
    Nothing,
}

/// What was seen of one job.
#[derive(Debug)]
pub(super) struct Silence {
    lease: Duration,
    /// Owner, count and state at the first look.
    first: Option<(i64, i64, i16)>,
    last: Option<Instant>,
    still: Duration,
}

impl Silence {
    pub(super) const fn new(lease: Duration) -> Self {
        Self {
            lease,
            first: None,
            last: None,
            still: Duration::ZERO,
        }
    }

    /// A look that was asked for at `asked` and answered at `read`.
    pub(super) fn look(&mut self, asked: Instant, read: Instant, row: &JobRow) -> Heard {
        let now = (row.owner, row.renewals, row.state.number());
        if *self.first.get_or_insert(now) != now {
            return Heard::Lives;
        }
        let step = self.last.map(|last| asked.saturating_duration_since(last));
        self.last = Some(read);
        // Who was paused, or whose ledger was, has seen nothing.
        self.still = match step {
            Some(step) if step <= self.lease / 2 => self.still + step,
            Some(step) if step <= SHORT => self.still,
            _ => Duration::ZERO,
        };
        let enough = self.lease + RETURN;
        match enough.checked_sub(self.still) {
            Some(left) if !left.is_zero() => Heard::NotYet(left),
            _ => Heard::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(20);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_that_stands_still_in_looks_without_a_gap_is_silent_and_a_gap_begins_anew() {
        let (mut silence, row) = (Silence::new(LEASE), JobRow::default());
        let mut now = Instant::now();
        assert_eq!(silence.look(now, now, &row), Heard::NotYet(LEASE + RETURN));
        for _ in 0..49 {
            now += SECOND;
            assert!(matches!(silence.look(now, now, &row), Heard::NotYet(_)));
        }
        // It was paused, and so may the ledger have been.
        now += LEASE;
        assert_eq!(silence.look(now, now, &row), Heard::NotYet(LEASE + RETURN));
        for _ in 0..49 {
            now += SECOND;
            assert!(matches!(silence.look(now, now, &row), Heard::NotYet(_)));
        }
        assert_eq!(silence.look(now + SECOND, now + SECOND, &row), Heard::Nothing);
    }

    #[test]
    fn time_in_which_a_look_was_not_answered_does_not_count() {
        let (mut silence, row) = (Silence::new(LEASE), JobRow::default());
        let start = Instant::now();
        silence.look(start, start + 9 * SECOND, &row);
        let heard = silence.look(start + 10 * SECOND, start + 10 * SECOND, &row);
        assert_eq!(heard, Heard::NotYet(LEASE + RETURN - SECOND));
    }

    #[test]
    fn a_short_gap_counts_for_nothing_and_begins_nothing_anew() {
        let (mut silence, row) = (Silence::new(2 * SECOND), JobRow::default());
        let mut now = Instant::now();
        silence.look(now, now, &row);
        now += SECOND;
        silence.look(now, now, &row);
        now += SHORT;
        assert_eq!(silence.look(now, now, &row), Heard::NotYet(SECOND + RETURN));
        now += SHORT + SECOND;
        assert_eq!(silence.look(now, now, &row), Heard::NotYet(2 * SECOND + RETURN));
    }

    #[test]
    fn one_that_is_told_of_lives_whoever_has_it() {
        let now = Instant::now();
        for changed in [
            JobRow {
                renewals: 1,
                ..JobRow::default()
            },
            JobRow {
                owner: 1,
                ..JobRow::default()
            },
        ] {
            let mut silence = Silence::new(LEASE);
            silence.look(now, now, &JobRow::default());
            assert_eq!(silence.look(now, now + SECOND, &changed), Heard::Lives);
        }
    }
}
