//! Many files archived, released and restored by the bulk commands, and everybody's counts compared: the command's, the
//! coordinator's and the bucket's. Prints the most memory of a command and the deepest queue that was seen.

#![expect(clippy::cast_precision_loss, reason = "sizes for people")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use lhsm_sandbox::process::Spawn;
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Server};

const BUCKET: &str = "lhsm-sandbox";
const PATIENCE: Duration = Duration::from_secs(60);
const SAMPLE: Duration = Duration::from_millis(10);
const IN_DIRECTORY: usize = 1000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Archives, releases and restores many files in the sandbox
#[derive(Debug, Parser)]
struct Cli {
    /// Files
    #[arg(long, default_value_t = 100_000)]
    files: usize,
    /// The most that a command may have asked for and not done
    #[arg(long, default_value_t = 5000)]
    window: u64,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default)]
struct Outcome {
    archived: u64,
    released: u64,
    restored: u64,
    failed: u64,
    objects: usize,
    peak_rss_mib: f64,
    peak_queue: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(outcome) => {
            let files = cli.files as u64;
            if cli.json {
                println!(
                    "{{\"files\":{files},\"archived\":{},\"released\":{},\"restored\":{},\"failed\":{},\
                     \"peak_rss_mib\":{:.1},\"peak_queue\":{},\"window\":{}}}",
                    outcome.archived,
                    outcome.released,
                    outcome.restored,
                    outcome.failed,
                    outcome.peak_rss_mib,
                    outcome.peak_queue,
                    cli.window
                );
            } else {
                println!("{files} files: {outcome:?}");
            }
            let all = [
                outcome.archived,
                outcome.released,
                outcome.restored,
                outcome.objects as u64,
            ];
            if all == [files; 4] && outcome.failed == 0 && outcome.peak_queue <= cli.window {
                ExitCode::SUCCESS
            } else {
                eprintln!("the counts differ, or the queue was deeper than the window: {outcome:?}");
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("jobs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<Outcome> {
    // Not tmpfs: there the sandbox takes an open for a read, and a look at a file would restore it.
    let dir = tempfile::Builder::new().prefix("lhsm-jobs-").tempdir()?;
    let mount = dir.path().join("lustre");
    let _mdt = Mdt::start(Options {
        tick: Duration::from_millis(2),
        max_requests: 1_000_000,
        ..Options::new(&mount)
    })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = runtime.block_on(Server::start(Config {
        data_dir: Some(dir.path().to_owned()),
        ..Config::default()
    }))?;
    let mut client = Client::new(&mount)?;
    for n in 0..cli.files {
        let path = file(&mount, n);
        if n % IN_DIRECTORY == 0
            && let Some(parent) = path.parent()
        {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, format!("file {n}"))?;
    }
    let spawn = Spawn::between(dir.path(), &mount, &store, BUCKET, "[log]\nlevel = 'warn'\n")?;
    let daemon = spawn.start()?;
    if !client.wait_agents(1, PATIENCE)? {
        return Err("the daemon does not register".into());
    }
    let mut outcome = Outcome::default();
    outcome.archived = command(&spawn, cli, &mount, "archive", &mut client, &mut outcome)?;
    outcome.objects = store.objects(BUCKET).len();
    outcome.released = command(&spawn, cli, &mount, "release", &mut client, &mut outcome)?;
    outcome.restored = command(&spawn, cli, &mount, "restore", &mut client, &mut outcome)?;
    daemon.stop(PATIENCE)?;
    for n in 0..cli.files {
        if std::fs::read(file(&mount, n))? != format!("file {n}").as_bytes() {
            return Err(format!("file {n} has other bytes than before").into());
        }
    }
    Ok(outcome)
}

fn file(mount: &Path, n: usize) -> PathBuf {
    mount.join(format!("d{:05}/f{n:08}", n / IN_DIRECTORY))
}

/// Runs one to its end, looking at it and at the queue; how many files it did.
fn command(
    spawn: &Spawn,
    cli: &Cli,
    mount: &Path,
    verb: &str,
    client: &mut Client,
    outcome: &mut Outcome,
) -> Result<u64> {
    let start = Instant::now();
    let mut child = Command::new(&spawn.program)
        .arg("--config")
        .arg(&spawn.config)
        .arg(verb)
        .arg(mount)
        .args(["--json", "--window", &cli.window.to_string()])
        .env("LD_PRELOAD", &spawn.library)
        .envs(spawn.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    while child.try_wait()?.is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        outcome.peak_rss_mib = outcome.peak_rss_mib.max(kib.unwrap_or(0.0) / 1024.0);
        outcome.peak_queue = outcome.peak_queue.max(client.pending()?);
        std::thread::park_timeout(SAMPLE);
    }
    let output = child.wait_with_output()?;
    let line: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let count = |name: &str| line.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    outcome.failed += count("failed");
    eprintln!(
        "{verb}: {} files in {:.1} s, {:.0}/s",
        count("done"),
        start.elapsed().as_secs_f64(),
        count("done") as f64 / start.elapsed().as_secs_f64()
    );
    Ok(count("done"))
}
