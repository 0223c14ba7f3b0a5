//! What others wrote is held against whatever the store knows of its bytes, before a restore is done.

use lhsm_sandbox::protocol::{Action, Fid, states};
use lhsm_sandbox_s3::Dialect;

use crate::dialects::{imported, speaking, told};
use crate::import::count;
use crate::rig::{BUCKET, Rig, noise, until};

/// Bodies that are sent in one restore, at most.
const ALL: u32 = 1000;
const MIB: usize = 1 << 20;
/// What is said once, where nothing proves what was imported.
const UNPROVEN: &str = "rest on size, ETag and ranges";

/// How somebody's program has written an object.
#[derive(Clone, Copy, Debug)]
enum Written {
    Whole,
    /// In parts of so many MiB, with the checksum that was asked for.
    Parts(&'static [usize], Option<&'static str>),
}

/// Parts of one size, but for the last.
const EVEN: &[usize] = &[5, 5, 1];
/// As they come where objects are joined to another one.
const UNEVEN: &[usize] = &[5, 6, 1];

impl Written {
    /// Puts it at the key; its bytes.
    fn put(self, rig: &Rig, key: &str) -> Vec<u8> {
        let Self::Parts(sizes, algorithm) = self else {
            let content = noise(300_000);
            rig.put(key, &content, &[]);
            return content;
        };
        let content = noise(sizes.iter().sum::<usize>() * MIB);
        let mut rest = &content[..];
        let mut parts = Vec::new();
        for size in sizes {
            let (part, behind) = rest.split_at(size * MIB);
            parts.push(part);
            rest = behind;
        }
        rig.store.put_parts(BUCKET, key, &parts, algorithm);
        content
    }
}

fn is_released(rig: &mut Rig, fid: Fid) -> bool {
    rig.client.state(fid).unwrap().states & states::RELEASED != 0
}

/// Its bytes come damaged all the time, then once, then as they are.
#[track_caller]
fn assert_proven(rig: &mut Rig, written: Written, key: &str) {
    let content = written.put(rig, key);
    let fid = imported(rig, key);
    rig.store.faults().corrupt_body(ALL);
    let errno = told(rig, Action::Restore, fid);
    rig.store.faults().clear();
    assert_eq!(errno, libc::EIO, "{written:?}; the log:\n{}", rig.log());
    assert!(is_released(rig, fid), "{written:?}");
    rig.store.faults().corrupt_body(1);
    let name = format!("data/{key}");
    assert!(
        rig.restore(&name, fid) == content,
        "{written:?}; the log:\n{}",
        rig.log()
    );
    rig.release(fid);
    assert!(
        rig.restore(&name, fid) == content,
        "{written:?}; the log:\n{}",
        rig.log()
    );
}

/// It comes, and nobody can say whether it is right.
#[track_caller]
fn assert_unproven(rig: &mut Rig, written: Written, key: &str) {
    let content = written.put(rig, key);
    let fid = imported(rig, key);
    let name = format!("data/{key}");
    assert!(
        rig.restore(&name, fid) == content,
        "{written:?}; the log:\n{}",
        rig.log()
    );
    until(|| rig.log().contains(UNPROVEN).then_some(()));
}

#[test]
fn damaged_bytes_of_an_imported_object_are_never_a_restored_file_whatever_proves_them() {
    // CRC64NVME of the whole.
    let mut rig = speaking(&[], "", "");
    assert_proven(&mut rig, Written::Whole, "whole");
    assert_proven(&mut rig, Written::Parts(EVEN, None), "parts");
    // Checksums of the parts' checksums.
    for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256"] {
        assert_proven(&mut rig, Written::Parts(EVEN, Some(algorithm)), algorithm);
    }
    assert_proven(&mut rig, Written::Parts(UNEVEN, Some("SHA256")), "uneven");
    rig.assert_settled();
    let mut rig = speaking(&[Dialect::CompositeOnly], "", "");
    assert_proven(&mut rig, Written::Parts(EVEN, None), "parts");
    // The ETag is an MD5, or that of the parts' MD5s.
    let mut rig = speaking(&[Dialect::NoChecksums], "", "");
    assert_proven(&mut rig, Written::Whole, "whole");
    assert_proven(&mut rig, Written::Parts(EVEN, None), "parts");
    assert_proven(&mut rig, Written::Parts(UNEVEN, None), "uneven");
    assert!(!rig.log().contains(UNPROVEN), "{}", rig.log());
    rig.assert_settled();
}

