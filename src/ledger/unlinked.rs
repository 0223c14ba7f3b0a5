//! Copies of files that are gone, between the ledger's thread and those who delete objects: a REMOVE asks for one that
//! another mover made, and one that the ledger came to know of after the REMOVE waits here to be deleted.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::types::{ArchiveId, Fid};

/// For an answer; nothing but the action that asks waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that wait: as many as there are workers, and those that were given up while one statement lasts.
const MOST_QUESTIONS: usize = 10_000;
/// Late copies that wait, some hundred bytes each; what finds no room is met again by a round (`super::tombs`).
const MOST_LATE: usize = 10_000;

/// What the ledger says of a file that is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The record of its copy, as some mover has written it: a hint where to look, no more.
    Copy(Vec<u8>),
    /// It knows of none.
    Nothing,
    /// It is away, or does not answer in time.
    Unheard,
}

/// A copy that the ledger came to know of after the REMOVE of its file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LateCopy {
    /// Of the file.
    pub fid: Fid,
    /// As some mover has written it: a hint where to look, no more.
    pub record: Vec<u8>,
}

/// A REMOVE's.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) fid: Fid,
    /// `None`: of all.
    pub(super) archive_id: Option<ArchiveId>,
    /// Where the ledger knows of none it is to keep in mind who asked.
    pub(super) is_to_stay: bool,
    answer: oneshot::Sender<Option<Vec<u8>>>,
}

impl Question {
    pub(super) fn answer(self, record: Option<Vec<u8>>) {
        // It may have been given up.
        let _given_up = self.answer.send(record);
    }
}

/// Where copies are that other movers made. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct OthersCopies(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Nobody answers now. Before the first try nobody knows.
    is_away: bool,
    questions: Vec<Question>,
    late: VecDeque<LateCopy>,
    /// Those in `late`.
    known: HashSet<LateCopy>,
}

impl OthersCopies {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks where the copy of a file is that is gone; waits for some seconds at most. `is_to_stay`: nothing else tells of a
    /// copy, and whoever brings the row of one later is to delete its object.
    pub async fn ask(&self, fid: Fid, archive_id: Option<ArchiveId>, is_to_stay: bool) -> Told {
        let (answer, told) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.is_away || state.questions.len() >= MOST_QUESTIONS {
                return Told::Unheard;
            }
            state.questions.push(Question {
                fid,
                archive_id,
                is_to_stay,
                answer,
            });
        }
        self.0.asked.notify_one();
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(Some(record))) => Told::Copy(record),
            Ok(Ok(None)) => Told::Nothing,
            Ok(Err(_)) | Err(_) => Told::Unheard,
        }
    }

    /// Late copies, no more than `most`; whoever takes them deletes their objects, or puts them back.
    #[must_use]
    pub fn take_late(&self, most: usize) -> Vec<LateCopy> {
        let mut state = self.lock();
        let count = most.min(state.late.len());
        let taken: Vec<_> = state.late.drain(..count).collect();
        for copy in &taken {
            state.known.remove(copy);
        }
        taken
    }

    /// Has these wait, behind all others.
    pub fn add_late(&self, copies: impl IntoIterator<Item = LateCopy>) {
        let mut state = self.lock();
        for copy in copies {
            if state.late.len() < MOST_LATE && state.known.insert(copy.clone()) {
                state.late.push_back(copy);
            }
        }
    }

    /// Comes back when somebody has asked.
    pub(super) async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Questions whose answers are still waited for, no more than `most`.
    pub(super) fn questions(&self, most: usize) -> Vec<Question> {
        let mut state = self.lock();
        state.questions.retain(|question| !question.answer.is_closed());
        let count = most.min(state.questions.len());
        state.questions.drain(..count).collect()
    }

    /// From now on there is somebody who answers.
    pub(super) fn open(&self) {
        self.lock().is_away = false;
    }

    /// Nobody answers, neither what was asked nor what will be.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_away = true;
        state.questions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fid(oid: u32) -> Fid {
        Fid {
            seq: 0x2_0000_0401,
            oid,
            ver: 0,
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    }

    #[test]
    fn who_asks_hears_what_is_known_and_hears_at_once_that_nobody_answers() {
        let copies = OthersCopies::default();
        let told = runtime().block_on(async {
            let answers = async {
                copies.asked().await;
                let mut questions = copies.questions(10);
                let question = questions.remove(0);
                assert_eq!((question.fid, question.is_to_stay), (fid(1), true));
                question.answer(Some(b"{}".to_vec()));
            };
            tokio::join!(copies.ask(fid(1), None, true), answers).0
        });
        assert_eq!(told, Told::Copy(b"{}".to_vec()));
        let told = runtime().block_on(async {
            let closes = async {
                copies.asked().await;
                copies.close();
            };
            tokio::join!(copies.ask(fid(2), None, false), closes).0
        });
        assert_eq!(told, Told::Unheard);
        assert_eq!(runtime().block_on(copies.ask(fid(3), None, false)), Told::Unheard);
        assert!(copies.questions(10).is_empty());
    }

    #[test]
    fn nobody_answers_what_was_given_up() {
        let copies = OthersCopies::default();
        runtime().block_on(async {
            tokio::select! {
                biased;
                _ = copies.ask(fid(1), None, false) => unreachable!("nobody answers"),
                () = copies.asked() => {}
            }
        });
        assert!(copies.questions(10).is_empty());
    }

    #[test]
    fn late_copies_wait_once_and_have_an_end() {
        let copies = OthersCopies::default();
        let late = |oid: usize| LateCopy {
            fid: fid(u32::try_from(oid).unwrap()),
            record: Vec::new(),
        };
        copies.add_late([late(1), late(2), late(1)]);
        assert_eq!(copies.take_late(1), [late(1)]);
        copies.add_late([late(1)]);
        assert_eq!(copies.take_late(10), [late(2), late(1)]);
        copies.add_late((0..MOST_LATE + 5).map(late));
        assert_eq!(copies.take_late(usize::MAX).len(), MOST_LATE);
    }
}
