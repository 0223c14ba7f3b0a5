//! What the sandbox's library, its commands and its coordinator say to each other: one JSON value per
//! frame over a Unix socket in the mount's `.lustre` directory, with a file descriptor beside it where
//! one changes hands.

mod action;
mod changelog;
mod control;
pub mod ctime;
mod fault;
mod fid;
mod frame;
pub mod links;
mod message;
mod node;
mod report;

pub use action::{Action, ActionState, Item, flags, states};
pub use changelog::{ChangeRecord, UserChange};
pub use control::{HsmControl, Tunable};
pub use fault::{Fault, Step};
pub use fid::Fid;
pub use frame::{Connection, IO_FAULTS, SOCKET, connect, listen};
pub use message::{Reply, Request};
pub use node::{NodeEvent, NodeInfo, NodeState};
pub use report::{AgentInfo, Counters, FileState, RequestInfo};
