//! What the daemon does about threads that hang, and what whoever started it learns meanwhile.

use std::fs;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Child;

use lhsm_sandbox::protocol::{Action, Fault, HsmControl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::recovery::{ends_well, journal_is_written};
use crate::rig::{PATIENCE, Rig, Setup, until};

fn pid_of(child: &Child) -> i32 {
    child.id().try_into().unwrap()
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// It ends, with this code.
fn code_of(child: &mut Child) -> Option<i32> {
    until(|| child.try_wait().unwrap()).code()
}

/// Until the process has a thread of that name.
fn until_thread(rig: &Rig, pid: i32, name: &str) {
    let began = std::time::Instant::now();
    until(|| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let names: Vec<_> = tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
            .collect();
        let soon = began.elapsed() * 10 < PATIENCE * 9 && !is_over(pid);
        assert!(soon, "no thread '{name}' among {names:?}; the log:\n{}", rig.log());
        names.iter().any(|found| found.trim() == name).then_some(())
    });
}

/// Gone, or waited for by nobody.
fn is_over(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// A socket as systemd has it, and its path.
fn systemd(rig: &Rig) -> (UnixDatagram, String) {
    let path = rig.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path.display().to_string())
}

/// The next message with these words.
fn next(systemd: &UnixDatagram, wanted: &str) -> String {
    until(|| {
        let mut buffer = [0; 1000];
        let n = systemd.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        text.contains(wanted).then_some(text)
    })
}

#[test]
fn the_watchdog_is_fed_and_a_signal_is_heard_while_a_stopped_coordinator_is_waited_for() {
    let mut rig = Rig::without_daemon(Setup::default());
    rig.client.control(HsmControl::Shutdown).unwrap();
    let (systemd, path) = systemd(&rig);
    let mut daemon = rig
        .daemon_command(&[])
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", "300000")
        .spawn()
        .unwrap();
    next(&systemd, "READY=1");
    for _ in 0..10 {
        let text = next(&systemd, "WATCHDOG=1");
        assert!(text.contains("waiting for the coordinator"), "{text}");
    }
    signal(pid_of(&daemon), Signal::SIGTERM);
    next(&systemd, "STOPPING=1");
    assert!(code_of(&mut daemon) == Some(0), "{}", rig.log());
    assert!(!rig.log().contains("did not end in time"), "{}", rig.log());
}

#[test]
fn a_signal_ends_a_daemon_that_a_silent_mdt_holds_at_its_mount() {
    let mut rig = Rig::without_daemon(Setup::default());
    rig.client.inject(Fault::Silence(true)).unwrap();
    let mut daemon = rig.daemon_command(&[]).spawn().unwrap();
    until_thread(&rig, pid_of(&daemon), "mount");
    signal(pid_of(&daemon), Signal::SIGTERM);
    assert!(code_of(&mut daemon) == Some(0), "{}", rig.log());
    let log = rig.log();
    let line = log.lines().find(|line| line.contains("did not end in time"));
    assert!(line.is_some_and(|line| line.contains("mount")), "{log}");
}

#[test]
fn a_signal_ends_a_daemon_that_a_silent_mdt_holds_at_its_registration_and_the_watchdog_is_fed_until_then() {
    let mut rig = Rig::without_daemon(Setup::default());
    rig.client.control(HsmControl::Shutdown).unwrap();
    let (systemd, path) = systemd(&rig);
    let mut daemon = rig
        .daemon_command(&[])
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", "300000")
        .spawn()
        .unwrap();
    until(|| rig.log().contains("can't register yet").then_some(()));
    rig.client.inject(Fault::Silence(true)).unwrap();
    until_thread(&rig, pid_of(&daemon), "mdt-probe");
    for _ in 0..10 {
        next(&systemd, "WATCHDOG=1");
    }
    // It is held still, not there for a moment.
    until_thread(&rig, pid_of(&daemon), "mdt-probe");
    signal(pid_of(&daemon), Signal::SIGTERM);
    next(&systemd, "STOPPING=1");
    assert!(code_of(&mut daemon) == Some(0), "{}", rig.log());
    let log = rig.log();
    let line = log.lines().find(|line| line.contains("did not end in time"));
    assert!(line.is_some_and(|line| line.contains("register")), "{log}");
}

#[test]
fn a_silent_mdt_holds_up_no_stop_and_what_was_in_hand_is_done_by_the_next_daemon() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    journal_is_written(&rig);
    rig.client.inject(Fault::Silence(true)).unwrap();
    gate.release();
    let mut daemon = rig.daemon.take().unwrap();
    // A second signal and a third cut the waiting short; the first words must be out before the next one.
    for words in [
        "stopping; running actions may finish",
        "stopping the actions that still run",
        "some actions can't be stopped",
    ] {
        daemon.signal(Signal::SIGTERM).unwrap();
        until(|| rig.log().contains(words).then_some(()));
    }
    let status = daemon.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", rig.log());
    let log = rig.log();
    let line = log.lines().find(|line| line.contains("did not end in time"));
    let line = line.unwrap_or_else(|| panic!("none is named; the log:\n{log}"));
    let named = line.rsplit("threads=").next().unwrap();
    for thread in ["worker-", "registrar"] {
        assert!(named.contains(thread), "{line}");
    }
    assert!(!named.contains("journal") && !named.contains("intake"), "{line}");
    // In words that people read.
    for words in ["stopping; running", "some actions can't be stopped", "stopped seconds"] {
        let line = log.lines().find(|line| line.contains(words)).unwrap();
        assert!(!line.contains(['{', '(']), "{line}");
    }
    rig.client.inject(Fault::Silence(false)).unwrap();
    rig.start();
    ends_well(&mut rig, &[fid]);
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_daemon_in_the_background_serves_when_its_starter_ends_and_leaves_a_successors_pid_file() {
    let mut rig = Rig::without_daemon(Setup::default());
    let path = rig.dir.path().join("pid");
    let pid_file = path.display().to_string();
    let arguments = ["--daemon", "--pid-file", &pid_file];
    assert!(
        rig.daemon_command(&arguments).status().unwrap().success(),
        "{}",
        rig.log()
    );
    assert_eq!(rig.client.agents().unwrap().len(), 1, "{}", rig.log());
    let number = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    fs::write(&path, "1\n").unwrap();
    signal(number, Signal::SIGTERM);
    until(|| is_over(number).then_some(()));
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
}

#[test]
fn a_starter_waits_with_the_daemon_for_a_stopped_coordinator_and_tells_when_it_can_not_serve() {
    let mut rig = Rig::without_daemon(Setup::default());
    let path = rig.dir.path().join("pid");
    let pid_file = path.display().to_string();
    let arguments = ["--daemon", "--pid-file", &pid_file];
    rig.client.control(HsmControl::Shutdown).unwrap();
    let mut starter = rig.daemon_command(&arguments).spawn().unwrap();
    until(|| rig.log().contains("can't register yet").then_some(()));
    assert!(starter.try_wait().unwrap().is_none() && !path.exists());
    rig.client.control(HsmControl::Enabled).unwrap();
    assert!(code_of(&mut starter) == Some(0), "{}", rig.log());
    let number = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    // A second one on this mount can't.
    let status = rig.daemon_command(&arguments).status().unwrap();
    assert_eq!(status.code(), Some(1), "{}", rig.log());
    assert!(
        rig.log().contains("another lhsmtool-s3 already serves"),
        "{}",
        rig.log()
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{number}\n"));
    signal(number, Signal::SIGTERM);
    until(|| is_over(number).then_some(()));
    assert!(!path.exists());
}

#[test]
fn a_file_system_whose_identity_can_not_be_had_is_not_served_under_another_one() {
    let mut rig = Rig::without_daemon(Setup::default());
    let errno = libc::EIO;
    rig.client.inject(Fault::XattrErrno { errno, times: 1 }).unwrap();
    let mut daemon = rig.spawn().start().unwrap();
    assert_eq!(daemon.wait(PATIENCE).unwrap().code(), Some(1), "{}", rig.log());
    let log = rig.log();
    assert!(log.contains("can't be told from a later one of its name"), "{log}");
    rig.start();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
}

#[test]
fn a_command_that_only_looks_gives_a_file_system_no_identity() {
    let mut rig = Rig::without_daemon(Setup::default());
    let mount = rig.mount().display().to_string();
    let file = rig.mount().join("file");
    fs::write(&file, b"data").unwrap();
    for arguments in [
        &["check"][..],
        &["scrub", &mount],
        &["archive", "--dry-run", &mount],
        &["import", "s3://lhsm-sandbox", &mount, "--dry-run"],
    ] {
        // Whatever it finds.
        let output = rig.run(arguments);
        assert!(
            output.status.code().is_some_and(|code| code < 2),
            "{arguments:?}: {output:?}"
        );
        let root = rig.client.fid(Path::new(&mount)).unwrap();
        let identity = rig.client.xattr(root, "trusted.lhsm_s3_fs");
        assert!(identity.is_err(), "{arguments:?}: {identity:?}");
    }
    rig.start();
    let root = rig.client.fid(Path::new(&mount)).unwrap();
    assert_eq!(rig.client.xattr(root, "trusted.lhsm_s3_fs").unwrap().len(), 16);
}

#[test]
fn clients_of_the_metrics_that_break_off_leave_nothing_behind() {
    let setup = Setup::default();
    let rig = Rig::with(Setup {
        settings: format!("[metrics]\nlisten = '127.0.0.1:0'\n{}", setup.settings),
        ..setup
    });
    let address = crate::metrics::address(&rig.log());
    let port = format!(":{:04X}", address.rsplit(':').next().unwrap().parse::<u16>().unwrap());
    // The daemon's ends, but for the one that listens and those that only the kernel remembers.
    let connections = || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table
            .lines()
            .skip(1)
            .map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row[1].ends_with(&port) && !["0A", "06"].contains(&row[3]))
            .count()
    };
    let servers = || {
        let pid = rig.daemon.as_ref().unwrap().pid();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tasks
            .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("metrics")))
            .count()
    };
    until(|| rig.log().contains("registered; serving").then_some(()));
    let before = servers();
    for n in 0..40 {
        let mut client = TcpStream::connect(&address).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\n\r\n";
        // Nothing, a part, all of it; and nobody reads.
        client.write_all(&request[..request.len() * (n % 3) / 2]).unwrap();
        if n % 2 == 0 {
            client.shutdown(Shutdown::Both).unwrap();
        }
    }
    until(|| (connections() == 0 && servers() == before).then_some(()));
}
