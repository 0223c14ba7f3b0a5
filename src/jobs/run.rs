//! A job at work: from its source through the window to each file's end.
//!
//! One thread decides; hands make the calls that take a while. A file is looked at (FID, states), asked for in a
//! batch, and looked at again (`active` says when) until it is as it should be or nothing goes on with it any more. What
//! came of it goes to the ledger by `rows`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel, sync_channel};
use std::time::{Duration, Instant};

use super::active::{ActiveFile, Actives};
use super::hand::{Answer, SourceFile, Task, hand};
use super::ledger::{Ledger, LedgerError, Row};
use super::outcome::Outcome;
use super::rows::Rows;
use super::select::SelectError;
use super::source::{self, SourceItem};
use super::summary::{Phase, Summary};
use super::window::Window;
use super::{JobSpec, NextStep, meaning, need};
use crate::action::HsmError;
use crate::fleet::Fleet;
use crate::lustre::{HsmStates, Mount, UserAction};
use crate::transfer::Control;
use crate::types::{ErrorClass, Fid, Timestamp};
use crate::walk::Named;

const TICK: Duration = Duration::from_millis(200);
/// A coordinator that is stopped is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a job ended before its time; the same job can be resumed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A glob.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A request that fails for all files.
    #[error("{0}")]
    Request(HsmError),
    /// A signal.
    #[error("stopped; go on with: lhsmtool-s3 jobs resume {0}")]
    Stopped(String),
}

/// Does a job, or what is left of it. Nothing new is begun while `may_ask` says no; `tick` is called some times a second.
///
/// # Errors
/// What ended it early. Single files' trouble is in the ledger.
pub fn run(
    mount: &Mount,
    spec: &JobSpec,
    ledger: &Ledger,
    control: &Control,
    fleet: &Fleet,
    may_ask: &dyn Fn() -> bool,
    tick: &mut dyn FnMut(&Summary),
) -> Result<Summary, JobError> {
    let selector = spec.select.selector()?;
    let mut summary = Summary::new(spec);
    summary.counts = ledger.counts()?;
    let (to_source, found) = sync_channel(1000);
    let (to_hands, tasks) = channel();
    let (to_us, answers) = channel();
    let tasks = Mutex::new(tasks);
    std::thread::scope(|scope| {
        let source = scope.spawn(|| {
            let to_source = to_source;
            source::send(mount, spec, &selector, control, &to_source);
        });
        for _ in 0..spec.threads {
            let (tasks, to_us) = (&tasks, to_us.clone());
            scope.spawn(move || hand(mount, spec, control, tasks, &to_us));
        }
        let mut job = Job {
            mount,
            spec,
            control,
            may_ask,
            is_held: false,
            window: Window::new(spec.window, Instant::now()),
            summary,
            began: Instant::now(),
            hands: to_hands,
            looking: 0,
            batch: Vec::new(),
            active: Actives::default(),
            fids: HashSet::new(),
            rows: Rows::new(ledger, fleet),
            again: Vec::new(),
            not_before: None,
        };
        let result = job.work(&found, &answers, tick);
        // The source ends when nobody takes what it finds, the hands when nobody has anything for them.
        drop(found);
        let flushed = job.flush();
        let mut summary = job.summary();
        drop(job);
        let walked = source.join().is_ok();
        result?;
        flushed?;
        assert!(walked, "the source of a job panicked");
        summary.phase = if control.stopped().is_some() {
            Phase::Stopped
        } else {
            Phase::Ended
        };
        tick(&summary);
        match summary.phase {
            Phase::Stopped => Err(JobError::Stopped(spec.id.clone())),
            _ => Ok(summary),
        }
    })
}

struct Job<'a> {
    mount: &'a Mount,
    spec: &'a JobSpec,
    control: &'a Control,
    may_ask: &'a dyn Fn() -> bool,
    /// It said no.
    is_held: bool,
    window: Window,
    summary: Summary,
    began: Instant,
    hands: Sender<Task>,
    /// Files that hands are looking at for the first time.
    looking: usize,
    /// To be asked for together.
    batch: Vec<ActiveFile>,
    active: Actives,
    /// Of `batch` and `active`.
    fids: HashSet<Fid>,
    rows: Rows<'a>,
    /// To be looked at once more: the first look failed in passing, or another name's end is waited for.
    again: Vec<(Instant, SourceFile)>,
    /// The coordinator is stopped.
    not_before: Option<Instant>,
}

