//! Who does what other movers left: the daemon, as the ledger's thread sees it.

use std::fmt;

use crate::action::{ActionKey, Item};
use crate::types::ArchiveId;

/// Takes over and gives up. Nothing here may wait.
pub trait Heir: fmt::Debug + Send + Sync {
    /// Of which archives it takes actions over now; none where it is about to end.
    fn archives(&self) -> Vec<ArchiveId>;

    /// These are this mover's from now on, and in its journal. `peer`: whose they were.
    fn inherit(&self, peer: &str, items: Vec<Item>);

    /// These are other movers' by now: they are let go of without an answer.
    fn give_up(&self, keys: Vec<ActionKey>);

    /// An action is to wait while another mover is at its file. `false`: it is under way.
    fn hold(&self, key: ActionKey, mover: &str) -> bool;

    /// Whether one that waits so is in the way of another one of its file here that does not.
    fn holds_up(&self, key: ActionKey) -> bool;

    /// It need not wait any more.
    fn let_go(&self, key: ActionKey);

    /// Called now and then, for what could not be let go of at once.
    fn look(&self);
}
