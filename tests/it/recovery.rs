//! A daemon that was killed, and its successor.

use std::time::Instant;

use lhsm_sandbox::protocol::{Action, ActionState, Fid, states};
use nix::sys::signal::Signal;

use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

/// Until all that the daemon knows is on disk.
pub(crate) fn journal_is_written(rig: &Rig) {
    until(|| {
        let seen = rig.log().matches("unwritten=").count();
        rig.daemon.as_ref().unwrap().signal(Signal::SIGUSR1).unwrap();
        until(|| (rig.log().matches("unwritten=").count() > seen).then_some(()));
        let log = rig.log();
        log.rsplit("unwritten=").next()?.starts_with("0 ").then_some(())
    });
}

fn kill(rig: &mut Rig) {
    let mut daemon = rig.daemon.take().unwrap();
    daemon.signal(Signal::SIGKILL).unwrap();
    daemon.wait(PATIENCE).unwrap();
}

/// Archives a large file; the daemon dies when all parts are sent and written down.
pub(crate) fn dies_completing(rig: &mut Rig, fid: Fid) {
    let gate = rig.store.faults().hold("CompleteMultipartUpload");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    journal_is_written(rig);
    kill(rig);
    gate.release();
}

pub(crate) fn ends_well(rig: &mut Rig, fids: &[Fid]) {
    assert!(rig.client.wait(fids, PATIENCE).unwrap(), "{}", rig.log());
    for fid in fids {
        assert_eq!(
            rig.client.state(*fid).unwrap().states,
            states::EXISTS | states::ARCHIVED,
            "{}",
            rig.log()
        );
    }
}

