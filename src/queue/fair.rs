//! A line in which MDTs and archive ids take turns.

use std::collections::{HashMap, VecDeque};

use crate::types::{ArchiveId, Domain};

/// Whose actions wait in one row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct FairKey {
    pub(super) domain: Domain,
    pub(super) archive_id: Option<ArchiveId>,
}

/// First in, first out for each MDT and archive id; round and round between them.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    lines: HashMap<FairKey, VecDeque<T>>,
    /// Lots with somebody in line, the next one in front.
    turns: VecDeque<FairKey>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn push(&mut self, lot: FairKey, item: T) {
        let line = self.lines.entry(lot).or_default();
        if line.is_empty() {
            self.turns.push_back(lot);
        }
        line.push_back(item);
    }

    /// The next one of those MDTs that may have one; those before it keep their turns.
    pub(super) fn pop(&mut self, may: impl Fn(Domain) -> bool) -> Option<(FairKey, T)> {
        self.pop_of(|lot| may(lot.domain))
    }

    /// The next one of those lots.
    pub(super) fn pop_of(&mut self, may: impl Fn(FairKey) -> bool) -> Option<(FairKey, T)> {
        let turn = self.turns.iter().position(|lot| may(*lot))?;
        let lot = self.turns.remove(turn)?;
        let line = self.lines.get_mut(&lot)?;
        let item = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&lot);
        } else {
            self.turns.push_back(lot);
        }
        Some((lot, item?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Mdt;

    fn lot(mdt: u32, id: u32) -> FairKey {
        FairKey {
            domain: Some(Mdt(mdt)),
            archive_id: ArchiveId::new(id),
        }
    }

    #[test]
    fn a_long_line_of_one_archive_does_not_hold_up_another() {
        let (one, two) = (lot(0, 1), lot(0, 2));
        let mut fair = FairQueue::default();
        for n in 0..1000 {
            fair.push(one, n);
        }
        fair.push(two, 5000);
        fair.push(two, 5001);
        let order: Vec<_> = std::iter::from_fn(|| fair.pop(|_| true)).map(|(_, n)| n).collect();
        assert_eq!(order[..5], [0, 5000, 1, 5001, 2]);
        assert_eq!(order.len(), 1002);
    }

    #[test]
    fn mdts_take_turns_and_one_that_may_have_nothing_keeps_its_place() {
        let mut fair = FairQueue::default();
        for n in 0..3 {
            fair.push(lot(0, 1), n);
            fair.push(lot(1, 1), 10 + n);
        }
        let mut pop = |may: fn(Domain) -> bool| fair.pop(may).map(|(_, n)| n);
        assert_eq!([pop(|_| true), pop(|_| true)], [Some(0), Some(10)]);
        let others = |domain: Domain| domain != Some(Mdt(0));
        assert_eq!([pop(others), pop(others), pop(others)], [Some(11), Some(12), None]);
        assert_eq!([pop(|_| true), pop(|_| true), pop(|_| true)], [Some(1), Some(2), None]);
    }
}
