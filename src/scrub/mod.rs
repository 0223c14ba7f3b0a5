//! Compares what files say of their copies with what the bucket has.
//!
//! First the files: each record's object, or the one that the file's FID gives, must be there and be the one that was
//! archived. Then the objects: each must
//! be some file's copy. A file's data is never touched; an object is deleted only when that is asked for, when it
//! says itself that it was ours and written to its key, and when the file that it was of has another copy or is gone.

mod doomed;
mod files;
mod key_filter;
mod lost;
mod objects;
mod orphan;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::key_filter::KeyFilter;
use self::lost::Lost;
pub use self::lost::MaxMissing;
pub(crate) use self::orphan::Grounds;
use self::orphan::OrphanCandidate;
use crate::lustre::Mount;
use crate::ranges::{OpenRange, Ranges, Ticket};
use crate::transfer::{Control, Lane, Stop, Transfer, TransferError};
use crate::types::ArchiveId;
use crate::walk::Named;

/// What decides on orphans, for tests of all who delete.
#[cfg(test)]
pub(crate) use self::key_filter::KeyFilter as KnownKeys;
#[cfg(test)]
pub(crate) use self::orphan::Judgment;

/// Orphans that one scrub deletes.
const MOST_SUSPECTS: usize = 200_000;

/// How to scrub.
#[derive(Clone, Debug)]
pub struct ScrubOptions {
    /// Read every byte of every object, not only its head.
    pub deep: bool,
    /// Mend what can be mended: LOST and DIRTY marks, records, copies that will not stay.
    pub repair: bool,
    /// With more copies missing than that, no file is marked LOST.
    pub max_missing: MaxMissing,
    /// Delete objects that are no file's copy, and uploads that nobody goes on with.
    pub delete_orphans: bool,
    /// Younger objects may be on their way to be a copy.
    pub grace: Duration,
    /// The same for uploads.
    pub upload_age: Duration,
    /// Who knows which uploads movers have in hand; `None`: nobody would.
    pub movers: Option<Arc<dyn UploadOwners>>,
}

/// Knows which uploads movers have in hand.
pub trait UploadOwners: fmt::Debug + Send + Sync {
    /// Those of these upload ids that some mover goes on with; blocks.
    ///
    /// # Errors
    /// Why that can't be told.
    fn in_hand(&self, ids: &[&str]) -> Result<HashSet<String>, String>;
}

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// The kind of finding.
    pub what: FindingKind,
    /// The file, below the mount point, or the key.
    pub name: String,
    /// The reason, for a person.
    pub detail: String,
    /// Whether something was done about it.
    pub mended: bool,
}

/// Kinds of findings.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// A file's object is gone.
    Missing,
    /// A file's object is another one, or its bytes are other ones.
    Changed,
    /// A file is archived and does not say where.
    Unmapped,
    /// A file's record does not name its copy, which is there: a mover's call came late.
    Mislaid,
    /// A file is archived, and HSM does not watch it: later writes would not make it dirty.
    Unwatched,
    /// A file is marked LOST, and its object is there.
    Found,
    /// A lifecycle rule takes a file's object away on a day that is set.
    Expiring,
    /// A file's object is not what its key stands for: under a newer version or a delete marker.
    Noncurrent,
    /// An object of this file system that is no file's copy.
    Orphan,
    /// A multipart upload that nobody goes on with.
    Upload,
    /// It could not be looked at.
    Unknown,
}

/// Files and objects by what was found of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubCounts {
    /// Files looked at.
    pub files: u64,
    /// Of these, with a copy that is as it should be.
    pub good: u64,
    /// Of these, never archived.
    pub unarchived: u64,
    /// Objects looked at.
    pub objects: u64,
    /// Objects that others put there.
    pub foreign: u64,
    /// Objects that may be on their way.
    pub young: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Findings, by kind.
    pub missing: u64,
    /// As [`FindingKind`].
    pub changed: u64,
    /// As [`FindingKind`].
    pub unmapped: u64,
    /// As [`FindingKind`].
    pub mislaid: u64,
    /// As [`FindingKind`].
    pub unwatched: u64,
    /// As [`FindingKind`].
    pub found: u64,
    /// As [`FindingKind`].
    pub expiring: u64,
    /// As [`FindingKind`].
    pub noncurrent: u64,
    /// As [`FindingKind`].
    pub orphans: u64,
    /// As [`FindingKind`].
    pub uploads: u64,
    /// As [`FindingKind`].
    pub unknown: u64,
    /// Findings about which something was done.
    pub mended: u64,
}

