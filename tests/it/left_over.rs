//! Objects of archives whose daemon was killed: what no file is mapped to goes, whatever the journal's last transaction
//! had, and what a file is mapped to stays.

use lhsm_sandbox::protocol::{Action, Fault, Fid, HsmControl, Step, states};
use lhsm_sandbox_s3::Config;

use crate::recovery::{ends_well, journal_is_written};
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

const SERVING: &str = "registered; serving";
const TAKEN: &str = "taking over from a former daemon";
const GIVEN_UP: &str = "the coordinator gave this action up";

/// Archives a file; the daemon dies on the way.
fn dies_at(rig: &mut Rig, fid: Fid, step: Step) {
    rig.client.inject(Fault::Kill { step, before: true }).unwrap();
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
}

/// The same, once its action is in the journal's tables, so that a successor goes on with it.
fn dies_known_at(rig: &mut Rig, fid: Fid, step: Step) {
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    journal_is_written(rig);
    rig.client.inject(Fault::Kill { step, before: true }).unwrap();
    gate.release();
    rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
}

/// The coordinator knows nothing of it any more.
fn purge(rig: &mut Rig, fid: Fid) {
    rig.client.control(HsmControl::Purge).unwrap();
    assert!(rig.client.wait(&[fid], PATIENCE).unwrap());
}

/// How often the daemons have said that.
fn said(rig: &Rig, what: &str) -> usize {
    rig.log().matches(what).count()
}

pub(crate) fn start_anew(rig: &mut Rig) {
    // The coordinator may still take the dead one for alive.
    let before = said(rig, SERVING);
    rig.start();
    until(|| (said(rig, SERVING) > before).then_some(()));
}

/// After a purge: a successor that ends looks once more before.
pub(crate) fn has_a_successor(rig: &mut Rig) {
    let before = (said(rig, TAKEN), said(rig, GIVEN_UP));
    start_anew(rig);
    // Where the action was in the journal's tables already.
    if said(rig, TAKEN) > before.0 {
        until(|| (said(rig, GIVEN_UP) > before.1).then_some(()));
    }
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
}

#[test]
fn a_daemon_killed_between_put_and_end_leaves_no_object_that_no_file_is_mapped_to() {
    for (conditional_writes, has_sidecar) in [(true, false), (true, true), (false, false)] {
        let mut rig = Rig::with(Setup {
            store: Config {
                conditional_writes,
                ..Config::default()
            },
            ..Setup::default()
        });
        let fid = rig.file("file", b"data");
        if has_sidecar {
            xattr::set(rig.mount().join("file"), "user.large", &noise(2500)).unwrap();
        }
        dies_at(&mut rig, fid, Step::Map);
        assert_eq!(rig.keys().len(), 1 + usize::from(has_sidecar));
        purge(&mut rig, fid);
        has_a_successor(&mut rig);
        assert_eq!(rig.keys(), Vec::<String>::new(), "{}", rig.log());
        assert_eq!(rig.read("file"), b"data");
    }
}

#[test]
fn what_a_killed_daemon_left_goes_while_its_successor_serves() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    dies_at(&mut rig, fid, Step::Map);
    purge(&mut rig, fid);
    start_anew(&mut rig);
    until(|| rig.keys().is_empty().then_some(()));
    rig.archive(fid);
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"data");
}

#[test]
fn the_object_of_a_file_that_was_mapped_when_its_daemon_was_killed_is_kept() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    xattr::set(rig.mount().join("file"), "user.large", &noise(2500)).unwrap();
    dies_at(&mut rig, fid, Step::End);
    purge(&mut rig, fid);
    let keys = rig.keys();
    assert_eq!(keys.len(), 2, "the object and its sidecar");
    has_a_successor(&mut rig);
    assert_eq!(rig.keys(), keys, "{}", rig.log());
    // And of one that was archived before, and is changed and killed over.
    start_anew(&mut rig);
    rig.archive(fid);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"data");
    std::fs::write(rig.mount().join("file"), b"changed").unwrap();
    dies_at(&mut rig, fid, Step::End);
    purge(&mut rig, fid);
    has_a_successor(&mut rig);
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"changed");
}

#[test]
fn a_file_renamed_before_its_archive_is_taken_over_leaves_nothing_under_its_former_name() {
    let mut rig = Rig::new();
    let fid = rig.file("before", b"data");
    dies_known_at(&mut rig, fid, Step::Map);
    assert_eq!(rig.keys(), ["before"]);
    std::fs::rename(rig.mount().join("before"), rig.mount().join("after")).unwrap();
    start_anew(&mut rig);
    ends_well(&mut rig, &[fid]);
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert_eq!(rig.keys(), ["after"], "{}", rig.log());
}

#[test]
fn the_copy_before_goes_when_the_daemon_was_killed_while_it_was_replaced() {
    let mut rig = Rig::new();
    let fid = rig.file("before", b"data");
    rig.archive(fid);
    std::fs::rename(rig.mount().join("before"), rig.mount().join("after")).unwrap();
    std::fs::write(rig.mount().join("after"), b"changed").unwrap();
    dies_known_at(&mut rig, fid, Step::End);
    assert_eq!(rig.keys(), ["after", "before"]);
    start_anew(&mut rig);
    ends_well(&mut rig, &[fid]);
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert_eq!(rig.keys(), ["after"], "{}", rig.log());
    assert_eq!(rig.store.object_body(BUCKET, "after").unwrap(), b"changed");
}

#[test]
fn what_a_killed_archive_wrote_over_a_copy_goes_with_that_copy() {
    // Of the same bytes, too: their ETag is that of the record, and not who wrote them.
    for (renamed, content) in [(false, b"other"), (true, b"other"), (false, b"datas"), (true, b"datas")] {
        let mut rig = Rig::new();
        let fid = rig.file("file", b"datas");
        rig.archive(fid);
        std::fs::write(rig.mount().join("file"), content).unwrap();
        dies_at(&mut rig, fid, Step::Map);
        purge(&mut rig, fid);
        // The file's record means what was there before, and what is there now is its copy's place: it stays.
        has_a_successor(&mut rig);
        assert_eq!(rig.keys(), ["file"], "{}", rig.log());
        start_anew(&mut rig);
        if renamed {
            std::fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
            rig.archive(fid);
            until(|| (rig.keys() == ["moved"]).then_some(()));
        } else {
            let state = rig.act(Action::Remove, fid);
            assert_eq!(state.states & states::ARCHIVED, 0);
            assert_eq!(rig.keys(), Vec::<String>::new(), "{}", rig.log());
        }
    }
}
