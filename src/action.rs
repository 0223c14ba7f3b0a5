//! What every room says about an action: the item, the handle, the verdict. The Lustre border implements the two traits.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use crate::types::{
    ArchiveId, Cookie, Domain, ErrorClass, Extent, ExtraMetadata, Fid, HsmErrno, Sequences, Timestamp, errno_of,
};

/// What the coordinator asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    /// Copy a file to its archive.
    Archive,
    /// Bring a released file's data back.
    Restore,
    /// Delete the archived copy.
    Remove,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Archive => "archive",
            Self::Restore => "restore",
            Self::Remove => "remove",
        })
    }
}

/// The number that a message gave for the action.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// An action that becomes a job.
    Do(Verb),
    /// Stop the action with the same cookie; never a job of its own.
    Cancel,
    /// Not known to us: answered EINVAL, for whoever sent it waits for an answer.
    Unknown(u32),
}

/// Who an action is: cookies alone repeat between MDTs, FIDs alone between requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ActionKey {
    /// The coordinator's number.
    pub cookie: Cookie,
    /// The file that it is about.
    pub fid: Fid,
}

/// One action as it came through the pipe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What is asked for: a verb, a cancel, or a number that nobody knows.
    pub kind: Kind,
    /// The file that it is about.
    pub fid: Fid,
    /// The file that holds the data; equals `fid` until a restore makes its volatile file.
    pub dfid: Fid,
    /// The coordinator's number for it.
    pub cookie: Cookie,
    /// The archive; `None` for the 0 that C means "any" by.
    pub archive_id: Option<ArchiveId>,
    /// The range asked for; the coordinator of today only sends whole files.
    pub extent: Extent,
    /// Group lock id, always 0 today.
    pub gid: u64,
    /// Somebody's `open()` waits (2.17; a hint: one flag stands for the whole message).
    pub blocking: bool,
    /// `lfs hsm_archive --data`, as it came.
    pub data: Box<[u8]>,
}

impl Item {
    /// The item's identity.
    #[must_use]
    pub const fn key(&self) -> ActionKey {
        ActionKey {
            cookie: self.cookie,
            fid: self.fid,
        }
    }
}

#[cfg(test)]
impl Item {
    /// An action of a file that all tests of this kind have.
    pub(crate) fn of_test(cookie: u64, verb: Verb) -> Self {
        let fid = Fid {
            seq: 0x2_0000_0401,
            oid: 7,
            ver: 0,
        };
        Self {
            kind: Kind::Do(verb),
            fid,
            dfid: fid,
            cookie: Cookie(cookie),
            archive_id: ArchiveId::new(1),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        }
    }
}

/// How an action ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Done and durable.
    Done,
    /// Stopped because the coordinator asked for it. Sent unasked it would be recorded as a success.
    Cancelled,
    /// Not done.
    Failed {
        /// Why, for the coordinator's log.
        errno: HsmErrno,
        /// Whether trying again makes sense (sites whose policy allows retries act on it).
        retry: bool,
    },
}

impl Verdict {
    /// A failure that another try would repeat.
    #[must_use]
    pub const fn failed(errno: HsmErrno) -> Self {
        Self::Failed { errno, retry: false }
    }

    /// A failure of the moment.
    #[must_use]
    pub const fn try_again(errno: HsmErrno) -> Self {
        Self::Failed { errno, retry: true }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Failed { errno, .. } => write!(f, "failed ({errno})"),
        }
    }
}

/// A call into Lustre that failed. What to do about it follows from its class.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call} failed: {} ({:?})", nix::errno::Errno::from_raw(*errno).desc(), nix::errno::Errno::from_raw(*errno))]
pub struct HsmError {
    /// The function or ioctl, as its manual names it.
    pub call: &'static str,
    /// Its errno, positive: for people and reports.
    pub errno: i32,
}

impl HsmError {
    /// An error of `call` with a positive `errno`.
    #[must_use]
    pub const fn new(call: &'static str, errno: i32) -> Self {
        Self { call, errno }
    }

    /// An error of `call` that we say ourselves.
    #[must_use]
    pub const fn of(call: &'static str, class: ErrorClass) -> Self {
        Self::new(call, class.errno())
    }

    /// An error of `call` from an I/O error; EIO where the system gave no number.
    #[must_use]
    pub fn io(call: &'static str, error: &std::io::Error) -> Self {
        Self::new(call, errno_of(error))
    }

    /// What it means.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::of(self.errno)
    }

    /// Whether the file is not there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self.class(), ErrorClass::Gone)
    }

    /// Whether a cancel of the action was accepted.
    #[must_use]
    pub const fn is_cancelled(&self) -> bool {
        matches!(self.class(), ErrorClass::Cancelled)
    }
}

