//! What goes wrong, told as it comes, and not a thousand times.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};

const LINES: usize = 30;

/// Lines on standard error.
#[derive(Debug, Default)]
pub(crate) struct Told(AtomicUsize);

impl Told {
    /// The first of them, one line each.
    pub(crate) fn tell(&self, what: impl Display) {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            n if n < LINES => eprintln!("rolling: {what}"),
            LINES => eprintln!("rolling: more of these are not told"),
            _ => {}
        }
    }
}
