//! Who ended an archive reads the file's record back: others may have written it meanwhile.

use std::fs;

use lhsm_sandbox::protocol::{Action, Fault, Fid, Request, states};
use lhsm_sandbox_s3::Gate;

use crate::owned::written;
use crate::rig::{BUCKET, PATIENCE, Rig, noise, until};

const MAP: &str = "trusted.lhsm_s3";

fn record(rig: &mut Rig, fid: Fid) -> Option<serde_json::Value> {
    let bytes = rig.client.xattr(fid, MAP).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Another client writes the file's record so late that it comes right behind the end of the next archive.
fn write_late(rig: &mut Rig, fid: Fid, value: Option<Vec<u8>>) {
    let name = MAP.to_owned();
    rig.client.inject(Fault::LateXattr { fid, name, value }).unwrap();
}

fn says_again(rig: &mut Rig, fid: Fid, key: &str) {
    until(|| (record(rig, fid)?["key"] == key).then_some(()));
    until(|| rig.log().contains("it is set anew").then_some(()));
}

/// An object's ETag, as records have it.
fn etag(rig: &Rig, key: &str) -> String {
    let objects = rig.store.objects(BUCKET);
    let object = objects.into_iter().find(|object| object.key == key).unwrap();
    format!("\"{}\"", object.etag)
}

/// A file whose record went right behind the end of its archive, while the daemon waits for a look at the object before it
/// sets it anew.
fn archived_without_its_record() -> (Rig, Fid, Gate) {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    write_late(&mut rig, fid, None);
    let heads = rig.store.faults().hold("HeadObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(heads.wait_held_blocking(1, PATIENCE), "{}", rig.log());
    (rig, fid, heads)
}

#[test]
fn a_record_that_was_taken_away_or_put_back_behind_an_archive_is_set_anew() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"first");
    write_late(&mut rig, fid, None);
    rig.archive(fid);
    says_again(&mut rig, fid, "file");
    let former = rig.client.xattr(fid, MAP).unwrap();
    // Another mover was archiving the file, too, and undoes that: the record of before is there again.
    fs::rename(rig.mount().join("file"), rig.mount().join("moved")).unwrap();
    fs::write(rig.mount().join("moved"), b"second").unwrap();
    write_late(&mut rig, fid, Some(former));
    rig.archive(fid);
    says_again(&mut rig, fid, "moved");
    until(|| (rig.keys() == ["moved"]).then_some(()));
    rig.release(fid);
    assert_eq!(rig.restore("moved", fid), b"second", "{}", rig.log());
    rig.assert_settled();
}

#[test]
fn a_record_that_was_copied_over_behind_an_archive_is_set_anew_and_what_it_names_stays() {
    let mut rig = Rig::new();
    let other = rig.file("other", b"of the other");
    rig.archive(other);
    let copied = rig.client.xattr(other, MAP).unwrap();
    let fid = rig.file("file", &noise(1000));
    write_late(&mut rig, fid, Some(copied));
    rig.archive(fid);
    says_again(&mut rig, fid, "file");
    rig.release(fid);
    rig.release(other);
    assert_eq!(rig.restore("file", fid), noise(1000));
    assert_eq!(rig.restore("other", other), b"of the other");
}

#[test]
fn a_file_whose_record_and_object_are_gone_behind_an_archive_is_archived_again_before_it_can_be_released() {
    let (mut rig, fid, heads) = archived_without_its_record();
    assert!(rig.store.delete(BUCKET, "file"));
    heads.release();
    until(|| (rig.client.state(fid).unwrap().states == states::EXISTS).then_some(()));
    assert!(rig.client.release_closed(fid, PATIENCE).is_err());
    rig.archive(fid);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"data");
    rig.assert_settled();
}

#[test]
fn a_file_with_two_copies_of_different_bytes_can_not_be_released_before_it_is_archived_again() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    // Another mover's attempt, of what the file was at another time.
    let mut metadata = written(&mut rig, fid, "elsewhere");
    metadata.insert("lhsm-writer".into(), "0123456789abcdef".into());
    metadata.insert("lhsm-cookie".into(), "0x1".into());
    let metadata = metadata.into_iter().collect();
    rig.store.put(BUCKET, "elsewhere", &b"else"[..], metadata);
    let mut theirs = record(&mut rig, fid).unwrap();
    theirs["key"] = "elsewhere".into();
    theirs["etag"] = etag(&rig, "elsewhere").into();
    theirs["writer"] = "0123456789abcdef".into();
    theirs["crc64nvme"] = "AAAAAAAAAAE=".into();
    fs::write(rig.mount().join("file"), b"changed").unwrap();
    write_late(&mut rig, fid, Some(theirs.to_string().into_bytes()));
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    until(|| (rig.client.state(fid).unwrap().states == states::EXISTS).then_some(()));
    assert_eq!(rig.keys(), ["elsewhere", "file"], "nobody's copy is deleted");
    assert!(rig.client.release_closed(fid, PATIENCE).is_err());
    rig.archive(fid);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"changed");
}

#[test]
fn the_object_of_a_copy_that_was_removed_behind_its_archive_is_swept() {
    let (mut rig, fid, heads) = archived_without_its_record();
    // As a remove leaves it.
    let removed = Request::SetState {
        fid,
        set: 0,
        clear: states::EXISTS | states::ARCHIVED,
        archive_id: Some(0),
    };
    rig.client.ask(&removed).unwrap();
    heads.release();
    until(|| rig.keys().is_empty().then_some(()));
    assert!(rig.client.xattr(fid, MAP).is_err());
}
