//! What is asked of copytools. Numbers are those of Lustre's headers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Fid;

/// `HS_*`
pub mod states {
    #![expect(missing_docs, reason = "named as in lustre_user.h")]
    pub const EXISTS: u32 = 0x1;
    pub const DIRTY: u32 = 0x2;
    pub const RELEASED: u32 = 0x4;
    pub const ARCHIVED: u32 = 0x8;
    pub const NORELEASE: u32 = 0x10;
    pub const NOARCHIVE: u32 = 0x20;
    pub const LOST: u32 = 0x40;
}

/// Flags of requests and progress reports.
pub mod flags {
    #![expect(missing_docs, reason = "named as in lustre_user.h")]
    pub const REQ_BLOCKING: u64 = 4;
    pub const FORCE_ACTION: u64 = 1;
    pub const HP_RETRY: u16 = 2;
}

/// `HSMA_*`
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Action {
    /// 20
    Archive,
    /// 21
    Restore,
    /// 22
    Remove,
    /// 23
    Cancel,
    /// Any other number, to see what a copytool does.
    Other(u32),
}

impl Action {
    /// `HSMA_*`
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Archive => 20,
            Self::Restore => 21,
            Self::Remove => 22,
            Self::Cancel => 23,
            Self::Other(number) => number,
        }
    }

    /// From `HSMA_*`.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            20 => Self::Archive,
            21 => Self::Restore,
            22 => Self::Remove,
            23 => Self::Cancel,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive => f.write_str("ARCHIVE"),
            Self::Restore => f.write_str("RESTORE"),
            Self::Remove => f.write_str("REMOVE"),
            Self::Cancel => f.write_str("CANCEL"),
            Self::Other(number) => write!(f, "UNKNOWN({number})"),
        }
    }
}

/// `ARS_*`
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ActionState {
    /// Not sent to a copytool.
    Waiting,
    /// Sent.
    Started,
    /// Over, well (a cancel that was obeyed, too).
    Succeed,
    /// Over, not well.
    Failed,
    /// Given up.
    Canceled,
}

/// What begin and end say of an action.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The verb, or a cancel.
    pub action: Action,
    /// The file.
    pub fid: Fid,
    /// Where its data is.
    pub dfid: Fid,
    /// The action.
    pub cookie: u64,
}
