//! The words of the trade: parsed at a border once, trusted everywhere inside.

mod errno;
mod mdt;

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use errno::{ErrorClass, HsmErrno, errno_of, io_error};
pub use mdt::{Domain, Mdt, OutOfReach, Sequences, domain_name};

/// A Lustre file identifier, stable across renames: `[seq:oid:ver]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fid {
    /// Sequence; its range tells which MDT holds the file.
    pub seq: u64,
    /// Object id within the sequence.
    pub oid: u32,
    /// Version; 0 for files.
    pub ver: u32,
}

impl Fid {
    /// Before all others.
    pub const MIN: Self = Self { seq: 0, oid: 0, ver: 0 };
    /// The root directory of every Lustre (`FID_SEQ_ROOT`, lustre_idl.h).
    pub const ROOT: Self = Self {
        seq: 0x2_0000_0007,
        oid: 1,
        ver: 0,
    };

    /// All zero: names no object (the data FID of a REMOVE after the last unlink).
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.seq == 0 && self.oid == 0 && self.ver == 0
    }

    /// The form without brackets, as it stands in object keys and metadata.
    #[must_use]
    pub fn bare(self) -> String {
        format!("{:#x}:{:#x}:{:#x}", self.seq, self.oid, self.ver)
    }
}

impl fmt::Display for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}:{:#x}:{:#x}]", self.seq, self.oid, self.ver)
    }
}

impl fmt::Debug for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no FID.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a FID: expected [0xSEQ:0xOID:0xVER]")]
pub struct InvalidFid(String);

impl FromStr for Fid {
    type Err = InvalidFid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidFid(text.to_owned());
        let inner = match text.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(invalid)?,
            None => text,
        };
        let hex = |part: &str| {
            let digits = part.strip_prefix("0x").ok_or_else(invalid)?;
            if digits.starts_with('+') {
                return Err(invalid());
            }
            u64::from_str_radix(digits, 16).map_err(|_| invalid())
        };
        let mut parts = inner.split(':');
        let mut next = || parts.next().ok_or_else(invalid).and_then(hex);
        let (seq, oid, ver) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Self {
            seq,
            oid: u32::try_from(oid).map_err(|_| invalid())?,
            ver: u32::try_from(ver).map_err(|_| invalid())?,
        })
    }
}

/// The coordinator's number for an action. Counted per MDT from the wall clock, so two MDTs can issue
/// equal ones: [`crate::action::ActionKey`] adds the FID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl Cookie {
    /// From its text form; `None`: it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number that ties files to a backend. Never 0: in C that means "all archives".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ArchiveId(NonZeroU32);

impl ArchiveId {
    /// `None` for 0.
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        match NonZeroU32::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number as Lustre writes it.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of a file in bytes; C's all-ones length is [`Extent::to_eof`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, `u64::MAX` for "to the end of the file".
    pub length: u64,
}

impl Extent {
    /// The whole file, the only extent that the coordinator sends today.
    pub const WHOLE: Self = Self {
        offset: 0,
        length: u64::MAX,
    };
    /// No bytes: as a progress report it only resets the coordinator's clock.
    pub const EMPTY: Self = Self { offset: 0, length: 0 };

    /// Whether the range ends with the file.
    #[must_use]
    pub const fn to_eof(self) -> bool {
        self.length == u64::MAX
    }
}

/// A moment of a file: seconds since 1970, negative before, and nanoseconds after those.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since 1970; negative before.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    const SECOND: i128 = 1_000_000_000;

    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        }
    }

    /// From nanoseconds since 1970; `None` when the seconds don't fit.
    #[must_use]
    pub fn from_nanos(nanos: i128) -> Option<Self> {
        Some(Self {
            seconds: i64::try_from(nanos.div_euclid(Self::SECOND)).ok()?,
            nanos: u32::try_from(nanos.rem_euclid(Self::SECOND)).ok()?,
        })
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub fn as_nanos(self) -> i128 {
        i128::from(self.seconds) * Self::SECOND + i128::from(self.nanos)
    }
}

/// An extended attribute: its full name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What not every file has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtraMetadata {
    /// Extended attributes, by full name.
    pub xattrs: Vec<Xattr>,
    /// `lustre.lov`.
    pub layout: Option<Vec<u8>>,
    /// The path below the mount point, where the key does not tell it.
    pub path: Option<Vec<u8>>,
    /// Further names of the file, below the mount point.
    pub links: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_fid_survives_its_text_form(seq: u64, oid: u32, ver: u32) {
            let fid = Fid { seq, oid, ver };
            prop_assert_eq!(fid.to_string().parse::<Fid>().unwrap(), fid);
            prop_assert_eq!(fid.bare().parse::<Fid>().unwrap(), fid);
        }
    }

    #[test]
    fn what_is_no_fid_is_refused() {
        for text in [
            "",
            "[]",
            "[0x1:0x2]",
            "0x1:0x2:0x3]",
            "[0x1:0x2:0x3",
            "[0x1:0x2:0x3:0x4]",
            "[1:2:3]",
            "[0x1:0x100000000:0x0]",
            "[0x:0x1:0x0]",
            "[0x+1:0x1:0x0]",
        ] {
            assert!(text.parse::<Fid>().is_err(), "{text}");
        }
    }

    #[test]
    fn archive_id_zero_is_refused() {
        assert!(ArchiveId::new(0).is_none());
        assert_eq!(ArchiveId::new(7).map(ArchiveId::get), Some(7));
    }
}
