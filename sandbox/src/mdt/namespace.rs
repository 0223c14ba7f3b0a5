//! Files: FIDs as hard links below `.lustre/fid`, states, release, and the swap that ends a restore.
//!
//! A file gets its FID when HSM first has to do with it. The link keeps its inode number from being
//! used again, and opens the file by FID as on Lustre; a file whose only name is that link is unlinked.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use lhsm_sandbox_protocol::{Action, Fid, FileState, ctime, links, states};
use nix::sys::time::TimeSpec;
use nix::unistd::Whence;
use walkdir::WalkDir;

use super::state::{Inode, State, mdt_of};

const RELEASED_PATTERN: u32 = 0x8000_0001;
const PLAIN_PATTERN: u32 = 1;
/// fcntl(2); not in the libc crate.
const F_SETSIG: i32 = 10;

pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl State {
    pub(super) fn link(&self, fid: Fid) -> PathBuf {
        self.mount.join(".lustre/fid").join(fid.to_string())
    }

    /// The FID of a path below the mount point; a new one if it has none.
    pub(super) fn fid_of(&mut self, relative: &Path) -> Result<Fid, i32> {
        let path = self.mount.join(relative);
        let stat = std::fs::symlink_metadata(&path).map_err(|error| errno(&error))?;
        let inode = (stat.dev(), stat.ino());
        if let Some(fid) = self.by_inode.get(&inode).copied() {
            if let Some(file) = self.files.get_mut(&fid) {
                file.path = relative.to_owned();
            }
            return Ok(fid);
        }
        let fid = self.new_fid_on(self.mdt_for(relative))?;
        if stat.is_file() {
            std::fs::hard_link(&path, self.link(fid)).map_err(|error| errno(&error))?;
            links::add(&self.mount, stat.ino()).map_err(|error| errno(&error))?;
        }
        self.know(fid, &stat, relative);
        Ok(fid)
    }

    /// As a client's stat tells it.
    pub(super) fn shown_ctime(&self, stat: &Metadata) -> (i64, i64) {
        ctime::shown(&self.mount, stat.ino(), (stat.ctime(), stat.ctime_nsec()))
    }

    pub(super) fn show_ctime(&self, fid: Fid, shown: (i64, i64)) -> Result<(), i32> {
        ctime::show(&self.mount, &self.link(fid), shown).map_err(|error| errno(&error))
    }

    /// `LL_IOC_FUTIMES_3`: all three times as they are given, unless the ctime is older than the file's: then nothing is
    /// changed, and nobody is told.
    pub(super) fn set_three_times(
        &self,
        fid: Fid,
        (atime, mtime): ((i64, i64), (i64, i64)),
        shown: (i64, i64),
    ) -> Result<(), i32> {
        if shown < self.shown_ctime(&self.stat(fid)?) {
            return Ok(());
        }
        let file = File::open(self.link(fid)).map_err(|error| errno(&error))?;
        let (atime, mtime) = (TimeSpec::new(atime.0, atime.1), TimeSpec::new(mtime.0, mtime.1));
        nix::sys::stat::futimens(&file, &atime, &mtime).map_err(|error| error as i32)?;
        self.show_ctime(fid, shown)
    }

    /// An attribute that is kept here changes the file all the same.
    pub(super) fn touch_ctime(&self, fid: Fid) -> Result<(), i32> {
        let link = self.link(fid);
        let stat = std::fs::symlink_metadata(&link).map_err(|error| errno(&error))?;
        std::fs::set_permissions(&link, stat.permissions()).map_err(|error| errno(&error))
    }

    /// Where a new file goes: to its directory's MDT.
    fn mdt_for(&self, relative: &Path) -> u32 {
        if self.others.is_empty() {
            return 0;
        }
        let known = relative.ancestors().skip(1).find_map(|dir| {
            let stat = std::fs::symlink_metadata(self.mount.join(dir)).ok()?;
            self.by_inode.get(&(stat.dev(), stat.ino()))
        });
        known.map_or(0, |dir| mdt_of(*dir))
    }

    /// `lfs mkdir -i`: a directory whose files are on that MDT.
    pub(super) fn make_dir(&mut self, relative: &Path, mdt: u32) -> Result<Fid, i32> {
        self.has_room_on(mdt)?;
        let fid = self.new_fid_on(mdt)?;
        let path = self.mount.join(relative);
        std::fs::create_dir(&path).map_err(|error| errno(&error))?;
        let stat = std::fs::symlink_metadata(&path).map_err(|error| errno(&error))?;
        self.know(fid, &stat, relative);
        Ok(fid)
    }

    fn know(&mut self, fid: Fid, stat: &Metadata, relative: &Path) {
        let inode = (stat.dev(), stat.ino());
        self.by_inode.insert(inode, fid);
        self.files.insert(
            fid,
            Inode {
                inode,
                path: relative.to_owned(),
                states: 0,
                archive_id: 0,
                archived_version: 0,
                clean_version: 0,
                xattrs: HashMap::from([("lustre.lov".to_owned(), plain_layout(PLAIN_PATTERN))]),
            },
        );
    }

    /// The file's attributes; ENOENT when its last name is gone.
    pub(super) fn stat(&self, fid: Fid) -> Result<Metadata, i32> {
        let file = self.files.get(&fid).ok_or(libc::ENOENT)?;
        let stat = match std::fs::symlink_metadata(self.link(fid)) {
            Ok(stat) if stat.nlink() < 2 => return Err(libc::ENOENT),
            Ok(stat) => stat,
            // No regular file: it has no link.
            Err(_) => {
                let is_it = |stat: &Metadata| (stat.dev(), stat.ino()) == file.inode;
                match std::fs::symlink_metadata(self.mount.join(&file.path))
                    .ok()
                    .filter(is_it)
                {
                    Some(stat) => stat,
                    None => {
                        let path = self.find(file.inode).ok_or(libc::ENOENT)?;
                        std::fs::symlink_metadata(path).map_err(|error| errno(&error))?
                    }
                }
            }
        };
        Ok(stat)
    }

    /// Where an inode is now.
    fn find(&self, inode: (u64, u64)) -> Option<PathBuf> {
        let mount = &self.mount;
        let found = WalkDir::new(mount)
            .into_iter()
            .filter_entry(|entry| entry.path() != mount.join(".lustre"))
            .flatten()
            .find(|entry| entry.metadata().is_ok_and(|stat| (stat.dev(), stat.ino()) == inode));
        found.map(walkdir::DirEntry::into_path)
    }

    /// One path of the file, relative.
    pub(super) fn path_of(&mut self, fid: Fid) -> Result<Vec<u8>, i32> {
        self.stat(fid)?;
        let file = self.files.get(&fid).ok_or(libc::ENOENT)?;
        let inode = file.inode;
        let here = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|stat| (stat.dev(), stat.ino()) == inode);
        if !here(&self.mount.join(&file.path)) {
            let moved = self.find(inode).ok_or(libc::ENOENT)?;
            let moved = moved.strip_prefix(&self.mount).unwrap_or(&moved).to_owned();
            if let Some(file) = self.files.get_mut(&fid) {
                file.path = moved;
            }
        }
        let file = self.files.get(&fid).ok_or(libc::ENOENT)?;
        Ok(file.path.as_os_str().as_bytes().to_vec())
    }

    /// The n-th of a file's names, and whether there are more.
    pub(super) fn name_of(&mut self, fid: Fid, link: u32) -> Result<(Vec<u8>, bool), i32> {
        let first = self.path_of(fid)?;
        // Not counting the one below `.lustre/fid`.
        let names = u32::try_from(self.stat(fid)?.nlink().saturating_sub(1)).unwrap_or(1);
        let more = link + 1 < names;
        if link == 0 {
            return Ok((first, more));
        }
        let inode = self.files.get(&fid).ok_or(libc::ENOENT)?.inode;
        let mount = &self.mount;
        let others = WalkDir::new(mount)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| entry.path() != mount.join(".lustre"))
            .flatten()
            .filter(|entry| entry.metadata().is_ok_and(|stat| (stat.dev(), stat.ino()) == inode))
            .map(|entry| entry.path().strip_prefix(mount).unwrap_or(entry.path()).to_owned())
            .filter(|path| path.as_os_str().as_bytes() != first);
        let path = others.into_iter().nth(link as usize - 1).ok_or(libc::ENODATA)?;
        Ok((path.into_os_string().into_vec(), more))
    }

    /// Stands for Lustre's data version: what changes with the data. Other attributes leave it.
    pub(super) fn data_version(&self, fid: Fid) -> Result<u64, i32> {
        self.stat(fid).map(|stat| version(&stat))
    }

    /// States as of now: a change of the data since makes a file dirty.
    pub(super) fn state(&mut self, fid: Fid) -> Result<FileState, i32> {
        let now = self.data_version(fid)?;
        let action = self.pending_of(fid).map(|record| (record.action, record.state));
        let file = self.files.get_mut(&fid).ok_or(libc::ENOENT)?;
        let exists = file.states & states::EXISTS != 0;
        let released = file.states & states::RELEASED != 0;
        if exists && !released && file.clean_version != now {
            file.states |= states::DIRTY;
        }
        Ok(FileState {
            states: file.states,
            archive_id: file.archive_id,
            action,
        })
    }

    pub(super) fn set_state(&mut self, fid: Fid, set: u32, clear: u32, archive_id: Option<u32>) -> Result<(), i32> {
        // A released file must stay one that can be restored.
        if self.state(fid)?.states & !clear & states::RELEASED != 0 && clear & (states::ARCHIVED | states::EXISTS) != 0
        {
            return Err(libc::EINVAL);
        }
        let now = self.data_version(fid)?;
        let file = self.files.get_mut(&fid).ok_or(libc::ENOENT)?;
        if set & states::EXISTS != 0 && file.states & states::EXISTS == 0 || clear & states::DIRTY != 0 {
            file.clean_version = now;
        }
        file.states = (file.states | set) & !clear;
        if let Some(id) = archive_id {
            file.archive_id = id;
        }
        Ok(())
    }

    /// `lfs hsm_release`: the data goes, size and times stay.
    pub(super) fn release(&mut self, fid: Fid) -> Result<(), i32> {
        let state = self.state(fid)?.states;
        let blocked = states::DIRTY | states::NORELEASE | states::LOST | states::RELEASED;
        if state & states::ARCHIVED == 0 || state & blocked != 0 {
            return Err(libc::EPERM);
        }
        let stat = self.stat(fid)?;
        if self.nodes.hold((stat.dev(), stat.ino())) {
            return Err(libc::EBUSY);
        }
        if self
            .files
            .get(&fid)
            .is_none_or(|file| file.archived_version != version(&stat))
        {
            return Err(libc::EPERM);
        }
        let ctime = self.shown_ctime(&stat);
        let file = open_for_writing(&self.link(fid))?;
        take_lease(&file)?;
        file.set_len(0)
            .and_then(|()| file.set_len(stat.len()))
            .map_err(|error| errno(&error))?;
        set_times(&file, &stat)?;
        self.show_ctime(fid, ctime)?;
        if let Some(entry) = self.files.get_mut(&fid) {
            entry.states |= states::RELEASED;
            if let Some(layout) = entry.xattrs.get_mut("lustre.lov") {
                mark_released(layout);
            }
        }
        if let Some(readers) = &self.readers {
            readers.watch(&self.link(fid)).map_err(|error| errno(&error))?;
        }
        Ok(())
    }

    /// A new file that has no data here: it is in its archive.
    pub(super) fn import(&mut self, relative: &Path, archive_id: u32) -> Result<Fid, i32> {
        let fid = self.fid_of(relative)?;
        let now = self.data_version(fid)?;
        let link = self.link(fid);
        if let Some(file) = self.files.get_mut(&fid) {
            file.states = states::EXISTS | states::ARCHIVED | states::RELEASED;
            file.archive_id = archive_id;
            file.clean_version = now;
            file.xattrs
                .insert("lustre.lov".to_owned(), plain_layout(RELEASED_PATTERN));
        }
        if let Some(readers) = &self.readers {
            readers.watch(&link).map_err(|error| errno(&error))?;
        }
        Ok(fid)
    }

    /// Where a file's data is reached by FID.
    pub(super) fn data_path(&self, fid: Fid) -> Result<PathBuf, i32> {
        self.stat(fid)?;
        Ok(self.link(fid))
    }

    /// A restore has put the data in place.
    pub(super) fn restored(&mut self, fid: Fid, layout: Option<Vec<u8>>) -> Result<(), i32> {
        if layout.as_ref().is_some_and(|layout| keeps_data_on_mdt(layout)) {
            return Err(libc::ENOTSUP);
        }
        let now = self.data_version(fid)?;
        let link = self.link(fid);
        if let Some(entry) = self.files.get_mut(&fid) {
            entry.states &= !states::RELEASED;
            entry.archived_version = now;
            entry.clean_version = now;
            let layout = layout.unwrap_or_else(|| plain_layout(PLAIN_PATTERN));
            entry.xattrs.insert("lustre.lov".to_owned(), layout);
        }
        if let Some(readers) = &self.readers {
            readers.forget(&link);
        }
        Ok(())
    }

    /// Files whose last name is gone: their links go, and with RAoLU their copies.
    pub(super) fn collect_unlinked(&mut self) -> Vec<(Fid, u32)> {
        let mut gone = Vec::new();
        self.files.retain(|fid, file| {
            let link = self.mount.join(".lustre/fid").join(fid.to_string());
            match std::fs::symlink_metadata(&link) {
                Ok(stat) if stat.nlink() < 2 => {
                    // Nothing to do about a link that can't be removed: it is seen again next time.
                    let _told = links::remove(&self.mount, file.inode.1);
                    let _kept = std::fs::remove_file(&link);
                    self.by_inode.remove(&file.inode);
                    if file.states & states::ARCHIVED != 0 {
                        gone.push((*fid, file.archive_id));
                    }
                    false
                }
                _ => true,
            }
        });
        gone
    }

    /// Whether a state that only waits says so.
    pub(super) fn is_released(&self, fid: Fid) -> bool {
        self.files
            .get(&fid)
            .is_some_and(|file| file.states & states::RELEASED != 0)
    }

    /// Whether a restore of the file is under way.
    pub(super) fn restore_pending(&self, fid: Fid) -> bool {
        self.pending_of(fid)
            .is_some_and(|record| record.action == Action::Restore)
    }
}

