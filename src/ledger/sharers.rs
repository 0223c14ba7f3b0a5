//! By how many movers limits are divided that are the whole fleet's, and the daemon as the ledger's thread knows it for that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::state::Shared;
use crate::fleet::Telling;
use crate::types::ArchiveId;

/// The daemon, which says what the mover's row tells, and hears by how many its limits are divided. Nothing here may wait.
pub trait Teller: fmt::Debug + Send + Sync {
    /// This mover now. What it does not reach and how its ledger is are filled in.
    fn telling(&self) -> Telling;

    /// From now on limits of the whole fleet are divided by so many.
    fn shared_by(&self, sharers: &Sharers);
}

/// How many movers use the limits that are the whole fleet's. What was seen last goes on while the ledger is away.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sharers {
    /// Others that were there when nobody had looked yet at what they tell: each may use any limit.
    listed: u64,
    /// By archive, how many others use the one of uploads and that of downloads; `None`: nobody has looked yet.
    told: Option<BTreeMap<u32, (u64, u64)>>,
}

impl Sharers {
    /// By what the others tell that are there.
    pub(super) fn told<'a>(others: impl Iterator<Item = &'a Telling>) -> Self {
        let mut counts: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for told in others {
            for id in &told.shares_upload {
                counts.entry(*id).or_default().0 += 1;
            }
            for id in &told.shares_download {
                counts.entry(*id).or_default().1 += 1;
            }
        }
        Self {
            listed: 0,
            told: Some(counts),
        }
    }

    /// Of uploads to an archive and of downloads from it, this mover included.
    #[must_use]
    pub fn of(&self, archive: ArchiveId) -> (u64, u64) {
        let (uploads, downloads) = match &self.told {
            Some(told) => told.get(&archive.get()).copied().unwrap_or_default(),
            None => (self.listed, self.listed),
        };
        (uploads + 1, downloads + 1)
    }
}

impl Shared {
    /// Who says what the row tells, from now on.
    pub(super) fn set_teller(&self, teller: Arc<dyn Teller>) {
        let sharers = {
            let mut state = self.lock();
            state.teller = Some(Arc::clone(&teller));
            state.sharers.clone()
        };
        teller.shared_by(&sharers);
    }

    /// `None`: there is no daemon yet.
    pub(super) fn teller(&self) -> Option<Arc<dyn Teller>> {
        self.lock().teller.clone()
    }

    pub(super) fn sharers(&self) -> Sharers {
        self.lock().sharers.clone()
    }

    /// So many others are there; what they tell is not known. It counts until that is.
    pub(super) fn list_sharers(&self, others: usize) {
        let before = self.sharers();
        if before.told.is_none() {
            self.share(Sharers {
                listed: others as u64,
                told: None,
            });
        }
    }

    /// Also where nothing has changed: an archive may have been added since.
    pub(super) fn share(&self, sharers: Sharers) {
        self.lock().sharers = sharers.clone();
        if let Some(teller) = self.teller() {
            teller.shared_by(&sharers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::shared_of;
    use super::*;

    fn id(id: u32) -> ArchiveId {
        ArchiveId::new(id).unwrap()
    }

    #[test]
    fn a_limit_is_divided_by_those_who_say_that_they_use_it() {
        let told = |upload: &[u32], download: &[u32]| Telling {
            shares_upload: upload.to_vec(),
            shares_download: download.to_vec(),
            ..Telling::default()
        };
        let others = [told(&[1, 2], &[1]), told(&[1], &[]), told(&[], &[])];
        let sharers = Sharers::told(others.iter());
        assert_eq!(sharers.of(id(1)), (3, 2));
        assert_eq!(sharers.of(id(2)), (2, 1));
        assert_eq!(sharers.of(id(7)), (1, 1), "it is this mover's alone");
    }

    #[test]
    fn before_the_first_look_all_that_are_listed_count_and_after_it_a_list_says_nothing_new() {
        let shared = shared_of(true);
        assert_eq!(shared.sharers().of(id(1)), (1, 1));
        shared.list_sharers(2);
        assert_eq!(shared.sharers().of(id(1)), (3, 3));
        shared.share(Sharers::told(std::iter::empty()));
        shared.list_sharers(5);
        assert_eq!(shared.sharers().of(id(1)), (1, 1));
    }

    #[test]
    fn a_ledger_that_is_away_leaves_each_its_share() {
        let shared = shared_of(true);
        let other = Telling {
            shares_upload: vec![1],
            ..Telling::default()
        };
        shared.share(Sharers::told([&other, &other].into_iter()));
        shared.away("gone");
        assert_eq!(shared.sharers().of(id(1)), (3, 1));
    }
}
