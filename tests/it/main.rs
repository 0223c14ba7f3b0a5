//! The real daemon between the sandbox's coordinator and an embedded S3.

mod abi;
mod bad_input;
mod cancel;
mod first_light;
mod full_pipe;
mod life;
mod rig;
mod traps;
