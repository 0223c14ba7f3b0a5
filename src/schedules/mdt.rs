//! Lustre as the code that is tried sees it: files' records and states, and a coordinator that has its own mind of what is
//! over.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::world::{NAME, Node, World, bytes_of, no_such_file, thread};
use crate::action::{ActionHandle, ActionKey, CopyState, Deletions, FileSystem, HsmError, Item, Kind, Verb, Verdict};
use crate::types::{ArchiveId, Extent, ExtraMetadata, Fid, Timestamp};

/// The file system as the code that is tried sees it.
#[derive(Debug)]
pub(super) struct Mdt(pub(super) Arc<World>);

/// What whoever is made to take stale records finds archived: it is not to be saved by the other proof of a copy.
const NOBODYS_VERSION: u64 = u64::MAX;

impl FileSystem for Mdt {
    fn name(&self) -> &str {
        NAME
    }

    fn path_of(&self, fid: Fid) -> Result<PathBuf, HsmError> {
        self.0
            .call("path_of", |state| Ok(PathBuf::from(&state.node(fid, "path_of")?.path)))
    }

    fn imported_until(&self) -> Result<Option<i64>, HsmError> {
        Ok(None)
    }

    fn map(&self, fid: Fid) -> Result<Option<Vec<u8>>, HsmError> {
        let thread = thread();
        let stale = self.0.takes_stale(thread);
        self.0.call("map", |state| {
            let now = state.node(fid, "map")?.record.clone();
            Ok(match stale {
                true => state.stale[thread].entry(fid).or_insert(now).clone(),
                false => now,
            })
        })
    }

    // Whoever writes a record has looked at it just before, and no file system has a way to do both at once. With two movers it
    // is that look that is tried, in the same step.
    fn set_map(&self, fid: Fid, record: &[u8]) -> Result<(), HsmError> {
        let thread = thread();
        self.0.call_now("set_map", fid, |state| {
            state.tell(|| format!("{thread}: record of {fid}"));
            state.node(fid, "set_map")?.record = Some(record.to_vec());
            Ok(())
        })
    }

    fn clear_map(&self, fid: Fid) -> Result<(), HsmError> {
        let thread = thread();
        self.0.call_now("clear_map", fid, |state| {
            state.tell(|| format!("{thread}: no record of {fid}"));
            state.node(fid, "clear_map")?.record = None;
            Ok(())
        })
    }

    fn announce_deletion(&self, fid: Fid, number: u64, words: &[u8]) -> Result<(), HsmError> {
        let thread = thread();
        self.0.call("announce_deletion", |state| {
            state.tell(|| format!("{thread}: announces a deletion on {fid}"));
            let said = &mut state.node(fid, "announce")?.deletions.announced;
            said.retain(|(other, _)| *other != number);
            said.push((number, words.to_vec()));
            Ok(())
        })
    }

    fn withdraw_deletion(&self, fid: Fid, number: u64) -> Result<(), HsmError> {
        self.0.call("withdraw_deletion", |state| {
            let said = &mut state.node(fid, "withdraw")?.deletions.announced;
            said.retain(|(other, _)| *other != number);
            Ok(())
        })
    }

    fn note_deletion(&self, fid: Fid, words: &[u8]) -> Result<(), HsmError> {
        self.0.call("note_deletion", |state| {
            state.node(fid, "note")?.deletions.done = Some(words.to_vec());
            Ok(())
        })
    }

    fn deletions(&self, fid: Fid) -> Result<Deletions, HsmError> {
        let is_deaf = self.0.is_deaf();
        self.0.call("deletions", |state| {
            let said = &state.node(fid, "deletions")?.deletions;
            Ok(if is_deaf { Deletions::default() } else { said.clone() })
        })
    }

    fn note_restored(&self, _: Fid) -> Result<(), HsmError> {
        Ok(())
    }

    fn is_released(&self, fid: Fid) -> Result<bool, HsmError> {
        self.0
            .call("is_released", |state| Ok(state.node(fid, "is_released")?.released))
    }

    fn is_archived(&self, fid: Fid) -> Result<bool, HsmError> {
        self.0.call("is_archived", |state| {
            let node = state.node(fid, "is_archived")?;
            Ok(node.released || node.is_clean())
        })
    }

    fn copy_state(&self, fid: Fid) -> Result<CopyState, HsmError> {
        self.0
            .call("copy_state", |state| Ok(state.node(fid, "copy_state")?.copy_state()))
    }

    fn has_archive(&self, fid: Fid) -> Result<bool, HsmError> {
        self.0.call("has_archive", |state| {
            state.node(fid, "has_archive")?;
            Ok(state.has_action(fid, Kind::Do(Verb::Archive)))
        })
    }

    fn prepare_archive(&self, fid: Fid, _: Option<ArchiveId>) -> Result<CopyState, HsmError> {
        self.0.call("prepare_archive", |state| {
            let node = state.node(fid, "prepare_archive")?;
            node.exists = true;
            Ok(node.copy_state())
        })
    }

    fn ask_again(&self, _: Fid, _: Option<ArchiveId>) -> Result<bool, HsmError> {
        Ok(false)
    }