impl ScrubCounts {
    /// All that is not as it should be.
    #[must_use]
    pub const fn findings(&self) -> u64 {
        self.missing
            + self.changed
            + self.unmapped
            + self.mislaid
            + self.unwatched
            + self.found
            + self.expiring
            + self.noncurrent
            + self.orphans
            + self.uploads
            + self.unknown
    }
}

/// How far a scrub is; the same command goes on from here.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubPosition {
    /// The last file of those done, below the mount point; `None` with `objects`: all are.
    files: Option<String>,
    /// The archives whose objects are done, and the last key of the one under way.
    objects: Option<(usize, Option<String>)>,
    /// What was found in all that is done.
    pub counts: ScrubCounts,
}

/// Why a scrub ended early.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The store.
    #[error("{0}")]
    Store(#[from] TransferError),
    /// A thread's own runtime.
    #[error("no further lane to the store can be made: {0}")]
    Lane(std::io::Error),
    /// The file system went away.
    #[error("'{}' is not mounted any more: nothing can be said of its files. Mount it and give the same command again", .0.display())]
    Gone(PathBuf),
    /// By a signal.
    #[error("stopped; give the same command again to go on")]
    Stopped,
}

/// A scrub under way.
#[derive(Debug)]
pub struct Scrub<'a> {
    /// The file system.
    pub mount: &'a Mount,
    /// What is looked at, and what is repaired or deleted.
    pub options: ScrubOptions,
    /// Stops it.
    pub control: Arc<Control>,
    /// Takes each finding.
    pub findings: Mutex<Vec<Finding>>,
    tally: Mutex<ScrubCounts>,
    /// What some file's record points at.
    known: KeyFilter,
    /// Files that wait to be marked LOST.
    lost: Lost,
    /// What concerns the whole scrub.
    notes: Mutex<Vec<String>>,
    /// Orphans that are to be deleted at the end.
    suspects: Mutex<Vec<OrphanCandidate>>,
    /// Whether the store of each archive keeps what a copy demands of its key, where that was tried.
    guarded_copies: Mutex<BTreeMap<ArchiveId, bool>>,
    failure: Mutex<Option<ScrubError>>,
    bytes: AtomicU64,
}

impl<'a> Scrub<'a> {
    /// Nothing is done yet.
    #[must_use]
    pub fn new(mount: &'a Mount, options: ScrubOptions, control: Arc<Control>, before: ScrubCounts) -> Self {
        Self {
            mount,
            options,
            control,
            findings: Mutex::default(),
            tally: Mutex::new(before),
            known: KeyFilter::default(),
            lost: Lost::default(),
            notes: Mutex::default(),
            suspects: Mutex::default(),
            guarded_copies: Mutex::default(),
            failure: Mutex::default(),
            bytes: AtomicU64::new(0),
        }
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> ScrubCounts {
        let mut counts = *self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        counts.bytes += self.bytes.load(Ordering::Relaxed);
        counts
    }

    /// Past the most that fit, orphans are only found; the next scrub takes them.
    fn suspect(&self, suspect: OrphanCandidate) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() < MOST_SUSPECTS {
            suspects.push(suspect);
        }
    }

    /// What a transfer on that lane runs with.
    fn transfer<'t>(&'t self, lane: &'t Lane) -> Transfer<'t> {
        Transfer::new(lane, &self.control)
    }

