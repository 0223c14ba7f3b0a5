//! Buckets without versions: a deletion is announced on the file, and an archive that finds one does not count on its object.

use std::time::{SystemTime, UNIX_EPOCH};

use lhsm_sandbox::protocol::{Action, Fid, Reply, Request};

use crate::rig::{BUCKET, PATIENCE, Rig, until};

const ANNOUNCED: &str = "trusted.lhsm_s3_deleting.0123456789abcdef";
const NOTED: &str = "trusted.lhsm_s3_deleted";

/// What another mover says of a file's object, so many seconds ago.
fn words(fid: Fid, key: &str, ago: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    format!("1 {} 1 {fid} {key}", now - ago).into_bytes()
}

/// The file's attributes that tell of deletions.
fn said(rig: &mut Rig, fid: Fid) -> Vec<String> {
    let Reply::Bytes(names) = rig.client.ask(&Request::ListXattr(fid)).unwrap() else {
        panic!("no list");
    };
    let names = String::from_utf8(names).unwrap();
    let names = names.split('\0').filter(|name| name.contains("_delet"));
    names.map(str::to_owned).collect()
}

#[test]
fn a_remove_says_on_the_file_that_it_deletes_and_notes_that_it_did() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    assert_eq!(said(&mut rig, fid), Vec::<String>::new());
    let gate = rig.store.faults().hold("DeleteObject");
    rig.client.request(Action::Remove, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE), "{}", rig.log());
    let names = said(&mut rig, fid);
    assert!(
        names.len() == 1 && names[0].starts_with("trusted.lhsm_s3_deleting."),
        "{names:?}"
    );
    let told = String::from_utf8(rig.client.xattr(fid, &names[0]).unwrap()).unwrap();
    assert!(told.ends_with(" file"), "{told}");
    gate.release();
    rig.settle(fid);
    assert_eq!(said(&mut rig, fid), [NOTED]);
    assert_eq!(rig.keys(), Vec::<String>::new());
    // It is archived as ever.
    rig.archive(fid);
    assert_eq!(rig.keys(), ["file"]);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"data");
}

#[test]
fn an_object_that_another_movers_deletion_takes_away_is_written_again_before_the_file_counts_as_archived() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE), "{}", rig.log());
    rig.client.set_xattr(fid, ANNOUNCED, &words(fid, "file", 0)).unwrap();
    gate.release();
    // It has looked before, and its DELETE demands just these bytes. Where this here is slow, the archive went beside.
    until(|| (!rig.keys().is_empty()).then_some(()));
    let was_there = rig.store.delete(BUCKET, "file");
    rig.client.set_xattr(fid, NOTED, &words(fid, "file", 0)).unwrap();
    rig.client.ask(&Request::RemoveXattr(fid, ANNOUNCED.into())).unwrap();
    rig.settle(fid);
    rig.release(fid);
    assert_eq!(
        rig.restore("file", fid),
        b"data",
        "was there: {was_there}; {}",
        rig.log()
    );
    rig.assert_settled();
}

#[test]
fn where_a_dead_mover_was_about_to_delete_an_archive_goes_beside() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    rig.client.set_xattr(fid, ANNOUNCED, &words(fid, "file", 0)).unwrap();
    rig.archive(fid);
    let keys = rig.keys();
    assert!(keys.len() == 1 && keys[0].starts_with("file~"), "{keys:?}");
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"data", "{}", rig.log());
    rig.assert_settled();
}

#[test]
fn what_was_said_long_ago_or_of_another_file_or_key_keeps_no_archive_from_its_key() {
    let mut rig = Rig::new();
    let other = rig.file("other", b"other");
    let fid = rig.file("file", b"data");
    for said in [
        words(fid, "file", 7200),
        words(other, "file", 0),
        words(fid, "elsewhere", 0),
        b"what nobody says".to_vec(),
    ] {
        std::fs::write(rig.mount().join("file"), b"data").unwrap();
        rig.client.set_xattr(fid, ANNOUNCED, &said).unwrap();
        rig.archive(fid);
        assert_eq!(rig.keys(), ["file"], "{}", rig.log());
    }
    rig.client.set_xattr(fid, ANNOUNCED, &words(fid, "file", 7200)).unwrap();
    std::fs::write(rig.mount().join("file"), b"changed").unwrap();
    rig.archive(fid);
    assert_eq!(said(&mut rig, fid), Vec::<String>::new(), "what is dead is taken away");
}
