//! Bulk commands, their ledger, and what they say of themselves.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use lhsm_sandbox::protocol::{Action, states};

use crate::import::{count, json};
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

const ARCHIVED: u32 = states::EXISTS | states::ARCHIVED;

impl Rig {
    /// A bulk command on the whole mount.
    fn job(&self, verb: &str, options: &[&str]) -> Output {
        let mount = self.mount().display().to_string();
        self.run(&[&[verb, &mount, "--json"], options].concat())
    }

    fn tree(&mut self, files: usize) -> Vec<lhsm_sandbox::protocol::Fid> {
        (0..files)
            .map(|n| self.file(&format!("d{}/f{n:04}", n % 7), &noise(100 + n)))
            .collect()
    }

    fn states_of(&mut self, path: &str) -> u32 {
        let fid = self.client.fid(&self.mount().join(path)).unwrap();
        self.client.state(fid).unwrap().states
    }
}

fn failed_names(rig: &Rig, line: &serde_json::Value) -> Vec<String> {
    let id = line["id"].as_str().unwrap();
    let report = rig.run(&["jobs", "report", id, "--failed", "--format", "json"]);
    let text = String::from_utf8(report.stdout).unwrap();
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| {
        let name = row["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        format!("{name}: {}", row["reason"].as_str().unwrap())
    })
    .collect()
}

