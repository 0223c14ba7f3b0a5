//! What an administrator sets.

use serde::{Deserialize, Serialize};

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
    /// Milliseconds of silence until the servers evict a node.
    EvictionMs,
}
