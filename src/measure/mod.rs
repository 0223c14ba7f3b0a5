//! What is counted while work goes on, so cheaply that nobody waits for it.

mod histogram;
mod recent;

pub use histogram::Histogram;
pub use recent::Recent;
