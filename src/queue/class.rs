//! What is served before what, and by whom.

use crate::action::{Item, Kind, Verb};

/// In the order of precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// A restore that somebody's read waits for.
    BlockingRestore,
    /// A restore asked for by name.
    Restore,
    /// A remove.
    Remove,
    /// An archive.
    Archive,
}

impl Class {
    /// All, in the order of precedence.
    pub const ALL: [Self; 4] = [Self::BlockingRestore, Self::Restore, Self::Remove, Self::Archive];

    /// As metrics and reports say it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BlockingRestore => "blocking_restore",
            Self::Restore => "restore",
            Self::Remove => "remove",
            Self::Archive => "archive",
        }
    }

    /// What its actions do.
    #[must_use]
    pub const fn verb(self) -> Verb {
        match self {
            Self::BlockingRestore | Self::Restore => Verb::Restore,
            Self::Remove => Verb::Remove,
            Self::Archive => Verb::Archive,
        }
    }

    /// The class of an action; `None` for what is no job.
    #[must_use]
    pub const fn of(item: &Item) -> Option<Self> {
        match item.kind {
            Kind::Do(Verb::Restore) if item.blocking => Some(Self::BlockingRestore),
            Kind::Do(Verb::Restore) => Some(Self::Restore),
            Kind::Do(Verb::Remove) => Some(Self::Remove),
            Kind::Do(Verb::Archive) => Some(Self::Archive),
            Kind::Cancel | Kind::Unknown(_) => None,
        }
    }
}

/// What a worker thread serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadRole {
    /// Everything.
    All,
    /// Restores only, so that a flood of archives never delays an `open()`.
    Restores,
}
