//! Lustre as the code that is tried sees it: files' records and states, and a coordinator that has its own mind of what is
//! over.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::world::{NAME, World, bytes_of, no_such_file, thread};
use crate::action::{ActionHandle, ActionKey, CopyState, Deletions, FileSystem, HsmError, Item, Kind, Verb, Verdict};
use crate::types::{ArchiveId, Extent, ExtraMetadata, Fid};

/// The file system as the code that is tried sees it.
#[derive(Debug)]
pub(super) struct Mdt(pub(super) Arc<World>);

impl FileSystem for Mdt {
    fn name(&self) -> &str {
        NAME
    }

    fn path_of(&self, fid: Fid) -> Result<PathBuf, HsmError> {
        self.0.at(|state| Ok(PathBuf::from(&state.node(fid, "path_of")?.path)))
    }

    fn imported_until(&self) -> Result<Option<i64>, HsmError> {
        Ok(None)
    }

    fn map(&self, fid: Fid) -> Result<Option<Vec<u8>>, HsmError> {
        let thread = thread();
        let stale = self.0.takes_stale(thread);
        self.0.at(|state| {
            let now = state.node(fid, "map")?.record.clone();
            Ok(match stale {
                true => state.stale[thread].entry(fid).or_insert(now).clone(),
                false => now,
            })
        })
    }

    // Whoever writes a record has looked at it just before: in the same step, for no file system has a way to do both at
    // once. It is that look that is tried.
    fn set_map(&self, fid: Fid, record: &[u8]) -> Result<(), HsmError> {
        let thread = thread();
        self.0.now(|state| {
            state.tell(|| format!("{thread}: record of {fid}"));
            state.node(fid, "set_map")?.record = Some(record.to_vec());
            Ok(())
        })
    }

    fn clear_map(&self, fid: Fid) -> Result<(), HsmError> {
        let thread = thread();
        self.0.now(|state| {
            state.tell(|| format!("{thread}: no record of {fid}"));
            state.node(fid, "clear_map")?.record = None;
            Ok(())
        })
    }

    fn announce_deletion(&self, fid: Fid, number: u64, words: &[u8]) -> Result<(), HsmError> {
        let thread = thread();
        self.0.at(|state| {
            state.tell(|| format!("{thread}: announces a deletion on {fid}"));
            let said = &mut state.node(fid, "announce")?.deletions.announced;
            said.retain(|(other, _)| *other != number);
            said.push((number, words.to_vec()));
            Ok(())
        })
    }

    fn withdraw_deletion(&self, fid: Fid, number: u64) -> Result<(), HsmError> {
        self.0.at(|state| {
            let said = &mut state.node(fid, "withdraw")?.deletions.announced;
            said.retain(|(other, _)| *other != number);
            Ok(())
        })
    }

    fn note_deletion(&self, fid: Fid, words: &[u8]) -> Result<(), HsmError> {
        self.0.at(|state| {
            state.node(fid, "note")?.deletions.done = Some(words.to_vec());
            Ok(())
        })
    }

    fn deletions(&self, fid: Fid) -> Result<Deletions, HsmError> {
        let is_deaf = self.0.is_deaf();
        self.0.at(|state| {
            let said = &state.node(fid, "deletions")?.deletions;
            Ok(if is_deaf { Deletions::default() } else { said.clone() })
        })
    }

    fn note_restored(&self, _: Fid) -> Result<(), HsmError> {
        Ok(())
    }

    fn is_released(&self, fid: Fid) -> Result<bool, HsmError> {
        self.0.at(|state| Ok(state.node(fid, "is_released")?.released))
    }

    fn is_archived(&self, fid: Fid) -> Result<bool, HsmError> {
        self.0.at(|state| {
            let node = state.node(fid, "is_archived")?;
            Ok(node.released || node.is_clean())
        })
    }

    fn copy_state(&self, fid: Fid) -> Result<CopyState, HsmError> {
        self.0.at(|state| Ok(state.node(fid, "copy_state")?.copy_state()))
    }

    fn has_archive(&self, fid: Fid) -> Result<bool, HsmError> {
        self.0.at(|state| {
            state.node(fid, "has_archive")?;
            Ok(state.has_action(fid, Kind::Do(Verb::Archive)))
        })
    }

