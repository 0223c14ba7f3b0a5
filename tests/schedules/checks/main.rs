//! Checks in many schedules: whatever order threads run in, nothing is done twice, forgotten, or waited for in vain.
//!
//! A check that fails prints its seed and the schedule. `SCHEDULES_SEED=N cargo test --workspace --test schedules NAME`
//! runs the same ones again, `SCHEDULES=N` more or fewer of them.
//!
//! That a check could fail is part of it: each room has a test that leaves out its lines that wake threads up, one by one,
//! and wants some schedule to wait for ever then. What can't be found here: orders of memory weaker than the strongest, and
//! what `tokio` and the database do inside.

#![expect(clippy::unwrap_used, reason = "a check fails by panicking, its threads too")]

mod handles;
mod harness;
mod journal;
mod queue;
mod threads;
mod transfer;
