//! The daemon's life: registration, its silent loss, a second daemon, the end.

use std::process::{Command, Stdio};
use std::time::Duration;

use lhsm_sandbox::protocol::{Action, ActionState, Fault, HsmControl, Tunable, states};
use nix::sys::signal::Signal;

use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

fn quick() -> Setup {
    let usual = Setup::default();
    Setup {
        settings: format!(
            "[lustre]\nkeepalive = '100ms'\nheartbeat = '200ms'\nprogress = '200ms'\n{}",
            usual.settings
        ),
        ..usual
    }
}

#[test]
fn a_stopped_coordinator_is_waited_for_and_never_registered_with() {
    let mut rig = Rig::without_daemon(quick());
    rig.client.control(HsmControl::Shutdown).unwrap();
    rig.daemon = Some(rig.spawn().start().unwrap());
    assert!(!rig.client.wait_agents(1, Duration::from_millis(500)).unwrap());
    rig.client.control(HsmControl::Enabled).unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    assert_eq!(rig.client.counters().unwrap().kernel_crashes, 0);
    let fid = rig.file("file", b"data");
    rig.archive(fid);
}

#[test]
fn no_mdt_is_registered_with_while_any_of_them_is_stopped() {
    let mut rig = Rig::without_daemon(Setup { mdts: 3, ..quick() });
    rig.client.control_mdt(2, HsmControl::Shutdown).unwrap();
    rig.daemon = Some(rig.spawn().start().unwrap());
    until(|| rig.log().contains("MDT 0002 is stopped").then_some(()));
    assert!(!rig.client.wait_agents(1, Duration::from_millis(500)).unwrap());
    rig.client.control_mdt(2, HsmControl::Enabled).unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    // Later, too: neither a keepalive nor a new registration may reach it.
    rig.client.control_mdt(1, HsmControl::Shutdown).unwrap();
    rig.client.inject(Fault::ClosePipes).unwrap();
    assert!(!rig.client.wait_agents(1, Duration::from_millis(700)).unwrap());
    rig.client.control_mdt(1, HsmControl::Enabled).unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    assert_eq!(rig.client.counters().unwrap().kernel_crashes, 0);
    let fid = rig.file("file", b"data");
    rig.archive(fid);
}

#[test]
fn a_client_of_2_10_that_knows_only_bits_keeps_our_archive_ids() {
    let mut rig = Rig::with(Setup {
        archives: "[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\nprefix = 'a/'\n\
                   [[archive]]\nid = 5\nbucket = 'lhsm-sandbox'\nprefix = 'b/'\n"
            .into(),
        archive_bits: true,
        ..quick()
    });
    rig.client.control(HsmControl::Shutdown).unwrap();
    rig.client.control(HsmControl::Enabled).unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    assert_eq!(rig.client.agents().unwrap()[0].archives, [1, 5]);
}

#[test]
fn two_movers_share_the_work_and_the_second_goes_on_when_the_first_stops() {
    let mut rig = Rig::with(quick());
    let mut spawn = rig.spawn();
    spawn
        .environment
        .push(("LHSM_SANDBOX_CLIENT".into(), rig.second_client()));
    let second = spawn.start().unwrap();
    assert!(rig.client.wait_agents(2, PATIENCE).unwrap(), "{}", rig.log());
    let gate = rig.store.faults().hold("PutObject");
    let fids: Vec<_> = (0..40).map(|n| rig.file(&format!("f{n}"), b"x")).collect();
    // What waits together goes in one message to one of them.
    for (sent, fid) in fids.iter().enumerate() {
        rig.client.request(Action::Archive, 1, &[*fid]).unwrap();
        assert!(rig.client.wait_started(sent + 1, PATIENCE).unwrap());
    }
    let mut loads: Vec<_> = rig.client.agents().unwrap().iter().map(|a| a.outstanding).collect();
    loads.sort_unstable();
    assert_eq!(loads, [20, 20], "the least loaded one is chosen");
    gate.release();
    assert!(rig.client.wait(&fids, PATIENCE).unwrap(), "{}", rig.log());
    assert_eq!(rig.stop(), Some(0));
    let fid = rig.file("later", b"data");
    rig.archive(fid);
    assert!(second.stop(PATIENCE).unwrap().success());
    rig.assert_settled();
}

