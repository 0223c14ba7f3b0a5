//! No output can hurt the work: logs, completions, metrics, and what commands print.

use std::fs::{self, File};
use std::io::{Read as _, Write as _, pipe};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lhsm_sandbox::protocol::{Action, states};

use crate::metrics::address;
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, until};

const FILES: usize = 1000;
const ARCHIVED: u32 = states::EXISTS | states::ARCHIVED;

impl Rig {
    /// With a log that somebody else reads, or nobody.
    fn logging_to(settings: &str, stderr: Stdio) -> Self {
        let setup = Setup::default();
        let mut rig = Self::without_daemon(Setup {
            settings: format!("{settings}{}", setup.settings),
            ..setup
        });
        rig.daemon = Some(rig.spawn().start_to(stderr).unwrap());
        assert!(rig.client.wait_agents(1, PATIENCE).unwrap());
        rig
    }

    /// Archives, releases and restores so many files.
    fn work(&mut self) {
        let name = |n: usize| format!("d{}/{n}", n % 10);
        let fids: Vec<_> = (0..FILES)
            .map(|n| self.file(&name(n), n.to_string().as_bytes()))
            .collect();
        for batch in fids.chunks(50) {
            self.client.request(Action::Archive, 1, batch).unwrap();
        }
        assert!(self.client.wait(&fids, PATIENCE).unwrap());
        for fid in &fids {
            assert_eq!(self.client.state(*fid).unwrap().states, ARCHIVED);
            self.release(*fid);
        }
        for batch in fids.chunks(50) {
            self.client.request(Action::Restore, 1, batch).unwrap();
        }
        assert!(self.client.wait(&fids, PATIENCE).unwrap());
        for (n, fid) in fids.iter().enumerate() {
            assert_eq!(self.client.state(*fid).unwrap().states, ARCHIVED);
            assert_eq!(self.read(&name(n)), n.to_string().as_bytes());
        }
        self.assert_settled();
    }

    /// A command whose output nobody reads.
    fn unheard(&self, arguments: &[&str]) -> Output {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        self.command(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap()
    }
}

/// A command of root's about a directory. `false`: it may not.
fn as_root(command: &str, arguments: &[&str], directory: &Path) -> bool {
    let mut command = Command::new(command);
    command.args(arguments).arg(directory).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_log_and_a_completion_log_on_full_devices_from_the_start_hurt_no_action() {
    let dir = tempfile::tempdir().unwrap();
    let completions = dir.path().join("done.jsonl");
    std::os::unix::fs::symlink("/dev/full", &completions).unwrap();
    let settings = format!("[completions]\npath = '{}'\n", completions.display());
    let mut rig = Rig::logging_to(&settings, full().into());
    rig.work();
    // The completion log is there again with the device.
    fs::remove_file(&completions).unwrap();
    let fid = rig.file("after", b"data");
    rig.archive(fid);
    until(|| {
        fs::read_to_string(&completions)
            .is_ok_and(|text| text.contains("\"after\""))
            .then_some(())
    });
    assert_eq!(rig.stop(), Some(0), "told to end, it ends in order");
}

#[test]
fn a_log_whose_device_fills_up_in_the_middle_hurts_no_action_and_says_what_was_lost_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join("device");
    fs::create_dir(&device).unwrap();
    // Only root may mount one so small; for others it is full from the start and there is never room.
    let mounted = as_root("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs"], &device);
    let log = device.join("log");
    let stderr = match mounted {
        true => File::create(&log).unwrap(),
        false => full(),
    };
    let mut rig = Rig::logging_to("[log]\nlevel = 'debug'\n", stderr.into());
    rig.work();
    if mounted {
        let size = fs::metadata(&log).unwrap().len();
        assert!((60_000..=64 << 10).contains(&size), "it is full: {size} bytes");
        assert!(as_root("mount", &["-o", "remount,size=64m"], &device));
        until(|| {
            let text = fs::read(&log).unwrap();
            String::from_utf8_lossy(&text)
                .contains("lines of this log were lost")
                .then_some(())
        });
    }
    assert_eq!(rig.stop(), Some(0), "told to end, it ends in order");
    drop(rig);
    if mounted {
        assert!(as_root("umount", &[], &device));
    }
}

