//! The worker threads. Each has a lane of its own and serves the queue until it is closed.

use std::sync::Arc;
use std::time::Instant;

use super::archive::archive;
use super::remove::remove;
use super::restore::restore;
use super::run::Run;
use super::{ActionEnd, Context, Ended, JobError, Outcome, Responder};
use crate::action::{ActionHandle, Item, Kind, Verb, Verdict};
use crate::queue::{Deferrals, Job, PutOff, Queue, ThreadRole, Work};
use crate::store::{ObjectKey, Targets};
use crate::thread::{Supervisor, Threads, guarded};
use crate::transfer::{Lane, Transfer, TransferError, TransferOptions};
use crate::types::HsmErrno;

/// The running threads.
#[derive(Debug)]
pub struct WorkerPool {
    threads: Threads,
}

/// How many threads there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolSize {
    /// All of them.
    pub threads: usize,
    /// Those of them that serve nothing but restores.
    pub for_restores: usize,
}

impl WorkerPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread or its runtime could not be made.
    pub fn start(
        supervisor: &Supervisor,
        size: PoolSize,
        queue: &Arc<Queue>,
        responder: &Arc<Responder>,
        context: &Context,
        targets: &Targets,
        options: TransferOptions,
    ) -> std::io::Result<Self> {
        let closing = Arc::clone(queue);
        let mut threads = Threads::new(move || closing.close());
        for n in 0..size.threads {
            let lanes = if n < size.for_restores {
                ThreadRole::Restores
            } else {
                ThreadRole::All
            };
            let lane = Lane::new(&targets.all(), options)?;
            let mut worker = Worker {
                queue: Arc::clone(queue),
                responder: Arc::clone(responder),
                context: context.clone(),
                targets: targets.clone(),
                lane,
            };
            threads.add(supervisor, format!("worker-{n}"), move || worker.run(lanes))?;
        }
        Ok(Self { threads })
    }

    /// Closes the queue and waits for all of them, until the deadline. `false`: some have not ended.
    pub fn join(mut self, deadline: Instant) -> bool {
        self.threads.join(deadline)
    }
}

struct Worker {
    queue: Arc<Queue>,
    responder: Arc<Responder>,
    context: Context,
    targets: Targets,
    lane: Lane,
}

/// What a worker leaves of an action.
#[derive(PartialEq, Eq)]
enum WorkLeft {
    /// It was answered.
    Nothing,
    /// The queue has it again.
    Waiting,
}

impl Worker {
    /// Whatever panics in a piece of work, this thread goes on, and the queue hears that the piece is over.
    fn run(&mut self, lanes: ThreadRole) {
        loop {
            match self.queue.next(lanes) {
                Work::Closed => return,
                Work::Parts(parts) => {
                    let more = guarded(|| {
                        self.lane.follow(&self.targets);
                        parts.work_one(&self.lane)
                    });
                    self.queue.helped(&parts, more.unwrap_or(false));
                }
                Work::Job(job) => {
                    let item = job.handle.item().clone();
                    let left = guarded(|| {
                        // It may be of an archive that was added while this thread waited.
                        self.lane.follow(&self.targets);
                        self.job(&item, job)
                    });
                    if left != Ok(WorkLeft::Waiting) {
                        self.queue.ended(&item);
                    }
                }
            }
        }
    }

