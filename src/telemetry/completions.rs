//! One line of JSON for each action that ended, in a file that is rotated: what was done to which file, for good.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use crate::action::{FileSystem, Item, Verdict};
use crate::types::ArchiveId;
use crate::worker::{Ending, Witness};

/// Where, and how much of it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompletionOptions {
    /// The file; `FILE.1` is the one before.
    pub path: PathBuf,
    /// Bytes of a file.
    pub size: u64,
    /// Former files.
    pub keep: u32,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    class: &'a str,
    outcome: &'a str,
    fid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    archive: u32,
    bytes: u64,
    seconds: f64,
    errno: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The file.
#[derive(Debug)]
pub struct Completions {
    options: CompletionOptions,
    file: Mutex<(File, u64)>,
}

impl Completions {
    /// Opens the file; lines are added to what is there.
    ///
    /// # Errors
    /// It can't be written.
    pub fn open(options: CompletionOptions) -> io::Result<Self> {
        let file = open(&options.path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            options,
            file: Mutex::new((file, size)),
        })
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, size) = &mut *held;
        if *size > 0 && *size + line.len() as u64 > self.options.size {
            self.rotate()?;
            (*file, *size) = (open(&self.options.path)?, 0);
        }
        file.write_all(line)?;
        *size += line.len() as u64;
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        let CompletionOptions { path, keep, .. } = &self.options;
        if *keep == 0 {
            return std::fs::remove_file(path);
        }
        for n in (1..*keep).rev() {
            match std::fs::rename(numbered(path, n), numbered(path, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(path, numbered(path, 1))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

impl Witness for Completions {
    fn started(&self, _: &dyn FileSystem, _: &Item) {}

    fn ended(&self, fs: &dyn FileSystem, ending: &Ending<'_>) {
        let Some(class) = crate::queue::Class::of(ending.item) else {
            return;
        };
        let (outcome, errno) = match ending.verdict {
            Verdict::Done => ("done", 0),
            Verdict::Cancelled => ("cancelled", libc::ECANCELED),
            Verdict::Failed { errno, .. } => ("failed", errno.get()),
        };
        let line = Line {
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            class: class.word(),
            outcome,
            fid: ending.item.fid.bare(),
            path: fs.path_of(ending.item.fid).ok().map(|path| path.display().to_string()),
            key: ending.key,
            archive: ending.item.archive_id.map_or(0, ArchiveId::get),
            bytes: ending.bytes,
            seconds: ending.took.unwrap_or_default().as_secs_f64(),
            errno,
            reason: ending.reason,
        };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.write(&line)
        });
        if let Err(error) = written {
            tracing::error!(path = %self.options.path.display(), %error, "the completion log lacks a line");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_way_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("done.jsonl");
        let options = CompletionOptions {
            path: path.clone(),
            size: 10,
            keep: 2,
        };
        let log = Completions::open(options.clone()).unwrap();
        for line in ["one.\n", "two.\n", "three.\n", "four.\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        drop(log);
        // What is there stays.
        let log = Completions::open(options).unwrap();
        log.write(b"five.\n").unwrap();
        log.write(b"longer than a file\n").unwrap();
        let read = |n: u32| std::fs::read_to_string(if n == 0 { path.clone() } else { numbered(&path, n) });
        assert_eq!(read(0).unwrap(), "longer than a file\n");
        assert_eq!(read(1).unwrap(), "five.\n");
        assert_eq!(read(2).unwrap(), "four.\n");
        assert!(read(3).is_err());
    }
}
