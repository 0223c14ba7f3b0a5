//! `lhsmtool-s3`: the copytool that joins Lustre HSM to S3.
//!
//! Data goes from left to right, and a stage knows the one to its right, never the one to its left:
//! [`lustre`] > `intake` > `queue` > `worker` > `transfer` > `store`.

// They panic where the device is full or the reader gone: see `telemetry::say` and `cli::output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod action;
pub mod call;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod fleet;
pub mod follow;
pub mod guard;
pub mod histogram;
pub mod intake;
pub mod jobs;
pub mod journal;
pub mod lustre;
pub mod mdt;
pub mod namespace;
pub mod queue;
pub mod rebind;
pub mod recent;
pub mod scrub;
pub mod store;
mod sync;
pub mod telemetry;
pub mod thread;
pub mod transfer;
pub mod types;
pub mod worker;
