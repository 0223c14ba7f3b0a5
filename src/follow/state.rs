//! One pass after the other: what is due is looked at, archived where it must be, and settled.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::copy_index::{CopyIndex, CopyIndexError, IndexEntry};
use super::feed::Feed;
use super::look::{FileLooker, LookError, LookOutcome};
use super::pending::{Name, PendingFids};
use super::{FollowCounts, FollowError, FollowOptions};
use crate::jobs::{self, FileFilter, JobSpec, Ledger, Outcome, Row};
use crate::lustre::UserAction;
use crate::transfer::{Control, Stop, Transfer, TransferError};
use crate::types::{ErrorClass, Fid, Timestamp, io_error};
use crate::walk::Node;

/// Dealt with at once: whatever comes meanwhile waits for no more than these.
const BATCH: usize = 1000;
/// Between two looks at changelogs that had nothing new.
pub(super) const POLL: Duration = Duration::from_secs(1);
/// Where something is about to come.
const GLANCE: Duration = Duration::from_millis(50);
/// Between two looks at what was tried in vain.
const OWED: Duration = Duration::from_secs(3600);
/// For archives of one batch; what is not done by then is looked at again.
const LONGEST_JOB: Duration = Duration::from_secs(300);
/// Where no archive of a batch has ended for so long, others that are due don't wait for it.
const STALL: Duration = Duration::from_secs(2);
/// For so long they wait in any case.
const ROUND: Duration = Duration::from_secs(5);
/// How often one file is tried.
const TRIES: u32 = 5;
/// After the first try; three times as long after each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at what waits for something else.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What waits for longer holds up no changelog any more.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
const CALLS: usize = 8;

pub(super) struct FollowState<'a> {
    pub(super) follow: &'a FollowOptions<'a>,
    pub(super) feeds: Vec<Feed>,
    /// MDTs that came later, and that no reader is named for.
    pub(super) unnamed: BTreeSet<String>,
    pub(super) seen_mdts: Option<Instant>,
    pub(super) copy_index: CopyIndex,
    pub(super) pending: PendingFids,
    pub(super) counts: FollowCounts,
    /// A former process may have seen these records and was killed before it could write down what it did.
    pub(super) catching_up: bool,
    /// The last record of each MDT when its end was first read.
    pub(super) newest: HashMap<u32, u64>,
    /// Since when a record of an MDT is missing.
    pub(super) gaps: HashMap<u32, Instant>,
    /// A look at everything was demanded since the last one began.
    pub(super) demanded: bool,
    /// Archives of these were asked for, and their ends were not seen.
    pub(super) asked: HashSet<Fid>,
    /// When what is owed was last looked at.
    pub(super) owed_at: Option<Instant>,
    /// How often something was put back.
    pub(super) put_back: u64,
}

impl<'a> FollowState<'a> {
    pub(super) fn new(follow: &'a FollowOptions<'a>, copy_index: CopyIndex) -> Self {
        Self {
            follow,
            feeds: Vec::new(),
            unnamed: BTreeSet::new(),
            seen_mdts: None,
            copy_index,
            pending: PendingFids::default(),
            counts: FollowCounts::default(),
            catching_up: true,
            newest: HashMap::new(),
            gaps: HashMap::new(),
            demanded: false,
            asked: HashSet::new(),
            owed_at: None,
            put_back: 0,
        }
    }
}

