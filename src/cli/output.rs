//! What commands print. Whoever reads it may stop early (`| head`), and its device may be full: a command that only
//! tells ends then as others do, without a word, and one that changes something goes on to its end.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ExitWith;

/// As a shell has it for a command that SIGPIPE ended.
const READER_GONE: u8 = 128 + 13;

/// Whether there is nothing to be done where nobody listens.
static ENDS_UNHEARD: AtomicBool = AtomicBool::new(false);
/// Why something was not printed.
static FAILED: OnceLock<String> = OnceLock::new();

type Failure = Box<dyn std::error::Error>;

/// A line on stdout.
macro_rules! outln {
    ($($text:tt)*) => {
        $crate::cli::output::print(&format!("{}\n", format_args!($($text)*)))
    };
}

/// A line on stderr.
macro_rules! errln {
    ($($text:tt)*) => {
        $crate::telemetry::say(format!("{}\n", format_args!($($text)*)).as_bytes())
    };
}

/// A command begins. `ends_unheard`: it takes long, and changes nothing.
pub(super) fn begin(ends_unheard: bool) {
    ENDS_UNHEARD.store(ends_unheard, Ordering::Relaxed);
}

/// Prints. Without a reader that is no error; what else keeps it from being printed is told by [`told`].
pub(super) fn print(text: &str) {
    match Stdout.write_all(text.as_bytes()) {
        Ok(()) => {}
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // The first reason is enough.
            let _first = FAILED.set(error.to_string());
        }
        Err(_) if ENDS_UNHEARD.load(Ordering::Relaxed) => end_unheard(),
        Err(_) => {}
    }
}

#[expect(clippy::exit, reason = "as SIGPIPE would end it, in whatever thread")]
fn end_unheard() {
    std::process::exit(READER_GONE.into());
}

/// How a command ended, when what it printed counts, too.
///
/// # Errors
/// Its own, or that stdout could not be written. Without words: nobody reads what it tells.
pub fn told(result: Result<(), Failure>) -> Result<(), Failure> {
    let is_unheard = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match (result, FAILED.get()) {
        (Err(error), _) if error.downcast_ref::<io::Error>().is_some_and(is_unheard) => {
            let quiet = ExitWith {
                code: READER_GONE,
                message: String::new(),
            };
            Err(quiet.into())
        }
        (Err(error), _) => Err(error),
        (Ok(()), Some(error)) => Err(ExitWith::failed(format!("stdout can't be written: {error}")).into()),
        (Ok(()), None) => Ok(()),
    }
}

/// Standard output, for who has much to tell: without a reader that is an error, and ends it.
#[derive(Debug)]
pub(super) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stdout = io::stdout().lock();
        let n = stdout.write(bytes)?;
        stdout.flush()?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
