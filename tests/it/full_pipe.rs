//! The promise that matters most: the reader never stops, whatever S3 does.

use std::time::Duration;

use lhsm_sandbox::protocol::{Action, states};

use crate::rig::{PATIENCE, Rig, Setup};

const FILES: usize = 10_000;
const MIB: u64 = 1 << 20;

#[test]
fn ten_thousand_actions_against_a_silent_store_block_nobody_and_all_end_once_it_answers() {
    let mut rig = Rig::with(Setup {
        settings: "[transfer]\nstall_timeout = '20s'\n".into(),
        max_requests: FILES,
        ..Setup::default()
    });
    let fids: Vec<_> = (0..FILES)
        .map(|n| rig.file(&format!("d{}/{n}", n % 100), n.to_string().as_bytes()))
        .collect();
    let (before, _) = rig.daemon.as_ref().unwrap().memory().unwrap();
    rig.store.faults().hang(true);
    for batch in fids.chunks(50) {
        rig.client.request(Action::Archive, 1, batch).unwrap();
    }
    assert!(rig.client.wait_started(FILES, PATIENCE).unwrap());
    let hung = rig.store.faults().hanging().unwrap();
    assert!(hung.wait_held_blocking(8, PATIENCE), "the workers are at the store");

    let (after, _) = rig.daemon.as_ref().unwrap().memory().unwrap();
    assert!(
        after.saturating_sub(before) < 64 * MIB,
        "memory grew from {before} to {after}"
    );
    rig.store.faults().hang(false);
    assert!(
        rig.client.wait(&fids, Duration::from_secs(300)).unwrap(),
        "the log:\n{}",
        rig.log()
    );
    for fid in &fids {
        assert_eq!(
            rig.client.state(*fid).unwrap().states,
            states::EXISTS | states::ARCHIVED
        );
    }
    let counters = rig.client.counters().unwrap();
    assert!(
        counters.writer_blocked_us < 100_000,
        "the coordinator's writer was blocked for {} µs",
        counters.writer_blocked_us
    );
    assert_eq!(rig.keys().len(), FILES);
    rig.assert_settled();
}

#[test]
fn a_restore_is_served_while_every_other_thread_waits_for_the_store() {
    let mut rig = Rig::new();
    let wanted = rig.file("wanted", b"here it is");
    rig.archive(wanted);
    rig.release(wanted);
    let gate = rig.store.faults().hold("PutObject");
    let fids: Vec<_> = (0..500).map(|n| rig.file(&format!("f{n}"), b"x")).collect();
    for batch in fids.chunks(50) {
        rig.client.request(Action::Archive, 1, batch).unwrap();
    }
    // Eight threads, two of them for restores.
    assert!(gate.wait_held_blocking(6, PATIENCE));
    assert_eq!(rig.restore("wanted", wanted), b"here it is");
    gate.release();
    assert!(rig.client.wait(&fids, PATIENCE).unwrap());
    rig.assert_settled();
}
