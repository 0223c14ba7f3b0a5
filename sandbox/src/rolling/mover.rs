//! One mover, as an administrator has it: a node, a configuration, a daemon that is started, stopped and drained.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lhsm_sandbox::Client;
use lhsm_sandbox::postgres::Postgres;
use lhsm_sandbox::process::{Daemon, Spawn};
use lhsm_sandbox_s3::Server;
use nix::sys::signal::Signal;

use crate::world::{BUCKET, Result};

/// For a start, a stop, a drain or a command.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);
/// Between two questions that are a process each.
const ASK: Duration = Duration::from_millis(100);
const SETTINGS: &str = "keepalive = '200ms'\nheartbeat = '500ms'\nprogress = '500ms'\n[workers]\nthreads = 8\n\
                        restore_threads = 2\n[transfer]\nmultipart_threshold = '5MiB'\npart_size = '5MiB'\n\
                        [metrics]\nlisten = '127.0.0.1:0'\n";

/// Where all of them are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) mount: &'a Path,
    pub(crate) store: &'a Server,
    pub(crate) postgres: &'a Postgres,
}

/// A daemon of the release before.
#[derive(Clone, Debug)]
pub(crate) struct Former {
    program: PathBuf,
    pub(crate) version: String,
    /// Its settings may have a section `[ledger]`.
    pub(crate) has_ledger: bool,
    /// A SIGTERM leaves to its successor what waits. Before that was so, everything was answered with an error.
    keeps: bool,
}

impl Former {
    /// What the program can do, as it says itself.
    pub(crate) fn of(program: &Path) -> Result<Self> {
        let ask = |arguments: &[&str]| {
            std::process::Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .map_err(|error| format!("'{}' can't be run: {error}", program.display()))
        };
        let said = ask(&["--version"])?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let Some(version) = said.split_whitespace().next_back() else {
            return Err(format!("'{}' does not tell its version", program.display()).into());
        };
        Ok(Self {
            program: std::path::absolute(program)?,
            version: version.to_owned(),
            has_ledger: ask(&["help", "ledger"])?.status.success(),
            keeps: ask(&["help", "drain"])?.status.success(),
        })
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Mover {
    pub(crate) name: String,
    dir: PathBuf,
    /// Its node, as the coordinator knows it.
    node: String,
    spawn: Spawn,
    daemon: Option<Daemon>,
    /// Until it is upgraded.
    former: Option<Former>,
}

impl Mover {
    /// Configured, and not started.
    pub(crate) fn new(site: &Site<'_>, number: u32, former: Option<Former>) -> Result<Self> {
        let name = format!("mover{number}");
        let dir = site.dir.join(&name);
        std::fs::create_dir_all(&dir)?;
        let node = dir.display().to_string();
        let has_ledger = former.as_ref().is_none_or(|former| former.has_ledger);
        let mut spawn = spawn(site, &dir, &name, has_ledger)?;
        if let Some(former) = &former {
            spawn.program.clone_from(&former.program);
        }
        Ok(Self {
            name,
            dir,
            node,
            spawn,
            daemon: None,
            former,
        })
    }

    /// Starts the daemon, and waits until the coordinator knows it and the ledger has what it has.
    pub(crate) fn start(&mut self, client: &mut Client) -> Result<()> {
        let before = self.log().len();
        let mut daemon = self.spawn.start()?;
        let until = Instant::now() + PATIENCE;
        while !client.agents()?.iter().any(|agent| agent.client == self.node) {
            if !daemon.is_running() {
                return Err(self.wrong("ended as it was started").into());
            }
            if Instant::now() > until {
                return Err(self.wrong("did not register").into());
            }
            std::thread::park_timeout(LOOK);
        }
        self.daemon = Some(daemon);
        let has_ledger = self.former.as_ref().is_none_or(|former| former.has_ledger);
        if has_ledger { self.in_step(before) } else { Ok(()) }
    }

    /// As `systemctl stop`.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(daemon) = &self.daemon {
            daemon.signal(Signal::SIGTERM)?;
        }
        self.ends()
    }

    /// `lhsmtool-s3 drain --wait`, behind which its daemon is gone.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.command(&["drain", "--wait"])?;
        self.ends()
    }

    /// Whether what waits in it would be answered with an error by a stop.
    pub(crate) fn answers_on_stop(&self) -> bool {
        self.former.as_ref().is_some_and(|former| !former.keeps)
    }

    /// Actions that the coordinator counts out at it.
    pub(crate) fn outstanding(&self, client: &mut Client) -> Result<i64> {
        let agents = client.agents()?;
        let own = agents.iter().find(|agent| agent.client == self.node);
        Ok(own.map_or(0, |agent| agent.outstanding))
    }

    /// This release from its next start on.
    pub(crate) fn upgrade(&mut self, site: &Site<'_>) -> Result<()> {
        self.spawn = spawn(site, &self.dir, &self.name, true)?;
        self.former = None;
        Ok(())
    }

    fn ends(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else {
            return Err(self.wrong("does not run").into());
        };
        match daemon.wait(PATIENCE) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.wrong(&format!("ended with {status}")).into()),
            Err(error) => Err(self.wrong(&error.to_string()).into()),
        }
    }

    /// Runs a command on its node; what it said. An error where it did not succeed.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String> {
        let words = arguments.join(" ");
        let path = self.dir.join("command.out");
        let output = File::create(&path)?;
        let mut command = self.spawn.command(arguments);
        let mut child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                return Err(self.wrong(&format!("'{words}' does not end")).into());
            }
            std::thread::park_timeout(LOOK);
        };
        let said = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        if status.success() {
            Ok(said)
        } else {
            Err(self.wrong(&format!("'{words}' ended with {status}: {said}")).into())
        }
    }

    /// Until it tells so itself. `before`: where its log begins.
    fn in_step(&mut self, before: usize) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut said = String::new();
        while Instant::now() < until {
            if !self.daemon.as_mut().is_some_and(Daemon::is_running) {
                return Err(self.wrong("ended behind its start").into());
            }
            if let Some(address) = address(self.log().get(before..).unwrap_or_default()) {
                let asked = self.command(&["status", "--movers", &address]);
                said = asked.unwrap_or_else(|error| error.to_string());
                if said.contains("the ledger is in step") {
                    return Ok(());
                }
            }
            std::thread::park_timeout(ASK);
        }
        Err(self.wrong(&format!("its ledger is not in step: {said}")).into())
    }

    fn log(&self) -> String {
        let log = self.spawn.log.as_ref().map(std::fs::read);
        let log = log.and_then(std::result::Result::ok).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn wrong(&self, what: &str) -> String {
        format!("{}: {what}; its log is {}/daemon.log", self.name, self.dir.display())
    }
}

/// How one of this release is started.
fn spawn(site: &Site<'_>, dir: &Path, name: &str, has_ledger: bool) -> Result<Spawn> {
    let ledger = has_ledger.then(|| site.postgres.section(&format!("name = '{name}'\n")));
    let settings = format!("{SETTINGS}{}", ledger.unwrap_or_default());
    let mut spawn = Spawn::between(dir, site.mount, site.store, BUCKET, &settings)?;
    let node = dir.display().to_string();
    spawn.environment.push(("LHSM_SANDBOX_CLIENT".into(), node));
    Ok(spawn)
}

/// Where it answers: the port is the kernel's choice, the log tells it.
fn address(log: &str) -> Option<String> {
    let mut lines = log.lines().filter(|line| line.contains("metrics"));
    let (_, rest) = lines.find_map(|line| line.split_once("127.0.0.1:"))?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{port}"))
}
