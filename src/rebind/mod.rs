//! The objects were copied to another bucket, prefix or store by other tools: their versions and ETags are new, and
//! each file's record of its copy is written anew, once it is proved that the object has the bytes that were archived.
//!
//! In: paths of one file system. Out: records (`trusted.lhsm_s3`), and a line for each file that was rebound or could
//! not be. No object and no file's data is touched. The same command goes on after a kill: what is right already is
//! found to be, and left.

mod file;
mod places;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

pub use places::Prefixes;

use self::file::{Looked, Outcome};
use crate::lustre::Mount;
use crate::store::{ListFrom, ObjectKey, Query, StoreError};
use crate::transfer::{Control, Lane, Stop, Transfer, TransferError};
use crate::types::ArchiveId;
use crate::walk::Named;

/// Between two calls of `tick` while there is nothing to tell.
const TICK: Duration = Duration::from_millis(250);
/// Lines that wait to be told.
const LINES: usize = 256;

/// How to rebind.
#[derive(Clone, Debug, Default)]
pub struct RebindOptions {
    /// Look and prove, write nothing.
    pub dry_run: bool,
    /// Files of this archive only.
    pub archive_id: Option<ArchiveId>,
    /// How keys have changed; `None`: they have not.
    pub prefixes: Option<Prefixes>,
}

/// One file that was rebound, or about which there is something to say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RebindLine {
    /// What is told of the file.
    pub what: RebindEvent,
    /// The file, below the mount point.
    pub path: String,
    /// Where its object was looked for.
    pub key: Option<String>,
    /// The reason, for a person.
    pub detail: String,
}

/// What a line tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RebindEvent {
    /// Its record names the object that was proved; in a dry run: it would.
    Rebound,
    /// Its record is as it was.
    Failed,
    /// The object with what the copy's metadata had no room for is not there.
    Sidecar,
}

/// Files by what came of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RebindCounts {
    /// Files looked at.
    pub files: u64,
    /// Of these, with a new record.
    pub rebound: u64,
    /// Of these, whose record was right.
    pub same: u64,
    /// Of these, without a copy, or with one in another archive than the one that was named.
    pub skipped: u64,
    /// Files and directories of which nothing could be made.
    pub failed: u64,
    /// Sidecars that are not there.
    pub sidecars: u64,
    /// Bytes that were read because the store has no checksum of them.
    pub bytes: u64,
}

impl RebindCounts {
    /// What somebody has to look after.
    #[must_use]
    pub const fn problems(&self) -> u64 {
        self.failed + self.sidecars
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RebindError {
    /// The store did not work.
    #[error("{0}")]
    Store(TransferError),
    /// All files would fail.
    #[error(
        "archive {archive}: bucket '{bucket}' does not exist. Correct `bucket` in the [[archive]] section: it must name \
         the bucket that the objects were copied to"
    )]
    NoSuchBucket {
        /// The archive id.
        archive: u32,
        /// The archive's bucket, as configured.
        bucket: String,
    },
    /// The file system went away.
    #[error("'{}' is not mounted any more. Mount it and give the same command again", .0.display())]
    Gone(PathBuf),
    /// By a signal.
    #[error("stopped; give the same command again to go on")]
    Stopped,
}

/// A run.
#[derive(Debug)]
pub struct Rebind<'a> {
    /// The file system.
    pub mount: &'a Mount,
    /// What is rebound, and by how many threads.
    pub options: RebindOptions,
    /// Stops it.
    pub control: Arc<Control>,
    counts: Mutex<RebindCounts>,
    failure: Mutex<Option<RebindError>>,
}