impl FollowState<'_> {
    pub(super) fn run(&mut self, tick: &mut dyn FnMut(&FollowCounts)) -> Result<(), FollowError> {
        while !self.follow.stopped() {
            self.find_mdts()?;
            // A scan comes first: what happens during it is in the records behind.
            if self.copy_index.is_scan_owed()? {
                self.scan(tick)?;
                continue;
            }
            let now = Instant::now();
            if self.owed_at.is_none_or(|at| now - at >= OWED) {
                self.owed_at = Some(now);
                for fid in self.copy_index.take_owed()? {
                    self.pending.reopen(fid, now);
                    self.pending.forget_debt(fid);
                }
            }
            let read = self.read()?;
            if self.copy_index.is_scan_owed()? {
                continue;
            }
            let due = self.pending.due(Instant::now(), BATCH);
            let ends = self.pending.ends(BATCH);
            let idle = due.is_empty() && ends.is_empty() && read.records == 0;
            self.deal_with(due)?;
            self.end(ends)?;
            self.forget_done()?;
            self.catching_up &= !self.has_caught_up();
            self.counts.pending = self.pending.len() as u64;
            tick(&self.counts);
            let is_over = idle && !read.waits && self.pending.len() == 0 && !self.copy_index.is_scan_owed()?;
            if is_over && self.follow.once {
                return Ok(());
            }
            if idle {
                let now = Instant::now();
                let next = self.pending.next_due().unwrap_or(now + POLL).min(now + POLL);
                let pause = next.saturating_duration_since(now);
                let soon = read.waits || self.pending.has_ends();
                std::thread::park_timeout(if soon { pause.min(GLANCE) } else { pause });
            }
        }
        Ok(())
    }

    /// What happens while everything is looked through does not wait for the end of that; only the ends of files do.
    pub(super) fn meanwhile(&mut self) -> Result<(), FollowError> {
        // Once means: up to where it is read first, which is behind what a look at everything does.
        if self.follow.once {
            return Ok(());
        }
        self.read()?;
        let due = self.pending.due(Instant::now(), BATCH);
        self.deal_with(due)?;
        self.forget_done()
    }

    /// Looks at each, has archived what needs it, and looks at that again.
    pub(super) fn deal_with(&mut self, fids: Vec<Fid>) -> Result<(), FollowError> {
        let mut to_archive = Vec::new();
        let mut todo = self.look(fids, &mut to_archive)?;
        // A directory that was moved brings all that is below it.
        while let Some(Move { fid, known, path }) = todo.pop()
            && !self.follow.stopped()
        {
            let put_back = self.put_back;
            self.walk(&path, &mut |state, nodes| {
                // Directories below are walked to anyhow.
                for Move { fid, known, .. } in state.look_at(&nodes, &mut to_archive)? {
                    state.copy_index.put(&[(fid, Some(known))])?;
                    state.pending.settle(fid);
                }
                Ok(())
            })?;
            if self.follow.stopped() {
                break;
            }
            if self.put_back > put_back {
                // Those have no record of their own: the directory's stays open.
                self.try_again(
                    fid,
                    &path.display().to_string(),
                    "some files below it could not be moved",
                )?;
            } else {
                self.copy_index.put(&[(fid, Some(known))])?;
                self.pending.settle(fid);
            }
        }
        self.archive(to_archive)
    }

    /// Asks for no more than may be asked for, and waits for their ends as long as that holds up nobody.
    pub(super) fn archive(&mut self, mut files: Vec<(Fid, PathBuf)>) -> Result<(), FollowError> {
        if self.follow.stopped() {
            return Ok(());
        }
        let room = self.follow.window.saturating_sub(self.asked.len());
        let rest: Vec<_> = files
            .split_off(room.min(files.len()))
            .into_iter()
            .map(|(fid, _)| fid)
            .collect();
        self.put_off(&rest, "as many archives as may be are asked for")?;
        if files.is_empty() {
            return Ok(());
        }
        let rows = self.have_archived(&files)?;
        let (mut archived, mut asked, mut unasked) = (Vec::new(), Vec::new(), Vec::new());
        for ((fid, path), row) in files.into_iter().zip(rows) {
            match row {
                None => unasked.push(fid),
                Some(row) => match row.outcome {
                    Outcome::Done | Outcome::Already => archived.push((fid, path)),
                    Outcome::Requested => asked.push(fid),
                    Outcome::Failed => {
                        let why = if row.reason.is_empty() {
                            "it is not archived"
                        } else {
                            row.reason.as_str()
                        };
                        self.try_again(fid, &path.display().to_string(), why)?;
                        // It was changed meanwhile: it has to be quiet again.
                        if ErrorClass::of(row.errno) == ErrorClass::Busy {
                            self.pending.not_before(fid, Instant::now() + self.follow.quiet);
                        }
                    }
                },
            }
        }
        self.asked.extend(&asked);
        self.put_off(&asked, "it is being archived")?;
        self.keep_all(&unasked)?;
        for fid in unasked {
            self.pending.reopen(fid, Instant::now());
            self.pending.postpone(fid, Instant::now() + PAUSE);
        }
        let mut again = Vec::new();
        let archived: Vec<_> = archived
            .into_iter()
            .map(|(fid, path)| (fid, path, self.pending.names(fid)))
            .collect();
        let handled = self.each(&archived, |looker, (fid, path, names)| {
            (*fid, looker.unless_stopped(|| looker.archived(*fid, path, names)))
        });
        drop(self.take(handled, &mut again, false)?);
        for (fid, path) in again {
            self.try_again(fid, &path.display().to_string(), "it was changed while it was archived")?;
        }
        Ok(())
    }

    /// Files that are gone, and that everything older than that was dealt with.
    fn end(&mut self, fids: Vec<Fid>) -> Result<(), FollowError> {
        let handled = self.each_file(fids, |looker, fid, names| looker.end(fid, names));
        drop(self.take(handled, &mut Vec::new(), false)?);
        Ok(())
    }

    /// Directories whose whole content was moved come back.
    fn look(&mut self, mut fids: Vec<Fid>, to_archive: &mut Vec<(Fid, PathBuf)>) -> Result<Vec<Move>, FollowError> {
        // One of several names is met more than once.
        fids.sort_unstable();
        fids.dedup();
        let handled = self.each_file(fids, |looker, fid, names| looker.look(fid, names));
        self.take(handled, to_archive, true)
    }

    /// What a walk has found: their FIDs are asked for at the same time, too.
    pub(super) fn look_at(
        &mut self,
        nodes: &[Node],
        to_archive: &mut Vec<(Fid, PathBuf)>,
    ) -> Result<Vec<Move>, FollowError> {
        let found = self.each(nodes, |looker, node| (node, looker.follow.mount.fid_at(&node.at())));
        // One of several names is met more than once.
        let mut files = BTreeMap::new();
        for (node, fid) in found {
            match fid {
                Ok(fid) => {
                    files.insert(fid, node);
                }
                // Gone meanwhile.
                Err(error) if matches!(error.class(), ErrorClass::Gone | ErrorClass::NoDirectory) => {}
                Err(error) => self.pass_over(node.path(), io_error(error.errno))?,
            }
        }
        let files: Vec<_> = files
            .into_iter()
            .map(|(fid, node)| (fid, node, self.pending.names(fid)))
            .collect();
        let handled = self.each(&files, |looker, (fid, node, names)| {
            (*fid, looker.unless_stopped(|| looker.found(*fid, node, names)))
        });
        self.take(handled, to_archive, true)
    }

    pub(super) fn each_file(
        &self,
        fids: Vec<Fid>,
        what: impl Fn(&FileLooker<'_>, Fid, &[Name]) -> LookResult + Sync,
    ) -> Vec<(Fid, LookResult)> {
        let files: Vec<_> = fids.into_iter().map(|fid| (fid, self.pending.names(fid))).collect();
        self.each(&files, |looker, (fid, names)| {
            (*fid, looker.unless_stopped(|| what(looker, *fid, names)))
        })
    }

    /// Some at a time, in no order.
    pub(super) fn each<'t, T: Sync, R: Send>(
        &self,
        items: &'t [T],
        what: impl Fn(&FileLooker<'_>, &'t T) -> R + Sync,
    ) -> Vec<R> {
        if items.is_empty() {
            return Vec::new();
        }
        let follow = self.follow;
        let catching_up = self.catching_up;
        let results = Mutex::new(Vec::with_capacity(items.len()));
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for lane in follow.lanes.iter().take(CALLS) {
                let (copy_index, asked, next, results, what) = (&self.copy_index, &self.asked, &next, &results, &what);
                scope.spawn(move || {
                    let looker = FileLooker {
                        follow,
                        lane,
                        copy_index,
                        asked,
                        catching_up,
                    };
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = what(&looker, item);
                        results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                    }
                });
            }
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// `first`: what is not archived may be asked for.
    fn take(
        &mut self,
        results: Vec<(Fid, LookResult)>,
        to_archive: &mut Vec<(Fid, PathBuf)>,
        first: bool,
    ) -> Result<Vec<Move>, FollowError> {
        let mut changes = Vec::new();
        let mut moved = Vec::new();
        let mut settled = Vec::new();
        for (fid, handled) in results {
            match handled {
                Ok(LookOutcome::Done { known, counts }) => {
                    add(&mut self.counts, counts);
                    // Seen by a job, or only now.
                    let has_copy = matches!(&known, Some(Some(IndexEntry::File { location: Some(_), .. })));
                    self.counts.archived += u64::from(self.asked.remove(&fid) && has_copy);
                    changes.extend(known.map(|known| (fid, known)));
                    settled.push(fid);
                }
                Ok(LookOutcome::Moved { known, counts, path }) => {
                    add(&mut self.counts, counts);
                    moved.push(Move { fid, known, path });
                }
                Ok(LookOutcome::Archive { known, path }) => {
                    self.asked.remove(&fid);
                    if first {
                        changes.push((fid, Some(known)));
                    }
                    to_archive.push((fid, path));
                }
                Ok(LookOutcome::Gone) => {
                    self.asked.remove(&fid);
                    self.pending.doom(fid);
                }
                Ok(LookOutcome::Later { known, why }) => {
                    changes.extend(known.map(|known| (fid, Some(known))));
                    self.later(fid, &why)?;
                }
                // Somebody waits for the end, and this file may have none.
                Err(LookError::Passing(why)) if self.follow.once && self.has_waited(fid) => {
                    self.give_up(fid, &fid.to_string(), &why)?;
                }
                Err(LookError::Passing(why)) => self.later(fid, &why)?,
                Ok(LookOutcome::Again(why)) | Err(LookError::This(why)) => {
                    self.try_again(fid, &fid.to_string(), &why)?;
                }
                Err(LookError::Book(error)) => return Err(error.into()),
                Err(LookError::Store(error)) if self.is_of_one(&error) => {
                    self.try_again(fid, &fid.to_string(), &error.to_string())?;
                }
                Err(LookError::Store(error)) => return Err(error.into()),
            }
        }
        self.copy_index.put(&changes)?;
        for fid in settled {
            self.pending.settle(fid);
        }
        Ok(moved)
    }

    fn is_of_one(&self, error: &TransferError) -> bool {
        let FollowOptions {
            lanes,
            control,
            archive_id,
            ..
        } = self.follow;
        lanes
            .first()
            .is_some_and(|lane| Transfer::new(lane, control).is_of_one(*archive_id, error))
    }

    /// What no record is about would be forgotten with this process.
    pub(super) fn keep(&mut self, fid: Fid) -> Result<(), CopyIndexError> {
        self.keep_all(&[fid])
    }

    /// The same of some, written together and each only once.
    fn keep_all(&mut self, fids: &[Fid]) -> Result<(), CopyIndexError> {
        self.put_back += fids.len() as u64;
        let now = Instant::now();
        let mut owed = Vec::new();
        for fid in fids {
            if !self.pending.has_record(*fid) && self.pending.is_new_debt(*fid, now) {
                owed.push(*fid);
            }
        }
        self.copy_index.owe_all(&owed)
    }

    fn put_off(&mut self, fids: &[Fid], why: &str) -> Result<(), FollowError> {
        self.keep_all(fids)?;
        for fid in fids {
            self.later(*fid, why)?;
        }
        Ok(())
    }

    /// What is not its fault is not counted. One that waits for long is written down, so that the changelogs need not
    /// be kept for it.
    pub(super) fn later(&mut self, fid: Fid, why: &str) -> Result<(), FollowError> {
        tracing::debug!(%fid, why, "later");
        self.keep(fid)?;
        let now = Instant::now();
        self.pending.reopen(fid, now);
        let waited = self.pending.wait(fid, now);
        if waited >= LONGEST_WAIT {
            self.copy_index.owe(fid)?;
            if self.pending.let_go(fid) {
                tracing::warn!(%fid, why, "waits for more than ten minutes; it is tried on, and the changelog goes on without it");
            }
        }
        let pause = (waited / 8).clamp(PAUSE, LONGEST_PAUSE);
        self.pending.postpone(fid, now + pause);
        Ok(())
    }

    fn has_waited(&mut self, fid: Fid) -> bool {
        self.pending.wait(fid, Instant::now()) >= LONGEST_WAIT
    }

    fn give_up(&mut self, fid: Fid, name: &str, why: &str) -> Result<(), FollowError> {
        tracing::warn!(
            file = name,
            why,
            "given up for an hour, or until something happens to it"
        );
        self.counts.failed += 1;
        self.asked.remove(&fid);
        self.copy_index.owe(fid)?;
        self.pending.give_up(fid);
        Ok(())
    }

    pub(super) fn try_again(&mut self, fid: Fid, name: &str, why: &str) -> Result<(), FollowError> {
        self.keep(fid)?;
        let tries = self.pending.put_back(fid, Instant::now());
        if tries >= TRIES {
            return self.give_up(fid, name, why);
        }
        tracing::debug!(file = name, why, tries, "tried again later");
        let pause = PAUSE * 3u32.pow(tries.saturating_sub(1));
        self.pending.postpone(fid, Instant::now() + pause);
        Ok(())
    }

    /// A job without a name: its list and its ledger go with it. What the ledger has of each file; nothing of one that was
    /// not asked for.
    fn have_archived(&mut self, files: &[(Fid, PathBuf)]) -> Result<Vec<Option<Row>>, FollowError> {
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
        let spec = JobSpec {
            id: jobs::new_id(UserAction::Archive),
            action: UserAction::Archive,
            archive_id: Some(follow.archive_id),
            mount: follow.mount.path().to_owned(),
            roots: Vec::new(),
            list: Some(list),
            nul: true,
            select: FileFilter::default(),
            window: follow.window,
            threads: CALLS,
            dry_run: false,
            created: Timestamp::now().seconds,
            taken_over: false,
        };
        let ledger = Ledger::create(scratch.path(), &spec)?;
        // One huge file, or an archive that no mover serves, must not hold up all that follows.
        let (control, began) = (Control::default(), Instant::now());
        let (mut ended, mut ended_at, mut read_at) = (0, began, began);
        let mut failed = None;
        let mut tick = |summary: &jobs::Summary| {
            let now = Instant::now();
            if summary.counts.ended() != ended {
                (ended, ended_at) = (summary.counts.ended(), now);
            }
            if !follow.once && now - read_at >= POLL {
                read_at = now;
                failed = failed.take().or(self.read().err());
            }
            let is_long = now - ended_at >= STALL || now - began >= ROUND;
            let others_wait = is_long && self.pending.next_due().is_some_and(|at| at <= now);
            if others_wait || follow.stopped() || failed.is_some() || now - began > LONGEST_JOB {
                control.stop(Stop::Shutdown);
            }
        };
        let result = jobs::run(
            follow.mount,
            &spec,
            &ledger,
            &control,
            follow.fleet,
            &|| true,
            &mut tick,
        );
        if let Some(error) = failed {
            return Err(error);
        }
        match result {
            Ok(_) | Err(jobs::JobError::Stopped(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.counts.archived += ledger.counts()?.done;
        let rows = files.iter().map(|(_, path)| ledger.row(path));
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// A directory that was moved.
pub(super) struct Move {
    pub(super) fid: Fid,
    pub(super) known: IndexEntry,
    pub(super) path: PathBuf,
}

pub(super) type LookResult = Result<LookOutcome, LookError>;

const fn add(to: &mut FollowCounts, more: FollowCounts) {
    to.nodes += more.nodes;
    to.moved += more.moved;
    to.restated += more.restated;
    to.deleted += more.deleted;
}
