//! An embedded S3 server for tests and demonstrations.
//!
//! It listens on loopback, keeps its index in memory and its bodies in a directory that it removes when it ends. It
//! speaks what a careful client needs (conditional writes, multipart uploads with full-object checksums, versions)
//! and misbehaves on demand: see [`Faults`].

#[macro_use]
mod checksum;

mod blob;
mod body;
mod buckets;
mod complete;
mod condition;
mod config;
mod delete;
mod error;
mod faults;
mod gate;
mod index;
mod list;
mod multipart;
mod object;
mod receive;
mod server;
mod service;
mod stats;
mod store;
mod sums;
mod tricks;
mod uploads;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use faults::Faults;
pub use gate::Gate;
pub use server::{ObjectInfo, Server};
pub use stats::Stats;
