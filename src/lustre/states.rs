//! What HSM knows of a file, by names instead of bits.

use super::bindings::{HS_ARCHIVED, HS_DIRTY, HS_EXISTS, HS_LOST, HS_NOARCHIVE, HS_RELEASED};
use crate::action::CopyState;
use crate::types::ArchiveId;

/// What HSM knows of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HsmStates {
    pub(super) bits: u32,
    pub(super) archive_id: u32,
}

impl HsmStates {
    /// HSM never had to do with it.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.bits == 0
    }

    /// Its data is in its archive only.
    #[must_use]
    pub const fn released(self) -> bool {
        self.bits & HS_RELEASED != 0
    }

    /// It has a copy, perhaps an old one.
    #[must_use]
    pub const fn archived(self) -> bool {
        self.bits & HS_ARCHIVED != 0
    }

    /// It was changed after it was archived.
    #[must_use]
    pub const fn dirty(self) -> bool {
        self.bits & HS_DIRTY != 0
    }

    /// Its copy is in that archive.
    #[must_use]
    pub const fn is_in(self, archive_id: ArchiveId) -> bool {
        self.archive_id == archive_id.get()
    }

    /// The archive that has its copy, or is to have it.
    #[must_use]
    pub const fn archive_id(self) -> Option<ArchiveId> {
        ArchiveId::new(self.archive_id)
    }

    /// A copy may be there, perhaps half of one.
    #[must_use]
    pub const fn exists(self) -> bool {
        self.bits & HS_EXISTS != 0
    }

    /// It is not to be archived (`lfs hsm_set --noarchive`).
    #[must_use]
    pub const fn never_archived(self) -> bool {
        self.bits & HS_NOARCHIVE != 0
    }

    /// Of its copy alone.
    pub(super) const fn copy(self) -> CopyState {
        CopyState {
            archived: self.archived(),
            released: self.released(),
            archive_id: self.archive_id(),
        }
    }

    /// Its copy is known to be lost.
    #[must_use]
    pub const fn lost(self) -> bool {
        self.bits & HS_LOST != 0
    }

    /// Whether all its data is in its archive.
    #[must_use]
    pub const fn is_clean(self) -> bool {
        self.released() || (self.archived() && !self.dirty())
    }
}
