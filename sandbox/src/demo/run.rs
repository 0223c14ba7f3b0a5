//! The steps.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lhsm_sandbox::process::{self, Daemon, Spawn};
use lhsm_sandbox::protocol::{Action, Fid, states};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Server};

use crate::Cli;
use crate::report::{Report, Step};
use crate::tree::{self, Entry};

/// As many as the ioctl takes.
const BATCH: usize = 50;
const START: Duration = Duration::from_secs(30);
/// For a file to be closed.
const BUSY: Duration = Duration::from_secs(2);
/// For one batch; the large file is in one of them.
const PATIENCE: Duration = Duration::from_secs(600);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(crate) fn run(cli: &Cli) -> Result<Report> {
    let scratch = match &cli.work_dir {
        Some(dir) => tempfile::Builder::new().prefix("lhsm-demo-").tempdir_in(dir)?,
        None => tempfile::Builder::new().prefix("lhsm-demo-").tempdir()?,
    };
    let mount = scratch.path().join("lustre");
    let mdt = Mdt::start(Options::new(&mount))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = match cli.s3 {
        Some(_) => None,
        None => Some(runtime.block_on(Server::start(Config {
            data_dir: Some(scratch.path().to_owned()),
            ..Config::default()
        }))?),
    };
    let log = scratch.path().join("daemon.log");
    let daemon = start_daemon(cli, scratch.path(), &mount, store.as_ref(), &log)?;
    let result = Demo {
        show: Show::new(),
        client: Client::new(&mount)?,
        mount: mount.clone(),
        restores_on_read: mdt.restores_on_read(),
        report: Report::default(),
    }
    .all(cli, daemon);
    result.map_err(|error| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(15).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        format!("{error}\nthe daemon's last words:\n{}", tail.join("\n")).into()
    })
}

fn start_daemon(cli: &Cli, scratch: &Path, mount: &Path, store: Option<&Server>, log: &Path) -> Result<Daemon> {
    let library = process::artifact(process::LIBRARY)?;
    let endpoint = match (store, &cli.s3) {
        (Some(store), _) => store.endpoint(),
        (None, Some(url)) => url.clone(),
        (None, None) => return Err("no store".into()),
    };
    let defaults = Config::default();
    let bucket = cli.bucket.clone().unwrap_or_else(|| "lhsm-sandbox".into());
    let config = scratch.join("lhsmtool-s3.toml");
    fs::write(
        &config,
        format!(
            "[lustre]\nmount = '{}'\nlibrary = '{}'\nstate_dir = '{}'\n\n[[archive]]\nid = 1\nbucket = '{bucket}'\nprefix = '{}'\nendpoint_url = '{endpoint}'\n",
            mount.display(),
            library.display(),
            scratch.join("state").display(),
            // A real bucket may have other things in it.
            if store.is_some() {
                String::new()
            } else {
                format!("lhsm-demo-{}/", std::process::id())
            },
        ),
    )?;
    let mut environment = Vec::new();
    if store.is_some() {
        environment.push(("AWS_ACCESS_KEY_ID".to_owned(), defaults.access_key));
        environment.push(("AWS_SECRET_ACCESS_KEY".to_owned(), defaults.secret_key));
    }
    let spawn = Spawn {
        program: process::artifact("lhsmtool-s3")?,
        library,
        config,
        log: Some(log.to_owned()),
        environment,
    };
    Ok(spawn.start()?)
}

/// What a person sees meanwhile: a bar on a terminal, a line for each step elsewhere.
struct Show {
    terminal: bool,
}

impl Show {
    fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
        }
    }

    fn step(&self, name: &'static str, files: usize) -> ProgressBar {
        if !self.terminal {
            eprintln!("{name} …");
            return ProgressBar::with_draw_target(Some(files as u64), ProgressDrawTarget::hidden());
        }
        let bar = ProgressBar::new(files as u64);
        if let Ok(style) = ProgressStyle::with_template("{msg:<22} {bar:40} {pos}/{len} files, {per_sec}, {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(name);
        bar
    }
}

struct Demo {
    show: Show,
    client: Client,
    mount: PathBuf,
    restores_on_read: bool,
    report: Report,
}

