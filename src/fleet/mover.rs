//! One mover as others see it, as it travels: what `/status` and `/failures` answer, and `lhsmtool-s3 status` reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A mover at one moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Mover {
    /// Its node.
    pub host: String,
    /// The mount that it serves.
    pub mount: String,
    /// The file system, with its incarnation.
    pub file_system: String,
    /// Its release.
    pub version: String,
    /// Registered and taking work.
    pub ready: bool,
    /// It takes nothing new, and ends when what it has is done.
    #[serde(default)]
    pub draining: bool,
    /// The archive ids that it serves.
    #[serde(default)]
    pub archives: Vec<u32>,
    /// Seconds since it was started.
    pub uptime: f64,
    /// Actions that wait for a worker, by class.
    pub waiting: BTreeMap<String, u64>,
    /// Actions that a worker has, by class.
    pub running: BTreeMap<String, u64>,
    /// Seconds that the oldest waiting action has waited.
    pub oldest_waiting: Option<f64>,
    /// What has ended, by archive id and class.
    pub sums: Vec<ClassTotals>,
    /// Actions that ended a second, over the last minute.
    pub actions_per_second: f64,
    /// Bytes that went to and came from the stores a second, over the last minute.
    pub bytes_per_second: f64,
    /// Running actions, the longest first; ten at most.
    pub longest: Vec<Running>,
    /// Second and further tries of requests to the stores.
    pub retries: u64,
    /// Answers of the stores that asked for fewer requests.
    pub throttled: u64,
    /// MDTs that do not answer, of those that had actions here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_mdts: Vec<String>,
    /// How far the ledger has what this mover's journal has; `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerReport>,
    /// What the store of each archive id was found to do otherwise than S3; those of which nothing is known are left out.
    #[serde(default)]
    pub dialects: BTreeMap<u32, Vec<String>>,
}

/// How a mover's ledger is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LedgerReport {
    /// `in step`, `catching up` or `away`.
    pub state: String,
    /// Seconds since the oldest change that it lacks.
    pub lag: f64,
    /// Why it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the ledger calls this mover.
    #[serde(default)]
    pub mover: String,
    /// The random number of its process there, in hexadecimal digits.
    #[serde(default)]
    pub incarnation: String,
    /// The other movers, as this one sees them in the ledger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerReport>,
    /// Movers that this one found dead.
    #[serde(default)]
    pub found_dead: u64,
    /// Actions that it took over from dead movers.
    #[serde(default)]
    pub taken_over: u64,
    /// Actions that other movers took over from it, while it was not heard of.
    #[serde(default)]
    pub given_up: u64,
    /// Actions that other movers may take now, for this one is cut off from an MDT or a store.
    #[serde(default)]
    pub offered: u64,
    /// Actions that it took from movers that are cut off.
    #[serde(default)]
    pub offers_taken: u64,
    /// Actions that other movers took while it was cut off.
    #[serde(default)]
    pub offers_given: u64,
    /// Actions that it neither ends with an error nor carries out, until no other mover can have taken them over.
    #[serde(default)]
    pub postponed: u64,
    /// Dead movers' nodes that it has fenced.
    #[serde(default)]
    pub fences: u64,
    /// Fence commands of its that have failed.
    #[serde(default)]
    pub fence_failures: u64,
    /// Other movers for whose actions of the same files some of its own wait, and how many do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waits_for: BTreeMap<String, u64>,
}

/// Another mover, by its row in the ledger.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PeerReport {
    /// What the ledger calls it.
    pub mover: String,
    /// `serving`, `draining`, `gone` or `dead`.
    pub state: String,
    /// Seconds for which it did not renew its row while the one that tells looked.
    pub silent: f64,
    /// It is dead, and its node was fenced.
    #[serde(default)]
    pub fenced: bool,
    /// The mover that sees to the fence of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencer: Option<String>,
    /// Why the last fence command of the one that tells failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_error: Option<String>,
    /// About how many seconds it takes until the servers have evicted its node: an MDT's coordinator may stand still until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_eviction: Option<f64>,
}

/// What has ended of one archive id and class.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClassTotals {
    /// 0: the action named none.
    pub archive: u32,
    /// As in metrics.
    pub class: String,
    /// Ended as it was asked for.
    pub done: u64,
    /// With an error.
    pub failed: u64,
    /// By a cancel.
    pub cancelled: u64,
    /// Of those that were done.
    pub bytes: u64,
}

/// A running action.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Running {
    /// The file, without brackets.
    pub fid: String,
    /// Below the mount point; who asks finds it, for a look at Lustre may take long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `archive`, `restore` or `remove`.
    pub verb: String,
    /// 0: none was named.
    pub archive: u32,
    /// Since a worker took it.
    pub seconds: f64,
    /// Moved so far.
    pub bytes: u64,
}

/// Some of a mover's failures.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Failures {
    /// The number of the last one, to ask for those after it.
    pub last: u64,
    /// The oldest first.
    pub failures: Vec<ActionFailure>,
}

/// Why an action failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionFailure {
    /// Counts up, from 1.
    pub number: u64,
    /// The file, without brackets.
    pub fid: String,
    /// `archive`, `restore`, `remove`.
    pub class: String,
    /// As the coordinator was told.
    pub errno: i32,
    /// What happened.
    pub reason: String,
}
