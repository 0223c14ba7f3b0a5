//! `lhsmtool-s3 scrub`: files against the bucket, the bucket against files.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use clap::Args;

use super::progress::Progress;
use super::session::{lanes, open_paths, runtime, stopped_by_signals};
use crate::action::FileSystem as _;
use crate::config::Settings;
use crate::disk::{open_lines, replace};
use crate::ledger::UploadsInHand;
use crate::lustre::Identify;
use crate::scrub::{MaxMissing, Scrub, ScrubCounts, ScrubOptions, ScrubPosition, UploadOwners};
use crate::store::{KeyLayout, Target};
use crate::types::ArchiveId;

/// What to look at, and what to do about it.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// Files and directories of one Lustre
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Read every byte of every copy and compare checksums
    #[arg(long)]
    deep: bool,
    /// Mend what can be mended: files whose copy is gone are marked dirty (to be archived again) or lost
    #[arg(long)]
    repair: bool,
    /// With more copies missing than that (a number of files, or a share of those that have a copy), --repair marks none
    /// LOST and says why; 10 files may always be missing, whatever the share
    #[arg(long, value_name = "N|SHARE%", default_value = "1%")]
    max_missing: MaxMissing,
    /// Delete objects that are no file's copy, and old uploads
    #[arg(long)]
    delete_orphans: bool,
    /// Look at files only, not for objects that are nobody's
    #[arg(long, conflicts_with = "delete_orphans")]
    files_only: bool,
    /// Objects younger than that may be copies that are being made
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Files and objects looked at at a time (default: `threads` of the configuration)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// A JSON line for each finding
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How far it is, to go on from (default: in the state directory)
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
}

impl ScrubArgs {
    /// It changes nothing and writes no report.
    pub(super) const fn only_tells(&self) -> bool {
        !self.repair && !self.delete_orphans && self.report.is_none()
    }
}

type Failure = Box<dyn std::error::Error>;

pub(super) fn run(args: &ScrubArgs, settings: &Settings) -> Result<(), Failure> {
    let (mount, paths) = open_paths(settings, &args.paths, Identify::Find)?;
    if args.delete_orphans && !paths.iter().any(|path| path == mount.path()) {
        return Err(format!(
            "--delete-orphans needs to know every file: give the mount point '{}'",
            mount.path().display()
        )
        .into());
    }
    let runtime = runtime()?;
    let mut targets = Vec::new();
    for options in &settings.targets {
        targets.push(Arc::new(runtime.block_on(Target::resolve(options.clone()))?));
    }
    let threads = args.threads.map_or(settings.threads, usize::from);
    let lanes = lanes(&targets, settings, threads)?;
    let archives = if args.files_only {
        Vec::new()
    } else {
        prefixes(settings, mount.path(), &paths)
    };
    let command = format!("scrub {paths:?} {} {archives:?}", args.deep);
    let checkpoint = Checkpoint::open(args, settings, command)?;
    let from = checkpoint.place.clone();
    let resumed = from != ScrubPosition::default();
    let options = ScrubOptions {
        deep: args.deep,
        repair: args.repair,
        max_missing: args.max_missing,
        delete_orphans: args.delete_orphans,
        grace: args.grace,
        upload_age: settings.abort_uploads_after,
        movers: settings.ledger.as_ref().map(|ledger| {
            let movers = UploadsInHand::new(ledger, mount.name());
            Arc::new(LedgerOfMovers(movers)) as Arc<dyn UploadOwners>
        }),
    };
    let scrub = Scrub::new(&mount, options, stopped_by_signals(&runtime), from.counts);
    let mut output = Output::new(args, resumed)?;
    let result = scrub.run(&paths, &archives, &lanes, from, &mut |place| {
        output.show(&scrub);
        checkpoint.write(place);
    });
    output.show(&scrub);
    output.progress.end();
    result?;
    checkpoint.remove();
    let counts = scrub.counts();
    let notes = scrub.notes();
    output.note(&notes);
    output.report(&counts, &notes);
    match counts.findings() - counts.mended {
        0 if notes.is_empty() => Ok(()),
        0 => Err(notes.join("; ").into()),
        n => Err(format!("{n} findings are not mended").into()),
    }
}

/// What movers have in hand, as their ledger tells.
#[derive(Debug)]
struct LedgerOfMovers(UploadsInHand);

impl UploadOwners for LedgerOfMovers {
    fn in_hand(&self, ids: &[&str]) -> Result<HashSet<String>, String> {
        let runtime = runtime().map_err(|error| error.to_string())?;
        let asked = runtime.block_on(Box::pin(self.0.among(ids)));
        asked.map_err(|error| error.to_string())
    }
}

/// Where copies of what is below the paths can be.
fn prefixes(settings: &Settings, mount: &Path, paths: &[PathBuf]) -> Vec<(ArchiveId, String)> {
    let mut prefixes = Vec::new();
    for target in &settings.targets {
        for path in paths {
            let below = path.strip_prefix(mount).unwrap_or(Path::new(""));
            let all = below.as_os_str().is_empty();
            match (target.layout, below.to_str()) {
                _ if all => prefixes.push((target.archive_id, target.prefix.clone())),
                (KeyLayout::Path, Some(below)) if path.is_dir() => {
                    prefixes.push((target.archive_id, format!("{}{below}/", target.prefix)));
                }
                // Keys that are FIDs say nothing of directories: only a scrub of all looks for orphans there.
                _ => {}
            }
        }
    }
    prefixes
}

