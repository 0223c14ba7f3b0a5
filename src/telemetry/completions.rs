//! One line of JSON for each action that ended, in a file that is rotated: what was done to which file, for good.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use crate::action::{FileSystem, Item, Verdict};
use crate::types::{ArchiveId, ErrorClass};
use crate::worker::{ActionEnd, Observer};

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
struct CompletionLine<'a> {
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

/// Lines that this process could not write.
static LOST: AtomicU64 = AtomicU64::new(0);

pub(super) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The file. What can't be written is lost and counted; it is opened anew for each line until that works.
#[derive(Debug)]
pub struct Completions {
    options: CompletionOptions,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// With its size; `None` after an error.
    file: Option<(File, u64)>,
    /// Lines, since it could be written.
    lost: u64,
}

impl Completions {
    /// Opens the file; lines are added to what is there.
    ///
    /// # Errors
    /// It can't be written.
    pub fn open(options: CompletionOptions) -> io::Result<Self> {
        let held = Held {
            file: Some(open(&options.path)?),
            lost: 0,
        };
        Ok(Self {
            options,
            held: Mutex::new(held),
        })
    }

    /// Writes a line, or counts it as lost: the first and the last are told.
    fn write(&self, line: &[u8]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.options.path.display();
        match self.add(&mut held, line) {
            Ok(()) => {
                let lost = std::mem::take(&mut held.lost);
                if lost > 0 {
                    tracing::warn!(%path, lost, "the completion log is written again; it lacks the lines that were lost");
                }
            }
            Err(error) => {
                held.lost += 1;
                LOST.fetch_add(1, Ordering::Relaxed);
                if held.lost == 1 {
                    tracing::error!(%path, %error, "the completion log can't be written; its lines are lost until it can");
                }
            }
        }
    }

    fn add(&self, held: &mut Held, line: &[u8]) -> io::Result<()> {
        let path = &self.options.path;
        // Where this fails the next line finds none.
        let (mut file, mut size) = match held.file.take() {
            // Somebody may have removed it, or its directory.
            Some((file, size)) if file.metadata()?.nlink() > 0 => (file, size),
            _ => open(path)?,
        };
        let length = line.len() as u64;
        if size > 0 && size + length > self.options.size {
            self.rotate()?;
            (file, size) = open(path)?;
        }
        file.write_all(line).inspect_err(|_| take_back(&file, size, length))?;
        held.file = Some((file, size + length));
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

/// The file and its size. A line that was written in part, by whomever, is ended.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    // Where it is no file nobody waits for its reader.
    let mut file = options
        .create(true)
        .append(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut size = file.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(at) = size.checked_sub(1) {
        // One that can't be read is taken as it is.
        let _unread = File::open(path).and_then(|file| file.read_at(&mut last, at));
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
        size += 1;
    }
    Ok((file, size))
}

/// Takes away what was written of a line of that length behind `size`. Where that can't be done, or somebody else has
/// written, too, the next line that is written ends it.
fn take_back(file: &File, size: u64, length: u64) {
    let is_part = |now: u64| now > size && now < size + length;
    if file.metadata().is_ok_and(|now| is_part(now.len())) {
        let _stays = file.set_len(size);
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

impl Observer for Completions {
    fn started(&self, _: &dyn FileSystem, _: &Item) {}

    fn ended(&self, fs: &dyn FileSystem, ending: &ActionEnd<'_>) {
        let Some(class) = crate::queue::Class::of(ending.item) else {
            return;
        };
        let (outcome, errno) = match ending.verdict {
            Verdict::Done => ("done", 0),
            Verdict::Cancelled => ("cancelled", ErrorClass::Cancelled.errno()),
            Verdict::Failed { errno, .. } => ("failed", errno.get()),
        };
        let line = CompletionLine {
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
        match serde_json::to_vec(&line) {
            Ok(mut line) => {
                line.push(b'\n');
                self.write(&line);
            }
            Err(error) => tracing::error!(fid = line.fid, %error, "the completion log lacks this action"),
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
            log.write(line.as_bytes());
        }
        drop(log);
        // What is there stays.
        let log = Completions::open(options).unwrap();
        log.write(b"five.\n");
        log.write(b"longer than a file\n");
        let read = |n: u32| std::fs::read_to_string(if n == 0 { path.clone() } else { numbered(&path, n) });
        assert_eq!(read(0).unwrap(), "longer than a file\n");
        assert_eq!(read(1).unwrap(), "five.\n");
        assert_eq!(read(2).unwrap(), "four.\n");
        assert!(read(3).is_err());
    }

    #[test]
    fn a_part_of_a_line_is_taken_back_and_nothing_that_somebody_else_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("done.jsonl");
        for (found, length, left) in [
            ("first\nsec", 7, "first\n"),
            ("first\n", 7, "first\n"),
            ("first\nsecond\nother", 7, "first\nsecond\nother"),
            // Somebody emptied it.
            ("", 7, ""),
        ] {
            std::fs::write(&path, found).unwrap();
            take_back(&OpenOptions::new().append(true).open(&path).unwrap(), 6, length);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left);
        }
    }

    fn log_of(path: &Path) -> Completions {
        let options = CompletionOptions {
            path: path.to_owned(),
            size: 1000,
            keep: 1,
        };
        Completions::open(options).unwrap()
    }

    fn lost(log: &Completions) -> u64 {
        log.held.lock().unwrap().lost
    }

    #[test]
    fn a_full_device_costs_the_lines_that_it_can_not_take_and_no_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("done.jsonl");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let log = log_of(&path);
        log.write(b"lost\n");
        log.write(b"lost, too\n");
        assert_eq!(lost(&log), 2);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "first\nhal").unwrap();
        log.write(b"second\n");
        log.write(b"third\n");
        assert_eq!(lost(&log), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\nhal\nsecond\nthird\n");
    }

    #[test]
    fn a_directory_that_vanished_and_is_back_has_the_lines_since_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("there/done.jsonl");
        let parent = path.parent().unwrap();
        std::fs::create_dir(parent).unwrap();
        let log = log_of(&path);
        log.write(b"first\n");
        std::fs::remove_dir_all(parent).unwrap();
        log.write(b"lost\n");
        assert_eq!(lost(&log), 1);
        std::fs::create_dir(parent).unwrap();
        log.write(b"second\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
    }
}
