//! How movers end, and begin anew.

use std::sync::Arc;

use super::super::world::{MOVER_THREADS, State};
use super::{Fleet, Life, fids};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::journal::{Held, Journal};
use crate::ledger::model::KeeperModel;
use crate::transfer::Stop;

/// A process, or with it its node, but never the last one.
pub(super) fn kill(state: &mut State, fleet: &mut Fleet) {
    let Some(number) = fleet.any(&mut state.dice, |fleet, number| fleet.movers[number].is_serving()) else {
        return;
    };
    let living = fleet
        .movers
        .iter()
        .filter(|mover| !matches!(mover.life, Life::Gone))
        .count();
    let for_good = living > 1 && state.dice.u8(..6) == 0;
    let loses_last = state.dice.u8(..3) == 0;
    fleet.has_forgotten = true;
    fleet.may_be_unknown |= for_good || loses_last || fleet.is_failed_over;
    let mover = &mut fleet.movers[number];
    let mut held = Held::by(&mover.journal, fids(state));
    if loses_last {
        // What an archive writes is said before it does, in files that a kill does not take anything from.
        let said: Vec<_> = held
            .in_hand
            .into_iter()
            .filter_map(|(key, held)| Some((key, held.upload?)))
            .collect();
        held = mover.on_disk.clone();
        for (key, upload) in said {
            held.in_hand.entry(key).or_default().upload = Some(upload);
        }
    }
    let thread = MOVER_THREADS[number];
    let words = match (for_good, loses_last) {
        (true, _) => "its node is gone for good",
        (false, true) => "is killed, and its journal lacks the last changes",
        (false, false) => "is killed",
    };
    state.tell(|| format!("{thread}: {words}"));
    mover.keeper.dies();
    mover.is_cut = false;
    mover.inherited.clear();
    mover.leaving.clear();
    mover.life = if for_good { Life::Gone } else { Life::Killed(held) };
    state.inboxes[number].clear();
    (state.ghosts[number], state.under_way[number]) = (true, state.dice.bool());
    let hand = state.hands[number].iter().map(|(_, control)| control);
    hand.chain(&state.sweeps[number])
        .for_each(|control| control.stop(Stop::HandOn));
}

/// The successor, once nothing of the one before is left.
pub(super) fn restart(state: &mut State, fleet: &mut Fleet, number: usize) {
    if state.ghosts[number] {
        return;
    }
    let mover = &mut fleet.movers[number];
    let Life::Killed(held) = &mover.life else {
        return;
    };
    mover.journal = Arc::new(Journal::in_memory(&fleet.supervisor, held));
    mover.on_disk = held.clone();
    fleet.incarnations += 1;
    let clock = (&fleet.clock, mover.skew);
    let keeper = KeeperModel::new(
        &mover.name,
        fleet.incarnations,
        Some(&mover.keeper),
        &mover.journal,
        clock,
    );
    mover.keeper = keeper;
    let mut items = mover.journal.unfinished();
    items.sort_by_key(|item| item.kind != Kind::Do(Verb::Restore));
    mover.inherited = items.into();
    mover.life = Life::Serving;
    mover.generation += 1;
    let keys: Vec<ActionKey> = mover.inherited.iter().map(Item::key).collect();
    state.tell(|| format!("{}: begins anew with {keys:?}", MOVER_THREADS[number]));
}
