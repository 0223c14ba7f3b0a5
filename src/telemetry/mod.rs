//! What the daemon tells about itself.

mod logging;
mod metrics;
mod server;

pub use logging::init;
pub use metrics::Sources;
pub use server::MetricsServer;
