//! What a person asks the coordinator for: `lfs hsm_archive` and its kin, for many files at once.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bindings::{HUA_ARCHIVE, HUA_CANCEL, HUA_NONE, HUA_RELEASE, HUA_REMOVE, HUA_RESTORE};
use super::{HsmStates, Mount};
use crate::action::HsmError;
use crate::types::{ArchiveId, Fid};

/// What to do with files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserAction {
    /// Copy them to the archive.
    Archive,
    /// Bring their data back.
    Restore,
    /// Give their space back; done by the client before the call returns.
    Release,
    /// Remove their copies.
    Remove,
    /// Stop what is going on with them.
    Cancel,
}

impl UserAction {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Archive => HUA_ARCHIVE,
            Self::Restore => HUA_RESTORE,
            Self::Release => HUA_RELEASE,
            Self::Remove => HUA_REMOVE,
            Self::Cancel => HUA_CANCEL,
        }
    }
}

impl Mount {
    /// As many files as one request can have: its struct must be below a third of MDS_MAXREQSIZE, 1706 bytes
    /// (llite/dir.c), which is 24 and 32 for each.
    pub const MOST_REQUESTED: usize = 52;

    /// Asks for an action. The MDT takes files one by one and ends at the first that it refuses: those before it are
    /// recorded.
    ///
    /// # Errors
    /// EPERM (a file's state does not allow it: released, dirty, another archive's; or no permission), EAGAIN (the
    /// coordinator is stopped), E2BIG for more than [`Mount::MOST_REQUESTED`], and others of the system.
    pub fn request(&self, action: UserAction, archive_id: Option<ArchiveId>, fids: &[Fid]) -> Result<(), HsmError> {
        self.library()
            .request(self.path(), action.code(), archive_id.map_or(0, ArchiveId::get), fids)
    }

    /// Whether the coordinator has an action for the file, waiting or running. It looks through its whole log for the
    /// answer: ask rarely.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    pub fn has_action(&self, fid: Fid) -> Result<bool, HsmError> {
        Ok(self.library().current_action(&self.by_fid(fid))? != HUA_NONE)
    }

    /// Whether an archive of the file is in the coordinator's log and not over. Ask as rarely.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    pub(super) fn is_being_archived(&self, fid: Fid) -> Result<bool, HsmError> {
        Ok(self.library().current_action(&self.by_fid(fid))? == HUA_ARCHIVE)
    }

    /// A file's FID and what HSM knows of it.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub fn look(&self, path: &Path) -> Result<(Fid, HsmStates), HsmError> {
        let (_file, fid) = self.open_quietly(path)?;
        Ok((fid, self.states_at(&self.by_fid(fid))?))
    }

    /// What HSM knows of a file.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub fn states_of(&self, fid: Fid) -> Result<HsmStates, HsmError> {
        self.states_at(&self.by_fid(fid))
    }
}
