//! Who has which action: what the ledger's threads do, who is found dead, what is taken over and what is let go of.

use super::super::world::{MOVER_THREADS, State};
use super::{Fleet, Mover, fids, has};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::journal::Held;
use crate::ledger::model::Fate;
use crate::transfer::Stop;

/// Of one take-over.
const LOT: usize = 2;

fn fate(dice: &mut fastrand::Rng) -> Fate {
    match dice.u8(..32) {
        0 => Fate::Unheard,
        1 => Fate::Broken,
        _ => Fate::Committed,
    }
}

/// A mover's ledger's thread goes on.
pub(super) fn keep(state: &mut State, fleet: &mut Fleet, number: usize) {
    if !fleet.is_up {
        return;
    }
    let fate = fate(&mut state.dice);
    let Fleet { ledger, movers, .. } = fleet;
    let stepped = movers[number].keeper.step(ledger, fate);
    let thread = MOVER_THREADS[number];
    state.tell(|| format!("{thread}: its ledger's thread {}", stepped.words));
    if !stepped.lost.is_empty() {
        state.tell(|| format!("{thread}: others have {:?}", stepped.lost));
    }
    for key in stepped.lost {
        give_up(state, &mut movers[number], number, key);
    }
    if !stepped.returned.is_empty() {
        let keys: Vec<ActionKey> = stepped.returned.iter().map(Item::key).collect();
        state.tell(|| format!("{thread}: has {keys:?} again, which it gave up"));
    }
    for item in stepped.returned {
        movers[number].has_now(item);
    }
}

/// Another mover has it: it is let go of without an answer.
fn give_up(state: &mut State, mover: &mut Mover, number: usize, key: ActionKey) {
    let inbox = &mut state.inboxes[number];
    if let Some(place) = inbox.iter().position(|item| item.key() == key) {
        inbox.remove(place);
        return mover.journal.lost(key, false);
    }
    match &state.hands[number] {
        Some((of, control)) if *of == key => {
            control.stop(Stop::HandOn);
            mover.leaving.retain(|(leaving, _)| *leaving != key);
            mover.leaving.push((key, None));
        }
        // It may be on its way to the queue.
        _ => mover.journal.lost(key, true),
    }
}

pub(super) fn outage(state: &mut State, fleet: &mut Fleet) {
    if fleet.is_up {
        fleet.is_up = state.dice.bool();
        if fleet.is_up {
            state.tell(|| "the ledger is failed over to the replica".to_owned());
            fleet.ledger = fleet.replica.clone();
            // Of what changed hands in the rows that it lacks each of the two may think that the other has it, where the process
            // is gone that gave it up.
            fleet.is_failed_over = true;
            fleet.may_be_unknown |= fleet.has_forgotten;
        } else {
            state.tell(|| "the ledger is away".to_owned());
        }
        for mover in &mut fleet.movers {
            if mover.is_serving() {
                mover.keeper.goes_away();
            }
        }
        return;
    }
    if state.dice.bool() {
        fleet.is_up = true;
        state.tell(|| "the ledger is back".to_owned());
    } else if fleet.movers.iter().all(Mover::is_reached) {
        state.tell(|| "all know that none has a ledger".to_owned());
        fleet.movers.iter().for_each(|mover| mover.keeper.set_valid(true));
    }
}

pub(super) fn cut(state: &mut State, fleet: &mut Fleet) {
    let Some(number) = fleet.any(&mut state.dice, |fleet, number| fleet.movers[number].is_serving()) else {
        return;
    };
    let mover = &mut fleet.movers[number];
    mover.is_cut = !mover.is_cut;
    let words = if mover.is_cut {
        "is cut off from ledger and movers"
    } else {
        "is back"
    };
    mover.keeper.goes_away();
    state.tell(|| format!("{}: {words}", MOVER_THREADS[number]));
}

