//! Archives and removes that are on their way to the queue from a journal or from another mover, while their coordinator is
//! asked about them: what came later of their files does not begin before them.

use super::Class;
use super::state::{ActionTable, Entry, Follower, Hold, Track};
use crate::action::{ActionKey, Item};

impl ActionTable {
    /// Keeps a place for an action: before all of its file that come later, and before those that wait for other movers, for it
    /// was another mover's. Readers wait for restores, and to restore a file twice does no harm: they have none.
    pub(super) fn reserve(&mut self, item: &Item) {
        let key = item.key();
        let Some(track) = Class::of(item).map(|class| Track::of(key, class)) else {
            return;
        };
        // One that runs is let go of, and comes anew.
        let is_here = matches!(self.live.get(&key), Some(Entry::Waiting(_)));
        if track.restore || is_here || !self.reserved.insert(key) {
            return;
        }
        let Some(first) = self.first.get(&track).copied() else {
            self.first.insert(track, key);
            return;
        };
        let (held, live, deferrals) = (&self.held, &self.live, &self.deferrals);
        let waits = |key: &ActionKey| {
            matches!(held.get(key), Some(Hold::Waits { .. }))
                && matches!(live.get(key), Some(Entry::Waiting(_)))
                && !deferrals.contains_key(key)
        };
        let behind = self.behind.entry(track).or_default();
        if waits(&first) {
            // Its place in the line is empty until it is the first again.
            behind.push_front(Follower {
                key: first,
                ending: false,
            });
            self.first.insert(track, key);
            return;
        }
        let place = behind.iter().position(|follower| waits(&follower.key));
        behind.insert(place.unwrap_or(behind.len()), Follower { key, ending: false });
    }

    /// It does not come; the class in which a thread has something to do now.
    pub(super) fn unreserve(&mut self, key: ActionKey) -> Option<Class> {
        if !self.reserved.remove(&key) || self.live.contains_key(&key) {
            return None;
        }
        // Archives and removes are of one track.
        self.advance(key, Class::Archive)
    }
}