#[test]
fn a_log_whose_reader_is_gone_hurts_no_action() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut rig = Rig::logging_to("", writer.into());
    rig.work();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_action_and_tells_its_reader_of_what_was_lost() {
    let (mut reader, writer) = pipe().unwrap();
    // More than the pipe and the daemon's own buffer hold.
    let mut rig = Rig::logging_to("[log]\nlevel = 'trace'\n", writer.into());
    rig.work();
    let reader = std::thread::spawn(move || {
        let mut log = Vec::new();
        reader.read_to_end(&mut log).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    });
    assert_eq!(rig.stop(), Some(0));
    let log = reader.join().unwrap();
    assert!(log.contains("lines of this log were lost: whoever reads it is too slow"));
}

#[test]
fn a_log_that_nobody_reads_keeps_the_daemon_from_no_end() {
    // Somebody has it open all the time.
    let (_reader, writer) = pipe().unwrap();
    let mut rig = Rig::logging_to("[log]\nlevel = 'trace'\n", writer.into());
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn clients_that_drip_do_not_keep_others_from_the_metrics() {
    let setup = Setup::default();
    let rig = Rig::with(Setup {
        settings: format!("[metrics]\nlisten = '127.0.0.1:0'\n{}", setup.settings),
        ..setup
    });
    let address = until(|| rig.log().contains("127.0.0.1:").then(|| address(&rig.log())));
    let drippers: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            std::thread::spawn(move || {
                // Until it is thrown out.
                while stream.write_all(b"G").is_ok() {
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            })
        })
        .collect();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for dripper in drippers {
        dripper.join().unwrap();
    }
}

#[test]
fn commands_whose_reader_is_gone_end_without_a_word() {
    let mut rig = Rig::new();
    for n in 0..3 {
        rig.file(&format!("f{n}"), b"data");
    }
    let mount = rig.mount().display().to_string();
    let job = rig.run(&["archive", &mount, "--json"]);
    assert!(job.status.success(), "{job:?}");
    let line: serde_json::Value = serde_json::from_slice(&job.stdout).unwrap();
    let id = line["id"].as_str().unwrap();
    // A finding for the scrub.
    rig.store.delete(BUCKET, "f1");
    let commands: [(&[&str], &[i32]); 8] = [
        (&["jobs", "list"], &[0]),
        (&["jobs", "show", id], &[0]),
        (&["jobs", "report", id], &[141]),
        (&["status", id], &[141]),
        // Whatever it finds.
        (&["check", "--stores"], &[0, 1]),
        (&["print-config"], &[0]),
        (&["scrub", &mount, "--grace", "0s"], &[141]),
        (&["archive", &mount], &[0]),
    ];
    for (arguments, codes) in commands {
        let output = rig.unheard(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code().is_some_and(|code| codes.contains(&code)),
            "{arguments:?}: {output:?}"
        );
        assert!(
            !said.contains("panicked") && !said.contains("roken pipe"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn a_repair_whose_reader_is_gone_repairs_all_that_it_found() {
    const FILES: usize = 300;
    let mut rig = Rig::new();
    let fids: Vec<_> = (0..FILES).map(|n| rig.file(&format!("f{n}"), b"data")).collect();
    for batch in fids.chunks(50) {
        rig.client.request(Action::Archive, 1, batch).unwrap();
    }
    assert!(rig.client.wait(&fids, PATIENCE).unwrap());
    for n in [7, 250] {
        rig.store.delete(BUCKET, &format!("f{n}"));
    }
    let mount = rig.mount().display().to_string();
    let output = rig.unheard(&["scrub", &mount, "--repair", "--grace", "0s"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for (n, fid) in fids.iter().enumerate() {
        let dirty = if n == 7 || n == 250 { states::DIRTY } else { 0 };
        assert_eq!(rig.client.state(*fid).unwrap().states, ARCHIVED | dirty, "f{n}");
    }
}

#[test]
fn a_full_device_under_stdout_is_said_and_makes_the_exit_code_1() {
    let mut rig = Rig::new();
    rig.file("file", b"data");
    let mount = rig.mount().display().to_string();
    let into_full = |arguments: &[&str]| {
        let mut command = rig.command(arguments);
        command.stdout(full()).stderr(Stdio::piped()).output().unwrap()
    };
    for arguments in [&["archive", &mount][..], &["jobs", "list"], &["print-config"]] {
        let output = into_full(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("stdout can't be written: No space left"),
            "{arguments:?}: {said}"
        );
    }
    assert_eq!(rig.keys(), ["file"], "what it was to do is done");
}
