//! What files say of their copies against what the bucket has.

use std::collections::BTreeMap;
use std::fs;

use lhsm_sandbox::protocol::states;

use crate::import::{count, json};
use crate::rig::{BUCKET, Rig, noise, until};

impl Rig {
    pub(crate) fn scrub(&self, options: &[&str]) -> serde_json::Value {
        let mount = self.mount().display().to_string();
        let mut arguments = vec!["scrub", &mount, "--json", "--grace", "0s"];
        arguments.extend(options);
        json(&self.run(&arguments))
    }
}

pub(crate) fn archived(rig: &mut Rig, name: &str, content: &[u8]) -> lhsm_sandbox::protocol::Fid {
    let fid = rig.file(name, content);
    rig.archive(fid);
    fid
}

#[test]
fn a_healthy_archive_has_no_findings_also_after_renames() {
    let mut rig = Rig::new();
    for n in 0..20 {
        archived(&mut rig, &format!("d{}/f{n}", n % 3), &noise(100 * n));
    }
    rig.file("never", b"archived");
    fs::rename(rig.mount().join("d0/f0"), rig.mount().join("renamed")).unwrap();
    rig.put("foreign", b"object", &[]);
    let line = rig.scrub(&["--deep"]);
    let found = [
        "files",
        "good",
        "unarchived",
        "objects",
        "foreign",
        "orphans",
        "missing",
        "changed",
    ];
    assert_eq!(
        found.map(|name| count(&line, name)),
        [21, 20, 1, 21, 1, 0, 0, 0],
        "{line}"
    );
    assert_eq!(count(&line, "bytes"), 100 * (0..20).sum::<u64>());
}

#[test]
fn a_missing_object_makes_a_file_dirty_or_lost_only_when_asked() {
    let mut rig = Rig::new();
    let here = archived(&mut rig, "here", b"data");
    let gone = archived(&mut rig, "gone", b"data too");
    rig.release(gone);
    for key in ["here", "gone"] {
        rig.store.delete(BUCKET, key);
    }
    let line = rig.scrub(&[]);
    assert_eq!((count(&line, "missing"), count(&line, "mended")), (2, 0), "{line}");
    let both = states::EXISTS | states::ARCHIVED;
    assert_eq!(rig.client.state(here).unwrap().states, both);
    assert_eq!(count(&rig.scrub(&["--repair"]), "mended"), 2);
    assert_eq!(rig.client.state(here).unwrap().states, both | states::DIRTY);
    assert_eq!(
        rig.client.state(gone).unwrap().states,
        both | states::RELEASED | states::LOST
    );
    // The one that is here is archived again; the other comes back with its object.
    rig.archive(here);
    assert_eq!(rig.store.object_body(BUCKET, "here").unwrap(), b"data");
    let line = rig.scrub(&["--repair"]);
    assert_eq!((count(&line, "good"), count(&line, "missing")), (1, 1), "{line}");
}

#[test]
fn a_store_that_denies_or_fails_makes_no_file_lost() {
    let mut rig = Rig::new();
    let fid = archived(&mut rig, "file", b"data");
    rig.release(fid);
    rig.store.faults().fail("HeadObject", 403, "AccessDenied", 9);
    let mount = rig.mount().display().to_string();
    let output = rig.run(&["scrub", &mount, "--repair", "--json"]);
    assert!(!output.status.success());
    rig.store.faults().clear();
    assert_eq!(rig.client.state(fid).unwrap().states & states::LOST, 0);
    assert_eq!(rig.restore("file", fid), b"data");
}

#[test]
fn other_bytes_are_found_by_their_head_or_by_reading_them() {
    let mut rig = Rig::new();
    let changed = archived(&mut rig, "changed", b"data");
    let rotten = archived(&mut rig, "rotten", &noise(200_000));
    let (before, mut body) = {
        let objects = rig.store.objects(BUCKET);
        let object = objects.into_iter().find(|object| object.key == "rotten").unwrap();
        (object.metadata, rig.store.object_body(BUCKET, "rotten").unwrap())
    };
    rig.store.put(BUCKET, "changed", b"else".to_vec(), BTreeMap::new());
    let line = rig.scrub(&[]);
    assert_eq!((count(&line, "changed"), count(&line, "good")), (1, 1), "{line}");
    // A store that lies about what it has: the same size and ETag, other bytes.
    rig.store.faults().corrupt_body(1);
    let line = rig.scrub(&["--deep", "--files-only", "--repair"]);
    assert_eq!((count(&line, "changed"), count(&line, "mended")), (2, 2), "{line}");
    rig.store.faults().clear();
    for fid in [changed, rotten] {
        assert_ne!(rig.client.state(fid).unwrap().states & states::DIRTY, 0);
    }
    // The same bytes as another object: a bucket that was copied.
    body.truncate(200_000);
    rig.store.delete(BUCKET, "rotten");
    rig.store.put(BUCKET, "rotten", body, before);
}