/// Why the end of a restore did not count.
#[derive(Debug)]
pub enum EndFailure {
    /// The coordinator said so: the action is over, or comes again.
    Said(HsmError),
    /// Nobody was told, or nobody heard it, and all that was begun is gone. The action can begin anew.
    Unheard(Box<dyn ActionHandle>, HsmError),
}

/// An action that the coordinator waits for. It must be ended, exactly once, by [`ActionHandle::finish`];
/// one that is dropped is answered EIO and logged as a defect.
pub trait ActionHandle: Send + fmt::Debug {
    /// What was asked for.
    fn item(&self) -> &Item;

    /// Starts the action; blocks. ARCHIVE: gives the file to read, whose data version the kernel has
    /// just sampled. RESTORE: gives an empty volatile file with the released file's layout. REMOVE:
    /// gives nothing. A restore or an archive that was begun gives its file again, of which the end tells whether it changed
    /// since the first time. `layout`: for a RESTORE of a file
    /// that an import could only make with a plain layout, the one that it is to have.
    ///
    /// # Errors
    /// The failed call. The action is still owed and must be finished.
    fn begin(&mut self, layout: Option<&[u8]>) -> Result<Option<File>, HsmError>;

    /// Ends the action, of which `copied` bytes were moved; blocks. Every duplicate of the file from
    /// [`ActionHandle::begin`] must be closed before: after a restore a late write on one hangs for ever.
    ///
    /// # Errors
    /// The coordinator's objection: EBUSY (the file changed while it was archived), ENOENT (it gave the
    /// action up), ECANCELED. What was copied is then not the file's copy.
    fn finish(self: Box<Self>, verdict: Verdict, copied: u64) -> Result<(), HsmError>;

    /// Ends a restore whose bytes are all in place; blocks, and asks for the same as [`ActionHandle::finish`].
    ///
    /// # Errors
    /// The coordinator's objection, or that nobody heard the answer: then the action is owed still, for somebody may wait
    /// for the file.
    fn complete(self: Box<Self>, copied: u64) -> Result<(), EndFailure> {
        self.finish(Verdict::Done, copied).map_err(EndFailure::Said)
    }

    /// Lets go of what was begun: the next [`ActionHandle::begin`] begins anew. For an action that the coordinator sent again.
    fn renew(&mut self);

    /// Lets go of a second copy of an action that is already in hand: the first one answers.
    fn disown(self: Box<Self>);

    /// Lets go of an action that the coordinator no longer knows: there is nobody to answer.
    fn forgotten(self: Box<Self>) {
        self.disown();
    }
}

/// What HSM says of a file's copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CopyState {
    /// There is one, of the file as it is or as it was.
    pub archived: bool,
    /// The file's data is nowhere else.
    pub released: bool,
    /// The archive that has it, or is to have it.
    pub archive_id: Option<ArchiveId>,
}

impl CopyState {
    /// Whether there may be a copy in that archive.
    #[must_use]
    pub fn may_be_in(self, id: ArchiveId) -> bool {
        (self.archived || self.released) && self.archive_id.is_none_or(|own| own == id)
    }
}

/// What those who delete objects of a file have said on it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deletions {
    /// The words of each that is about to delete one, by its number.
    pub announced: Vec<(u64, Vec<u8>)>,
    /// The words of the last that did.
    pub done: Option<Vec<u8>>,
}

