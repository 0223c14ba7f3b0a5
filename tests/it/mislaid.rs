//! Files whose record does not name their copy, as a call leaves it that a mover made which was cut off: it comes behind the
//! archive that counts.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use lhsm_sandbox::protocol::{Action, Fid, Request, UserChange, states};
use lhsm_sandbox_s3::Config;

use crate::import::count;
use crate::rig::{BUCKET, Rig, Setup, noise, until};

const MAP: &str = "trusted.lhsm_s3";
const PUT_RIGHT: &str = "the file's record names its copy again";
/// When the file was written, in seconds.
const FIRST: u64 = 1_600_000_000;
const SECOND: u64 = 1_700_000_000;

fn rig(versioning: bool) -> Rig {
    Rig::with(Setup {
        store: Config {
            versioning,
            ..Config::default()
        },
        ..Setup::default()
    })
}

/// Archived twice, with as many bytes each time, and with nothing of that left to do.
struct Twice {
    fid: Fid,
    /// The record that it had between.
    record: Vec<u8>,
    /// And its object's metadata.
    metadata: BTreeMap<String, String>,
}

/// Whatever the clock's pace.
fn set_time(rig: &Rig, seconds: u64) {
    let file = fs::File::options().write(true).open(rig.mount().join("file")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .unwrap();
}

/// In two seconds: the stand-in makes a file's data version of its size and its time.
fn twice(rig: &mut Rig) -> Twice {
    let fid = rig.file("file", b"before");
    set_time(rig, FIRST);
    rig.archive(fid);
    let (record, metadata) = (rig.client.xattr(fid, MAP).unwrap(), metadata(rig, "file"));
    fs::write(rig.mount().join("file"), b"behind").unwrap();
    set_time(rig, SECOND);
    rig.archive(fid);
    assert_eq!(rig.stop(), Some(0));
    Twice { fid, record, metadata }
}

fn archived_twice(rig: &mut Rig) -> (Fid, Vec<u8>) {
    let Twice { fid, record, .. } = twice(rig);
    (fid, record)
}

/// In a bucket with versions; what was written before came once more behind that, by a mover that was cut off.
fn covered(rig: &mut Rig) -> (Fid, Vec<u8>) {
    let Twice { fid, record, metadata } = twice(rig);
    rig.store.put(BUCKET, "file", &b"before"[..], metadata);
    (fid, record)
}

fn remove_record(rig: &mut Rig, fid: Fid) {
    rig.client.ask(&Request::RemoveXattr(fid, MAP.into())).unwrap();
}

fn metadata(rig: &Rig, key: &str) -> BTreeMap<String, String> {
    let mut objects = rig.store.objects(BUCKET).into_iter();
    objects.find(|object| object.key == key).unwrap().metadata
}

/// A restore of what is released then, which fails; the file has the record that it had.
fn can_not_be_restored(rig: &mut Rig, fid: Fid) {
    let before = rig.client.xattr(fid, MAP).ok();
    let state = rig.act(Action::Restore, fid).states;
    assert_ne!(state & states::RELEASED, 0, "{}", rig.log());
    assert_eq!(rig.client.xattr(fid, MAP).ok(), before);
}

#[test]
fn hsm_keeps_the_data_version_of_the_copy() {
    // How the stand-in follows a client of 2.17.
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    assert!(rig.client.xattr(fid, "trusted.hsm").is_err());
    rig.archive(fid);
    let attributes = rig.client.xattr(fid, "trusted.hsm").unwrap();
    assert_eq!(attributes.len(), 24);
    assert_eq!(attributes[4..16], [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let version = u64::from_le_bytes(attributes[16..].try_into().unwrap());
    assert_eq!(metadata(&rig, "file")["lhsm-dv"], format!("{version:x}"));
    rig.client.set_xattr(fid, "trusted.hsm", &[0; 24]).unwrap();
    assert_eq!(rig.client.xattr(fid, "trusted.hsm").unwrap(), attributes);
}

#[test]
fn a_record_that_comes_behind_the_archive_that_counts_hides_no_copy() {
    // Where versions are kept what the late record names is there, with other bytes.
    for versioning in [false, true] {
        let mut rig = rig(versioning);
        let (fid, late) = archived_twice(&mut rig);
        let right = rig.client.xattr(fid, MAP).unwrap();
        rig.client.set_xattr(fid, MAP, &late).unwrap();
        rig.release(fid);
        rig.start();
        assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
        until(|| rig.log().contains(PUT_RIGHT).then_some(()));
        let etag = |record: &[u8]| serde_json::from_slice::<serde_json::Value>(record).unwrap()["etag"].clone();
        let now = rig.client.xattr(fid, MAP).unwrap();
        assert_eq!(etag(&now), etag(&right));
        // Restored once more, the data version is another one, and the record is as good as it was.
        rig.release(fid);
        assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
        assert_eq!(rig.client.xattr(fid, MAP).unwrap(), now);
        rig.assert_settled();
    }
}

#[test]
fn a_record_that_was_taken_away_behind_the_archive_that_counts_is_written_again() {
    for versioning in [false, true] {
        let mut rig = rig(versioning);
        let (fid, _) = archived_twice(&mut rig);
        remove_record(&mut rig, fid);
        rig.release(fid);
        rig.start();
        assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
        until(|| rig.log().contains(PUT_RIGHT).then_some(()));
        assert!(rig.client.xattr(fid, MAP).is_ok());
    }
}

#[test]
fn what_is_not_the_copy_is_not_taken_for_it() {
    let mut rig = Rig::new();
    let (fid, late) = archived_twice(&mut rig);
    let other = rig.file("other", b"others");
    rig.start();
    rig.archive(other);
    let own = metadata(&rig, "file");
    rig.client.set_xattr(fid, MAP, &late).unwrap();
    rig.release(fid);
    let with = |name: &str, value: &str| {
        let mut metadata = own.clone();
        metadata.insert(name.to_owned(), value.to_owned());
        metadata
    };
    let mut of_another_time = with("lhsm-dv", "1");
    of_another_time.insert("file-mtime".to_owned(), "1000000000ns".to_owned());
    let another = other.to_string().replace(['[', ']'], "");
    for (body, metadata) in [
        (&b"others"[..], with("lhsm-fid", &another)),
        (b"others", with("lhsm-fs", "lustre:another")),
        (b"others", with("lhsm-key", "0")),
        (b"others", of_another_time),
        (b"of another size", own.clone()),
        (b"others", BTreeMap::new()),
    ] {
        rig.store.put(BUCKET, "file", body, metadata);
        can_not_be_restored(&mut rig, fid);
    }
    rig.store.put(BUCKET, "file", &b"behind"[..], own);
    assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
}

#[test]
fn bytes_that_the_record_does_not_know_are_not_taken_where_it_is_of_the_archived_data() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    rig.release(fid);
    // Whatever it says of itself.
    let own = metadata(&rig, "file");
    rig.store.put(BUCKET, "file", &b"else"[..], own);
    can_not_be_restored(&mut rig, fid);
}

#[test]
fn scrub_deletes_no_copy_that_a_late_record_hides_and_puts_the_record_right() {
    for (versioning, has_record) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut rig = rig(versioning);
        let (fid, late) = archived_twice(&mut rig);
        if has_record {
            rig.client.set_xattr(fid, MAP, &late).unwrap();
        } else {
            remove_record(&mut rig, fid);
        }
        rig.release(fid);
        let line = rig.scrub(&["--delete-orphans"]);
        let found = ["mislaid", "changed", "orphans", "missing", "mended"].map(|name| count(&line, name));
        assert_eq!(found, [1, 0, 0, 0, 0], "{line}");
        assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"behind");
        let line = rig.scrub(&["--repair", "--files-only"]);
        assert_eq!(["mislaid", "mended"].map(|name| count(&line, name)), [1, 1], "{line}");
        let line = rig.scrub(&[]);
        assert_eq!(["good", "mislaid"].map(|name| count(&line, name)), [1, 0], "{line}");
        rig.start();
        assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
        assert!(!rig.log().contains(PUT_RIGHT), "{}", rig.log());
    }
}

