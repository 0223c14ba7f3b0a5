//! Answers without work: refusals, cancels of what waited, the sweep at shutdown.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{ActionEnd, Tally};
use crate::action::{ActionHandle, Verdict};
use crate::thread::{Supervisor, Thread, guarded};
use crate::types::{Domain, Sequences, domain_name};

/// An answer to be given.
type DueAnswer = (Box<dyn ActionHandle>, Verdict);

/// Answers actions that never ran, by a few threads for each MDT. Answering blocks, so neither the intake nor a worker
/// with data to move does it; and one MDT's answers never wait for another's.
#[derive(Debug)]
pub struct Responder {
    supervisor: Supervisor,
    sequences: Sequences,
    tally: Arc<Tally>,
    /// For each MDT, at most.
    threads: usize,
    /// `None` after the end.
    lines: Mutex<Option<HashMap<Domain, MdtLine>>>,
}

#[derive(Debug, Default)]
struct MdtLine {
    work: Arc<MdtAnswers>,
    threads: Vec<Thread>,
}

/// What one MDT is to be told.
#[derive(Debug, Default)]
struct MdtAnswers {
    todo: Mutex<Todo>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Todo {
    waiting: VecDeque<DueAnswer>,
    /// Threads that have nothing to do.
    idle: usize,
    closed: bool,
}

impl Responder {
    /// With up to `threads` for each MDT; they are made when they are needed.
    #[must_use]
    pub fn new(supervisor: &Supervisor, sequences: Sequences, threads: usize, tally: &Arc<Tally>) -> Self {
        Self {
            supervisor: supervisor.clone(),
            sequences,
            tally: Arc::clone(tally),
            threads,
            lines: Mutex::new(Some(HashMap::new())),
        }
    }

    /// Has `handle` ended with `verdict`; does not wait.
    pub fn settle(&self, handle: Box<dyn ActionHandle>, verdict: Verdict) {
        let domain = self.sequences.domain(handle.item().fid);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = &mut *lines else {
            // After the end: the journal has it, for the next daemon.
            handle.disown();
            return;
        };
        let line = lines.entry(domain).or_default();
        let mut todo = line.work.lock();
        todo.waiting.push_back((handle, verdict));
        let busy = todo.idle < todo.waiting.len();
        drop(todo);
        line.work.more.notify_one();
        if busy && line.threads.len() < self.threads {
            let (work, closing, tally) = (Arc::clone(&line.work), Arc::clone(&line.work), Arc::clone(&self.tally));
            let name = domain.map_or_else(|| "responder-?".to_owned(), |mdt| format!("responder-{:x}", mdt.0));
            match self
                .supervisor
                .serve(name, move || closing.close(), move || work.run(&tally))
            {
                Ok(thread) => line.threads.push(thread),
                // One thread is enough; without any it is tried again with the next answer.
                Err(error) => tracing::error!(%error, "no thread for answers"),
            }
        }
    }

    /// Returns when all have been answered, or at the deadline; nothing is taken any more. `false`: some are not answered,
    /// for their MDT does not answer. They stay in the journal, for the next daemon.
    pub fn finish(&self, deadline: Instant) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut lines = lines.unwrap_or_default();
        for line in lines.values_mut() {
            line.threads.iter_mut().for_each(Thread::stop);
        }
        let mut all = true;
        for (domain, line) in &mut lines {
            for thread in &mut line.threads {
                all = thread.join(deadline) && all;
            }
            // To drop one would be to answer it, which may not come back.
            let left: Vec<_> = line.work.lock().waiting.drain(..).collect();
            if !left.is_empty() {
                all = false;
                let (mdt, actions) = (domain_name(*domain), left.len());
                tracing::warn!(
                    mdt,
                    actions,
                    "not answered; they are in the journal, for the next daemon"
                );
            }
            left.into_iter().for_each(|(handle, _)| handle.disown());
        }
        all
    }
}

