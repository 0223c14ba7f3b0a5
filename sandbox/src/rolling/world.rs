//! Coordinator, store, PostgreSQL and movers, and the load between them.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use lhsm_sandbox::postgres::Postgres;
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Server};

use crate::load::{LANES, Load, READERS, WAITING};
use crate::mover::{Former, Mover, Site};
use crate::pace::Pace;
use crate::reckon::{Outcome, failed_actions, whole_copies};
use crate::told::Told;
use crate::{Cli, tree, turns, watch};

pub(crate) const BUCKET: &str = "lhsm-sandbox";
/// Of each mover's log, where something went wrong: its last warnings and errors.
const LAST_LINES: usize = 8;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// All of it. `None`: there is no PostgreSQL.
pub(crate) fn run(cli: &Cli) -> Result<Option<Outcome>> {
    let former = cli.former.as_deref().map(Former::of).transpose()?;
    let Some(postgres) = Postgres::start()? else {
        return Ok(None);
    };
    // Not tmpfs: there the sandbox takes an open for a read, and a look at a file would restore it.
    let dir = tempfile::Builder::new().prefix("lhsm-rolling-").tempdir()?;
    let start = Instant::now();
    let outcome = rolling(cli, dir.path(), &postgres, former.as_ref());
    if !outcome.as_ref().is_ok_and(Outcome::is_whole) {
        let kept = dir.keep();
        tell_logs(&kept, cli.movers);
        tell_ledger(&postgres);
        eprintln!(
            "everything is kept in {}, each mover's log as moverN/daemon.log",
            kept.display()
        );
    }
    let mut outcome = outcome?;
    outcome.seconds = start.elapsed().as_secs_f64();
    Ok(Some(outcome))
}

fn rolling(cli: &Cli, dir: &Path, postgres: &Postgres, former: Option<&Former>) -> Result<Outcome> {
    let mount = dir.join("lustre");
    let mdt = Mdt::start(Options {
        tick: Duration::from_millis(2),
        ..Options::new(&mount)
    })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = runtime.block_on(Server::start(Config {
        data_dir: Some(dir.to_owned()),
        ..Config::default()
    }))?;
    let mut client = Client::new(&mount)?;
    tree::directories(&mount, cli.files)?;
    let site = Site {
        dir,
        mount: &mount,
        store: &store,
        postgres,
    };
    let mut movers = start(cli, &site, &mut client, former)?;
    let told = Told::default();
    let pace = Pace::new(cli.files, turns::wanted(cli.movers, cli.files));
    let load = Load {
        mount: &mount,
        files: cli.files,
        reads: cli.reads,
        restores_on_read: mdt.restores_on_read(),
        pace: &pace,
        told: &told,
        archived: AtomicUsize::new(0),
        read: AtomicUsize::new(0),
        failed_reads: AtomicUsize::new(0),
    };
    if !load.restores_on_read {
        eprintln!("readers can't be held here (that takes root): they ask for their restores before they read");
    }
    let (turns, longest_stall) = under_load(&load, || turns::take(&mut movers, &site, &mut client, &pace, &load))?;
    let failed_actions = failed_actions(&mut client, &told)?;
    for mover in &mut movers {
        mover.stop()?;
    }
    let copies = whole_copies(&store, cli.files, &told);
    Ok(Outcome {
        movers: cli.movers,
        files: cli.files,
        reads: cli.reads,
        archived: load.archived.load(Ordering::Relaxed).min(copies),
        read: load.read.load(Ordering::Relaxed),
        failed_reads: load.failed_reads.load(Ordering::Relaxed),
        failed_actions,
        longest_stall,
        former: former.map_or_else(|| "same".to_owned(), |former| former.version.clone()),
        turns,
        seconds: 0.0,
    })
}

/// The movers in the middle of an upgrade: the second is of the former release still, the ledger is this one's already.
fn start(cli: &Cli, site: &Site<'_>, client: &mut Client, former: Option<&Former>) -> Result<Vec<Mover>> {
    let mut movers = (1..=cli.movers)
        .map(|number| Mover::new(site, number, former.filter(|_| number == 2).cloned()))
        .collect::<Result<Vec<_>>>()?;
    let [first, second, rest @ ..] = movers.as_mut_slice() else {
        return Err("there are fewer than two movers".into());
    };
    if former.is_some_and(|former| former.has_ledger) {
        second.command(&["ledger", "init"])?;
        second.start(client)?;
        let said = first.command(&["ledger", "migrate"])?;
        eprintln!("{}", said.trim());
    } else {
        first.command(&["ledger", "init"])?;
        second.start(client)?;
    }
    first.start(client)?;
    for mover in rest {
        mover.start(client)?;
    }
    Ok(movers)
}

/// Has the load go on while `turns` are taken; how many, and for how long nothing got on.
fn under_load(load: &Load<'_>, turns: impl FnOnce() -> Result<u32>) -> Result<(u32, Duration)> {
    let over = AtomicBool::new(false);
    let (to_readers, released) = sync_channel(WAITING);
    let released = Mutex::new(released);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch::longest_stall(load.mount, load.pace, load.told, &over));
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| load.read(&released))).collect();
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                let to_readers = to_readers.clone();
                scope.spawn(move || load.archive(&to_readers))
            })
            .collect();
        drop(to_readers);
        let turns = turns();
        if let Err(error) = &turns {
            // What it leaves behind may hang for long: this says why.
            load.told.tell(error);
            load.pace.stop();
        }
        let mut ends: Vec<io::Result<()>> = lanes.into_iter().map(|lane| join(lane).flatten()).collect();
        // What is released comes to its end with the last lane.
        ends.extend(readers.into_iter().map(join));
        over.store(true, Ordering::Relaxed);
        let longest = join(watching).flatten();
        let (turns, longest) = (turns?, longest?);
        ends.into_iter().collect::<io::Result<()>>()?;
        Ok((turns, longest))
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a thread panicked"))
}

fn tell_logs(dir: &Path, movers: u32) {
    for number in 1..=movers {
        let path = dir.join(format!("mover{number}/daemon.log"));
        let log = fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let is_loud = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        let last: Vec<_> = log.lines().rev().filter(is_loud).take(LAST_LINES).collect();
        for line in last.iter().rev() {
            eprintln!("mover{number}: {line}");
        }
    }
}

/// Each mover's row, and what it had in hand by that: the server ends with the run.
fn tell_ledger(postgres: &Postgres) {
    let rows = postgres.rows(
        "SELECT m.name, m.state, m.release, (SELECT count(*) FROM lhsmtool_s3.action a \
         WHERE a.owner = m.incarnation AND NOT a.answered) FROM lhsmtool_s3.mover m ORDER BY m.name",
    );
    match rows {
        Ok(rows) => {
            for row in rows {
                eprintln!("ledger: {row} (mover, state, release, actions in hand)");
            }
        }
        Err(error) => eprintln!("ledger: {error}"),
    }
}
