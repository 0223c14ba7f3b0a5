//! What the sandbox's library, its commands and its coordinator say to each other: one JSON value per
//! frame over a Unix socket in the mount's `.lustre` directory, with a file descriptor beside it where
//! one changes hands.

pub mod ctime;
mod frame;
pub mod links;
mod message;

pub use frame::{Connection, IO_FAULTS, SOCKET, connect, listen};
pub use message::{
    Action, ActionState, AgentInfo, ChangeRecord, Counters, Fault, Fid, FileState, HsmControl, Item, Reply, Request,
    RequestInfo, Step, Tunable, UserChange, flags, states,
};
