//! A command that is given so much time and no more; what it says goes to a file and, line by line, to whoever listens.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// How long it may take, and how long it may say nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) total: Duration,
    pub(super) silence: Duration,
}

impl Limits {
    /// Without a word for all of that time.
    pub(super) const fn within(total: Duration) -> Self {
        Self { total, silence: total }
    }
}

/// Runs it to its end. One that is over its limits is killed, with whatever it started in its process group.
///
/// # Errors
/// It can't be run, or it was over its limits; says which, and where its output is.
pub(super) fn run(
    command: &mut Command,
    log: &Path,
    limits: Limits,
    seen: &mut dyn FnMut(&str),
) -> Result<ExitStatus, String> {
    let named = |error: io::Error| format!("'{}': {error}", log.display());
    let file = File::create(log).map_err(named)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(named)?)
        .stderr(file)
        // Of its own, so that the whole of it can be ended.
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| format!("can't run '{}': {error}", command.get_program().display()))?;
    let mut lines = Lines::of(log).map_err(named)?;
    let (began, mut heard) = (Instant::now(), Instant::now());
    loop {
        // Before the last look at what it said.
        let ended = child.try_wait().map_err(named)?;
        if lines.read(seen).map_err(named)? {
            heard = Instant::now();
        }
        if let Some(status) = ended {
            lines.last(seen);
            return Ok(status);
        }
        let why = if began.elapsed() > limits.total {
            format!("was not done in {} s", limits.total.as_secs())
        } else if heard.elapsed() > limits.silence {
            format!("said nothing for {} s", limits.silence.as_secs())
        } else {
            std::thread::park_timeout(POLL);
            continue;
        };
        end_group(&mut child);
        return Err(format!("it {why}; its output is in '{}'", log.display()));
    }
}

/// A child that has a process group of its own, with all of that.
fn end_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    // Not every sh's own kill knows groups.
    let killed = Command::new("bash")
        .args(["-c", "kill -KILL -- \"$1\"", "bash", &group])
        .status();
    if !killed.is_ok_and(|status| status.success()) {
        // It has just ended, or there is no sh: then at least itself.
        let _gone = child.kill();
    }
    let _reaped = child.wait();
}

/// The lines of a file that grows.
#[derive(Debug)]
pub(super) struct Lines {
    file: BufReader<File>,
    part: Vec<u8>,
}

impl Lines {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufReader::new(File::open(path)?),
            part: Vec::new(),
        })
    }

    /// What has come since; whether anything has.
    pub(super) fn read(&mut self, seen: &mut dyn FnMut(&str)) -> io::Result<bool> {
        let mut any = false;
        while self.file.read_until(b'\n', &mut self.part)? > 0 {
            any = true;
            if self.part.ends_with(b"\n") {
                self.last(seen);
            }
        }
        Ok(any)
    }

    /// The last one, which has no end.
    fn last(&mut self, seen: &mut dyn FnMut(&str)) {
        if !self.part.is_empty() {
            seen(String::from_utf8_lossy(&self.part).trim_end());
            self.part.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("lhsm-xtask-{}-{name}", std::process::id()))
    }

    #[test]
    fn every_line_is_heard_also_one_without_an_end() {
        let log = log("lines");
        let mut said = Vec::new();
        let status = run(
            Command::new("printf").arg("one\\ntwo\\nthree"),
            &log,
            Limits::within(Duration::from_secs(60)),
            &mut |line| said.push(line.to_owned()),
        );
        assert!(status.unwrap().success());
        assert_eq!(said, ["one", "two", "three"]);
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_what_it_started() {
        let log = log("hangs");
        let mut child = 0;
        let error = run(
            Command::new("sh").args(["-c", "sleep 1000 & echo $!; wait"]),
            &log,
            Limits {
                total: Duration::from_secs(600),
                silence: Duration::from_millis(300),
            },
            &mut |line| child = line.parse::<u32>().unwrap(),
        )
        .unwrap_err();
        assert!(error.contains("said nothing"), "{error}");
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            // Gone, or with whoever takes orphans.
            stat.is_empty() || stat.contains(") Z ")
        };
        let began = Instant::now();
        while !is_gone() {
            assert!(began.elapsed() < Duration::from_secs(10), "{child} lives");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        std::fs::remove_file(log).unwrap();
    }
}
