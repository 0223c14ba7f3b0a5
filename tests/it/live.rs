//! What live file systems showed: actions that cross, tools that die, coordinators that forget.

use std::fs;

use lhsm_sandbox::protocol::{Action, ActionState, Fid, Request, RequestInfo, states};

use crate::import::count;
use crate::rig::{BUCKET, PATIENCE, Rig};

const CLEAN: u32 = states::EXISTS | states::ARCHIVED;

fn actions_of(rig: &mut Rig, fid: Fid) -> Vec<RequestInfo> {
    let mut actions = rig.client.actions().unwrap();
    actions.retain(|action| action.fid == fid);
    actions
}

#[test]
fn a_second_archive_of_a_file_that_changed_under_the_first_archives_the_change() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"first");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    fs::write(rig.mount().join("file"), b"the second content").unwrap();
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(rig.client.wait_started(2, PATIENCE).unwrap());
    gate.release();
    assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"the second content");
    let ends: Vec<_> = actions_of(&mut rig, fid).iter().map(|action| action.errval).collect();
    assert_eq!(ends, [libc::EBUSY, 0]);
    rig.assert_settled();
}

#[test]
fn a_second_archive_of_an_unchanged_file_is_told_so_and_sends_nothing() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(rig.client.wait_started(2, PATIENCE).unwrap());
    let waiting = actions_of(&mut rig, fid);
    assert!(waiting.iter().all(|action| action.ends == 0), "{waiting:?}");
    gate.release();
    assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    let ends: Vec<_> = actions_of(&mut rig, fid).iter().map(|action| action.errval).collect();
    assert_eq!(ends, [0, libc::EALREADY]);
    assert_eq!(rig.store.stats().count("PutObject"), 1);
}

#[test]
fn an_archive_behind_a_remove_leaves_a_file_whose_changes_are_noticed() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.client.request(Action::Remove, 1, &[fid]).unwrap();
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(rig.client.wait_started(3, PATIENCE).unwrap());
    gate.release();
    let state = rig.settle(fid);
    assert_eq!((state.states, state.archive_id), (CLEAN, 1), "{}", rig.log());
    assert!(
        actions_of(&mut rig, fid)
            .iter()
            .all(|action| action.state == ActionState::Succeed)
    );
    fs::write(rig.mount().join("file"), b"other data").unwrap();
    assert_eq!(rig.client.state(fid).unwrap().states & states::DIRTY, states::DIRTY);
    rig.archive(fid);
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"other data");
    rig.release(fid);
}

#[test]
fn a_file_that_is_archived_and_not_watched_is_found_and_mended_by_scrub() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    let clear = Request::SetState {
        fid,
        set: 0,
        clear: states::EXISTS,
        archive_id: None,
    };
    rig.client.ask(&clear).unwrap();
    // Nobody notices.
    fs::write(rig.mount().join("file"), b"other data").unwrap();
    assert_eq!(rig.client.state(fid).unwrap().states, states::ARCHIVED);
    let line = rig.scrub(&[]);
    assert_eq!((count(&line, "unwatched"), count(&line, "mended")), (1, 0), "{line}");
    let line = rig.scrub(&["--repair"]);
    assert_eq!((count(&line, "unwatched"), count(&line, "mended")), (1, 1), "{line}");
    rig.archive(fid);
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"other data");
    assert_eq!(count(&rig.scrub(&[]), "unwatched"), 0);
}
