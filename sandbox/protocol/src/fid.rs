//! What names a file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `[seq:oid:ver]`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Fid {
    /// Sequence.
    pub seq: u64,
    /// Object in it.
    pub oid: u32,
    /// Version.
    pub ver: u32,
}

impl Fid {
    /// Names nothing.
    pub const ZERO: Self = Self { seq: 0, oid: 0, ver: 0 };
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

impl From<Fid> for String {
    fn from(fid: Fid) -> Self {
        fid.to_string()
    }
}

impl TryFrom<String> for Fid {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Fid {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let inner = text.trim_start_matches('[').trim_end_matches(']');
        let mut parts = inner
            .split(':')
            .map(|part| u64::from_str_radix(part.trim_start_matches("0x"), 16));
        let mut next = || {
            parts
                .next()
                .and_then(Result::ok)
                .ok_or_else(|| format!("'{text}' is no FID"))
        };
        let (seq, oid, ver) = (next()?, next()?, next()?);
        Ok(Self {
            seq,
            oid: u32::try_from(oid).map_err(|e| e.to_string())?,
            ver: u32::try_from(ver).map_err(|e| e.to_string())?,
        })
    }
}
