//! Objects in archive classes: asked for once, watched by HEAD, in the way that their class wants it.

use lhsm_sandbox::protocol::{Action, Fid, states};
use lhsm_sandbox_s3::Dialect;
use nix::sys::signal::Signal;

use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

/// One released file whose object is of that class.
fn released(class: &str) -> (Rig, Fid) {
    let usual = Setup::default();
    let mut rig = Rig::with(Setup {
        settings: format!("{}thaw_poll = '100ms'\n", usual.settings),
        archives: format!("{}storage_class = '{class}'\n", usual.archives),
        ..usual
    });
    let fid = rig.file("file", &noise(5000));
    rig.archive(fid);
    rig.release(fid);
    (rig, fid)
}

fn count(rig: &Rig, operation: &str) -> u64 {
    rig.store.stats().count(operation)
}

/// So many more looks by HEAD.
fn looks(rig: &Rig, more: u64) {
    let before = count(rig, "HeadObject");
    until(|| (count(rig, "HeadObject") >= before + more).then_some(()));
}

#[test]
fn a_thaw_is_asked_for_once_and_then_watched_by_head_also_by_a_successor() {
    let (mut rig, fid) = released("GLACIER");
    rig.store.dialects().set(&[Dialect::Cold]);
    let before = count(&rig, "GetObject");
    let reads = |rig: &Rig| count(rig, "GetObject") - before;
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    until(|| (count(&rig, "RestoreObject") == 1).then_some(()));
    looks(&rig, 4);
    assert_eq!((reads(&rig), count(&rig, "RestoreObject")), (1, 1));
    let mut daemon = rig.daemon.take().unwrap();
    daemon.signal(Signal::SIGKILL).unwrap();
    daemon.wait(PATIENCE).unwrap();
    rig.start();
    // It learns by one GET that the object is frozen, and by a HEAD that it was asked for.
    until(|| (reads(&rig) == 2).then_some(()));
    looks(&rig, 3);
    assert_eq!((reads(&rig), count(&rig, "RestoreObject")), (2, 1), "{}", rig.log());
    rig.store.thaw(BUCKET, "file");
    assert_eq!(
        rig.settle(fid).states,
        states::EXISTS | states::ARCHIVED,
        "{}",
        rig.log()
    );
    assert_eq!(rig.read("file"), noise(5000));
    assert_eq!((reads(&rig), count(&rig, "RestoreObject")), (3, 1));
    rig.assert_settled();
}

#[test]
fn what_intelligent_tiering_put_away_is_asked_for_without_days() {
    let (mut rig, fid) = released("INTELLIGENT_TIERING");
    rig.store.dialects().set(&[Dialect::Cold, Dialect::TieringNoDays]);
    rig.store.set_archive_status(BUCKET, "file", "ARCHIVE_ACCESS");
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    until(|| (count(&rig, "RestoreObject") == 1).then_some(()));
    looks(&rig, 3);
    assert_eq!(count(&rig, "RestoreObject"), 1, "{}", rig.log());
    rig.store.thaw(BUCKET, "file");
    assert_eq!(
        rig.settle(fid).states,
        states::EXISTS | states::ARCHIVED,
        "{}",
        rig.log()
    );
    assert_eq!(rig.read("file"), noise(5000));
    rig.assert_settled();
}

#[test]
fn a_store_that_tells_nothing_of_a_thaw_is_asked_ever_more_rarely() {
    let (mut rig, fid) = released("STANDARD_IA");
    rig.store
        .faults()
        .fail("GetObject", 403, "InvalidObjectState", 1_000_000);
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    until(|| (count(&rig, "GetObject") >= 7).then_some(()));
    let asked = count(&rig, "RestoreObject");
    assert!((3..=5).contains(&asked), "{asked}");
    rig.store.faults().clear();
    assert_eq!(
        rig.settle(fid).states,
        states::EXISTS | states::ARCHIVED,
        "{}",
        rig.log()
    );
    assert_eq!(rig.read("file"), noise(5000));
}
