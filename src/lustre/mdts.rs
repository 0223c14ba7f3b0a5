//! A FID on each MDT: what a raw ioctl on the mount needs to reach just that one's coordinator.
//!
//! Registering goes to every MDT, and one that refuses crashes the client of 2.17 and before; so each is
//! asked first. The number of MDTs is known, their indices are not and may have gaps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::Mount;
use crate::action::HsmError;
use crate::types::Fid;

/// What newer clients say instead of a number of MDTs: the size of their table, at first (`ltd_tgts_size`).
const TABLE: u32 = 64;
/// Where the search for an MDT ends that is counted and has no index below the count.
const INDICES: u32 = 512;

/// What was found so far. A sequence never moves to another MDT, so a FID serves for good.
#[derive(Debug)]
pub(super) struct Mdts(Mutex<Known>);

#[derive(Debug)]
struct Known {
    fids: BTreeMap<u32, Fid>,
    /// There, but not connected when last looked at.
    silent: BTreeSet<u32>,
    warned: bool,
}

impl Mdts {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Known {
            fids: BTreeMap::from([(0, Fid::ROOT)]),
            silent: BTreeSet::new(),
            warned: false,
        }))
    }

    /// All that can be reached, by index; each time anew for those that are not known, for one may have been added
    /// or come back. One that is away is left out: registering passes over it, too.
    ///
    /// # Errors
    /// An MDT is there and can't be asked.
    pub(super) fn fids(&self, mount: &Mount) -> Result<Vec<(u32, Fid)>, HsmError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = mount.library().mdt_count(mount.path()).unwrap_or(1);
        for mdt in 1..count.min(INDICES) {
            known.look(mount, mdt)?;
        }
        // An exact count, and indices with gaps.
        let mut mdt = count;
        while count != TABLE && known.count() < count && mdt < INDICES {
            known.look(mount, mdt)?;
            mdt += 1;
        }
        Ok(known.fids.iter().map(|(mdt, fid)| (*mdt, *fid)).collect())
    }

    /// It could not be asked by its FID: it is looked for again the next time.
    pub(super) fn forget(&self, mdt: u32) {
        if mdt > 0 {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.fids.remove(&mdt);
        }
    }
}

impl Known {
    fn count(&self) -> u32 {
        u32::try_from(self.fids.len() + self.silent.len()).unwrap_or(u32::MAX)
    }

    fn look(&mut self, mount: &Mount, mdt: u32) -> Result<(), HsmError> {
        if self.fids.contains_key(&mdt) {
            return Ok(());
        }
        match mount.library().fid_on_mdt(mount.path(), mdt) {
            Some(Ok(fid)) => {
                // Wherever it came to be: that MDT is reached by it.
                let found = u32::try_from(mount.mdt_index(fid)).unwrap_or(mdt);
                self.fids.entry(found).or_insert(fid);
                self.silent.remove(&mdt);
            }
            // Nobody has this index, or it is not connected; the client knows without asking.
            Some(Err(error)) if matches!(error.errno, libc::ENODEV | libc::ENXIO | libc::EINVAL) => {}
            Some(Err(error))
                if matches!(
                    error.errno,
                    libc::ENOTCONN | libc::ESHUTDOWN | libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH
                ) =>
            {
                if self.silent.insert(mdt) {
                    tracing::warn!(mdt, %error, "an MDT does not answer; going on without it");
                }
            }
            // It lives: registering would reach it.
            Some(Err(error)) => return Err(error),
            None => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        "this liblustreapi can't ask each MDT: where there are several, see that hsm_control is enabled \
                         on all of them"
                    );
                }
            }
        }
        Ok(())
    }
}
