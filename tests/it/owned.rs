//! Whose an object is: records and metadata are copied along with files and objects, and nothing that another file has
//! is replaced or deleted.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use lhsm_sandbox::protocol::{Action, Fault, Fid, Request, states};
use lhsm_sandbox_s3::Config;
use lhsmtool_s3::store::{ObjectKey, name_key};

use crate::import::{count, json};
use crate::rig::{BUCKET, Rig, Setup, noise, until};

const MAP: &str = "trusted.lhsm_s3";

/// As root's `cp -a`: the file's record comes along.
fn copy(rig: &mut Rig, from: &str, to: &str) -> Fid {
    let mount = rig.mount();
    let status = Command::new("cp")
        .arg("-a")
        .args([mount.join(from), mount.join(to)])
        .status()
        .unwrap();
    assert!(status.success());
    let original = rig.client.fid(&mount.join(from)).unwrap();
    let copy = rig.client.fid(&mount.join(to)).unwrap();
    let record = rig.client.xattr(original, MAP).unwrap();
    // Where the stand-in can't keep it as the file's own attribute.
    if rig.client.xattr(copy, MAP).is_err() {
        rig.client.set_xattr(copy, MAP, &record).unwrap();
    }
    assert_eq!(rig.client.xattr(copy, MAP).unwrap(), record);
    copy
}

fn record(rig: &mut Rig, fid: Fid) -> serde_json::Value {
    serde_json::from_slice(&rig.client.xattr(fid, MAP).unwrap()).unwrap()
}

/// As an older release wrote it.
fn age_record(rig: &mut Rig, fid: Fid) {
    let mut record = record(rig, fid);
    for field in ["fs", "fid", "writer"] {
        record.as_object_mut().unwrap().remove(field);
    }
    let bytes = serde_json::to_vec(&record).unwrap();
    rig.client.set_xattr(fid, MAP, &bytes).unwrap();
}

/// As an older release wrote it.
fn age_object(rig: &Rig, key: &str) {
    let objects = rig.store.objects(BUCKET);
    let mut metadata = objects.into_iter().find(|object| object.key == key).unwrap().metadata;
    metadata.remove("lhsm-key");
    metadata.remove("lhsm-writer");
    let body = rig.store.object_body(BUCKET, key).unwrap();
    rig.store.put(BUCKET, key, body, metadata);
}

/// As `aws s3 cp` within the bucket.
fn copy_object(rig: &Rig, from: &str, to: &str) {
    let objects = rig.store.objects(BUCKET);
    let object = objects.into_iter().find(|object| object.key == from).unwrap();
    let body = rig.store.object_body(BUCKET, from).unwrap();
    rig.store.put(BUCKET, to, body, object.metadata);
}

fn scrub_and_delete(rig: &Rig) -> serde_json::Value {
    let mount = rig.mount().display().to_string();
    json(&rig.run(&["scrub", &mount, "--json", "--grace", "0s", "--delete-orphans"]))
}

#[test]
fn programs_see_the_record_and_copy_it_along() {
    let mut rig = Rig::new();
    let fid = rig.file("orig", b"data");
    rig.archive(fid);
    let (orig, copy) = (rig.mount().join("orig"), rig.mount().join("copy"));
    if xattr::set(&orig, "trusted.lhsm_test", b"x").is_err() {
        eprintln!("skipped: only root may set trusted.* attributes");
        return;
    }
    assert!(xattr::list(&orig).unwrap().any(|name| name == MAP));
    assert!(
        Command::new("cp")
            .arg("-a")
            .args([&orig, &copy])
            .status()
            .unwrap()
            .success()
    );
    let copied = xattr::get(&copy, MAP).unwrap();
    assert_eq!(copied, Some(rig.client.xattr(fid, MAP).unwrap()));
}

#[test]
fn the_copy_of_a_file_takes_nothing_from_the_original() {
    for versioning in [false, true] {
        let mut rig = Rig::with(Setup {
            store: Config {
                versioning,
                ..Config::default()
            },
            ..Setup::default()
        });
        let content = noise(10_000);
        let original = rig.file("orig", &content);
        // With a sidecar, too.
        xattr::set(rig.mount().join("orig"), "user.large", &noise(2500)).unwrap();
        rig.archive(original);
        let copied = copy(&mut rig, "orig", "copy");
        rig.release(original);
        rig.archive(copied);
        assert_eq!(record(&mut rig, copied)["key"], "copy");
        fs::write(rig.mount().join("copy"), b"changed").unwrap();
        rig.archive(copied);
        // The former one of the copy goes after the answer.
        let is_sidecar = |key: &&String| key.starts_with(".lhsm-s3-metadata/");
        until(|| (rig.keys().iter().filter(is_sidecar).count() == 2).then_some(()));
        assert_eq!(rig.restore("orig", original), content, "{}", rig.log());
        rig.release(copied);
        assert_eq!(rig.restore("copy", copied), b"changed");
        rig.assert_settled();
    }
}

