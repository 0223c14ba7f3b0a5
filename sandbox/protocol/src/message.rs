//! The vocabulary. Numbers are those of Lustre's headers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `HS_*`
pub mod states {
    #![expect(missing_docs, reason = "named as in lustre_user.h")]
    pub const EXISTS: u32 = 0x1;
    pub const DIRTY: u32 = 0x2;
    pub const RELEASED: u32 = 0x4;
    pub const ARCHIVED: u32 = 0x8;
    pub const NORELEASE: u32 = 0x10;
    pub const NOARCHIVE: u32 = 0x20;
    pub const LOST: u32 = 0x40;
}

/// Flags of requests and progress reports.
pub mod flags {
    #![expect(missing_docs, reason = "named as in lustre_user.h")]
    pub const REQ_BLOCKING: u64 = 4;
    pub const FORCE_ACTION: u64 = 1;
    pub const HP_RETRY: u16 = 2;
}

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

/// `HSMA_*`
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Action {
    /// 20
    Archive,
    /// 21
    Restore,
    /// 22
    Remove,
    /// 23
    Cancel,
    /// Any other number, to see what a copytool does.
    Other(u32),
}

impl Action {
    /// `HSMA_*`
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Archive => 20,
            Self::Restore => 21,
            Self::Remove => 22,
            Self::Cancel => 23,
            Self::Other(number) => number,
        }
    }

    /// From `HSMA_*`.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            20 => Self::Archive,
            21 => Self::Restore,
            22 => Self::Remove,
            23 => Self::Cancel,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive => f.write_str("ARCHIVE"),
            Self::Restore => f.write_str("RESTORE"),
            Self::Remove => f.write_str("REMOVE"),
            Self::Cancel => f.write_str("CANCEL"),
            Self::Other(number) => write!(f, "UNKNOWN({number})"),
        }
    }
}

/// `ARS_*`
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ActionState {
    /// Not sent to a copytool.
    Waiting,
    /// Sent.
    Started,
    /// Over, well (a cancel that was obeyed, too).
    Succeed,
    /// Over, not well.
    Failed,
    /// Given up.
    Canceled,
}

/// What begin and end say of an action.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The verb, or a cancel.
    pub action: Action,
    /// The file.
    pub fid: Fid,
    /// Where its data is.
    pub dfid: Fid,
    /// The action.
    pub cookie: u64,
}

/// `hsm_control`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HsmControl {
    /// Runs.
    Enabled,
    /// Keeps agents, sends nothing.
    Disabled,
    /// Off: forgets agents and what they run.
    Shutdown,
    /// Cancels everything.
    Purge,
}

/// What can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tunable {
    /// Actions at copytools at a time.
    MaxRequests,
    /// Milliseconds without progress until an action is cancelled, silently.
    ActiveRequestTimeoutMs,
    /// Milliseconds between two looks at what timed out.
    LoopPeriodMs,
    /// Milliseconds between two looks at what waits.
    TickMs,
    /// Remove the copy with the file's last name.
    RemoveArchiveOnLastUnlink,
    /// 0: the default policy, NoRetryAction.
    RetryAction,
}

/// What a copytool does on the way to an action's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// `LL_IOC_HSM_COPY_START`
    Begin,
    /// It sets an attribute of the file.
    Map,
    /// It removes one, or changes the file's states.
    Unmap,
    /// `LL_IOC_HSM_COPY_END`
    End,
}