#[test]
fn what_a_killed_daemon_had_in_hand_is_done_by_its_successor() {
    let mut rig = Rig::new();
    let released: Vec<_> = (0..4).map(|n| rig.file(&format!("r{n}"), &noise(7000 + n))).collect();
    for fid in &released {
        rig.archive(*fid);
        rig.release(*fid);
    }
    let gone = rig.file("gone", b"x");
    rig.archive(gone);
    let fresh: Vec<_> = (0..40).map(|n| rig.file(&format!("a{n}"), &noise(100 + n))).collect();
    let puts = rig.store.faults().hold("PutObject");
    let gets = rig.store.faults().hold("GetObject");
    let heads = rig.store.faults().hold("HeadObject");
    rig.client.request(Action::Archive, 1, &fresh).unwrap();
    rig.client.request(Action::Restore, 1, &released).unwrap();
    rig.client.request(Action::Remove, 1, &[gone]).unwrap();
    assert!(rig.client.wait_started(45, PATIENCE).unwrap());
    assert!(puts.wait_held_blocking(1, PATIENCE));
    assert!(gets.wait_held_blocking(2, PATIENCE));
    journal_is_written(&rig);
    kill(&mut rig);
    for gate in [puts, gets, heads] {
        gate.release();
    }
    rig.start();
    let all: Vec<_> = [&released[..], &fresh[..]].concat();
    ends_well(&mut rig, &all);
    for n in 0..4 {
        assert_eq!(rig.read(&format!("r{n}")), noise(7000 + n));
    }
    assert_eq!(rig.settle(gone).states, 0);
    assert!(!rig.keys().contains(&"gone".to_owned()));
    // Each action was answered once, by one of the two.
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_large_archive_goes_on_behind_the_last_part_that_was_confirmed() {
    let mut rig = Rig::new();
    let content = noise(33 << 20);
    let fid = rig.file("large", &content);
    dies_completing(&mut rig, fid);
    let before = rig.store.stats();
    assert_eq!(before.count("UploadPart"), 7);
    rig.start();
    ends_well(&mut rig, &[fid]);
    let after = rig.store.stats();
    assert_eq!(
        after.count("UploadPart"),
        7,
        "no part was sent twice; the log:\n{}",
        rig.log()
    );
    assert_eq!(after.count("CreateMultipartUpload"), 1);
    assert_eq!(rig.store.object_body(BUCKET, "large").unwrap(), content);
    rig.assert_settled();
}

#[test]
fn a_daemon_that_was_killed_may_start_again_with_other_archives() {
    let mut rig = Rig::new();
    kill(&mut rig);
    let more = format!("\n[[archive]]\nid = 5\nbucket = '{BUCKET}'\nprefix = 'five/'\n");
    let more = more.replace(
        "[[archive]]",
        &format!("[[archive]]\nendpoint_url = '{}'", rig.store.endpoint()),
    );
    let first = "bucket = 'lhsm-sandbox'\n";
    rig.replace_settings(first, &format!("{first}{more}"));
    rig.start();
    // The MDT takes no second list from an agent that it knows, and it knew the dead one's.
    until(|| {
        let agents = rig.client.agents().unwrap();
        // Between the dead one's and the new one there is none.
        agents.first().filter(|agent| agent.archives == [1, 5]).map(drop)
    });
    let fid = rig.file("file", b"data");
    rig.client.request(Action::Archive, 5, &[fid]).unwrap();
    rig.settle(fid);
    assert_eq!(rig.store.object_body(BUCKET, "five/file").unwrap(), b"data");
}

#[test]
fn of_two_gibibytes_only_the_parts_that_were_missing_are_sent_again() {
    const SIZE: u64 = 2 << 30;
    const PART: u64 = 5 << 20;
    const SENT: u64 = 200;
    let mut rig = Rig::new();
    let fid = rig.file("large", &noise(1 << 20));
    let file = std::fs::File::options()
        .write(true)
        .open(rig.mount().join("large"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise(1 << 20), SIZE - (1 << 20)).unwrap();
    drop(file);
    let gate = rig.store.faults().hold_after("UploadPart", 200);
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    // All threads that archive: what they sent before has been answered.
    assert!(gate.wait_held_blocking(6, PATIENCE));
    journal_is_written(&rig);
    kill(&mut rig);
    gate.release();
    let before = rig.store.stats();
    rig.start();
    ends_well(&mut rig, &[fid]);
    let after = rig.store.stats();
    let parts = after.count("UploadPart") - before.count("UploadPart");
    assert_eq!(parts, SIZE.div_ceil(PART) - SENT, "{}", rig.log());
    // Of the six that were held when the daemon died the store may have read a piece since.
    let (sent, missing) = (after.bytes_in - before.bytes_in, SIZE - SENT * PART);
    assert!(
        (missing..missing + 6 * PART).contains(&sent),
        "{sent} bytes for {missing}"
    );
    assert_eq!(after.count("CreateMultipartUpload"), 1);
    // Byte for byte.
    let path = rig.mount().join("large").display().to_string();
    let line = crate::import::json(&rig.run(&["scrub", &path, "--deep", "--files-only", "--json"]));
    assert_eq!(
        (line["good"].as_u64(), line["bytes"].as_u64()),
        (Some(1), Some(SIZE)),
        "{line}"
    );
    rig.assert_settled();
}

#[test]
fn an_upload_of_a_file_that_changed_meanwhile_is_not_gone_on_with() {
    let mut rig = Rig::new();
    let fid = rig.file("large", &noise(12 << 20));
    dies_completing(&mut rig, fid);
    let content = vec![7; 12 << 20];
    std::fs::write(rig.mount().join("large"), &content).unwrap();
    rig.start();
    ends_well(&mut rig, &[fid]);
    assert_eq!(rig.store.stats().count("CreateMultipartUpload"), 2);
    assert_eq!(rig.store.object_body(BUCKET, "large").unwrap(), content);
    rig.assert_settled();
}

#[test]
fn what_the_coordinator_no_longer_knows_leaves_neither_upload_nor_object() {
    let mut rig = Rig::new();
    let (large, small) = (rig.file("large", &noise(12 << 20)), rig.file("small", b"data"));
    let complete = rig.store.faults().hold("CompleteMultipartUpload");
    rig.client.request(Action::Archive, 1, &[large]).unwrap();
    assert!(complete.wait_held_blocking(1, PATIENCE));
    let put = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[small]).unwrap();
    assert!(put.wait_held_blocking(1, PATIENCE));
    journal_is_written(&rig);
    kill(&mut rig);
    complete.release();
    put.release();
    // As if the PUT had been complete when the daemon died.
    let owner = [("lhsm-fid".to_owned(), format!("{small}").replace(['[', ']'], ""))];
    let cookie = rig.client.actions().unwrap().last().unwrap().cookie;
    let owner = owner.into_iter().chain([
        ("lhsm-fs".to_owned(), rig.file_system()),
        ("lhsm-cookie".to_owned(), format!("{cookie:#x}")),
    ]);
    rig.store.put(BUCKET, "small", b"data".to_vec(), owner.collect());
    rig.client.request(Action::Cancel, 1, &[large, small]).unwrap();
    for name in ["large", "small"] {
        std::fs::remove_file(rig.mount().join(name)).unwrap();
    }
    rig.start();
    assert!(rig.client.wait(&[large, small], PATIENCE).unwrap(), "{}", rig.log());
    // Both had ended before: what a stop interrupts is left to the daemon after this one.
    until(|| (rig.store.uploads(BUCKET).is_empty() && rig.keys().is_empty()).then_some(()));
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.store.uploads(BUCKET), []);
    assert_eq!(rig.keys(), Vec::<String>::new(), "{}", rig.log());
}

#[test]
fn uploads_that_nobody_knows_are_aborted_once_they_are_old() {
    let usual = Setup::default();
    let mut rig = Rig::with(Setup {
        settings: format!("{}abort_uploads_after = '1s'\n", usual.settings),
        ..usual
    });
    let fid = rig.file("large", &noise(12 << 20));
    let gate = rig.store.faults().hold("UploadPart");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let begun = Instant::now();
    kill(&mut rig);
    gate.release();
    // With the journal everything that is known of it goes.
    std::fs::remove_dir_all(rig.dir.path().join("state")).unwrap();
    assert_eq!(rig.store.uploads(BUCKET).len(), 1);
    // A young one might be another mover's.
    while begun.elapsed() < std::time::Duration::from_millis(2100) {
        std::thread::yield_now();
    }
    rig.start();
    until(|| rig.store.uploads(BUCKET).is_empty().then_some(()));
    // The action itself is lost to us; its file is not.
    assert_eq!(rig.read("large").len(), 12 << 20);
    assert_eq!(rig.client.actions().unwrap()[0].state, ActionState::Started);
}
