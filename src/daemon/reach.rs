//! Which MDTs and stores this mover reaches, as far as it knows. Nobody waits here: who asks is told what was heard of late, and
//! what was not is asked on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::takeover::Takeover;
use crate::action::ActionKey;
use crate::store::{Target, Targets};
use crate::types::{ArchiveId, Cookie, Extent, Fid, Mdt, OutOfReach};

/// For an answer, which is one for so long; looks are further apart only with a lease of some minutes.
const FRESH: Duration = Duration::from_secs(60);
/// For a store's answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// No coordinator counts this far.
const BOGUS_COOKIE: Cookie = Cookie(u64::MAX);

/// What answers.
pub(super) struct Reach {
    takeover: Takeover,
    targets: Targets,
    asked: Arc<Mutex<Asked>>,
}

#[derive(Default)]
struct Asked {
    /// Those that are being asked.
    stores: BTreeSet<ArchiveId>,
    mdts: BTreeMap<Mdt, AskedMdt>,
}

#[derive(Default)]
struct AskedMdt {
    is_asked: bool,
    answered: Option<Instant>,
}

fn lock(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reach {
    pub(super) fn new(takeover: Takeover, targets: Targets) -> Self {
        Self {
            takeover,
            targets,
            asked: Arc::default(),
        }
    }

    /// What does not answer, and for how long that is known. MDTs are asked by the heartbeats of what waits for them; stores are
    /// asked here, for what waits for them may ask for nothing.
    pub(super) fn out(&self) -> Vec<(OutOfReach, Duration)> {
        let silent = self.takeover.queue.silent().into_iter();
        let mut out: Vec<_> = silent
            .map(|(mdt, since)| (OutOfReach::Mdt(mdt), since.elapsed()))
            .collect();
        for target in self.targets.all() {
            if let Some(away) = target.limits().reach.away_for() {
                out.push((OutOfReach::Archive(target.options().archive_id), away));
                self.ask_store(&target);
            }
        }
        out
    }

    /// Whether both have answered of late.
    pub(super) fn is_there(&self, mdt: Mdt, archive_id: ArchiveId, fid: Fid) -> bool {
        let targets = self.targets.all();
        let target = targets.iter().find(|target| target.options().archive_id == archive_id);
        let Some(target) = target else {
            return false;
        };
        let has_store = target.limits().reach.has_answered_within(FRESH);
        if !has_store {
            self.ask_store(target);
        }
        let silent = self.takeover.queue.silent();
        if silent.iter().any(|(silent, _)| *silent == mdt) {
            return false;
        }
        let answered = lock(&self.asked).mdts.entry(mdt).or_default().answered;
        let has_mdt = answered.is_some_and(|answered| answered.elapsed() <= FRESH);
        if !has_mdt {
            self.ask_mdt(mdt, fid);
        }
        has_store && has_mdt
    }

    fn ask_store(&self, target: &Arc<Target>) {
        let id = target.options().archive_id;
        if !lock(&self.asked).stores.insert(id) {
            return;
        }
        let (asked, target) = (Arc::clone(&self.asked), Arc::clone(target));
        let asking = self.takeover.supervisor.errand("reach-store", move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    runtime.block_on(Box::pin(target.look(PATIENCE)));
                    // A look-up of a name may be under way; nobody wants it.
                    runtime.shutdown_background();
                }
                Err(error) => tracing::error!(%error, "nothing to ask a store with"),
            }
            lock(&asked).stores.remove(&id);
        });
        if let Err(error) = asking {
            tracing::error!(%error, archive = id.get(), "no thread to ask whether a store is there");
            lock(&self.asked).stores.remove(&id);
        }
    }

    /// Of an action that nobody has: a coordinator that is there says that it knows none.
    fn ask_mdt(&self, mdt: Mdt, fid: Fid) {
        if std::mem::replace(&mut lock(&self.asked).mdts.entry(mdt).or_default().is_asked, true) {
            return;
        }
        let (asked, fs) = (Arc::clone(&self.asked), Arc::clone(&self.takeover.context.fs));
        let asking = self.takeover.supervisor.errand(format!("reach-{:x}", mdt.0), move || {
            let key = ActionKey {
                cookie: BOGUS_COOKIE,
                fid,
            };
            let answer = fs.progress(key, Extent::EMPTY);
            let has_answered = answer.is_ok() || answer.is_err_and(|error| error.is_not_found());
            let answer = AskedMdt {
                is_asked: false,
                answered: has_answered.then(Instant::now),
            };
            lock(&asked).mdts.insert(mdt, answer);
        });
        if let Err(error) = asking {
            tracing::error!(%error, "no thread to ask whether {mdt} is there");
            lock(&self.asked).mdts.remove(&mdt);
        }
    }
}
