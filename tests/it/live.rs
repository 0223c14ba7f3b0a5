//! What live file systems showed: actions that cross, tools that die, coordinators that forget.

use std::fs;

use lhsm_sandbox::protocol::{Action, ActionState, Fault, Fid, HsmControl, Request, RequestInfo, Tunable, states};
use nix::sys::signal::Signal;

use crate::import::count;
use crate::metrics::{get, value};
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, until};

const CLEAN: u32 = states::EXISTS | states::ARCHIVED;

fn kill(rig: &mut Rig) {
    let mut daemon = rig.daemon.take().unwrap();
    daemon.signal(Signal::SIGKILL).unwrap();
    daemon.wait(PATIENCE).unwrap();
}

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

/// A file of each of two MDTs, and a daemon that was just killed.
fn killed_between_two_mdts() -> (Rig, Fid, Fid) {
    let mut rig = Rig::with(Setup {
        mdts: 2,
        ..Setup::default()
    });
    let other = rig.mount().join("other");
    rig.client.make_dir(&other, 1).unwrap();
    let (first, second) = (rig.file("file", b"one"), rig.file("other/file", b"two"));
    // What its log thread has not written goes with it.
    until(|| rig.log().contains("registered; serving").then_some(()));
    kill(&mut rig);
    (rig, first, second)
}

#[test]
fn what_a_second_mdt_sends_to_a_dead_daemons_node_is_delivered_to_nobody() {
    // How the stand-in follows the kernel of 2.17.
    let (mut rig, first, second) = killed_between_two_mdts();
    let messages = rig.client.counters().unwrap().messages;
    rig.client.request(Action::Archive, 1, &[first]).unwrap();
    until(|| (rig.client.counters().unwrap().messages > messages).then_some(()));
    let state = |rig: &mut Rig, fid| actions_of(rig, fid).first().map(|action| action.state);
    assert_eq!(state(&mut rig, first), Some(ActionState::Waiting));
    rig.client.request(Action::Archive, 1, &[second]).unwrap();
    assert!(rig.client.wait_started(1, PATIENCE).unwrap());
    assert_eq!(state(&mut rig, second), Some(ActionState::Started));
    // Too late for this one.
    rig.start();
    assert_eq!(rig.settle(first).states, CLEAN);
    assert_eq!(rig.client.pending().unwrap(), 1);
    assert_eq!(state(&mut rig, second), Some(ActionState::Started));
}

#[test]
fn after_a_kill_the_units_last_command_has_every_mdt_keep_its_actions_for_the_successor() {
    let (mut rig, first, second) = killed_between_two_mdts();
    let forgotten = rig.run(&["forget-agent"]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert!(rig.client.agents().unwrap().is_empty());
    for fid in [first, second] {
        rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    }
    rig.start();
    for fid in [first, second] {
        assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    }
    // With a living one it does nothing, and after an end in order neither.
    assert!(rig.run(&["forget-agent"]).status.success());
    assert_eq!(rig.client.agents().unwrap().len(), 1);
    assert_eq!(rig.stop(), Some(0));
    let again = rig.run(&["forget-agent"]);
    assert!(again.status.success() && again.stderr.is_empty(), "{again:?}");
    let left = fs::read_dir(rig.dir.path().join("state")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().starts_with("agent")),
        "{left:?}"
    );
}

#[test]
fn a_successor_has_every_mdt_forget_a_killed_daemon_before_it_registers() {
    let (mut rig, first, second) = killed_between_two_mdts();
    rig.start();
    // The dead one's agent is listed until then.
    until(|| (rig.log().matches("registered; serving").count() == 2).then_some(()));
    for fid in [first, second] {
        rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    }
    for fid in [first, second] {
        assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    }
}