    fn extras(&self, fid: Fid, _: &File) -> Result<ExtraMetadata, HsmError> {
        self.0.call("extras", |state| {
            let large = state.node(fid, "extras")?.large;
            let xattrs = large.then(|| (b"user.large".to_vec(), vec![7; 2500]));
            Ok(ExtraMetadata {
                xattrs: xattrs.into_iter().collect(),
                ..ExtraMetadata::default()
            })
        })
    }

    fn size_of(&self, fid: Fid) -> Result<u64, HsmError> {
        self.0.call("size_of", |state| {
            state.node(fid, "size_of").map(|_| bytes_of(0).len() as u64)
        })
    }

    fn is_unlinked(&self, fid: Fid) -> Result<bool, HsmError> {
        self.0
            .call("is_unlinked", |state| Ok(state.node(fid, "is_unlinked").is_err()))
    }

    fn data_version(&self, file: &File) -> Option<u64> {
        let inode = file.metadata().ok()?.ino();
        let is_of = |node: &&Node| node.data.metadata().is_ok_and(|stat| stat.ino() == inode);
        let now = self
            .0
            .with(|state| state.nodes.iter().find(is_of).map(|node| node.data_version));
        // It was released and restored since it was opened: what it had is nobody's any more.
        now.or(Some(u64::MAX - inode))
    }

    fn archived_version(&self, fid: Fid) -> Option<u64> {
        if self.0.takes_stale(thread()) {
            return Some(NOBODYS_VERSION);
        }
        let version = self.0.call("archived_version", |state| {
            Ok(state.node(fid, "archived_version")?.archived_version)
        });
        version.ok().filter(|version| *version != 0)
    }

    fn mtime_of(&self, fid: Fid) -> Option<Timestamp> {
        if self.0.takes_stale(thread()) {
            return None;
        }
        let mtime = self
            .0
            .call("mtime_of", |state| Ok(state.node(fid, "mtime_of")?.mtime()));
        mtime.ok().flatten()
    }

    fn may_change_fids(&self) -> bool {
        false
    }

    fn keeps_fids(&self) -> bool {
        true
    }

    fn revoke(&self, fid: Fid) -> Result<(), HsmError> {
        self.0.call("revoke", |state| {
            let node = state.node(fid, "revoke")?;
            if node.released {
                return Err(HsmError::new("revoke", libc::EINVAL));
            }
            node.archived = false;
            Ok(())
        })
    }

    fn progress(&self, key: ActionKey, _: Extent) -> Result<(), HsmError> {
        self.0.call("progress", |state| match state.action(key) {
            None => Err(no_such_file("progress")),
            Some(index) if state.actions[index].cancelled => Err(HsmError::new("progress", libc::ECANCELED)),
            Some(_) => Ok(()),
        })
    }
}

/// An action as a mover has it.
#[derive(Debug)]
pub(super) struct Owed {
    world: Arc<World>,
    item: Item,
    /// The data version when it was begun.
    begun: Option<u64>,
    /// What a restore fills.
    volatile: Option<File>,
}

impl Owed {
    pub(super) const fn new(world: Arc<World>, item: Item) -> Self {
        Self {
            world,
            item,
            begun: None,
            volatile: None,
        }
    }
}

impl ActionHandle for Owed {
    fn item(&self) -> &Item {
        &self.item
    }

    fn begin(&mut self, _: Option<&[u8]>) -> Result<Option<File>, HsmError> {
        let Self {
            world,
            item,
            begun,
            volatile,
        } = self;
        world.call("begin", |state| {
            if state.action(item.key()).is_none() {
                return Err(no_such_file("begin"));
            }
            if item.kind == Kind::Do(Verb::Remove) {
                return Ok(None);
            }
            let node = state.node(item.fid, "begin")?;
            *begun = Some(node.data_version);
            let data = match item.kind {
                Kind::Do(Verb::Restore) => match volatile {
                    Some(file) => file.try_clone(),
                    None => tempfile::tempfile().and_then(|file| volatile.insert(file).try_clone()),
                },
                _ => node.data.try_clone(),
            };
            data.map(Some).map_err(|error| HsmError::io("begin", &error))
        })
    }

    /// What the MDT makes of it. Now and then nobody hears the answer.
    fn finish(self: Box<Self>, verdict: Verdict, _: u64) -> Result<(), HsmError> {
        let thread = thread();
        let Self {
            world,
            item,
            begun,
            volatile,
        } = *self;
        world.call("end", |state| {
            let key = item.key();
            let index = state.action(key).ok_or_else(|| no_such_file("end"))?;
            let action = state.actions.swap_remove(index);
            state.tell(|| format!("{thread}: end of {key:?}: {verdict}"));
            if verdict != Verdict::Done {
                state.look_at_failure(&action, verdict);
                return Ok(());
            }
            if item.kind == Kind::Do(Verb::Restore) {
                return state.restored(key.fid, volatile);
            }
            let node = match state.node(key.fid, "end") {
                // With the last name of a file its remove comes.
                Err(_) if item.kind == Kind::Do(Verb::Remove) => return Ok(()),
                node => node?,
            };
            match item.kind {
                Kind::Do(Verb::Remove) => {
                    (node.exists, node.archived, node.dirty) = (false, false, false);
                }
                _ if node.released || begun != Some(node.data_version) => {
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

    fn renew(&mut self) {
        self.volatile = None;
    }

    fn disown(self: Box<Self>) {}
}
