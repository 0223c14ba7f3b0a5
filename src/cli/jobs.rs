//! `lhsmtool-s3 archive`, `restore`, `release`, `remove`, `cancel`: bulk jobs; and `jobs`, which shows and resumes them.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::ExitWith;
use super::site::{open_mount, runtime, stopped_by_signals};
use crate::config::Settings;
use crate::fleet::Fleet;
use crate::jobs::{self, HsmFilter, JobError, Ledger, LedgerError, Outcome, Phase, Select, Spec, Summary};
use crate::lustre::{Identify, UserAction};
use crate::types::{ArchiveId, Timestamp};

type Failure = Box<dyn std::error::Error>;

/// Which files, and how.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Files and directories of one Lustre
    #[arg(value_name = "PATH", required_unless_present = "from_file")]
    paths: Vec<PathBuf>,
    /// The files named in FILE, one on each line, in this order; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "paths")]
    from_file: Option<PathBuf>,
    /// Names in FILE end with NUL (find -print0)
    #[arg(short = '0', long = "null", requires = "from_file")]
    nul: bool,
    /// The archive to use (default: the file's own, else the coordinator's default)
    #[arg(long, short = 'A', value_name = "N", value_parser = archive_id)]
    archive_id: Option<ArchiveId>,
    /// Only files that match one of these globs: of names, or with a slash of paths below the mount point
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No files that match one of these globs
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Only files of at least this size
    #[arg(long, value_name = "SIZE")]
    min_size: Option<bytesize::ByteSize>,
    /// Only files of at most this size
    #[arg(long, value_name = "SIZE")]
    max_size: Option<bytesize::ByteSize>,
    /// Only files that were not changed for that long (30d)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Only files that were changed since then (1d)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
    /// Only files that were neither read nor changed, copied here or brought back for that long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    unread_for: Option<Duration>,
    /// Only this user's files (name or number)
    #[arg(long, value_name = "USER", value_parser = user)]
    owner: Option<u32>,
    /// Only this group's files (name or number)
    #[arg(long, value_name = "GROUP", value_parser = group)]
    group: Option<u32>,
    /// Only files in one of these states
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<HsmFilter>,
    /// Only files whose copy is in this archive
    #[arg(long, value_name = "N", value_parser = archive_id)]
    in_archive: Option<ArchiveId>,
    /// At most so many files are asked for and not done
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    window: u32,
    /// Calls at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Ask for nothing; count
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
    /// Say the job's name and go on without a terminal
    #[arg(long)]
    detach: bool,
    /// Wait for the end (the default)
    #[arg(long, conflicts_with = "detach")]
    wait: bool,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// All jobs, the oldest first
    List {
        /// A line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// One job, and the first of its failures
    Show {
        /// Its name
        job: String,
    },
    /// Go on with a job that was stopped or killed
    Resume {
        /// Its name
        job: String,
        /// Also what has failed before
        #[arg(long)]
        retry_failed: bool,
        /// One line of JSON at the end
        #[arg(long)]
        json: bool,
    },
    /// Stop a job, and ask the coordinator to stop what it asked for
    Cancel {
        /// Its name
        job: String,
    },
    /// Every file of a job: state, bytes, seconds, reason
    Report {
        /// Its name
        job: String,
        /// How
        #[arg(long, value_enum, default_value = "csv")]
        format: Format,
        /// Only what has failed
        #[arg(long)]
        failed: bool,
        /// Where to (default: standard output)
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// With a head.
    Csv,
    /// A line for each file.
    Json,
}

fn archive_id(text: &str) -> Result<ArchiveId, String> {
    let number = text.parse().map_err(|_| "give a number from 1".to_owned())?;
    ArchiveId::new(number).ok_or_else(|| "archive ids begin with 1".into())
}

fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(format!("no user '{text}'")),
    }
}

fn group(text: &str) -> Result<u32, String> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(format!("no group '{text}'")),
    }
}

fn usage(message: impl Into<String>) -> Failure {
    ExitWith::usage(message.into()).into()
}

