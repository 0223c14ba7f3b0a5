//! A bucket that follows its file system: the changelogs tell what was changed, and what was quiet for a while is
//! archived, and moved or removed in the bucket where that is asked for.
//!
//! The records only say where to look. What is done follows from how the file is when it is looked at, so a record
//! that comes twice, or late, does no harm. `pending` holds FIDs until they are quiet, `look` deals with one, `book`
//! is what must survive, `scan` goes through everything when records were lost.

mod book;
mod look;
mod pending;
mod restate;
mod scan;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use self::book::Book;
pub use self::book::BookError;
use self::look::{Handled, Looker};
use self::pending::{Name, Pending};
use crate::action::{FileSystem as _, HsmError};
use crate::fleet::Fleet;
use crate::jobs::{self, Ledger, LedgerError, Select, Spec};
use crate::lustre::{Change, ChangeRecord, Mount, UserAction};
use crate::transfer::{Control, Lane, TransferError};
use crate::types::{ArchiveId, Fid, Timestamp};

/// Dealt with at once.
const BATCH: usize = 2000;
/// What waits in memory; the rest waits in the changelogs.
const MOST_PENDING: usize = 200_000;
/// Between two looks at changelogs that had nothing new.
const POLL: Duration = Duration::from_secs(1);
/// How often one file is tried.
const TRIES: u32 = 5;
/// After the first try; three times as long after each further one.
const PAUSE: Duration = Duration::from_secs(1);
const CALLS: usize = 8;

/// What the bucket follows beside data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Propagate {
    /// Objects of files that are gone are deleted.
    pub delete: bool,
    /// Objects of renamed files get the new key.
    pub rename: bool,
    /// Objects of files whose owner, permissions, times or attributes changed get new metadata.
    pub attributes: bool,
}

/// How to follow.
#[derive(Debug)]
pub struct Follow<'a> {
    /// The file system.
    pub mount: &'a Mount,
    /// A reader's name that `lctl changelog_register` gave.
    pub user: &'a str,
    /// Whose bucket.
    pub archive_id: ArchiveId,
    /// Ways to the store, one for each thread.
    pub lanes: &'a [Lane],
    /// Where the book is.
    pub state_dir: &'a Path,
    /// Nothing happened to a file for so long before it is dealt with.
    pub quiet: Duration,
    /// What is followed beside data.
    pub propagate: Propagate,
    /// At most so many files are asked for and not archived.
    pub window: usize,
    /// Ends when everything that had happened was dealt with.
    pub once: bool,
    /// Movers that know why something failed.
    pub fleet: &'a Fleet,
    /// Whether to stop.
    pub control: &'a Arc<Control>,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Records read.
    pub records: u64,
    /// Files archived.
    pub archived: u64,
    /// Directories and symlinks written.
    pub nodes: u64,
    /// Objects that got another key.
    pub moved: u64,
    /// Objects that got other metadata.
    pub restated: u64,
    /// Objects deleted.
    pub deleted: u64,
    /// Given up after several tries.
    pub failed: u64,
    /// Times that everything was looked through.
    pub scans: u64,
    /// Not dealt with yet.
    pub pending: u64,
}

/// Why following ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The book.
    #[error(transparent)]
    Book(#[from] BookError),
    /// A changelog.
    #[error(
        "changelog of {mdt}: {source}. It is read as root, and its reader is registered on the MDS: \
         lctl --device {mdt} changelog_register (--changelog-user is the name that it prints)"
    )]
    Changelog {
        /// Which.
        mdt: String,
        /// Why.
        source: HsmError,
    },
    /// The MDTs.
    #[error("can't tell the MDTs: {0}")]
    Mdts(HsmError),
    /// The store is given up.
    #[error("{0}. Start it again when that is mended: it goes on where it ended")]
    Store(#[from] TransferError),
    /// Archives could not be asked for.
    #[error(transparent)]
    Job(#[from] jobs::JobError),
    /// Their list.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A directory of the file system, or a local file.
    #[error("'{}': {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Follow<'_> {
    /// Follows until it is stopped, or once. `tick` is called now and then.
    ///
    /// # Errors
    /// What ended it; single files' trouble is logged and counted.
    pub fn run(&self, tick: &mut dyn FnMut(&Counts)) -> Result<Counts, FollowError> {
        let book = Book::open(self.state_dir, self.mount.name())?;
        let mut state = State {
            follow: self,
            mdts: self.mount.mdt_names().map_err(FollowError::Mdts)?,
            book,
            pending: Pending::default(),
            counts: Counts::default(),
            catching_up: true,
        };
        state.run(tick)?;
        Ok(state.counts)
    }

    fn stopped(&self) -> bool {
        self.control.stopped().is_some()
    }
}

struct State<'a> {
    follow: &'a Follow<'a>,
    mdts: Vec<(u32, String)>,
    book: Book,
    pending: Pending,
    counts: Counts,
    /// A former process may have seen these records and was killed before it could write down what it did.
    catching_up: bool,
}

