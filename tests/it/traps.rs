//! What a live Lustre 2.17 was seen to do, and where a careless copytool loses data or hangs.

use std::fs;

use lhsm_sandbox::protocol::{Action, ActionState, Fault, Fid, Request, Tunable, states};

use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise};

#[test]
fn a_file_that_changes_while_it_is_archived_is_not_archived_and_leaves_no_object() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(1000));
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    fs::write(rig.mount().join("file"), b"other").unwrap();
    gate.release();
    assert_eq!(rig.settle(fid).states, states::EXISTS | states::DIRTY);
    assert_eq!(rig.client.actions().unwrap()[0].errval, libc::EBUSY);
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.keys(), Vec::<String>::new());
    assert!(rig.client.xattr(fid, "trusted.lhsm_s3").is_err());
}

#[test]
fn a_file_unlinked_while_it_is_archived_leaves_no_object() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(1000));
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    fs::remove_file(rig.mount().join("file")).unwrap();
    gate.release();
    assert!(rig.client.wait(&[fid], PATIENCE).unwrap());
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.keys(), Vec::<String>::new(), "{}", rig.log());
    rig.assert_settled();
}

#[test]
fn a_begin_that_fails_is_answered_all_the_same() {
    let mut rig = Rig::new();
    rig.client
        .inject(Fault::BeginErrno {
            errno: libc::EIO,
            times: 1,
        })
        .unwrap();
    let fid = rig.file("file", b"data");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    rig.settle(fid);
    let action = &rig.client.actions().unwrap()[0];
    assert_eq!(
        (action.state, action.errval, action.ends),
        (ActionState::Failed, libc::EIO, 1)
    );
}

#[test]
fn a_file_gone_before_the_action_begins_is_answered_enoent() {
    let mut rig = Rig::new();
    let gate = rig.store.faults().hold("PutObject");
    let blockers: Vec<_> = (0..6).map(|n| rig.file(&format!("b{n}"), b"x")).collect();
    rig.client.request(Action::Archive, 1, &blockers).unwrap();
    assert!(gate.wait_held_blocking(6, PATIENCE));
    let fid = rig.file("gone", b"data");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(rig.client.wait_started(7, PATIENCE).unwrap());
    fs::remove_file(rig.mount().join("gone")).unwrap();
    gate.release();
    assert!(rig.client.wait(&[fid], PATIENCE).unwrap());
    assert!(rig.client.wait(&blockers, PATIENCE).unwrap());
    let actions = rig.client.actions().unwrap();
    let action = actions.iter().find(|a| a.fid == fid).unwrap();
    assert_eq!((action.errval, action.ends), (libc::ENOENT, 1));
}

#[test]
fn a_short_or_damaged_object_is_never_called_a_restored_file() {
    let mut rig = Rig::new();
    let content = noise(300_000);
    let fid = rig.file("file", &content);
    rig.archive(fid);
    rig.release(fid);

    // Connections that break are resumed.
    rig.store.faults().truncate_body("GetObject", 100_000, 2);
    assert_eq!(rig.restore("file", fid), content);
    rig.release(fid);

    // Wrong bytes of the right length are an error, and the file stays released.
    rig.store.faults().corrupt_body(1000);
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert_ne!(rig.settle(fid).states & states::RELEASED, 0);
    let actions = rig.client.actions().unwrap();
    assert_eq!(actions.last().unwrap().errval, libc::EIO);
    rig.store.faults().clear();
    assert_eq!(rig.restore("file", fid), content);
}

#[test]
fn an_object_that_was_replaced_is_not_restored() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"mine");
    rig.archive(fid);
    rig.release(fid);
    rig.store
        .put(BUCKET, "file", &b"else"[..], std::collections::BTreeMap::new());
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert_ne!(rig.settle(fid).states & states::RELEASED, 0);
    assert_eq!(rig.client.actions().unwrap().last().unwrap().errval, libc::ESTALE);
}

#[test]
fn a_missing_object_is_enoent() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"mine");
    rig.archive(fid);
    rig.release(fid);
    rig.store.delete(BUCKET, "file");
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    rig.settle(fid);
    assert_eq!(rig.client.actions().unwrap().last().unwrap().errval, libc::ENOENT);
}

#[test]
fn the_stripes_of_a_released_file_are_those_of_the_restored_one() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    let layout = rig.client.xattr(fid, "lustre.lov").unwrap();
    rig.archive(fid);
    rig.release(fid);
    assert_ne!(
        rig.client.xattr(fid, "lustre.lov").unwrap(),
        layout,
        "the released bit is set"
    );
    assert_eq!(rig.restore("file", fid), noise(10_000));
    assert_eq!(rig.client.xattr(fid, "lustre.lov").unwrap(), layout);
}

