//! What the daemon tells about itself.

mod logging;

pub use logging::init;
