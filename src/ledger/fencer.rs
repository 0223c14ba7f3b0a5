//! What this mover does about the fences of dead ones: which it takes on, and what comes of their commands. Nothing waits for a
//! command: it has a thread of its own, and the ledger's asks now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::LedgerError;
use super::command::{self, FenceOptions, FenceTarget};
use super::fence::{self, FenceRow, Fences, MoverNode};
use super::keeper::Keeper;
use super::link::Link;
use super::observe::answers;
use super::peers::{Peer, PeerRow};

/// From a node's last sign of life until the servers evict it, whatever they are set to; until then an MDT's coordinator may
/// stand still in a message to it.
pub(super) const EVICTION: Duration = Duration::from_secs(100);
/// After a command that failed, doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Between two looks while a command runs.
pub(super) const BUSY: Duration = Duration::from_millis(500);

/// The fences that this mover has taken on.
#[derive(Debug, Default)]
pub(super) struct Fencer {
    options: Option<FenceOptions>,
    /// What the ledger calls this mover.
    name: String,
    /// For the command, without the incarnation.
    file_system: String,
    by_mover: BTreeMap<String, Attempt>,
}

/// One of them.
#[derive(Debug)]
struct Attempt {
    /// The dead one, as it was found.
    of: PeerRow,
    progress: Progress,
    /// Commands that failed.
    failures: u32,
    /// Why the last one did.
    error: Option<String>,
}

#[derive(Debug)]
enum Progress {
    Running(Receiver<FenceOutcome>),
    /// The command was done; the ledger is to be told.
    Done,
    /// Until the next try.
    Pausing(Instant),
    /// Nothing waits for it any more.
    GivenUp,
}

/// What came of one try.
#[derive(Clone, PartialEq, Eq, Debug)]
enum FenceOutcome {
    Done,
    Failed(String),
    /// It was not run, for this reason.
    Spared(&'static str),
}

/// What is to be done about a dead mover's node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FenceStep {
    Nothing,
    /// It is to be taken on, or tried again.
    Begin,
    /// The ledger is to be told that it is done.
    Tell,
}

impl Fencer {
    /// `file_system`: with its incarnation. Without options nothing is ever fenced.
    pub(super) fn new(options: Option<FenceOptions>, name: &str, file_system: &str) -> Self {
        Self {
            options,
            name: name.to_owned(),
            file_system: file_system.split(':').next().unwrap_or_default().to_owned(),
            by_mover: BTreeMap::new(),
        }
    }

    /// A command runs, or came to its end just now.
    pub(super) fn is_busy(&self) -> bool {
        let mut all = self.by_mover.values();
        all.any(|attempt| matches!(attempt.progress, Progress::Running(_) | Progress::Done))
    }

    /// Why the last command for that mover failed.
    pub(super) fn error_of(&self, mover: &str) -> Option<&str> {
        let attempt = self.by_mover.get(mover)?;
        match attempt.progress {
            Progress::GivenUp => None,
            _ => attempt.error.as_deref(),
        }
    }

    /// What was about deaths that are over is let go of.
    fn keep_only(&mut self, dead: &[Peer]) {
        self.by_mover.retain(|name, attempt| {
            let is_dead = dead.iter().any(|peer| peer.row == attempt.of);
            if !is_dead && matches!(attempt.progress, Progress::Running(_) | Progress::Done) {
                tracing::warn!(mover = name, "a mover has come back while its node was being fenced");
            }
            is_dead
        });
    }

