//! What is said to the coordinator, and its answers.

use serde::{Deserialize, Serialize};

use crate::{
    Action, AgentInfo, ChangeRecord, Counters, Fault, Fid, FileState, HsmControl, Item, NodeEvent, NodeInfo,
    RequestInfo, Tunable, UserChange,
};

/// To the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// The first that a process of a node says: all that follows on this connection comes from that node. Who does not say
    /// it is an administrator, who is always heard.
    Node(String),
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
        /// The same as the copytool gave it: the library may have failed since.
        asked: i32,
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
    /// `LL_IOC_FUTIMES_3` on a restore's file (by its own FID): whether it is there still; an errno when not.
    VolatileTimes(Fid),
    /// Whether an archive's file (device and inode) may be read; an errno when not. Asked only while [`IO_FAULTS`] says so.
    ///
    /// [`IO_FAULTS`]: crate::IO_FAULTS
    Read(u64, u64),
    /// The same for a write to a restore's file.
    Write(u64, u64),
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
    /// What becomes of the node of that name; ENOENT when none was ever heard of.
    NodeEvent(String, NodeEvent),
    /// All nodes that were ever heard of.
    Nodes,
    /// Waits until a node that is silent has been evicted, or is heard again, so many milliseconds at most.
    WaitEvicted(String, u64),
    /// Waits until that MDT's coordinator waits in a send to a silent node, so many milliseconds at most.
    WaitHeldUp(u32, u64),
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
    /// Nodes.
    Nodes(Vec<NodeInfo>),
    /// Counters.
    Counters(Counters),
}
