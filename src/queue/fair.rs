//! A line in which archive ids take turns.

use std::collections::{HashMap, VecDeque};

use crate::types::ArchiveId;

/// First in, first out for each archive id; round and round between them.
#[derive(Debug)]
pub(super) struct Fair<T> {
    lines: HashMap<Option<ArchiveId>, VecDeque<T>>,
    /// Ids with somebody in line, the next one in front.
    turns: VecDeque<Option<ArchiveId>>,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<T> Fair<T> {
    pub(super) fn push(&mut self, id: Option<ArchiveId>, item: T) {
        let line = self.lines.entry(id).or_default();
        if line.is_empty() {
            self.turns.push_back(id);
        }
        line.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let id = self.turns.pop_front()?;
        let line = self.lines.get_mut(&id)?;
        let item = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&id);
        } else {
            self.turns.push_back(id);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_of_one_archive_does_not_hold_up_another() {
        let (one, two) = (ArchiveId::new(1), ArchiveId::new(2));
        let mut fair = Fair::default();
        for n in 0..1000 {
            fair.push(one, n);
        }
        fair.push(two, 5000);
        fair.push(two, 5001);
        let order: Vec<_> = std::iter::from_fn(|| fair.pop()).collect();
        assert_eq!(order[..5], [0, 5000, 1, 5001, 2]);
        assert_eq!(order.len(), 1002);
    }
}