/// One that could not renew.
pub(super) fn lease_is_over(state: &mut State, fleet: &mut Fleet) {
    let could_not = |fleet: &Fleet, number: usize| !fleet.is_up || !fleet.movers[number].is_reached();
    if let Some(number) = fleet.any(&mut state.dice, could_not) {
        state.tell(|| format!("{}: its lease is over", MOVER_THREADS[number]));
        fleet.movers[number].keeper.set_valid(false);
    }
}

/// By one that has renewed meanwhile, of one that has not for a lease, and does not answer.
pub(super) fn find_dead(state: &mut State, fleet: &mut Fleet) {
    let observes = |fleet: &Fleet, number: usize| {
        let mover = &fleet.movers[number];
        fleet.is_up && mover.is_reached() && mover.keeper.is_in_step() && mover.keeper.is_valid()
    };
    let is_silent = |fleet: &Fleet, number: usize| {
        let mover = &fleet.movers[number];
        !mover.is_reached() && !mover.keeper.is_valid()
    };
    if fleet.any(&mut state.dice, observes).is_none() {
        return;
    }
    if let Some(number) = fleet.any(&mut state.dice, is_silent)
        && fleet.ledger.find_dead(&fleet.movers[number].name)
    {
        state.tell(|| format!("{}: is found dead", MOVER_THREADS[number]));
    }
}

/// Some of what a dead one had: restores first, and the rest at some later time, whether that one lives or not.
pub(super) fn take_over(state: &mut State, fleet: &mut Fleet) {
    let takes = |fleet: &Fleet, number: usize| {
        fleet.is_up && fleet.movers[number].is_reached() && fleet.movers[number].keeper.is_in_step()
    };
    let is_dead = |fleet: &Fleet, number: usize| fleet.ledger.is_dead(&fleet.movers[number].name);
    let (Some(heir), Some(dead)) = (fleet.any(&mut state.dice, takes), fleet.any(&mut state.dice, is_dead)) else {
        return;
    };
    if heir == dead {
        return;
    }
    let of = fleet.movers[dead].name.clone();
    let mut items = fleet.ledger.left_by(&of, true);
    if items.is_empty() {
        items = fleet.ledger.left_by(&of, false);
    }
    items.truncate(LOT);
    if items.is_empty() {
        return;
    }
    let fate = fate(&mut state.dice);
    let Fleet { ledger, movers, .. } = fleet;
    let mover = &mut movers[heir];
    let taken = mover.keeper.take_over(ledger, &of, items, fate);
    mover.on_disk = Held::by(&mover.journal, fids(state));
    let keys: Vec<ActionKey> = taken.iter().map(Item::key).collect();
    let (from, to) = (MOVER_THREADS[dead], MOVER_THREADS[heir]);
    state.tell(|| format!("{to}: takes over {keys:?} from {from}: {fate:?}"));
    for item in taken {
        mover.has_now(item);
    }
}

/// What was taken over, or left by the process before, comes to the queue.
pub(super) fn inherit(state: &mut State, fleet: &mut Fleet, number: usize) {
    let mover = &mut fleet.movers[number];
    let Some(item) = mover.inherited.front() else {
        return;
    };
    // Those wait for the ledger, though not for ever.
    if item.kind != Kind::Do(Verb::Restore) && !mover.keeper.has_looked() && state.dice.u8(..8) > 0 {
        return;
    }
    let Some(item) = mover.inherited.pop_front() else {
        return;
    };
    let key = item.key();
    let thread = MOVER_THREADS[number];
    let Some(index) = state.action(key) else {
        state.tell(|| format!("{thread}: {key:?} was given up by the coordinator"));
        return mover.journal.ended(key);
    };
    if !mover.journal.inherited(&item) {
        return state.tell(|| format!("{thread}: {key:?} is another mover's by now"));
    }
    if has(state, number, key) {
        return mover.journal.known(key);
    }
    if state.actions[index].cancelled {
        state.tell(|| format!("{thread}: {key:?} was cancelled"));
        state.actions.swap_remove(index);
        return mover.journal.ended(key);
    }
    state.tell(|| format!("{thread}: {key:?} is in its queue"));
    state.inboxes[number].push_back(item);
}
