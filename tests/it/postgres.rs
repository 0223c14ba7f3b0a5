//! A real PostgreSQL for one test: in a directory of its own, on a socket there, ended by its process id.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use crate::rig::{PATIENCE, until};

/// Set where a missing one is a failure.
const REQUIRED: &str = "LHSM_REQUIRE_POSTGRES";
/// It refuses to run as root.
const NOBODY: u32 = 65_534;

/// The usual one is no more than a part of the socket's name.
const USUAL_PORT: u16 = 5432;

pub(crate) struct Postgres {
    bin: PathBuf,
    server: Option<Child>,
    dir: TempDir,
    port: u16,
    /// Where it listens beside its socket.
    addresses: &'static str,
}

impl Postgres {
    /// Running, with a database. `None`, said: there is none on this node, and nobody demands it.
    pub(crate) fn start() -> Option<Self> {
        let Some(bin) = programs() else {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and there is no PostgreSQL: install the package postgresql"
            );
            eprintln!("skipped: no PostgreSQL on this node (package postgresql)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        if Uid::effective().is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut postgres = Self {
            bin,
            server: None,
            dir,
            port: USUAL_PORT,
            addresses: "",
        };
        let made = postgres
            .program("initdb")
            .args([
                "--auth",
                "trust",
                "--username",
                "lhsm",
                "--encoding",
                "UTF8",
                "--no-sync",
                "-D",
            ])
            .arg(postgres.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.resume();
        postgres.run("postgres", "CREATE DATABASE ledger");
        Some(postgres)
    }

    /// Starts the server again.
    pub(crate) fn resume(&mut self) {
        assert!(self.is_resumed(), "{}", self.log());
    }

    /// Starts it again with a port on loopback that takes TLS alone; the port.
    pub(crate) fn listen_with_tls(&mut self, certificate: &str, key: &str) -> u16 {
        self.stop();
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            std::fs::write(&path, content).unwrap();
            // It takes no key that others can read.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            if Uid::effective().is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let settings = self.data().join("postgresql.conf");
        let usual = std::fs::read_to_string(&settings).unwrap();
        std::fs::write(&settings, format!("{usual}\nssl = on\n")).unwrap();
        std::fs::write(
            self.data().join("pg_hba.conf"),
            "local all all trust\nhostssl all all 127.0.0.1/32 trust\n",
        )
        .unwrap();
        self.addresses = "127.0.0.1";
        // It can't be told to take any port, and one that is free may be another's a moment later.
        for _ in 0..10 {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            self.port = free.local_addr().unwrap().port();
            drop(free);
            if self.is_resumed() {
                return self.port;
            }
        }
        panic!("{}", self.log());
    }

    /// `false`: it ended.
    fn is_resumed(&mut self) -> bool {
        let log = std::fs::File::create(self.path().join("log")).unwrap();
        let server = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.path())
            .args(["-p", &self.port.to_string()])
            .args(["-c", &format!("listen_addresses={}", self.addresses)])
            .args(["-c", "fsync=off", "-c", "shared_buffers=16MB"])
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.server = Some(server);
        until(|| {
            if self.ask("postgres", "SELECT 1").is_ok() {
                return Some(true);
            }
            let server = self.server.as_mut()?;
            server.try_wait().unwrap()?;
            self.server = None;
            Some(false)
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Ends the server, with its connections.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGINT);
        self.reap();
    }

    /// All of it stands still, its connections too: they are taken and never answered.
    pub(crate) fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Section `[ledger]` for it.
    pub(crate) fn section(&self, more: &str) -> String {
        section(self.path(), more)
    }

    /// A statement's rows, columns with `|` between them.
    pub(crate) fn rows(&self, statement: &str) -> Vec<String> {
        self.run("ledger", statement).lines().map(str::to_owned).collect()
    }

    /// The only number of a statement.
    pub(crate) fn number(&self, statement: &str) -> i64 {
        self.rows(statement)[0].parse().unwrap()
    }

    fn run(&self, database: &str, statement: &str) -> String {
        self.ask(database, statement)
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    fn ask(&self, database: &str, statement: &str) -> Result<String, String> {
        let output = self
            .program("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "lhsm", "-h"])
            .arg(self.path())
            .args(["-p", &self.port.to_string(), "-d", database, "-c", statement])
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).unwrap());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// As somebody who is not root, in a directory that they may enter.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir(self.path()).env("LC_ALL", "C").stdin(Stdio::null());
        if Uid::effective().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn pid(&self) -> Option<Pid> {
        let server = self.server.as_ref()?;
        Some(Pid::from_raw(i32::try_from(server.id()).unwrap()))
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid().unwrap(), signal).unwrap();
    }

    fn signal_all(&self, signal: Signal) {
        // The server first: it makes no more of them then.
        self.signal(signal);
        let server = self.pid().unwrap().as_raw().to_string();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(1));
            if parent == Some(&server) {
                // It may be over by now.
                let _over = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    fn reap(&mut self) {
        let mut server = self.server.take().unwrap();
        let start = Instant::now();
        while server.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "PostgreSQL does not end");
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.thaw();
            // At once, with its connections.
            self.signal(Signal::SIGQUIT);
            self.reap();
        }
    }
}

/// Section `[ledger]` for a server whose socket is in that directory. `more`: further keys.
pub(crate) fn section(directory: &Path, more: &str) -> String {
    let host = directory.display().to_string().replace('/', "%2F");
    format!("[ledger]\nurl = 'postgresql://lhsm@{host}/ledger'\nlease = '2s'\n{more}\n")
}

/// Where Debian's package and others have them, the newest release.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let release = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let bin = entry.path().join("bin");
        if let Some(release) = release
            && bin.join("initdb").exists()
        {
            found.push((release, bin));
        }
    }
    found.sort();
    found.pop().map(|(_, bin)| bin)
}