#[test]
fn scrub_finds_the_copy_of_a_file_that_was_renamed_since_by_what_the_object_says() {
    let mut rig = Rig::new();
    let (fid, _) = archived_twice(&mut rig);
    remove_record(&mut rig, fid);
    fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
    rig.release(fid);
    let line = rig.scrub(&["--repair", "--delete-orphans"]);
    let found = ["mislaid", "unmapped", "orphans", "mended"].map(|name| count(&line, name));
    assert_eq!(found, [1, 1, 0, 1], "{line}");
    let line = rig.scrub(&[]);
    assert_eq!(["good", "mislaid"].map(|name| count(&line, name)), [1, 0], "{line}");
    rig.start();
    assert_eq!(rig.restore("moved", fid), b"behind", "{}", rig.log());
}

#[test]
fn what_is_written_over_the_copy_late_is_not_restored_where_versions_are_kept() {
    for has_record in [true, false] {
        let mut rig = rig(true);
        let (fid, late) = covered(&mut rig);
        if has_record {
            rig.client.set_xattr(fid, MAP, &late).unwrap();
        } else {
            remove_record(&mut rig, fid);
        }
        rig.release(fid);
        rig.start();
        assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
        until(|| rig.log().contains(PUT_RIGHT).then_some(()));
        let now = rig.client.xattr(fid, MAP).unwrap();
        rig.release(fid);
        assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
        assert_eq!(rig.client.xattr(fid, MAP).unwrap(), now);
        rig.assert_settled();
    }
}

