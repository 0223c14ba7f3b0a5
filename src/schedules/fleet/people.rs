//! What people, the coordinator and fate do meanwhile, and then until all is over.

use std::sync::Arc;

use super::super::world::{Action, MOVER_THREADS, State, USERS, World};
use super::super::{ARCHIVE, play};
use super::keeping::{cut, find_dead, inherit, keep, lease_is_over, outage, take_over};
use super::lives::{kill, restart};
use super::rest::come_to_rest;
use super::{Fleet, Life, fids, with};
use crate::action::{Item, Kind, Verb};
use crate::journal::Held;
use crate::types::{Cookie, Extent, Fid};

/// Steps until all is over, once nothing new happens: far more than it takes.
const ROUNDS: usize = 20_000;

/// What people, the coordinator and fate do meanwhile, and then until all is over.
pub(in crate::schedules) fn users(world: &Arc<World>) {
    let _here = world.enter(USERS);
    let _end = End(world);
    for _ in 0..world.with(|state| state.dice.usize(40..110)) {
        world.at(event);
    }
    let is_over = (0..ROUNDS).any(|_| world.at(|state| with(state, come_to_rest)));
    world.at(|state| {
        if !is_over {
            state.lose("it does not come to rest".to_owned());
        }
        state.over = true;
    });
}

/// Whatever ends this thread, the others come to their ends.
struct End<'a>(&'a World);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.over = true);
    }
}

fn event(state: &mut State) {
    match state.dice.u8(..120) {
        0..16 => request(state, Verb::Archive),
        16..19 => request(state, Verb::Remove),
        19..26 => request(state, Verb::Restore),
        26..30 => with(state, cancel),
        30..33 => {
            if !state.actions.is_empty() {
                let index = state.dice.usize(..state.actions.len());
                let action = state.actions.swap_remove(index);
                state.tell(|| format!("time-out of {:?}", action.item.key()));
            }
        }
        33..37 => play::learn(state),
        37 => unlink(state),
        38..56 => play::change(state),
        56..80 => with(state, |state, fleet| {
            for number in 0..fleet.movers.len() {
                if fleet.movers[number].is_reached() && state.dice.u8(..3) > 0 {
                    keep(state, fleet, number);
                }
            }
        }),
        80..82 => with(state, outage),
        82..84 => with(state, |state, fleet| {
            state.tell(|| "the replica catches up".to_owned());
            fleet.replica = fleet.ledger.clone();
        }),
        84..89 => with(state, cut),
        // Of those that are silent.
        89..105 => with(state, |state, fleet| {
            for what in [lease_is_over, find_dead, take_over] {
                if state.dice.u8(..4) > 0 {
                    what(state, fleet);
                }
            }
        }),
        105..112 => with(state, |state, fleet| {
            if let Some(number) = fleet.any(&mut state.dice, |fleet, number| fleet.movers[number].is_serving()) {
                inherit(state, fleet, number);
            }
        }),
        112..115 => with(state, kill),
        115..118 => with(state, |state, fleet| {
            let is_killed = |fleet: &Fleet, number: usize| matches!(fleet.movers[number].life, Life::Killed(_));
            if let Some(number) = fleet.any(&mut state.dice, is_killed) {
                restart(state, fleet, number);
            }
        }),
        _ => with(state, |state, fleet| {
            let number = state.dice.usize(..fleet.movers.len());
            let mover = &mut fleet.movers[number];
            if mover.is_serving() {
                mover.on_disk = Held::by(&mover.journal, fids(state));
            }
        }),
    }
}

/// The coordinator knows one action of a file and kind at a time, and a remove beside an archive.
fn request(state: &mut State, verb: Verb) {
    play::with_any(state, |state, index| {
        let node = &state.nodes[index];
        let fid = node.fid;
        let fits = match verb {
            Verb::Remove => node.exists && !node.released,
            Verb::Archive => !node.released && !node.is_clean(),
            Verb::Restore => node.released,
        };
        if !fits || state.has_action(fid, Kind::Do(verb)) {
            return;
        }
        if verb == Verb::Archive {
            state.nodes[index].exists = true;
        }
        with(state, |state, fleet| deliver(state, fleet, verb, fid));
    });
}

/// To one that serves; a coordinator without agents has nobody to send it to.
fn deliver(state: &mut State, fleet: &mut Fleet, verb: Verb, fid: Fid) {
    let is_serving = |fleet: &Fleet, number: usize| fleet.movers[number].is_serving();
    let Some(number) = fleet.any(&mut state.dice, is_serving) else {
        return;
    };
    fleet.cookies += 1;
    let item = Item {
        kind: Kind::Do(verb),
        fid,
        dfid: fid,
        cookie: Cookie(fleet.cookies),
        archive_id: Some(ARCHIVE),
        extent: Extent::WHOLE,
        gid: 0,
        blocking: false,
        data: Box::default(),
    };
    state.tell(|| format!("{verb} {:?} to {}", item.key(), MOVER_THREADS[number]));
    fleet.movers[number].journal.admitted(&item);
    state.inboxes[number].push_back(item.clone());
    state.actions.push(Action::new(item, number));
}

/// The coordinator tells the one that it has sent the action to, whoever has it by now.
fn cancel(state: &mut State, fleet: &mut Fleet) {
    if state.actions.is_empty() {
        return;
    }
    let index = state.dice.usize(..state.actions.len());
    let (key, number) = (state.actions[index].item.key(), state.actions[index].mover);
    state.tell(|| format!("cancel {key:?}"));
    match state.inboxes[number].iter().position(|item| item.key() == key) {
        // Its intake answers.
        Some(place) => {
            state.inboxes[number].remove(place);
            state.actions.swap_remove(index);
            fleet.movers[number].journal.ended(key);
        }
        None => state.actions[index].cancelled = true,
    }
}

/// With `remove_archive_on_last_unlink`.
fn unlink(state: &mut State) {
    play::with_any(state, |state, index| {
        let (fid, exists) = (state.nodes[index].fid, state.nodes[index].exists);
        play::unlink(state, index);
        if exists && !state.has_action(fid, Kind::Do(Verb::Remove)) {
            with(state, |state, fleet| deliver(state, fleet, Verb::Remove, fid));
        }
    });
}
