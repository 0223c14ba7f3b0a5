//! `lhsmtool-s3 rebind`: files' records after their objects were copied by other tools.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::ExitWith;
use super::progress::Progress;
use super::session::{lanes, open_paths, runtime, stopped_by_signals};
use crate::config::Settings;
use crate::disk::open_lines;
use crate::lustre::Identify;
use crate::rebind::{Prefixes, Rebind, RebindCounts, RebindError, RebindEvent, RebindLine, RebindOptions};
use crate::store::Target;

/// Which files, and where their objects went.
#[derive(Debug, Args)]
pub struct RebindArgs {
    /// Files and directories of one Lustre
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Look at all objects and prove them, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Only files of this archive (default: all that are configured)
    #[arg(long, value_name = "N")]
    archive_id: Option<u32>,
    /// What keys began with before they were copied, as written in the records: with the archive's `prefix`
    #[arg(long, value_name = "PREFIX", requires = "to_prefix")]
    from_prefix: Option<String>,
    /// What they begin with now
    #[arg(long, value_name = "PREFIX", requires = "from_prefix")]
    to_prefix: Option<String>,
    /// Files looked at at a time (default: `threads` of the configuration)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// A JSON line for each file that was rebound or failed
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
}

type Failure = Box<dyn std::error::Error>;

pub(super) fn run(args: &RebindArgs, settings: &Settings) -> Result<(), Failure> {
    let identify = if args.dry_run { Identify::Find } else { Identify::Make };
    let (mount, paths) = open_paths(settings, &args.paths, identify)?;
    let runtime = runtime()?;
    let mut targets = Vec::new();
    let mut archives = Vec::new();
    for options in &settings.targets {
        if args.archive_id.is_none_or(|id| options.archive_id.get() == id) {
            targets.push(Arc::new(runtime.block_on(Target::resolve(options.clone()))?));
            archives.push((options.archive_id, options.prefix.clone()));
        }
    }
    if let (Some(id), true) = (args.archive_id, targets.is_empty()) {
        return Err(format!("no [[archive]] section has id {id}").into());
    }
    let lanes = lanes(&targets, settings, args.threads.map_or(settings.threads, usize::from))?;
    let prefixes = args.from_prefix.clone().zip(args.to_prefix.clone());
    let options = RebindOptions {
        dry_run: args.dry_run,
        // There is one of that id.
        archive_id: args.archive_id.and_then(|_| archives.first()).map(|(id, _)| *id),
        prefixes: prefixes.map(|(from, to)| Prefixes { from, to }),
    };
    let rebind = Rebind::new(&mount, options, stopped_by_signals(&runtime));
    let mut output = Output::new(args)?;
    let result = rebind.run(&paths, &archives, &lanes, &mut |line| {
        output.show(&rebind.counts(), line)
    });
    output.end(&rebind.counts());
    match result {
        Ok(()) => {}
        Err(error @ RebindError::Stopped) => return Err(ExitWith::stopped(error.to_string()).into()),
        Err(error) => return Err(error.into()),
    }
    match rebind.counts().problems() {
        0 => Ok(()),
        n => Err(format!("{n} files or sidecars need to be looked after").into()),
    }
}

/// The bar, the lines, the end.
struct Output {
    progress: Progress,
    json: bool,
    dry_run: bool,
    report: Option<BufWriter<File>>,
}

impl Output {
    fn new(args: &RebindArgs) -> std::io::Result<Self> {
        let report = args.report.as_ref().map(|path| open_lines(path, false)).transpose()?;
        Ok(Self {
            progress: Progress::new("{spinner} {msg} {elapsed}", args.json),
            json: args.json,
            dry_run: args.dry_run,
            report: report.map(BufWriter::new),
        })
    }

    fn show(&mut self, counts: &RebindCounts, line: Option<RebindLine>) {
        match line {
            Some(line) => self.tell(&line),
            // Nothing happens at the moment.
            None => self.flush(),
        }
        self.progress.show(format!(
            "{} files, {} rebound, {} to be looked after",
            counts.files,
            counts.rebound,
            counts.problems()
        ));
    }

    fn tell(&mut self, line: &RebindLine) {
        let json = serde_json::to_string(line).unwrap_or_default();
        if let Some(report) = &mut self.report
            && let Err(error) = writeln!(report, "{json}")
        {
            tracing::error!(%error, "the report can't be written");
        }
        if self.json || line.what == RebindEvent::Rebound {
            return;
        }
        let key = line.key.as_ref().map(|key| format!("'{key}' ")).unwrap_or_default();
        let text = format!("{}: {key}{}", line.path, line.detail);
        self.progress.print(&text);
    }

    fn flush(&mut self) {
        if let Some(report) = &mut self.report
            && let Err(error) = report.flush()
        {
            tracing::error!(%error, "the report can't be written");
        }
    }

    fn end(&mut self, counts: &RebindCounts) {
        self.flush();
        self.progress.end();
        let seconds = self.progress.elapsed().as_secs_f64();
        if self.json {
            let mut line = serde_json::json!(counts);
            if let Some(line) = line.as_object_mut() {
                line.insert("dry_run".into(), self.dry_run.into());
                line.insert("seconds".into(), seconds.into());
            }
            outln!("{line}");
            return;
        }
        let would = if self.dry_run { "would be " } else { "" };
        outln!(
            "{} files in {seconds:.1} s: {} {would}rebound, {} were right, {} skipped, {} failed; {} sidecars are not \
             there; {} bytes read",
            counts.files,
            counts.rebound,
            counts.same,
            counts.skipped,
            counts.failed,
            counts.sidecars,
            counts.bytes,
        );
    }
}
