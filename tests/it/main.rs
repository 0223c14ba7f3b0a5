//! The real daemon between the sandbox's coordinator and an embedded S3.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its setup too")]

mod abi;
mod announced;
mod attributes;
mod bad_input;
mod cancel;
mod check;
mod dialects;
mod first_light;
mod fleet;
mod follow;
mod follow_mdts;
mod full_pipe;
mod hostile;
mod import;
mod jobs;
mod leave;
mod ledger;
mod left_over;
mod life;
mod listings;
mod live;
mod matrix;
mod mdts;
mod metrics;
mod model;
mod outputs;
mod owned;
mod postgres;
mod proofs;
mod quiet;
mod readback;
mod rebind;
mod recovery;
mod rig;
mod scrub;
mod scrub_many;
mod service;
mod surroundings;
mod takeover;
mod thaw;
mod threads;
mod transfer;
mod traps;
mod unlinked;