pub(super) fn run(args: &JobArgs, action: UserAction, settings: &Settings, config: &Path) -> Result<(), Failure> {
    let directory = jobs::directory(&settings.state_dir);
    let scratch = args.dry_run.then(tempfile::tempdir).transpose()?;
    let directory = scratch.as_ref().map_or(directory, |scratch| scratch.path().to_owned());
    let spec = spec(args, action, settings, &directory)?;
    spec.select.check().map_err(|error| usage(error.to_string()))?;
    let ledger = Ledger::create(&directory, &spec)?;
    if args.detach {
        drop(ledger);
        return detach(&spec.id, config);
    }
    work(&spec, &ledger, settings, &directory, args.json)
}

fn spec(args: &JobArgs, action: UserAction, settings: &Settings, directory: &Path) -> Result<Spec, Failure> {
    std::fs::create_dir_all(directory).map_err(|error| format!("can't make '{}': {error}", directory.display()))?;
    let id = jobs::new_id(action);
    let mut roots = Vec::new();
    for path in &args.paths {
        let parent = |path: &Path| -> std::io::Result<PathBuf> {
            // A symlink is itself, not what it points to; what leads to it is.
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) if path.symlink_metadata()?.is_symlink() => {
                    let parent = if parent.as_os_str().is_empty() {
                        Path::new(".")
                    } else {
                        parent
                    };
                    Ok(parent.canonicalize()?.join(name))
                }
                _ => path.canonicalize(),
            }
        };
        roots.push(parent(path).map_err(|error| usage(format!("'{}': {error}", path.display())))?);
    }
    roots.sort();
    roots.dedup_by(|later, earlier| later.starts_with(&*earlier));
    let list = args
        .from_file
        .as_deref()
        .map(|from| copy_list(from, args.nul, directory, &id))
        .transpose()?;
    let inside = match (&list, roots.first()) {
        (Some((_, first)), _) => first.clone().ok_or_else(|| usage("the list names no file"))?,
        (None, Some(root)) => root.clone(),
        (None, None) => return Err(usage("no path")),
    };
    let inside = if inside.is_dir() {
        inside
    } else {
        inside.parent().map(Path::to_owned).unwrap_or_default()
    };
    let mount = open_mount(settings, &inside, Identify::Find)?;
    if let Some(other) = roots.iter().find(|root| !root.starts_with(mount.path())) {
        return Err(usage(format!(
            "'{}' is not in '{}'",
            other.display(),
            mount.path().display()
        )));
    }
    let now = Timestamp::now().seconds;
    let ago =
        |time: Option<Duration>| time.map(|time| now.saturating_sub(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)));
    Ok(Spec {
        id,
        action,
        archive_id: args.archive_id,
        mount: mount.path().to_owned(),
        roots,
        list: list.map(|(path, _)| path),
        nul: args.nul,
        select: Select {
            include: args.include.clone(),
            exclude: args.exclude.clone(),
            min_size: args.min_size.map(|size| size.as_u64()),
            max_size: args.max_size.map(|size| size.as_u64()),
            modified_before: ago(args.older_than),
            modified_since: ago(args.newer_than),
            accessed_before: ago(args.unread_for),
            uid: args.owner,
            gid: args.group,
            states: args.state.clone(),
            in_archive: args.in_archive,
        },
        window: usize::try_from(args.window)?,
        threads: usize::from(args.threads),
        dry_run: args.dry_run,
        created: now,
    })
}

/// The list as the job keeps it, with absolute names: standard input is gone when it is resumed. And its first name.
fn copy_list(from: &Path, nul: bool, directory: &Path, id: &str) -> Result<(PathBuf, Option<PathBuf>), Failure> {
    let input: Box<dyn std::io::Read> = if from == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(from);
        Box::new(opened.map_err(|error| usage(format!("can't read '{}': {error}", from.display())))?)
    };
    let here = std::env::current_dir()?;
    let to = directory.join(format!("{id}.list"));
    let mut output = BufWriter::new(std::fs::File::create(&to)?);
    let end = if nul { 0 } else { b'\n' };
    let mut first = None;
    for name in BufReader::new(input).split(end) {
        let name = name?;
        if name.is_empty() {
            continue;
        }
        let name = here.join(std::ffi::OsString::from_vec(name));
        output.write_all(name.as_os_str().as_bytes())?;
        output.write_all(&[end])?;
        first.get_or_insert(name);
    }
    output.flush()?;
    Ok((to, first))
}

