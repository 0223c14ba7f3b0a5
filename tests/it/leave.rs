//! How a daemon leaves: what its successor goes on with, who is answered, and what is said of what waits.

use std::process::{Output, Stdio};
use std::thread::JoinHandle;

use lhsm_sandbox::process;
use lhsm_sandbox::protocol::{Action, ActionState, Fid, RequestInfo, Tunable, states};
use nix::sys::signal::Signal;

use crate::recovery::ends_well;
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

/// A stop that waits no longer than it must; the daemon's end.
fn stop_soon(rig: &mut Rig) {
    let mut daemon = rig.daemon.take().unwrap();
    let seen = rig.log().matches("stopping; running").count();
    daemon.signal(Signal::SIGTERM).unwrap();
    // The second one must not be merged with the first.
    until(|| {
        assert!(daemon.is_running(), "{}", rig.log());
        (rig.log().matches("stopping; running").count() > seen).then_some(())
    });
    daemon.signal(Signal::SIGTERM).unwrap();
    assert_eq!(daemon.wait(PATIENCE).unwrap().code(), Some(0), "{}", rig.log());
}

/// Has somebody wait for a released file's data; the data.
fn reader(rig: &mut Rig, name: &str, fid: Fid) -> Option<JoinHandle<Vec<u8>>> {
    if !rig.mdt.restores_on_read() {
        rig.client.request(Action::Restore, 1, &[fid]).unwrap();
        return None;
    }
    let path = rig.mount().join(name);
    Some(std::thread::spawn(move || std::fs::read(path).unwrap()))
}

/// Actions that were asked for and are not answered.
fn open(rig: &mut Rig) -> Vec<RequestInfo> {
    let all = rig.client.actions().unwrap().into_iter();
    all.filter(|action| action.state == ActionState::Started && action.ends == 0)
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_restart_under_load_fails_no_action_and_uploads_go_on_behind_their_last_part() {
    let mut rig = Rig::new();
    let content = noise(33 << 20);
    let large = rig.file("large", &content);
    let gone = rig.file("gone", b"x");
    rig.archive(gone);
    let released: Vec<_> = (0..4).map(|n| rig.file(&format!("r{n}"), &noise(7000 + n))).collect();
    for fid in &released {
        rig.archive(*fid);
        rig.release(*fid);
    }
    let small: Vec<_> = (0..40).map(|n| rig.file(&format!("a{n}"), &noise(100 + n))).collect();
    // Seven parts: one is confirmed, and each of the six threads that archive has one of the others.
    let parts = rig.store.faults().hold_after("UploadPart", 1);
    let gets = rig.store.faults().hold("GetObject");
    rig.client.request(Action::Archive, 1, &[large]).unwrap();
    assert!(parts.wait_held_blocking(6, PATIENCE));
    let readers: Vec<_> = (0..4)
        .map(|n| reader(&mut rig, &format!("r{n}"), released[n]))
        .collect();
    rig.client.request(Action::Archive, 1, &small).unwrap();
    rig.client.request(Action::Remove, 1, &[gone]).unwrap();
    assert!(gets.wait_held_blocking(2, PATIENCE));
    assert!(rig.client.wait_started(46, PATIENCE).unwrap());

    stop_soon(&mut rig);
    assert_eq!(open(&mut rig).len(), 46, "nobody is answered; the log:\n{}", rig.log());
    let words = "46 actions, 4 of them readers' restores, wait until a mover for archive id 1 starts";
    assert!(rig.log().contains(words), "{}", rig.log());
    let status = rig.run(&["status"]);
    assert!(said(&status).contains(words), "{}", said(&status));
    assert_eq!(rig.store.uploads(BUCKET).len(), 1, "{}", rig.log());
    // The coordinators know that nobody serves, and nothing is left to be forgotten.
    assert_eq!(rig.client.agents().unwrap(), []);
    let left = std::fs::read_dir(rig.dir.path().join("state")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().starts_with("agent")),
        "{left:?}"
    );

    parts.release();
    gets.release();
    let before = rig.store.stats();
    rig.start();
    for (n, reader) in readers.into_iter().enumerate() {
        let read = reader.map(|reader| reader.join().unwrap());
        rig.settle(released[n]);
        assert_eq!(read.unwrap_or_else(|| rig.read(&format!("r{n}"))), noise(7000 + n));
    }
    ends_well(&mut rig, &[&small[..], &released, &[large]].concat());
    assert_eq!(rig.settle(gone).states, 0, "{}", rig.log());
    let after = rig.store.stats();
    assert_eq!(
        after.count("UploadPart") - before.count("UploadPart"),
        6,
        "what was confirmed is not sent again; the log:\n{}",
        rig.log()
    );
    assert_eq!(after.count("CreateMultipartUpload"), 1);
    assert_eq!(rig.store.object_body(BUCKET, "large").unwrap(), content);
    let failed: Vec<_> = rig.client.actions().unwrap();
    let failed: Vec<_> = failed.iter().filter(|action| action.errval != 0).collect();
    assert!(failed.is_empty(), "{failed:?}");
    rig.assert_settled();

    // Somebody serves, and nothing waits.
    let status = rig.run(&["status"]);
    assert!(!said(&status).contains("was stopped"), "{}", said(&status));
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.log().matches("until a mover").count(), 1, "{}", rig.log());
    assert!(!said(&rig.run(&["status"])).contains("was stopped"));
}

