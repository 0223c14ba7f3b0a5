//! A FID on each MDT: what a raw ioctl on the mount needs to reach just that one's coordinator.
//!
//! Registering goes to every MDT, and one that refuses crashes the client of 2.17 and before; so each is
//! asked first. The number of MDTs is known, their indices are not and may have gaps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::Mount;
use crate::action::HsmError;
use crate::types::Fid;

/// Beyond what any site has; ends the search for an MDT that is counted and can't be found.
const INDICES: u32 = 1 << 12;

/// What was found so far. A sequence never moves to another MDT, so a FID serves for good.
#[derive(Debug)]
pub(super) struct Mdts(Mutex<Known>);

#[derive(Debug)]
struct Known {
    fids: BTreeMap<u32, Fid>,
    /// There, but they did not answer.
    silent: BTreeSet<u32>,
    /// Indices that were looked at.
    looked: u32,
}

impl Mdts {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Known {
            fids: BTreeMap::from([(0, Fid::ROOT)]),
            silent: BTreeSet::new(),
            looked: 1,
        }))
    }

    /// All that can be reached, by index. One that is away is left out: registering passes over it, too.
    ///
    /// # Errors
    /// No file can be made on them, so that nothing can be asked.
    pub(super) fn fids(&self, mount: &Mount) -> Result<Vec<(u32, Fid)>, HsmError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = mount.library().mdt_count(mount.path()).unwrap_or(1);
        for mdt in std::mem::take(&mut known.silent) {
            known.look(mount, mdt)?;
        }
        while known.count() < count && known.looked < INDICES {
            let mdt = known.looked;
            known.look(mount, mdt)?;
            known.looked += 1;
        }
        Ok(known.fids.iter().map(|(mdt, fid)| (*mdt, *fid)).collect())
    }
}

impl Known {
    fn count(&self) -> u32 {
        u32::try_from(self.fids.len() + self.silent.len()).unwrap_or(u32::MAX)
    }

    fn look(&mut self, mount: &Mount, mdt: u32) -> Result<(), HsmError> {
        match mount.library().fid_on_mdt(mount.path(), mdt) {
            Some(Ok(fid)) => {
                // Wherever it came to be: that MDT is reached by it.
                let found = u32::try_from(mount.mdt_index(fid)).unwrap_or(mdt);
                self.fids.entry(found).or_insert(fid);
            }
            // Nobody has this index.
            Some(Err(error)) if matches!(error.errno, libc::ENODEV | libc::ENXIO | libc::EINVAL) => {}
            Some(Err(error)) if matches!(error.errno, libc::EPERM | libc::EACCES | libc::EROFS) => return Err(error),
            Some(Err(error)) => {
                tracing::warn!(mdt, %error, "an MDT does not answer; going on without it");
                self.silent.insert(mdt);
            }
            None => {
                tracing::warn!(
                    "this file system has several MDTs, and this liblustreapi can't ask each: see that hsm_control is \
                     enabled on all of them"
                );
                self.looked = INDICES;
            }
        }
        Ok(())
    }
}