    fn job(&self, item: &Item, job: Job) -> WorkLeft {
        let span = tracing::info_span!(
            "action",
            fid = %item.fid,
            cookie = %item.cookie,
            archive = item.archive_id.map_or(0, crate::types::ArchiveId::get),
        );
        let _entered = span.enter();
        if job.has_waited && self.was_served_elsewhere(item) {
            self.responder.settle(job.handle, Verdict::failed(HsmErrno::EALREADY));
            return WorkLeft::Nothing;
        }
        let start = Instant::now();
        self.context.observers.started(self.context.fs.as_ref(), item);
        if let Some(warrant) = self.context.warrant.as_ref().filter(|_| job.deferrals.are_any()) {
            warrant.resume(item.key());
        }
        let Job {
            handle,
            control,
            deferrals,
            ..
        } = job;
        let run = Run {
            context: &self.context,
            transfer: Transfer::new(&self.lane, &control).helped_by(self.queue.as_ref()),
            item,
        };
        // After a panic the handle was dropped on the way and has answered EIO.
        let outcome = guarded(|| perform(run, handle, deferrals))
            .unwrap_or_else(|words| Ended::failed(JobError::Panic(words)).into());
        let ended = match outcome {
            Outcome::Ended(ended) => ended,
            Outcome::Later(handle, until, why) => match self.queue.defer(handle, until, why) {
                Ok(()) => return WorkLeft::Waiting,
                Err((handle, stop)) => run.refuse(handle, TransferError::Stopped(stop).into()),
            },
        };
        if ended.is_handed_on() {
            tracing::info!(
                seconds = start.elapsed().as_secs_f64(),
                "not answered: the next daemon goes on with it"
            );
            return WorkLeft::Nothing;
        }
        let objection = match &ended.error {
            Some(JobError::Hsm(error)) => Some(error),
            _ => None,
        };
        self.context.forgotten.note_end(item, objection);
        // Its answer is given: nobody else's depends on what is told of it.
        drop(guarded(|| self.report(item, &ended, start)));
        // Before this one is taken out: once nothing runs the daemon may end, and with it who answers.
        if ended.verdict == Verdict::Done && self.serves_others(item) {
            for served in self.queue.take_served(item) {
                self.responder.settle(served, Verdict::failed(HsmErrno::EALREADY));
            }
        }
        WorkLeft::Nothing
    }

    /// Whether the file is as those behind a done action of it want it. It may have been changed since the answer, and
    /// then they do it once more.
    fn serves_others(&self, item: &Item) -> bool {
        self.queue.may_serve(item) && self.is_as_asked(item)
    }

    /// The same after another mover's action of the file, which was asked for before this one. Its copy may be in another
    /// archive.
    fn was_served_elsewhere(&self, item: &Item) -> bool {
        let is_in_archive = || {
            let state = self.context.fs.copy_state(item.fid);
            item.kind == Kind::Do(Verb::Restore) || state.is_ok_and(|state| state.archive_id == item.archive_id)
        };
        self.is_as_asked(item) && is_in_archive()
    }

    fn is_as_asked(&self, item: &Item) -> bool {
        match item.kind {
            Kind::Do(Verb::Archive) => self.context.fs.is_archived(item.fid).unwrap_or(false),
            Kind::Do(Verb::Restore) => self.context.fs.is_released(item.fid).is_ok_and(|released| !released),
            Kind::Do(Verb::Remove) | Kind::Cancel | Kind::Unknown(_) => false,
        }
    }

    fn report(&self, item: &Item, ended: &Ended, start: Instant) {
        let Kind::Do(verb) = item.kind else {
            return;
        };
        let took = start.elapsed();
        let reason = ended.error.as_ref().map(ToString::to_string);
        let ending = ActionEnd {
            item,
            verdict: ended.verdict,
            bytes: ended.bytes,
            took: Some(took),
            reason: reason.as_deref(),
            key: ended.key.as_ref().map(ObjectKey::as_str),
        };
        self.context.tally.count(&ending);
        self.context.observers.ended(self.context.fs.as_ref(), &ending);
        let (bytes, seconds) = (ended.bytes, took.as_secs_f64());
        match (&ended.error, ended.verdict) {
            (None, _) => tracing::info!(bytes, seconds, "{verb} done"),
            (Some(error), Verdict::Failed { .. }) => {
                tracing::warn!(%error, seconds, "{verb} {}", ended.verdict);
            }
            (Some(_), _) => tracing::info!(seconds, "{verb} {}", ended.verdict),
        }
    }
}