#[test]
fn a_daemon_in_the_background_has_somebody_who_has_it_forgotten_when_it_is_killed() {
    let mut rig = Rig::without_daemon(Setup {
        mdts: 2,
        ..Setup::default()
    });
    let pid_file = rig.dir.path().join("pid");
    let path = pid_file.display().to_string();
    let log = fs::File::create(rig.log_path()).unwrap();
    let started = rig.command(&["--daemon", "--pid-file", &path]).stderr(log).status();
    assert!(started.unwrap().success(), "{}", rig.log());
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    let pid = until(|| fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until(|| rig.client.agents().unwrap().is_empty().then_some(()));
}

/// A restore of a released file whose end the MDT takes only at the second time.
fn restore_unheard() -> (Rig, Fid) {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"what was archived");
    rig.archive(fid);
    rig.release(fid);
    // As the client answers while its MDT is away (2.17).
    let errno = libc::EPERM;
    rig.client.inject(Fault::EndErrno { errno, times: 1 }).unwrap();
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    (rig, fid)
}

#[test]
fn a_restore_whose_end_was_not_heard_is_begun_anew() {
    let (mut rig, fid) = restore_unheard();
    assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    assert_eq!(rig.read("file"), b"what was archived");
    let restore = actions_of(&mut rig, fid).pop().unwrap();
    assert_eq!((restore.errval, restore.ends), (0, 1));
    assert!(rig.log().contains("begun anew"), "{}", rig.log());
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_restore_whose_end_was_not_heard_is_done_when_its_mdt_sends_it_again() {
    let (mut rig, fid) = restore_unheard();
    until(|| rig.log().contains("begun anew").then_some(()));
    rig.client.inject(Fault::Restart).unwrap();
    assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    assert_eq!(rig.read("file"), b"what was archived");
    assert_eq!(actions_of(&mut rig, fid).pop().unwrap().errval, 0);
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_restore_that_the_coordinator_did_not_know_when_it_was_begun_and_has_sent_since_is_begun_anew() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"what was archived");
    rig.archive(fid);
    rig.release(fid);
    // As between an MDT's restart and its sending again.
    let errno = libc::ENOENT;
    rig.client.inject(Fault::BeginErrno { errno, times: 2 }).unwrap();
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    assert_eq!(rig.read("file"), b"what was archived");
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn what_is_left_of_a_restore_that_was_sent_again_does_not_end_it_when_it_is_to_come_once_more() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"what was archived");
    rig.archive(fid);
    rig.release(fid);
    let gate = rig.store.faults().hold("GetObject");
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.client.inject(Fault::Restart).unwrap();
    until(|| rig.log().contains("it begins anew").then_some(()));
    // As if it had restarted once more.
    let errno = libc::ENOENT;
    rig.client.inject(Fault::EndErrno { errno, times: 1 }).unwrap();
    gate.release();
    until(|| rig.log().contains("restore failed (ENOENT)").then_some(()));
    let restore = actions_of(&mut rig, fid).pop().unwrap();
    assert_eq!(
        (restore.ends, restore.state),
        (0, ActionState::Started),
        "{}",
        rig.log()
    );
    rig.client.inject(Fault::Restart).unwrap();
    assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    assert_eq!(rig.read("file"), b"what was archived");
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_restore_that_was_whole_when_its_mdt_restarted_and_gone_at_its_end_is_told_and_counted_as_failed() {
    let usual = Setup::default();
    let mut rig = Rig::with(Setup {
        settings: format!("[metrics]\nlisten = '127.0.0.1:0'\n{}", usual.settings),
        ..usual
    });
    let fid = rig.file("file", b"what was archived");
    rig.archive(fid);
    rig.release(fid);
    rig.client.inject(Fault::RestartAtEnd).unwrap();
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert_eq!(rig.settle(fid).states, CLEAN | states::RELEASED, "{}", rig.log());
    let restore = actions_of(&mut rig, fid).pop().unwrap();
    assert_eq!((restore.errval, restore.ends, restore.sends), (libc::ESTALE, 1, 2));
    assert!(restore.spoiled);
    // What was sent again came to the same mover, which began anew and heard that it is over.
    let failed = "lhsmtool_s3_actions_total{archive=\"1\",class=\"restore\",outcome=\"failed\"}";
    let text = until(|| {
        let (_, text) = get(&rig, "/metrics");
        (value(&text, failed) == 1).then_some(text)
    });
    assert_eq!(value(&text, &failed.replace("failed", "done")), 0, "{text}");
    until(|| rig.log().contains("restore failed (ENOENT)").then_some(()));
    assert!(!rig.log().contains("restore done"), "{}", rig.log());
    assert_eq!(rig.restore("file", fid), b"what was archived");
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

fn quick() -> Setup {
    let usual = Setup::default();
    Setup {
        settings: format!(
            "[lustre]\nkeepalive = '100ms'\nheartbeat = '100ms'\nprogress = '100ms'\n{}",
            usual.settings
        ),
        ..usual
    }
}

fn is_archived(rig: &mut Rig, fid: Fid) -> Option<()> {
    (rig.client.state(fid).unwrap().states == CLEAN).then_some(())
}

#[test]
fn an_archive_that_a_stopped_coordinator_forgot_is_asked_for_again_once() {
    let mut rig = Rig::with(quick());
    let (fid, done) = (rig.file("file", b"data"), rig.file("done", b"data"));
    rig.archive(done);
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.client.control(HsmControl::Shutdown).unwrap();
    rig.client.control(HsmControl::Enabled).unwrap();
    until(|| rig.log().contains("asked for again").then_some(()));
    gate.release();
    until(|| is_archived(&mut rig, fid));
    let archives = actions_of(&mut rig, fid);
    assert_eq!(archives.len(), 2, "{archives:?}");
    assert_eq!(archives[1].state, ActionState::Succeed);
    assert_eq!(actions_of(&mut rig, done).len(), 1);
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"data");
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn what_was_purged_or_timed_out_is_not_asked_for_again() {
    let mut rig = Rig::with(quick());
    let fids: Vec<_> = (0..3).map(|n| rig.file(&format!("f{n}"), b"data")).collect();
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &fids[..1]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.client.control(HsmControl::Purge).unwrap();
    rig.settle(fids[0]);
    let written = rig.store.stats().count("PutObject");
    rig.client.request(Action::Archive, 1, &fids[1..2]).unwrap();
    assert!(rig.client.wait_started(1, PATIENCE).unwrap());
    // It is begun: one that the coordinator gives up before that is told at its begin.
    until(|| (rig.store.stats().count("PutObject") > written).then_some(()));
    rig.client.set(Tunable::LoopPeriodMs, 10).unwrap();
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 1).unwrap();
    rig.settle(fids[1]);
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 3_600_000).unwrap();
    until(|| (rig.log().matches("the coordinator forgot the action").count() >= 1).then_some(()));
    // One that comes after them, and is.
    rig.client.request(Action::Archive, 1, &fids[2..]).unwrap();
    assert!(rig.client.wait_started(1, PATIENCE).unwrap());
    rig.client.inject(Fault::Restart).unwrap();
    gate.release();
    until(|| is_archived(&mut rig, fids[2]));
    let asked: Vec<_> = fids.iter().map(|fid| actions_of(&mut rig, *fid)).collect();
    let archives = |n: usize| {
        asked[n]
            .iter()
            .filter(|action| action.action == Action::Archive)
            .count()
    };
    assert_eq!([0, 1].map(archives), [1, 1], "{}", rig.log());
}