    /// Hears of the commands that have ended; how many were done, and how many failed.
    fn hear(&mut self, now: Instant) -> (u64, u64) {
        let (mut done, mut failed) = (0, 0);
        for (mover, attempt) in &mut self.by_mover {
            let Progress::Running(outcome) = &attempt.progress else {
                continue;
            };
            let outcome = match outcome.try_recv() {
                Ok(outcome) => outcome,
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Disconnected) => FenceOutcome::Failed("its thread is gone".into()),
            };
            match outcome {
                FenceOutcome::Done => {
                    done += 1;
                    attempt.error = None;
                    attempt.progress = Progress::Done;
                }
                FenceOutcome::Failed(error) => {
                    failed += 1;
                    attempt.failed(mover, error, now);
                }
                FenceOutcome::Spared(reason) => {
                    tracing::warn!(mover, "a dead mover's node is not fenced: {reason}");
                    attempt.progress = Progress::Pausing(now + LONGEST_PAUSE);
                }
            }
        }
        (done, failed)
    }

    /// `most`: for how long anything waits for it.
    fn step(&mut self, peer: &Peer, row: &FenceRow, (may_begin, most): (bool, Duration), now: Instant) -> FenceStep {
        let name = &peer.row.name;
        if row.is_fenced {
            self.by_mover.remove(name);
            return FenceStep::Nothing;
        }
        let is_due = match self.by_mover.get_mut(name) {
            Some(attempt) => match &attempt.progress {
                Progress::Done => return FenceStep::Tell,
                Progress::Running(_) | Progress::GivenUp => return FenceStep::Nothing,
                Progress::Pausing(_) if peer.still >= most => {
                    tracing::warn!(
                        mover = name,
                        "the fence of a dead mover's node is given up: all that waited for it has gone on by now"
                    );
                    attempt.progress = Progress::GivenUp;
                    return FenceStep::Nothing;
                }
                Progress::Pausing(until) => *until <= now,
            },
            // Since when one is dead that was never seen alive nobody knows: its NIDs may be another node's by now.
            None => {
                let is_anothers = row.fencer.as_ref().is_some_and(|fencer| *fencer != self.name);
                !is_anothers && !row.has_left && peer.still < most && peer.renewed().is_some()
            }
        };
        match is_due && may_begin && self.options.is_some() {
            true => FenceStep::Begin,
            false => FenceStep::Nothing,
        }
    }
}

impl Attempt {
    fn failed(&mut self, mover: &str, error: String, now: Instant) {
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16));
        let pause = pause.min(LONGEST_PAUSE);
        self.failures += 1;
        tracing::error!(
            mover,
            error,
            tries = self.failures,
            retry_s = pause.as_secs_f64(),
            "the fence of a dead mover's node has failed. What it was to archive or remove waits for takeover_archives, and \
             MDTs' coordinators may stand still until the servers have evicted it"
        );
        self.error = Some(error);
        self.progress = Progress::Pausing(now + pause);
    }
}

impl Keeper {
    /// Sees to the fences of dead movers' nodes, without waiting for any command; how they are. `may_begin`: this mover takes
    /// over from them.
    pub(super) async fn fence(&mut self, link: &Link, may_begin: bool) -> Result<Fences, LedgerError> {
        let dead = self.watch.taken();
        self.fencer.keep_only(&dead);
        if dead.is_empty() {
            return Ok(Fences::default());
        }
        let now = Instant::now();
        let (done, failed) = self.fencer.hear(now);
        self.shared.fences_ended(done, failed);
        let mut fences = fence::read(link, &self.row.owner.name).await?;
        let most = self.options.takeover_archives.max(EVICTION);
        for peer in &dead {
            let step = match fences.of(&peer.row) {
                Some(row) => self.fencer.step(peer, row, (may_begin, most), now),
                None => FenceStep::Nothing,
            };
            match step {
                FenceStep::Nothing => {}
                FenceStep::Begin => {
                    if let Some(node) = fence::begin(link, &self.row.owner, &peer.row).await? {
                        self.run_fence(&peer.row, node, now);
                    }
                }
                FenceStep::Tell => {
                    if fence::done(link, &self.row.owner, &peer.row).await? {
                        fences.set_fenced(&peer.row);
                        tracing::info!(
                            mover = peer.row.name,
                            "a dead mover's node is fenced: all that it had in hand is taken over at once"
                        );
                    }
                }
            }
        }
        Ok(fences)
    }

