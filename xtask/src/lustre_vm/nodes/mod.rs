//! (c) Two nodes with a mover each and a ledger between them, of which one dies, is cut off or stands still.
//!
//! The servers' guest stays: it has a mover on one of its mounts and the users on another. The second guest is a client
//! only, with the other mover. Store and PostgreSQL are on this machine. The lease is the default one, for an emulated
//! machine is slow; what was to be archived is taken over after 30 s more, so that a node that is back after two minutes
//! finds everything in others' hands.

mod case;
mod load;
mod mover;
mod outcome;
mod site;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use self::case::Case;
use self::mover::Mover;
use self::site::Site;
use self::wire::{Gate, Place, lead};
use super::guest::Guest;
use super::postgres::Postgres;
use super::put;
use super::store::Store;
use super::tally::Tally;

const MINUTE: Duration = Duration::from_secs(60);

/// What all of it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    pub(super) scripts: &'a Path,
    pub(super) binaries: &'a Path,
    pub(super) logs: &'a Path,
    /// The servers' guest, and the second one's.
    pub(super) dirs: (&'a Path, &'a Path),
    pub(super) keep: bool,
}

/// Why there can be no second node, or no ledger, on this machine.
pub(super) fn hindrance(scripts: &Path) -> Option<String> {
    for script in ["client.sh", "net.sh"] {
        if !scripts.join(script).exists() {
            return Some(format!("there is no '{}/{script}' here", scripts.display()));
        }
    }
    let has_postgres = std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|releases| {
        releases
            .flatten()
            .any(|release| release.path().join("bin/initdb").exists())
    });
    // Where it must be there, its absence is a failure, not a skip.
    let is_required = std::env::var_os("LHSM_REQUIRE_POSTGRES").is_some();
    (!has_postgres && !is_required).then(|| "there is no PostgreSQL (Debian's postgresql)".to_owned())
}

/// The cases with one of these words in their names; none: all.
///
/// # Errors
/// There are none.
pub(super) fn chosen(only: &[String]) -> Result<Vec<Case>, String> {
    let is_chosen = |case: &Case| only.is_empty() || only.iter().any(|word| case.name.contains(word.as_str()));
    let cases: Vec<_> = case::ALL.into_iter().filter(is_chosen).collect();
    if cases.is_empty() {
        let names: Vec<_> = case::ALL.iter().map(|case| case.name).collect();
        return Err(format!("the cases of two nodes are {}", names.join(", ")));
    }
    Ok(cases)
}

/// Runs them.
///
/// # Errors
/// The nodes can't be made ready.
pub(super) fn run(setting: &Setting<'_>, cases: &[Case], tally: &mut Tally) -> Result<(), String> {
    let Setting {
        scripts,
        binaries,
        logs,
        dirs,
        keep,
    } = *setting;
    let its_logs = logs.join("node2");
    std::fs::create_dir_all(&its_logs).map_err(|error| format!("'{}': {error}", its_logs.display()))?;
    // In this order: each ends before what it stands on.
    let store = Store::start(binaries, &logs.join("store"), &logs.join("store.log"))?;
    let postgres = Postgres::start(binaries, &logs.join("postgres.log"))?;
    let servers = Guest::up(scripts, dirs.0, logs, keep)?;
    let node = Guest::joined(scripts, &servers, dirs.1, &its_logs, keep)?;
    put(&servers, binaries)?;
    put(&node, binaries)?;
    let (open, gate) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let port = store.port().ok_or("the store has no port")?;
    let ways = |gate: &Arc<Gate>| -> std::io::Result<(u16, u16)> {
        let store = lead(Place::Port(port), gate)?;
        Ok((store, lead(Place::Socket(postgres.socket.clone()), gate)?))
    };
    let failed = |error: std::io::Error| format!("a port on this machine's loopback: {error}");
    let site = Site {
        servers: &servers,
        node: &node,
        stays: Mover::new(&servers, 1, &store, ways(&open).map_err(failed)?)?,
        goes: Mover::new(&node, 2, &store, ways(&gate).map_err(failed)?)?,
        gate: &gate,
        logs,
    };
    let before = Site::tune(&servers)?;
    let tried = site.stays.ours("ledger", "ledger init").map(|_| {
        for case in cases {
            tried(&site, case, tally);
        }
    });
    for (mover, guest) in [(&site.goes, &node), (&site.stays, &servers)] {
        // A node that could not be booted again has none.
        if guest.is_there()
            && let Err(error) = mover.end()
        {
            eprintln!("{error}");
        }
    }
    if let Err(error) = Site::put_back(&servers, &before) {
        eprintln!("{error}");
    }
    tried
}

fn tried(site: &Site<'_>, case: &Case, tally: &mut Tally) {
    let shown = format!("two-nodes/{}", case.name);
    // The users' of the case, on the file system and, in its base name, in their bytes.
    let directory = format!("two-nodes-{}-{}", std::process::id(), case.name);
    let began = Instant::now();
    eprintln!("=== {shown}");
    let problem = match case.run(site, &directory) {
        Ok(outcome) => {
            println!("{}", outcome.json(case.name));
            outcome.problem()
        }
        Err(error) => Some(error),
    };
    match problem {
        None => tally.pass(&shown, began.elapsed()),
        Some(why) => {
            tally.fail(&shown, &why);
            site.tell(case.name);
        }
    }
    // Files of a case that failed may still be somebody's work: they are no longer than this waited for.
    let removed = format!("timeout {} rm -rf /mnt/lustre2/{directory}", (MINUTE * 2).as_secs());
    if let Err(error) = site.servers.ask("removed", &removed) {
        eprintln!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_chooses_the_cases_that_have_it() {
        let names = |only: &[&str]| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(|&word| word.to_owned()).collect();
            chosen(&only).unwrap().iter().map(|case| case.name).collect()
        };
        assert_eq!(names(&[]).len(), case::ALL.len());
        assert_eq!(names(&["killed", "cut-60"]), ["killed", "cut-60"]);
        assert!(chosen(&["round-trip".to_owned()]).is_err());
    }
}