#[test]
fn the_copy_of_an_imported_file_does_not_write_over_its_object() {
    let mut rig = Rig::new();
    rig.put("lab/data", b"of the lab", &[]);
    let to = rig.mount().join("in");
    fs::create_dir(&to).unwrap();
    assert_eq!(count(&rig.import(&to, &[]), "imported"), 1);
    let original = rig.client.fid(&to.join("lab/data")).unwrap();
    assert_eq!(rig.restore("in/lab/data", original), b"of the lab");
    let copied = copy(&mut rig, "in/lab/data", "copy");
    fs::write(rig.mount().join("copy"), b"of the copy").unwrap();
    rig.archive(copied);
    assert_eq!(rig.store.object_body(BUCKET, "lab/data").unwrap(), b"of the lab");
    assert_eq!(rig.store.object_body(BUCKET, "copy").unwrap(), b"of the copy");
    rig.release(original);
    assert_eq!(rig.restore("in/lab/data", original), b"of the lab");
    // The imported file itself goes back to the key that it came from.
    fs::write(to.join("lab/data"), b"changed").unwrap();
    rig.archive(original);
    assert_eq!(rig.store.object_body(BUCKET, "lab/data").unwrap(), b"changed");
    assert_eq!(rig.keys(), ["copy", "lab/data"]);
}

#[test]
fn an_imported_file_does_not_write_over_the_object_of_a_file_that_lives() {
    let mut rig = Rig::new();
    let first = rig.file("file", b"of the first");
    rig.archive(first);
    let to = rig.mount().join("in");
    fs::create_dir(&to).unwrap();
    assert_eq!(count(&rig.import(&to, &[]), "imported"), 1);
    rig.release(first);
    let second = rig.client.fid(&to.join("file")).unwrap();
    assert_eq!(rig.restore("in/file", second), b"of the first");
    fs::write(to.join("file"), b"of the second").unwrap();
    rig.archive(second);
    assert_eq!(rig.restore("file", first), b"of the first", "{}", rig.log());
    rig.release(second);
    assert_eq!(rig.restore("in/file", second), b"of the second");
}

#[test]
fn two_file_systems_that_share_a_bucket_leave_each_others_objects() {
    let mut one = Rig::new();
    let mut two = Rig::without_daemon(Setup::default());
    let (own, shared) = (two.store.endpoint(), one.store.endpoint());
    two.replace_settings(&own, &shared);
    two.start();
    // Equal paths, and FIDs that begin alike.
    let (first, second) = (one.file("file", b"of one"), two.file("file", b"of two"));
    one.archive(first);
    two.archive(second);
    one.release(first);
    two.release(second);
    assert_eq!(one.restore("file", first), b"of one");
    assert_eq!(two.restore("file", second), b"of two");
    fs::write(two.mount().join("file"), b"of two, changed").unwrap();
    two.archive(second);
    fs::write(one.mount().join("file"), b"of one, changed").unwrap();
    one.archive(first);
    // A file that was carried over with its record.
    let record = one.client.xattr(first, MAP).unwrap();
    let carried = two.file("carried", b"of one, changed");
    two.client.set_xattr(carried, MAP, &record).unwrap();
    two.archive(carried);
    for rig in [&one, &two] {
        assert_eq!(count(&scrub_and_delete(rig), "mended"), 0);
    }
    one.release(first);
    two.release(second);
    assert_eq!(one.restore("file", first), b"of one, changed", "{}", one.log());
    assert_eq!(two.restore("file", second), b"of two, changed", "{}", two.log());
}

