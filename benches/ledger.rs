//! What a ledger costs a mover: small files archived and restored by the daemon without one, with one on loopback (a real
//! PostgreSQL, with TLS), and with one that can't be reached, in turn and beginning with another one each time. The median
//! of each and from where to where they went, and the same of what was measured in one round against the mover without.
//!
//! Stand-in, store and PostgreSQL are on the same machine, files and journals on tmpfs: nothing hides what the ledger takes,
//! and PostgreSQL takes its part of the processors, too.
//!
//! `cargo bench --bench ledger -- --json`; `--files N` and `--rounds N`, 5000 and 7 otherwise.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::cast_precision_loss, reason = "rates")]

use std::path::Path;
use std::time::{Duration, Instant};

use lhsm_sandbox::postgres::Postgres;
use lhsm_sandbox::process::Spawn;
use lhsm_sandbox::protocol::{Action, Fid};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Server};
use tempfile::TempDir;

const BUCKET: &str = "lhsm-sandbox";
const FILES: usize = 5000;
const ROUNDS: usize = 7;
const SIZE: usize = 4096;
/// The most files that are asked for by one call.
const BATCH: usize = 50;
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(2);
const KINDS: [Kind; 3] = [Kind::Without, Kind::Loopback, Kind::Unreachable];

/// Which ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Without,
    Loopback,
    Unreachable,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Without => "no ledger",
            Self::Loopback => "on loopback",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Files a second.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    archive: f64,
    restore: f64,
}

/// What all runs share.
struct Bench {
    postgres: Postgres,
    port: u16,
    /// One where nobody listens.
    nobodys: u16,
    /// Has the certificate.
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
    files: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<usize>().ok()
    };
    let json = arguments.iter().any(|argument| argument == "--json");
    let Some(bench) = Bench::new(number("--files").unwrap_or(FILES)) else {
        return;
    };
    let rounds = number("--rounds").unwrap_or(ROUNDS).max(1);
    // What the first one has to read from a disk, the others find in memory.
    bench.case(Kind::Without);
    let mut all = Vec::new();
    for round in 0..rounds {
        let mut rates = [Rates::default(); 3];
        for at in (round..round + 3).map(|at| at % 3) {
            rates[at] = bench.case(KINDS[at]);
        }
        println!(
            "round {}: archive {:.0}, {:.0}, {:.0} files/s; restore {:.0}, {:.0}, {:.0} files/s",
            round + 1,
            rates[0].archive,
            rates[1].archive,
            rates[2].archive,
            rates[0].restore,
            rates[1].restore,
            rates[2].restore
        );
        all.push(rates);
    }
    println!("\n{rounds} rounds of {} files of {SIZE} bytes", bench.files);
    let archive = tell("archive", &all, |rates| rates.archive);
    let restore = tell("restore", &all, |rates| rates.restore);
    if json {
        println!(
            "{{\"files\":{},\"rounds\":{rounds},\"archive\":{archive},\"restore\":{restore}}}",
            bench.files
        );
    }
}

