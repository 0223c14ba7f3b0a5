//! The MDTs of a mount, and what their coordinators say.
//!
//! Registering goes to every MDT, and one that refuses crashes the client of 2.17 and before; so each is asked first,
//! through a FID of its own. The number of MDTs is known, their indices are not and may have gaps. One that is dead
//! answers nothing, so each is asked on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::call::Call;
use super::{Library, ioctl, memory};
use crate::action::HsmError;
use crate::thread::Supervisor;
use crate::types::{Cookie, ErrorClass, Extent, Fid, Mdt, Sequences};

/// What newer clients say instead of a number of MDTs: the size of their table, at first (`ltd_tgts_size`).
const TABLE: u32 = 64;
/// Where the search for an MDT ends that is counted and has no index below the count.
const INDICES: u32 = 512;
/// No coordinator counts this far: cookies start at the wall clock's seconds.
const BOGUS_COOKIE: Cookie = Cookie(u64::MAX);
/// Names of the root directory that are looked at for what MDTs they are on.
const MOST_NAMES: usize = 256;

/// What a coordinator says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CoordinatorState {
    Running,
    Stopped,
}

/// What was asked of all MDTs.
#[derive(Debug, Default)]
pub(super) struct SurveyResult {
    pub(super) stopped: Vec<Mdt>,
    /// No answer came in time.
    pub(super) silent: Vec<Mdt>,
    /// Another answer came: the first one.
    pub(super) refused: Option<HsmError>,
}

/// What is known of the MDTs of a mount.
#[derive(Debug)]
pub(super) struct Mdts {
    shared: Arc<MdtsShared>,
    calls: Mutex<MdtCalls>,
}

#[derive(Debug)]
struct MdtCalls {
    survey: Call<Result<(), HsmError>>,
    each: BTreeMap<Mdt, Call<Result<CoordinatorState, HsmError>>>,
}

#[derive(Debug)]
struct MdtsShared {
    library: Library,
    path: PathBuf,
    root: Arc<std::fs::File>,
    sequences: Sequences,
    known: Mutex<KnownMdts>,
    /// Whether files were looked at for the MDTs that they are on.
    looked: AtomicBool,
    /// Whether all were looked for once.
    surveyed: AtomicBool,
    /// The MDT that the survey is about.
    at: AtomicU32,
    /// When each took a report last.
    proofs: Mutex<BTreeMap<Mdt, Instant>>,
}

#[derive(Debug)]
struct KnownMdts {
    /// A FID on each MDT. A sequence never moves to another MDT, so it serves for good.
    fids: BTreeMap<Mdt, Fid>,
    /// There, but not connected when last looked at.
    away: BTreeSet<Mdt>,
    /// Could not be asked by the FID that was known.
    doubted: BTreeSet<Mdt>,
    warned: bool,
    /// Where the sequences are kept for the next start, and the file system that they are of.
    memory: Option<(PathBuf, String)>,
}

impl Mdts {
    pub(super) fn new(library: Library, path: PathBuf, root: Arc<std::fs::File>) -> Self {
        let known = KnownMdts {
            fids: BTreeMap::from([(Mdt(0), Fid::ROOT)]),
            away: BTreeSet::new(),
            doubted: BTreeSet::new(),
            warned: false,
            memory: None,
        };
        let sequences = Sequences::default();
        sequences.learn(Fid::ROOT, Mdt(0));
        Self {
            shared: Arc::new(MdtsShared {
                library,
                path,
                root,
                sequences,
                known: Mutex::new(known),
                looked: AtomicBool::new(false),
                surveyed: AtomicBool::new(false),
                at: AtomicU32::new(0),
                proofs: Mutex::default(),
            }),
            calls: Mutex::new(MdtCalls {
                survey: Call::new("mdt-survey"),
                each: BTreeMap::new(),
            }),
        }
    }

    pub(super) fn sequences(&self) -> &Sequences {
        &self.shared.sequences
    }

    /// Keeps a sequence of each MDT in this file, and takes up those that are there: nothing needs to be made on an MDT
    /// to ask it.
    pub(super) fn remember(&self, file: PathBuf, file_system: &str) {
        for (mdt, fid) in memory::read(&file, file_system) {
            self.shared.sequences.learn(fid, mdt);
        }
        self.shared.known().memory = Some((file, file_system.to_owned()));
    }