struct Checkpoint {
    path: PathBuf,
    command: String,
    place: ScrubPosition,
}

impl Checkpoint {
    fn open(args: &ScrubArgs, settings: &Settings, command: String) -> Result<Self, Failure> {
        let path = match &args.checkpoint {
            Some(path) => path.clone(),
            None => {
                let directory = &settings.state_dir;
                std::fs::create_dir_all(directory).map_err(|error| {
                    format!(
                        "can't make the state directory '{}': {error}. Set `state_dir` in section [lustre], or give \
                         --checkpoint FILE",
                        directory.display()
                    )
                })?;
                let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, command.as_bytes());
                directory.join(format!("scrub-{sum:016x}.checkpoint"))
            }
        };
        let place = match std::fs::read(&path) {
            Ok(bytes) => {
                let (found, place): (String, ScrubPosition) = serde_json::from_slice(&bytes)
                    .map_err(|error| format!("'{}' is no checkpoint of a scrub: {error}. Remove it", path.display()))?;
                if found != command {
                    return Err(format!("the checkpoint '{}' is of another scrub. Remove it", path.display()).into());
                }
                place
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => ScrubPosition::default(),
            Err(error) => return Err(format!("can't read '{}': {error}", path.display()).into()),
        };
        Ok(Self { path, command, place })
    }

    fn write(&self, place: &ScrubPosition) {
        let write = || -> std::io::Result<()> { replace(&self.path, &serde_json::to_vec(&(&self.command, place))?) };
        if let Err(error) = write() {
            tracing::warn!(path = %self.path.display(), %error, "the checkpoint can't be written");
        }
    }

    fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "the checkpoint can't be removed");
        }
    }
}

/// The bar, the findings, the end.
struct Output {
    progress: Progress,
    json: bool,
    report: Option<BufWriter<File>>,
}

impl Output {
    fn new(args: &ScrubArgs, append: bool) -> std::io::Result<Self> {
        let report = match &args.report {
            None => None,
            Some(path) => Some(BufWriter::new(open_lines(path, append)?)),
        };
        Ok(Self {
            progress: Progress::new("{spinner} {msg} {elapsed}", args.json),
            json: args.json,
            report,
        })
    }

    fn show(&mut self, scrub: &Scrub<'_>) {
        let findings = std::mem::take(&mut *scrub.findings.lock().unwrap_or_else(PoisonError::into_inner));
        for finding in findings {
            let line = serde_json::to_string(&finding).unwrap_or_default();
            if let Some(report) = &mut self.report
                && let Err(error) = writeln!(report, "{line}").and_then(|()| report.flush())
            {
                tracing::error!(%error, "the report can't be written");
            }
            if !self.json {
                let what = serde_json::to_value(finding.what).unwrap_or_default();
                let mended = if finding.mended { " (mended)" } else { "" };
                let line = format!(
                    "{}: {}: {}{mended}",
                    what.as_str().unwrap_or_default(),
                    finding.name,
                    finding.detail
                );
                self.progress.print(&line);
            }
        }
        let counts = scrub.counts();
        self.progress.show(format!(
            "{} files, {} objects, {} findings",
            counts.files,
            counts.objects,
            counts.findings()
        ));
    }

    /// What is to be said of the whole: in the log, and in the report.
    fn note(&mut self, notes: &[String]) {
        for note in notes {
            tracing::warn!("{note}");
            let line = serde_json::json!({ "note": note });
            if let Some(report) = &mut self.report
                && let Err(error) = writeln!(report, "{line}").and_then(|()| report.flush())
            {
                tracing::error!(%error, "the report can't be written");
            }
        }
    }

    fn report(&self, counts: &ScrubCounts, notes: &[String]) {
        let seconds = self.progress.elapsed().as_secs_f64();
        if self.json {
            let mut line = serde_json::json!(counts);
            if let Some(line) = line.as_object_mut() {
                line.insert("seconds".into(), seconds.into());
                line.insert("notes".into(), notes.into());
            }
            outln!("{line}");
            return;
        }
        outln!(
            "{} files in {seconds:.1} s: {} good, {} never archived; {} objects, {} of others, {} too young to tell; \
             {} missing, {} changed, {} unmapped, {} mislaid, {} unwatched, {} found again, {} expiring, {} noncurrent, {} orphans, \
             {} uploads, {} unknown; {} mended",
            counts.files,
            counts.good,
            counts.unarchived,
            counts.objects,
            counts.foreign,
            counts.young,
            counts.missing,
            counts.changed,
            counts.unmapped,
            counts.mislaid,
            counts.unwatched,
            counts.found,
            counts.expiring,
            counts.noncurrent,
            counts.orphans,
            counts.uploads,
            counts.unknown,
            counts.mended,
        );
    }
}
