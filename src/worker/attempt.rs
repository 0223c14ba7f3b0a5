//! One attempt to archive a file. Others may be under way, or over and not known to be.

use super::run::Run;
use crate::store::{Location, Owner, WriteAttempt};

/// A running archive, and who it writes as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) run: Run<'a>,
    pub(super) author: &'a WriteAttempt,
}

impl<'a> Attempt<'a> {
    /// The file, as its objects name it.
    pub(super) const fn owner(self) -> &'a Owner {
        &self.author.owner
    }

    /// Deletes what this attempt has written there, unless the file means it, and its sidecar, unless that is the one of
    /// `kept`, too.
    pub(super) fn discard(self, written: &Location, kept: Option<&Location>) {
        let clean_up = self.run.clean_up();
        // One that can't be deleted is in the log, and in the journal as long as the attempt is.
        clean_up.discard(written, self.owner(), kept, |found, origin| {
            origin.is_by(self.author) && !self.run.is_mapped(written.at(), found)
        });
    }
}
