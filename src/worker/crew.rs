//! The worker threads. Each has a lane of its own and serves the queue until it is closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::archive::archive;
use super::remove::remove;
use super::restore::restore;
use super::{Ended, Ending, JobError, Outcome, Settler, Site, settle};
use crate::action::{Item, Kind, Verb, Verdict};
use crate::queue::{Job, Lanes, Queue, Work};
use crate::store::{ObjectKey, Targets};
use crate::transfer::{Helpers, Lane, TransferError, TransferOptions};
use crate::types::HsmErrno;

/// The running threads.
#[derive(Debug)]
pub struct Crew {
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts `threads` threads, `restores` of which serve nothing but restores.
    ///
    /// # Errors
    /// A thread or its runtime could not be made.
    pub fn start(
        threads: usize,
        restores: usize,
        queue: &Arc<Queue>,
        settler: &Arc<Settler>,
        site: &Site,
        targets: &Targets,
        options: TransferOptions,
    ) -> std::io::Result<Self> {
        let threads = (0..threads)
            .map(|n| {
                let lanes = if n < restores { Lanes::Restores } else { Lanes::All };
                let lane = Lane::new(&targets.all(), options)?;
                let mut worker = Worker {
                    queue: Arc::clone(queue),
                    settler: Arc::clone(settler),
                    site: site.clone(),
                    targets: targets.clone(),
                    lane,
                };
                std::thread::Builder::new()
                    .name(format!("worker-{n}"))
                    .spawn(move || worker.run(lanes))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { threads })
    }

    /// Waits for all of them; the queue must have been closed.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

struct Worker {
    queue: Arc<Queue>,
    settler: Arc<Settler>,
    site: Site,
    targets: Targets,
    lane: Lane,
}

impl Worker {
    fn run(&mut self, lanes: Lanes) {
        loop {
            let work = self.queue.next(lanes);
            // What is to be done may be of an archive that was added while this thread waited.
            self.lane.follow(&self.targets);
            match work {
                Work::Closed => return,
                Work::Parts(parts) => {
                    let more = parts.work_one(&self.lane);
                    self.queue.helped(&parts, more);
                }
                Work::Job(job) => self.job(job),
            }
        }
    }

    fn job(&self, job: Job) {
        let item = job.debt.item().clone();
        let span = tracing::info_span!(
            "action",
            fid = %item.fid,
            cookie = %item.cookie,
            archive = item.archive_id.map_or(0, crate::types::ArchiveId::get),
        );
        let _entered = span.enter();
        let start = Instant::now();
        self.site.witnesses.started(self.site.fs.as_ref(), &item);
        let control = Arc::clone(&job.control);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.perform(&item, job))).unwrap_or_else(|panic| {
            // The debt was dropped on the way and has answered EIO.
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Ended::failed(JobError::Panic(text.unwrap_or_default())).into()
        });
        let ended = match outcome {
            Outcome::Ended(ended) => ended,
            Outcome::Later(debt, until) => match self.queue.defer(debt, until) {
                Ok(()) => return,
                Err((debt, stop)) => settle::refuse(&control, debt, TransferError::Stopped(stop).into()),
            },
        };
        self.report(&item, &ended, start);
        // Before this one is taken out: once nothing runs the daemon may end, and with it who answers.
        if ended.verdict == Verdict::Done {
            for served in self.queue.take_served(&item) {
                self.settler.settle(served, Verdict::failed(HsmErrno::EALREADY));
            }
        }
        self.queue.ended(&item);
    }

    fn perform(&self, item: &Item, job: Job) -> Outcome {
        let Job {
            debt,
            control,
            deferrals,
        } = job;
        let helpers: &dyn Helpers = self.queue.as_ref();
        if !(item.extent.offset == 0 && item.extent.to_eof()) && item.kind != Kind::Do(Verb::Remove) {
            let error = JobError::PartialExtent {
                offset: item.extent.offset,
                length: item.extent.length,
            };
            return settle::refuse(&control, debt, error).into();
        }
        match item.kind {
            Kind::Do(Verb::Archive) => archive(&self.site, &self.lane, helpers, &control, debt).into(),
            Kind::Do(Verb::Restore) => restore(&self.site, &self.lane, helpers, &control, debt, deferrals),
            Kind::Do(Verb::Remove) => remove(&self.site, &self.lane, &control, debt).into(),
            Kind::Cancel => settle::refuse(&control, debt, JobError::UnknownAction(23)).into(),
            Kind::Unknown(number) => settle::refuse(&control, debt, JobError::UnknownAction(number)).into(),
        }
    }

    fn report(&self, item: &Item, ended: &Ended, start: Instant) {
        let Kind::Do(verb) = item.kind else {
            return;
        };
        let took = start.elapsed();
        let reason = ended.error.as_ref().map(ToString::to_string);
        let ending = Ending {
            item,
            verdict: ended.verdict,
            bytes: ended.bytes,
            took: Some(took),
            reason: reason.as_deref(),
            key: ended.key.as_ref().map(ObjectKey::as_str),
        };
        self.site.tally.count(&ending);
        self.site.witnesses.ended(self.site.fs.as_ref(), &ending);
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
