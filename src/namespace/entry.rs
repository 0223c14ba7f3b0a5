//! One object, as a listing or an inventory tells it.

pub use crate::store::Entry;
