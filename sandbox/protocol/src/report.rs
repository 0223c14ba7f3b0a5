//! What the coordinator tells of files, actions, copytools and itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Action, ActionState, Fid};

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
    /// Copytool that it was sent to last.
    pub agent: Option<String>,
    /// How it ended.
    pub errval: i32,
    /// How many times a copytool answered it.
    pub ends: u32,
    /// How many times it was sent.
    pub sends: u32,
    /// Milliseconds since its message was in a pipe of that copytool's; `None`: it was not, or waits again.
    pub delivered_ms: Option<u64>,
    /// Progress reports.
    pub progress: u32,
    /// Its copytool had synced the restored data before it said that it was done, and they went with a restart of the MDT
    /// between the two.
    pub spoiled: bool,
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
    /// Actions out at it, as the MDTs count them (`current` in `hsm.agents`), all together. A registration anew begins at 0,
    /// and the ends of older actions push it below.
    pub outstanding: i64,
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