/// Owner, mode, size and times in seconds: what LL_IOC_HSM_IMPORT was seen to keep of an import.
pub(super) fn fill(path: &Path, mode: u32, owner: (u32, u32), size: u64, times: (i64, i64)) -> Result<(), i32> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = open_for_writing(path)?;
    file.set_len(size).map_err(|error| errno(&error))?;
    match std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1)) {
        // Without root a file stays its maker's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        result => result.map_err(|error| errno(&error))?,
    }
    // umask is not asked.
    file.set_permissions(std::fs::Permissions::from_mode(mode & 0o777))
        .map_err(|error| errno(&error))?;
    let (atime, mtime) = (TimeSpec::new(times.0, 0), TimeSpec::new(times.1, 0));
    nix::sys::stat::futimens(&file, &atime, &mtime).map_err(|error| error as i32)
}

pub(super) fn version(stat: &Metadata) -> u64 {
    let mut hasher = DefaultHasher::new();
    (stat.mtime(), stat.mtime_nsec(), stat.len()).hash(&mut hasher);
    hasher.finish().max(1)
}

/// The volatile's data becomes the file's ("layout swap"). `lost`: it had no layout, and the file now
/// reads as zeros. Size, content and times are taken as they are, as the MDT does.
pub(super) fn swap(link: &Path, volatile: &File, lost: bool) -> Result<(), i32> {
    let file = open_for_writing(link)?;
    // Before it is read, which changes its atime.
    let stat = volatile.metadata().map_err(|error| errno(&error))?;
    let size = stat.len();
    let copied = file
        .set_len(0)
        .and_then(|()| file.set_len(size))
        .and_then(|()| if lost { Ok(()) } else { copy_data(volatile, &file, size) });
    copied.map_err(|error| errno(&error))?;
    set_times(&file, &stat)
}

