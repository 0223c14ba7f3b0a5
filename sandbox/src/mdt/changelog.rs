//! Each MDT's changelog: kept while somebody is registered with it, cleared when all its readers have read.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use lhsm_sandbox_protocol::{Action, ChangeRecord, Fid, UserChange, links, states};

use super::faults::strike;
use super::namespace::errno;
use super::state::{State, mdt_of};

/// `CL_*`
pub(super) mod kind {
    pub(in crate::mdt) const CREATE: u32 = 1;
    pub(in crate::mdt) const MKDIR: u32 = 2;
    pub(in crate::mdt) const HARDLINK: u32 = 3;
    pub(in crate::mdt) const SOFTLINK: u32 = 4;
    pub(in crate::mdt) const UNLINK: u32 = 6;
    pub(in crate::mdt) const RMDIR: u32 = 7;
    pub(in crate::mdt) const RENAME: u32 = 8;
    pub(in crate::mdt) const CLOSE: u32 = 11;
    pub(in crate::mdt) const SETATTR: u32 = 14;
    pub(in crate::mdt) const XATTR: u32 = 15;
    pub(in crate::mdt) const HSM: u32 = 16;
}

const OPEN_FOR_WRITING: u16 = 2;
const LAST: u16 = 1;
const HAD_COPY: u16 = 2;
/// In one answer.
const MOST: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Changelog {
    records: VecDeque<ChangeRecord>,
    last: u64,
    /// What each has cleared.
    users: BTreeMap<String, u64>,
    /// How many readers there ever were: no name is given out twice.
    registered: u64,
    /// What the next reads answer.
    pub(super) read_errno: (i32, u32),
}

impl Changelog {
    pub(super) fn register(&mut self) -> String {
        self.registered += 1;
        let name = format!("cl{}", self.registered);
        self.users.insert(name.clone(), self.last);
        name
    }

    fn push(&mut self, mut record: ChangeRecord) {
        if self.users.is_empty() {
            return;
        }
        self.last += 1;
        record.index = self.last;
        self.records.push_back(record);
    }

    pub(super) fn read(&mut self, from: u64) -> Result<Vec<ChangeRecord>, i32> {
        if let Some(errno) = strike(&mut self.read_errno) {
            return Err(errno);
        }
        let first = self.records.partition_point(|record| record.index < from);
        Ok(self.records.range(first..).take(MOST).cloned().collect())
    }

    /// EINVAL: there is no such record yet, or the reader has cleared more, or was registered later; ENOENT: there is no
    /// such reader. The same once more is taken, and shows that the reader is alive (mdd_device.c).
    pub(super) fn clear(&mut self, user: &str, up_to: u64) -> Result<(), i32> {
        if up_to > self.last {
            return Err(libc::EINVAL);
        }
        let up_to = if up_to == 0 { self.last } else { up_to };
        let cleared = self.users.get_mut(user).ok_or(libc::ENOENT)?;
        if *cleared > up_to {
            return Err(libc::EINVAL);
        }
        *cleared = up_to;
        self.drop_read();
        Ok(())
    }

    /// As the MDT does with a reader that was idle for too long. With the last one the changelog is off: what happens
    /// from then on is in no record, and in no gap of their numbers either.
    pub(super) fn drop_reader(&mut self, user: &str) -> Result<(), i32> {
        self.users.remove(user).ok_or(libc::ENOENT)?;
        self.drop_read();
        Ok(())
    }

    /// Records that no reader waits for.
    fn drop_read(&mut self) {
        let all = self.users.values().min().copied().unwrap_or(self.last);
        while self.records.front().is_some_and(|record| record.index <= all) {
            self.records.pop_front();
        }
    }

    /// As when records were lost.
    pub(super) fn forget(&mut self) {
        self.records.clear();
    }

    pub(super) fn kept(&self) -> u64 {
        self.records.len() as u64
    }
}

impl State {
    /// ENOENT: there is no such MDT.
    pub(super) fn changelog(&mut self, mdt: u32) -> Result<&mut Changelog, i32> {
        if mdt as usize > self.others.len() {
            return Err(libc::ENOENT);
        }
        Ok(self.changelogs.entry(mdt).or_default())
    }

    /// On the MDT that the file is on, of a rename what was moved.
    fn record(&mut self, record: ChangeRecord) {
        let about = record.source.map(|(moved, _)| moved).or(record.target);
        self.changelogs.entry(about.map_or(0, mdt_of)).or_default().push(record);
    }

    /// Something happened to a file that has no name in it.
    pub(super) fn note(&mut self, kind: u32, flags: u16, target: Fid) {
        self.record(ChangeRecord {
            index: 0,
            kind,
            flags,
            target: Some(target),
            parent: None,
            name: Vec::new(),
            source: None,
            old_name: Vec::new(),
        });
    }

    fn note_name(&mut self, kind: u32, flags: u16, target: Option<Fid>, path: &Path) -> Result<ChangeRecord, i32> {
        let parent = self.fid_of(path.parent().unwrap_or(Path::new("")))?;
        let record = ChangeRecord {
            index: 0,
            kind,
            flags,
            target,
            parent: Some(parent),
            name: path.file_name().unwrap_or_default().as_bytes().to_vec(),
            source: None,
            old_name: Vec::new(),
        };
        Ok(record)
    }

