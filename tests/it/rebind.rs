//! Objects that other tools copied: versions and ETags are new, and records are made to name them.

use std::collections::BTreeMap;
use std::fs;

use lhsm_sandbox::protocol::{Action, Fid, states};
use lhsm_sandbox_s3::Config;
use serde_json::Value;

use crate::import::{count, json};
use crate::rig::{BUCKET, Rig, Setup, noise};

const COPY: &str = "copied";
const RECORD: &str = "trusted.lhsm_s3";

impl Rig {
    /// Whether it ended well, and its line.
    fn rebind(&self, options: &[&str]) -> (bool, Value) {
        let mount = self.mount().display().to_string();
        let mut arguments = vec!["rebind", &mount, "--json"];
        arguments.extend(options);
        let output = self.run(&arguments);
        (output.status.success(), json(&output))
    }

    fn record_of(&mut self, fid: Fid) -> Value {
        serde_json::from_slice(&self.client.xattr(fid, RECORD).unwrap()).unwrap()
    }

    fn set_record(&mut self, fid: Fid, record: &Value) {
        self.client
            .set_xattr(fid, RECORD, record.to_string().as_bytes())
            .unwrap();
    }

    /// As other tools copy: bytes and metadata stay, versions and ETags do not.
    fn copy_objects(&self, to: &str, prefix: &str) {
        for object in self.store.objects(BUCKET) {
            let body = self.store.object_body(BUCKET, &object.key).unwrap();
            let key = format!("{prefix}{}", object.key);
            self.store.put(to, &key, body, object.metadata);
        }
    }

    /// From now on the configuration names the bucket that the objects went to.
    fn use_copy(&mut self) {
        self.replace_settings("bucket = 'lhsm-sandbox'", &format!("bucket = '{COPY}'"));
    }

    /// Of an object of the first bucket.
    fn metadata_of(&self, key: &str) -> BTreeMap<String, String> {
        let objects = self.store.objects(BUCKET);
        let object = objects.into_iter().find(|object| object.key == key);
        object.unwrap().metadata
    }
}

fn rig(store: Config) -> Rig {
    Rig::with(Setup {
        store,
        ..Setup::default()
    })
}

fn versioned() -> Config {
    Config {
        versioning: true,
        ..Config::default()
    }
}

fn released(rig: &mut Rig, name: &str, content: &[u8]) -> Fid {
    let fid = rig.file(name, content);
    rig.archive(fid);
    rig.release(fid);
    fid
}

fn found<const N: usize>(line: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| count(line, name))
}

