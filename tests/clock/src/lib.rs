//! The files by which requests are tried again, compiled as they are, on tokio's paused clock: where all wait, it jumps to
//! the first that wakes, so hours pass in no time and each wait has just the length that it says.

#![cfg(test)]
#![expect(dead_code, reason = "of some files only what the retry loop uses is")]

mod measure;
mod store;
mod sync;
mod transfer;