#[test]
fn an_import_makes_the_directory_that_is_not_there() {
    let mut rig = Rig::new();
    rig.put("lab/a", b"1", &[]);
    rig.put("lab/d/b", b"22", &[]);
    rig.put("other", b"3", &[]);
    let target = rig.mount().join("new/lab");
    let line = crate::import::json(&rig.run(&[
        "import",
        &format!("s3://{BUCKET}/lab"),
        &target.display().to_string(),
        "--json",
    ]));
    assert_eq!(count(&line, "imported"), 2, "{line}");
    let fid = rig.client.fid(&target.join("d/b")).unwrap();
    assert_eq!(rig.restore("new/lab/d/b", fid), b"22");
    let dry = rig.mount().join("dry");
    let url = format!("s3://{BUCKET}/lab");
    assert!(
        !rig.run(&["import", &url, &dry.display().to_string(), "--dry-run"])
            .status
            .success()
    );
    assert!(!dry.exists());
}

#[test]
fn an_import_of_one_object_makes_a_file_of_that_name_as_the_reference_does() {
    let mut rig = Rig::new();
    rig.put("lab/a", b"one object", &[]);
    rig.put("lab/ab", b"another", &[]);
    let target = rig.mount().join("here");
    let output = rig.run(&["--archive", "1", "--import", "lab/a", &target.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let fid = rig.client.fid(&target).unwrap();
    assert_ne!(rig.client.state(fid).unwrap().states & states::RELEASED, 0);
    assert_eq!(rig.restore("here", fid), b"one object");
    // A second one is refused, and the file stays.
    let output = rig.run(&["--archive", "1", "--import", "lab/ab", &target.display().to_string()]);
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(rig.read("here"), b"one object");
}

#[test]
fn attributes_that_the_system_sets_by_itself_do_not_go_into_objects() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    let path = rig.mount().join("file");
    // Not every file system has them.
    if xattr::set(&path, "user.job", b"dd.0").is_err() {
        return;
    }
    xattr::set(&path, "user.own", b"x").unwrap();
    rig.archive(fid);
    let object = rig.store.objects(BUCKET).pop().unwrap();
    let told = &object.metadata["lhsm-xattrs"];
    assert!(told.contains("user.own") && !told.contains("user.job"), "{told}");
}

#[test]
fn a_missing_bucket_is_eio_with_its_own_words() {
    let mut rig = Rig::new();
    let (fid, released) = (rig.file("file", b"data"), rig.file("released", b"data"));
    rig.archive(released);
    rig.release(released);
    rig.store.faults().fail("PutObject", 404, "NoSuchBucket", 1);
    assert_eq!(rig.act(Action::Archive, fid).states, states::EXISTS);
    rig.store.faults().fail("GetObject", 404, "NoSuchBucket", 1);
    assert_ne!(rig.act(Action::Restore, released).states & states::RELEASED, 0);
    for fid in [fid, released] {
        assert_eq!(actions_of(&mut rig, fid).pop().unwrap().errval, libc::EIO);
    }
    assert!(rig.log().contains("the bucket does not exist"), "{}", rig.log());
    assert_eq!(rig.restore("released", released), b"data");
}

#[test]
fn another_copytool_on_the_mount_is_told_apart_and_not_robbed_of_its_registration() {
    let mut rig = Rig::without_daemon(Setup::default());
    // As one holds the mount's root, and a pipe into which the kernel writes.
    let (read, write) = std::io::pipe().unwrap();
    let mut other = std::process::Command::new("sleep")
        .arg("600")
        .stdin(read)
        .stdout(fs::File::open(rig.mount()).unwrap())
        .spawn()
        .unwrap();
    // One that a process writes to is none.
    let holding = rig.run(&["forget-agent", "--others"]);
    assert!(holding.status.success(), "{holding:?}");
    drop(write);
    let refused = rig.run(&["forget-agent", "--others"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains(&format!("process {} (sleep)", other.id())),
        "{words}"
    );
    let mut daemon = rig.spawn().start().unwrap();
    assert_eq!(daemon.wait(PATIENCE).unwrap().code(), Some(1));
    assert!(
        rig.log().contains("mount the file system a second time"),
        "{}",
        rig.log()
    );
    other.kill().unwrap();
    other.wait().unwrap();
    rig.start();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
}

#[test]
fn after_an_import_has_ended_the_key_of_a_younger_dead_file_is_free_again() {
    let mut rig = Rig::new();
    rig.put("lab/a", b"imported", &[]);
    let to = rig.mount().join("lab");
    let url = format!("s3://{BUCKET}/lab");
    assert!(rig.run(&["import", &url, &to.display().to_string()]).status.success());
    let root = rig.client.fid(&rig.mount()).unwrap();
    let number = |value: Vec<u8>| String::from_utf8(value).unwrap().parse::<u64>().unwrap();
    let seen = number(rig.client.xattr(root, "trusted.lhsm_s3_imported").unwrap());
    assert!(rig.client.xattr(root, "trusted.lhsm_s3_importing").is_err());
    // Objects tell their times in seconds.
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    until(|| (now() > seen).then_some(()));
    let first = rig.file("file", b"first");
    rig.archive(first);
    fs::remove_file(rig.mount().join("file")).unwrap();
    let second = rig.file("file", b"second");
    rig.archive(second);
    assert_eq!(rig.keys(), ["file", "lab/a"]);
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"second");
}