/// `deferrals`: how often it was put off before.
pub(super) fn perform(run: Run<'_>, handle: Box<dyn ActionHandle>, deferrals: Deferrals) -> Outcome {
    let item = run.item;
    if !(item.extent.offset == 0 && item.extent.to_eof()) && item.kind != Kind::Do(Verb::Remove) {
        let error = JobError::PartialExtent {
            offset: item.extent.offset,
            length: item.extent.length,
        };
        return run.refuse(handle, error).into();
    }
    match item.kind {
        Kind::Do(Verb::Archive) => archive(run, handle, deferrals.others),
        Kind::Do(Verb::Restore) => restore(run, handle, deferrals),
        Kind::Do(Verb::Remove) => match run.context.postponed(item.key(), 0) {
            Some(until) => Outcome::Later(handle, until, PutOff::Other),
            None => remove(run, handle).into(),
        },
        Kind::Cancel => run.refuse(handle, JobError::UnknownAction(23)).into(),
        Kind::Unknown(number) => run.refuse(handle, JobError::UnknownAction(number)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::action::{CopyState, Deletions, FileSystem, HsmError};
    use crate::journal::Journal;
    use crate::queue::Admission;
    use crate::types::{ArchiveId, Cookie, Extent, ExtraMetadata, Fid, Sequences};
    use crate::worker::{Forgotten, Observer, Observers, OnForgotten, Tally};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Panics whatever is asked of it.
    #[derive(Debug)]
    struct Broken;

    impl FileSystem for Broken {
        fn name(&self) -> &str {
            panic!("as asked")
        }
        fn path_of(&self, _: Fid) -> Result<PathBuf, HsmError> {
            panic!("as asked")
        }
        fn imported_until(&self) -> Result<Option<i64>, HsmError> {
            panic!("as asked")
        }
        fn map(&self, _: Fid) -> Result<Option<Vec<u8>>, HsmError> {
            panic!("as asked")
        }
        fn set_map(&self, _: Fid, _: &[u8]) -> Result<(), HsmError> {
            panic!("as asked")
        }
        fn clear_map(&self, _: Fid) -> Result<(), HsmError> {
            panic!("as asked")
        }
        fn announce_deletion(&self, _: Fid, _: u64, _: &[u8]) -> Result<(), HsmError> {
            panic!("as asked")
        }
        fn withdraw_deletion(&self, _: Fid, _: u64) -> Result<(), HsmError> {
            panic!("as asked")
        }
        fn note_deletion(&self, _: Fid, _: &[u8]) -> Result<(), HsmError> {
            panic!("as asked")
        }
        fn deletions(&self, _: Fid) -> Result<Deletions, HsmError> {
            panic!("as asked")
        }
        fn is_released(&self, _: Fid) -> Result<bool, HsmError> {
            panic!("as asked")
        }
        fn is_archived(&self, _: Fid) -> Result<bool, HsmError> {
            panic!("as asked")
        }
        fn copy_state(&self, _: Fid) -> Result<CopyState, HsmError> {
            panic!("as asked")
        }
        fn has_archive(&self, _: Fid) -> Result<bool, HsmError> {
            panic!("as asked")
        }
        fn prepare_archive(&self, _: Fid, _: Option<ArchiveId>) -> Result<CopyState, HsmError> {
            panic!("as asked")
        }
        fn ask_again(&self, _: Fid, _: Option<ArchiveId>) -> Result<bool, HsmError> {
            panic!("as asked")
        }
        fn extras(&self, _: Fid, _: &File) -> Result<ExtraMetadata, HsmError> {
            panic!("as asked")
        }
        fn size_of(&self, _: Fid) -> Result<u64, HsmError> {
            panic!("as asked")
        }
        fn is_unlinked(&self, _: Fid) -> Result<bool, HsmError> {
            panic!("as asked")
        }
        fn data_version(&self, _: &File) -> Option<u64> {
            panic!("as asked")
        }
        fn revoke(&self, _: Fid) -> Result<(), HsmError> {
            panic!("as asked")
        }
        fn note_restored(&self, _: Fid) -> Result<(), HsmError> {
            panic!("as asked")
        }
        fn progress(&self, _: crate::action::ActionKey, _: Extent) -> Result<(), HsmError> {
            panic!("as asked")
        }
    }

    impl Observer for Broken {
        fn started(&self, _: &dyn FileSystem, _: &Item) {
            panic!("as asked")
        }
        fn ended(&self, _: &dyn FileSystem, _: &ActionEnd<'_>) {
            panic!("as asked")
        }
    }

    /// Dropped, it answers as the real one does.
    #[derive(Debug)]
    struct FakeAction {
        item: Item,
        answers: Sender<Verdict>,
    }

    impl ActionHandle for FakeAction {
        fn item(&self) -> &Item {
            &self.item
        }
        fn begin(&mut self, _: Option<&[u8]>) -> Result<Option<File>, HsmError> {
            panic!("as asked")
        }
        fn finish(self: Box<Self>, _: Verdict, _: u64) -> Result<(), HsmError> {
            Ok(())
        }
        fn renew(&mut self) {}
        fn disown(self: Box<Self>) {}
    }

    impl Drop for FakeAction {
        fn drop(&mut self) {
            self.answers.send(Verdict::failed(HsmErrno::EIO)).unwrap();
        }
    }

    #[test]
    fn an_action_that_panics_wherever_it_can_is_answered_and_its_thread_takes_the_next_one() {
        let options = TransferOptions::IDLE;
        let dir = tempfile::tempdir().unwrap();
        let (queue, tally) = (Arc::new(Queue::default()), Arc::new(Tally::default()));
        let supervisor = Supervisor::default();
        let responder = Arc::new(Responder::new(&supervisor, Sequences::default(), 1, &tally));
        let context = Context {
            fs: Arc::new(Broken),
            journal: Arc::new(Journal::open(&supervisor, dir.path(), "lustre", Path::new("/mnt"))),
            tally: Arc::clone(&tally),
            observers: Observers::new(vec![Box::new(Broken)]),
            forgotten: Arc::new(Forgotten::new(OnForgotten::Log, Duration::from_secs(1))),
            warrant: None,
            others_copies: None,
        };
        let targets = Targets::default();
        let size = PoolSize {
            threads: 1,
            for_restores: 0,
        };
        let pool = WorkerPool::start(&supervisor, size, &queue, &responder, &context, &targets, options).unwrap();
        let (answers, answered) = channel();
        for oid in 1..=3 {
            let fid = Fid {
                seq: 0x2_0000_0401,
                oid,
                ver: 0,
            };
            let item = Item {
                kind: Kind::Do([Verb::Archive, Verb::Restore, Verb::Remove][oid as usize - 1]),
                fid,
                dfid: fid,
                cookie: Cookie(u64::from(oid)),
                archive_id: ArchiveId::new(1),
                extent: Extent::WHOLE,
                gid: 0,
                blocking: false,
                data: Box::default(),
            };
            let answers = answers.clone();
            let admission = queue.admit(Box::new(FakeAction { item, answers }), Instant::now());
            assert!(matches!(admission, Admission::Queued));
        }
        for _ in 0..3 {
            assert_eq!(answered.recv_timeout(PATIENCE), Ok(Verdict::failed(HsmErrno::EIO)));
        }
        assert!(queue.wait_idle(Instant::now() + PATIENCE), "the table let go of them");
        assert_eq!(tally.sums().values().map(|sums| sums.failed).sum::<u64>(), 3);
        assert!(pool.join(Instant::now() + PATIENCE));
        assert_eq!(supervisor.first_death(), None);
    }
}
