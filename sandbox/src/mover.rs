//! Movers of one archive id as child processes: each a daemon on a node of its own, as the coordinator sees it, with a
//! journal of its own, and a ledger that they share where there is a PostgreSQL.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lhsm_sandbox_s3::Server;
use nix::sys::signal::Signal;

use crate::postgres::Postgres;
use crate::process::{Daemon, Spawn};

/// Between two looks at the ledger.
const LOOK: Duration = Duration::from_millis(50);
/// For the end of one that was killed.
const PATIENCE: Duration = Duration::from_secs(60);
/// A mover's row is renewed four times in a lease: so many times and everybody has seen it.
const SEEN: i64 = 4;

/// What movers have in common.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Where each has a directory; that of the first is this one itself.
    pub dir: &'a Path,
    /// The sandbox's mount point.
    pub mount: &'a Path,
    /// Where their bucket is.
    pub store: &'a Server,
    /// Its name.
    pub bucket: &'a str,
    /// Of their configuration: what follows the lines of section `[lustre]`.
    pub settings: &'a str,
    /// Their ledger, with a lease of 2 s.
    pub ledger: Option<&'a Postgres>,
    /// Further keys of section `[ledger]`.
    pub ledger_settings: &'a str,
}

/// One that is not started yet.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How it is started, and further commands on its node.
    pub spawn: Spawn,
    /// Its node, as the coordinator names it.
    pub node: String,
    /// Where its journal is.
    pub state_dir: PathBuf,
}

/// One daemon after the other, on one node and with one journal.
#[derive(Debug)]
pub struct Mover {
    /// How it is started.
    pub plan: Plan,
    /// The one that was started last.
    pub daemon: Daemon,
}

impl Site<'_> {
    /// How one is started; they are numbered from 0. With a ledger its name there is `mover` and its number, and it answers on
    /// a port of loopback of its own. Without one the first is on the sandbox's own mount.
    ///
    /// # Errors
    /// It is not built, or the directory takes no file.
    pub fn mover(&self, number: u16) -> io::Result<Plan> {
        let dir = match number {
            0 => self.dir.to_owned(),
            _ => self.dir.join(format!("mover{number}")),
        };
        std::fs::create_dir_all(&dir)?;
        let mut settings = self.settings.to_owned();
        if let Some(postgres) = self.ledger {
            let more = format!("name = '{}'\n{}", name(number), self.ledger_settings);
            settings += "[metrics]\nlisten = '127.0.0.1:0'\n";
            settings += &postgres.section(&more);
        }
        let mut spawn = Spawn::between(&dir, self.mount, self.store, self.bucket, &settings)?;
        let mut node = self.mount.display().to_string();
        if number > 0 || self.ledger.is_some() {
            // No other run's, for the daemons of this machine know each other by it.
            node = self.dir.join(name(number)).display().to_string();
            spawn.environment.push(("LHSM_SANDBOX_CLIENT".into(), node.clone()));
        }
        Ok(Plan {
            spawn,
            node,
            state_dir: dir.join("state"),
        })
    }
}

impl Plan {
    /// Makes the tables of the ledger.
    ///
    /// # Errors
    /// What the command says.
    pub fn init_ledger(&self) -> io::Result<()> {
        let output = self.spawn.command(&["ledger", "init"]).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("ledger init: {said}")))
    }

    /// Starts it.
    ///
    /// # Errors
    /// The binary or the log can't be opened.
    pub fn start(self) -> io::Result<Mover> {
        Ok(Mover {
            daemon: self.spawn.start()?,
            plan: self,
        })
    }
}

impl Mover {
    /// Its node, as the coordinator names it.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.plan.node
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.daemon.is_running()
    }

    /// A successor on the same node, of one that is over.
    ///
    /// # Errors
    /// As of the first start.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.daemon = self.plan.spawn.start()?;
        Ok(())
    }

    /// Kills it where it is, if it still is.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&mut self) -> io::Result<()> {
        // It may be over by now.
        let _gone = self.daemon.signal(Signal::SIGKILL);
        self.daemon.wait(PATIENCE).map(drop)
    }
}

/// A mover's name in the ledger.
#[must_use]
pub fn name(number: u16) -> String {
    format!("mover{number}")
}

/// Waits until each of the first so many movers has renewed its row, as often as all others need to see that it lives.
///
/// # Errors
/// The ledger does not answer, or one of them did not renew in that time.
pub fn renewing(postgres: &Postgres, movers: u16, limit: Duration) -> io::Result<()> {
    let until = Instant::now() + limit;
    for number in 0..movers {
        let name = name(number);
        let mut first = None;
        loop {
            let renewals = renewals(postgres, &name)?;
            let first = *first.get_or_insert(renewals.unwrap_or(0));
            if renewals.is_some_and(|renewals| renewals >= first + SEEN) {
                break;
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{name} does not renew its row in the ledger")));
            }
            std::thread::park_timeout(LOOK);
        }
    }
    Ok(())
}

fn renewals(postgres: &Postgres, name: &str) -> io::Result<Option<i64>> {
    let rows = postgres.rows(&format!("SELECT renewals FROM lhsmtool_s3.mover WHERE name = '{name}'"))?;
    rows.first()
        .map(|row| row.parse().map_err(io::Error::other))
        .transpose()
}
