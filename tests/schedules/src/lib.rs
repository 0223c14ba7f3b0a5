//! The daemon's files that threads meet in, compiled as they are, with a [`sync`] in which a scheduler decides at each
//! lock, wait, wake-up and atomic who runs on. The checks over them are in `checks/`.
//!
//! A package of its own, for nothing here stands on the S3 client: what the files want of the store and of lanes is a few
//! plain types. `cfg(test)` is not set here, so the files' own tests stay where they are.

// The files' own tests are the daemon's.
#![cfg(not(test))]
#![expect(dead_code, reason = "of some files only what the checks call is used")]

#[path = "../../../src/action.rs"]
pub mod action;
#[path = "../../../src/database.rs"]
pub mod database;
pub mod disk;
#[path = "../../../src/journal/mod.rs"]
pub mod journal;
#[path = "../../../src/queue/mod.rs"]
pub mod queue;
pub mod store;
pub mod sync;
#[path = "../../../src/thread/mod.rs"]
pub mod thread;
pub mod transfer;
#[path = "../../../src/types/mod.rs"]
pub mod types;
