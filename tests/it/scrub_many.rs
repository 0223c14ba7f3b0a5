//! One bad thing never ends a scrub, an export or a bulk job; and copies that will not stay are told in time.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use lhsm_sandbox::protocol::states;
use lhsm_sandbox_s3::{Config, Dialect};
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};

use crate::import::{count, json};
use crate::rig::{BUCKET, Rig, Setup, noise};
use crate::scrub::archived;

const ARCHIVED: u32 = states::EXISTS | states::ARCHIVED;

/// Nested directories of 200 letters each, as a user makes them by changing into each; the innermost.
fn deep_tree(at: &Path, levels: usize) -> OwnedFd {
    let name = "d".repeat(200);
    let mut directory: OwnedFd = fs::File::open(at).unwrap().into();
    for _ in 0..levels {
        mkdirat(&directory, name.as_str(), Mode::from_bits_truncate(0o755)).unwrap();
        directory = openat(&directory, name.as_str(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    directory
}

/// The same command without root's right to read everything.
fn powerless(command: &Command) -> Output {
    let mut other = if nix::unistd::geteuid().is_root() {
        let mut setpriv = Command::new("setpriv");
        let less = "-dac_override,-dac_read_search";
        setpriv.args([format!("--bounding-set={less}"), format!("--inh-caps={less}")]);
        setpriv.arg(command.get_program());
        setpriv
    } else {
        Command::new(command.get_program())
    };
    other.args(command.get_args());
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A store that keeps versions.
fn versioned() -> Rig {
    Rig::with(Setup {
        store: Config {
            versioning: true,
            ..Config::default()
        },
        ..Setup::default()
    })
}

#[test]
fn a_tree_deeper_than_a_path_can_be_does_not_end_a_scrub_an_export_or_a_job() {
    let mut rig = Rig::new();
    archived(&mut rig, "a", b"before");
    archived(&mut rig, "z", b"behind");
    let moved = archived(&mut rig, "moved", b"into the deep");
    let deep = deep_tree(&rig.mount(), 22);
    let root: OwnedFd = fs::File::open(rig.mount()).unwrap().into();
    renameat(&root, "moved", &deep, "moved").unwrap();
    // By its FID it is a file like any other.
    let line = rig.scrub(&[]);
    let found = ["files", "good", "missing", "orphans", "unknown"].map(|name| count(&line, name));
    assert_eq!(found, [3, 3, 0, 0, 0], "{line}");

    fs::create_dir(rig.mount().join("dir")).unwrap();
    std::os::unix::fs::symlink("a", rig.mount().join("link")).unwrap();
    let mount = rig.mount().display().to_string();
    let output = rig.run(&["export", &mount, "--json"]);
    let line = json(&output);
    assert_eq!(count(&line, "links"), 1, "{line}");
    // Those whose keys would be longer than a key can be are told one by one.
    assert_eq!(
        count(&line, "directories") + count(&line, "failed"),
        23,
        "{line} {}",
        text(&output)
    );
    assert!(count(&line, "directories") >= 6, "{line}");
    assert_eq!(output.status.success(), count(&line, "failed") == 0);

    // One that nobody can ask for: Lustre would give it a FID, the stand-in has none for it.
    let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
    drop(openat(&deep, "new", flags, Mode::from_bits_truncate(0o644)).unwrap());
    let fresh = rig.file("fresh", b"not archived yet");
    let output = rig.run(&["archive", &mount, "--json"]);
    let line = json(&output);
    let found = ["done", "already", "failed"].map(|name| count(&line, name));
    assert_eq!(found, [1, 3, 1], "{line} {}", text(&output));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(rig.client.state(fresh).unwrap().states, ARCHIVED);
    let report = rig.dir.path().join("report");
    let line = rig.scrub(&["--report", &report.display().to_string()]);
    assert_eq!((count(&line, "good"), count(&line, "unknown")), (4, 1), "{line}");
    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains("ddd/new"), "{report}");
    assert_eq!(rig.client.state(moved).unwrap().states, ARCHIVED);
}

#[test]
fn a_directory_that_can_not_be_read_is_one_line_and_everything_else_is_done() {
    let mut rig = Rig::new();
    archived(&mut rig, "a/file", b"1");
    archived(&mut rig, "secret/file", b"2");
    archived(&mut rig, "z/file", b"3");
    rig.file("z/new", b"4");
    let secret = rig.mount().join("secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let mount = rig.mount().display().to_string();
    let report = rig.dir.path().join("report");
    let report_name = report.display().to_string();

    let scrub = [
        "scrub",
        &mount,
        "--json",
        "--delete-orphans",
        "--grace",
        "0s",
        "--report",
        &report_name,
    ];
    rig.put("unrelated", b"object", &[]);
    let output = powerless(&rig.command(&scrub));
    let line = json(&output);
    let found = ["files", "good", "unarchived", "unknown", "orphans"].map(|name| count(&line, name));
    assert_eq!(found, [3, 2, 1, 1, 0], "{line} {}", text(&output));
    assert_eq!(output.status.code(), Some(1));
    let lines = fs::read_to_string(report).unwrap();
    assert!(lines.contains("\"secret\"") && lines.contains("os error 13"), "{lines}");
    // Any object may be the copy of what is in there.
    assert!(lines.contains("no object was called an orphan"), "{lines}");
    assert!(rig.keys().contains(&"secret/file".to_owned()));

    let output = powerless(&rig.command(&["export", &mount, "--json"]));
    let line = json(&output);
    assert_eq!((count(&line, "directories"), count(&line, "failed")), (2, 1), "{line}");
    assert!(
        !output.status.success() && text(&output).contains("secret"),
        "{}",
        text(&output)
    );

    let output = powerless(&rig.command(&["archive", &mount, "--json"]));
    let line = json(&output);
    let found = ["done", "already", "failed"].map(|name| count(&line, name));
    assert_eq!(found, [1, 2, 1], "{line} {}", text(&output));
    assert_eq!(output.status.code(), Some(1));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_the_store_refuses_of_one_object_is_one_finding_and_says_nothing_of_the_file() {
    let mut rig = Rig::new();
    for n in 0..6 {
        archived(&mut rig, &format!("f{n}"), b"data");
    }
    let denied = archived(&mut rig, "denied", b"data");
    rig.release(denied);
    rig.store.deny(BUCKET, "denied");
    // Another one is answered nonsense, once.
    rig.store.faults().fail("HeadObject", 400, "BadRequest", 1);
    let report = rig.dir.path().join("report");
    let line = rig.scrub(&["--repair", "--report", &report.display().to_string()]);
    let found = ["good", "unknown", "missing", "mended"].map(|name| count(&line, name));
    let report = fs::read_to_string(report).unwrap();
    // The nonsense may have met the one that is denied.
    assert!(matches!(found, [5, 2, 0, 0] | [6, 1, 0, 0]), "{line} {report}");
    assert!(report.contains("'denied' can't be looked at"), "{report}");
    assert_eq!(rig.client.state(denied).unwrap().states, ARCHIVED | states::RELEASED);
}

#[test]
fn an_object_in_an_archive_class_is_one_finding_of_a_scrub_that_reads_everything() {
    let mut rig = Rig::new();
    for n in 0..3 {
        archived(&mut rig, &format!("f{n}"), b"data");
    }
    rig.store.faults().fail("GetObject", 403, "InvalidObjectState", 1);
    let line = rig.scrub(&["--deep"]);
    assert_eq!((count(&line, "good"), count(&line, "unknown")), (2, 1), "{line}");
}

#[test]
fn an_orphan_that_can_not_be_deleted_leaves_the_others_to_go() {
    let mut rig = Rig::new();
    for n in 0..4 {
        archived(&mut rig, &format!("f{n}"), b"data");
    }
    assert_eq!(rig.stop(), Some(0));
    for n in 0..3 {
        fs::remove_file(rig.mount().join(format!("f{n}"))).unwrap();
    }
    // As a lock answers.
    rig.store.faults().fail("DeleteObject", 403, "AccessDenied", 1);
    let line = rig.scrub(&["--delete-orphans"]);
    assert_eq!((count(&line, "orphans"), count(&line, "mended")), (3, 2), "{line}");
    assert_eq!(rig.keys().len(), 2);
    let line = rig.scrub(&["--delete-orphans"]);
    assert_eq!((count(&line, "orphans"), count(&line, "mended")), (1, 1), "{line}");
    assert_eq!(rig.keys(), ["f3"]);
}

#[test]
fn where_many_copies_are_missing_at_once_none_is_called_lost_unless_that_is_asked_for() {
    let mut rig = Rig::new();
    let names: Vec<_> = (0..12).map(|n| format!("f{n:02}")).collect();
    let fids: Vec<_> = names.iter().map(|name| archived(&mut rig, name, b"data")).collect();
    for (name, fid) in names.iter().zip(&fids) {
        rig.release(*fid);
        rig.store.delete(BUCKET, name);
    }
    let line = rig.scrub(&["--repair"]);
    assert_eq!((count(&line, "missing"), count(&line, "mended")), (12, 0), "{line}");
    let why = line["notes"][0].as_str().unwrap();
    assert!(why.contains("12 of 12") && why.contains("--max-missing 1%"), "{why}");
    for fid in &fids {
        assert_eq!(rig.client.state(*fid).unwrap().states, ARCHIVED | states::RELEASED);
    }
    let line = rig.scrub(&["--repair", "--max-missing", "11"]);
    assert_eq!((count(&line, "missing"), count(&line, "mended")), (12, 0), "{line}");
    let line = rig.scrub(&["--repair", "--max-missing", "12"]);
    assert_eq!((count(&line, "missing"), count(&line, "mended")), (12, 12), "{line}");
    let lost = ARCHIVED | states::RELEASED | states::LOST;
    for fid in &fids {
        assert_eq!(rig.client.state(*fid).unwrap().states, lost);
    }
    let mount = rig.mount().display().to_string();
    let output = rig.run(&["scrub", &mount, "--max-missing", "two"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn a_copy_that_a_lifecycle_rule_is_going_to_take_is_told_and_made_anew_when_asked() {
    let mut rig = Rig::new();
    let here = archived(&mut rig, "here", b"data");
    let away = archived(&mut rig, "away", b"more data");
    archived(&mut rig, "safe", b"x");
    rig.release(away);
    rig.store.dialects().set(&[Dialect::Expires]);
    for key in ["here", "away"] {
        rig.store.set_expiration(BUCKET, key);
    }
    let report = rig.dir.path().join("report");
    let line = rig.scrub(&["--report", &report.display().to_string()]);
    let found = ["good", "expiring", "mended"].map(|name| count(&line, name));
    assert_eq!(found, [1, 2, 0], "{line}");
    let lines = fs::read_to_string(report).unwrap();
    assert!(lines.contains("21 Dec 2012") && lines.contains("'old'"), "{lines}");
    let copies = rig.store.stats().count("CopyObject");
    let line = rig.scrub(&["--repair"]);
    assert_eq!((count(&line, "expiring"), count(&line, "mended")), (2, 2), "{line}");
    assert_eq!(rig.client.state(here).unwrap().states, ARCHIVED | states::DIRTY);
    // The one whose data is nowhere else is copied: by that it is as old as today. (What the store does with a copy's
    // conditions was tried on an object of ours, which the embedded store does not count.)
    assert_eq!(rig.store.stats().count("CopyObject"), copies + 1);
    assert_eq!(rig.restore("away", away), b"more data");
}

#[test]
fn a_copy_that_will_not_stay_is_not_made_anew_by_a_copy_that_could_replace_a_newer_one() {
    let mut rig = Rig::new();
    let away = archived(&mut rig, "away", b"more data");
    rig.release(away);
    rig.store
        .dialects()
        .set(&[Dialect::Expires, Dialect::CopyConditionsIgnored]);
    rig.store.set_expiration(BUCKET, "away");
    let before = rig.store.objects(BUCKET);
    let report = rig.dir.path().join("report");
    let line = rig.scrub(&["--repair", "--report", &report.display().to_string()]);
    assert_eq!((count(&line, "expiring"), count(&line, "mended")), (1, 0), "{line}");
    let lines = fs::read_to_string(report).unwrap();
    assert!(lines.contains("what a copy demands of its key"), "{lines}");
    // What tried it is gone.
    let keys =
        |objects: Vec<lhsm_sandbox_s3::ObjectInfo>| objects.into_iter().map(|object| object.key).collect::<Vec<_>>();
    assert_eq!(keys(rig.store.objects(BUCKET)), keys(before));
    assert_eq!(rig.restore("away", away), b"more data");
}

#[test]
fn a_version_that_is_no_longer_current_is_told_and_a_released_files_becomes_current_again() {
    let mut rig = versioned();
    let here = archived(&mut rig, "here", b"data");
    let away = archived(&mut rig, "away", &noise(70_000));
    let taken = archived(&mut rig, "taken", &noise(80_000));
    archived(&mut rig, "safe", b"x");
    rig.release(away);
    rig.release(taken);
    for key in ["here", "away"] {
        rig.store.delete(BUCKET, key);
    }
    rig.put("taken", b"a stranger's", &[]);
    let before = rig.client.xattr(away, "trusted.lhsm_s3").unwrap();
    let heads = rig.store.stats().count("HeadObject");
    let line = rig.scrub(&["--files-only"]);
    let found = ["good", "noncurrent", "missing", "mended"].map(|name| count(&line, name));
    assert_eq!(found, [1, 3, 0, 0], "{line}");
    // One more for each file whose record names a version.
    assert_eq!(rig.store.stats().count("HeadObject"), heads + 8);
    let line = rig.scrub(&["--repair"]);
    let found = ["noncurrent", "mended", "orphans"].map(|name| count(&line, name));
    assert_eq!(found, [3, 3, 0], "{line}");
    assert_eq!(rig.client.state(here).unwrap().states, ARCHIVED | states::DIRTY);
    assert_eq!(rig.store.object_body(BUCKET, "away").unwrap(), noise(70_000));
    assert_ne!(rig.client.xattr(away, "trusted.lhsm_s3").unwrap(), before);
    // What somebody else has put there since is not put away.
    assert_eq!(rig.store.object_body(BUCKET, "taken").unwrap(), b"a stranger's");
    let beside = format!("taken~{}", format!("{taken}").replace(['[', ']'], ""));
    assert_eq!(rig.store.object_body(BUCKET, &beside).unwrap(), noise(80_000));
    rig.archive(here);
    let line = rig.scrub(&[]);
    let found = ["good", "noncurrent", "orphans"].map(|name| count(&line, name));
    assert_eq!(found, [4, 0, 0], "{line}");
    assert_eq!(rig.restore("away", away), noise(70_000));
    assert_eq!(rig.restore("taken", taken), noise(80_000));
}
