//! Until when objects were written that imports have made files of, or may have: noted on the root directory.

use std::ffi::CStr;

use super::{Mount, xattr};
use crate::action::HsmError;
use crate::types::Timestamp;

/// [`FileSystem::imported_until`](crate::action::FileSystem::imported_until), of imports that are over.
const IMPORTED_XATTR: &CStr = c"trusted.lhsm_s3_imported";
/// The same while imports run, and after one that was killed.
const IMPORTING_XATTR: &CStr = c"trusted.lhsm_s3_importing";

/// An import under way, as [`Mount::import_begins`] noted it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Importing {
    /// What another one noted that may run still.
    before: Option<i64>,
    until: i64,
}

impl Importing {
    /// Objects that were written before then may be imported by it.
    #[must_use]
    pub const fn until(&self) -> i64 {
        self.until
    }
}

impl Mount {
    /// While an import runs, objects that were last written before `until` (seconds since 1970) may be those of imported
    /// files.
    ///
    /// # Errors
    /// The failed call.
    pub fn import_begins(&self, until: i64) -> Result<Importing, HsmError> {
        let before = self.time_of_import(IMPORTING_XATTR)?;
        let until = before.unwrap_or(until).max(until);
        xattr::set(self.path(), IMPORTING_XATTR, until.to_string().as_bytes())?;
        Ok(Importing { before, until })
    }

    /// It is over: what it has made files of was last written by `latest`, which for good may be those of imported files.
    ///
    /// # Errors
    /// The failed call.
    pub fn import_ended(&self, importing: &Importing, latest: Option<i64>) -> Result<(), HsmError> {
        let settled = self.time_of_import(IMPORTED_XATTR)?;
        if latest > settled {
            let latest = latest.unwrap_or_default().to_string();
            xattr::set(self.path(), IMPORTED_XATTR, latest.as_bytes())?;
        }
        // Another one that began later ends it.
        if self.time_of_import(IMPORTING_XATTR)? != Some(importing.until) {
            return Ok(());
        }
        match importing.before.filter(|before| *before > Timestamp::now().seconds) {
            Some(before) => xattr::set(self.path(), IMPORTING_XATTR, before.to_string().as_bytes()),
            None => xattr::remove(self.path(), IMPORTING_XATTR),
        }
    }

    fn time_of_import(&self, name: &CStr) -> Result<Option<i64>, HsmError> {
        let Some(value) = xattr::get(self.path(), name)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&value);
        text.trim()
            .parse()
            .map(Some)
            .map_err(|_| HsmError::new("lgetxattr", libc::EINVAL))
    }

    /// The later of both.
    pub(super) fn imports_until(&self) -> Result<Option<i64>, HsmError> {
        // In this order: an import that ends meanwhile sets the one before it takes the other away.
        let importing = self.time_of_import(IMPORTING_XATTR)?;
        Ok(importing.max(self.time_of_import(IMPORTED_XATTR)?))
    }
}
