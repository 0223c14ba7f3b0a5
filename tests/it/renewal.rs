//! A mover that has not renewed for a lease, and can't hear of the others: it goes on with what completes, and what destroys
//! waits.

use lhsm_sandbox::protocol::{Action, ActionState, Fid, states};
use nix::sys::signal::Signal;

use crate::metrics::address;
use crate::postgres::Postgres;
use crate::recovery::ends_well;
use crate::rig::{BUCKET, PATIENCE, Rig, noise, until};
use crate::takeover::{Second, in_step, kill, rig, second, uploads};

/// Refusals, as many as anybody asks for.
const ALWAYS: u32 = 1_000_000;
const LARGE: usize = 33 << 20;
const PUT_OFF: &str = "the archive failed, and another mover may have taken it over";

fn status(rig: &Rig) -> String {
    let output = rig.run(&["status", "--movers", &address(&rig.log())]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Seconds since the mover lost its ledger, by its own word.
fn away_for(rig: &Rig) -> Option<f64> {
    let text = status(rig);
    let (_, rest) = text.split_once("the ledger is away, ")?;
    rest.split_once(' ')?.0.parse().ok()
}

/// Nobody answers the mover any more: neither the ledger nor the other one. Until its last renewal is older than a lease of 2 s.
fn cut_off(rig: &Rig, postgres: &mut Postgres, second: &Second) {
    second.daemon.signal(Signal::SIGSTOP).unwrap();
    postgres.stop();
    until(|| away_for(rig).filter(|seconds| *seconds > 3.0));
}

fn heal(rig: &Rig, postgres: &mut Postgres, second: &Second) {
    second.daemon.signal(Signal::SIGCONT).unwrap();
    postgres.resume();
    in_step(rig, &rig.log());
    in_step(rig, &second.log());
}

fn waits_for_a_renewal(rig: &Rig) {
    until(|| {
        status(rig)
            .contains("1 actions wait until no other mover can have taken them over")
            .then_some(())
    });
}

fn end(mut rig: Rig, second: Second) {
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
}

fn last_archive(rig: &mut Rig, fid: Fid) -> (ActionState, i32, u32) {
    let actions = rig.client.actions().unwrap();
    let found = actions
        .iter()
        .rev()
        .find(|action| action.action == Action::Archive && action.fid == fid);
    let found = found.unwrap();
    (found.state, found.errval, found.ends)
}

#[test]
fn a_large_archive_that_fails_without_a_renewal_goes_on_behind_its_parts_and_is_done_without_one() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "300s");
    let content = noise(LARGE);
    let fid = rig.file("large", &content);
    let gate = rig.store.faults().hold("CompleteMultipartUpload");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let second = second(&mut rig, &postgres);
    cut_off(&rig, &mut postgres, &second);
    let refused = rig.store.stats().count("CompleteMultipartUpload");
    rig.store
        .faults()
        .fail("CompleteMultipartUpload", 403, "AccessDenied", ALWAYS);
    gate.release();
    waits_for_a_renewal(&rig);
    // And once more.
    until(|| (rig.store.stats().count("CompleteMultipartUpload") > refused).then_some(()));
    assert!(rig.log().contains(PUT_OFF), "{}", rig.log());
    assert_eq!(rig.client.pending().unwrap(), 1, "nobody answered it");
    assert_eq!(uploads(&rig).len(), 1, "nobody aborted it");
    rig.store.faults().clear();
    ends_well(&mut rig, &[fid]);
    assert!(away_for(&rig).is_some(), "it was done all the same");
    let stats = rig.store.stats();
    assert_eq!(
        (
            stats.count("UploadPart"),
            stats.count("CreateMultipartUpload"),
            stats.count("AbortMultipartUpload")
        ),
        (7, 1, 0),
        "{}",
        rig.log()
    );
    assert_eq!(rig.store.object_body(BUCKET, "large").unwrap(), content);
    heal(&rig, &mut postgres, &second);
    assert_eq!(rig.client.pending().unwrap(), 0);
    assert_eq!(uploads(&rig), []);
    end(rig, second);
}

#[test]
fn an_archive_that_failed_without_a_renewal_is_answered_after_the_next_one() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "300s");
    let fid = rig.file("small", b"as it is");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let second = second(&mut rig, &postgres);
    cut_off(&rig, &mut postgres, &second);
    rig.store.faults().fail("PutObject", 403, "AccessDenied", ALWAYS);
    gate.release();
    waits_for_a_renewal(&rig);
    assert_eq!(rig.client.pending().unwrap(), 1, "nobody answered it");
    heal(&rig, &mut postgres, &second);
    rig.settle(fid);
    assert_eq!(
        last_archive(&mut rig, fid),
        (ActionState::Failed, libc::EACCES, 1),
        "{}",
        rig.log()
    );
    assert!(!status(&rig).contains("actions wait until no other mover"));
    rig.store.faults().clear();
    rig.archive(fid);
    rig.assert_settled();
    end(rig, second);
}

#[test]
fn a_cancel_ends_an_archive_that_waits_for_a_renewal_and_its_upload_goes_after_that() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "300s");
    let fid = rig.file("large", &noise(LARGE));
    let gate = rig.store.faults().hold("CompleteMultipartUpload");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let second = second(&mut rig, &postgres);
    cut_off(&rig, &mut postgres, &second);
    rig.store
        .faults()
        .fail("CompleteMultipartUpload", 403, "AccessDenied", ALWAYS);
    gate.release();
    waits_for_a_renewal(&rig);
    rig.client.request(Action::Cancel, 1, &[fid]).unwrap();
    rig.settle(fid);
    assert_eq!(
        last_archive(&mut rig, fid),
        (ActionState::Canceled, libc::ECANCELED, 1),
        "{}",
        rig.log()
    );
    assert_eq!(uploads(&rig).len(), 1, "another mover may go on with it");
    heal(&rig, &mut postgres, &second);
    until(|| uploads(&rig).is_empty().then_some(()));
    assert_eq!(rig.client.pending().unwrap(), 0);
    end(rig, second);
}

#[test]
fn a_daemon_that_is_started_without_its_ledger_is_not_alone_if_it_was_not_before() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "300s");
    let fid = rig.file("small", b"as it is");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let second = second(&mut rig, &postgres);
    cut_off(&rig, &mut postgres, &second);
    kill(&mut rig);
    std::fs::remove_file(rig.log_path()).unwrap();
    rig.start();
    until(|| rig.log().contains("registered; serving").then_some(()));
    rig.store.faults().fail("PutObject", 403, "AccessDenied", ALWAYS);
    gate.release();
    waits_for_a_renewal(&rig);
    assert_eq!(rig.client.pending().unwrap(), 1, "nobody answered it");
    rig.store.faults().clear();
    ends_well(&mut rig, &[fid]);
    heal(&rig, &mut postgres, &second);
    rig.assert_settled();
    assert_eq!(rig.client.state(fid).unwrap().states, states::EXISTS | states::ARCHIVED);
    end(rig, second);
}
