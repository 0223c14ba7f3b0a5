//! Locks are as ever; the time is tokio's.

pub(crate) use std::sync::{Mutex, atomic};

pub(crate) use tokio::time::Instant;
