//! What the daemon tells about itself.

mod logging;
mod metrics;
mod mover;
mod server;
mod sources;

pub use logging::init;
pub use mover::{Failures, Mover, Running, Sum};
pub use server::MetricsServer;
pub use sources::{Link, Sources};