#[test]
fn objects_that_are_no_files_copy_are_listed_and_deleted_only_when_asked() {
    let mut rig = Rig::new();
    let kept = archived(&mut rig, "kept", b"1");
    let gone = archived(&mut rig, "dir/gone", b"2");
    // While it runs it may see the unlink as one in mid-archive.
    assert_eq!(rig.stop(), Some(0));
    fs::remove_file(rig.mount().join("dir/gone")).unwrap();
    rig.put("foreign", b"3", &[]);
    let owner = format!("{kept}").replace(['[', ']'], "");
    // A second object that says it is a copy of a file whose copy is another.
    let own = crate::owned::written(&mut rig, kept, "old-place");
    rig.store
        .put(BUCKET, "old-place", b"1".to_vec(), own.into_iter().collect());
    // Of another file system.
    rig.put("other-fs", b"1", &[("lhsm-fid", &owner), ("lhsm-fs", "other")]);
    let line = rig.scrub(&[]);
    assert_eq!(
        (count(&line, "orphans"), count(&line, "foreign"), count(&line, "mended")),
        (2, 2, 0),
        "{line}"
    );
    // Young ones may be on their way.
    let mount = rig.mount().display().to_string();
    let line = json(&rig.run(&["scrub", &mount, "--json", "--delete-orphans"]));
    assert_eq!((count(&line, "orphans"), count(&line, "young")), (0, 2), "{line}");
    let directory = rig.mount().join("dir").display().to_string();
    let line = json(&rig.run(&["scrub", &directory, "--json", "--grace", "0s"]));
    assert_eq!(count(&line, "orphans"), 1, "only below the path that was named: {line}");
    let report = rig.dir.path().join("report");
    let line = rig.scrub(&["--delete-orphans", "--report", &report.display().to_string()]);
    assert_eq!((count(&line, "orphans"), count(&line, "mended")), (2, 2), "{line}");
    assert_eq!(rig.keys(), ["foreign", "kept", "other-fs"]);
    let report = fs::read_to_string(&report).unwrap();
    assert!(report.contains(&gone.to_string()), "{report}");
    rig.start();
    rig.release(kept);
    assert_eq!(rig.restore("kept", kept), b"1");
}

#[test]
fn a_scrub_that_was_killed_goes_on_where_it_was() {
    let mut rig = Rig::new();
    for n in 0..40 {
        archived(&mut rig, &format!("f{n:02}"), b"x");
    }
    let heads = || rig.store.stats().count("HeadObject");
    let mount = rig.mount().display().to_string();
    let arguments = ["scrub", mount.as_str(), "--json", "--files-only", "--threads", "1"];
    let before = heads();
    // Twenty are answered, then the store is silent.
    let gate = rig.store.faults().hold_after("HeadObject", 20);
    let mut command = rig.command(&arguments);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    assert!(gate.wait_held_blocking(1, crate::rig::PATIENCE));
    let checkpoint = || {
        let entries = fs::read_dir(rig.dir.path().join("state")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "checkpoint"))
            .find_map(|path| fs::read_to_string(path).ok())
    };
    until(|| checkpoint().filter(|text| text.contains("f19")));
    child.kill().unwrap();
    child.wait().unwrap();
    gate.release();
    let line = json(&rig.run(&arguments));
    assert_eq!(count(&line, "good"), 40, "{line}");
    // The one that was held was asked again.
    assert_eq!(heads() - before, 41);
}

#[test]
fn what_the_configuration_does_not_know_is_never_called_lost() {
    let mut rig = Rig::new();
    let fid = archived(&mut rig, "file", b"data");
    rig.release(fid);
    let report = rig.dir.path().join("report");
    // As another mover's archive, which this configuration lacks.
    let record = String::from_utf8(rig.client.xattr(fid, "trusted.lhsm_s3").unwrap()).unwrap();
    let foreign = record.replace("\"archive\":1", "\"archive\":7");
    assert_ne!(record, foreign);
    rig.client
        .set_xattr(fid, "trusted.lhsm_s3", foreign.as_bytes())
        .unwrap();
    let line = rig.scrub(&["--repair", "--report", &report.display().to_string()]);
    assert_eq!((count(&line, "unknown"), count(&line, "mended")), (1, 0), "{line}");
    let state = rig.client.state(fid).unwrap().states;
    assert_eq!(state & (states::LOST | states::DIRTY), 0);
    rig.client.set_xattr(fid, "trusted.lhsm_s3", record.as_bytes()).unwrap();
    assert_eq!(rig.restore("file", fid), b"data");
}

#[test]
fn a_bucket_that_is_not_there_makes_no_file_lost() {
    let mut rig = Rig::new();
    let fid = archived(&mut rig, "file", b"data");
    rig.release(fid);
    rig.store.faults().fail("ListObjectsV2", 404, "NoSuchBucket", 9);
    rig.store.faults().fail("HeadObject", 404, "NoSuchBucket", 9);
    let mount = rig.mount().display().to_string();
    for more in [&[][..], &["--files-only"]] {
        let output = rig.run(&[&["scrub", &mount, "--repair", "--json"], more].concat());
        assert!(!output.status.success());
    }
    rig.store.faults().clear();
    assert_eq!(rig.client.state(fid).unwrap().states & states::LOST, 0);
    assert_eq!(rig.restore("file", fid), b"data");
}

#[test]
fn an_object_that_only_an_imported_file_points_at_is_no_orphan() {
    let mut rig = Rig::new();
    let first = archived(&mut rig, "first", b"data");
    assert_eq!(rig.stop(), Some(0));
    let to = rig.mount().join("elsewhere");
    fs::create_dir(&to).unwrap();
    assert_eq!(count(&rig.import(&to, &[]), "imported"), 1);
    // What its metadata calls its file is gone; the imported one has its bytes.
    fs::remove_file(rig.mount().join("first")).unwrap();
    let line = rig.scrub(&["--delete-orphans"]);
    assert_eq!(
        (count(&line, "orphans"), count(&line, "missing")),
        (0, 0),
        "{line} {first}"
    );
    rig.start();
    let imported = rig.client.fid(&to.join("first")).unwrap();
    assert_eq!(rig.restore("elsewhere/first", imported), b"data");
    let directory = to.display().to_string();
    let output = rig.run(&["scrub", &directory, "--delete-orphans"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("mount point"), "{error}");
}
