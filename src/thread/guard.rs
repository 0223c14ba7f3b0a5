//! For threads that owe answers: a panic in one piece of their work must not end them.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does one piece of work. What it holds is dropped when it panics: an action handle then answers EIO. What is left
/// half done must be of that piece alone.
///
/// # Errors
/// It panicked, with these words; the log has them already.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_default()
    })
}
