//! Who goes on: one at a time, drawn by lot.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// For a step of whoever has the turn.
const PATIENCE: Duration = Duration::from_secs(120);

/// Threads that take turns. Each of them runs from one [`Gate::step`] to its next, and nobody beside it.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    bells: Vec<Condvar>,
}

#[derive(Debug)]
struct State {
    dice: fastrand::Rng,
    /// Those that have come and not left.
    here: Vec<usize>,
    /// That are still to come.
    missing: usize,
    turn: Option<usize>,
    /// Of each: one that is light is held up for long.
    weights: Vec<u32>,
}

impl State {
    fn draw(&mut self) -> Option<usize> {
        if self.dice.u8(..16) == 0 {
            let heavy = [1, 1, 4, 16, 64];
            for weight in &mut self.weights {
                *weight = heavy[self.dice.usize(..heavy.len())];
            }
        }
        let all: u32 = self.here.iter().map(|id| self.weights[*id]).sum();
        if all == 0 {
            return None;
        }
        let mut lot = self.dice.u32(..all);
        for id in &self.here {
            match lot.checked_sub(self.weights[*id]) {
                Some(rest) => lot = rest,
                None => return Some(*id),
            }
        }
        None
    }
}

impl Gate {
    /// For so many threads, numbered from 0, which all come.
    pub(super) fn new(seed: u64, threads: usize) -> Self {
        let state = State {
            dice: fastrand::Rng::with_seed(seed),
            here: Vec::new(),
            missing: threads,
            turn: None,
            weights: vec![4; threads],
        };
        Self {
            state: Mutex::new(state),
            bells: (0..threads).map(|_| Condvar::new()).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes, and waits for its first turn. It leaves when what is given is dropped.
    pub(super) fn enter(&self, id: usize) -> Here<'_> {
        let mut state = self.lock();
        state.here.push(id);
        // The order in which threads are made says nothing.
        state.here.sort_unstable();
        state.missing -= 1;
        if state.missing == 0 {
            self.pass(&mut state);
        }
        self.wait(state, id);
        Here { gate: self, id }
    }

    /// Lets others go on, perhaps. Alone, or not among them, one goes on at once.
    pub(super) fn step(&self, id: usize) {
        let mut state = self.lock();
        if state.turn != Some(id) {
            return;
        }
        self.pass(&mut state);
        self.wait(state, id);
    }

    fn pass(&self, state: &mut State) {
        state.turn = state.draw();
        if let Some(next) = state.turn {
            self.bells[next].notify_one();
        }
    }

    fn wait(&self, state: MutexGuard<'_, State>, id: usize) {
        let waited = self.bells[id].wait_timeout_while(state, PATIENCE, |state| state.turn != Some(id));
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(state);
        assert!(
            !waited.timed_out(),
            "whoever has the turn does not come to its next step"
        );
    }
}

/// A thread that takes its turns.
#[derive(Debug)]
pub(super) struct Here<'a> {
    gate: &'a Gate,
    id: usize,
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.here.retain(|id| *id != self.id);
        self.gate.pass(&mut state);
    }
}
