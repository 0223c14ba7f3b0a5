//! Moves one file's bytes between an open file and an object.
//!
//! In: a file, a place in the store, a [`Control`]. Out: an object that the store confirmed, or a file
//! whose bytes were compared with the object's checksum. A chunk or two is held at a time, never a
//! part: chunks stay in the CPU's cache, and a retry reads again. Everything here runs on a worker
//! thread that may block ([`Lane`]), so that a stalled Lustre read holds its own thread and nothing
//! else. On error and on cancel nothing is left in the store by a write that failed.

mod announce;
mod body;
mod bytes;
mod chunk;
mod control;
mod download;
mod error;
mod evidence;
mod heeds;
mod lane;
mod parts;
mod plan;
mod request;
mod retry;
mod sidecar;
mod sparse;
mod sweeper;
mod upload;
mod write_slots;

pub use announce::{Bearer, Said, wait_for_deletions};
pub use bytes::{get_bytes, get_range, put_bytes};
pub use control::{Control, Stop};
pub use download::{download, read_small, verify};
pub use error::TransferError;
pub use heeds::copies_heed_conditions;
pub use lane::Lane;
pub use parts::{IdleThreads, NoIdleThreads, SharedWork};
pub use plan::{Part, Plan, PlanError, PlanOptions};
pub use request::{
    copy, delete, fetch_file, find, glance, head, is_of_one, list, pages, sweep_key, thaw, thaw_found, try_conditions,
};
pub use retry::RetryOptions;
pub use sidecar::{ObjectDescription, describe, discard_sidecar};
pub use sweeper::{sweep_uploads, uploads};
pub use upload::{NoLog, Unfinished, Upload, UploadLog, UploadedObject, abort_upload, upload};

/// How transfers are made, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransferOptions {
    /// How files are cut.
    pub plan: PlanOptions,
    /// When and how often to try again.
    pub retry: RetryOptions,
    /// Between the first two looks at an object that thaws; the pauses grow.
    pub thaw_poll: std::time::Duration,
    /// Bytes read or written at a time.
    pub chunk: usize,
}
