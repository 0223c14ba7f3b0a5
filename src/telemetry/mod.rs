//! What the daemon tells about itself.

mod completions;
mod event_fifo;
mod logging;
mod metrics;
mod mover;
mod notify;
mod server;
mod sink;
mod sources;
mod stderr;

pub use completions::{CompletionOptions, Completions};
pub use event_fifo::{EventFifo, FifoUpdates, FifoWitness};
pub use logging::{init, set_level};
pub use notify::{Pulse, alive, beat_interval, ready, stopping};
pub use server::MetricsServer;
pub use sink::LogFormat;
pub use sources::{Link, Sources};
pub use stderr::{flush, log_panics, say, write_by_thread};
