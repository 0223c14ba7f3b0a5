//! What a mover's threads do, by one that does it all: actions, and what they leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::super::gate::Here;
use super::super::mdt::Owed;
use super::super::world::{MOVER_THREADS, State, World};
use super::{Mover, has, with};
use crate::action::{ActionKey, Item};
use crate::journal::JournaledAction;
use crate::ledger::{LateCopy, model};
use crate::transfer::{Control, Lane};
use crate::worker::Context;
use crate::worker::tried::{self, Tried};

/// Of what can't be taken away.
const TRIES: usize = 50;

/// What a mover's thread does next.
enum Next {
    /// A process begins.
    Begin(Box<Seat>),
    Work(Work),
    Nothing,
    Over,
}

enum Work {
    Do(Item),
    /// Of what an action left.
    Sweep(ActionKey),
    /// Of a file whose REMOVE did not find it.
    Late(LateCopy),
}

/// What a process runs with.
struct Seat {
    generation: u64,
    context: Context,
}

/// One after the other, each process of one name; all that its threads do is done by this one.
pub(in crate::schedules) fn mover(world: &Arc<World>, number: usize, lane: &Lane, context: &Context) {
    let here = world.enter(MOVER_THREADS[number]);
    let (mut seat, mut answers) = (None::<Box<Seat>>, None::<JoinHandle<()>>);
    let mut failed = 0;
    loop {
        let control = Arc::new(Control::default());
        let generation = seat.as_ref().map(|seat| seat.generation);
        match world.at(|state| next(state, (number, generation), &control, context)) {
            Next::Over => break,
            Next::Nothing => {}
            Next::Begin(begun) => {
                answers.iter().for_each(JoinHandle::abort);
                answers = Some(answer(world, number, lane, &begun));
                seat = Some(begun);
            }
            Next::Work(work) => {
                if let Some(seat) = &seat {
                    let worker = Worker {
                        world,
                        number,
                        lane,
                        context: &seat.context,
                    };
                    failed += usize::from(!worker.does(work, &control, failed > TRIES));
                }
            }
        }
    }
    answers.iter().for_each(JoinHandle::abort);
    leave(here, seat);
}

/// A journal that goes waits for its thread, which nobody has to see.
fn leave(here: Here<'_>, seat: Option<Box<Seat>>) {
    drop(here);
    drop(seat);
}

/// Has what the process asks of the ledger answered, while it waits for that and in no other step.
#[expect(
    clippy::async_yields_async,
    reason = "the runtime is entered to spawn on it, and not to wait"
)]
fn answer(world: &Arc<World>, number: usize, lane: &Lane, seat: &Seat) -> JoinHandle<()> {
    let (world, copies) = (
        Arc::clone(world),
        seat.context.others_copies.clone().unwrap_or_default(),
    );
    lane.block_on(async {
        tokio::spawn(async move {
            loop {
                model::asked(&copies).await;
                world.with(|state| {
                    with(state, |_, fleet| {
                        if fleet.is_up && fleet.movers[number].is_reached() {
                            model::answer(&copies, &mut fleet.ledger);
                        } else {
                            fleet.movers[number].keeper.goes_away();
                        }
                    });
                });
            }
        })
    })
}

fn next(
    state: &mut State,
    (number, generation): (usize, Option<u64>),
    control: &Arc<Control>,
    context: &Context,
) -> Next {
    // Whatever the former process was at has come to its end.
    (state.ghosts[number], state.hands[number]) = (false, None);
    state.sweeps[number] = None;
    with(state, |state, fleet| {
        let mover = &mut fleet.movers[number];
        if !mover.is_serving() {
            return if state.over { Next::Over } else { Next::Nothing };
        }
        if generation != Some(mover.generation) {
            return Next::Begin(Box::new(Seat {
                generation: mover.generation,
                context: Context {
                    journal: Arc::clone(&mover.journal),
                    warrant: Some(mover.keeper.warrant()),
                    others_copies: Some(mover.keeper.copies().clone()),
                    ..context.clone()
                },
            }));
        }
        let_go(state, mover, number);
        if let Some(item) = state.inboxes[number].pop_front() {
            state.hands[number] = Some((item.key(), Arc::clone(control)));
            return Next::Work(Work::Do(item));
        }
        // Without a renewal nothing is taken away.
        if !state.over && (state.dice.u8(..4) > 0 || !mover.keeper.is_valid()) {
            return Next::Nothing;
        }
        state.sweeps[number] = Some(Arc::clone(control));
        let orphan = mover.journal.orphans(Duration::ZERO).into_iter().min();
        let work = match orphan {
            Some(key) => Some(Work::Sweep(key)),
            None => mover.keeper.copies().take_late(1).pop().map(Work::Late),
        };
        match work {
            Some(work) => Next::Work(work),
            None if state.over => Next::Over,
            None => Next::Nothing,
        }
    })
}

/// Of what others have, and nobody here is at.
fn let_go(state: &State, mover: &mut Mover, number: usize) {
    let Mover {
        journal,
        leaving,
        inherited,
        ..
    } = mover;
    leaving.retain_mut(|(key, back)| {
        let is_here = has(state, number, *key);
        match back.take_if(|_| !is_here) {
            Some(item) => inherited.push_back(item),
            None if !is_here => journal.lost(*key, false),
            None => {}
        }
        is_here
    });
}

/// Who does it.
#[derive(Clone, Copy)]
struct Worker<'a> {
    world: &'a Arc<World>,
    number: usize,
    lane: &'a Lane,
    context: &'a Context,
}

impl Worker<'_> {
    /// `false`: what is to be taken away is there still. `gives_up`: then nobody tries it again.
    fn does(self, work: Work, control: &Arc<Control>, gives_up: bool) -> bool {
        let Self { lane, context, .. } = self;
        match work {
            Work::Do(item) => {
                self.carries_out(item, control);
                true
            }
            Work::Sweep(key) => {
                if !context.journal.sweeping(key) {
                    return true;
                }
                let is_done = tried::sweep(context, lane, key);
                match is_done || gives_up {
                    true => context.journal.cleaned(key),
                    false => context.journal.left(key),
                }
                is_done
            }
            Work::Late(copy) => {
                let is_done = tried::late(context, lane, control, &copy);
                if let Some(copies) = context.others_copies.as_ref().filter(|_| !is_done && !gives_up) {
                    copies.add_late([copy]);
                }
                is_done
            }
        }
    }

    fn carries_out(self, item: Item, control: &Arc<Control>) {
        let Self {
            world,
            number,
            lane,
            context,
        } = self;
        let owed = Box::new(Owed::new(Arc::clone(world), item.clone()));
        let action = match JournaledAction::inherited(owed, Arc::clone(&context.journal)) {
            Ok(action) => Box::new(action),
            Err(handle) => return handle.disown(),
        };
        world.begins();
        let came = tried::action(context, lane, control, action);
        world.with(|state| {
            let thread = MOVER_THREADS[number];
            if state.ghosts[number] {
                return state.tell(|| format!("{thread}: {:?}: the last of a killed process", item.key()));
            }
            state.tell(|| format!("{thread}: {:?} {came:?}", item.key()));
            state.hands[number] = None;
            if came == Tried::Later {
                state.inboxes[number].push_back(item);
            }
        });
    }
}