    /// Asks each MDT that can be reached whether its coordinator runs, for `patience` at most. One that is away is left
    /// out: registering passes over it, too.
    pub(super) fn ask(&self, supervisor: &Supervisor, patience: Duration) -> SurveyResult {
        let until = Instant::now() + patience;
        let mut answers = SurveyResult::default();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let MdtCalls { survey, each } = &mut *calls;
        // Those that are known are asked meanwhile.
        let shared = Arc::clone(&self.shared);
        survey.begin(supervisor, move || shared.survey());
        let fids = self.shared.known().fids.clone();
        let asked: Vec<_> = fids.keys().copied().collect();
        self.begin(supervisor, each, fids);
        match survey.answer(until) {
            Some(Ok(())) => {}
            Some(Err(error)) => answers.refused = Some(error),
            // Whatever comes after it was not looked at either.
            None => answers.silent.push(Mdt(self.shared.at.load(Ordering::Relaxed))),
        }
        let mut fids = self.shared.known().fids.clone();
        fids.retain(|mdt, _| !asked.contains(mdt));
        self.begin(supervisor, each, fids);
        for (mdt, call) in each.iter_mut() {
            match call.answer(until) {
                Some(Ok(CoordinatorState::Running)) => {}
                Some(Ok(CoordinatorState::Stopped)) => answers.stopped.push(*mdt),
                Some(Err(error)) => {
                    self.shared.forget(*mdt);
                    answers.refused.get_or_insert(error);
                }
                None => answers.silent.push(*mdt),
            }
        }
        each.retain(|_, call| call.is_out());
        answers.silent.sort_unstable();
        answers.silent.dedup();
        answers
    }

    fn begin(
        &self,
        supervisor: &Supervisor,
        each: &mut BTreeMap<Mdt, Call<Result<CoordinatorState, HsmError>>>,
        fids: BTreeMap<Mdt, Fid>,
    ) {
        for (mdt, fid) in fids {
            let shared = Arc::clone(&self.shared);
            let call = each.entry(mdt).or_insert_with(|| Call::new("mdt-probe"));
            call.begin(supervisor, move || shared.ask(fid));
        }
    }

    /// The coordinator that has this FID took a report of an action of ours: it runs, and has not forgotten us.
    pub(super) fn prove(&self, fid: Fid) {
        if let Some(mdt) = self.shared.sequences.domain(fid) {
            let mut proofs = self.shared.proofs.lock().unwrap_or_else(PoisonError::into_inner);
            proofs.insert(mdt, Instant::now());
        }
    }

    /// Whether all did so lately.
    pub(super) fn are_proved(&self, within: Duration) -> bool {
        let known = self.shared.known();
        let proofs = self.shared.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        let is_proved = |mdt| proofs.get(mdt).is_some_and(|at| at.elapsed() < within);
        known.fids.keys().all(is_proved)
    }

    /// Whether there may be more than one, by the last look for all of them. Asks none.
    pub(super) fn may_be_several(&self) -> bool {
        let shared = &self.shared;
        let count = shared.library.mdt_count(&shared.path);
        // Where it is no table's size it also counts those that this client was told to leave alone.
        !shared.surveyed.load(Ordering::Relaxed) || shared.known().count() > 1 || !matches!(count, Some(1 | TABLE))
    }

    /// All that can be reached. Waits for them.
    ///
    /// # Errors
    /// One is there and can't be asked.
    pub(super) fn all(&self) -> Result<Vec<Mdt>, HsmError> {
        self.shared.survey()?;
        Ok(self.shared.known().fids.keys().copied().collect())
    }

    /// Finds out where a file is.
    pub(super) fn find(&self, fid: Fid) -> Option<Mdt> {
        self.shared.find(fid)
    }
}

