//! What archives are about to write, said before they do: a line of a plain file for each, whose page the kernel keeps
//! when the daemon is killed. Nothing is synced, so that a small file pays for one short write; a node that loses its
//! power loses the last lines, and with them objects that nobody maps.
//!
//! Two files take turns: a line that is older than the last commit of the database is in there, too, and its file is
//! emptied then.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use super::UploadRecord;
use super::record::{self, Line};
use super::tables::{action_id, action_key};
use crate::action::ActionKey;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Bytes of one file: the database takes no changes for long when it comes to that.
const LONGEST: u64 = 16 << 20;
/// Ends that wait for the next line.
const MOST_ENDS: usize = 64 << 10;
/// For another one's line, on a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(1);
const ENDINGS: [&str; 2] = ["intents-0", "intents-1"];

/// The two files.
#[derive(Debug)]
pub(super) struct Intents {
    desk: Mutex<Desk>,
    back: Condvar,
    /// Lines that say that an earlier one is over; they go with the next.
    ends: Mutex<Vec<u8>>,
    number: AtomicU64,
}

#[derive(Debug)]
struct Desk {
    /// `None`: somebody writes.
    pages: Option<Pages>,
    /// Whoever does has not come back for long.
    is_silent: bool,
}

#[derive(Debug)]
struct Pages {
    now: Page,
    /// What it has is in the database with the next commit.
    before: Page,
}

#[derive(Debug)]
struct Page {
    file: File,
    len: u64,
}

impl Page {
    /// Its lines are added to `lines`.
    fn open(path: &Path, lines: &mut Vec<Line>) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut bytes = Vec::new();
        (&file).take(2 * LONGEST).read_to_end(&mut bytes)?;
        lines.extend(bytes.split(|byte| *byte == b'\n').filter_map(record::line));
        let half = bytes.last().is_some_and(|byte| *byte != b'\n');
        if half {
            file.write_all(b"\n")?;
        }
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let len = self.len + lines.len() as u64;
        if len > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if let Err(error) = self.file.write_all(lines) {
            // Half a line would spoil the next one.
            self.file.set_len(self.len)?;
            return Err(error);
        }
        self.len = len;
        Ok(())
    }

    fn wipe(&mut self) -> io::Result<()> {
        if self.len > 0 {
            self.file.set_len(0)?;
            self.len = 0;
        }
        Ok(())
    }
}