#[test]
fn a_restore_that_waits_for_a_thaw_is_kept_over_a_restart() {
    let usual = Setup::default();
    let mut rig = Rig::with(Setup {
        settings: format!("{}thaw_poll = '1h'\n", usual.settings),
        ..usual
    });
    let fid = rig.file("file", &noise(5000));
    rig.archive(fid);
    rig.release(fid);
    rig.store
        .faults()
        .fail("GetObject", 403, "InvalidObjectState", 1_000_000);
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    until(|| (rig.store.stats().count("RestoreObject") >= 1).then_some(()));
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(open(&mut rig).len(), 1, "{}", rig.log());
    let words = "1 action, a reader's restore, waits until a mover for archive id 1 starts";
    assert!(rig.log().contains(words), "{}", rig.log());
    rig.store.faults().clear();
    rig.start();
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
fn an_archive_whose_object_is_whole_is_answered_by_the_daemon_that_wrote_it() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.daemon.as_ref().unwrap().signal(Signal::SIGTERM).unwrap();
    until(|| rig.log().contains("stopping; running").then_some(()));
    gate.release();
    let status = rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", rig.log());
    ends_well(&mut rig, &[fid]);
    rig.assert_settled();
    assert!(!rig.log().contains("until a mover"), "{}", rig.log());
}

#[test]
fn without_a_journal_a_stop_answers_everything_and_says_so() {
    let mut rig = Rig::without_daemon(Setup::default());
    std::fs::write(rig.dir.path().join("state"), b"no directory").unwrap();
    rig.start();
    let gate = rig.store.faults().hold("PutObject");
    let fids: Vec<_> = (0..20).map(|n| rig.file(&format!("f{n}"), b"x")).collect();
    rig.client.request(Action::Archive, 1, &fids).unwrap();
    assert!(gate.wait_held_blocking(6, PATIENCE));
    assert!(rig.client.wait_started(20, PATIENCE).unwrap());
    stop_soon(&mut rig);
    gate.release();
    let actions = rig.client.actions().unwrap();
    assert!(
        actions
            .iter()
            .all(|action| (action.errval, action.ends) == (libc::ESHUTDOWN, 1)),
        "{actions:?}; the log:\n{}",
        rig.log()
    );
    assert!(
        rig.log().contains("there is no journal that could keep actions"),
        "{}",
        rig.log()
    );
    assert!(!rig.log().contains("until a mover"), "{}", rig.log());
    rig.assert_settled();
}

#[test]
fn the_last_mover_of_a_site_can_be_told_to_answer_while_it_runs() {
    let mut rig = Rig::new();
    let gate = rig.store.faults().hold("PutObject");
    let fid = rig.file("file", b"data");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let config = rig.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    process::replace(&config, &text.replace("[workers]\n", "[workers]\non_stop = 'answer'\n")).unwrap();
    rig.daemon.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    until(|| rig.log().contains("what a stop does").then_some(()));
    assert!(!rig.log().contains("they hold after a restart"), "{}", rig.log());
    stop_soon(&mut rig);
    gate.release();
    assert_eq!(rig.client.actions().unwrap()[0].errval, libc::ESHUTDOWN);
    rig.assert_settled();
}