/// The file system as the workers see it. All calls block.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Its name, as object metadata says whose FIDs it has.
    fn name(&self) -> &str;

    /// Path of a file below the mount point, without a leading slash.
    ///
    /// # Errors
    /// ENOENT when no name is left.
    fn path_of(&self, fid: Fid) -> Result<PathBuf, HsmError>;

    /// Files may have been imported whose objects were last written before then, in seconds since 1970; `None`: none were.
    ///
    /// # Errors
    /// The failed call.
    fn imported_until(&self) -> Result<Option<i64>, HsmError>;

    /// The file's record of where its copy is (`trusted.lhsm_s3`), `None` when it has none.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn map(&self, fid: Fid) -> Result<Option<Vec<u8>>, HsmError>;

    /// Writes that record, which changes the file's ctime: nothing puts one back.
    ///
    /// # Errors
    /// The failed call.
    fn set_map(&self, fid: Fid, record: &[u8]) -> Result<(), HsmError>;

    /// Removes that record; absent is fine.
    ///
    /// # Errors
    /// The failed call.
    fn clear_map(&self, fid: Fid) -> Result<(), HsmError>;

    /// Says on a file that an object of it is about to be deleted (`trusted.lhsm_s3_deleting.*`). Who says it has a
    /// `number` that nobody else has; said again by the same, it is the later words that stand.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn announce_deletion(&self, fid: Fid, number: u64, words: &[u8]) -> Result<(), HsmError>;

    /// Takes that back, and nobody else's; absent is fine.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn withdraw_deletion(&self, fid: Fid, number: u64) -> Result<(), HsmError>;

    /// Notes on a file that an object of it was deleted (`trusted.lhsm_s3_deleted`), in the place of an earlier note.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn note_deletion(&self, fid: Fid, words: &[u8]) -> Result<(), HsmError>;

    /// All that is said of it on a file; one call where nothing is.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn deletions(&self, fid: Fid) -> Result<Deletions, HsmError>;

    /// Notes that a file's data came back just now. Its times are those of before, and a release that asks for files
    /// that nobody used lately must not take it away again: the note changes its ctime.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn note_restored(&self, fid: Fid) -> Result<(), HsmError>;

    /// Whether the file's data is only in its archive.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn is_released(&self, fid: Fid) -> Result<bool, HsmError>;

    /// Whether the coordinator takes the file's copy for good: released, or archived and not dirty.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn is_archived(&self, fid: Fid) -> Result<bool, HsmError>;

    /// What HSM says of the file's copy, of whatever version of the file it is.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn copy_state(&self, fid: Fid) -> Result<CopyState, HsmError>;

    /// Whether the coordinator has an archive of the file that is not over. It looks through its whole log for the answer:
    /// ask rarely.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn has_archive(&self, fid: Fid) -> Result<bool, HsmError>;

    /// Looks at a file whose archive was begun: what HSM says of its copy. Where a remove ran since the coordinator sent
    /// the archive the file no longer counts as one with a copy, and no later write would make it dirty: that is put right,
    /// in archive `id`, before the first byte is read.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn prepare_archive(&self, fid: Fid, id: Option<ArchiveId>) -> Result<CopyState, HsmError>;

    /// Asks the coordinator once more for the archive of a file in archive `id`. `false`: it was not asked, for the file
    /// needs none, or the coordinator ended that archive itself and knows of none that it owes.
    ///
    /// # Errors
    /// EAGAIN: it is off. ENOENT when the file is gone.
    fn ask_again(&self, fid: Fid, id: Option<ArchiveId>) -> Result<bool, HsmError>;

    /// What an archive says of a file beside its owner and times: extended attributes, layout, further names.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn extras(&self, fid: Fid, file: &File) -> Result<ExtraMetadata, HsmError>;

    /// Bytes of a file, released or not; reads nothing of it.
    ///
    /// # Errors
    /// ENOENT when the file is gone.
    fn size_of(&self, fid: Fid) -> Result<u64, HsmError>;

    /// Whether the file has no name any more; somebody may have it open.
    ///
    /// # Errors
    /// What tells neither.
    fn is_unlinked(&self, fid: Fid) -> Result<bool, HsmError>;

    /// The data version of an open file: it changes with every write. `None` where it can't be told.
    fn data_version(&self, file: &File) -> Option<u64>;

    /// The data version of the file's archived copy, as HSM keeps it beside the file's state: that of the last archive that
    /// counted, or what the last restore gave the file. `None` where it can't be told.
    fn archived_version(&self, _: Fid) -> Option<u64> {
        None
    }

    /// When a file's data was changed last, released or not. `None` where it can't be told.
    fn mtime_of(&self, _: Fid) -> Option<Timestamp> {
        None
    }

    /// Takes the file's ARCHIVED state away, so that nobody can release it any more.
    ///
    /// # Errors
    /// EINVAL when it is released already, ENOENT when it is gone.
    fn revoke(&self, fid: Fid) -> Result<(), HsmError>;

    /// Whether a file with a copy can have got another FID than the one that its object was written for, by `lfs migrate -m`
    /// to another MDT. Asks nobody.
    fn may_change_fids(&self) -> bool {
        true
    }

    /// Whether files with a copy keep their FIDs for good, however many MDTs there will be. Asks nobody.
    fn keeps_fids(&self) -> bool {
        false
    }

    /// What is known of where files are.
    fn sequences(&self) -> Sequences {
        Sequences::default()
    }

    /// Finds out which MDT a file is on, for [`FileSystem::sequences`]. May not come back before a dead MDT does.
    fn find_mdt(&self, _: Fid) -> Domain {
        None
    }

    /// Tells the coordinator that an action is alive, by the file's own FID: the data FID of a restore
    /// would become final with its first report, and no successor could finish it.
    ///
    /// # Errors
    /// ECANCELED: a cancel was accepted. ENOENT: the coordinator forgot the action. EAGAIN: it is off.
    fn progress(&self, key: ActionKey, extent: Extent) -> Result<(), HsmError>;
}

/// One item of a message: what the border hands to whoever takes actions in.
#[derive(Debug)]
pub enum Arrival {
    /// Somebody waits for an answer.
    Owed(Box<dyn ActionHandle>),
    /// The same, left by a former daemon, or taken over from another mover.
    Inherited(Box<dyn ActionHandle>),
    /// Stop the action of this key; needs no answer of its own.
    Cancel(ActionKey),
    /// Nothing that comes after this is taken in.
    Last,
}
