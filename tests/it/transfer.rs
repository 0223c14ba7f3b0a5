//! What is asked of the store, and how the store's own ways are met.

use std::time::Duration;

use lhsm_sandbox::protocol::{Action, ActionState, Fault, states};
use nix::sys::signal::Signal;

use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

fn with_archive(keys: &str) -> Rig {
    let usual = Setup::default();
    Rig::with(Setup {
        archives: format!("{}{keys}\n", usual.archives),
        ..usual
    })
}

#[test]
fn every_checksum_proves_small_and_large_files_both_ways() {
    for kind in ["crc64nvme", "crc32c", "sha256", "none"] {
        for sign in [false, true] {
            let mut rig = with_archive(&format!("checksum = '{kind}'\nsign_payload = {sign}"));
            for (name, size) in [("empty", 0), ("small", 5000), ("chunks", 700_000), ("parts", 12 << 20)] {
                let content = noise(size);
                let fid = rig.file(name, &content);
                rig.archive(fid);
                assert_eq!(
                    rig.store.object_body(BUCKET, name).unwrap(),
                    content,
                    "{kind} {sign} {name}"
                );
                rig.release(fid);
                assert_eq!(rig.restore(name, fid), content, "{kind} {sign} {name}");
            }
            rig.assert_settled();
        }
    }
}

#[test]
fn class_tags_encryption_and_acl_are_asked_for_with_small_and_large_objects() {
    let mut rig = with_archive(
        "storage_class = 'STANDARD_IA'\ntags = 'project=a b, owner=x'\nencryption = 'sse-kms'\n\
         kms_key_id = 'alias/lustre'\nacl = 'bucket-owner-full-control'",
    );
    for (name, size) in [("small", 10), ("parts", 12 << 20)] {
        let fid = rig.file(name, &noise(size));
        rig.archive(fid);
    }
    for object in rig.store.objects(BUCKET) {
        let asked: Vec<_> = object.asked.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert_eq!(
            asked,
            [
                ("acl", "bucket-owner-full-control"),
                ("encryption", "aws:kms"),
                ("kms_key", "alias/lustre"),
                ("storage_class", "STANDARD_IA"),
                ("tagging", "project=a%20b&owner=x"),
            ],
            "{}",
            object.key
        );
    }
}

#[test]
fn a_frozen_object_is_thawed_and_the_restore_goes_on_without_holding_a_thread() {
    let usual = Setup::default();
    let mut rig = Rig::with(Setup {
        // One thread for restores: a second restore shows that the first does not hold it.
        settings: "[workers]\nthreads = 2\nrestore_threads = 1\n[transfer]\nthaw_poll = '100ms'\n".into(),
        ..usual
    });
    let frozen = rig.file("frozen", &noise(5000));
    let warm = rig.file("warm", &noise(6000));
    for fid in [frozen, warm] {
        rig.archive(fid);
        rig.release(fid);
    }
    rig.store
        .faults()
        .fail("GetObject", 403, "InvalidObjectState", 1_000_000);
    rig.client.request(Action::Restore, 1, &[frozen]).unwrap();
    until(|| (rig.store.stats().count("RestoreObject") >= 3).then_some(()));
    // Meanwhile the MDT restarts, and with it goes what was begun.
    rig.client.inject(Fault::Restart).unwrap();
    assert!(rig.client.wait_started(1, PATIENCE).unwrap());
    // This store tells nothing of a thaw: whether it is over is tried, and it is asked for ever more rarely.
    let tried = rig.store.stats().count("GetObject");
    until(|| (rig.store.stats().count("GetObject") >= tried + 2).then_some(()));
    rig.store.faults().clear();
    assert_eq!(rig.restore("warm", warm), noise(6000));
    assert_eq!(
        rig.settle(frozen).states,
        states::EXISTS | states::ARCHIVED,
        "{}",
        rig.log()
    );
    assert_eq!(rig.read("frozen"), noise(5000));
    rig.assert_settled();
}

#[test]
fn a_restore_that_waits_for_a_thaw_can_be_cancelled_and_is_answered_at_a_stop() {
    let usual = Setup::default();
    let settings = usual.settings.replace("[workers]\n", "[workers]\non_stop = 'answer'\n");
    let mut rig = Rig::with(Setup {
        settings: format!("{settings}thaw_poll = '1h'\n"),
        ..usual
    });
    let fids: Vec<_> = (0..2).map(|n| rig.file(&format!("f{n}"), b"data")).collect();
    for fid in &fids {
        rig.archive(*fid);
        rig.release(*fid);
    }
    rig.store
        .faults()
        .fail("GetObject", 403, "InvalidObjectState", 1_000_000);
    rig.client.request(Action::Restore, 1, &fids).unwrap();
    until(|| (rig.store.stats().count("RestoreObject") >= 2).then_some(()));
    rig.client.request(Action::Cancel, 1, &fids[..1]).unwrap();
    assert_ne!(rig.settle(fids[0]).states & states::RELEASED, 0);
    assert_eq!(rig.stop(), Some(0));
    let actions = rig.client.actions().unwrap();
    let ended: Vec<_> = actions
        .iter()
        .filter(|action| action.action == Action::Restore)
        .map(|action| (action.state, action.errval, action.ends))
        .collect();
    assert_eq!(ended[0], (ActionState::Canceled, libc::ECANCELED, 1));
    assert_eq!(ended[1], (ActionState::Failed, libc::ESHUTDOWN, 1));
}

#[test]
fn a_reload_changes_the_bandwidth_of_a_running_transfer_and_loses_nothing() {
    let mut rig = with_archive("upload_bandwidth = '64KiB'");
    let content = noise(24 << 20);
    let fid = rig.file("large", &content);
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    // It would take six minutes.
    assert!(!rig.client.wait(&[fid], Duration::from_secs(2)).unwrap());
    let config = rig.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("upload_bandwidth = '64KiB'", "")).unwrap();
    rig.daemon.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    assert_eq!(rig.settle(fid).states, states::EXISTS | states::ARCHIVED);
    assert_eq!(rig.store.object_body(BUCKET, "large").unwrap(), content);
    // A broken file changes nothing and ends nothing.
    std::fs::write(&config, "nonsense").unwrap();
    rig.daemon.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    let fid = rig.file("later", b"data");
    rig.archive(fid);
    assert_eq!(rig.stop(), Some(0));
    assert!(rig.log().contains("not reloaded"), "{}", rig.log());
}

#[test]
fn the_bench_verb_measures_the_store_without_lustre_and_leaves_nothing() {
    let rig = Rig::without_daemon(Setup::default());
    let spawn = rig.spawn();
    let output = std::process::Command::new(&spawn.program)
        .args([
            "bench",
            "--json",
            "--seconds",
            "1",
            "--threads",
            "2",
            "--size",
            "6MiB",
            "--config",
        ])
        .arg(&spawn.config)
        .envs(spawn.environment.iter().cloned())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for step in ["put_small", "get_small", "put_large", "get_large"] {
        assert!(figures["steps"][step]["requests"].as_u64().unwrap() > 0, "{figures}");
        assert!(figures["steps"][step]["p99_ms"].as_f64().unwrap() > 0.0, "{figures}");
    }
    assert!(rig.store.stats().count("PutObject") > 0);
    assert_eq!(rig.keys(), Vec::<String>::new());
    assert_eq!(rig.store.uploads(BUCKET), []);
}