#[test]
fn a_copied_bucket_is_rebound_what_is_not_the_same_is_left_and_files_come_back() {
    let mut rig = rig(versioned());
    let small = released(&mut rig, "d/small", &noise(5000));
    let large = released(&mut rig, "d/large", &noise(6 << 20));
    let here = rig.file("here", b"data");
    rig.archive(here);
    rig.file("never", b"archived");
    assert_eq!(rig.stop(), Some(0));
    rig.copy_objects(COPY, "");
    rig.use_copy();
    let all = [small, large, here];
    let before = all.map(|fid| rig.record_of(fid));

    let (well, line) = rig.rebind(&["--dry-run"]);
    let names = ["files", "rebound", "same", "skipped", "failed"];
    assert!(well, "{line}");
    assert_eq!(found(&line, names), [4, 3, 0, 1, 0], "{line}");
    assert_eq!(all.map(|fid| rig.record_of(fid)), before, "a dry run changes nothing");

    // One of the objects has the size that it should have, and other bytes.
    let metadata = rig.metadata_of("d/small");
    rig.store.put(COPY, "d/small", vec![7u8; 5000], metadata.clone());
    let report = rig.dir.path().join("report");
    let (well, line) = rig.rebind(&["--report", &report.display().to_string()]);
    assert!(!well);
    assert_eq!(found(&line, names), [4, 2, 0, 1, 1], "{line}");
    assert_eq!(rig.record_of(small), before[0], "what was not proved is not taken");
    let text = fs::read_to_string(&report).unwrap();
    let failed: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["what"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{text}");
    assert_eq!(failed[0]["path"], "d/small");
    assert_eq!(failed[0]["key"], "d/small");
    assert!(failed[0]["detail"].as_str().unwrap().contains("other bytes"), "{text}");

    rig.store.put(COPY, "d/small", noise(5000), metadata);
    let (well, line) = rig.rebind(&[]);
    assert!(well, "{line}");
    assert_eq!(found(&line, names), [4, 1, 2, 1, 0], "{line}");
    let (_, line) = rig.rebind(&[]);
    assert_eq!(found(&line, names), [4, 0, 3, 1, 0], "{line}");
    for (fid, before) in all.into_iter().zip(before) {
        let now = rig.record_of(fid);
        assert_ne!(now["version"], before["version"]);
        for kept in ["key", "size", "crc64nvme"] {
            assert_eq!(now[kept], before[kept], "{kept}");
        }
    }
    rig.start();
    assert_eq!(rig.restore("d/small", small), noise(5000));
    assert_eq!(rig.restore("d/large", large), noise(6 << 20));
    rig.assert_settled();
}

#[test]
fn objects_that_went_to_another_prefix_are_rebound_with_their_sidecars_once() {
    let mut rig = Rig::new();
    let plain = released(&mut rig, "d/plain", b"data");
    let beside = rig.file("d/beside", b"more");
    xattr::set(rig.mount().join("d/beside"), "user.large", &noise(2500)).unwrap();
    rig.archive(beside);
    rig.release(beside);
    assert_eq!(rig.stop(), Some(0));
    rig.copy_objects(COPY, "moved/");
    rig.use_copy();
    let before = rig.record_of(beside);
    let sidecar = before["sidecar"].as_str().unwrap();
    // One that was not copied is told each time, and costs the file nothing.
    let moved = format!("moved/{sidecar}");
    assert!(rig.store.delete(COPY, &moved));
    let prefixes = ["--from-prefix", "", "--to-prefix", "moved/"];
    let names = ["files", "rebound", "same", "failed", "sidecars"];
    let (well, line) = rig.rebind(&prefixes);
    assert!(!well);
    assert_eq!(found(&line, names), [2, 2, 0, 0, 1], "{line}");
    let (well, line) = rig.rebind(&prefixes);
    assert!(!well);
    assert_eq!(found(&line, names), [2, 0, 2, 0, 1], "{line}");
    let body = rig.store.object_body(BUCKET, sidecar).unwrap();
    rig.store.put(COPY, &moved, body, rig.metadata_of(sidecar));
    let (well, line) = rig.rebind(&prefixes);
    assert!(well, "{line}");
    assert_eq!(found(&line, names), [2, 0, 2, 0, 0], "{line}");
    let now = rig.record_of(beside);
    assert_eq!(now["key"], "moved/d/beside");
    assert_eq!(now["sidecar"], moved);
    rig.start();
    assert_eq!(rig.restore("d/plain", plain), b"data");
    assert_eq!(rig.restore("d/beside", beside), b"more");
    rig.assert_settled();
}

#[test]
fn objects_that_are_not_where_they_should_have_gone_are_told_and_the_rest_goes_on() {
    let mut rig = Rig::new();
    let left = released(&mut rig, "left", b"left behind");
    let others = released(&mut rig, "others", b"data");
    let good = released(&mut rig, "good", b"good");
    assert_eq!(rig.stop(), Some(0));
    rig.copy_objects(BUCKET, "moved/");
    assert!(rig.store.delete(BUCKET, "moved/left"));
    // The same bytes, and another file's copy: it is not to be deleted with this one.
    rig.store
        .put(BUCKET, "moved/others", &b"data"[..], rig.metadata_of("good"));
    let before = [left, others].map(|fid| rig.record_of(fid));
    let (well, line) = rig.rebind(&["--from-prefix", "", "--to-prefix", "moved/"]);
    assert!(!well);
    assert_eq!(found(&line, ["files", "rebound", "failed"]), [3, 1, 2], "{line}");
    assert_eq!([left, others].map(|fid| rig.record_of(fid)), before);
    assert_eq!(rig.record_of(good)["key"], "moved/good");
    // A bucket that is not there is said once, not for each file.
    rig.replace_settings("bucket = 'lhsm-sandbox'", "bucket = 'nowhere'");
    let mount = rig.mount().display().to_string();
    let output = rig.run(&["rebind", &mount]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("'nowhere' does not exist"),
        "{error}"
    );
}

#[test]
fn where_the_store_has_no_checksum_the_bytes_are_the_proof() {
    let mut rig = rig(Config {
        full_object_checksums: false,
        ..Config::default()
    });
    let content = noise(6 << 20);
    let good = released(&mut rig, "good", &content);
    let bad = released(&mut rig, "bad", &content);
    assert_eq!(rig.stop(), Some(0));
    rig.copy_objects(COPY, "");
    let mut other = content.clone();
    other[3 << 20] ^= 1;
    rig.store.put(COPY, "bad", other, rig.metadata_of("bad"));
    rig.use_copy();
    let before = rig.record_of(bad);
    let (well, line) = rig.rebind(&[]);
    assert!(!well);
    let names = ["rebound", "same", "failed", "bytes"];
    assert_eq!(found(&line, names), [1, 0, 1, 2 * (6 << 20)], "{line}");
    assert_eq!(rig.record_of(bad), before);
    rig.start();
    assert_eq!(rig.restore("good", good), content);
}

#[test]
fn without_a_checksum_in_the_record_the_etag_proves_or_nothing_does() {
    let mut rig = rig(versioned());
    let small = released(&mut rig, "small", &noise(5000));
    let large = released(&mut rig, "large", &noise(6 << 20));
    assert_eq!(rig.stop(), Some(0));
    rig.copy_objects(COPY, "");
    rig.use_copy();
    // As an import has them.
    for fid in [small, large] {
        let mut record = rig.record_of(fid);
        record.as_object_mut().unwrap().remove("crc64nvme").unwrap();
        rig.set_record(fid, &record);
    }
    let before = rig.record_of(large);
    let (well, line) = rig.rebind(&[]);
    assert!(!well);
    assert_eq!(found(&line, ["rebound", "failed"]), [1, 1], "{line}");
    // Once proved, the store's checksum is kept for later.
    assert!(rig.record_of(small)["crc64nvme"].is_string());
    assert_eq!(rig.record_of(large), before);
    rig.start();
    assert_eq!(rig.restore("small", small), noise(5000));
}

#[test]
fn a_restore_whose_version_is_gone_takes_the_same_bytes_of_this_file_only() {
    let mut rig = rig(versioned());
    let copied = released(&mut rig, "copied", &noise(5000));
    let foreign = released(&mut rig, "foreign", &noise(5000));
    for fid in [copied, foreign] {
        let mut record = rig.record_of(fid);
        record["version"] = "gone".into();
        rig.set_record(fid, &record);
    }
    // The same bytes; nothing says whose they are.
    rig.store.put(BUCKET, "foreign", noise(5000), BTreeMap::new());
    rig.store.expire_noncurrent(BUCKET);
    assert_eq!(rig.restore("copied", copied), noise(5000));
    assert!(rig.log().contains("the recorded version is not there"), "{}", rig.log());
    rig.client.request(Action::Restore, 1, &[foreign]).unwrap();
    assert_ne!(rig.settle(foreign).states & states::RELEASED, 0);
    assert_eq!(rig.client.actions().unwrap().last().unwrap().errval, libc::ENOENT);
    // Other bytes under the key are none of its business either.
    let other = released(&mut rig, "other", b"mine");
    let mut record = rig.record_of(other);
    record["version"] = "gone".into();
    rig.set_record(other, &record);
    let metadata = rig.metadata_of("other");
    rig.store.put(BUCKET, "other", &b"else"[..], metadata);
    rig.store.expire_noncurrent(BUCKET);
    rig.client.request(Action::Restore, 1, &[other]).unwrap();
    assert_ne!(rig.settle(other).states & states::RELEASED, 0);
    rig.assert_settled();
}
