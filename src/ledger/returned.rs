//! Actions that this mover gave up, for others had taken them, and whose rows are its own again: the ledger was failed over to a
//! replica that lacks the taking. The other one finds the row and lets go as well, and then nobody would have them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::LedgerError;
use super::changes::Changes;
use super::found::Found;
use super::keeper::{AT_ONCE, Keeper};
use super::keyed;
use super::link::Link;
use super::observe::WRITTEN;
use super::rows::Rows;
use crate::action::{ActionKey, Item};
use crate::journal::InHand;
use crate::types::ArchiveId;

/// That are remembered; a replica lacks the last moments alone.
const MOST: usize = 100_000;

/// What was given up, the newest of it. A daemon that is started anew knows of none.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// By their numbers, which say in which order they were.
    keys: HashMap<ActionKey, u64>,
    order: BTreeMap<u64, ActionKey>,
    next: u64,
    /// Of them those that are this mover's again, and could not be done yet.
    returned: HashMap<ActionKey, Item>,
}

impl GivenUp {
    pub(super) fn add(&mut self, keys: &[ActionKey]) {
        for key in keys {
            if let Entry::Vacant(free) = self.keys.entry(*key) {
                free.insert(self.next);
                self.order.insert(self.next, *key);
                self.next += 1;
            }
            self.returned.remove(key);
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
            self.returned.remove(&key);
        }
    }

    /// These are this mover's again.
    fn wait<'a>(&mut self, items: impl Iterator<Item = &'a Item>) {
        self.returned.extend(items.map(|item| (item.key(), item.clone())));
    }

    /// Those of them that a mover does which takes actions of these archives: it has them now.
    fn take_served(&mut self, archives: &[ArchiveId]) -> Vec<Item> {
        let is_served = |_: &ActionKey, item: &mut Item| match item.archive_id {
            Some(id) => archives.contains(&id),
            None => !archives.is_empty(),
        };
        self.returned.extract_if(is_served).map(|(_, item)| item).collect()
    }
}

impl Keeper {
    /// Takes them in hand again, as what a dead mover had: the MDT is asked about each, and what it does not know any more was
    /// done by the other one. What can't be done here now, for this mover takes nothing or not of that archive, is in the
    /// journal, too, for a successor, and is done when that has changed. One that ends leaves the rows to whoever finds it gone.
    pub(super) async fn take_back(&mut self, link: &Link, keys: Vec<ActionKey>) -> Result<(), LedgerError> {
        for keys in keys.chunks(AT_ONCE) {
            let found = keyed::own(link, &self.row.owner, keys).await?;
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
            self.given_up.wait(found.iter().map(|found| &found.item));
        }
        self.do_returned();
        Ok(())
    }

    /// Has those done that came back and can be done here by now.
    pub(super) fn do_returned(&mut self) {
        let archives = self.shared.heir().map(|heir| heir.archives()).unwrap_or_default();
        let items = self.given_up.take_served(&archives);
        if !items.is_empty() {
            let name = self.row.owner.name.clone();
            self.inherit(&name, items);
        }
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
    use crate::action::Verb;
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
    fn what_came_back_to_a_mover_that_takes_nothing_waits_until_it_does_or_others_have_it() {
        let mut given_up = GivenUp::default();
        let items = [1, 2, 3, 4].map(|cookie| Item::of_test(cookie, Verb::Archive));
        let keys = items.each_ref().map(Item::key);
        given_up.add(&keys);
        given_up.wait(items.iter());
        assert!(given_up.take_served(&[]).is_empty());
        let (other, own) = (ArchiveId::new(77).unwrap(), items[0].archive_id.unwrap());
        assert!(given_up.take_served(&[other]).is_empty());
        given_up.add(&keys[..1]);
        given_up.forget(keys[1..2].iter().copied());
        let mut served = given_up.take_served(&[other, own]);
        served.sort_unstable_by_key(|item| item.cookie);
        assert_eq!(served, items[2..]);
        assert!(given_up.take_served(&[own]).is_empty(), "once");
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