impl Bench {
    /// `None`, said: there is no PostgreSQL on this node.
    fn new(files: usize) -> Option<Self> {
        let Some(mut postgres) = Postgres::start().unwrap() else {
            assert!(
                std::env::var_os("LHSM_REQUIRE_POSTGRES").is_none(),
                "LHSM_REQUIRE_POSTGRES is set, and there is no PostgreSQL: install the package postgresql"
            );
            println!("skipped: no PostgreSQL on this node (package postgresql)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
        std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        let port = postgres.listen_with_tls(&made.cert.pem(), &key).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Some(Self {
            postgres,
            port,
            nobodys: free.local_addr().unwrap().port(),
            dir,
            runtime: tokio::runtime::Runtime::new().unwrap(),
            files,
        })
    }

    fn section(&self, kind: Kind) -> String {
        let port = match kind {
            Kind::Without => return String::new(),
            Kind::Loopback => self.port,
            Kind::Unreachable => self.nobodys,
        };
        format!(
            "[ledger]\nurl = 'postgresql://lhsm@127.0.0.1:{port}/ledger?sslmode=verify-full'\nca_bundle = '{}'\n",
            self.dir.path().join("ca.pem").display()
        )
    }

    fn count(&self, what: &str) -> usize {
        let rows = self.postgres.rows(&format!("SELECT count(*) FROM {what}")).unwrap();
        rows[0].parse().unwrap()
    }

    /// A file system, a store and a mover of their own.
    fn case(&self, kind: Kind) -> Rates {
        // tmpfs: the page cache, and no disk behind it.
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() {
            tempfile::tempdir_in(shm)
        } else {
            tempfile::tempdir()
        };
        let dir = dir.unwrap();
        let mount = dir.path().join("lustre");
        let _mdt = Mdt::start(Options {
            tick: LOOK,
            max_requests: self.files,
            restore_on_read: Some(false),
            ..Options::new(&mount)
        })
        .unwrap();
        let config = Config {
            data_dir: Some(dir.path().to_owned()),
            ..Config::default()
        };
        let store = self.runtime.block_on(Server::start(config)).unwrap();
        let mut client = Client::new(&mount).unwrap();
        let content = vec![7; SIZE];
        let fids: Vec<Fid> = (0..self.files)
            .map(|n| {
                let path = mount.join(format!("f{n:06}"));
                std::fs::write(&path, &content).unwrap();
                client.fid(&path).unwrap()
            })
            .collect();
        let settings = format!("[log]\nlevel = 'warn'\n{}", self.section(kind));
        let spawn = Spawn::between(dir.path(), &mount, &store, BUCKET, &settings).unwrap();
        if kind == Kind::Loopback {
            self.postgres.rows("DROP SCHEMA IF EXISTS lhsmtool_s3 CASCADE").unwrap();
            let made = spawn.command(&["ledger", "init"]).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let daemon = spawn.start().unwrap();
        assert!(client.wait_agents(1, PATIENCE).unwrap());
        if kind == Kind::Loopback {
            until(|| self.count("lhsmtool_s3.mover WHERE state = 1") == 1);
        }
        let archive = timed(&mut client, Action::Archive, &fids);
        if kind == Kind::Loopback {
            // All of it went there.
            until(|| self.count("lhsmtool_s3.copy") == self.files);
        }
        for fid in &fids {
            client.release_closed(*fid, PATIENCE).unwrap();
        }
        let restore = timed(&mut client, Action::Restore, &fids);
        assert!(daemon.stop(PATIENCE).unwrap().success());
        Rates { archive, restore }
    }
}

/// Has all of them done; how many a second.
fn timed(client: &mut Client, action: Action, fids: &[Fid]) -> f64 {
    let start = Instant::now();
    for fids in fids.chunks(BATCH) {
        client.request(action, 1, fids).unwrap();
    }
    until(|| client.pending().unwrap() == 0);
    let seconds = start.elapsed().as_secs_f64();
    let ended = client.counters().unwrap().ended;
    let done = ended.get(&format!("{action} SUCCEED")).copied();
    assert_eq!(done, Some(fids.len() as u64), "{ended:?}");
    fids.len() as f64 / seconds
}

fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it did not come");
        std::thread::park_timeout(LOOK);
    }
}

/// Prints it, and gives it as JSON.
fn tell(what: &str, rounds: &[[Rates; 3]], rate: impl Fn(&Rates) -> f64) -> serde_json::Value {
    let mut json = serde_json::Map::new();
    println!("{what}:");
    for (at, kind) in KINDS.into_iter().enumerate() {
        let rates = Spread::of(rounds.iter().map(|rates| rate(&rates[at])).collect());
        let against = Spread::of(rounds.iter().map(|rates| rate(&rates[at]) / rate(&rates[0])).collect());
        print!(
            "  {:<12} {:>8.0} files/s ({:.0} to {:.0})",
            kind.name(),
            rates.median,
            rates.least,
            rates.most
        );
        let key = kind.name().replace(' ', "_");
        json.insert(format!("{key}_per_s"), rates.median.round().into());
        if kind == Kind::Without {
            println!();
            continue;
        }
        println!(
            ", {:.3} times that without ({:.3} to {:.3})",
            against.median, against.least, against.most
        );
        json.insert(key, ((against.median * 1000.0).round() / 1000.0).into());
    }
    json.into()
}

/// Where what was measured lies.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    /// Of one at least.
    fn of(mut measured: Vec<f64>) -> Self {
        measured.sort_by(f64::total_cmp);
        Self {
            least: measured[0],
            median: measured[measured.len() / 2],
            most: measured[measured.len() - 1],
        }
    }
}
