//! Cancels: of what waits, of what runs, of what nobody knows.

use lhsm_sandbox::protocol::{Action, ActionState, Fault, Fid, HsmControl, states};

use crate::rig::{BUCKET, PATIENCE, Rig, noise};

fn last(rig: &mut Rig, action: Action, fid: Fid) -> (ActionState, i32, u32) {
    let actions = rig.client.actions().unwrap();
    let found = actions
        .iter()
        .rev()
        .find(|a| a.action == action && a.fid == fid)
        .unwrap();
    (found.state, found.errval, found.ends)
}

#[test]
fn a_running_archive_is_cancelled_and_its_upload_aborted() {
    let mut rig = Rig::new();
    let fid = rig.file("large", &noise(12 << 20));
    let gate = rig.store.faults().hold("UploadPart");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(2, PATIENCE));
    rig.client.request(Action::Cancel, 1, &[fid]).unwrap();
    rig.settle(fid);
    assert_eq!(
        last(&mut rig, Action::Archive, fid),
        (ActionState::Canceled, libc::ECANCELED, 1)
    );
    assert_eq!(last(&mut rig, Action::Cancel, fid).0, ActionState::Succeed);
    assert_eq!(rig.client.state(fid).unwrap().states, states::EXISTS);
    gate.release();
    assert_eq!(rig.store.uploads(BUCKET), []);
    assert_eq!(rig.keys(), Vec::<String>::new());
    rig.assert_settled();
}

#[test]
fn a_running_restore_is_cancelled_and_can_be_asked_for_again() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(100_000));
    rig.archive(fid);
    rig.release(fid);
    let gate = rig.store.faults().hold("GetObject");
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.client.request(Action::Cancel, 1, &[fid]).unwrap();
    rig.settle(fid);
    assert_eq!(
        last(&mut rig, Action::Restore, fid),
        (ActionState::Canceled, libc::ECANCELED, 1)
    );
    gate.release();
    assert_eq!(rig.restore("file", fid), noise(100_000));
    rig.assert_settled();
}

#[test]
fn an_archive_and_its_cancel_in_one_message_end_without_a_put() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    rig.client.control(HsmControl::Disabled).unwrap();
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    rig.client.request(Action::Cancel, 1, &[fid]).unwrap();
    rig.client.control(HsmControl::Enabled).unwrap();
    rig.settle(fid);
    let (state, errval, ends) = last(&mut rig, Action::Archive, fid);
    assert_eq!((state, ends), (ActionState::Canceled, 1));
    // It may have begun before the cancel was looked at; what counts is that nothing is left of it.
    assert!(errval == libc::ECANCELED || errval == 0);
    rig.assert_settled();
}

#[test]
fn waiting_actions_are_cancelled_at_once() {
    let mut rig = Rig::new();
    let gate = rig.store.faults().hold("PutObject");
    let fids: Vec<_> = (0..200).map(|n| rig.file(&format!("f{n}"), b"x")).collect();
    for batch in fids.chunks(50) {
        rig.client.request(Action::Archive, 1, batch).unwrap();
    }
    assert!(gate.wait_held_blocking(6, PATIENCE));
    assert!(rig.client.wait_started(200, PATIENCE).unwrap());
    for batch in fids.chunks(50) {
        rig.client.request(Action::Cancel, 1, batch).unwrap();
    }
    assert!(rig.client.wait(&fids, PATIENCE).unwrap(), "the log:\n{}", rig.log());
    let ended = rig.client.counters().unwrap().ended;
    assert_eq!(ended["ARCHIVE CANCELED"], 200);
    gate.release();
    rig.assert_settled();
}

#[test]
fn a_purge_storm_is_taken_in_and_leaves_nothing() {
    let mut rig = Rig::new();
    let gate = rig.store.faults().hold("PutObject");
    let fids: Vec<_> = (0..1000).map(|n| rig.file(&format!("f{n}"), b"x")).collect();
    for batch in fids.chunks(50) {
        rig.client.request(Action::Archive, 1, batch).unwrap();
    }
    assert!(rig.client.wait_started(1000, PATIENCE).unwrap());
    rig.client.control(HsmControl::Purge).unwrap();
    assert_eq!(rig.client.pending().unwrap(), 0);
    gate.release();
    // The daemon is well: new work is done.
    let fid = rig.file("after", b"data");
    rig.archive(fid);
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.store.uploads(BUCKET), []);
    // A PUT that was complete at the store when its client let go may still be carried out; what
    // matters is that no file calls it its copy.
    for fid in fids {
        assert!(rig.client.xattr(fid, "trusted.lhsm_s3").is_err());
        assert_eq!(rig.client.state(fid).unwrap().states, states::EXISTS);
    }
}

#[test]
fn a_cancel_for_an_action_that_nobody_has_is_ignored() {
    let mut rig = Rig::new();
    rig.client.inject(Fault::StrayCancel).unwrap();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    rig.assert_settled();
}
