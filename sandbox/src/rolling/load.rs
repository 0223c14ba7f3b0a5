//! What users do: files are written and archived, some of them released and read again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lhsm_sandbox::Client;
use lhsm_sandbox::protocol::{Action, Fid, states};

use crate::pace::Pace;
use crate::told::Told;
use crate::tree;

/// Each has some files under way, until the last of these is done.
pub(crate) const LANES: usize = 12;
/// Who reads what is released.
pub(crate) const READERS: usize = 16;
/// Released files that wait for a reader.
pub(crate) const WAITING: usize = 64;
/// Files that are asked for together, at most.
const BATCH: u32 = 25;
/// For one file. A mover that is restarted may keep it for half of that.
const PATIENCE: Duration = Duration::from_secs(120);

/// A file that was released.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Released {
    number: u32,
    fid: Fid,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) mount: &'a Path,
    pub(crate) files: u32,
    pub(crate) reads: u32,
    /// Else whoever reads asks for the restore before.
    pub(crate) restores_on_read: bool,
    pub(crate) pace: &'a Pace,
    pub(crate) told: &'a Told,
    pub(crate) archived: AtomicUsize,
    pub(crate) read: AtomicUsize,
    pub(crate) failed_reads: AtomicUsize,
}

impl Load<'_> {
    fn path(&self, number: u32) -> PathBuf {
        self.mount.join(tree::name(number))
    }

    /// So many of all, evenly.
    fn is_read(&self, number: u32) -> bool {
        let before = |number: u32| u64::from(number) * u64::from(self.reads) / u64::from(self.files);
        self.reads > 0 && (number == 0 || before(number) != before(number - 1))
    }

    /// Writes and archives files until there are no more. An error ends the load.
    pub(crate) fn archive(&self, released: &SyncSender<Released>) -> io::Result<()> {
        let ended = self.archive_all(released);
        if ended.is_err() {
            self.pace.stop();
        }
        ended
    }

    fn archive_all(&self, released: &SyncSender<Released>) -> io::Result<()> {
        let mut client = Client::new(self.mount)?;
        while let Some(numbers) = self.pace.take(BATCH) {
            let mut files = Vec::new();
            for number in numbers {
                let path = self.path(number);
                std::fs::write(&path, tree::content(number))?;
                files.push(Released {
                    number,
                    fid: client.fid(&path)?,
                });
            }
            let fids: Vec<Fid> = files.iter().map(|file| file.fid).collect();
            client.request(Action::Archive, 1, &fids)?;
            let all_ended = client.wait(&fids, PATIENCE)?;
            for file in files {
                self.archived(&mut client, file, released)?;
            }
            if !all_ended {
                return Err(io::Error::other(format!(
                    "archives did not end within {} s",
                    PATIENCE.as_secs()
                )));
            }
        }
        Ok(())
    }

    fn archived(&self, client: &mut Client, file: Released, released: &SyncSender<Released>) -> io::Result<()> {
        let path = self.path(file.number);
        let state = client.state(file.fid)?;
        if state.states & states::ARCHIVED == 0 {
            let actions = client.actions()?;
            let last = actions.iter().rfind(|action| action.fid == file.fid);
            self.told.tell(format_args!(
                "'{}' {}: it is not archived: {state:?}, {last:?}",
                path.display(),
                file.fid
            ));
            return Ok(());
        }
        self.archived.fetch_add(1, Ordering::Relaxed);
        if self.is_read(file.number) {
            client.release_closed(file.fid, PATIENCE).map_err(|error| {
                io::Error::other(format!("'{}' {} can't be released: {error}", path.display(), file.fid))
            })?;
            released.send(file).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Reads released files until there are no more; a read that fails is counted.
    pub(crate) fn read(&self, released: &Mutex<Receiver<Released>>) {
        loop {
            let next = released.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(file) = next else { return };
            match self.read_one(file) {
                Ok(()) => self.read.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    self.told.tell(format_args!(
                        "'{}' {}: a reader failed: {error}",
                        self.path(file.number).display(),
                        file.fid
                    ));
                    self.failed_reads.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    }

    fn read_one(&self, file: Released) -> io::Result<()> {
        if !self.restores_on_read {
            let mut client = Client::new(self.mount)?;
            client.request(Action::Restore, 1, &[file.fid])?;
            if !client.wait(&[file.fid], PATIENCE)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let bytes = std::fs::read(self.path(file.number))?;
        tree::difference(file.number, &bytes).map_or(Ok(()), |wrong| Err(io::Error::other(wrong)))
    }
}
