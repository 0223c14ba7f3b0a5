//! The end of all: what is away comes back, what is left is done, and each file is read.

use std::sync::Arc;

use super::super::mdt::Owed;
use super::super::world::{Action, MOVER_THREADS, State, World};
use super::super::{ARCHIVE, play};
use super::keeping::{find_dead, inherit, keep, take_over};
use super::lives::restart;
use super::{Fleet, Life, with};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::transfer::{Control, Lane};
use crate::types::{Cookie, Extent, Fid};
use crate::worker::{Context, tried};

/// Nothing new happens, and all that is away comes back, but for nodes that are gone. `true`: all is over.
pub(super) fn come_to_rest(state: &mut State, fleet: &mut Fleet) -> bool {
    if !std::mem::replace(&mut fleet.is_up, true) {
        state.tell(|| "the ledger is back".to_owned());
    }
    for (number, name) in MOVER_THREADS.iter().enumerate().take(fleet.movers.len()) {
        let mover = &mut fleet.movers[number];
        if std::mem::take(&mut mover.is_cut) {
            state.tell(|| format!("{name}: is back"));
        }
        match &mover.life {
            Life::Serving => {
                if !mover.keeper.is_quiet() || state.dice.u8(..64) == 0 {
                    keep(state, fleet, number);
                }
                inherit(state, fleet, number);
            }
            Life::Killed(_) => restart(state, fleet, number),
            Life::Gone => {
                mover.keeper.set_valid(false);
                find_dead(state, fleet);
            }
        }
    }
    take_over(state, fleet);
    play::learn(state);
    is_at_rest(state, fleet) && are_all_answered(state, fleet)
}

fn is_at_rest(state: &State, fleet: &Fleet) -> bool {
    fleet.movers.iter().enumerate().all(|(number, mover)| {
        let is_idle = !state.ghosts[number] && state.hands[number].is_none() && state.inboxes[number].is_empty();
        is_idle
            && match mover.life {
                Life::Serving => mover.keeper.is_quiet() && mover.inherited.is_empty() && mover.leaving.is_empty(),
                Life::Killed(_) => false,
                Life::Gone => {
                    let left = |restores| fleet.ledger.left_by(&mover.name, restores);
                    fleet.ledger.is_dead(&mover.name) && left(true).is_empty() && left(false).is_empty()
                }
            }
    })
}

/// What nobody has any more runs into its time-out, where there is somebody to blame.
fn are_all_answered(state: &mut State, fleet: &Fleet) -> bool {
    if !fleet.may_be_unknown && !state.actions.is_empty() {
        let keys: Vec<ActionKey> = state.actions.iter().map(|action| action.item.key()).collect();
        state.lose(format!("nobody has {keys:?}, though nobody who had it was lost"));
    }
    for action in std::mem::take(&mut state.actions) {
        state.tell(|| format!("time-out of {:?}: nobody knows of it", action.item.key()));
    }
    true
}

/// After the end of all: each file that counts as archived is released, and read.
pub(in crate::schedules) fn read_all(world: &Arc<World>, lane: &Lane, context: &Context) {
    let released: Vec<Fid> = world.with(|state| {
        let there = state.nodes.iter_mut().filter(|node| !node.gone);
        let released = there.filter_map(|node| {
            if !node.released {
                node.release();
            }
            node.released.then_some(node.fid)
        });
        released.collect()
    });
    for fid in released {
        let item = world.with(|state| {
            with(state, |state, fleet| {
                fleet.cookies += 1;
                let item = Item {
                    kind: Kind::Do(Verb::Restore),
                    fid,
                    dfid: fid,
                    cookie: Cookie(fleet.cookies),
                    archive_id: Some(ARCHIVE),
                    extent: Extent::WHOLE,
                    gid: 0,
                    blocking: false,
                    data: Box::default(),
                };
                state.actions.push(Action::new(item.clone(), 0));
                item
            })
        });
        let control = Arc::new(Control::default());
        let handle = Box::new(Owed::new(Arc::clone(world), item));
        let came = tried::action(context, lane, &control, handle);
        world.with(|state| {
            if state.node(fid, "read").is_ok_and(|node| node.released) {
                state.lose(format!("{fid} can't be read: {came:?}"));
            }
        });
    }
}