    /// In a thread of its own, which ends with the command or by its time-out.
    fn run_fence(&mut self, peer: &PeerRow, node: MoverNode, now: Instant) {
        let Some(options) = self.fencer.options.clone() else {
            return;
        };
        tracing::warn!(
            mover = peer.name,
            host = node.host,
            nids = node.nids.join(" "),
            uuid = node.client_uuid.as_deref(),
            "fencing a dead mover's node"
        );
        let target = FenceTarget {
            mover: peer.name.clone(),
            file_system: self.fencer.file_system.clone(),
            node,
        };
        let attempt = self.fencer.by_mover.entry(peer.name.clone()).or_insert(Attempt {
            of: peer.clone(),
            progress: Progress::Pausing(now),
            failures: 0,
            error: None,
        });
        let (told, outcome) = channel();
        let (shared, of) = (Arc::clone(&self.shared), peer.clone());
        let running = self.supervisor.errand("fence", move || {
            // Whoever waited for it may have come back.
            let _gone = told.send(try_once(&options, &of, &target, &|| shared.is_stopping()));
        });
        match running {
            Ok(_) => attempt.progress = Progress::Running(outcome),
            Err(error) => attempt.failed(&peer.name, format!("there is no thread for it: {error}"), now),
        }
    }
}

/// Whoever lives after all is spared.
fn try_once(options: &FenceOptions, peer: &PeerRow, target: &FenceTarget, is_over: &dyn Fn() -> bool) -> FenceOutcome {
    if answers(peer) {
        return FenceOutcome::Spared("the mover answers over HTTP");
    }
    if peer.address.as_deref().is_some_and(command::node_refuses) {
        return FenceOutcome::Spared("the node lives and refuses connections, so only the daemon has ended");
    }
    match command::run(options, target, is_over) {
        Ok(()) => FenceOutcome::Done,
        Err(error) => FenceOutcome::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::peers::{PeerWatch, SERVING, TAKEN};

    const LEASE: Duration = Duration::from_secs(20);
    const LOOK: Duration = Duration::from_secs(5);
    const MOST: Duration = Duration::from_secs(300);

    /// Found dead, and looked at for so long since.
    fn dead(was_seen_alive: bool, still: Duration) -> Peer {
        let mut watch = PeerWatch::new(LEASE);
        let mut now = Instant::now();
        let mut row = PeerRow {
            name: "mover2".into(),
            incarnation: 7,
            renewals: 1,
            state: SERVING,
            address: None,
        };
        let mut look = |now: Instant, row: &PeerRow| {
            watch.look(now, now, vec![row.clone()]);
            watch.taken()
        };
        look(now, &row);
        if was_seen_alive {
            now += LOOK;
            row.renewals += 1;
            look(now, &row);
        }
        row.state = TAKEN;
        now += LOOK;
        let mut taken = look(now, &row);
        let until = now + still;
        while now < until {
            now += LOOK;
            taken = look(now, &row);
        }
        taken.remove(0)
    }

    fn fencer() -> Fencer {
        let options = FenceOptions {
            command: "true".into(),
            timeout: LEASE,
        };
        Fencer::new(Some(options), "mover1", "lustre:0123")
    }

    fn row() -> FenceRow {
        FenceRow {
            incarnation: 7,
            renewals: 2,
            is_fenced: false,
            has_left: false,
            fencer: None,
        }
    }

    fn begins(fencer: &mut Fencer, peer: &Peer, row: &FenceRow) -> bool {
        fencer.step(peer, row, (true, MOST), Instant::now()) == FenceStep::Begin
    }

    #[test]
    fn a_node_is_fenced_by_one_that_saw_its_mover_alive_and_while_something_waits_for_it() {
        let peer = dead(true, LOOK);
        assert!(begins(&mut fencer(), &peer, &row()));
        assert!(!begins(&mut Fencer::new(None, "mover1", "lustre:0123"), &peer, &row()));
        assert_eq!(
            fencer().step(&peer, &row(), (false, MOST), Instant::now()),
            FenceStep::Nothing,
            "it takes nothing over"
        );
        assert!(!begins(&mut fencer(), &dead(false, LOOK), &row()));
        assert!(!begins(&mut fencer(), &dead(true, MOST), &row()));
    }

    #[test]
    fn one_that_left_in_order_or_is_fenced_is_let_be_and_so_is_what_another_sees_to() {
        let peer = dead(true, LOOK);
        let rows = [
            FenceRow {
                has_left: true,
                ..row()
            },
            FenceRow {
                is_fenced: true,
                ..row()
            },
            FenceRow {
                fencer: Some("mover3".into()),
                ..row()
            },
        ];
        for row in rows {
            assert!(!begins(&mut fencer(), &peer, &row), "{row:?}");
        }
        let own = FenceRow {
            fencer: Some("mover1".into()),
            ..row()
        };
        assert!(
            begins(&mut fencer(), &peer, &own),
            "the answer to its taking it on was lost"
        );
    }

    #[test]
    fn a_command_that_fails_is_tried_again_after_growing_pauses_until_nothing_waits_for_it() {
        let peer = dead(true, LOOK);
        let mut fencer = fencer();
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let (told, outcome) = channel();
            told.send(FenceOutcome::Failed("exit status: 1".into())).unwrap();
            let attempt = fencer.by_mover.entry("mover2".into()).or_insert(Attempt {
                of: peer.row.clone(),
                progress: Progress::Done,
                failures: 0,
                error: None,
            });
            attempt.progress = Progress::Running(outcome);
            assert!(fencer.is_busy());
            assert_eq!(fencer.hear(now), (0, 1));
            let Progress::Pausing(until) = fencer.by_mover["mover2"].progress else {
                panic!("it is over");
            };
            pauses.push((until - now).as_secs());
            assert_eq!(fencer.step(&peer, &row(), (true, MOST), now), FenceStep::Nothing);
            assert_eq!(fencer.step(&peer, &row(), (true, MOST), until), FenceStep::Begin);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(fencer.error_of("mover2"), Some("exit status: 1"));
        let late = Instant::now() + LONGEST_PAUSE;
        assert_eq!(
            fencer.step(&dead(true, MOST), &row(), (true, MOST), late),
            FenceStep::Nothing
        );
        assert_eq!((fencer.error_of("mover2"), fencer.is_busy()), (None, false));
    }

    #[test]
    fn what_is_done_is_told_until_the_ledger_knows_and_what_came_back_is_forgotten() {
        let peer = dead(true, LOOK);
        let mut fencer = fencer();
        let begun = |fencer: &mut Fencer| {
            let (told, outcome) = channel();
            let attempt = Attempt {
                of: peer.row.clone(),
                progress: Progress::Running(outcome),
                failures: 1,
                error: Some("exit status: 1".into()),
            };
            fencer.by_mover.insert("mover2".into(), attempt);
            told
        };
        let told = begun(&mut fencer);
        let now = Instant::now();
        assert_eq!(fencer.hear(now), (0, 0));
        told.send(FenceOutcome::Done).unwrap();
        assert_eq!(fencer.hear(now), (1, 0));
        for _ in 0..2 {
            assert_eq!(fencer.step(&peer, &row(), (false, MOST), now), FenceStep::Tell);
        }
        let fenced = FenceRow {
            is_fenced: true,
            ..row()
        };
        assert_eq!(fencer.step(&peer, &fenced, (true, MOST), now), FenceStep::Nothing);
        assert!(fencer.by_mover.is_empty());
        let _told = begun(&mut fencer);
        fencer.keep_only(std::slice::from_ref(&peer));
        assert!(fencer.is_busy());
        fencer.keep_only(&[]);
        assert!(fencer.by_mover.is_empty());
    }
}
