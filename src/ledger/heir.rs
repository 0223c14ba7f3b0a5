//! Who does what other movers left: the daemon, as the ledger's thread sees it.

use std::fmt;
use std::time::Duration;

use crate::action::{ActionKey, Item};
use crate::types::{ArchiveId, Fid, Mdt, OutOfReach};

/// Takes over and gives up. Nothing here may wait.
pub trait Heir: fmt::Debug + Send + Sync {
    /// Of which archives it takes actions over now; none where it is about to end.
    fn archives(&self) -> Vec<ArchiveId>;

    /// These are this mover's from now on, and in its journal. `peer`: whose they were.
    fn inherit(&self, peer: &str, items: Vec<Item>);

    /// These are other movers' by now: they are let go of without an answer. Archives and removes of their files that wait here
    /// may be behind one of them, and wait on, until [`Heir::let_go`]: these are told.
    fn give_up(&self, keys: Vec<ActionKey>) -> Vec<ActionKey>;

    /// An action is to wait while another mover is at its file. `false`: it is under way.
    fn hold(&self, key: ActionKey, mover: &str) -> bool;

    /// Whether one that waits so is in the way of another one of its file here that does not.
    fn holds_up(&self, key: ActionKey) -> bool;

    /// It need not wait any more.
    fn let_go(&self, key: ActionKey);

    /// The MDTs and stores that do not answer this mover, and for how long already. It goes on asking them.
    fn out_of_reach(&self) -> Vec<(OutOfReach, Duration)>;

    /// Sets waiting restores aside that want such a one, or all others, no more than `most`: none begins before
    /// [`Heir::put_back`] or [`Heir::take_up`].
    fn set_aside(&self, of: OutOfReach, restores: bool, most: usize) -> Vec<ActionKey>;

    /// One of these waits in line again; it was offered to nobody.
    fn put_back(&self, key: ActionKey);

    /// The same of those that were. What another mover may have done meanwhile, and must not be done again, is asked of the
    /// coordinator first.
    fn take_up(&self, keys: Vec<ActionKey>);

    /// Whether it is one of these still: it may have been cancelled.
    fn is_aside(&self, key: ActionKey) -> bool;

    /// Whether this mover has heard from an MDT and a store of late. If not it asks them, with a file that is there, and
    /// knows by the next look.
    fn reaches(&self, mdt: Mdt, archive_id: ArchiveId, fid: Fid) -> bool;

    /// Called now and then, for what could not be let go of at once.
    fn look(&self);
}
