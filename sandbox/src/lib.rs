//! A stand-in for Lustre's HSM: a coordinator over a plain directory, with real pipes and real messages,
//! for developing and testing a copytool where there is no Lustre. What it models, from which source and
//! where it is tested stands in README.md beside this crate.

pub mod client;
pub mod lfs;
pub mod mdt;
pub mod mover;
pub mod postgres;
pub mod process;
pub mod stripes;

pub use client::Client;
pub use lhsm_sandbox_protocol as protocol;
pub use mdt::{Mdt, Options};
