//! What came of each object: counters for everybody, a line for each that did not go in quietly.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Counters; each object ends in exactly one of the first nine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Released files made.
    pub imported: u64,
    /// Directories that objects stand for.
    pub directories: u64,
    /// Symlinks made.
    pub links: u64,
    /// Files that were replaced because their object changed.
    pub updated: u64,
    /// There already, from the same object.
    pub same: u64,
    /// There already, and left as they are.
    pub skipped: u64,
    /// Not asked for by filters or the shard.
    pub filtered: u64,
    /// Can't be a file here.
    pub refused: u64,
    /// Could be, and something went wrong.
    pub failed: u64,
    /// Files without an object that were deleted.
    pub deleted: u64,
    /// Metadata that was left out because it can't be true.
    pub warnings: u64,
    /// Of imported files.
    pub bytes: u64,
}

impl Counts {
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
    counts: Mutex<Counts>,
    rows: Option<(Mutex<BufWriter<File>>, Form)>,
    said: AtomicU64,
    /// 0: not known.
    expected: AtomicU64,
}

/// Lines in the log; the rest is in the report.
const SAID: u64 = 20;

impl Report {
    /// How many objects there will be, as far as an inventory's bytes tell that.
    pub(super) fn expect(&self, objects: u64) {
        self.expected.store(objects, Ordering::Relaxed);
    }

    /// How many objects there will be, where that can be told by now.
    #[must_use]
    pub fn expected(&self) -> Option<u64> {
        Some(self.expected.load(Ordering::Relaxed)).filter(|expected| *expected > 0)
    }

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
                let file = open_lines(path, append)?;
                let is_new = file.metadata()?.len() == 0;
                let mut file = BufWriter::new(file);
                if !json && is_new {
                    file.write_all(b"outcome,key,reason\n")?;
                }
                Some((Mutex::new(file), if json { Form::Json } else { Form::Csv }))
            }
        };
        Ok(Self {
            counts: Mutex::default(),
            rows,
            said: AtomicU64::new(0),
            expected: AtomicU64::new(0),
        })
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.lock()
    }

    /// Changes them.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A file for lines, begun anew or gone on with.
///
/// # Errors
/// It can't be made.
pub fn open_lines(path: &Path, append: bool) -> std::io::Result<File> {
    File::options()
        .create(true)
        .write(true)
        .append(append)
        .truncate(!append)
        .open(path)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