#[test]
fn a_coordinator_switched_off_and_on_gets_its_copytool_back() {
    let mut rig = Rig::with(quick());
    rig.client.control(HsmControl::Shutdown).unwrap();
    assert_eq!(rig.client.agents().unwrap(), []);
    rig.client.control(HsmControl::Enabled).unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    assert_eq!(rig.client.counters().unwrap().kernel_crashes, 0);
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_closed_pipe_is_replaced() {
    let mut rig = Rig::with(quick());
    for n in 0..3 {
        rig.client.inject(Fault::ClosePipes).unwrap();
        assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
        let fid = rig.file(&format!("f{n}"), b"data");
        rig.archive(fid);
    }
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_damaged_stream_is_left_behind() {
    let mut rig = Rig::with(quick());
    rig.client.inject(Fault::Garbage(vec![0xee; 3000])).unwrap();
    // Damage is seen, the pipe replaced; actions go on.
    let fid = rig.file("file", b"data");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    // An action that was in the damaged stream is lost to us and stays STARTED: ask again then.
    if !rig.client.wait(&[fid], Duration::from_secs(3)).unwrap() {
        let other = rig.file("other", b"data");
        rig.archive(other);
    }
    until(|| rig.log().contains("damaged").then_some(()));
}

#[test]
fn messages_in_pieces_and_twice_are_the_same_actions() {
    let mut rig = Rig::new();
    // Behind each piece the coordinator gives its processor away.
    for (fragment, files) in [(1, 8), (7, 50), (100, 100), (4096, 100)] {
        rig.client.inject(Fault::Fragment(fragment)).unwrap();
        rig.client.inject(Fault::Duplicate(3)).unwrap();
        let fids: Vec<_> = (0..files).map(|n| rig.file(&format!("{fragment}/{n}"), b"x")).collect();
        for batch in fids.chunks(50) {
            rig.client.request(Action::Archive, 1, batch).unwrap();
        }
        assert!(rig.client.wait(&fids, PATIENCE).unwrap(), "{}", rig.log());
    }
    assert_eq!(rig.client.counters().unwrap().ended["ARCHIVE SUCCEED"], 258);
    rig.assert_settled();
}

#[test]
fn waiting_and_running_actions_outlive_the_coordinators_timeout() {
    let mut rig = Rig::with(quick());
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 1500).unwrap();
    rig.client.set(Tunable::LoopPeriodMs, 50).unwrap();
    let gate = rig.store.faults().hold("PutObject");
    let fids: Vec<_> = (0..60).map(|n| rig.file(&format!("f{n}"), b"x")).collect();
    rig.client.request(Action::Archive, 1, &fids[..50]).unwrap();
    rig.client.request(Action::Archive, 1, &fids[50..]).unwrap();
    assert!(gate.wait_held_blocking(6, PATIENCE));
    // Three time-outs long.
    assert!(!rig.client.wait(&fids, Duration::from_millis(4500)).unwrap());
    gate.release();
    assert!(rig.client.wait(&fids, PATIENCE).unwrap());
    assert_eq!(rig.client.counters().unwrap().timed_out, 0);
    for fid in fids {
        assert_eq!(rig.client.state(fid).unwrap().states, states::EXISTS | states::ARCHIVED);
    }
}

#[test]
fn a_restart_of_the_coordinator_ends_restores_well_and_forgets_archives() {
    let mut rig = Rig::with(quick());
    let (one, two) = (rig.file("one", &noise(50_000)), rig.file("two", b"two"));
    rig.archive(one);
    rig.release(one);
    let gets = rig.store.faults().hold("GetObject");
    let puts = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Restore, 1, &[one]).unwrap();
    rig.client.request(Action::Archive, 1, &[two]).unwrap();
    assert!(gets.wait_held_blocking(1, PATIENCE));
    assert!(puts.wait_held_blocking(1, PATIENCE));
    rig.client.inject(Fault::Restart).unwrap();
    assert!(
        rig.client.wait_started(1, PATIENCE).unwrap(),
        "the restore is sent again"
    );
    // The archive stays STARTED in the log; a new request is served, also while the first one runs here still.
    rig.client.request(Action::Archive, 1, &[two]).unwrap();
    assert!(rig.client.wait_started(2, PATIENCE).unwrap());
    gets.release();
    puts.release();
    // What it had written was into a file that went with the MDT.
    assert_eq!(rig.settle(one).states, states::EXISTS | states::ARCHIVED);
    until(|| rig.log().contains("it begins anew").then_some(()));
    assert_eq!(rig.read("one"), noise(50_000));
    until(|| (rig.client.state(two).unwrap().states == states::EXISTS | states::ARCHIVED).then_some(()));
    assert_eq!(rig.store.object_body(BUCKET, "two").unwrap(), b"two");
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.store.uploads("lhsm-sandbox"), []);
}

#[test]
fn a_second_daemon_on_the_mount_is_refused() {
    let mut rig = Rig::new();
    let mut second = rig.spawn();
    second.log = Some(rig.dir.path().join("second.log"));
    let mut daemon = second.start().unwrap();
    assert_eq!(daemon.wait(PATIENCE).unwrap().code(), Some(1));
    let log = std::fs::read_to_string(rig.dir.path().join("second.log")).unwrap();
    assert!(
        log.contains("another lhsmtool-s3 already serves this mount point"),
        "{log}"
    );
    // Nothing else of it was tried: the journal is the first one's.
    assert!(!log.contains("ERROR") && !log.contains("journal"), "{log}");
    let fid = rig.file("file", b"data");
    rig.archive(fid);
}