#[test]
fn where_versions_can_not_be_listed_what_the_record_names_is_restored() {
    let mut rig = rig(true);
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    rig.store.faults().fail("ListObjectVersions", 403, "AccessDenied", 99);
    // The second time the data version is another one than the record's.
    for _ in 0..2 {
        rig.release(fid);
        assert_eq!(rig.restore("file", fid), b"data", "{}", rig.log());
    }
    rig.assert_settled();
}

#[test]
fn scrub_finds_the_copy_below_what_was_written_over_it_late() {
    for has_record in [true, false] {
        let mut rig = rig(true);
        let (fid, late) = covered(&mut rig);
        if has_record {
            rig.client.set_xattr(fid, MAP, &late).unwrap();
        } else {
            remove_record(&mut rig, fid);
        }
        rig.release(fid);
        let line = rig.scrub(&["--delete-orphans"]);
        let found = ["mislaid", "orphans", "missing", "mended"].map(|name| count(&line, name));
        assert_eq!(found, [1, 0, 0, 0], "{line}");
        let line = rig.scrub(&["--repair", "--files-only"]);
        assert_eq!(["mislaid", "mended"].map(|name| count(&line, name)), [1, 1], "{line}");
        // It is to be made the current one again.
        let line = rig.scrub(&[]);
        assert_eq!(
            ["noncurrent", "mislaid"].map(|name| count(&line, name)),
            [1, 0],
            "{line}"
        );
        rig.start();
        assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
        assert!(!rig.log().contains(PUT_RIGHT), "{}", rig.log());
    }
}

#[test]
fn scrub_puts_no_delete_marker_over_the_copy_of_a_file_that_was_renamed() {
    let mut rig = rig(true);
    let (fid, _) = covered(&mut rig);
    remove_record(&mut rig, fid);
    fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
    rig.release(fid);
    let line = rig.scrub(&["--repair", "--delete-orphans"]);
    let found = ["mislaid", "orphans", "mended"].map(|name| count(&line, name));
    assert_eq!(found, [1, 0, 1], "{line}");
    assert!(rig.store.versions(BUCKET).iter().all(|(_, is_marker)| !is_marker));
    rig.start();
    assert_eq!(rig.restore("moved", fid), b"behind", "{}", rig.log());
}

