//! From the pipe to the queue while the store is silent: actions a second, bytes for each waiting action,
//! and for how long the coordinator's writer was blocked (the longest block; all blocks of a flood that is
//! written as fast as the pipe takes it).
//!
//! The daemon's binary runs against the sandbox; the sandbox writes real messages of 70 actions to a real
//! pipe as fast as it is read. Beside it, in the same run, the way of lhsmtool_posix, which starts a
//! detached thread for each action that it reads (`ct_process_item_async`): as many threads as there are
//! actions, up to a number that does no harm to this machine.
//!
//! `cargo bench --bench intake -- --json`; the last line is of the largest case.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use lhsm_sandbox::process::{self, Daemon, Spawn};
use lhsm_sandbox::protocol::{Action, Fault};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Server};
use nix::sys::signal::Signal;

const CASES: [u64; 2] = [100_000, 1_000_000];
const RIVAL_THREADS: usize = 8_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// The daemon's threads that serve archives.
const WORKERS: usize = 24;

struct Result {
    waiting: u64,
    actions_per_s: f64,
    bytes_per_waiting: f64,
    /// The longest single block, and all together.
    writer_blocked_ms: f64,
    writer_blocked_total_ms: f64,
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    println!(
        "{:>10} {:>14} {:>16} {:>18} {:>14}",
        "waiting", "actions/s", "bytes/waiting", "longest block", "all blocks"
    );
    let mut last = None;
    for count in CASES {
        let result = case(count);
        println!(
            "{:>10} {:>14.0} {:>16.0} {:>15.1} ms {:>11.1} ms",
            result.waiting,
            result.actions_per_s,
            result.bytes_per_waiting,
            result.writer_blocked_ms,
            result.writer_blocked_total_ms
        );
        last = Some(result);
    }
    let (threads, per_s, bytes) = rival();
    println!(
        "{threads:>10} {per_s:>14.0} {bytes:>16.0}   a thread for each action (resident bytes; address space is 8 MiB each)"
    );
    if let (true, Some(result)) = (json, last) {
        println!(
            "{{\"actions_per_s\":{:.0},\"bytes_per_waiting\":{:.1},\"waiting\":{},\"writer_blocked_ms\":{:.3}}}",
            result.actions_per_s, result.bytes_per_waiting, result.waiting, result.writer_blocked_ms
        );
    }
}

fn case(count: u64) -> Result {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("lustre");
    let _mdt = Mdt::start(Options::new(&mount)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Server::start(Config::default())).unwrap();
    let mut client = Client::new(&mount).unwrap();
    let log = dir.path().join("log");
    let daemon = daemon(dir.path(), &mount, &store, &log);
    assert!(client.wait_agents(1, PATIENCE).unwrap());

    // Every thread that archives is at the silent store.
    let gate = store.faults().hold("PutObject");
    let fids: Vec<_> = (0..WORKERS)
        .map(|n| {
            let path = mount.join(n.to_string());
            std::fs::write(&path, b"x").unwrap();
            client.fid(&path).unwrap()
        })
        .collect();
    client.request(Action::Archive, 1, &fids).unwrap();
    assert!(gate.wait_held_blocking(WORKERS, PATIENCE));

    let (before, _) = daemon.memory().unwrap();
    let start = Instant::now();
    client.inject(Fault::Flood(count)).unwrap();
    let elapsed = loop {
        assert!(start.elapsed() < PATIENCE, "the queue did not fill in time");
        if waiting(&daemon, &log) == count {
            break start.elapsed();
        }
    };
    let (after, _) = daemon.memory().unwrap();
    let counters = client.counters().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    Result {
        waiting: count,
        actions_per_s: count as f64 / elapsed.as_secs_f64(),
        bytes_per_waiting: after.saturating_sub(before) as f64 / count as f64,
        writer_blocked_ms: counters.writer_blocked_longest_us as f64 / 1000.0,
        writer_blocked_total_ms: counters.writer_blocked_us as f64 / 1000.0,
    }
}

fn daemon(dir: &Path, mount: &Path, store: &Server, log: &Path) -> Daemon {
    let library = process::artifact(process::LIBRARY).unwrap();
    let config = dir.join("config.toml");
    std::fs::write(
        &config,
        format!(
            "[lustre]\nmount = '{}'\nlibrary = '{}'\nstate_dir = '{}'\n[transfer]\nstall_timeout = '10m'\n\
             [[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\nendpoint_url = '{}'\n",
            mount.display(),
            library.display(),
            dir.join("state").display(),
            store.endpoint()
        ),
    )
    .unwrap();
    let keys = Config::default();
    Spawn {
        program: process::artifact("lhsmtool-s3").unwrap(),
        library,
        config,
        log: Some(log.to_owned()),
        environment: vec![
            ("AWS_ACCESS_KEY_ID".into(), keys.access_key),
            ("AWS_SECRET_ACCESS_KEY".into(), keys.secret_key),
        ],
    }
    .start()
    .unwrap()
}

/// Asks the daemon (SIGUSR1) and reads its answer from the log.
fn waiting(daemon: &Daemon, log: &Path) -> u64 {
    let answers = || {
        let text = std::fs::read_to_string(log).unwrap();
        text.lines()
            .filter(|line| line.contains(" status "))
            .filter_map(|line| line.split("waiting=").nth(1)?.split_whitespace().next()?.parse().ok())
            .collect::<Vec<u64>>()
    };
    let before = answers().len();
    daemon.signal(Signal::SIGUSR1).unwrap();
    loop {
        let now = answers();
        if now.len() > before {
            return now.last().copied().unwrap_or(0);
        }
        std::thread::yield_now();
    }
}

/// Threads that wait, a second and resident bytes each.
fn rival() -> (usize, f64, f64) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let before = resident();
    let start = Instant::now();
    let threads: Vec<_> = (0..RIVAL_THREADS)
        .map_while(|_| {
            let gate = Arc::clone(&gate);
            std::thread::Builder::new()
                .stack_size(8 << 20)
                .spawn(move || {
                    let (open, changed) = &*gate;
                    let mut open = open.lock().unwrap();
                    while !*open {
                        open = changed.wait(open).unwrap();
                    }
                })
                .ok()
        })
        .collect();
    let seconds = start.elapsed().as_secs_f64();
    let grown = resident().saturating_sub(before);
    let count = threads.len();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for thread in threads {
        thread.join().unwrap();
    }
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let (per_s, bytes) = (count as f64 / seconds, grown as f64 / count as f64);
    (count, per_s, bytes)
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