/// What goes wrong when asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The next messages are written in pieces of so many bytes; 0 ends it.
    Fragment(usize),
    /// The next `n` messages are sent twice.
    Duplicate(u32),
    /// Garbage is written to each agent's pipe.
    Garbage(Vec<u8>),
    /// Each agent's pipe is closed by the kernel's side.
    ClosePipes,
    /// The next `n` ends of any action answer this errno without being taken.
    EndErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` begins fail with this errno before anything was done.
    BeginErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` fsyncs of a restore's file fail with this errno.
    SyncErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` changes of a `trusted.*` attribute are refused with this errno.
    XattrErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// A write of another client's comes late: when the next action of the file has ended, and before anybody hears of that
    /// end, it changes the attribute.
    LateXattr {
        /// The file.
        fid: Fid,
        /// The attribute.
        name: String,
        /// What it is then; `None`: it is gone.
        value: Option<Vec<u8>>,
    },
    /// The next `n` reads of an archive's file fail with this errno, as on a client that was evicted.
    ReadErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` writes to a restore's file fail with this errno.
    WriteErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The copytool that next does this is killed (SIGKILL), before it is done or right after.
    Kill {
        /// The step at which it dies.
        step: Step,
        /// It dies before the step is done, else right after it.
        before: bool,
    },
    /// A cancel for an action that nobody has.
    StrayCancel,
    /// All actions out at copytools are forgotten and restores sent again, as after an MDT's restart.
    Restart,
    /// The same of one MDT.
    RestartOf(u32),
    /// So many archives of files that do not exist, as fast as the pipes take them and without a record.
    Flood(u64),
    /// An action with a number that no verb has, for the file.
    UnknownAction(Fid),
    /// The records of all changelogs are gone before they were read.
    ForgetChanges,
    /// The next `n` reads of an MDT's changelog fail with this errno; those of the others don't.
    ChangelogErrno {
        /// Whose.
        mdt: u32,
        /// Answer.
        errno: i32,
        /// How many.
        times: u32,
    },
    /// An MDT drops a reader of its changelog, as one that was idle for too long; what others need stays.
    DropReader(u32, String),
    /// Each call of a copytool or a command takes so many milliseconds from now on; 0 ends it. The process that the
    /// sandbox is part of is answered at once.
    Slow(u64),
    /// These MDTs answer no copytool and no command from now on, all others do: who asks one about its files, or all of
    /// them by registering, waits until it answers again. The process that the sandbox is part of is answered.
    Silent(Vec<u32>),
    /// These MDTs have no room for new files from now on (ENOSPC), all others do.
    Full(Vec<u32>),
    /// Whether the MDTs answer no copytool and no command: whoever asks waits, as in the kernel, until it is over. The
    /// process that the sandbox is part of is answered.
    Silence(bool),
}