#[test]
fn a_copy_that_no_record_names_keeps_its_sidecar() {
    for renamed in [false, true] {
        let mut rig = rig(false);
        let fid = rig.file("file", b"before");
        xattr::set(rig.mount().join("file"), "user.large", &noise(2500)).unwrap();
        rig.archive(fid);
        let late = rig.client.xattr(fid, MAP).unwrap();
        fs::write(rig.mount().join("file"), b"behind").unwrap();
        set_time(&rig, SECOND);
        rig.archive(fid);
        // The former one goes after the answer.
        let is_sidecar = |key: &String| key.starts_with(".lhsm-s3-metadata/");
        until(|| {
            let there = rig.keys().into_iter().filter(is_sidecar).count();
            (there == 1).then_some(())
        });
        assert_eq!(rig.stop(), Some(0));
        let keys = rig.keys();
        rig.client.set_xattr(fid, MAP, &late).unwrap();
        if renamed {
            remove_record(&mut rig, fid);
            fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
        }
        rig.release(fid);
        let line = rig.scrub(&["--delete-orphans"]);
        assert_eq!(["mislaid", "orphans"].map(|name| count(&line, name)), [1, 0], "{line}");
        assert_eq!(rig.keys(), keys, "{line}");
        let line = rig.scrub(&["--repair"]);
        assert_eq!(["mislaid", "mended"].map(|name| count(&line, name)), [1, 1], "{line}");
        assert_eq!(count(&rig.scrub(&["--delete-orphans"]), "orphans"), 0);
        assert_eq!(rig.keys(), keys);
        rig.start();
        let name = if renamed { "moved" } else { "file" };
        assert_eq!(rig.restore(name, fid), b"behind", "{}", rig.log());
    }
}

#[test]
fn no_record_is_put_to_an_object_that_somebody_has_announced_to_delete() {
    const ANNOUNCED: &str = "trusted.lhsm_s3_deleting.0123456789abcdef";
    for renamed in [false, true] {
        let mut rig = rig(false);
        let (fid, late) = archived_twice(&mut rig);
        if renamed {
            remove_record(&mut rig, fid);
            fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
        } else {
            rig.client.set_xattr(fid, MAP, &late).unwrap();
        }
        rig.release(fid);
        let before = rig.client.xattr(fid, MAP).ok();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let words = format!("1 {} 1 {fid} file", now.as_secs());
        rig.client.set_xattr(fid, ANNOUNCED, words.as_bytes()).unwrap();
        let line = rig.scrub(&["--repair"]);
        assert_eq!(["mislaid", "mended"].map(|name| count(&line, name)), [1, 0], "{line}");
        assert_eq!(rig.client.xattr(fid, MAP).ok(), before);
        if !renamed {
            // What is there can be read.
            rig.start();
            assert_eq!(rig.restore("file", fid), b"behind", "{}", rig.log());
            assert_eq!(rig.client.xattr(fid, MAP).ok(), before);
            continue;
        }
        rig.client.ask(&Request::RemoveXattr(fid, ANNOUNCED.into())).unwrap();
        let line = rig.scrub(&["--repair"]);
        assert_eq!(["mislaid", "mended"].map(|name| count(&line, name)), [1, 1], "{line}");
    }
}

#[test]
fn what_follows_the_file_system_moves_nothing_by_a_late_record() {
    // Where versions are kept what the late record names is there.
    for versioning in [false, true] {
        let mut rig = rig(versioning);
        let user = rig.client.register_changelog().unwrap();
        let Twice { fid, record, .. } = twice(&mut rig);
        rig.follow(&user, "rename,attr");
        rig.client.set_xattr(fid, MAP, &record).unwrap();
        let rename = UserChange::Rename("file".into(), "moved".into());
        rig.client.change(rename).unwrap();
        let line = rig.follow(&user, "rename,attr");
        assert_eq!(["moved", "restated"].map(|name| count(&line, name)), [0, 0], "{line}");
        assert_eq!(rig.client.xattr(fid, MAP).unwrap(), record);
        rig.release(fid);
        rig.start();
        assert_eq!(rig.restore("moved", fid), b"behind", "{}", rig.log());
        until(|| rig.log().contains(PUT_RIGHT).then_some(()));
        // By the record that is right it goes to its key.
        rig.client.change(UserChange::Chmod("moved".into(), 0o600)).unwrap();
        let line = rig.follow(&user, "rename,attr");
        assert_eq!(count(&line, "moved"), 1, "{line}");
        assert_eq!(rig.store.object_body(BUCKET, "moved").unwrap(), b"behind");
        rig.release(fid);
        assert_eq!(rig.restore("moved", fid), b"behind", "{}", rig.log());
    }
}