    fn prepare_archive(&self, fid: Fid, _: Option<ArchiveId>) -> Result<CopyState, HsmError> {
        self.0.at(|state| {
            let node = state.node(fid, "prepare_archive")?;
            node.exists = true;
            Ok(node.copy_state())
        })
    }

    fn ask_again(&self, _: Fid, _: Option<ArchiveId>) -> Result<bool, HsmError> {
        Ok(false)
    }

    fn extras(&self, fid: Fid, _: &File) -> Result<ExtraMetadata, HsmError> {
        self.0.at(|state| {
            let large = state.node(fid, "extras")?.large;
            let xattrs = large.then(|| (b"user.large".to_vec(), vec![7; 2500]));
            Ok(ExtraMetadata {
                xattrs: xattrs.into_iter().collect(),
                ..ExtraMetadata::default()
            })
        })
    }

    fn size_of(&self, fid: Fid) -> Result<u64, HsmError> {
        self.0
            .at(|state| state.node(fid, "size_of").map(|_| bytes_of(0).len() as u64))
    }

    fn is_unlinked(&self, fid: Fid) -> Result<bool, HsmError> {
        self.0.at(|state| Ok(state.node(fid, "is_unlinked").is_err()))
    }

    fn data_version(&self, _: &File) -> Option<u64> {
        None
    }

    fn may_change_fids(&self) -> bool {
        false
    }

    fn keeps_fids(&self) -> bool {
        true
    }

    fn revoke(&self, fid: Fid) -> Result<(), HsmError> {
        self.0.at(|state| {
            let node = state.node(fid, "revoke")?;
            if node.released {
                return Err(HsmError::new("revoke", libc::EINVAL));
            }
            node.archived = false;
            Ok(())
        })
    }

    fn progress(&self, key: ActionKey, _: Extent) -> Result<(), HsmError> {
        self.0.at(|state| match state.action(key) {
            None => Err(no_such_file("progress")),
            Some(index) if state.actions[index].cancelled => Err(HsmError::new("progress", libc::ECANCELED)),
            Some(_) => Ok(()),
        })
    }
}

/// An action as a mover has it.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) world: Arc<World>,
    pub(super) item: Item,
}

impl ActionHandle for Owed {
    fn item(&self) -> &Item {
        &self.item
    }

    fn begin(&mut self, _: Option<&[u8]>) -> Result<Option<File>, HsmError> {
        self.world.at(|state| {
            let index = state.action(self.item.key()).ok_or_else(|| no_such_file("begin"))?;
            if self.item.kind == Kind::Do(Verb::Remove) {
                return Ok(None);
            }
            let node = state.node(self.item.fid, "begin")?;
            let (version, data) = (node.data_version, node.data.try_clone());
            state.actions[index].begun = Some(version);
            data.map(Some).map_err(|error| HsmError::io("begin", &error))
        })
    }

    /// What the MDT makes of it. Now and then nobody hears the answer.
    fn finish(self: Box<Self>, verdict: Verdict, _: u64) -> Result<(), HsmError> {
        let thread = thread();
        self.world.at(|state| {
            let key = self.item.key();
            let index = state.action(key).ok_or_else(|| no_such_file("end"))?;
            let action = state.actions.swap_remove(index);
            state.tell(|| format!("{thread}: end of {key:?}: {verdict}"));
            if verdict != Verdict::Done {
                return Ok(());
            }
            let node = state.node(key.fid, "end")?;
            match action.item.kind {
                Kind::Do(Verb::Remove) => {
                    (node.exists, node.archived, node.dirty) = (false, false, false);
                }
                _ if node.released || action.begun != Some(node.data_version) => {
                    return Err(HsmError::new("end", libc::EBUSY));
                }
                _ => {
                    (node.exists, node.archived, node.dirty) = (true, true, false);
                    node.archived_version = node.data_version;
                }
            }
            match state.dice.u8(..) < 8 {
                true => Err(HsmError::new("end", libc::EPERM)),
                false => Ok(()),
            }
        })
    }

    fn renew(&mut self) {}

    fn disown(self: Box<Self>) {}
}