/// To the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// The file system's name.
    FsName,
    /// `LL_IOC_HSM_CT_START`; the pipe's write end comes with it. Answered 1 where a descriptor registers only once.
    Register {
        /// `lk_uid`
        uid: u32,
        /// Ids; none: all.
        archives: Vec<u32>,
        /// They came as a list, which 2.10 does not know.
        listed: bool,
        /// The node.
        client: String,
    },
    /// The same with `LK_FLG_STOP`.
    Unregister {
        /// `lk_uid`; 0: all
        uid: u32,
        /// The node.
        client: String,
    },
    /// `LL_IOC_HSM_PROGRESS`
    Progress {
        /// `hp_fid`
        fid: Fid,
        /// `hp_cookie`
        cookie: u64,
        /// Where in the file, in bytes.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// `LL_IOC_HSM_COPY_START`
    CopyStart(Item),
    /// `LL_IOC_HSM_COPY_END`; a restore's volatile file comes with it.
    CopyEnd {
        /// The action, as it was sent.
        item: Item,
        /// `HP_FLAG_*`
        flags: u16,
        /// 0 or what failed.
        errval: i32,
        /// As sampled by CopyStart; 0: none was.
        data_version: u64,
        /// The volatile has no layout: what is written to it is lost.
        no_layout: bool,
        /// `lustre.lov` as set on the volatile.
        layout: Option<Vec<u8>>,
    },
    /// A FID for a new volatile file on that MDT; ENODEV when there is none.
    NewVolatile(u32),
    /// A file's data version.
    DataVersion(Fid),
    /// Whether a restore's file (by its own FID) may be synced; an errno when not.
    Sync(Fid),
    /// Whether an archive's file may be read; an errno when not. Asked only while there are [`IO_FAULTS`].
    ///
    /// [`IO_FAULTS`]: crate::IO_FAULTS
    Read,
    /// The same for a write to a restore's file.
    Write,
    /// Number of MDTs.
    MdtCount,
    /// The MDT that a FID is on.
    MdtOf(Fid),
    /// One of a file's paths, relative: the n-th of its names.
    PathOf(Fid, u32),
    /// The FID of a path below the mount point; makes one.
    FidOf(String),
    /// Makes a directory, relative, on that MDT; ENODEV when there is none.
    MakeDir(String, u32),
    /// The FID of an inode, if it has one.
    FidOfInode {
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
    },
    /// A `trusted.*` or `lustre.*` attribute.
    GetXattr(Fid, String),
    /// Names of all `trusted.*` attributes, each with a NUL behind it.
    ListXattr(Fid),
    /// Sets one.
    SetXattr(Fid, String, Vec<u8>),
    /// Removes one.
    RemoveXattr(Fid, String),
    /// `llapi_hsm_request`
    Hsm {
        /// The verb, or a cancel.
        action: Action,
        /// 0: the default.
        archive_id: u32,
        /// `hr_flags`
        flags: u64,
        /// Files.
        fids: Vec<Fid>,
        /// For the copytool.
        data: Vec<u8>,
    },
    /// `LL_IOC_HSM_IMPORT`: a file that the caller has just made is released from now on.
    Import {
        /// Its path below the mount point.
        path: Vec<u8>,
        /// 0 is taken as it is.
        archive_id: u32,
        /// Permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Bytes.
        size: u64,
        /// Last access and last change, in seconds.
        times: (i64, i64),
    },
    /// `LL_IOC_FUTIMES_3`
    SetTimes {
        /// File.
        fid: Fid,
        /// Last access.
        atime: (i64, i64),
        /// Last change of its data.
        mtime: (i64, i64),
        /// Last change.
        ctime: (i64, i64),
    },
    /// `lfs hsm_release`
    Release(Fid),
    /// `lfs hsm_state`
    State(Fid),
    /// `lfs hsm_set`, `hsm_clear`
    SetState {
        /// File.
        fid: Fid,
        /// Flags to set.
        set: u32,
        /// Flags to clear.
        clear: u32,
        /// Archive id to set.
        archive_id: Option<u32>,
    },
    /// `hsm_control` of one MDT.
    Control(u32, HsmControl),
    /// A tunable.
    Set(Tunable, u64),
    /// `max_requests` of one MDT; all others have that of [`Tunable::MaxRequests`].
    SetMaxRequests(u32, usize),
    /// Trouble.
    Inject(Fault),
    /// All known actions, ended ones too.
    Actions,
    /// Actions that are not over, without listing them.
    Pending,
    /// Waits until no action of these files is pending, so many milliseconds at most.
    Wait(Vec<Fid>, u64),
    /// Waits until an action of that kind has ended for the file, so many milliseconds at most.
    WaitEnded(Action, Fid, u64),
    /// Waits until so many copytools are registered, so many milliseconds at most.
    WaitAgents(usize, u64),
    /// Waits until so many actions are out at copytools, so many milliseconds at most.
    WaitStarted(usize, u64),
    /// Waits until so many readers wait, so many milliseconds at most.
    WaitReaders(u64, u64),
    /// `lctl changelog_register` on an MDT; its name is the answer.
    ChangelogRegister(u32),
    /// Records of an MDT from that one on, some of them.
    ChangelogRead(u32, u64),
    /// `lfs changelog_clear`
    ChangelogClear(u32, String, u64),
    /// What a user does, with its record in the changelog. Plain operations on the directory have none.
    Change(UserChange),
    /// Registered copytools.
    Agents,
    /// What happened so far.
    Counters,
    /// Ends the sandbox.
    Stop,
}

impl Request {
    /// What the calls of others are counted by.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::State(_) => "State",
            Self::PathOf(..) => "PathOf",
            Self::FidOf(_) | Self::FidOfInode { .. } => "FidOf",
            Self::GetXattr(..) => "GetXattr",
            Self::ListXattr(_) => "ListXattr",
            Self::SetXattr(..) => "SetXattr",
            Self::MdtOf(_) => "MdtOf",
            Self::Hsm { .. } => "Hsm",
            Self::CopyStart(_) => "CopyStart",
            Self::CopyEnd { .. } => "CopyEnd",
            Self::Progress { .. } => "Progress",
            Self::ChangelogRead(..) => "ChangelogRead",
            Self::ChangelogClear(..) => "ChangelogClear",
            _ => "other",
        }
    }
}

