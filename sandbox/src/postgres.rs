//! A real PostgreSQL for one test or run: in a directory of its own, on a socket there, ended by its process id.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

/// For its start and its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a start or an end.
const LOOK: Duration = Duration::from_millis(5);
/// It refuses to run as root.
const NOBODY: u32 = 65_534;

/// A copy of the data, beside it.
const COPY: &str = "copy";
/// In the environment where a missing one is a failure.
const REQUIRED: &str = "LHSM_REQUIRE_POSTGRES";

/// The usual one is no more than a part of the socket's name.
const USUAL_PORT: u16 = 5432;

/// One server. Dropping it ends it.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    server: Option<Child>,
    dir: TempDir,
    port: u16,
    /// Where it listens beside its socket.
    addresses: &'static str,
}

impl Postgres {
    /// Running, with a database. `None`: there is none on this node.
    ///
    /// # Errors
    ///
    /// It can't be made or started; what it said.
    pub fn start() -> io::Result<Option<Self>> {
        let Some(bin) = programs() else { return Ok(None) };
        let dir = tempfile::tempdir()?;
        if Uid::effective().is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let mut postgres = Self {
            bin,
            server: None,
            dir,
            port: USUAL_PORT,
            addresses: "",
        };
        let mut initdb = postgres.program("initdb");
        initdb.args(["--auth", "trust", "--username", "lhsm", "--encoding", "UTF8"]);
        let made = initdb.args(["--no-sync", "-D"]).arg(postgres.data()).output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        postgres.resume()?;
        postgres.ask("postgres", "CREATE DATABASE ledger")?;
        Ok(Some(postgres))
    }

    /// The same, for a run that does with less where there is none: then it is said, and an error where
    /// `LHSM_REQUIRE_POSTGRES` is set.
    ///
    /// # Errors
    ///
    /// As of [`Self::start`], or there is none and one is demanded.
    pub fn start_if_there() -> io::Result<Option<Self>> {
        let started = Self::start()?;
        if started.is_none() {
            if std::env::var_os(REQUIRED).is_some() {
                return Err(io::Error::other(format!(
                    "{REQUIRED} is set, and there is no PostgreSQL: install the package postgresql"
                )));
            }
            eprintln!("without a ledger: there is no PostgreSQL on this node (package postgresql)");
        }
        Ok(started)
    }

    /// Starts the server again.
    ///
    /// # Errors
    ///
    /// It ended at once; its log.
    pub fn resume(&mut self) -> io::Result<()> {
        if self.is_resumed()? {
            return Ok(());
        }
        Err(io::Error::other(self.log()))
    }

