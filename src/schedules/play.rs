//! Who takes part: two movers of one archive id, users and administrators, a scrub that deletes orphans.

use std::sync::Arc;

use super::ARCHIVE;
use super::mdt::{Mdt, Owed};
use super::world::{Action, Node, SCRUB, State, USERS, World};
use crate::action::{FileSystem as _, Item, Kind, Verb};
use crate::scrub::{Grounds, Judgment, KnownKeys};
use crate::store::{KeyLayout, Location, ObjectKey, Origin};
use crate::transfer::{Control, Lane, Stop, Transfer};
use crate::types::{Cookie, Extent, Fid};
use crate::worker::{Context, perform};

/// That a schedule makes at most.
const FILES: usize = 7;
/// They repeat.
const COOKIES: u64 = 6;
/// Of what a scrub knows: keys are few.
const WORDS: usize = 1024;

/// Does what it is sent, one after the other, until all is over.
pub(super) fn mover(world: &Arc<World>, thread: usize, lane: &Lane, context: &Context) {
    let _here = world.enter(thread);
    loop {
        let control = Arc::new(Control::default());
        let (item, over) = world.at(|state| {
            let item = state.inboxes[thread].pop_front();
            if let Some(item) = &item {
                state.hands[thread] = Some((item.key(), Arc::clone(&control)));
            }
            (item, state.over)
        });
        match item {
            None if over => return,
            None => {}
            Some(item) => {
                world.begins();
                let key = item.key();
                let handle = Box::new(Owed::new(Arc::clone(world), item));
                let verdict = perform(context, lane, &control, handle);
                world.with(|state| {
                    state.hands[thread] = None;
                    state.tell(|| format!("{thread}: {key:?} {verdict}"));
                });
            }
        }
    }
}

/// Two of them, so that one can meet what the other left.
pub(super) fn scrub(world: &Arc<World>, lane: &Lane) {
    let _here = world.enter(SCRUB);
    scrub_once(world, lane);
    scrub_once(world, lane);
}

/// As `scrub --delete-orphans --grace 0` goes about it.
pub(super) fn scrub_once(world: &Arc<World>, lane: &Lane) {
    world.begins();
    let (mdt, known, control) = (
        Mdt(Arc::clone(world)),
        KnownKeys::with(WORDS),
        Arc::new(Control::default()),
    );
    let judge = Grounds {
        fs: &mdt,
        known: &known,
        control: &control,
    };
    walk(world, &mdt, &known);
    let mut suspects = Vec::new();
    for key in world.at(|state| state.bucket.listed()) {
        let key = ObjectKey::new(key).expect("a key");
        let Ok(Some(found)) = Transfer::new(lane, &control).find(key.at(ARCHIVE)) else {
            continue;
        };
        match judge.judge(lane, key.at(ARCHIVE), found, |_| true) {
            Judgment::Orphan(suspect, why) if why.certain => suspects.push(suspect),
            _ => {}
        }
    }
    if suspects.is_empty() {
        return;
    }
    walk(world, &mdt, &known);
    for suspect in suspects {
        if judge.sure(lane, &suspect).is_some() {
            drop(judge.delete(lane, &suspect));
        }
    }
}

/// Each file's record, one after the other.
fn walk(world: &World, mdt: &Mdt, known: &KnownKeys) {
    let fids: Vec<Fid> = world.at(|state| {
        let there = state.nodes.iter().filter(|node| !node.gone);
        there.map(|node| node.fid).collect()
    });
    for fid in fids {
        if let Ok(Some(record)) = mdt.map(fid)
            && let Ok(location) = Location::from_bytes(&record)
        {
            known.add(&location.key);
            location.sidecar.iter().for_each(|sidecar| known.add(sidecar));
        }
    }
}

/// What people and the coordinator do meanwhile.
pub(super) fn users(world: &Arc<World>) {
    let _here = world.enter(USERS);
    for _ in 0..world.with(|state| state.dice.usize(12..30)) {
        world.at(event);
    }
    world.at(|state| state.over = true);
}

fn tell(state: &mut State, index: usize, what: &str) {
    let Node { path, fid, .. } = &state.nodes[index];
    let words = format!("{path} ({fid}) {what}");
    state.tell(|| words);
}

