//! Nodes: client mounts of one file system, each with the processes on it.

use serde::{Deserialize, Serialize};

/// What becomes of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeEvent {
    /// It dies with everything: its processes are gone, and no kernel is left that tells the servers.
    Kill,
    /// No server hears it and it hears none; its processes go on.
    Cut,
    /// It stands still, its processes with it (SIGSTOP).
    Pause,
    /// It is heard again, and goes on where it stood still.
    Heal,
    /// The servers give it up now (`evict_client`, as a fence does it).
    Evict,
}

/// How a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It is heard.
    Up,
    /// It is cut off.
    Cut,
    /// It stands still.
    Paused,
    /// It is gone for good. One that boots is another one with its name.
    Dead,
}

/// One node that has been heard of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name; one that died and has booted since has a `#` and a number behind it.
    pub name: String,
    /// How it is.
    pub state: NodeState,
    /// The servers have given it up since it was heard last.
    pub evicted: bool,
    /// Processes of it that have a conversation with a server.
    pub processes: usize,
    /// Calls of it that wait, as no server hears them.
    pub calls: usize,
    /// Milliseconds since when no server hears of it.
    pub silent_ms: Option<u64>,
    /// MDTs whose coordinator waits in a send to it, and does nothing else.
    pub holds_up: Vec<u32>,
}
