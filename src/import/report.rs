//! What came of each object: counters for everybody, a line for each that did not go in quietly.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::disk::open_lines;

/// Counters; each object ends in exactly one of the first nine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ImportCounts {
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

impl ImportCounts {
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

    /// What was made by then and since.
    #[must_use]
    pub(super) fn with_made(&self, since: &Self) -> Self {
        Self {
            imported: self.imported + since.imported,
            links: self.links + since.links,
            updated: self.updated + since.updated,
            bytes: self.bytes + since.bytes,
            warnings: self.warnings.max(since.warnings),
            ..Self::default()
        }
    }

    /// What was found there already and had been made before, by this very import, counts as made.
    pub(super) fn take_over(&mut self, before: &Self) {
        let same = &mut self.same;
        for (count, made) in [
            (&mut self.imported, before.imported),
            (&mut self.updated, before.updated),
            (&mut self.links, before.links),
        ] {
            let found = made.min(*same);
            *same -= found;
            *count += found;
        }
        self.bytes += before.bytes;
        self.warnings = self.warnings.max(before.warnings);
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
    /// Of no single object: how the bucket was listed. The key is the prefix.
    Note,
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
    counts: Mutex<ImportCounts>,
    rows: Option<(Mutex<BufWriter<File>>, Form)>,
    said: AtomicU64,
    /// 0: not known.
    expected: AtomicU64,
    /// How the bucket's listing is not in order.
    disorder: Mutex<Option<String>>,
    /// Lines that are there, of a listing that may begin anew.
    lines: Mutex<HashSet<u64>>,
}

/// Lines in the log; the rest is in the report.
const SAID: u64 = 20;
/// Lines that are known again; 8 bytes and some each.
const MOST_LINES: usize = 1 << 20;

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
            disorder: Mutex::default(),
            lines: Mutex::default(),
        })
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> ImportCounts {
        *self.lock()
    }

    /// Changes them.
    pub fn count(&self, change: impl FnOnce(&mut ImportCounts)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, ImportCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects are gone through once more, from the beginning; `refused` are counted for good.
    pub(super) fn begin_again(&self, refused: u64) {
        self.count(|counts| {
            *counts = ImportCounts {
                refused,
                ..ImportCounts::default()
            };
        });
    }

    /// Says that the store does not list in the order of the keys' bytes, and that the bucket is listed in one therefore.
    pub(super) fn note_disorder(&self, prefix: &str, why: &str) {
        *self.disorder.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
        let reason = format!("{why}: the bucket is listed from its beginning to its end, not in parts");
        self.say(Outcome::Note, prefix.as_bytes(), &reason);
    }

    /// How the bucket's listing is not in order, if it was found not to be.
    #[must_use]
    pub fn disorder(&self) -> Option<String> {
        self.disorder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a line is there already: an object that comes by a second time has no second one.
    fn is_said(&self, outcome: Outcome, key: &[u8], reason: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (outcome, key, reason).hash(&mut hasher);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = hasher.finish();
        if lines.len() >= MOST_LINES {
            return lines.contains(&line);
        }
        !lines.insert(line)
    }

    /// Says what came of an object, once.
    pub fn say(&self, outcome: Outcome, key: &[u8], reason: &str) {
        if self.is_said(outcome, key, reason) {
            return;
        }
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