/// Read-only files, too: the owner's permission bits do not bind the MDT.
fn open_for_writing(path: &Path) -> Result<File, i32> {
    let open = || OpenOptions::new().write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(path).map_err(|e| errno(&e))?.permissions();
            let mut writable = mode.clone();
            writable.set_mode(mode.mode() | 0o200);
            std::fs::set_permissions(path, writable).map_err(|e| errno(&e))?;
            let file = open();
            std::fs::set_permissions(path, mode).map_err(|e| errno(&e))?;
            file
        }
        other => other,
    }
    .map_err(|error| errno(&error))
}

/// As Lustre's of a release: EBUSY while anybody else has the file open, and it goes when `file` is closed.
fn take_lease(file: &File) -> Result<(), i32> {
    use std::os::fd::AsRawFd as _;
    let control = |command, argument: i32| {
        #[expect(unsafe_code, reason = "no wrapper for leases")]
        // SAFETY: both commands take an int, and touch no memory of ours.
        let rc = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
        nix::errno::Errno::result(rc).map_err(|error| error as i32)
    };
    // Who opens it meanwhile waits; the signal that says so would end us if it were SIGIO.
    control(F_SETSIG, libc::SIGURG)?;
    match control(libc::F_SETLEASE, libc::F_WRLCK) {
        Err(libc::EAGAIN) => Err(libc::EBUSY),
        other => other.map(drop),
    }
}

