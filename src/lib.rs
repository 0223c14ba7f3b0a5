//! `lhsmtool-s3`: the copytool that joins Lustre HSM to S3.
//!
//! Each room (a module at the top) knows what it stands on, never what stands on it. From the ground to the roof:
//!
//! - `sync`, [`measure`], [`thread`], [`types`], [`action`], [`fleet`], [`database`]: what all may know
//! - the two borders, unknown to each other: [`lustre`] to the kernel, [`store`] to S3
//! - [`transfer`] on both: the bytes of one file; [`mapped`]: which object is a file's copy
//! - two wings on that, unknown to each other: the daemon ([`journal`], [`ledger`], [`queue`], [`worker`], [`intake`],
//!   [`telemetry`], [`config`], [`daemon`]) and the tools ([`disk`], [`walk`], [`ranges`], [`nodes`], [`import`], [`jobs`], [`scrub`],
//!   [`rebind`], [`follow`])
//! - [`cli`]: one file a command
//!
//! `cargo xtask layers` shows what stands on what, and fails where an arrow goes up.

// They panic where the device is full or the reader gone: see `telemetry::say` and `cli::output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod action;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod database;
pub mod disk;
pub mod fleet;
pub mod follow;
pub mod import;
pub mod intake;
pub mod jobs;
pub mod journal;
pub mod ledger;
pub mod lustre;
pub mod mapped;
pub mod measure;
pub mod mislaid;
pub mod nodes;
pub mod queue;
pub mod ranges;
pub mod rebind;
#[cfg(test)]
mod schedules;
pub mod scrub;
pub mod store;
mod sync;
pub mod telemetry;
pub mod thread;
pub mod transfer;
pub mod types;
pub mod walk;
pub mod worker;
