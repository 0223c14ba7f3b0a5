//! Files whose record does not name their copy, as a call leaves it that a mover made which was cut off: it comes behind the
//! archive that counts.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use lhsm_sandbox::protocol::{Action, Fid, Request, states};
use lhsm_sandbox_s3::Config;

use crate::import::count;
use crate::rig::{BUCKET, Rig, Setup, until};

const MAP: &str = "trusted.lhsm_s3";
const PUT_RIGHT: &str = "the file's record names its copy again";

fn rig(versioning: bool) -> Rig {
    Rig::with(Setup {
        store: Config {
            versioning,
            ..Config::default()
        },
        ..Setup::default()
    })
}

/// Archived twice, with as many bytes each time, and with nothing of that left to do; the record that it had between.
fn archived_twice(rig: &mut Rig) -> (Fid, Vec<u8>) {
    let fid = rig.file("file", b"before");
    rig.archive(fid);
    let before = rig.client.xattr(fid, MAP).unwrap();
    let path = rig.mount().join("file");
    fs::write(&path, b"behind").unwrap();
    // Whatever the clock's pace.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .unwrap();
    drop(file);
    rig.archive(fid);
    assert_eq!(rig.stop(), Some(0));
    (fid, before)
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