/// What a user does. Paths are relative.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum UserChange {
    /// Makes a file or writes it anew.
    Write(Vec<u8>, Vec<u8>),
    /// Makes a directory.
    Mkdir(Vec<u8>),
    /// Makes a symlink with that target.
    Symlink(Vec<u8>, Vec<u8>),
    /// A second name for the first.
    Link(Vec<u8>, Vec<u8>),
    /// Sets permissions.
    Chmod(Vec<u8>, u32),
    /// Removes a name.
    Unlink(Vec<u8>),
    /// Removes a directory.
    Rmdir(Vec<u8>),
    /// From, to.
    Rename(Vec<u8>, Vec<u8>),
}

/// A line of the changelog.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Counts up.
    pub index: u64,
    /// `CL_*`
    pub kind: u32,
    /// The lower bits of `cr_flags`.
    pub flags: u16,
    /// The file; of a rename what was replaced.
    pub target: Option<Fid>,
    /// The directory.
    pub parent: Option<Fid>,
    /// The name.
    pub name: Vec<u8>,
    /// Of a rename: what was moved, and from which directory.
    pub source: Option<(Fid, Fid)>,
    /// Of a rename: the name before.
    pub old_name: Vec<u8>,
}

/// `lfs hsm_state`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileState {
    /// `HS_*`
    pub states: u32,
    /// The archive id; 0 where none was named.
    pub archive_id: u32,
    /// What goes on, if anything.
    pub action: Option<(Action, ActionState)>,
}

/// One action.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestInfo {
    /// The verb, or a cancel.
    pub action: Action,
    /// File.
    pub fid: Fid,
    /// Number.
    pub cookie: u64,
    /// Archive.
    pub archive_id: u32,
    /// Where it is.
    pub state: ActionState,
    /// How it ended.
    pub errval: i32,
    /// How many times a copytool answered it.
    pub ends: u32,
    /// How many times it was sent.
    pub sends: u32,
    /// Progress reports.
    pub progress: u32,
}

/// One registration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Node.
    pub client: String,
    /// MDTs that know it.
    pub mdts: Vec<u32>,
    /// Ids; none: all.
    pub archives: Vec<u32>,
    /// Pipes that get its messages.
    pub pipes: usize,
    /// Actions out at it.
    pub outstanding: usize,
}

/// What happened so far.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Messages written.
    pub messages: u64,
    /// Microseconds for which a full pipe blocked the writer, all together.
    pub writer_blocked_us: u64,
    /// The longest of these.
    pub writer_blocked_longest_us: u64,
    /// Actions that ended, by what they ended with (`ARCHIVE SUCCEED`).
    pub ended: BTreeMap<String, u64>,
    /// Actions that nobody answered in time.
    pub timed_out: u64,
    /// Readers that wait for a restore.
    pub readers: u64,
    /// Registrations that a real 2.17 client would not have survived.
    pub kernel_crashes: u64,
    /// Progress reports.
    pub progress: u64,
    /// Those of them with a cookie that no action ever had: each is an error in a real MDS's log.
    pub unknown_cookies: u64,
    /// Actions of a flood that are still to be written.
    pub flood_left: u64,
    /// Lines of all changelogs that are kept.
    pub changes: u64,
    /// Calls of other processes than the sandbox's own, by what they were for.
    pub calls: BTreeMap<String, u64>,
    /// The most of them at a time, of each kind, while calls are slow.
    pub at_once: BTreeMap<String, u64>,
}

/// From the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done; the number depends on the request.
    Ok(u64),
    /// A positive errno.
    Errno(i32),
    /// A text.
    Text(String),
    /// A FID.
    Fid(Fid),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Lines of the changelog.
    Changes(Vec<ChangeRecord>),
    /// A path, and whether the file has further names.
    Path(Vec<u8>, bool),
    /// States.
    State(FileState),
    /// Actions.
    Actions(Vec<RequestInfo>),
    /// Agents.
    Agents(Vec<AgentInfo>),
    /// Counters.
    Counters(Counters),
}