impl Job<'_> {
    fn work(
        &mut self,
        found: &Receiver<SourceItem>,
        answers: &Receiver<Answer>,
        tick: &mut dyn FnMut(&Summary),
    ) -> Result<(), JobError> {
        let mut ticked = Instant::now();
        while self.control.stopped().is_none() {
            if self.is_free_to_ask() {
                self.fill(found)?;
                if self.batch.len() >= Mount::MOST_REQUESTED || (self.looking == 0 && !self.batch.is_empty()) {
                    self.submit()?;
                }
            }
            let now = Instant::now();
            self.look_at_due(now);
            if self.summary.complete && self.in_hand() == 0 {
                break;
            }
            match answers.recv_timeout(self.patience(now)) {
                Ok(answer) => self.take(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(answer) = answers.try_recv() {
                self.take(answer);
            }
            self.window.adjust(Instant::now());
            if self.rows.is_due() {
                self.flush()?;
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                tick(&self.summary());
            }
        }
        Ok(())
    }

    fn is_free_to_ask(&mut self) -> bool {
        let may_ask = (self.may_ask)();
        if self.is_held == may_ask {
            self.is_held = !may_ask;
            self.summary.waits_for = match may_ask {
                true => String::new(),
                false => "the ledger: another node may have the job by now".to_owned(),
            };
        }
        may_ask
    }

    fn in_hand(&self) -> usize {
        self.again.len() + self.looking + self.batch.len() + self.active.len()
    }

    /// As long as nothing can change but by an answer.
    fn patience(&self, now: Instant) -> Duration {
        let again = self.not_before.filter(|_| !self.is_held);
        let next = self.active.next_look().into_iter().chain(again).min();
        let full = self.is_held || self.in_hand() >= self.window.size();
        // The source has no bell: while there is room, it is asked again soon.
        let most = if full || self.summary.complete {
            TICK
        } else {
            Duration::from_millis(5)
        };
        next.map_or(most, |at| at.saturating_duration_since(now).min(most))
    }

    /// Takes from the source what the window has room for.
    fn fill(&mut self, found: &Receiver<SourceItem>) -> Result<(), JobError> {
        while self.in_hand() < self.window.size() && !self.summary.complete {
            match found.try_recv() {
                Ok(SourceItem::File { file, size }) => self.begin(file, size)?,
                Ok(SourceItem::Bad { path, errno, reason }) => {
                    if self.spec.list.is_some() && !self.rows.is_new(&path) {
                        continue;
                    }
                    self.summary.found += 1;
                    let ended = |row: Row| row.outcome != Outcome::Requested;
                    if !self.rows.former(&path)?.is_some_and(ended) {
                        let row = Row::new(Outcome::Failed, None, 0, Duration::ZERO);
                        self.end(path, row.because(errno, reason));
                    }
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => self.summary.complete = true,
            }
        }
        Ok(())
    }

    fn begin(&mut self, file: Named, size: u64) -> Result<(), JobError> {
        let path = &file.path;
        // Only a list can have a name twice.
        if self.spec.list.is_some() && !self.rows.is_new(path) {
            return Ok(());
        }
        self.summary.found += 1;
        self.summary.found_bytes += size;
        // A former run's.
        let asked = match self.rows.former(path)? {
            Some(row) if row.outcome != Outcome::Requested => {
                self.rows.forget(path);
                return Ok(());
            }
            row => row.is_some(),
        };
        self.looking += 1;
        self.send(Task::Look(SourceFile { file, size, asked }));
        Ok(())
    }

    fn send(&self, task: Task) {
        // They end after us.
        let sent = self.hands.send(task);
        debug_assert!(sent.is_ok(), "the hands are gone");
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Looked(known, looked) => {
                self.looking -= 1;
                self.looked(known, looked);
            }
            Answer::Checked(id, checked) => self.checked(id, checked),
            Answer::Released(id, released) => {
                let Some(file) = self.active.take(id) else {
                    return;
                };
                match released {
                    Ok(()) => self.done(file),
                    Err(error) => self.failed(file, error.errno, meaning(error.errno)),
                }
            }
        }
    }

    fn looked(&mut self, known: SourceFile, looked: Result<(Fid, HsmStates, bool), HsmError>) {
        let (fid, states, acting) = match looked {
            Ok(looked) => looked,
            Err(error) if error.class().is_off() => {
                self.summary.waits_for = format!("the coordinator ({error})");
                self.again.push((Instant::now() + AGAIN, known));
                return;
            }
            Err(error) => {
                let reason = meaning(error.errno);
                let row = Row::new(Outcome::Failed, None, known.size, Duration::ZERO);
                return self.end(known.file.path, row.because(error.errno, reason));
            }
        };
        let SourceFile { file, size, asked } = known;
        // What was asked for has other states since.
        if !asked && !self.spec.select.wants_states(states) {
            self.summary.found -= 1;
            self.summary.found_bytes -= size;
            self.rows.forget(&file.path);
            return;
        }
        let need = match self.spec.action {
            UserAction::Cancel if !acting => NextStep::Nothing,
            action => need(action, states),
        };
        let ended = |outcome| Row::new(outcome, Some(fid), size, Duration::ZERO);
        match need {
            NextStep::Nothing if asked => self.end(file.path, ended(Outcome::Done)),
            NextStep::Nothing => self.end(file.path, ended(Outcome::Already)),
            NextStep::Impossible(class, why) => {
                self.end(file.path, ended(Outcome::Failed).because(class.errno(), why.to_owned()));
            }
            NextStep::Ask if self.spec.dry_run => self.end(file.path, ended(Outcome::Done)),
            // Another name of a file that is in hand: looked at again when that has ended.
            NextStep::Ask if !self.fids.insert(fid) => {
                self.again
                    .push((Instant::now() + AGAIN, SourceFile { file, size, asked }));
            }
            NextStep::Ask => {
                let file = ActiveFile::new(file.path, fid, size);
                if acting && self.spec.action != UserAction::Cancel {
                    self.active.follow(file);
                } else if self.spec.action == UserAction::Release {
                    let id = self.active.add(file);
                    self.send(Task::Release(id, fid));
                } else {
                    self.batch.push(file);
                }
            }
        }
    }

    /// Asks for the batch. One that is refused is cut in two until the file is alone that is not taken.
    fn submit(&mut self) -> Result<(), JobError> {
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.not_before = None;
        self.summary.waits_for.clear();
        let rest = self.batch.split_off(self.batch.len().min(Mount::MOST_REQUESTED));
        let mut waiting = vec![std::mem::replace(&mut self.batch, rest)];
        // Written before it is done: a killed job knows what it may have asked for.
        for file in waiting.iter().flatten() {
            self.rows.push(file.path.clone(), file.requested());
        }
        self.flush()?;
        while let Some(files) = waiting.pop() {
            let fids: Vec<Fid> = files.iter().map(|file| file.fid).collect();
            let Err(error) = self.mount.request(self.spec.action, self.spec.archive_id, &fids) else {
                for file in files {
                    self.active.follow(file);
                }
                continue;
            };
            match error.class() {
                class if class.is_off() => {
                    self.summary.waits_for = format!("the coordinator ({error})");
                    self.not_before = Some(Instant::now() + AGAIN);
                    self.batch.extend(files);
                    self.batch.extend(waiting.drain(..).flatten());
                }
                ErrorClass::Unsupported | ErrorClass::WrongKind => return Err(JobError::Request(error)),
                _ if files.len() <= 1 => {
                    for file in files {
                        self.failed(file, error.errno, meaning(error.errno));
                    }
                }
                _ => {
                    // Those before the one that is to blame are recorded, and must not be asked for again.
                    let mut rest = Vec::new();
                    for file in files {
                        match self.mount.has_action(file.fid) {
                            Ok(true) => self.active.follow(file),
                            _ => rest.push(file),
                        }
                    }
                    let second = rest.split_off(rest.len() / 2);
                    waiting.extend([second, rest].into_iter().filter(|files| !files.is_empty()));
                }
            }
        }
        Ok(())
    }

    fn look_at_due(&mut self, now: Instant) {
        for (at, known) in std::mem::take(&mut self.again) {
            if at <= now {
                self.looking += 1;
                self.send(Task::Look(known));
            } else {
                self.again.push((at, known));
            }
        }
        while let Some(look) = self.active.due(now) {
            self.send(look);
        }
    }

    fn checked(&mut self, id: u64, checked: Result<(HsmStates, bool), HsmError>) {
        let Some(file) = self.active.take(id) else {
            return;
        };
        let (states, acting) = match checked {
            Ok(checked) => checked,
            Err(error) if error.class().is_off() => return self.active.look_in(AGAIN, id, file),
            Err(error) => return self.failed(file, error.errno, meaning(error.errno)),
        };
        match self.spec.action {
            UserAction::Cancel if !acting => self.done(file),
            UserAction::Cancel => self.active.look_again(id, file),
            action if need(action, states) == NextStep::Nothing => self.done(file),
            UserAction::Archive if !acting && states.dirty() => {
                let reason = "it was changed while it was archived: archive it again".to_owned();
                self.failed(file, ErrorClass::Busy.errno(), reason);
            }
            // The reason is asked for, for many files at a time, before the row is written.
            _ if !acting => self.failed(file, ErrorClass::Other.errno(), String::new()),
            _ => self.active.look_again(id, file),
        }
    }

    fn done(&mut self, file: ActiveFile) {
        let row = file.ended(Outcome::Done);
        self.end_active(file, row);
    }

    fn failed(&mut self, file: ActiveFile, errno: i32, reason: String) {
        let row = file.ended(Outcome::Failed).because(errno, reason);
        self.end_active(file, row);
    }

    fn end_active(&mut self, file: ActiveFile, row: Row) {
        self.fids.remove(&file.fid);
        self.end(file.path, row);
    }

    fn end(&mut self, path: PathBuf, row: Row) {
        self.summary.counts.add(row.outcome, row.size);
        self.window.completed(1);
        self.rows.push(path, row);
    }

    fn flush(&mut self) -> Result<(), JobError> {
        Ok(self.rows.flush(&self.summary.counts)?)
    }

    #[expect(clippy::cast_precision_loss, reason = "rates")]
    fn summary(&self) -> Summary {
        let mut summary = self.summary.clone();
        summary.updated = Timestamp::now().seconds;
        summary.seconds = self.began.elapsed().as_secs_f64();
        summary.active = self.active.len() as u64;
        summary.peak = self.active.most() as u64;
        summary.window = self.window.size() as u64;
        summary.rate = self.window.rate();
        summary.average = summary.counts.ended() as f64 / summary.seconds.max(0.001);
        let left = summary.found.saturating_sub(summary.counts.ended());
        summary.eta = (summary.complete && summary.rate > 0.0).then(|| left as f64 / summary.rate);
        summary
    }
}