impl MdtsShared {
    fn known(&self) -> MutexGuard<'_, KnownMdts> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, fid: Fid) -> Option<Mdt> {
        let index = self.library.mdt_index(self.root.as_fd(), fid)?;
        let mdt = Mdt(u32::try_from(index).ok()?);
        self.sequences.learn(fid, mdt);
        Some(mdt)
    }

    /// Asks the coordinator that has this FID, by a cancel that finds nothing to cancel: neither a record nor a line in
    /// the MDS's log is left of it.
    fn ask(&self, fid: Fid) -> Result<CoordinatorState, HsmError> {
        let asked = match ioctl::cancel_nothing(self.root.as_fd(), fid) {
            // Not known or not allowed here: the older way, which the MDS logs.
            Err(error)
                if matches!(
                    error.class(),
                    ErrorClass::WrongKind | ErrorClass::Unsupported | ErrorClass::Refused | ErrorClass::Denied
                ) =>
            {
                ioctl::progress(self.root.as_fd(), fid, BOGUS_COOKIE, Extent::EMPTY)
            }
            asked => asked,
        };
        match asked {
            Ok(()) => Ok(CoordinatorState::Running),
            Err(error) if error.is_not_found() => Ok(CoordinatorState::Running),
            Err(error) if error.class() == ErrorClass::Stopped => Ok(CoordinatorState::Stopped),
            Err(error) => Err(error),
        }
    }

    /// It could not be asked by its FID: it is looked for again the next time.
    fn forget(&self, mdt: Mdt) {
        if mdt.0 > 0 {
            let mut known = self.known();
            known.fids.remove(&mdt);
            known.doubted.insert(mdt);
        }
    }

    /// Looks for MDTs that are not known; each time anew, for one may have been added or come back.
    ///
    /// # Errors
    /// An MDT is there and can't be asked.
    fn survey(&self) -> Result<(), HsmError> {
        let count = self.library.mdt_count(&self.path).unwrap_or(1);
        for mdt in 1..count.min(INDICES) {
            self.look(Mdt(mdt))?;
        }
        // An exact count, and indices with gaps.
        let mut mdt = count;
        while count != TABLE && self.known().count() < count && mdt < INDICES {
            self.look(Mdt(mdt))?;
            mdt += 1;
        }
        self.surveyed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn look(&self, mdt: Mdt) -> Result<(), HsmError> {
        if self.known().fids.contains_key(&mdt) {
            return Ok(());
        }
        self.at.store(mdt.0, Ordering::Relaxed);
        if !self.looked.swap(true, Ordering::Relaxed) {
            self.look_at_files();
        }
        let learnt = self.sequences.unused_on(mdt);
        let doubted = self.known().doubted.contains(&mdt);
        if let Some(fid) = learnt.filter(|_| !doubted) {
            self.found(mdt, fid);
            return Ok(());
        }
        match self.library.fid_on_mdt(&self.path, mdt.0) {
            Some(Ok(fid)) => {
                // Wherever it came to be: that MDT is reached by it.
                let found = self.find(fid).unwrap_or(mdt);
                self.sequences.learn(fid, found);
                self.found(found, self.sequences.unused_on(found).unwrap_or(fid));
                let mut known = self.known();
                known.away.remove(&mdt);
                known.doubted.remove(&mdt);
            }
            // Nobody has this index, or it is not connected; the client knows without asking.
            Some(Err(error))
                if matches!(
                    error.class(),
                    ErrorClass::Unmounted | ErrorClass::Nothing | ErrorClass::Invalid
                ) => {}
            Some(Err(error)) if error.class().is_away() => {
                if self.known().away.insert(mdt) {
                    tracing::warn!(%error, "{mdt} does not answer; going on without it");
                }
            }
            // It lives: registering would reach it.
            Some(Err(error)) => {
                if matches!(
                    error.class(),
                    ErrorClass::Full | ErrorClass::OverQuota | ErrorClass::ReadOnly
                ) {
                    if let Some(fid) = learnt {
                        self.found(mdt, fid);
                        return Ok(());
                    }
                    tracing::warn!(
                        %error,
                        "nothing can be made on {mdt}, and no file of it is known by which to ask it: make a directory of \
                         it in the root of the file system (lfs mkdir -i {})", mdt.0
                    );
                    // One may be there by then.
                    self.looked.store(false, Ordering::Relaxed);
                }
                return Err(error);
            }
            None => {
                if !std::mem::replace(&mut self.known().warned, true) {
                    tracing::warn!(
                        "this liblustreapi can't ask each MDT: where there are several, see that hsm_control is enabled \
                         on all of them"
                    );
                }
            }
        }
        Ok(())
    }

    fn found(&self, mdt: Mdt, fid: Fid) {
        let memory = {
            let mut known = self.known();
            known.fids.entry(mdt).or_insert(fid);
            let fids = known.fids.clone();
            known
                .memory
                .clone()
                .map(|(file, file_system)| (file, file_system, fids))
        };
        if let Some((file, file_system, fids)) = memory {
            memory::write(&file, &file_system, &fids);
        }
    }

    /// Directories of the root directory tell the MDTs that they are on.
    fn look_at_files(&self) {
        let names = match std::fs::read_dir(&self.path) {
            Ok(names) => names,
            Err(error) => return tracing::debug!(%error, "the root directory can't be read"),
        };
        let directories = names
            .flatten()
            .filter(|name| name.file_type().is_ok_and(|kind| kind.is_dir()));
        for directory in directories
            .take(MOST_NAMES)
            .filter(|name| name.file_name() != ".lustre")
        {
            if let Ok(fid) = self.library.fid_at(&directory.path())
                && self.sequences.domain(fid).is_none()
            {
                self.find(fid);
            }
        }
    }
}

impl KnownMdts {
    fn count(&self) -> u32 {
        u32::try_from(self.fids.len() + self.away.len()).unwrap_or(u32::MAX)
    }
}