#[test]
fn a_drained_mover_does_what_it_has_while_new_work_goes_to_another_one() {
    let mut rig = Rig::new();
    let (spawn, log) = rig.second_mover();
    let second = spawn.start().unwrap();
    assert!(rig.client.wait_agents(2, PATIENCE).unwrap(), "{}", rig.log());
    rig.client.set(Tunable::LoopPeriodMs, 20).unwrap();
    let gate = rig.store.faults().hold("PutObject");
    let old: Vec<_> = (0..60).map(|n| rig.file(&format!("old{n}"), b"x")).collect();
    // What waits together goes in one message to one of them.
    for (sent, fid) in old.iter().enumerate() {
        rig.client.request(Action::Archive, 1, &[*fid]).unwrap();
        assert!(rig.client.wait_started(sent + 1, PATIENCE).unwrap());
    }
    // Each has as many as it has threads for archives.
    assert!(gate.wait_held_blocking(12, PATIENCE));

    let mut drain = rig
        .command(&["drain", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until(|| (rig.client.agents().unwrap().len() == 1).then_some(()));
    let new: Vec<_> = (0..20).map(|n| rig.file(&format!("new{n}"), b"y")).collect();
    rig.client.request(Action::Archive, 1, &new).unwrap();
    assert!(rig.client.wait_started(80, PATIENCE).unwrap());
    assert!(drain.try_wait().unwrap().is_none());
    assert!(rig.daemon.as_mut().unwrap().is_running(), "{}", rig.log());

    gate.release();
    let output = drain.wait_with_output().unwrap();
    assert!(output.status.success(), "{}; the log:\n{}", said(&output), rig.log());
    assert!(
        said(&output).contains("it has ended: 30 done, 0 failed, 0 cancelled"),
        "{}",
        said(&output)
    );
    let status = rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", rig.log());
    ends_well(&mut rig, &[old, new].concat());
    let done = |log: &str| log.matches("archive done").count();
    assert_eq!(done(&rig.log()), 30, "{}", rig.log());
    until(|| (done(&std::fs::read_to_string(&log).unwrap()) == 50).then_some(()));
    assert!(!rig.log().contains("until a mover"), "{}", rig.log());
    assert!(second.stop(PATIENCE).unwrap().success());
    rig.assert_settled();
}

#[test]
fn a_drain_says_when_nobody_else_is_known_and_fails_where_nobody_serves() {
    let mut rig = Rig::new();
    let output = rig.run(&["drain", "--wait"]);
    assert!(output.status.success(), "{}", said(&output));
    for words in [
        "no other mover for archive id 1 is known here",
        "it has ended: 0 done, 0 failed, 0 cancelled",
    ] {
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    let status = rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", rig.log());
    assert_eq!(rig.client.agents().unwrap(), []);
    let again = rig.run(&["drain"]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(said(&again).contains("there is nothing to drain"), "{}", said(&again));
}

#[test]
fn a_stop_cuts_a_drain_short_and_the_successor_does_what_is_left() {
    let mut rig = Rig::new();
    let gate = rig.store.faults().hold("PutObject");
    let fids: Vec<_> = (0..20).map(|n| rig.file(&format!("f{n}"), b"x")).collect();
    rig.client.request(Action::Archive, 1, &fids).unwrap();
    assert!(gate.wait_held_blocking(6, PATIENCE));
    assert!(rig.client.wait_started(20, PATIENCE).unwrap());
    let drain = rig
        .command(&["drain", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until(|| rig.client.agents().unwrap().is_empty().then_some(()));
    stop_soon(&mut rig);
    let output = drain.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let words = "20 actions wait until a mover for archive id 1 starts";
    assert!(said(&output).contains(words), "{}", said(&output));
    gate.release();
    rig.start();
    ends_well(&mut rig, &fids);
    rig.assert_settled();
}

#[test]
fn a_keepalive_that_is_under_way_at_a_stop_takes_nothing_that_is_sent_with_it() {
    let setup = Setup::default();
    let mut rig = Rig::with(Setup {
        settings: format!("keepalive = '100ms'\n{}", setup.settings),
        ..setup
    });
    rig.client.set(Tunable::LoopPeriodMs, 10).unwrap();
    let mut fids = Vec::new();
    for _ in 0..20 {
        rig.daemon.as_ref().unwrap().signal(Signal::SIGTERM).unwrap();
        while rig.daemon.as_mut().unwrap().is_running() {
            fids.push(rig.file(&format!("f{}", fids.len()), b"x"));
            rig.client.request(Action::Archive, 1, &fids[fids.len() - 1..]).unwrap();
        }
        rig.start();
    }
    ends_well(&mut rig, &fids);
    rig.assert_settled();
}
