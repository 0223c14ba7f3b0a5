//! The real daemon between the sandbox's coordinator and an embedded S3.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its setup too")]

mod abi;
mod bad_input;
mod cancel;
mod check;
mod first_light;
mod fleet;
mod follow;
mod full_pipe;
mod hostile;
mod import;
mod jobs;
mod life;
mod listings;
mod matrix;
mod metrics;
mod model;
mod recovery;
mod rig;
mod scrub;
mod service;
mod transfer;
mod traps;