    /// What objects are judged by.
    fn grounds(&self) -> Grounds<'_> {
        Grounds {
            fs: self.mount,
            known: &self.known,
            control: &self.control,
        }
    }

    fn count(&self, count: impl FnOnce(&mut ScrubCounts)) {
        count(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn find(&self, what: FindingKind, name: String, detail: String, mended: bool) {
        self.count(|counts| {
            let counter = match what {
                FindingKind::Missing => &mut counts.missing,
                FindingKind::Changed => &mut counts.changed,
                FindingKind::Unmapped => &mut counts.unmapped,
                FindingKind::Mislaid => &mut counts.mislaid,
                FindingKind::Unwatched => &mut counts.unwatched,
                FindingKind::Found => &mut counts.found,
                FindingKind::Expiring => &mut counts.expiring,
                FindingKind::Noncurrent => &mut counts.noncurrent,
                FindingKind::Orphan => &mut counts.orphans,
                FindingKind::Upload => &mut counts.uploads,
                FindingKind::Unknown => &mut counts.unknown,
            };
            *counter += 1;
            counts.mended += u64::from(mended);
        });
        self.findings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Finding {
                what,
                name,
                detail,
                mended,
            });
    }

    /// What was found and counted before is mended only now.
    fn mended(&self, what: FindingKind, name: String, detail: &str) {
        self.count(|counts| counts.mended += 1);
        let finding = Finding {
            what,
            name,
            detail: detail.to_owned(),
            mended: true,
        };
        self.findings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(finding);
    }

    /// What is to be said of all of it at the end.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, text: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Whether a copy within the store can demand something of its key; tried once for each archive, before the first copy.
    fn copies_are_guarded(&self, lane: &Lane, archive_id: ArchiveId) -> Result<bool, TransferError> {
        let mut tried = self.guarded_copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guarded) = tried.get(&archive_id) {
            return Ok(*guarded);
        }
        let guarded = self.transfer(lane).copies_heed_conditions(archive_id)?;
        tried.insert(archive_id, guarded);
        Ok(guarded)
    }

    /// One object's trouble in words. What concerns all of them ends the scrub.
    fn of_one(&self, lane: &Lane, archive_id: ArchiveId, error: TransferError) -> Result<String, ScrubError> {
        if self.transfer(lane).is_of_one(archive_id, &error) {
            Ok(error.to_string())
        } else {
            Err(error.into())
        }
    }

    fn fail(&self, error: ScrubError) {
        if self.control.stopped().is_none() {
            self.failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
        }
        self.control.stop(Stop::Shutdown);
    }

    /// Files below `paths`, then the objects of `archives`. `tick` is called some times a second with the place.
    ///
    /// # Errors
    /// What ended it early.
    pub fn run(
        &self,
        paths: &[PathBuf],
        archives: &[(ArchiveId, String)],
        lanes: &[Lane],
        from: ScrubPosition,
        tick: &mut dyn FnMut(&ScrubPosition),
    ) -> Result<(), ScrubError> {
        self.check_buckets(archives, lanes)?;
        let mut place = from;
        if place != ScrubPosition::default() && !archives.is_empty() {
            // A former run looked at these files; what they point at it knew, and took with it.
            self.note_all(paths, lanes, &place, &mut *tick)?;
        }
        if place.objects.is_none() {
            let after = place.files.clone();
            self.phase(
                lanes,
                after,
                |open| ScrubPosition {
                    files: open,
                    objects: None,
                    counts: self.counts(),
                },
                &mut *tick,
                |feed| walk::walk(self, paths, feed, true),
                |lane, file: &Named| files::check(self, lane, file),
            )?;
            files::mark_lost(self);
            if self.control.stopped().is_some() {
                return Err(ScrubError::Stopped);
            }
            place.objects = Some((0, None));
        }
        let (done, mut after) = place.objects.take().unwrap_or_default();
        for (number, (archive_id, prefix)) in archives.iter().enumerate().skip(done) {
            self.phase(
                lanes,
                after.take(),
                |open| ScrubPosition {
                    files: None,
                    objects: Some((number, open)),
                    counts: self.counts(),
                },
                &mut *tick,
                |feed| objects::list(self, lanes, *archive_id, prefix, feed),
                |lane, entry| objects::check(self, lane, *archive_id, prefix, entry),
            )?;
            if let Some(lane) = lanes.first() {
                objects::uploads(self, lane, *archive_id)?;
            }
        }
        let suspects = std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(lane) = lanes.first().filter(|_| !suspects.is_empty()) else {
            self.note_blind(archives);
            return Ok(());
        };
        // One that is killed from here on looks for them again.
        let again = ScrubPosition {
            files: None,
            objects: Some((0, None)),
            counts: self.counts(),
        };
        self.note_all(paths, lanes, &again, tick)?;
        self.note_blind(archives);
        for suspect in &suspects {
            objects::condemn(self, lane, suspect)?;
        }
        Ok(())
    }

    fn note_blind(&self, archives: &[(ArchiveId, String)]) {
        if self.known.is_blind() && !archives.is_empty() {
            self.note(
                "no object was called an orphan: some files or directories could not be read, and any object may be \
                 the copy of one of these"
                    .into(),
            );
        }
    }

    /// Reads every file's record, and nothing else.
    fn note_all(
        &self,
        paths: &[PathBuf],
        lanes: &[Lane],
        place: &ScrubPosition,
        tick: &mut dyn FnMut(&ScrubPosition),
    ) -> Result<(), ScrubError> {
        let counts = self.counts();
        self.phase(
            lanes,
            None,
            |_| ScrubPosition {
                counts,
                ..place.clone()
            },
            tick,
            |feed| walk::walk(self, paths, feed, false),
            |_, file: &Named| {
                files::note(self, file.at());
                Ok(())
            },
        )
    }

    /// A bucket that is not there has no objects, and says so for each: nothing is lost by that.
    fn check_buckets(&self, archives: &[(ArchiveId, String)], lanes: &[Lane]) -> Result<(), ScrubError> {
        let Some(lane) = lanes.first() else {
            return Ok(());
        };
        for (archive_id, prefix) in archives {
            objects::exists(self, lane, *archive_id, prefix)?;
        }
        Ok(())
    }

    /// One producer, a consumer on each lane, and the place up to which everything is done.
    fn phase<T: Send>(
        &self,
        lanes: &[Lane],
        after: Option<String>,
        place: impl Fn(Option<String>) -> ScrubPosition,
        tick: &mut dyn FnMut(&ScrubPosition),
        produce: impl FnOnce(&BatchFeed<'_, T>) -> Result<(), ScrubError> + Send,
        consume: impl Fn(&Lane, &T) -> Result<(), ScrubError> + Sync,
    ) -> Result<(), ScrubError> {
        let (sender, receiver) = sync_channel(lanes.len() * 4);
        let receiver = Mutex::new(receiver);
        let ranges = Ranges::new(
            "",
            vec![OpenRange {
                after: after.clone(),
                end: None,
            }],
        );
        let feed = BatchFeed {
            ranges: &ranges,
            sender,
            after,
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let feed = feed;
                if let Err(error) = produce(&feed) {
                    self.fail(error);
                }
            });
            let workers: Vec<_> = lanes
                .iter()
                .map(|lane| {
                    let (receiver, ranges, consume) = (&receiver, &ranges, &consume);
                    let waiting = std::thread::current();
                    scope.spawn(move || {
                        self.work(lane, receiver, ranges, consume);
                        waiting.unpark();
                    })
                })
                .collect();
            while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                std::thread::park_timeout(Duration::from_millis(250));
                let done = ranges.open().into_iter().next().and_then(|open| open.after);
                tick(&place(done));
            }
        });
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        if self.control.stopped().is_some() {
            return Err(ScrubError::Stopped);
        }
        Ok(())
    }

    fn work<T>(
        &self,
        lane: &Lane,
        receiver: &Mutex<Receiver<(Ticket, T)>>,
        ranges: &Ranges,
        consume: &(impl Fn(&Lane, &T) -> Result<(), ScrubError> + Sync),
    ) {
        loop {
            let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((ticket, item)) = next else {
                return;
            };
            if self.control.stopped().is_some() {
                continue;
            }
            match consume(lane, &item) {
                Ok(()) => ranges.done(ticket),
                Err(error) => self.fail(error),
            }
        }
    }
}

/// Where a producer puts what is to be looked at.
struct BatchFeed<'a, T> {
    ranges: &'a Ranges,
    sender: SyncSender<(Ticket, T)>,
    /// The last one that a former run has done.
    after: Option<String>,
}

impl<T> BatchFeed<'_, T> {
    /// `false`: nobody takes them any more.
    fn push(&self, item: T, place: String) -> bool {
        let ticket = self.ranges.ticket(place);
        self.sender.send((ticket, item)).is_ok()
    }
}

/// As findings name files.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