impl MdtAnswers {
    fn lock(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no more to come.
    fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    fn run(&self, tally: &Tally) {
        while let Some((handle, verdict)) = self.next() {
            drop(guarded(|| answer(handle, verdict, tally)));
        }
    }

    /// `None`: there is no more to come.
    fn next(&self) -> Option<DueAnswer> {
        let mut todo = self.lock();
        todo.idle += 1;
        loop {
            if let Some(next) = todo.waiting.pop_front() {
                todo.idle -= 1;
                return Some(next);
            }
            if todo.closed {
                return None;
            }
            todo = self.more.wait(todo).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn answer(handle: Box<dyn ActionHandle>, verdict: Verdict, tally: &Tally) {
    let item = handle.item();
    let (fid, cookie) = (item.fid, item.cookie);
    tracing::info!(%fid, %cookie, %verdict, "not run");
    tally.count(&ActionEnd {
        item,
        verdict,
        bytes: 0,
        took: None,
        reason: None,
        key: None,
    });
    if let Err(objection) = handle.finish(verdict, 0) {
        tracing::debug!(%fid, %cookie, %objection, "the coordinator did not take the verdict");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::action::{HsmError, Item, Kind, Verb};
    use crate::transfer::{Control, Stop, TransferError};
    use crate::types::{ArchiveId, Cookie, Extent, Fid, Mdt};
    use crate::worker::JobError;
    use crate::worker::run::refuse;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[derive(Debug)]
    struct FakeAction {
        item: Item,
        answered: Sender<&'static str>,
        /// Answering waits for its end.
        dead: Option<Receiver<()>>,
    }

    impl ActionHandle for FakeAction {
        fn item(&self) -> &Item {
            &self.item
        }
        fn begin(&mut self, _: Option<&[u8]>) -> Result<Option<File>, HsmError> {
            Ok(None)
        }
        fn finish(self: Box<Self>, _: Verdict, _: u64) -> Result<(), HsmError> {
            if let Some(dead) = &self.dead {
                self.answered.send("waits").unwrap();
                let _closed = dead.recv();
            }
            self.answered.send("answered").unwrap();
            Ok(())
        }
        fn renew(&mut self) {}
        fn disown(self: Box<Self>) {
            self.answered.send("disowned").unwrap();
        }
    }

    fn fid(seq: u64) -> Fid {
        Fid {
            seq: 0x2_0000_0401 + seq,
            oid: 1,
            ver: 0,
        }
    }

    fn owed(mdt: u64, answered: &Sender<&'static str>, dead: Option<Receiver<()>>) -> Box<dyn ActionHandle> {
        let item = Item {
            kind: Kind::Do(Verb::Archive),
            fid: fid(mdt),
            dfid: fid(mdt),
            cookie: Cookie(1),
            archive_id: ArchiveId::new(1),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        };
        let answered = answered.clone();
        Box::new(FakeAction { item, answered, dead })
    }

    #[test]
    fn what_a_successor_goes_on_with_is_not_answered_whatever_failed() {
        let (to, told) = channel();
        let stopped = Control::default();
        stopped.stop(Stop::HandOn);
        let handed_on = || TransferError::Stopped(Stop::HandOn).into();
        for (control, error, expected) in [
            (&stopped, JobError::StillOpen, "disowned"),
            (&stopped, handed_on(), "disowned"),
            // The queue did not take it back.
            (&Control::default(), handed_on(), "disowned"),
            (&Control::default(), JobError::StillOpen, "answered"),
        ] {
            let ended = refuse(control, owed(0, &to, None), error);
            assert_eq!(told.try_recv(), Ok(expected));
            assert_eq!(ended.is_handed_on(), expected == "disowned");
        }
        assert!(!stopped.is_ending());
    }

    #[test]
    fn answers_to_a_dead_mdt_hold_up_no_other_and_are_left_to_the_journal_at_the_end() {
        let sequences = Sequences::default();
        (0..2).for_each(|mdt| sequences.learn(fid(u64::from(mdt)), Mdt(mdt)));
        let responder = Responder::new(&Supervisor::default(), sequences, 2, &Arc::new(Tally::default()));
        let verdict = Verdict::Cancelled;
        let (to_one, one) = channel();
        let mut holds = Vec::new();
        for _ in 0..10 {
            let (hold, dead) = channel();
            holds.push(hold);
            responder.settle(owed(1, &to_one, Some(dead)), verdict);
        }
        let (to_other, other) = channel();
        for _ in 0..100 {
            responder.settle(owed(0, &to_other, None), verdict);
        }
        for _ in 0..100 {
            assert_eq!(other.recv_timeout(PATIENCE), Ok("answered"));
        }
        // Each of the two threads has one in hand.
        assert_eq!(
            [one.recv_timeout(PATIENCE), one.recv_timeout(PATIENCE)],
            [Ok("waits"); 2]
        );
        assert!(!responder.finish(Instant::now() + Duration::from_millis(100)));
        for _ in 0..8 {
            assert_eq!(one.recv_timeout(PATIENCE), Ok("disowned"));
        }
        responder.settle(owed(1, &to_one, None), verdict);
        assert_eq!(one.recv_timeout(PATIENCE), Ok("disowned"));
        drop(holds);
        assert_eq!(
            [one.recv_timeout(PATIENCE), one.recv_timeout(PATIENCE)],
            [Ok("answered"); 2]
        );
    }
}
