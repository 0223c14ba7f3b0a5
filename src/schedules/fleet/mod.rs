//! Three movers with journals of their own and a ledger between them. Each of them is killed now and then, and comes back
//! or does not; it is cut off from the ledger and from the others while it goes on with its files; it is found dead, and what
//! it had is taken over, restores first, by one of the others, under the same cookies. The ledger goes away, comes back, and
//! is failed over to a replica that lacks its last rows.
//!
//! What a daemon does there is done here by the same code as far as it decides anything of a file: `worker`, `journal`,
//! `transfer`. Its queue is a line, its ledger's thread a step of whoever decides what happens next, with the rows of
//! `ledger::model`. No clock runs: that a lease is over is drawn by lot, with what follows from the rules of leases alone, for
//! instance that nobody is found dead who may take itself for alive.
//!
//! `mover` is what its threads do, `people` what happens to all, `keeping` what becomes of who has which action, `lives` how
//! movers end and begin, `rest` the end of all.

mod keeping;
mod lives;
mod mover;
mod people;
mod rest;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

pub(super) use mover::mover;
pub(super) use people::users;
pub(super) use rest::read_all;

use super::world::{MOVERS, State};
use crate::action::{ActionKey, Item};
use crate::journal::{Held, Journal};
use crate::ledger::model::{Fate, KeeperModel, LedgerModel};
use crate::thread::Supervisor;
use crate::types::Fid;

#[derive(Debug)]
pub(super) struct Fleet {
    ledger: LedgerModel,
    /// As the replica has it.
    replica: LedgerModel,
    is_up: bool,
    movers: Vec<Mover>,
    /// Of all nodes, but for what each is off.
    clock: Arc<AtomicI64>,
    supervisor: Supervisor,
    incarnations: i64,
    cookies: u64,
    /// Nobody may know of an action: the only one who did was killed, or its row is one that a replica lacked.
    may_be_unknown: bool,
    /// It was, at some time.
    is_failed_over: bool,
    /// A process was killed, and its successor does not know what it had given up.
    has_forgotten: bool,
}

#[derive(Debug)]
struct Mover {
    name: String,
    skew: i64,
    journal: Arc<Journal>,
    keeper: KeeperModel,
    life: Life,
    /// Neither the ledger nor the others reach it.
    is_cut: bool,
    /// On their way from the journal to the queue.
    inherited: VecDeque<Item>,
    /// Others have them, and the worker has not let go of them yet; it is this one's again where there is an item.
    leaving: Vec<(ActionKey, Option<Item>)>,
    /// What the disk had of the journal at some moment.
    on_disk: Held,
    generation: u64,
}

#[derive(Debug)]
enum Life {
    Serving,
    /// Its successor finds this.
    Killed(Held),
    /// Its node is gone for good.
    Gone,
}

impl Mover {
    const fn is_serving(&self) -> bool {
        matches!(self.life, Life::Serving)
    }

    /// It is this one's from now on, in its journal, and goes to its queue.
    fn has_now(&mut self, item: Item) {
        match self.leaving.iter_mut().find(|(key, _)| *key == item.key()) {
            Some((_, back)) => *back = Some(item),
            None => self.inherited.push_back(item),
        }
    }

    /// It reaches the ledger.
    const fn is_reached(&self) -> bool {
        self.is_serving() && !self.is_cut
    }
}

impl Fleet {
    /// `seed`: of how far clocks are off.
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let (clock, supervisor) = (Arc::new(AtomicI64::new(1000)), Supervisor::default());
        let movers = (0..MOVERS).map(|number| {
            let (name, skew) = (format!("mover{number}"), dice.i64(..20));
            let journal = Arc::new(Journal::in_memory(&supervisor, &Held::default()));
            let incarnation = i64::try_from(number).expect("few movers") + 1;
            Mover {
                keeper: KeeperModel::new(&name, incarnation, None, &journal, (&clock, skew)),
                name,
                skew,
                journal,
                life: Life::Serving,
                is_cut: false,
                inherited: VecDeque::new(),
                leaving: Vec::new(),
                on_disk: Held::default(),
                generation: 1,
            }
        });
        let (mut movers, mut ledger): (Vec<Mover>, _) = (movers.collect(), LedgerModel::default());
        for mover in &mut movers {
            while !mover.keeper.is_in_step() {
                mover.keeper.step(&mut ledger, Fate::Committed);
            }
        }
        Self {
            movers,
            replica: ledger.clone(),
            ledger,
            is_up: true,
            clock,
            supervisor,
            incarnations: 10,
            cookies: 0,
            may_be_unknown: false,
            is_failed_over: false,
            has_forgotten: false,
        }
    }

    /// One of those for whom that is so.
    fn any(&self, dice: &mut fastrand::Rng, is_so: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let such: Vec<usize> = (0..self.movers.len()).filter(|number| is_so(self, *number)).collect();
        (!such.is_empty()).then(|| such[dice.usize(..such.len())])
    }
}

fn with<T>(state: &mut State, what: impl FnOnce(&mut State, &mut Fleet) -> T) -> T {
    let mut fleet = state.fleet.take().expect("a fleet");
    let result = what(state, &mut fleet);
    state.fleet = Some(fleet);
    result
}

fn fids(state: &State) -> impl Iterator<Item = Fid> {
    state.nodes.iter().map(|node| node.fid)
}

/// Whether it is in a mover's queue, or in its hands.
fn has(state: &State, number: usize, key: ActionKey) -> bool {
    let in_hand = state.hands[number].as_ref().is_some_and(|(of, _)| *of == key);
    in_hand || state.inboxes[number].iter().any(|item| item.key() == key)
}