#[test]
fn removing_a_copy_deletes_nothing_of_the_original() {
    let mut rig = Rig::new();
    let original = rig.file("orig", b"data");
    rig.archive(original);
    let copied = copy(&mut rig, "orig", "copy");
    // As a file that another MDT has now (`lfs migrate -m`): its states came along, too.
    let states = Request::SetState {
        fid: copied,
        set: states::EXISTS | states::ARCHIVED,
        clear: 0,
        archive_id: Some(1),
    };
    rig.client.ask(&states).unwrap();
    rig.act(Action::Remove, copied);
    assert!(rig.client.xattr(copied, MAP).is_err(), "{}", rig.log());
    assert!(rig.log().contains("written for another file"));
    rig.release(original);
    assert_eq!(rig.restore("orig", original), b"data");
    rig.assert_settled();
}

#[test]
fn what_a_record_of_another_fid_names_is_restored() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"content");
    rig.archive(fid);
    rig.release(fid);
    // As after `lfs migrate -m`: the record is that of the file's former FID.
    let mut record = record(&mut rig, fid);
    record["fid"] = "0x200000bd0:0x7:0x0".into();
    rig.client.set_xattr(fid, MAP, record.to_string().as_bytes()).unwrap();
    fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
    assert_eq!(rig.restore("moved", fid), b"content", "{}", rig.log());
}

/// As `lfs migrate -m`, a rename and a release leave a file: its record and its states under another FID, and none of its
/// bytes.
fn migrate(rig: &mut Rig, from: &str, to: &str) -> Fid {
    let fid = copy(rig, from, to);
    fs::remove_file(rig.mount().join(from)).unwrap();
    let file = fs::File::options().write(true).open(rig.mount().join(to)).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(0).unwrap();
    file.set_len(size).unwrap();
    let states = Request::SetState {
        fid,
        set: states::EXISTS | states::ARCHIVED | states::RELEASED,
        clear: 0,
        archive_id: Some(1),
    };
    rig.client.ask(&states).unwrap();
    fid
}

#[test]
fn a_new_file_does_not_take_the_object_of_one_that_has_another_fid_and_another_name_now() {
    for versioning in [false, true] {
        let mut rig = Rig::without_daemon(Setup {
            mdts: 2,
            store: Config {
                versioning,
                ..Config::default()
            },
            ..Setup::default()
        });
        rig.add_settings("[lustre]\nmigrate_hsm_allowed = true\n");
        rig.start();
        let content = noise(10_000);
        let fid = rig.file("file", &content);
        rig.archive(fid);
        let moved = migrate(&mut rig, "file", "moved");
        let new = rig.file("file", b"new");
        rig.archive(new);
        // Where versions are kept the former one lies below the new one.
        let key = record(&mut rig, new)["key"].as_str().unwrap().to_owned();
        assert_eq!(key == "file", versioning, "{key}; the log:\n{}", rig.log());
        let is_told = || rig.log().contains("has got another FID");
        match versioning {
            true => assert!(!is_told()),
            // The log has a thread of its own.
            false => until(|| is_told().then_some(())),
        }
        let state = rig.act(Action::Restore, moved);
        assert_eq!(state.states & states::RELEASED, 0, "{}", rig.log());
        assert_eq!(rig.read("moved"), content);
        rig.release(new);
        assert_eq!(rig.restore("file", new), b"new");
    }
}

#[test]
fn where_fids_stay_a_file_that_is_saved_anew_has_the_key_of_the_one_before() {
    // MDTs that migrate no files with a copy, as is their default; and one MDT, which can't.
    for (mdts, migrate) in [(2, false), (1, true)] {
        let mut rig = Rig::without_daemon(Setup {
            mdts,
            ..Setup::default()
        });
        rig.add_settings(&format!("[lustre]\nmigrate_hsm_allowed = {migrate}\n"));
        rig.start();
        let fid = rig.file("file", b"first");
        rig.archive(fid);
        // As editors save.
        let new = rig.file("file.tmp", b"second");
        fs::rename(rig.mount().join("file.tmp"), rig.mount().join("file")).unwrap();
        rig.archive(new);
        assert_eq!(rig.keys(), ["file"], "{}", rig.log());
        assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"second");
    }
}

#[test]
fn a_failed_archive_of_a_copy_leaves_the_record_that_it_had() {
    let mut rig = Rig::new();
    let original = rig.file("orig", &noise(1000));
    rig.archive(original);
    let copied = copy(&mut rig, "orig", "copy");
    let before = rig.client.xattr(copied, MAP).unwrap();
    rig.client
        .inject(Fault::XattrErrno {
            errno: libc::EIO,
            times: 1,
        })
        .unwrap();
    rig.act(Action::Archive, copied);
    assert_eq!(rig.client.xattr(copied, MAP).unwrap(), before);
    until(|| (rig.keys() == ["orig"]).then_some(()));
    rig.archive(copied);
    assert_eq!(rig.keys(), ["copy", "orig"]);
}