#[test]
fn what_nothing_proves_is_restored_and_that_is_said_once() {
    let mut rig = speaking(&[Dialect::NoChecksums, Dialect::ETagOpaque], "", "");
    for (written, key) in [
        (Written::Whole, "one"),
        (Written::Whole, "two"),
        (Written::Parts(EVEN, None), "parts"),
    ] {
        assert_unproven(&mut rig, written, key);
    }
    assert_eq!(rig.stop(), Some(0));
    let log = rig.log();
    assert_eq!(log.matches(UNPROVEN).count(), 1, "{log}");
}

#[test]
fn an_etag_that_was_an_md5_once_proves_the_next_object() {
    // Nothing is tried at the start.
    let mut rig = speaking(&[Dialect::NoChecksums], "", "conditions = 'look'\n");
    let content = Written::Whole.put(&rig, "first");
    let fid = imported(&mut rig, "first");
    assert!(rig.restore("data/first", fid) == content, "{}", rig.log());
    assert_proven(&mut rig, Written::Whole, "second");
}

#[test]
fn a_proof_that_is_not_wanted_costs_no_request() {
    let mut rig = speaking(&[], "", "verify_imported = 'never'\n");
    let content = Written::Parts(EVEN, None).put(&rig, "object");
    let fid = imported(&mut rig, "object");
    let looks = rig.store.stats().count("HeadObject");
    assert!(rig.restore("data/object", fid) == content, "{}", rig.log());
    assert_eq!(rig.store.stats().count("HeadObject"), looks, "{}", rig.log());
}

#[test]
fn a_proof_that_is_free_is_taken_where_only_those_are_wanted() {
    let mut rig = speaking(&[], "", "verify_imported = 'if-free'\n");
    assert_proven(&mut rig, Written::Whole, "whole");
    assert_proven(&mut rig, Written::Parts(EVEN, None), "parts");
    // For these the file would be read once more.
    assert!(!rig.log().contains(UNPROVEN), "{}", rig.log());
    assert_unproven(&mut rig, Written::Parts(EVEN, Some("SHA256")), "parts-of-others");
}

#[test]
fn what_an_object_of_ours_is_held_against_is_our_own_record() {
    // Nothing is asked of the store, which knows nothing either.
    let mut rig = speaking(&[Dialect::NoChecksums, Dialect::ETagOpaque], "", "");
    let content = noise(11 * MIB);
    let fid = rig.file("file", &content);
    rig.archive(fid);
    rig.release(fid);
    let looks = rig.store.stats().count("HeadObject");
    rig.store.faults().corrupt_body(ALL);
    assert_eq!(told(&mut rig, Action::Restore, fid), libc::EIO, "{}", rig.log());
    rig.store.faults().clear();
    assert!(is_released(&mut rig, fid));
    assert!(rig.restore("file", fid) == content);
    assert_eq!(rig.store.stats().count("HeadObject"), looks);
    assert!(!rig.log().contains(UNPROVEN), "{}", rig.log());
}

#[test]
fn a_deep_scrub_holds_imported_objects_against_the_same_proofs() {
    let mut rig = speaking(&[], "", "");
    for (written, key) in [
        (Written::Whole, "whole"),
        (Written::Parts(EVEN, None), "parts"),
        (Written::Parts(EVEN, Some("SHA256")), "parts-of-others"),
        (Written::Parts(UNEVEN, Some("SHA256")), "uneven"),
    ] {
        written.put(&rig, key);
        imported(&mut rig, key);
    }
    let found = |line: &serde_json::Value| (count(line, "good"), count(line, "changed"), count(line, "unknown"));
    let line = rig.scrub(&["--deep"]);
    assert_eq!(found(&line), (4, 0, 0), "{line}");
    rig.store.faults().corrupt_body(ALL);
    let line = rig.scrub(&["--deep"]);
    rig.store.faults().clear();
    assert_eq!(found(&line), (0, 4, 0), "{line}");
}
