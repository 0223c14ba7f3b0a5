//! A program of the sandbox that runs on this machine, beside the guest.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::bounded::Lines;

/// This machine's loopback, as a guest sees it.
pub(super) const HOST: &str = "10.0.2.2";
/// For its start and its end.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Beside(Child);

impl Beside {
    /// Runs `sandbox` with these arguments, and waits for the line of what it says that is the one.
    ///
    /// # Errors
    /// It can't be run, or ends or is silent before that line.
    pub(super) fn start(
        binaries: &Path,
        arguments: &[&OsStr],
        log: &Path,
        is_the_one: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Self, String> {
        let named = |error: std::io::Error| format!("'{}': {error}", log.display());
        let file = File::create(log).map_err(named)?;
        let program = binaries.join("sandbox");
        let child = Command::new(&program)
            .args(arguments)
            // It ends when this end of its input is gone, however this process ends.
            .stdin(Stdio::piped())
            .stdout(file.try_clone().map_err(named)?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("can't run '{}': {error}", program.display()))?;
        let mut beside = Self(child);
        let mut lines = Lines::of(log).map_err(named)?;
        let (began, mut is_there) = (Instant::now(), false);
        loop {
            // Before the last look at what it said.
            let ended = beside.0.try_wait().map_err(named)?.is_some();
            lines
                .read(&mut |line| is_there = is_there || is_the_one(line))
                .map_err(named)?;
            if is_there {
                return Ok(beside);
            }
            if ended || began.elapsed() > PATIENCE {
                let what = arguments.first().copied().unwrap_or_default().display();
                return Err(format!("'sandbox {what}' did not start; see '{}'", log.display()));
            }
            std::thread::park_timeout(POLL);
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let began = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                let _gone = self.0.kill();
                break;
            }
            std::thread::park_timeout(POLL);
        }
        let _reaped = self.0.wait();
    }
}