impl State<'_> {
    fn run(&mut self, tick: &mut dyn FnMut(&Counts)) -> Result<(), FollowError> {
        let mut first = false;
        for (mdt, _) in &self.mdts {
            first |= self.book.place(*mdt)?.is_none();
        }
        // What happened before there was anybody who read the changelog.
        let mut scan = first;
        while !self.follow.stopped() {
            // A scan that comes first: what happens during it is in the records behind.
            if scan {
                self.scan(tick)?;
            }
            let (read, lost) = self.read()?;
            scan = lost;
            let now = Instant::now();
            let due = self.pending.due(now, BATCH);
            let idle = due.is_empty() && read == 0 && !scan;
            self.deal_with(due)?;
            self.forget_done()?;
            self.counts.pending = self.pending.len() as u64;
            tick(&self.counts);
            if read == 0 && self.pending.len() == 0 {
                self.catching_up = false;
            }
            if idle && self.follow.once && self.pending.len() == 0 {
                return Ok(());
            }
            if idle {
                let next = self.pending.next_due().unwrap_or(now + POLL).min(now + POLL);
                std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    /// Reads what is new; how many records, and whether some were lost before.
    fn read(&mut self) -> Result<(usize, bool), FollowError> {
        let (mut read, mut lost) = (0, false);
        for (mdt, name) in &self.mdts {
            let failed = |source| FollowError::Changelog {
                mdt: name.clone(),
                source,
            };
            let kept = self.book.place(*mdt)?;
            let before = self.pending.last_read(*mdt).or(kept);
            let mut expected = before.map_or(0, |last| last + 1);
            let mut changelog = self.follow.mount.changelog(name, expected).map_err(failed)?;
            while self.pending.len() < MOST_PENDING && !self.follow.stopped() {
                let Some(record) = changelog.read().map_err(failed)? else {
                    break;
                };
                if record.index < expected {
                    continue;
                }
                if expected > 0 && record.index > expected {
                    let missing = record.index - expected;
                    tracing::warn!(
                        mdt = name,
                        missing,
                        "records of the changelog are gone: looking through everything"
                    );
                    lost = true;
                }
                expected = record.index + 1;
                read += 1;
                let now = Instant::now();
                let place = (*mdt, record.index);
                self.pending.note(place, concerned(&record), now, self.follow.quiet);
            }
        }
        self.counts.records += read as u64;
        Ok((read, lost))
    }

    /// Looks at each, has archived what needs it, and looks at that again.
    fn deal_with(&mut self, fids: Vec<Fid>) -> Result<(), FollowError> {
        let mut to_archive = Vec::new();
        let mut todo = fids;
        // A directory that was moved brings more.
        while !todo.is_empty() && !self.follow.stopped() {
            let more = self.look(std::mem::take(&mut todo), &mut to_archive, true)?;
            for path in more {
                self.walk(&path, &mut |state, fids| {
                    state.look(fids, &mut to_archive, true).map(drop)
                })?;
            }
        }
        self.archive(to_archive)
    }

    fn archive(&mut self, files: Vec<(Fid, PathBuf)>) -> Result<(), FollowError> {
        if files.is_empty() || self.follow.stopped() {
            return Ok(());
        }
        let done = self.have_archived(&files)?;
        self.counts.archived += done;
        let mut again = Vec::new();
        let fids = files.into_iter().map(|(fid, _)| fid).collect();
        self.look(fids, &mut again, false)?;
        for (fid, path) in again {
            self.try_again(fid, &path.display().to_string(), "it is not archived");
        }
        Ok(())
    }

    /// Directories whose whole content was moved come back. `first`: what is not archived may be asked for.
    fn look(
        &mut self,
        fids: Vec<Fid>,
        to_archive: &mut Vec<(Fid, PathBuf)>,
        first: bool,
    ) -> Result<Vec<PathBuf>, FollowError> {
        let follow = self.follow;
        let fids: Vec<_> = fids.into_iter().map(|fid| (fid, self.pending.names(fid))).collect();
        let catching_up = self.catching_up;
        let results = Mutex::new(Vec::new());
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for lane in follow.lanes.iter().take(CALLS) {
                let (book, next, fids, results) = (&self.book, &next, &fids, &results);
                scope.spawn(move || {
                    let looker = Looker {
                        follow,
                        lane,
                        book,
                        catching_up,
                    };
                    while let Some((fid, names)) = fids.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                        && !follow.stopped()
                    {
                        let handled = looker.look(*fid, names);
                        results
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((*fid, handled));
                    }
                });
            }
        });
        let mut changes = Vec::new();
        let mut moved = Vec::new();
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut settled = Vec::new();
        for (fid, handled) in results {
            match handled {
                Ok(Handled::Done { known, counts }) => {
                    add(&mut self.counts, counts);
                    changes.extend(known.map(|known| (fid, known)));
                    settled.push(fid);
                }
                Ok(Handled::Moved { known, counts, path }) => {
                    add(&mut self.counts, counts);
                    changes.push((fid, Some(known)));
                    settled.push(fid);
                    moved.push(path);
                }
                Ok(Handled::Archive { known, path }) => {
                    if first {
                        changes.push((fid, Some(known)));
                    }
                    to_archive.push((fid, path));
                }
                Ok(Handled::Again(why)) => self.try_again(fid, &fid.to_string(), &why),
                Err(look::LookError::This(why)) => self.try_again(fid, &fid.to_string(), &why),
                Err(look::LookError::Book(error)) => return Err(error.into()),
                Err(look::LookError::Store(error)) => return Err(error.into()),
            }
        }
        self.book.put(&changes)?;
        for fid in settled {
            self.pending.settle(fid);
        }
        Ok(moved)
    }

    fn try_again(&mut self, fid: Fid, name: &str, why: &str) {
        let tries = self.pending.put_back(fid, Instant::now());
        if tries >= TRIES {
            tracing::warn!(file = name, why, "given up until something happens to it again");
            self.counts.failed += 1;
            self.pending.give_up(fid);
            return;
        }
        tracing::debug!(file = name, why, tries, "tried again later");
        self.pending
            .postpone(fid, Instant::now() + PAUSE * 3u32.pow(tries.saturating_sub(1)));
    }

    /// A job without a name: its list and its ledger go with it.
    fn have_archived(&self, files: &[(Fid, PathBuf)]) -> Result<u64, FollowError> {
        let follow = self.follow;
        let local = |path: &Path| {
            let path = path.to_owned();
            move |source| FollowError::Local { path, source }
        };
        let scratch = tempfile::tempdir_in(follow.state_dir).map_err(local(follow.state_dir))?;
        let list = scratch.path().join("list");
        let mut names = Vec::new();
        for (_, path) in files {
            use std::os::unix::ffi::OsStrExt as _;
            names.extend_from_slice(path.as_os_str().as_bytes());
            names.push(0);
        }
        std::fs::write(&list, names).map_err(local(&list))?;
        let spec = Spec {
            id: jobs::new_id(UserAction::Archive),
            action: UserAction::Archive,
            archive_id: Some(follow.archive_id),
            mount: follow.mount.path().to_owned(),
            roots: Vec::new(),
            list: Some(list),
            nul: true,
            select: Select::default(),
            window: follow.window,
            threads: CALLS,
            dry_run: false,
            created: Timestamp::now().seconds,
        };
        let ledger = Ledger::create(scratch.path(), &spec)?;
        let result = jobs::run(follow.mount, &spec, &ledger, follow.control, follow.fleet, &mut |_| {});
        match result {
            Ok(summary) => Ok(summary.counts.done),
            Err(jobs::JobError::Stopped(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// What was dealt with need not be told again.
    fn forget_done(&mut self) -> Result<(), FollowError> {
        for (mdt, name) in &self.mdts {
            let Some(place) = self.pending.place(*mdt) else {
                continue;
            };
            if self.book.place(*mdt)?.is_some_and(|before| before >= place) {
                continue;
            }
            self.book.set_place(*mdt, place)?;
            if place == 0 {
                continue;
            }
            let cleared = self.follow.mount.clear_changelog(name, self.follow.user, place);
            cleared.map_err(|source| FollowError::Changelog {
                mdt: name.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Whom a record is about, and what they were called.
fn concerned(record: &ChangeRecord) -> Vec<(Fid, Vec<Name>)> {
    if let Change::Other(_) = record.change {
        return Vec::new();
    }
    let name = || {
        let parent = record.parent.filter(|_| !record.name.is_empty());
        parent.map(|parent| (parent, record.name.clone()))
    };
    let mut fids = Vec::new();
    if let Some(target) = record.target {
        fids.push((target, name().into_iter().collect()));
    }
    if let Some(source) = record.source {
        fids.push((source, name().into_iter().chain(record.before.clone()).collect()));
    }
    fids
}

const fn add(to: &mut Counts, more: Counts) {
    to.nodes += more.nodes;
    to.moved += more.moved;
    to.restated += more.restated;
    to.deleted += more.deleted;
}