#[test]
fn data_on_the_mdt_is_restored_into_a_plain_layout() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    rig.archive(fid);
    rig.release(fid);
    let mut layout = rig.client.xattr(fid, "lustre.lov").unwrap();
    layout[4..8].copy_from_slice(&0x8000_0100u32.to_le_bytes());
    rig.client
        .ask(&Request::SetXattr(fid, "lustre.lov".into(), layout))
        .unwrap();
    assert_eq!(rig.restore("file", fid), noise(10_000));
    // Not left to the directory, whose default may ask for data on the MDT again.
    let restored = rig.client.xattr(fid, "lustre.lov").unwrap();
    assert_eq!((restored.len(), &restored[4..8]), (32, &1u32.to_le_bytes()[..]));
}

#[test]
fn an_unknown_action_is_refused_with_einval() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    rig.client.inject(Fault::UnknownAction(fid)).unwrap();
    rig.settle(fid);
    let action = &rig.client.actions().unwrap()[0];
    assert_eq!((action.errval, action.ends), (libc::EINVAL, 1));
}

#[test]
fn a_store_that_fails_for_a_while_is_waited_out() {
    let mut rig = Rig::new();
    let content = noise(12 << 20);
    rig.store.faults().fail("UploadPart", 503, "SlowDown", 3);
    rig.store
        .faults()
        .fail("CompleteMultipartUpload", 500, "InternalError", 2);
    rig.store.faults().fail("GetObject", 500, "InternalError", 2);
    let fid = rig.file("file", &content);
    rig.archive(fid);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), content);
    rig.assert_settled();
}

#[test]
fn a_store_that_denies_is_believed() {
    let mut rig = Rig::new();
    rig.store.faults().fail("PutObject", 403, "AccessDenied", 1);
    let fid = rig.file("file", b"data");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert_eq!(rig.settle(fid).states, states::EXISTS);
    assert_eq!(rig.client.actions().unwrap()[0].errval, libc::EACCES);
}

#[test]
fn an_end_that_the_coordinator_does_not_take_leaves_no_object() {
    let mut rig = Rig::new();
    rig.client
        .inject(Fault::EndErrno {
            errno: libc::ENOENT,
            times: 1,
        })
        .unwrap();
    let fid = rig.file("file", b"data");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(!rig.client.wait(&[fid], std::time::Duration::from_millis(500)).unwrap());
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.keys(), Vec::<String>::new());
    assert!(rig.client.xattr(fid, "trusted.lhsm_s3").is_err());
}

#[test]
fn the_copy_of_a_file_goes_with_its_last_name_also_after_a_restart_of_the_daemon() {
    let mut rig = Rig::new();
    rig.client.set(Tunable::RemoveArchiveOnLastUnlink, 1).unwrap();
    rig.client.set(Tunable::LoopPeriodMs, 20).unwrap();
    let (one, two) = (rig.file("one", b"1"), rig.file("two", b"2"));
    rig.archive(one);
    rig.archive(two);
    fs::rename(rig.mount().join("one"), rig.mount().join("renamed")).unwrap();
    fs::remove_file(rig.mount().join("renamed")).unwrap();
    wait_for_remove(&mut rig, one);
    assert_eq!(rig.keys(), ["two"]);

    assert_eq!(rig.stop(), Some(0));
    rig.start();
    fs::remove_file(rig.mount().join("two")).unwrap();
    wait_for_remove(&mut rig, two);
    assert_eq!(rig.keys(), Vec::<String>::new());
    rig.assert_settled();
}

#[test]
fn the_copy_of_a_file_of_the_second_mdt_goes_with_its_last_name_too() {
    let mut rig = Rig::with(Setup {
        mdts: 2,
        ..Setup::default()
    });
    rig.client.set(Tunable::RemoveArchiveOnLastUnlink, 1).unwrap();
    rig.client.set(Tunable::LoopPeriodMs, 20).unwrap();
    let dir = rig.mount().join("dir");
    rig.client.make_dir(&dir, 1).unwrap();
    let fid = rig.file("dir/file", b"data");
    rig.archive(fid);
    fs::remove_file(dir.join("file")).unwrap();
    // Its open by FID does not say ENOENT there.
    wait_for_remove(&mut rig, fid);
    let actions = rig.client.actions().unwrap();
    assert!(actions.iter().all(|action| action.errval == 0), "{actions:?}");
    assert_eq!(rig.keys(), Vec::<String>::new(), "{}", rig.log());
    rig.assert_settled();
}

#[test]
fn the_copy_that_an_import_gave_to_another_file_outlives_the_one_that_wrote_it() {
    let mut rig = Rig::new();
    rig.client.set(Tunable::RemoveArchiveOnLastUnlink, 1).unwrap();
    rig.client.set(Tunable::LoopPeriodMs, 20).unwrap();
    let first = rig.file("file", &noise(10_000));
    rig.archive(first);
    fs::create_dir(rig.mount().join("lab")).unwrap();
    let lab = rig.mount().join("lab");
    assert_eq!(crate::import::count(&rig.import(&lab, &[]), "imported"), 1);
    fs::remove_file(rig.mount().join("file")).unwrap();
    wait_for_remove(&mut rig, first);
    let second = rig.client.fid(&lab.join("file")).unwrap();
    assert_eq!(rig.restore("lab/file", second), noise(10_000));
}