/// What people do to files and objects without asking for an action.
pub(super) fn change(state: &mut State) {
    match state.dice.u8(..18) {
        0..4 => with_any(state, |state, index| {
            if !state.nodes[index].released {
                state.write(index);
                tell(state, index, "has new bytes");
            }
        }),
        4..6 => with_any(state, |state, index| {
            if !state.nodes[index].released {
                state.nodes[index].written();
                tell(state, index, "is written to, the same bytes");
            }
        }),
        6..12 => with_any(state, |state, index| {
            if !state.nodes[index].released {
                state.nodes[index].release();
                if state.nodes[index].released {
                    tell(state, index, "is released");
                }
            }
        }),
        12..14 => with_any(state, rename),
        14 => with_any(state, copy),
        15 => copy_object(state),
        16 => put_object(state),
        _ => arrive(state),
    }
}

fn event(state: &mut State) {
    match state.dice.u8(..50) {
        0..12 => request(state, Verb::Archive),
        12..15 => request(state, Verb::Remove),
        15..19 => with_any(state, |state, index| {
            if !state.nodes[index].released {
                state.write(index);
            }
        }),
        // The same bytes.
        19..23 => with_any(state, |state, index| {
            if !state.nodes[index].released {
                state.nodes[index].written();
            }
        }),
        23..27 => with_any(state, |state, index| {
            if !state.nodes[index].released {
                state.nodes[index].release();
            }
        }),
        27..29 => with_any(state, |state, index| state.nodes[index].released = false),
        29..33 => cancel(state),
        // `active_request_timeout`: the mover hears nothing of it.
        33..37 => {
            if !state.actions.is_empty() {
                let index = state.dice.usize(..state.actions.len());
                let action = state.actions.swap_remove(index);
                state.tell(|| format!("time-out of {:?}", action.item.key()));
            }
        }
        37 => {
            state.tell(|| "purge".to_owned());
            state.actions.clear();
        }
        38..42 => learn(state),
        42 => with_any(state, unlink),
        43..45 => with_any(state, rename),
        45 => with_any(state, copy),
        46 => copy_object(state),
        47 => put_object(state),
        _ => arrive(state),
    }
}

/// Of what was given up.
fn arrive(state: &mut State) {
    if !state.late.is_empty() {
        let index = state.dice.usize(..state.late.len());
        state.arrive(index);
    }
}

/// With one of the files, if there is any.
pub(super) fn with_any(state: &mut State, what: impl FnOnce(&mut State, usize)) {
    let there = state.nodes.iter().enumerate().filter(|(_, node)| !node.gone);
    let there: Vec<usize> = there.map(|(index, _)| index).collect();
    if !there.is_empty() {
        let index = there[state.dice.usize(..there.len())];
        what(state, index);
    }
}

/// The coordinator knows one action of a file and kind at a time, and a remove beside an archive; movers may have more in
/// hand.
fn request(state: &mut State, verb: Verb) {
    with_any(state, |state, index| {
        let node = &state.nodes[index];
        let fid = node.fid;
        let fits = match verb {
            Verb::Remove => node.exists && !node.released,
            Verb::Archive | Verb::Restore => !node.released && !node.is_clean(),
        };
        if !fits || state.has_action(fid, Kind::Do(verb)) {
            return;
        }
        if verb == Verb::Archive {
            state.nodes[index].exists = true;
        }
        let item = |cookie| Item {
            kind: Kind::Do(verb),
            fid,
            dfid: fid,
            cookie: Cookie(cookie),
            archive_id: Some(ARCHIVE),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        };
        let first = state.dice.u64(..COOKIES);
        let free = (first..first + COOKIES)
            .map(|cookie| item(cookie % COOKIES + 1))
            .find(|item| {
                let in_hand = state.hands.iter().flatten().any(|(key, _)| *key == item.key());
                !in_hand
                    && !state
                        .inboxes
                        .iter()
                        .flatten()
                        .any(|waiting| waiting.key() == item.key())
            });
        if let Some(item) = free {
            let mover = state.dice.usize(..2);
            state.tell(|| format!("{verb} {:?} to {mover}", item.key()));
            state.inboxes[mover].push_back(item.clone());
            state.actions.push(Action::new(item, mover));
        }
    });
}

