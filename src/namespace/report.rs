//! What came of each object: counters for everybody, a line for each that did not go in quietly.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Counters; each object ends in exactly one of the first eight.
#[derive(Debug, Default)]
pub struct Tally {
    /// Released files made.
    pub imported: AtomicU64,
    /// Directories that objects stand for.
    pub directories: AtomicU64,
    /// Symlinks made.
    pub links: AtomicU64,
    /// Files that were replaced because their object changed.
    pub updated: AtomicU64,
    /// There already, from the same object.
    pub same: AtomicU64,
    /// There already, and left as they are.
    pub skipped: AtomicU64,
    /// Not asked for by filters or the shard.
    pub filtered: AtomicU64,
    /// Can't be a file here.
    pub refused: AtomicU64,
    /// Could be, and something went wrong.
    pub failed: AtomicU64,
    /// Files without an object that were deleted.
    pub deleted: AtomicU64,
    /// Metadata that was left out because it can't be true.
    pub warnings: AtomicU64,
    /// Directories made on the way.
    pub made_directories: AtomicU64,
    /// Of imported files.
    pub bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in Tally")]
pub struct Counts {
    pub imported: u64,
    pub directories: u64,
    pub links: u64,
    pub updated: u64,
    pub same: u64,
    pub skipped: u64,
    pub filtered: u64,
    pub refused: u64,
    pub failed: u64,
    pub deleted: u64,
    pub warnings: u64,
    pub made_directories: u64,
    pub bytes: u64,
}

impl Tally {
    /// All of them now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            imported: get(&self.imported),
            directories: get(&self.directories),
            links: get(&self.links),
            updated: get(&self.updated),
            same: get(&self.same),
            skipped: get(&self.skipped),
            filtered: get(&self.filtered),
            refused: get(&self.refused),
            failed: get(&self.failed),
            deleted: get(&self.deleted),
            warnings: get(&self.warnings),
            made_directories: get(&self.made_directories),
            bytes: get(&self.bytes),
        }
    }
}

impl Counts {
    /// With those of a former run.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            imported: self.imported + other.imported,
            directories: self.directories + other.directories,
            links: self.links + other.links,
            updated: self.updated + other.updated,
            same: self.same + other.same,
            skipped: self.skipped + other.skipped,
            filtered: self.filtered + other.filtered,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
            deleted: self.deleted + other.deleted,
            warnings: self.warnings + other.warnings,
            made_directories: self.made_directories + other.made_directories,
            bytes: self.bytes + other.bytes,
        }
    }

    /// Objects that were looked at.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.imported
            + self.directories
            + self.links
            + self.updated
            + self.same
            + self.skipped
            + self.filtered
            + self.refused
            + self.failed
    }
}

/// What is said of one object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It can't be a file here.
    Refused,
    /// Something else has its place.
    Conflict,
    /// Something went wrong.
    Failed,
    /// It is here, with less metadata than it says.
    Warning,
    /// It is here under another name.
    Renamed,
    /// The file had no object any more.
    Deleted,
}

#[derive(Serialize)]
struct Row<'a> {
    outcome: Outcome,
    key: &'a str,
    reason: &'a str,
}

#[derive(Debug)]
enum Form {
    Csv,
    Json,
}

/// The lines' file, if one is wanted; the first few also go to the log.
#[derive(Debug)]
pub struct Report {
    /// The counters.
    pub tally: Tally,
    rows: Option<(Mutex<BufWriter<File>>, Form)>,
    said: AtomicU64,
}

/// Lines in the log; the rest is in the report.
const SAID: u64 = 20;

impl Report {
    /// `.json` and `.jsonl` give a JSON object a line, anything else CSV.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn new(path: Option<&Path>, append: bool) -> std::io::Result<Self> {
        let rows = match path {
            None => None,
            Some(path) => {
                let json = path
                    .extension()
                    .is_some_and(|extension| extension == "json" || extension == "jsonl");
                let file = File::options()
                    .create(true)
                    .write(true)
                    .append(append)
                    .truncate(!append)
                    .open(path)?;
                let is_new = file.metadata()?.len() == 0;
                let mut file = BufWriter::new(file);
                if !json && is_new {
                    file.write_all(b"outcome,key,reason\n")?;
                }
                Some((Mutex::new(file), if json { Form::Json } else { Form::Csv }))
            }
        };
        Ok(Self {
            tally: Tally::default(),
            rows,
            said: AtomicU64::new(0),
        })
    }

    /// Says what came of an object.
    pub fn say(&self, outcome: Outcome, key: &[u8], reason: &str) {
        let key = String::from_utf8_lossy(key);
        let said = self.said.fetch_add(1, Ordering::Relaxed);
        if said < SAID {
            tracing::warn!(?key, reason, "{outcome:?}");
        } else if said == SAID {
            tracing::warn!("more such objects are only counted here; --report FILE has them all");
        }
        let Some((file, form)) = &self.rows else {
            return;
        };
        let row = Row {
            outcome,
            key: &key,
            reason,
        };
        let line = match form {
            Form::Json => serde_json::to_string(&row).unwrap_or_default(),
            Form::Csv => format!(
                "{},{},{}",
                serde_json::to_value(outcome)
                    .ok()
                    .and_then(|name| Some(name.as_str()?.to_owned()))
                    .unwrap_or_default(),
                quoted(&key),
                quoted(reason)
            ),
        };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{line}") {
            tracing::error!(%error, "the report can't be written");
        }
    }

    /// Brings the lines to the disk.
    pub fn flush(&self) {
        if let Some((file, _)) = &self.rows
            && let Err(error) = file.lock().unwrap_or_else(PoisonError::into_inner).flush()
        {
            tracing::error!(%error, "the report can't be written");
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