fn wait_for_remove(rig: &mut Rig, fid: Fid) {
    assert!(
        rig.client.wait_ended(Action::Remove, fid, PATIENCE).unwrap(),
        "{}",
        rig.log()
    );
}

#[test]
fn a_layout_that_can_not_be_set_fails_the_restore_and_loses_nothing() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    rig.archive(fid);
    rig.release(fid);
    let good = rig.client.xattr(fid, "lustre.lov").unwrap();
    // V3 needs 48 bytes: the kernel refuses this one, and a volatile without layout would read as zeros.
    let mut bad = good[..40].to_vec();
    bad[..4].copy_from_slice(&0x0bd3_0bd0u32.to_le_bytes());
    let set = |layout: Vec<u8>| Request::SetXattr(fid, "lustre.lov".into(), layout);
    rig.client.ask(&set(bad)).unwrap();
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert_ne!(rig.settle(fid).states & states::RELEASED, 0);
    let failed = rig.client.actions().unwrap().pop().unwrap();
    assert_eq!((failed.errval, failed.ends), (libc::EINVAL, 1));
    rig.client.ask(&set(good)).unwrap();
    assert_eq!(rig.restore("file", fid), noise(10_000));
}

#[test]
fn where_the_policy_retries_the_same_cookie_runs_again() {
    let usual = Setup::default();
    let mut rig = Rig::with(Setup {
        settings: format!("{}give_up_after = '0s'\n", usual.settings),
        ..usual
    });
    rig.client.set(Tunable::RetryAction, 1).unwrap();
    rig.store.faults().fail("PutObject", 503, "SlowDown", 1);
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    let actions = rig.client.actions().unwrap();
    assert_eq!(actions.len(), 1);
    assert_eq!((actions[0].sends, actions[0].ends), (2, 2));
}

#[test]
fn a_remove_never_takes_the_copy_of_a_file_that_was_released_meanwhile() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    rig.archive(fid);
    let gate = rig.store.faults().hold("PutObject");
    let blockers: Vec<_> = (0..6).map(|n| rig.file(&format!("b{n}"), b"x")).collect();
    rig.client.request(Action::Archive, 1, &blockers).unwrap();
    assert!(gate.wait_held_blocking(6, PATIENCE));
    // Sent while the file was here, begun when it no longer is.
    rig.client.request(Action::Remove, 1, &[fid]).unwrap();
    assert!(rig.client.wait_started(7, PATIENCE).unwrap());
    rig.release(fid);
    gate.release();
    assert_ne!(rig.settle(fid).states & states::RELEASED, 0);
    assert_eq!(rig.restore("file", fid), noise(10_000));
}

#[test]
fn a_restore_whose_fsync_fails_is_not_called_done() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    rig.archive(fid);
    rig.release(fid);
    let errno = libc::EIO;
    rig.client.inject(Fault::SyncErrno { errno, times: 1 }).unwrap();
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert_ne!(rig.settle(fid).states & states::RELEASED, 0);
    let failed = rig.client.actions().unwrap().pop().unwrap();
    assert_eq!((failed.errval, failed.ends), (libc::EIO, 1));
    assert_eq!(rig.restore("file", fid), noise(10_000));
}

/// A second archive of a file that is archived: two requests at once, of which the second is not refused.
fn archive_again(rig: &mut Rig, fid: Fid) {
    let forced = Request::Hsm {
        action: Action::Archive,
        archive_id: 1,
        flags: 1,
        fids: vec![fid],
        data: Vec::new(),
    };
    rig.client.ask(&forced).unwrap();
}

#[test]
fn an_answer_that_was_not_heard_is_given_again() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    let errno = libc::ENOTCONN;
    rig.client.inject(Fault::EndErrno { errno, times: 2 }).unwrap();
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    // Else the coordinator would wait for an hour.
    assert_eq!(rig.settle(fid).states, states::EXISTS);
    let failed = rig.client.actions().unwrap().pop().unwrap();
    assert_eq!((failed.errval, failed.ends), (libc::EIO, 1));
    rig.archive(fid);
}

#[test]
fn a_file_that_is_being_archived_can_not_be_released() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    rig.archive(fid);
    let gate = rig.store.faults().hold("PutObject");
    archive_again(&mut rig, fid);
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let refused = |rig: &mut Rig| rig.client.release(fid).unwrap_err().raw_os_error();
    assert_eq!(refused(&mut rig), Some(libc::EBUSY));
    // Also when the coordinator knows nothing of the archive any more.
    rig.client.inject(Fault::Restart).unwrap();
    assert_eq!(refused(&mut rig), Some(libc::EBUSY));
    gate.release();
    rig.release(fid);
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), noise(10_000));
}

#[test]
fn a_file_can_be_released_as_soon_as_its_archive_has_ended() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    rig.archive(fid);
    // The next copy is at another key, and the one before it is deleted after the end.
    fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
    let gate = rig.store.faults().hold("DeleteObject");
    archive_again(&mut rig, fid);
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.release(fid);
    gate.release();
    assert_eq!(rig.restore("moved", fid), noise(10_000));
}