    /// Does what a user does, and records it.
    pub(super) fn change(&mut self, change: UserChange) -> Result<(), i32> {
        let mount = self.mount.clone();
        let io = |error: std::io::Error| errno(&error);
        match change {
            UserChange::Write(path, content) => {
                let relative = Path::new(OsStr::from_bytes(&path)).to_owned();
                let at = mount.join(&relative);
                let is_new = !at.exists();
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create(true).truncate(true).open(&at).map_err(io)?;
                file.write_all(&content).map_err(io)?;
                let fid = self.fid_of(&relative)?;
                if is_new {
                    let record = self.note_name(kind::CREATE, 0, Some(fid), &relative)?;
                    self.record(record);
                }
                self.note(kind::CLOSE, OPEN_FOR_WRITING, fid);
            }
            UserChange::Mkdir(path) => {
                let relative = Path::new(OsStr::from_bytes(&path)).to_owned();
                fs::create_dir(mount.join(&relative)).map_err(io)?;
                let fid = self.fid_of(&relative)?;
                let record = self.note_name(kind::MKDIR, 0, Some(fid), &relative)?;
                self.record(record);
            }
            UserChange::Symlink(path, target) => {
                let relative = Path::new(OsStr::from_bytes(&path)).to_owned();
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), mount.join(&relative)).map_err(io)?;
                let fid = self.fid_of(&relative)?;
                let record = self.note_name(kind::SOFTLINK, 0, Some(fid), &relative)?;
                self.record(record);
            }
            UserChange::Link(old, new) => {
                let (old, new) = (Path::new(OsStr::from_bytes(&old)), Path::new(OsStr::from_bytes(&new)));
                fs::hard_link(mount.join(old), mount.join(new)).map_err(io)?;
                let fid = self.fid_of(old)?;
                let record = self.note_name(kind::HARDLINK, 0, Some(fid), new)?;
                self.record(record);
            }
            UserChange::Chmod(path, mode) => {
                let relative = Path::new(OsStr::from_bytes(&path)).to_owned();
                fs::set_permissions(mount.join(&relative), fs::Permissions::from_mode(mode)).map_err(io)?;
                let fid = self.fid_of(&relative)?;
                self.note(kind::SETATTR, 0, fid);
            }
            UserChange::Unlink(path) => self.unlink(Path::new(OsStr::from_bytes(&path)))?,
            UserChange::Rmdir(path) => {
                let relative = Path::new(OsStr::from_bytes(&path)).to_owned();
                let fid = self.fid_of(&relative)?;
                let record = self.note_name(kind::RMDIR, 0, Some(fid), &relative)?;
                fs::remove_dir(mount.join(&relative)).map_err(io)?;
                self.record(record);
            }
            UserChange::Rename(old, new) => {
                self.rename(Path::new(OsStr::from_bytes(&old)), Path::new(OsStr::from_bytes(&new)))?;
            }
        }
        Ok(())
    }

    /// What an unlink of this name would say of its file: the flags.
    fn last_flags(&self, fid: Fid, path: &Path) -> u16 {
        // One more link is the sandbox's own.
        let names = fs::symlink_metadata(self.mount.join(path))
            .map_or(1, |stat| if stat.is_file() { stat.nlink() - 1 } else { stat.nlink() });
        let copied = self
            .files
            .get(&fid)
            .is_some_and(|file| file.states & states::ARCHIVED != 0);
        match (names <= 1, copied) {
            (false, _) => 0,
            (true, false) => LAST,
            (true, true) => LAST | HAD_COPY,
        }
    }

    fn unlink(&mut self, path: &Path) -> Result<(), i32> {
        let fid = self.fid_of(path)?;
        let flags = self.last_flags(fid, path);
        let record = self.note_name(kind::UNLINK, flags, Some(fid), path)?;
        fs::remove_file(self.mount.join(path)).map_err(|error| errno(&error))?;
        self.record(record);
        self.without_name(fid, flags);
        Ok(())
    }

    /// The file itself goes with its last name; whoever has it open keeps its data.
    fn without_name(&mut self, fid: Fid, flags: u16) {
        if flags & LAST == 0 {
            return;
        }
        let Some(file) = self.files.remove(&fid) else {
            return;
        };
        self.by_inode.remove(&file.inode);
        // What has no link is no regular file.
        let _told = links::remove(&self.mount, file.inode.1);
        let _none = fs::remove_file(self.mount.join(".lustre/fid").join(fid.to_string()));
        if self.remove_on_last_unlink && file.states & states::ARCHIVED != 0 {
            self.log(Action::Remove, fid, file.archive_id, 0, Vec::new());
        }
    }

    fn rename(&mut self, old: &Path, new: &Path) -> Result<(), i32> {
        let source = self.fid_of(old)?;
        let replaced = match fs::symlink_metadata(self.mount.join(new)) {
            Ok(_) => Some(self.fid_of(new)?),
            Err(_) => None,
        };
        let flags = replaced.map_or(0, |fid| self.last_flags(fid, new));
        let mut record = self.note_name(kind::RENAME, flags, replaced, new)?;
        let old_parent = self.fid_of(old.parent().unwrap_or(Path::new("")))?;
        record.source = Some((source, old_parent));
        record.old_name = old.file_name().unwrap_or_default().as_bytes().to_vec();
        fs::rename(self.mount.join(old), self.mount.join(new)).map_err(|error| errno(&error))?;
        self.record(record);
        if let Some(fid) = replaced {
            self.without_name(fid, flags);
        }
        Ok(())
    }
}
