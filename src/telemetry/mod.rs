//! What the daemon tells about itself.

mod completions;
mod event_fifo;
mod fleet;
mod logging;
mod metrics;
mod mover;
mod notify;
mod server;
mod sink;
mod sources;
mod stderr;
mod telling;

pub use completions::{CompletionOptions, Completions};
pub use event_fifo::{EventFifo, FifoObserver, FifoUpdates};
pub use logging::{init, set_level};
pub use mover::host;
pub use notify::{StatusNotifier, alive, beat_interval, ready, stopping};
pub use server::MetricsServer;
pub use sink::LogFormat;
pub use sources::{ReaderLink, TelemetrySources};
pub use stderr::{flush, log_panics, say, write_by_thread};
pub use telling::telling;