#[test]
fn a_tree_is_archived_released_restored_and_removed_and_each_file_is_accounted_for() {
    let mut rig = Rig::new();
    let fids = rig.tree(300);
    let before = rig.read("d3/f0003");
    let line = json(&rig.job("archive", &[]));
    assert_eq!((count(&line, "done"), count(&line, "failed")), (300, 0), "{line}");
    assert_eq!(rig.keys().len(), 300);
    // A second time nothing is to be done, and nothing is asked for.
    let line = json(&rig.job("archive", &[]));
    assert_eq!((count(&line, "done"), count(&line, "already")), (0, 300), "{line}");
    assert_eq!(rig.store.stats().count("PutObject"), 300);
    let line = json(&rig.job("release", &[]));
    assert_eq!(count(&line, "done"), 300, "{line}");
    for fid in &fids {
        let state = rig.client.state(*fid).unwrap().states;
        assert_eq!(state, ARCHIVED | states::RELEASED);
    }
    let refused = rig.job("remove", &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(count(&json(&refused), "failed"), 300);
    let line = json(&rig.job("restore", &[]));
    assert_eq!(count(&line, "done"), 300, "{line}");
    assert_eq!(rig.read("d3/f0003"), before);
    let line = json(&rig.job("remove", &[]));
    assert_eq!(count(&line, "done"), 300, "{line}");
    assert_eq!(rig.keys(), Vec::<String>::new());
    rig.assert_settled();
}

#[test]
fn filters_and_a_dry_run_ask_for_nothing_that_is_not_meant() {
    let mut rig = Rig::new();
    rig.file("a/small.h5", b"1");
    rig.file("a/large.h5", &noise(100_000));
    rig.file("a/large.tmp", &noise(100_000));
    rig.file("b/large.h5", &noise(100_000));
    let options = ["--include", "*.h5", "--exclude", "b/*", "--min-size", "1KB"];
    let line = json(&rig.job("archive", &[&options[..], &["--dry-run"]].concat()));
    assert_eq!(count(&line, "done"), 1, "{line}");
    assert_eq!(rig.keys(), Vec::<String>::new());
    let line = json(&rig.job("archive", &options));
    assert_eq!(count(&line, "done"), 1, "{line}");
    assert_eq!(rig.keys(), ["a/large.h5"]);
    let line = json(&rig.job("release", &["--state", "archived"]));
    assert_eq!((count(&line, "done"), count(&line, "found")), (1, 1), "{line}");
    let wrong = rig.job("archive", &["--include", "a["]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn of_a_batch_that_is_refused_only_the_files_that_are_to_blame_fail() {
    let mut rig = Rig::with(Setup {
        archives: "[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\n[[archive]]\nid = 2\nbucket = 'lhsm-sandbox'\nprefix = '2/'\n"
            .into(),
        ..Setup::default()
    });
    let fids = rig.tree(120);
    // The coordinator may know better than the states that were read: another archive has these.
    for n in [0, 50, 119] {
        rig.archive(fids[n]);
        let dirty = rig.mount().join(format!("d{}/f{n:04}", n % 7));
        fs::write(dirty, b"changed").unwrap();
    }
    let output = rig.job("archive", &["--archive-id", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let line = json(&output);
    assert_eq!((count(&line, "failed"), count(&line, "done")), (3, 117), "{line}");
    let refused = failed_names(&rig, &line);
    assert!(refused.iter().all(|line| line.contains("EPERM")), "{refused:?}");
    assert_eq!(rig.keys().iter().filter(|key| key.starts_with("2/")).count(), 117);
}

#[test]
fn names_come_from_standard_input_with_newlines_in_them_and_what_is_no_file_is_said() {
    let rig = &mut Rig::new();
    let odd = rig.mount().join("new\nline");
    fs::write(&odd, b"odd").unwrap();
    rig.file("plain", b"plain");
    fs::hard_link(rig.mount().join("plain"), rig.mount().join("second name")).unwrap();
    let mut command = rig.command(&["archive", "--from-file", "-", "-0", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .current_dir(rig.mount())
        .spawn()
        .unwrap();
    let input = b"new\nline\0plain\0missing\0plain\0second name\0";
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = json(&output);
    let counts = ["done", "already", "failed"].map(|name| count(&line, name));
    assert_eq!(counts, [2, 1, 1], "{line}");
    assert_eq!(rig.store.stats().count("PutObject"), 2);
    let failed = failed_names(rig, &line);
    assert!(failed[0].starts_with("missing: "), "{failed:?}");
}

#[test]
fn a_job_that_is_killed_again_and_again_ends_and_asks_for_nothing_twice() {
    let mut rig = Rig::new();
    rig.tree(400);
    let mount = rig.mount().display().to_string();
    let mut id = None::<String>;
    let mut seen = 0;
    for round in 0..10 {
        // Some are stored, then the store is silent: the job is killed with files in hand.
        let gate = rig.store.faults().hold_after("PutObject", 20 + round);
        let mut command = match &id {
            None => rig.command(&["archive", &mount, "--json", "--window", "40"]),
            Some(id) => rig.command(&["jobs", "resume", id, "--json"]),
        };
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        assert!(gate.wait_held_blocking(4, PATIENCE), "round {round}");
        child.kill().unwrap();
        child.wait().unwrap();
        gate.release();
        id.get_or_insert_with(|| {
            let jobs = fs::read_dir(rig.dir.path().join("state/jobs")).unwrap();
            let names = jobs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let found = names
                .into_iter()
                .find_map(|name| name.strip_suffix(".redb").map(str::to_owned));
            found.unwrap()
        });
        let now = rig.store.stats().count("PutObject");
        assert!(now > seen);
        seen = now;
    }
    let id = id.unwrap();
    let line = json(&rig.run(&["jobs", "resume", &id, "--json"]));
    assert_eq!(count(&line, "failed"), 0, "{line}");
    assert_eq!(count(&line, "done") + count(&line, "already"), 400, "{line}");
    assert_eq!(rig.keys().len(), 400);
    // Each was sent once: what a killed job had asked for was found in the coordinator's hands.
    assert_eq!(rig.store.stats().count("PutObject"), 400);
    let listed = rig.run(&["jobs", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&id));
    rig.assert_settled();
}

#[test]
fn a_failed_action_is_a_failed_file_with_a_reason_and_is_tried_again_when_asked() {
    let mut rig = Rig::new();
    rig.file("good", b"1");
    let bad = rig.file("bad", b"2");
    rig.archive(bad);
    rig.release(bad);
    let kept = rig.store.object_body(BUCKET, "bad").unwrap();
    let metadata = rig.store.objects(BUCKET).remove(0).metadata;
    rig.store.delete(BUCKET, "bad");
    let output = rig.job("restore", &[]);
    assert_eq!(output.status.code(), Some(1));
    let line = json(&output);
    assert_eq!((count(&line, "failed"), count(&line, "already")), (1, 1), "{line}");
    assert!(failed_names(&rig, &line)[0].starts_with("bad: the action failed"));
    rig.store.put(BUCKET, "bad", kept, metadata);
    let id = line["id"].as_str().unwrap();
    let line = json(&rig.run(&["jobs", "resume", id, "--json", "--retry-failed"]));
    assert_eq!((count(&line, "failed"), count(&line, "done")), (0, 1), "{line}");
    assert_eq!(rig.read("bad"), b"2");
}

#[test]
fn a_coordinator_that_is_stopped_is_waited_for() {
    use lhsm_sandbox::protocol::HsmControl;
    let mut rig = Rig::new();
    rig.tree(10);
    rig.client.control(HsmControl::Shutdown).unwrap();
    let mount = rig.mount().display().to_string();
    let mut command = rig.command(&["archive", &mount, "--json"]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let waits = || {
        let jobs = fs::read_dir(rig.dir.path().join("state/jobs")).ok()?;
        let mut paths = jobs.map(|entry| entry.unwrap().path());
        let path = paths.find(|path| path.extension().is_some_and(|extension| extension == "json"))?;
        let text = fs::read_to_string(path).ok()?;
        text.contains("the coordinator").then_some(())
    };
    until(waits);
    let status = rig.run(&["status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        text.contains("(running)") && text.contains("waits for the coordinator"),
        "{text}"
    );
    rig.client.control(HsmControl::Enabled).unwrap();
    let line = json(&child.wait_with_output().unwrap());
    assert_eq!((count(&line, "done"), count(&line, "failed")), (10, 0), "{line}");
    assert_eq!(rig.states_of("d1/f0001"), ARCHIVED);
    let status = rig.run(&["status", line["id"].as_str().unwrap(), "--json"]);
    assert_eq!(json(&status)["phase"], "ended");
    let unknown = rig.run(&["status", "archive-none"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no job 'archive-none'"));
}

/// The example of docs/jobs.md, small.
#[test]
fn a_training_run_reads_what_a_restore_brings_ahead_of_it_and_its_results_are_archived() {
    let mut rig = Rig::new();
    let pictures: Vec<_> = (0..200).map(|n| format!("imagenet/n{:02}/{n}.jpeg", n % 10)).collect();
    for (n, picture) in pictures.iter().enumerate() {
        rig.put(picture, &noise(1000 + n), &[]);
    }
    let at = rig.mount().join("imagenet");
    fs::create_dir(&at).unwrap();
    let url = format!("s3://{BUCKET}/imagenet");
    let line = json(&rig.run(&["import", &url, &at.display().to_string(), "--json"]));
    assert_eq!(count(&line, "imported"), 200, "{line}");

    // An epoch reads in an order of its own.
    let mut epoch: Vec<usize> = (0..200).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut epoch);
    let list: String = epoch
        .iter()
        .map(|n| format!("{}\n", rig.mount().join(&pictures[*n]).display()))
        .collect();
    let manifest = rig.dir.path().join("epoch-1.txt");
    fs::write(&manifest, list).unwrap();
    let manifest = manifest.display().to_string();
    let mut preload = rig.command(&["restore", "--from-file", &manifest, "--window", "64", "--json"]);
    let preload = preload.stdout(Stdio::piped()).spawn().unwrap();
    let results = rig.mount().join("results");
    fs::create_dir(&results).unwrap();
    for n in &epoch {
        let fid = rig.client.fid(&rig.mount().join(&pictures[*n])).unwrap();
        // The reader is behind the restore, or waits for it.
        if !rig.mdt.restores_on_read() {
            rig.client.wait_ended(Action::Restore, fid, PATIENCE).unwrap();
        }
        assert_eq!(rig.read(&pictures[*n]), noise(1000 + n));
        fs::write(results.join(n.to_string()), b"seen").unwrap();
    }
    let line = json(&preload.wait_with_output().unwrap());
    assert_eq!(count(&line, "done") + count(&line, "already"), 200, "{line}");
    let line = json(&rig.run(&["archive", &results.display().to_string(), "--json"]));
    assert_eq!(count(&line, "done"), 200, "{line}");
    assert_eq!(rig.keys().iter().filter(|key| key.starts_with("results/")).count(), 200);
    rig.assert_settled();
}