/// The same job in a process of its own.
fn detach(id: &str, config: &Path) -> Result<(), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--config")
        .arg(config.canonicalize()?)
        .args(["jobs", "resume", id]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Signals of this terminal are not its own.
    command.process_group(0).spawn()?;
    outln!("{id}");
    Ok(())
}

fn work(spec: &Spec, ledger: &Ledger, settings: &Settings, directory: &Path, json: bool) -> Result<(), Failure> {
    let mount = open_mount(settings, &spec.mount, Identify::Find)?;
    let runtime = runtime()?;
    let control = stopped_by_signals(&runtime);
    let mut progress = Progress::new(json);
    let mut written = None::<Instant>;
    let fleet = Fleet::new(settings.movers.clone());
    let result = jobs::run(&mount, spec, ledger, &control, &fleet, &mut |summary| {
        progress.show(summary);
        if summary.phase != Phase::Running || written.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            written = Some(Instant::now());
            if let Err(error) = summary.write(directory) {
                tracing::warn!(job = summary.id, %error, "others can't see how far the job is");
            }
        }
    });
    progress.bar.finish_and_clear();
    let summary = match result {
        Ok(summary) => summary,
        Err(error @ JobError::Stopped(_)) => return Err(ExitWith::stopped(error.to_string()).into()),
        Err(error) => return Err(error.into()),
    };
    if json {
        outln!("{}", serde_json::to_string(&summary)?);
    } else {
        outln!("{}", last_line(&summary, spec.dry_run));
    }
    match summary.counts.failed {
        0 => Ok(()),
        failed if spec.dry_run => Err(ExitWith::failed(format!("{failed} files can't be done")).into()),
        failed => Err(ExitWith::failed(format!(
            "{failed} files failed; lhsmtool-s3 jobs report --failed {} says why",
            spec.id
        ))
        .into()),
    }
}

pub(super) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

fn last_line(summary: &Summary, dry_run: bool) -> String {
    let counts = &summary.counts;
    let name = if dry_run {
        "dry run, nothing was asked for"
    } else {
        &summary.id
    };
    format!(
        "{name}: {} done ({}), {} had nothing to be done, {} failed, in {:.1} s",
        counts.done,
        bytes(counts.bytes),
        counts.already,
        counts.failed,
        summary.seconds
    )
}

/// A line that moves on a terminal, a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    quiet: bool,
    said: Instant,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        if quiet {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        Self {
            bar,
            quiet,
            said: Instant::now(),
        }
    }

    fn show(&mut self, summary: &Summary) {
        let text = line(summary);
        if summary.complete {
            self.bar.set_length(summary.found);
        }
        self.bar.set_position(summary.counts.ended());
        if self.bar.is_hidden() && !self.quiet && self.said.elapsed() >= Duration::from_secs(10) {
            self.said = Instant::now();
            errln!("{text}");
        }
        self.bar.set_message(text);
        self.bar.tick();
    }
}

/// A job in one line.
pub(super) fn line(summary: &Summary) -> String {
    let counts = &summary.counts;
    let mut text = format!(
        "{} of {}{} files, {} active, {} failed, {} at {:.0}/s",
        counts.ended(),
        summary.found,
        if summary.complete { "" } else { "+" },
        summary.active,
        counts.failed,
        bytes(counts.bytes),
        summary.rate,
    );
    if let Some(eta) = summary.eta.filter(|_| summary.phase == Phase::Running) {
        let eta = Duration::try_from_secs_f64(eta.ceil()).unwrap_or(Duration::MAX);
        text.push_str(&format!(", {} left", humantime::format_duration(eta)));
    }
    if !summary.waits_for.is_empty() {
        text.push_str(&format!("; waits for {}", summary.waits_for));
    }
    text
}

pub(super) fn command(command: &JobsCommand, settings: &Settings) -> Result<(), Failure> {
    let directory = jobs::directory(&settings.state_dir);
    match command {
        JobsCommand::List { json } => list(&directory, *json),
        JobsCommand::Show { job } => show(&directory, job),
        JobsCommand::Resume {
            job,
            retry_failed,
            json,
        } => {
            let (ledger, spec) = Ledger::open(&directory, job)?;
            if *retry_failed {
                ledger.forget_failed()?;
            }
            work(&spec, &ledger, settings, &directory, *json)
        }
        JobsCommand::Cancel { job } => cancel(&directory, job, settings),
        JobsCommand::Report {
            job,
            format,
            failed,
            output,
        } => {
            let (ledger, _) = Ledger::open(&directory, job)?;
            report(&ledger, *format, *failed, output.as_deref())
        }
    }
}