impl Demo {
    fn all(mut self, cli: &Cli, daemon: Daemon) -> Result<Report> {
        let start = Instant::now();
        if !self.client.wait_agents(1, START)? {
            return Err("the daemon did not register".into());
        }
        let entries = self.fill(cli)?;
        self.report.files = entries.len();
        self.report.bytes = entries.iter().map(|entry| entry.bytes).sum();
        let fids = entries
            .iter()
            .map(|entry| self.client.fid(&entry.path))
            .collect::<io::Result<Vec<_>>>()?;

        self.report.archived = self.request("archive", Action::Archive, &fids, states::ARCHIVED, 0)?;
        self.report.space_before = tree::space(&entries)?;
        self.report.released = self.release(&fids)?;
        self.report.space_released = tree::space(&entries)?;
        if self.restores_on_read {
            self.report.how = "each file was restored by reading it";
        } else {
            self.report.how = "restored by name (restore on read needs root)";
            self.request("restore", Action::Restore, &fids, states::ARCHIVED, states::RELEASED)?;
        }
        self.compare(&entries)?;
        self.report.restored = self.count(&fids, states::ARCHIVED, states::RELEASED)?;
        self.report.time = start.elapsed();

        let status = daemon.stop(Duration::from_secs(90))?;
        if !status.success() {
            return Err(format!("the daemon ended with {status}").into());
        }
        Ok(self.report)
    }

    fn fill(&self, cli: &Cli) -> Result<Vec<Entry>> {
        let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let source = match &cli.source {
            Some(source) => source.canonicalize()?,
            None => own.canonicalize()?,
        };
        let bar = self.show.step("copy files in", 0);
        let mut entries = tree::copy(&source, &self.mount.join("data"), |_| bar.inc(1))?;
        if cli.source.is_none() {
            entries.push(tree::large(self.mount.join("data/256MiB.bin"))?);
        }
        bar.finish_and_clear();
        if entries.is_empty() {
            return Err(format!("no regular files in '{}'", source.display()).into());
        }
        Ok(entries)
    }

    /// Requests an action for all files and waits; how many ended as wanted.
    fn request(&mut self, name: &'static str, action: Action, fids: &[Fid], with: u32, without: u32) -> Result<usize> {
        let (bar, start) = (self.show.step(name, fids.len()), Instant::now());
        for batch in fids.chunks(BATCH) {
            self.client.request(action, 1, batch)?;
        }
        for batch in fids.chunks(BATCH) {
            if !self.client.wait(batch, PATIENCE)? {
                return Err(format!("{name}: not done after {} s", PATIENCE.as_secs()).into());
            }
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        self.note(name, fids.len(), start);
        self.count(fids, with, without)
    }

    fn release(&mut self, fids: &[Fid]) -> Result<usize> {
        let (bar, start) = (self.show.step("release", fids.len()), Instant::now());
        for fid in fids {
            if let Err(error) = self.client.release_closed(*fid, BUSY) {
                self.report.differences.push(format!("{fid} was not released: {error}"));
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.note("release", fids.len(), start);
        self.count(fids, states::RELEASED, 0)
    }

    fn compare(&mut self, entries: &[Entry]) -> Result<()> {
        let name = if self.restores_on_read {
            "read (restores)"
        } else {
            "read"
        };
        let (bar, start) = (self.show.step(name, entries.len()), Instant::now());
        for entry in entries {
            match tree::measure(entry.path.clone()) {
                Ok(now) if now.sum == entry.sum && now.bytes == entry.bytes => self.report.identical += 1,
                Ok(_) => self.report.differences.push(entry.path.display().to_string()),
                Err(error) => self
                    .report
                    .differences
                    .push(format!("{}: {error}", entry.path.display())),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.note(name, entries.len(), start);
        Ok(())
    }

    fn note(&mut self, name: &'static str, files: usize, start: Instant) {
        self.report.steps.push(Step {
            name,
            files,
            bytes: self.report.bytes,
            time: start.elapsed(),
        });
    }

    fn count(&mut self, fids: &[Fid], with: u32, without: u32) -> Result<usize> {
        let mut count = 0;
        for fid in fids {
            let state = self.client.state(*fid)?.states;
            count += usize::from(state & with == with && state & without == 0);
        }
        Ok(count)
    }
}