fn set_times(file: &File, stat: &Metadata) -> Result<(), i32> {
    let atime = TimeSpec::new(stat.atime(), stat.atime_nsec());
    let mtime = TimeSpec::new(stat.mtime(), stat.mtime_nsec());
    nix::sys::stat::futimens(file, &atime, &mtime).map_err(|error| error as i32)
}

fn copy_data(from: &File, to: &File, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let seek = |at: u64, whence| -> io::Result<u64> {
            let at = i64::try_from(at).map_err(io::Error::other)?;
            Ok(nix::unistd::lseek(from, at, whence).map(i64::cast_unsigned)?)
        };
        let start = match seek(at, Whence::SeekData) {
            Ok(start) => start,
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => break,
            Err(error) => return Err(error),
        };
        let end = seek(start, Whence::SeekHole)?.min(size);
        at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
            let n = from.read_at(buffer.get_mut(..want).unwrap_or_default(), at)?;
            to.write_all_at(buffer.get(..n).unwrap_or_default(), at)?;
            at += n as u64;
        }
    }
    Ok(())
}

/// The released bit in the pattern of each component.
fn mark_released(layout: &mut [u8]) {
    for component in components(layout) {
        if let Some(bits) = layout.get_mut(component + 7) {
            *bits |= 0x80;
        }
    }
}