fn list(directory: &Path, json: bool) -> Result<(), Failure> {
    for summary in Summary::all(directory)? {
        if json {
            outln!("{}", serde_json::to_string(&summary)?);
        } else {
            outln!("{:<36} {:<8} {}", summary.id, summary.phase.word(), line(&summary));
        }
    }
    Ok(())
}

fn show(directory: &Path, job: &str) -> Result<(), Failure> {
    const MOST: usize = 20;
    let summary = Summary::find(directory, job)?;
    outln!("{}", serde_json::to_string_pretty(&summary)?);
    if summary.phase == Phase::Running || summary.counts.failed == 0 {
        return Ok(());
    }
    let (ledger, _) = Ledger::open(directory, job)?;
    let mut said = 0;
    ledger.rows::<Failure>(|path, row| {
        if row.outcome == Outcome::Failed && said < MOST {
            said += 1;
            outln!("{}: {}", String::from_utf8_lossy(path), row.reason);
        }
        Ok(())
    })
}

fn cancel(directory: &Path, job: &str, settings: &Settings) -> Result<(), Failure> {
    let summary = Summary::find(directory, job)?;
    // Only a process that has the ledger is the job's: a pid may be another's by now.
    if let Err(LedgerError::Running(_)) = Ledger::open(directory, job) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(summary.pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    }
    let (ledger, spec) = opened(directory, job)?;
    let mount = open_mount(settings, &spec.mount, Identify::Find)?;
    let mut asked = 0u64;
    ledger.rows::<Failure>(|_, row| {
        if row.outcome == Outcome::Requested
            && let Ok(fid) = row.fid.parse()
            && mount.has_action(fid).unwrap_or(false)
        {
            match mount.request(UserAction::Cancel, spec.archive_id, &[fid]) {
                Ok(()) => asked += 1,
                Err(error) => tracing::warn!(file = row.fid, %error, "can't be cancelled"),
            }
        }
        Ok(())
    })?;
    outln!("{job}: stopped; {asked} actions were asked to be cancelled");
    Ok(())
}

/// Waits for the process that was just told to end.
fn opened(directory: &Path, job: &str) -> Result<(Ledger, Spec), LedgerError> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match Ledger::open(directory, job) {
            Err(LedgerError::Running(_)) if Instant::now() < until => {
                std::thread::park_timeout(Duration::from_millis(100));
            }
            opened => return opened,
        }
    }
}

fn report(ledger: &Ledger, format: Format, only_failed: bool, output: Option<&Path>) -> Result<(), Failure> {
    let output: Box<dyn std::io::Write> = match output {
        Some(path) => Box::new(std::fs::File::create(path)?),
        None => Box::new(super::output::Stdout),
    };
    let mut output = BufWriter::new(output);
    let mut lines = csv::Writer::from_writer(Vec::new());
    if format == Format::Csv {
        writeln!(output, "path,state,fid,bytes,seconds,errno,reason")?;
    }
    ledger.rows::<Failure>(|path, row| {
        if only_failed && row.outcome != Outcome::Failed {
            return Ok(());
        }
        let path = String::from_utf8_lossy(path);
        match format {
            Format::Json => {
                let mut value = serde_json::to_value(&row)?;
                if let Some(value) = value.as_object_mut() {
                    value.insert("path".into(), path.into());
                }
                writeln!(output, "{value}")?;
            }
            Format::Csv => {
                let state = serde_json::to_value(row.outcome)?;
                lines.write_record([
                    path.as_ref(),
                    state.as_str().unwrap_or_default(),
                    &row.fid,
                    &row.size.to_string(),
                    &format!("{:.3}", row.seconds),
                    &row.errno.to_string(),
                    &row.reason,
                ])?;
                lines.flush()?;
                let done = std::mem::replace(&mut lines, csv::Writer::from_writer(Vec::new()));
                output.write_all(&done.into_inner().map_err(|error| error.into_error())?)?;
            }
        }
        Ok(())
    })?;
    output.flush()?;
    Ok(())
}
