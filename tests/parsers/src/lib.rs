//! The daemon's files that read what others write, compiled as they are, and one function for each: it is given any
//! bytes, and panics where what must hold does not. `fuzz/fuzz_targets` look for such bytes, `tests/replay.rs` gives it
//! those of `fuzz/corpus`.
//!
//! A package of its own, without the S3 client: to instrument that takes longer than the fuzzing. So a listing comes in
//! as the client has it, after the XML.

// The files' own tests are the daemon's.
#![cfg(not(test))]
#![expect(dead_code, reason = "of some files only what reads is used")]

#[path = "../../../src/action.rs"]
pub mod action;
#[path = "../../../src/import/inventory/mod.rs"]
pub mod inventory;
pub mod store;
#[path = "../../../src/types/mod.rs"]
pub mod types;
#[path = "../../../src/lustre/wire.rs"]
pub mod wire;

mod properties;

pub use properties::{
    inventory_csv, inventory_manifest, inventory_parquet, kernel_messages, listing, location, metadata,
};