/// Whether a component's data is on the MDT: 0x100 in its pattern.
fn keeps_data_on_mdt(layout: &[u8]) -> bool {
    let is_there = |component: usize| layout.get(component + 5).is_some_and(|bits| bits & 1 != 0);
    components(layout).into_iter().any(is_there)
}

/// Where components begin; a composite layout has a table of 48-byte entries from byte 32, each with its component's
/// offset at +24.
fn components(layout: &[u8]) -> Vec<usize> {
    let word = |layout: &[u8], at: usize| Some(u32::from_le_bytes(*layout.get(at..)?.first_chunk()?));
    match word(layout, 0) {
        Some(0x0bd6_0bd0) => {
            let count = layout.get(14).copied().map_or(0, usize::from);
            (0..count)
                .filter_map(|entry| usize::try_from(word(layout, 32 + 48 * entry + 24)?).ok())
                .collect()
        }
        _ => vec![0],
    }
}

/// A plain layout (V1) of two stripes of 1 MiB, as on Lustre but for its objects.
fn plain_layout(pattern: u32) -> Vec<u8> {
    let mut bytes = vec![0u8; 80];
    let words = [0x0bd1_0bd0u32, pattern];
    for (slot, word) in bytes.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    if let Some(slot) = bytes.get_mut(24..28) {
        slot.copy_from_slice(&(1u32 << 20).to_le_bytes());
    }
    if let Some(slot) = bytes.get_mut(28..30) {
        slot.copy_from_slice(&2u16.to_le_bytes());
    }
    bytes
}
