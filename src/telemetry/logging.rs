//! Log lines on stderr, where systemd takes them.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

use super::sink::LogFormat;
use super::stderr::{self, Lines};

type Change = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static LEVEL: OnceLock<Change> = OnceLock::new();

fn filter(level: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(level)
}

const fn lines() -> Lines {
    Lines
}

/// Starts logging. `level` holds `tracing` directives, checked before.
pub fn init(level: &str, format: LogFormat) {
    stderr::set_format(format);
    let builder = tracing_subscriber::fmt()
        .with_writer(lines)
        // It would tell of a line that can't be formatted by a macro that panics where stderr fails.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let level = filter(level);
    // Somebody else's subscriber (a test's) stays.
    let (installed, change): (_, Change) = match format {
        LogFormat::Text => {
            let builder = builder.with_env_filter(level).with_filter_reloading();
            let handle = builder.reload_handle();
            (
                builder.try_init(),
                Box::new(move |filter| handle.reload(filter).is_ok()),
            )
        }
        LogFormat::Json => {
            let builder = builder.json().with_env_filter(level).with_filter_reloading();
            let handle = builder.reload_handle();
            (
                builder.try_init(),
                Box::new(move |filter| handle.reload(filter).is_ok()),
            )
        }
    };
    if installed.is_ok() {
        // Once for each process.
        let _first = LEVEL.set(change);
    }
}

/// Changes the level of a log that runs. `false`: it is not this log.
pub fn set_level(level: &str) -> bool {
    LEVEL.get().is_some_and(|change| change(filter(level)))
}