impl<'a> Rebind<'a> {
    /// Nothing is done yet.
    #[must_use]
    pub fn new(mount: &'a Mount, options: RebindOptions, control: Arc<Control>) -> Self {
        Self {
            mount,
            options,
            control,
            counts: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// What a transfer on that lane runs with.
    fn transfer<'t>(&'t self, lane: &'t Lane) -> Transfer<'t> {
        Transfer::new(lane, &self.control)
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> RebindCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, count: impl FnOnce(&mut RebindCounts)) {
        count(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn fail(&self, error: RebindError) {
        if self.control.stopped().is_none() {
            self.failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
        }
        self.control.stop(Stop::Shutdown);
    }

    /// All files below `paths`, as many at a time as there are lanes; `archives` are those that they may be in, with
    /// their prefixes. `tick` gets each line, and is called some times a second without one.
    ///
    /// # Errors
    /// What ended it early.
    pub fn run(
        &self,
        paths: &[PathBuf],
        archives: &[(ArchiveId, String)],
        lanes: &[Lane],
        tick: &mut dyn FnMut(Option<RebindLine>),
    ) -> Result<(), RebindError> {
        if let Some(lane) = lanes.first() {
            for (archive_id, prefix) in archives {
                self.check_bucket(lane, *archive_id, prefix)?;
            }
        }
        let (sender, receiver) = sync_channel(lanes.len() * 4);
        let receiver = Mutex::new(receiver);
        let (lines, told) = sync_channel(LINES);
        std::thread::scope(|scope| {
            // It goes with whoever takes the lines, so that nobody waits for one who is gone.
            let told = told;
            let to = lines.clone();
            scope.spawn(move || walk::walk(self, paths, &sender, &to));
            for lane in lanes {
                let (receiver, to) = (&receiver, lines.clone());
                scope.spawn(move || self.work(lane, receiver, &to));
            }
            drop(lines);
            loop {
                match told.recv_timeout(TICK) {
                    Ok(line) => tick(Some(line)),
                    Err(RecvTimeoutError::Timeout) => tick(None),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        });
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        if self.control.stopped().is_some() {
            return Err(RebindError::Stopped);
        }
        // What is not found below an empty mount point was not walked.
        if !self.mount.is_there() {
            return Err(RebindError::Gone(self.mount.path().to_owned()));
        }
        Ok(())
    }

    /// The answer to a HEAD does not tell a bucket that is not there from an object that is not.
    fn check_bucket(&self, lane: &Lane, archive_id: ArchiveId, prefix: &str) -> Result<(), RebindError> {
        let query = Query {
            limit: 1,
            ..Query::below(prefix, &ListFrom::Start)
        };
        match self.transfer(lane).list(archive_id, query) {
            Err(TransferError::Store(StoreError::NoSuchBucket { .. })) => Err(RebindError::NoSuchBucket {
                archive: archive_id.get(),
                bucket: lane
                    .store(archive_id)
                    .map(|store| store.target().bucket.clone())
                    .unwrap_or_default(),
            }),
            // It may well be that lists are denied and objects are not.
            Ok(_) | Err(TransferError::Store(_)) => Ok(()),
            Err(TransferError::Stopped(_)) => Err(RebindError::Stopped),
            Err(error) => Err(RebindError::Store(error)),
        }
    }

    fn work(&self, lane: &Lane, receiver: &Mutex<Receiver<Named>>, to: &SyncSender<RebindLine>) {
        loop {
            let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(file) = next else {
                return;
            };
            if self.control.stopped().is_some() {
                continue;
            }
            match file::rebind(self, lane, file.at()) {
                Ok(looked) => self.note(&file.path, looked, to),
                Err(error) => self.fail(error),
            }
        }
    }

    fn note(&self, path: &Path, looked: Looked, to: &SyncSender<RebindLine>) {
        let Looked { outcome, lacks } = looked;
        self.count(|counts| {
            counts.files += u64::from(!matches!(outcome, Outcome::Gone));
            match outcome {
                Outcome::Gone => {}
                Outcome::Skipped => counts.skipped += 1,
                Outcome::Same => counts.same += 1,
                Outcome::Rebound { .. } => counts.rebound += 1,
                Outcome::Failed { .. } => counts.failed += 1,
            }
            counts.sidecars += u64::from(lacks.is_some());
        });
        match outcome {
            Outcome::Gone | Outcome::Skipped | Outcome::Same => {}
            Outcome::Rebound { key, detail } => self.tell(to, RebindEvent::Rebound, path, Some(&key), detail),
            Outcome::Failed { key, why } => self.tell(to, RebindEvent::Failed, path, key.as_ref(), why),
        }
        if let Some(key) = lacks {
            let detail = "the rest of the copy's metadata is not there: copy it, too".to_owned();
            self.tell(to, RebindEvent::Sidecar, path, Some(&key), detail);
        }
    }

    /// A file or directory that could not be looked at.
    fn unreadable(&self, path: &Path, why: &dyn std::fmt::Display, to: &SyncSender<RebindLine>) {
        self.count(|counts| counts.failed += 1);
        self.tell(to, RebindEvent::Failed, path, None, why.to_string());
    }

    fn tell(
        &self,
        to: &SyncSender<RebindLine>,
        what: RebindEvent,
        path: &Path,
        key: Option<&ObjectKey>,
        detail: String,
    ) {
        let line = RebindLine {
            what,
            path: path
                .strip_prefix(self.mount.path())
                .unwrap_or(path)
                .display()
                .to_string(),
            key: key.map(ToString::to_string),
            detail,
        };
        // Nobody takes them any more: whoever did is being ended.
        if to.send(line).is_err() {
            self.control.stop(Stop::Shutdown);
        }
    }
}
