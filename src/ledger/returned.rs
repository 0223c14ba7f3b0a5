//! Actions that this mover gave up, for others had taken them, and whose rows are its own again: the ledger was failed over to a
//! replica that lacks the taking. The other one finds the row and lets go as well, and then nobody would have them.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::LedgerError;
use super::changes::Changes;
use super::claim::{self, Found};
use super::keeper::{AT_ONCE, Keeper};
use super::link::Link;
use super::observe::WRITTEN;
use super::rows::Rows;
use crate::action::ActionKey;
use crate::journal::InHand;

/// That are remembered; a replica lacks the last moments alone.
const MOST: usize = 100_000;

/// What was given up, the newest of it. A daemon that is started anew knows of none.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// By their numbers, which say in which order they were.
    keys: HashMap<ActionKey, u64>,
    order: BTreeMap<u64, ActionKey>,
    next: u64,
}

impl GivenUp {
    pub(super) fn add(&mut self, keys: &[ActionKey]) {
        for key in keys {
            if !self.keys.contains_key(key) {
                self.keys.insert(*key, self.next);
                self.order.insert(self.next, *key);
                self.next += 1;
            }
        }
        while self.order.len() > MOST {
            if let Some((_, oldest)) = self.order.pop_first() {
                self.keys.remove(&oldest);
            }
        }
    }

    pub(super) fn has(&self, key: ActionKey) -> bool {
        self.keys.contains_key(&key)
    }

    /// They are in hand here again, for whatever reason: what is true of these rows is what the journal says.
    pub(super) fn forget(&mut self, keys: impl Iterator<Item = ActionKey>) {
        for key in keys {
            if let Some(number) = self.keys.remove(&key) {
                self.order.remove(&number);
            }
        }
    }
}

impl Keeper {
    /// Takes them in hand again, as what a dead mover had: the MDT is asked about each, and what it does not know any more was
    /// done by the other one.
    pub(super) async fn take_back(&mut self, link: &Link, keys: Vec<ActionKey>) -> Result<(), LedgerError> {
        // One that is about to end leaves them, as rows of its own, to whoever finds it gone.
        let Some(heir) = self.shared.heir() else {
            return Ok(());
        };
        let archives = heir.archives();
        for keys in keys.chunks(AT_ONCE) {
            let mut found = claim::own(link, &self.row.owner, keys).await?;
            found.retain(|found| match found.item.archive_id {
                Some(id) => archives.contains(&id),
                None => !archives.is_empty(),
            });
            if found.is_empty() {
                continue;
            }
            self.take_in(&found).await;
            let mut news = Changes::default();
            news.actions.extend(found.iter().map(|Found { item, upload }| {
                let held = InHand {
                    item: Some(item.clone()),
                    upload: upload.clone(),
                };
                (item.key(), held.into())
            }));
            self.write(link, &news, Rows::Own).await?;
            tracing::warn!(
                actions = found.len(),
                "the ledger lacks that other movers have taken these over: they are taken in hand here again"
            );
            let name = self.row.owner.name.clone();
            self.inherit(&name, found.into_iter().map(|found| found.item).collect());
        }
        Ok(())
    }

    /// Has the journal have them on disk: one that dies from here on has a successor that does them.
    pub(super) async fn take_in(&self, found: &[Found]) {
        for Found { item, upload } in found {
            self.journal.taken_over(item, upload.as_ref());
        }
        let until = Instant::now() + super::own::between(self.options.lease).min(WRITTEN);
        let is_written = || found.iter().all(|found| self.journal.has_written(found.item.key()));
        while !is_written() && Instant::now() < until {
            tokio::time::sleep(super::observe::LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Cookie, Fid};

    const fn key(cookie: u64) -> ActionKey {
        ActionKey {
            cookie: Cookie(cookie),
            fid: Fid {
                seq: 0x2_0000_0401,
                oid: 1,
                ver: 0,
            },
        }
    }

    #[test]
    fn the_newest_of_what_was_given_up_is_remembered() {
        let mut given_up = GivenUp::default();
        let keys: Vec<ActionKey> = (0..=MOST as u64).map(key).collect();
        given_up.add(&keys);
        given_up.add(&keys[1..]);
        assert_eq!(given_up.order.len(), MOST);
        assert!(!given_up.has(keys[0]) && keys[1..].iter().all(|key| given_up.has(*key)));
    }

    #[test]
    fn what_came_in_hand_again_is_forgotten_and_counts_as_new_when_it_is_given_up_once_more() {
        let mut given_up = GivenUp::default();
        let keys: Vec<ActionKey> = (0..MOST as u64).map(key).collect();
        given_up.add(&keys[..1]);
        given_up.forget(keys[..2].iter().copied());
        assert!(!given_up.has(keys[0]) && given_up.order.is_empty());
        given_up.add(&keys[1..]);
        given_up.add(&keys[..1]);
        assert!(keys.iter().all(|key| given_up.has(*key)));
    }
}
