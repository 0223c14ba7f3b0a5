//! An embedded S3 server for tests and demonstrations.
//!
//! It listens on loopback, keeps its index in memory and its bodies in a directory that it removes when it ends. It
//! speaks what a careful client needs (conditional writes, multipart uploads with full-object checksums, versions),
//! misbehaves on demand, and speaks the dialects of other stores: see [`Faults`] and [`Dialects`].

#[macro_use]
mod checksum;

mod asked;
mod attributes;
mod back_door;
mod bend;
mod bent;
mod blob;
mod body;
mod buckets;
mod canned;
mod cold;
mod complete;
mod condition;
mod config;
mod delete;
mod dialect;
mod dialects;
mod doors;
mod error;
mod etag;
mod faults;
mod framing;
mod front;
mod gate;
mod gunzip;
mod heed;
mod index;
mod list;
mod multipart;
mod object;
mod range;
mod receive;
mod refusal;
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
pub use dialect::Dialect;
pub use dialects::Dialects;
pub use faults::Faults;
pub use gate::Gate;
pub use server::{ObjectInfo, Server};
pub use stats::Stats;