#[test]
fn records_and_objects_of_an_older_release_serve_as_before() {
    let mut rig = Rig::new();
    let fid = rig.file("file", &noise(10_000));
    rig.archive(fid);
    age_object(&rig, "file");
    age_record(&mut rig, fid);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), noise(10_000));
    let copied = copy(&mut rig, "file", "copy");
    rig.archive(copied);
    fs::write(rig.mount().join("file"), b"changed").unwrap();
    rig.archive(fid);
    assert_eq!(rig.keys(), ["copy", "file"], "{}", rig.log());
    assert_eq!(rig.store.object_body(BUCKET, "copy").unwrap(), noise(10_000));
    assert!(record(&mut rig, fid)["fid"].is_string());
    // Under another name it leaves the former one, which is its own.
    age_object(&rig, "file");
    age_record(&mut rig, fid);
    fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
    fs::write(rig.mount().join("moved"), b"changed again").unwrap();
    rig.archive(fid);
    until(|| (rig.keys() == ["copy", "moved"]).then_some(()));
    rig.release(fid);
    assert_eq!(rig.restore("moved", fid), b"changed again");
}

#[test]
fn where_nothing_tells_whose_an_imported_object_is_the_changed_file_goes_beside_it() {
    let mut rig = Rig::new();
    rig.put("data", b"of the lab", &[]);
    let mount = rig.mount();
    assert_eq!(count(&rig.import(&mount, &[]), "imported"), 1);
    let fid = rig.client.fid(&mount.join("data")).unwrap();
    age_record(&mut rig, fid);
    assert_eq!(rig.restore("data", fid), b"of the lab");
    fs::write(mount.join("data"), b"changed").unwrap();
    rig.archive(fid);
    assert_eq!(rig.store.object_body(BUCKET, "data").unwrap(), b"of the lab");
    rig.release(fid);
    assert_eq!(rig.restore("data", fid), b"changed");
}

#[test]
fn a_copy_within_the_bucket_is_nobodys_orphan() {
    let mut rig = Rig::new();
    let fid = rig.file("t/a", b"data");
    rig.archive(fid);
    copy_object(&rig, "t/a", "backup/a");
    let line = scrub_and_delete(&rig);
    assert_eq!((count(&line, "orphans"), count(&line, "foreign")), (0, 1), "{line}");
    assert_eq!(rig.keys(), ["backup/a", "t/a"]);
    // A file of that name does not write over it.
    let other = rig.file("backup/a", b"another");
    rig.archive(other);
    assert_eq!(rig.store.object_body(BUCKET, "backup/a").unwrap(), b"data");
    // Nor does it go with its file.
    assert_eq!(rig.stop(), Some(0));
    fs::remove_file(rig.mount().join("t/a")).unwrap();
    let line = scrub_and_delete(&rig);
    assert_eq!((count(&line, "orphans"), count(&line, "mended")), (1, 1), "{line}");
    assert_eq!(rig.store.object_body(BUCKET, "backup/a").unwrap(), b"data");
}

#[test]
fn an_older_releases_object_that_may_be_anybodys_copy_is_told_and_left() {
    let mut rig = Rig::new();
    let fid = rig.file("t/a", b"data");
    rig.archive(fid);
    age_object(&rig, "t/a");
    copy_object(&rig, "t/a", "backup/a");
    let line = scrub_and_delete(&rig);
    assert_eq!((count(&line, "orphans"), count(&line, "mended")), (1, 0), "{line}");
    assert_eq!(rig.keys(), ["backup/a", "t/a"]);
}

/// The metadata of an object that was written to a key for a file.
pub(crate) fn written(rig: &mut Rig, fid: Fid, key: &str) -> HashMap<String, String> {
    let mut metadata = HashMap::from([
        ("lhsm-fid".to_owned(), fid.to_string().replace(['[', ']'], "")),
        ("lhsm-fs".to_owned(), rig.file_system()),
    ]);
    name_key(&mut metadata, &ObjectKey::new(key).unwrap());
    metadata
}