fn cancel(state: &mut State) {
    if state.actions.is_empty() {
        return;
    }
    let index = state.dice.usize(..state.actions.len());
    let (key, mover) = (state.actions[index].item.key(), state.actions[index].mover);
    state.tell(|| format!("cancel {key:?}"));
    let waiting = state.inboxes[mover].iter().position(|item| item.key() == key);
    match waiting {
        // Its intake answers.
        Some(place) => {
            state.inboxes[mover].remove(place);
            state.actions.swap_remove(index);
        }
        None => state.actions[index].cancelled = true,
    }
}

/// A mover hears what became of what it has in hand.
pub(super) fn learn(state: &mut State) {
    for (key, control) in state.hands.iter().flatten() {
        match state.actions.iter().find(|action| action.item.key() == *key) {
            None => control.stop(Stop::Forgotten),
            Some(action) if action.cancelled => control.stop(Stop::Cancelled),
            Some(_) => {}
        }
    }
}

pub(super) fn unlink(state: &mut State, index: usize) {
    let path = state.nodes[index].path.clone();
    state.tell(|| format!("unlink {path}"));
    state.nodes[index].gone = true;
    if state.nodes.len() < FILES {
        state.create(path);
    }
}

/// There, or back.
fn rename(state: &mut State, index: usize) {
    // See `State::is_held_up`.
    if state.nodes[index].held_up && state.layout == KeyLayout::Path {
        return;
    }
    let path = &state.nodes[index].path;
    let to = match path.strip_suffix(".moved") {
        Some(before) => before.to_owned(),
        None => format!("{path}.moved"),
    };
    if !state.nodes.iter().any(|node| !node.gone && node.path == to) {
        state.tell(|| format!("rename to {to}"));
        state.nodes[index].path = to;
        state.nodes[index].renamed = true;
    }
}

fn copy(state: &mut State, index: usize) {
    let from = &state.nodes[index];
    if from.released || state.nodes.len() >= FILES {
        return;
    }
    let to = format!("{}.copy{}", from.path, state.nodes.len());
    state.tell(|| format!("cp -a to {to}"));
    state.copy(index, to);
}

/// Whether nobody has anything there, nor a record that means it.
fn is_free(state: &State, key: &str) -> bool {
    let records = state.nodes.iter().filter_map(|node| node.record.as_deref());
    state.bucket.current(key).is_none()
        && !state.nodes.iter().filter_map(Node::told).any(|told| told == key)
        && !records
            .filter_map(|record| Location::from_bytes(record).ok())
            .any(|location| location.key.as_str() == key)
}

/// `aws s3 cp` within the bucket: metadata goes along.
fn copy_object(state: &mut State) {
    let listed = state.bucket.listed();
    if listed.is_empty() {
        return;
    }
    let from = &listed[state.dice.usize(..listed.len())];
    let mut to = format!("backup/{from}");
    if state.dice.bool() {
        // Where no copy of the same bytes is expected: by its ETag it could be taken for that one.
        with_any(state, |state, index| {
            let node = &state.nodes[index];
            if node.record.is_none() && !node.exists {
                to = state.key_of(node);
            }
        });
    }
    let Some(object) = state.bucket.current(from).cloned() else {
        return;
    };
    if is_free(state, &to) {
        state.tell(|| format!("s3 cp {from} {to}"));
        let came_home = matches!(object.origin(&to), Origin::Written(_));
        let serial = state.bucket.put(&to, object.bytes, object.metadata);
        // What comes back to where it was written is what was written there, for all that anybody can tell.
        if !came_home {
            state.foreign.push((to, serial));
        }
    }
}

/// Somebody's own, where a file's copy would go.
fn put_object(state: &mut State) {
    with_any(state, |state, index| {
        let key = state.key_of(&state.nodes[index]);
        if is_free(state, &key) {
            state.tell(|| format!("somebody puts {key}"));
            let serial = state.bucket.put(&key, b"theirs".to_vec(), Default::default());
            state.foreign.push((key, serial));
        }
    });
}