impl Intents {
    /// Opens them beside the database, or makes them; and what is in them that is not over.
    pub(super) fn open(database: &Path) -> io::Result<(Self, HashMap<ActionKey, UploadRecord>)> {
        let mut lines = Vec::new();
        let [now, before] = ENDINGS.map(|ending| Page::open(&database.with_extension(ending), &mut lines));
        lines.sort_by_key(|line| line.0);
        let number = lines.last().map_or(0, |line| line.0 + 1);
        let mut left = HashMap::new();
        for (_, action, upload) in lines {
            match upload {
                Some(upload) => drop(left.insert(action_key(action), upload)),
                None => drop(left.remove(&action_key(action))),
            }
        }
        let pages = Pages {
            now: now?,
            before: before?,
        };
        let intents = Self {
            desk: Mutex::new(Desk {
                pages: Some(pages),
                is_silent: false,
            }),
            back: Condvar::new(),
            ends: Mutex::default(),
            number: AtomicU64::new(number),
        };
        Ok((intents, left))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> MutexGuard<'_, Vec<u8>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the files; on a disk that hangs only one thread waits for it.
    fn with(&self, work: impl FnOnce(&mut Pages) -> io::Result<()>) -> io::Result<()> {
        let waited = self
            .back
            .wait_timeout_while(self.desk(), PATIENCE, |desk| desk.pages.is_none() && !desk.is_silent);
        let (mut desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(mut pages) = desk.pages.take() else {
            desk.is_silent = true;
            return Err(io::ErrorKind::TimedOut.into());
        };
        drop(desk);
        let result = work(&mut pages);
        let mut desk = self.desk();
        desk.pages = Some(pages);
        desk.is_silent = false;
        drop(desk);
        self.back.notify_one();
        result
    }

    /// An action's archive is about to write what `upload` says.
    pub(super) fn begin(&self, action: ActionKey, upload: &UploadRecord) {
        let mut lines = std::mem::take(&mut *self.ends());
        record::add_line(&mut lines, self.next(), action_id(action), Some(upload));
        if let Err(error) = self.with(|pages| pages.now.append(&lines)) {
            tracing::debug!(
                %error, fid = %action.fid,
                "what is about to be written is not written down: if the daemon is killed now, an object may be left over"
            );
        }
    }

    /// It is known what became of it. Nobody waits for a disk here.
    pub(super) fn end(&self, action: ActionKey) {
        let mut ends = self.ends();
        // Nobody begins anything: those that are lost are looked at in vain after a crash.
        if ends.len() > MOST_ENDS {
            ends.clear();
        }
        record::add_line(&mut ends, self.next(), action_id(action), None);
    }

    fn next(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// What is begun from now on goes to the other file. Call it before the changes are taken that go to the database
    /// next: whoever writes a line has made its change before.
    pub(super) fn turn(&self) {
        let turned = self.with(|pages| {
            // Else it waits for a commit still.
            if pages.before.len == 0 {
                std::mem::swap(&mut pages.now, &mut pages.before);
            }
            Ok(())
        });
        if let Err(error) = turned {
            tracing::debug!(%error, "the files of what is about to be written do not take turns");
        }
    }

    /// All that was there at the last turn is in the database.
    pub(super) fn committed(&self) {
        if let Err(error) = self.with(|pages| pages.before.wipe()) {
            tracing::debug!(%error, "a file of what was about to be written can't be emptied");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ObjectKey, WriterId};
    use crate::types::{ArchiveId, Cookie, Fid};

    fn action(oid: u32) -> ActionKey {
        ActionKey {
            cookie: Cookie(7),
            fid: Fid {
                seq: 0x2_0000_0401,
                oid,
                ver: 0,
            },
        }
    }

    fn upload(writer: u64) -> UploadRecord {
        let key = ObjectKey::new("a/b").unwrap();
        UploadRecord::single(ArchiveId::new(1).unwrap(), &key, WriterId(writer))
    }

    #[test]
    fn what_was_begun_and_not_ended_is_found_by_the_next_one_whoever_took_turns() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("lustre-mnt.redb");
        let (intents, left) = Intents::open(&database).unwrap();
        assert_eq!(left, HashMap::new());
        intents.begin(action(1), &upload(1));
        intents.begin(action(2), &upload(2));
        intents.turn();
        intents.begin(action(1), &upload(3));
        intents.end(action(2));
        // It goes with the next line.
        intents.begin(action(3), &upload(4));
        let expected = HashMap::from([(action(1), upload(3)), (action(3), upload(4))]);
        let (again, left) = Intents::open(&database).unwrap();
        assert_eq!(left, expected);
        drop(again);
        intents.committed();
        let (_again, left) = Intents::open(&database).unwrap();
        assert_eq!(left, expected);
        intents.turn();
        intents.committed();
        let (_again, left) = Intents::open(&database).unwrap();
        assert_eq!(left, HashMap::new());
    }

    #[test]
    fn half_a_line_and_bytes_of_others_spoil_no_other_line() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("lustre-mnt.redb");
        let (intents, _) = Intents::open(&database).unwrap();
        intents.begin(action(1), &upload(1));
        drop(intents);
        let path = database.with_extension(ENDINGS[0]);
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.clone();
        bytes.extend(b"\xee\0\n");
        bytes.extend(&whole[..whole.len() / 2]);
        std::fs::write(&path, bytes).unwrap();
        let (_again, left) = Intents::open(&database).unwrap();
        assert_eq!(left, HashMap::from([(action(1), upload(1))]));
    }
}
