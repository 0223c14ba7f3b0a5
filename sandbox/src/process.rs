//! The real daemon as a child process, with the sandbox's library in place of Lustre's.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lhsm_sandbox_s3::{Config, Server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// The binary.
    pub program: PathBuf,
    /// The library that is preloaded; empty: none.
    pub library: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where its log goes; `None`: nowhere.
    pub log: Option<PathBuf>,
    /// More environment.
    pub environment: Vec<(String, String)>,
}

/// A running daemon; dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Spawn {
    /// The daemon of this build between a sandbox and an embedded store. `settings` follow the lines of section
    /// `[lustre]`.
    ///
    /// # Errors
    /// It is not built, or the directory takes no file.
    pub fn between(dir: &Path, mount: &Path, store: &Server, bucket: &str, settings: &str) -> io::Result<Self> {
        let library = artifact(LIBRARY)?;
        let config = dir.join("config.toml");
        replace(
            &config,
            &format!(
                "[lustre]\nmount = '{}'\nlibrary = '{}'\nstate_dir = '{}'\n{settings}[[archive]]\nid = 1\n\
                 bucket = '{bucket}'\nendpoint_url = '{}'\n",
                mount.display(),
                library.display(),
                dir.join("state").display(),
                store.endpoint()
            ),
        )?;
        let keys = Config::default();
        Ok(Self {
            program: artifact(DAEMON)?,
            library,
            config,
            log: Some(dir.join("daemon.log")),
            environment: vec![
                ("AWS_ACCESS_KEY_ID".into(), keys.access_key),
                ("AWS_SECRET_ACCESS_KEY".into(), keys.secret_key),
            ],
        })
    }

    /// The program with these arguments, as the daemon is started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            // Nothing beside loopback is asked for credentials.
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        // None where the real library is.
        if !self.library.as_os_str().is_empty() {
            command.env("LD_PRELOAD", &self.library);
        }
        command
    }

    /// Starts it.
    ///
    /// # Errors
    /// The binary or the log can't be opened.
    pub fn start(&self) -> io::Result<Daemon> {
        let log = match &self.log {
            Some(path) => File::options().create(true).append(true).open(path)?.into(),
            None => Stdio::null(),
        };
        self.start_to(log)
    }

    /// Starts it with its log going elsewhere.
    ///
    /// # Errors
    /// The binary can't be run.
    pub fn start_to(&self, stderr: Stdio) -> io::Result<Daemon> {
        let mut command = self.command(&[]);
        command.stdout(Stdio::null()).stderr(stderr);
        Ok(Daemon {
            child: command.spawn()?,
        })
    }
}

impl Daemon {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// It does not end in that time.
    pub fn stop(mut self, limit: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in that time.
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let until = Instant::now() + limit;
        let pidfd = pidfd(self.child.id())?;
        let ms = u16::try_from(limit.as_millis()).unwrap_or(u16::MAX);
        let mut fds = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(&pidfd),
            nix::poll::PollFlags::POLLIN,
        )];
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the daemon did not end in time",
                ));
            }
            match nix::poll::poll(&mut fds, ms) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory now and at its most, in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory(&self) -> io::Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .map(|kib| kib * 1024)
                .ok_or_else(|| io::Error::other(format!("no {name} in /proc status")))
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_running() {
            // It may have ended this moment.
            let _gone = self.child.kill();
        }
        let _reaped = self.child.wait();
    }
}

fn pidfd(pid: u32) -> io::Result<std::os::fd::OwnedFd> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "no wrapper for pidfd_open")]
    // SAFETY: takes two numbers, gives a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "no wrapper for pidfd_open")]
    // SAFETY: just made, ours alone.
    let fd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
    Ok(fd)
}

/// Writes a file that a process may be reading: it sees the former or this one, never a part.
///
/// # Errors
/// The directory takes no file.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// A file that the workspace's build made: the daemon, the sandbox's library.
///
/// # Errors
/// It was not built; says how to.
pub fn artifact(name: &str) -> io::Result<PathBuf> {
    // One that was built in another way, with a sanitizer say.
    if name == DAEMON
        && let Some(program) = std::env::var_os("LHSM_DAEMON")
    {
        return Ok(program.into());
    }
    let exe = std::env::current_exe()?;
    let newest = exe
        .ancestors()
        .skip(1)
        .take(2)
        .flat_map(|dir| [dir.join(name), dir.join("deps").join(name)])
        .filter_map(|path| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max();
    newest.map(|(_, path)| path).ok_or_else(|| {
        io::Error::other(format!(
            "'{name}' is not beside '{}': build the whole workspace (cargo build --workspace)",
            exe.display()
        ))
    })
}

/// The daemon's binary.
const DAEMON: &str = "lhsmtool-s3";

/// The sandbox's liblustreapi.
pub const LIBRARY: &str = "liblustreapi_sandbox.so";
