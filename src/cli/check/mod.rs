//! `lhsmtool-s3 check`: is everything there that the daemon needs? A row for each thing, with what to do.

mod ledger;
mod node;
mod store;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::ExitWith;
use super::mds::MDTS;
use super::session::runtime;
use crate::config::{self, ConfigError, Settings};

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Lustre mount point (default: the configuration's)
    #[arg(value_name = "MOUNT")]
    mount: Option<PathBuf>,
    /// Only the archive with that id
    #[arg(long, value_name = "N")]
    archive_id: Option<u32>,
    /// Look at the stores alone: nothing of Lustre
    #[arg(long)]
    stores: bool,
    /// One line of JSON for each row
    #[arg(long)]
    json: bool,
}

type Failure = Box<dyn std::error::Error>;

/// How a row came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum RowMark {
    Pass,
    /// The daemon runs, with less.
    Warn,
    Fail,
}

impl RowMark {
    const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Row {
    what: String,
    mark: RowMark,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

/// The rows so far.
#[derive(Debug, Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, what: impl Into<String>, mark: RowMark, found: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Row {
            what: what.into(),
            mark,
            found: found.into(),
            fix: fix.into(),
        });
    }

    fn pass(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.add(what, RowMark::Pass, found, "");
    }

    fn warn(&mut self, what: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) {
        self.add(what, RowMark::Warn, found, fix);
    }

    fn fail(&mut self, what: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) {
        self.add(what, RowMark::Fail, found, fix);
    }

    fn worst(&self) -> RowMark {
        self.0.iter().map(|row| row.mark).max().unwrap_or(RowMark::Pass)
    }
}

impl CheckArgs {
    /// Checks; the exit code tells whether anything failed.
    ///
    /// # Errors
    /// Something failed.
    pub fn run(&self, config: &Path) -> Result<(), Failure> {
        run(self, config)
    }
}

fn run(args: &CheckArgs, config: &Path) -> Result<(), Failure> {
    let mut rows = Rows::default();
    let given = args.mount.as_deref().or(args.stores.then_some(Path::new("/")));
    if let Some(mut settings) = read(config, given, &mut rows) {
        if let Some(id) = args.archive_id {
            settings.targets.retain(|target| target.archive_id.get() == id);
            if settings.targets.is_empty() {
                return Err(ExitWith::usage(format!("no [[archive]] section has id = {id}")).into());
            }
        }
        node::check(&settings, &mut rows);
        if !args.stores {
            node::lustre(&settings, Path::new(MDTS), &mut rows);
        }
        let runtime = runtime()?;
        if let Some(options) = &settings.ledger {
            ledger::check(options, (!args.stores).then_some(&settings), &runtime, &mut rows);
        }
        for target in &settings.targets {
            store::check(target, &settings, &runtime, &mut rows);
        }
    }
    show(&rows, args.json)?;
    match rows.worst() {
        RowMark::Fail => Err(ExitWith::failed("not everything is as it must be".into()).into()),
        RowMark::Pass | RowMark::Warn => Ok(()),
    }
}

fn read(config: &Path, mount: Option<&Path>, rows: &mut Rows) -> Option<Settings> {
    match config::load(config, mount) {
        Ok(settings) => {
            rows.pass("configuration", config.display().to_string());
            Some(settings)
        }
        Err(ConfigError::Invalid { path, problems }) => {
            for problem in problems {
                let found = format!("{}: {}", problem.place(&path), problem.what);
                rows.fail("configuration", found, "correct that line");
            }
            None
        }
        Err(error) => {
            rows.fail("configuration", error.to_string(), "name the file with --config FILE");
            None
        }
    }
}

fn show(rows: &Rows, json: bool) -> Result<(), Failure> {
    if json {
        for row in &rows.0 {
            outln!("{}", serde_json::to_string(row)?);
        }
        return Ok(());
    }
    let width = rows.0.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    for row in &rows.0 {
        outln!("{}  {:width$}  {}", row.mark.word(), row.what, row.found);
        if !row.fix.is_empty() {
            outln!("      {:width$}  > {}", "", row.fix);
        }
    }
    Ok(())
}