/// For the last mover of a site.
fn answering() -> Setup {
    let usual = Setup::default();
    Setup {
        settings: usual.settings.replace("[workers]\n", "[workers]\non_stop = 'answer'\n"),
        ..usual
    }
}

#[test]
fn a_second_daemon_in_namespaces_of_its_own_is_refused_too() {
    let rig = Rig::new();
    let first = rig.daemon.as_ref().unwrap().pid();
    let of_its_own: [(&[&str], String); 2] = [
        (&["--net"], format!("process {first} (")),
        (
            &["--net", "--pid", "--fork", "--kill-child", "--mount-proc"],
            "a process that is not seen from here".into(),
        ),
    ];
    for (namespaces, whose) in of_its_own {
        let mut may = Command::new("unshare");
        may.args(namespaces).arg("true").stderr(Stdio::null());
        if !may.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: only root may have namespaces of its own, by unshare");
            return;
        }
        let direct = rig.spawn().command(&[]);
        let output = Command::new("timeout")
            .arg(PATIENCE.as_secs().to_string())
            .arg("unshare")
            .args(namespaces)
            .arg(direct.get_program())
            .args(direct.get_args())
            .envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("another lhsmtool-s3 already serves this mount point") && said.contains(&whose),
            "{said}"
        );
    }
}

#[test]
fn a_program_that_has_locked_the_mounts_root_is_named() {
    let mut rig = Rig::without_daemon(Setup::default());
    let root = std::fs::File::open(rig.mount()).unwrap();
    root.lock_shared().unwrap();
    let mut daemon = rig.spawn().start().unwrap();
    assert_eq!(daemon.wait(PATIENCE).unwrap().code(), Some(1));
    let named = format!("process {} (", std::process::id());
    assert!(rig.log().contains(&named), "{}", rig.log());
    root.unlock().unwrap();
    rig.start();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_stop_lets_running_actions_finish_and_answers_the_rest() {
    let mut rig = Rig::with(answering());
    let gate = rig.store.faults().hold("PutObject");
    let fids: Vec<_> = (0..300).map(|n| rig.file(&format!("f{n}"), b"x")).collect();
    for batch in fids.chunks(50) {
        rig.client.request(Action::Archive, 1, batch).unwrap();
    }
    assert!(gate.wait_held_blocking(6, PATIENCE));
    assert!(rig.client.wait_started(300, PATIENCE).unwrap());
    rig.daemon.as_ref().unwrap().signal(Signal::SIGTERM).unwrap();
    gate.release();
    let status = rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", rig.log());
    assert_eq!(rig.client.agents().unwrap(), []);
    rig.assert_settled();
    let actions = rig.client.actions().unwrap();
    let done = actions.iter().filter(|a| a.state == ActionState::Succeed).count();
    let shut = actions.iter().filter(|a| a.errval == libc::ESHUTDOWN).count();
    assert!(done >= 6);
    assert_eq!(done + shut, 300);
}

#[test]
fn a_second_signal_stops_what_runs_and_leaves_no_upload() {
    let mut rig = Rig::with(answering());
    let fid = rig.file("large", &noise(12 << 20));
    let gate = rig.store.faults().hold("UploadPart");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(2, PATIENCE));
    let mut daemon = rig.daemon.take().unwrap();
    daemon.signal(Signal::SIGTERM).unwrap();
    // The second one must not be merged with the first.
    until(|| {
        assert!(daemon.is_running());
        rig.log().contains("stopping; running actions may finish").then_some(())
    });
    daemon.signal(Signal::SIGTERM).unwrap();
    assert_eq!(daemon.wait(PATIENCE).unwrap().code(), Some(0), "{}", rig.log());
    gate.release();
    rig.assert_settled();
    assert_eq!(rig.client.actions().unwrap()[0].errval, libc::ESHUTDOWN);
}

#[test]
fn a_mount_that_was_replaced_ends_the_daemon_so_that_it_is_started_again_on_the_new_one() {
    let mut rig = Rig::with(quick());
    let former = rig.dir.path().join("former");
    std::fs::rename(rig.mount(), &former).unwrap();
    // Nothing is there: it waits.
    let mut old = lhsm_sandbox::Client::new(&former).unwrap();
    old.inject(Fault::ClosePipes).unwrap();
    assert!(!old.wait_agents(1, Duration::from_millis(500)).unwrap());
    let _new = lhsm_sandbox::Mdt::start(lhsm_sandbox::Options::new(&rig.mount())).unwrap();
    let status = rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1), "{}", rig.log());
    assert!(rig.log().contains("was mounted anew"), "{}", rig.log());
}
