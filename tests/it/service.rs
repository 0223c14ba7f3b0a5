//! The daemon among systemd, monitors and scripts for the reference copytool.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use lhsm_sandbox::process;
use lhsm_sandbox::protocol::Action;
use lhsm_sandbox_s3::Config;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::rig::{BUCKET, PATIENCE, Rig, Setup, until};

impl Rig {
    /// The daemon with more arguments than the usual ones.
    pub(crate) fn daemon_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        command.stdout(Stdio::null()).stderr(log);
        command
    }
}

#[test]
fn systemd_hears_ready_status_watchdog_and_stopping() {
    let mut rig = Rig::without_daemon(Setup::default());
    let socket = rig.dir.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = rig
        .daemon_command(&[])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "300000")
        .spawn()
        .unwrap();
    let next = |wanted: &str| {
        until(|| {
            let mut buffer = [0; 1000];
            let n = systemd.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            text.contains(wanted).then_some(text)
        })
    };
    assert!(next("READY=1").contains("STATUS=registered"));
    next("WATCHDOG=1");
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    next("1 done, 0 failed");
    kill(Pid::from_raw(daemon.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    next("STOPPING=1");
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn while_the_coordinator_is_stopped_systemd_does_not_wait_for_it() {
    let mut rig = Rig::without_daemon(Setup::default());
    rig.client
        .control(lhsm_sandbox::protocol::HsmControl::Shutdown)
        .unwrap();
    let socket = rig.dir.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = rig.daemon_command(&[]).env("NOTIFY_SOCKET", &socket).spawn().unwrap();
    let mut buffer = [0; 1000];
    let n = systemd.recv(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
    assert!(
        text.contains("READY=1") && text.contains("waiting for the coordinator"),
        "{text}"
    );
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn the_unit_waits_longer_for_the_end_than_the_daemon_may_take() {
    let unit = include_str!("../../systemd/lhsmtool-s3@.service");
    let example = include_str!("../../config/lhsmtool-s3.toml");
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .unwrap();
    let drain = example
        .lines()
        .find_map(|line| line.strip_prefix("drain_timeout = \"")?.strip_suffix("m\""))
        .unwrap();
    // 30 s for actions that were told to stop, 60 s for the last steps.
    let needed = drain.parse::<u64>().unwrap() * 60 + 30 + 60;
    assert!(stop.parse::<u64>().unwrap() > needed, "{stop} s against {needed} s");
}

#[test]
fn each_action_has_a_line_in_the_completion_log() {
    let mut rig = Rig::without_daemon(Setup::default());
    let log = rig.dir.path().join("done.jsonl");
    rig.add_settings(&format!("[completions]\npath = '{}'\n", log.display()));
    rig.start();
    let good = rig.file("dir/good", b"12345");
    rig.archive(good);
    rig.store.faults().fail("PutObject", 403, "AccessDenied", 1);
    let bad = rig.file("bad", b"x");
    rig.act(Action::Archive, bad);
    let lines = until(|| {
        let text = fs::read_to_string(&log).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (lines.len() == 2).then_some(lines)
    });
    assert_eq!(
        (&lines[0]["outcome"], &lines[0]["path"], &lines[0]["key"]),
        (&"done".into(), &"dir/good".into(), &"dir/good".into())
    );
    assert_eq!(
        (&lines[0]["bytes"], &lines[0]["errno"], &lines[0]["class"]),
        (&5.into(), &0.into(), &"archive".into())
    );
    assert_eq!(
        (&lines[1]["outcome"], &lines[1]["errno"]),
        (&"failed".into(), &libc::EACCES.into())
    );
    assert!(lines[1]["reason"].as_str().unwrap().contains("AccessDenied"));
}

#[test]
fn a_monitor_reads_events_as_the_reference_copytool_writes_them() {
    let mut rig = Rig::without_daemon(Setup::default());
    let path = rig.dir.path().join("events");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut options = fs::File::options();
    let mut fifo = options.read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let mut daemon = rig
        .daemon_command(&["--event-fifo", &path.display().to_string(), "-u", "1"])
        .spawn()
        .unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap());
    let mut text = String::new();
    let mut next = |wanted: &str, total: Value, nth: usize| {
        until(|| {
            let mut buffer = [0; 65536];
            // Nothing there is an error, too.
            if let Ok(n) = fifo.read(&mut buffer) {
                text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            // A reader of lines, as those of the reference are.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let mut wanted = events
                .filter(|event| event["event_type"] == wanted && (total.is_null() || event["total_bytes"] == total));
            wanted.nth(nth)
        })
    };
    let registered = next("REGISTER", Value::Null, 0);
    assert_eq!(registered["archive"], 1);
    assert_eq!(registered["mount_point"], rig.mount().display().to_string());
    let fid = rig.file("dir/file", b"12345");
    rig.archive(fid);
    let bare = fid.to_string();
    let bare = bare.trim_matches(['[', ']']);
    let started = next("ARCHIVE_START", Value::Null, 0);
    assert_eq!(
        (&started["source_fid"], &started["lustre_path"], &started["total_bytes"]),
        (&bare.into(), &"dir/file".into(), &5.into())
    );
    // Such as 2026-11-25 14:00:00 +0000.
    assert_eq!(started["event_time"].as_str().unwrap().len(), 25, "{started}");
    let begun = next("ARCHIVE_RUNNING", 5.into(), 0);
    assert_eq!(begun["current_bytes"], 0, "{begun}");
    assert_eq!(next("ARCHIVE_FINISH", Value::Null, 0)["source_fid"], bare);
    rig.store.faults().fail("PutObject", 403, "AccessDenied", 1);
    let bad = rig.file("bad", b"x");
    rig.act(Action::Archive, bad);
    assert_eq!(next("ARCHIVE_ERROR", Value::Null, 0)["errno"], libc::EACCES);
    let gate = rig.store.faults().hold("PutObject");
    let slow = rig.file("slow", b"xyz");
    rig.client.request(Action::Archive, 1, &[slow]).unwrap();
    // The first one was of its begin.
    let running = next("ARCHIVE_RUNNING", 3.into(), 1);
    assert_eq!(
        (&running["total_bytes"], &running["current_bytes"]),
        (&3.into(), &0.into())
    );
    rig.client.request(Action::Cancel, 1, &[slow]).unwrap();
    next("ARCHIVE_CANCEL", Value::Null, 0);
    gate.release();
    kill(Pid::from_raw(daemon.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    next("UNREGISTER", Value::Null, 0);
    assert!(daemon.wait().unwrap().success());
    assert!(path.exists(), "somebody else made it");
}

#[test]
fn a_script_for_the_reference_copytool_starts_and_ends_this_one() {
    let mut rig = Rig::without_daemon(Setup::default());
    let pid_file = rig.dir.path().join("pid");
    let (pid, mount) = (pid_file.display().to_string(), rig.mount().display().to_string());
    let arguments = [
        "-v",
        "--daemon",
        "--pid-file",
        &pid,
        "--hsm-root",
        "/nowhere",
        "--no-shadow",
        "-A",
        "1",
        "--bandwidth",
        "100",
        "-c",
        "1",
        "--update-interval",
        "5",
        &mount,
    ];
    let status = rig.daemon_command(&arguments).status().unwrap();
    assert!(status.success(), "{}", rig.log());
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap());
    assert_eq!(rig.client.agents().unwrap()[0].archives, [1]);
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    until(|| rig.log().contains("DEBUG").then_some(()));
    until(|| rig.log().contains("--hsm-root").then_some(()));
    // pkill --pidfile=F hsmtool: by the number and by a part of the name.
    let number = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap();
    assert!(name.contains("hsmtool"), "{name}");
    kill(Pid::from_raw(number), Signal::SIGTERM).unwrap();
    until(|| (!pid_file.exists()).then_some(()));
}

#[test]
fn flags_that_can_not_be_obeyed_are_refused_and_a_dry_run_registers_nothing() {
    let mut rig = Rig::without_daemon(Setup::default());
    let mount = rig.mount().display().to_string();
    let output = rig.run(&["--archive", "7", &mount]);
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--archive 7"),
        "{output:?}"
    );
    let output = rig.run(&["--dry-run", &mount]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(rig.client.agents().unwrap(), []);
    let output = rig.run(&["--event-fifo", &rig.dir.path().display().to_string(), &mount]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no FIFO"),
        "{output:?}"
    );
}

#[test]
fn with_abort_on_error_the_first_failure_ends_the_daemon() {
    let mut rig = Rig::without_daemon(Setup::default());
    let mut daemon = rig.daemon_command(&["--abort-on-error"]).spawn().unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap());
    let good = rig.file("good", b"x");
    rig.archive(good);
    rig.store.faults().fail("PutObject", 403, "AccessDenied", 1);
    let bad = rig.file("bad", b"x");
    rig.act(Action::Archive, bad);
    assert_eq!(daemon.wait().unwrap().code(), Some(1));
    assert!(rig.log().contains("AccessDenied"));
}

#[test]
fn an_import_as_the_reference_copytool_has_it_is_ours() {
    let rig = Rig::new();
    rig.put("lab/a", b"1", &[]);
    rig.put("other", b"2", &[]);
    let target = rig.mount().join("lab");
    fs::create_dir(&target).unwrap();
    let output = rig.run(&["--archive", "1", "--import", "lab", &target.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    // SRC's path is kept below DST, as there.
    assert!(target.join("lab/a").exists() && !target.join("other").exists());
}

#[test]
fn a_reload_takes_new_keys_and_leaves_those_that_the_store_refuses() {
    let mut rig = Rig::without_daemon(Setup::default());
    let file = rig.dir.path().join("credentials");
    let write = |key: &str, secret: &str| {
        let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        process::replace(&file, &text).unwrap();
    };
    let usual = Config::default();
    write(&usual.access_key, &usual.secret_key);
    let mut spawn = rig.spawn();
    spawn.environment = vec![("AWS_SHARED_CREDENTIALS_FILE".into(), file.display().to_string())];
    rig.daemon = Some(spawn.start().unwrap());
    until(|| rig.log().contains("registered; serving").then_some(()));
    let reload = |rig: &Rig, says: &str| {
        rig.daemon.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
        until(|| rig.log().contains(says).then_some(()));
    };
    // The store does not know them yet.
    write("new-key", "new-secret");
    reload(&rig, "credentials not reloaded");
    let fid = rig.file("before", b"data");
    rig.archive(fid);
    rig.store.set_keys("new-key", "new-secret");
    reload(&rig, "new credentials");
    let fid = rig.file("after", b"data");
    rig.archive(fid);
    assert!(!rig.log().contains("new-secret"));
}

#[test]
fn a_reload_adds_an_archive_while_files_of_another_one_are_in_hand() {
    let mut rig = Rig::new();
    let gate = rig.store.faults().hold("PutObject");
    let first = rig.file("first", b"of archive 1");
    rig.client.request(Action::Archive, 1, &[first]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let config = rig.spawn().config;
    let usual = fs::read_to_string(&config).unwrap();
    let add = |rig: &Rig, id: u32, bucket: &str| {
        let more = format!(
            "\n[[archive]]\nid = {id}\nbucket = '{bucket}'\nprefix = 'more/'\nendpoint_url = '{}'\n",
            rig.store.endpoint()
        );
        process::replace(&config, &format!("{usual}{more}")).unwrap();
        rig.daemon.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    };
    // One that can't be used is said, and changes nothing.
    add(&rig, 7, "no-such-bucket");
    until(|| rig.log().contains("an archive is not added").then_some(()));
    add(&rig, 2, BUCKET);
    until(|| rig.log().contains("registered again").then_some(()));
    let agents = rig.client.agents().unwrap();
    assert_eq!(
        (agents.len(), &agents[0].archives, agents[0].pipes),
        (1, &vec![1, 2], 1)
    );
    gate.release();
    rig.settle(first);
    let second = rig.file("second", b"of archive 2");
    rig.client.request(Action::Archive, 2, &[second]).unwrap();
    assert_eq!(rig.settle(second).archive_id, 2);
    rig.release(first);
    rig.release(second);
    assert_eq!(rig.restore("first", first), b"of archive 1");
    assert_eq!(rig.restore("second", second), b"of archive 2");
    assert_eq!(rig.store.object_body(BUCKET, "more/second").unwrap(), b"of archive 2");
    // And the one registration was enough: a pipe that is given up is no lost one.
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.log().matches("registered again").count(), 1, "{}", rig.log());
    rig.assert_settled();
}

#[test]
fn a_reload_changes_the_level_of_the_log() {
    let setup = Setup::default();
    let mut rig = Rig::with(Setup {
        settings: format!("[log]\nlevel = 'info'\n{}", setup.settings),
        ..setup
    });
    let config = rig.spawn().config;
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("level = 'info'", "level = 'debug'")).unwrap();
    assert!(!rig.log().contains("DEBUG"));
    rig.daemon.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    until(|| rig.log().contains("log level").then_some(()));
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    until(|| rig.log().contains("DEBUG").then_some(()));
}