    /// Starts it again with a port on loopback that takes TLS alone; the port.
    ///
    /// # Errors
    ///
    /// It can't be ended, written to or started.
    pub fn listen_with_tls(&mut self, certificate: &str, key: &str) -> io::Result<u16> {
        self.stop()?;
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, content)?;
            // It takes no key that others can read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            if Uid::effective().is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY))?;
            }
        }
        let settings = self.data().join("postgresql.conf");
        let usual = fs::read_to_string(&settings)?;
        fs::write(&settings, format!("{usual}\nssl = on\n"))?;
        fs::write(
            self.data().join("pg_hba.conf"),
            "local all all trust\nhostssl all all 127.0.0.1/32 trust\n",
        )?;
        self.addresses = "127.0.0.1";
        // It can't be told to take any port, and one that is free may be another's a moment later.
        for _ in 0..10 {
            let free = std::net::TcpListener::bind("127.0.0.1:0")?;
            self.port = free.local_addr()?.port();
            drop(free);
            if self.is_resumed()? {
                return Ok(self.port);
            }
        }
        Err(io::Error::other(self.log()))
    }

    /// `false`: it ended.
    fn is_resumed(&mut self) -> io::Result<bool> {
        let log = self.path().join("log");
        let log = fs::File::options().create(true).append(true).open(log)?;
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
            .spawn()?;
        self.server = Some(server);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.ask("postgres", "SELECT 1").is_ok() {
                return Ok(true);
            }
            if let Some(server) = &mut self.server
                && server.try_wait()?.is_some()
            {
                self.server = None;
                return Ok(false);
            }
            std::thread::park_timeout(LOOK);
        }
        Err(io::Error::other("PostgreSQL does not start"))
    }

    /// What it said since its first start.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Ends the server, with its connections.
    ///
    /// # Errors
    ///
    /// It does not end, or does not run.
    pub fn stop(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGINT)?;
        self.reap()
    }

    /// Takes a copy of all data while the server goes on: what a replica has that hears nothing more from the end of this
    /// call on. It takes the place of the copy before.
    ///
    /// # Errors
    ///
    /// What pg_basebackup says.
    pub fn copy(&mut self) -> io::Result<()> {
        let copy = self.path().join(COPY);
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        let mut backup = self.program("pg_basebackup");
        backup.args([
            "--checkpoint=fast",
            "--no-sync",
            "--wal-method=stream",
            "-U",
            "lhsm",
            "-h",
        ]);
        backup.arg(self.path()).args(["-p", &self.port.to_string(), "-D"]);
        let made = backup.arg(&copy).output()?;
        if made.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()))
    }

    /// The server dies with its data, and what [`Self::copy`] took serves in its place, at the same address: whatever was
    /// acknowledged since is gone, as where a replica is promoted that was behind.
    ///
    /// # Errors
    ///
    /// There is no copy, or it does not start; its log.
    pub fn fail_over(&mut self) -> io::Result<()> {
        let copy = self.path().join(COPY);
        if !copy.exists() {
            return Err(io::Error::other(
                "there is no copy of PostgreSQL's data to fail over to",
            ));
        }
        self.signal(Signal::SIGQUIT)?;
        self.reap()?;
        fs::remove_dir_all(self.data())?;
        fs::rename(&copy, self.data())?;
        self.resume()
    }

    /// All of it stands still, its connections too: they are taken and never answered.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal_all(Signal::SIGSTOP)
    }

    /// Ends [`Self::freeze`].
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal_all(Signal::SIGCONT)
    }

    /// Where its socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Section `[ledger]` of a daemon's settings for it, with a lease of 2 s. `more`: further keys.
    #[must_use]
    pub fn section(&self, more: &str) -> String {
        section(self.path(), more)
    }

    /// A statement's rows, columns with `|` between them.
    ///
    /// # Errors
    ///
    /// What psql says.
    pub fn rows(&self, statement: &str) -> io::Result<Vec<String>> {
        let text = self.ask("ledger", statement)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn ask(&self, database: &str, statement: &str) -> io::Result<String> {
        let output = self
            .program("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "lhsm", "-h"])
            .arg(self.path())
            .args(["-p", &self.port.to_string(), "-d", database, "-c", statement])
            .output()?;
        if output.status.success() {
            return String::from_utf8(output.stdout).map_err(io::Error::other);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{statement}: {said}")))
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

    fn pid(&self) -> io::Result<Pid> {
        let server = self.server.as_ref();
        let server = server.ok_or_else(|| io::Error::other("PostgreSQL does not run"))?;
        i32::try_from(server.id()).map(Pid::from_raw).map_err(io::Error::other)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    fn signal_all(&self, signal: Signal) -> io::Result<()> {
        // The server first: it makes no more of them then.
        self.signal(signal)?;
        let server = self.pid()?.as_raw().to_string();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(1));
            if parent == Some(&server) {
                // It may be over by now.
                let _over = kill(Pid::from_raw(pid), signal);
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while let Some(server) = &mut self.server {
            if server.try_wait()?.is_some() {
                self.server = None;
            } else if start.elapsed() > PATIENCE {
                return Err(io::Error::other("PostgreSQL does not end"));
            } else {
                std::thread::park_timeout(LOOK);
            }
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            // At once, with its connections.
            let ended = self.thaw().and_then(|()| self.signal(Signal::SIGQUIT));
            if let Err(error) = ended.and_then(|()| self.reap()) {
                eprintln!("PostgreSQL in {}: {error}", self.path().display());
            }
        }
    }
}

/// Section `[ledger]` for a server whose socket is in that directory. `more`: further keys.
#[must_use]
pub fn section(directory: &Path, more: &str) -> String {
    let host = directory.display().to_string().replace('/', "%2F");
    format!("[ledger]\nurl = 'postgresql://lhsm@{host}/ledger'\nlease = '2s'\n{more}\n")
}

/// Where Debian's package and others have them, the newest release.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
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
