//! Stores that speak S3 in their own way, with what was done wrong there, and what must be done.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use lhsm_sandbox::protocol::{Action, Fid, states};
use lhsm_sandbox_s3::{Config, Dialect};

use crate::import::count;
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

/// Longer than what is read at a time, so that the body goes in chunks.
const CHUNKED: usize = 300_000;
/// Three parts of the usual rig.
const LARGE: usize = 11 << 20;
const MIB: usize = 1 << 20;

/// The store speaks these from the start. `settings` goes on in `[transfer]`, `keys` in `[[archive]]`.
pub(crate) fn speaking(dialects: &[Dialect], settings: &str, keys: &str) -> Rig {
    let usual = Setup::default();
    started(
        dialects,
        Setup {
            settings: format!("{}{settings}", usual.settings),
            archives: format!("{}{keys}", usual.archives),
            ..usual
        },
    )
}

/// The same with nothing set that has a default.
fn with_defaults(dialects: &[Dialect]) -> Rig {
    let settings = String::new();
    started(
        dialects,
        Setup {
            settings,
            ..Setup::default()
        },
    )
}

fn started(dialects: &[Dialect], setup: Setup) -> Rig {
    let mut rig = Rig::without_daemon(setup);
    rig.store.dialects().set(dialects);
    rig.start();
    rig
}

/// Has an action done; what the coordinator was told of it, 0: done.
pub(crate) fn told(rig: &mut Rig, action: Action, fid: Fid) -> i32 {
    rig.act(action, fid);
    answer(rig, action, fid)
}

/// Of the latest one of that kind.
fn answer(rig: &mut Rig, action: Action, fid: Fid) -> i32 {
    let actions = rig.client.actions().unwrap();
    let mut latest = actions.iter().rev();
    latest
        .find(|one| one.fid == fid && one.action == action)
        .unwrap()
        .errval
}

/// Imports the bucket by its listing alone; the file of that key, at `data/KEY`.
pub(crate) fn imported(rig: &mut Rig, key: &str) -> Fid {
    let to = rig.mount().join("data");
    fs::create_dir_all(&to).unwrap();
    let line = rig.import(&to, &["--on-conflict", "skip"]);
    assert_eq!(count(&line, "failed"), 0, "{line}");
    rig.client.fid(&to.join(key)).unwrap()
}

fn body(rig: &Rig, key: &str) -> Vec<u8> {
    rig.store.object_body(BUCKET, key).unwrap_or_default()
}

/// The daemon's log, when it has ended.
fn whole_log(mut rig: Rig) -> String {
    assert_eq!(rig.stop(), Some(0));
    rig.log()
}

/// All that is done with a file in its life; its object is replaced in its place.
#[track_caller]
fn live(rig: &mut Rig, name: &str, size: usize) {
    let mut content = noise(size);
    let fid = rig.file(name, &content);
    for last in [b"+", b"-"] {
        rig.archive(fid);
        assert_eq!(rig.keys(), [name], "{}", rig.log());
        assert!(body(rig, name) == content, "{name}; the log:\n{}", rig.log());
        rig.release(fid);
        assert!(rig.restore(name, fid) == content, "{name}; the log:\n{}", rig.log());
        content.extend_from_slice(last);
        fs::write(rig.mount().join(name), &content).unwrap();
    }
    rig.archive(fid);
    assert_eq!(rig.act(Action::Remove, fid).states, 0, "{}", rig.log());
    assert_eq!(rig.keys(), Vec::<String>::new(), "{}", rig.log());
    rig.assert_settled();
}

/// Somebody's object at a file's key is left there, and the file comes back from beside it.
#[track_caller]
fn leaves_others_objects(rig: &mut Rig, name: &str, size: usize) {
    rig.put(name, b"somebody's", &[]);
    let before = rig.keys().len();
    let content = noise(size);
    let fid = rig.file(name, &content);
    rig.archive(fid);
    assert_eq!(body(rig, name), b"somebody's", "{}", rig.log());
    assert_eq!(rig.keys().len(), before + 1, "{}", rig.log());
    rig.release(fid);
    assert!(rig.restore(name, fid) == content, "{name}; the log:\n{}", rig.log());
}

#[test]
fn a_store_that_ignores_ranges_is_read_in_one_piece_from_its_beginning() {
    for dialect in [Dialect::RangeIgnored, Dialect::RangeIgnoredWithLength] {
        let mut rig = with_defaults(&[dialect]);
        let mut content = noise(40 * MIB);
        rig.put("object", &content, &[]);
        let fid = imported(&mut rig, "object");
        assert!(
            rig.restore("data/object", fid) == content,
            "{dialect:?}; the log:\n{}",
            rig.log()
        );
        let path = rig.mount().join("data/object");
        let mut file = fs::File::options().append(true).open(path).unwrap();
        file.write_all(b"+").unwrap();
        drop(file);
        content.push(b'+');
        rig.archive(fid);
        assert!(body(&rig, "object") == content, "{dialect:?}; the log:\n{}", rig.log());
        // And what we wrote ourselves.
        rig.release(fid);
        assert!(
            rig.restore("data/object", fid) == content,
            "{dialect:?}; the log:\n{}",
            rig.log()
        );
        rig.assert_settled();
        let log = whole_log(rig);
        assert_eq!(log.matches("objects are read whole").count(), 1, "{log}");
    }
}

#[test]
fn another_range_than_was_asked_for_is_never_a_files_data() {
    let mut rig = speaking(&[Dialect::RangeShifted], "give_up_after = '1s'\n", "");
    let content = noise(LARGE);
    rig.put("object", &content, &[]);
    let fid = imported(&mut rig, "object");
    assert_eq!(
        told(&mut rig, Action::Restore, fid),
        libc::ETIMEDOUT,
        "the log:\n{}",
        rig.log()
    );
    assert_ne!(rig.client.state(fid).unwrap().states & states::RELEASED, 0);
    until(|| rig.log().contains("where bytes").then_some(()));
    rig.store.dialects().clear();
    assert!(rig.restore("data/object", fid) == content, "the log:\n{}", rig.log());
}

/// Shorter than what it was made of.
fn packed() -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&b"the same again, ".repeat(20_000)).unwrap();
    packed.finish().unwrap()
}

#[test]
fn what_is_stored_compressed_comes_as_it_is_stored_or_is_refused_with_the_remedy() {
    let mut rig = speaking(&[Dialect::Gunzipped], "", "");
    rig.store
        .put_encoded(BUCKET, "packed", packed(), std::collections::BTreeMap::new(), "gzip");
    let fid = imported(&mut rig, "packed");
    assert!(rig.restore("data/packed", fid) == packed(), "the log:\n{}", rig.log());
    rig.store.dialects().set(&[Dialect::GunzippedAlways]);
    rig.release(fid);
    assert_eq!(told(&mut rig, Action::Restore, fid), libc::EIO);
    assert_ne!(rig.client.state(fid).unwrap().states & states::RELEASED, 0);
    until(|| rig.log().contains("turn that off there").then_some(()));
    rig.store.dialects().clear();
    assert!(rig.restore("data/packed", fid) == packed());
}

#[test]
fn a_page_of_somebody_elses_is_waited_out_by_each_verb_and_never_believed() {
    for (dialect, words) in [
        (Dialect::HtmlAnswers, "an answer that is not S3's: 200 text/html"),
        (Dialect::HtmlGateway, "an answer that is not S3's: 502 text/html"),
    ] {
        let mut rig = speaking(&[], "give_up_after = '1s'\n", "");
        let mut asked = Vec::new();
        for size in [1000, LARGE] {
            let archived = ["restored", "changed", "removed"].map(|what| {
                let fid = rig.file(&format!("{what}-{size}"), &noise(size));
                rig.archive(fid);
                fid
            });
            let [restored, changed, removed] = archived;
            rig.release(restored);
            fs::write(rig.mount().join(format!("changed-{size}")), noise(size + 1)).unwrap();
            let new = rig.file(&format!("new-{size}"), &noise(size));
            asked.extend([
                (Action::Archive, new),
                (Action::Archive, changed),
                (Action::Restore, restored),
                (Action::Remove, removed),
            ]);
        }
        let before = rig.keys();
        rig.store.dialects().set(&[dialect]);
        for (action, fid) in &asked {
            rig.client.request(*action, 1, &[*fid]).unwrap();
        }
        for (action, fid) in &asked {
            rig.settle(*fid);
            let told = answer(&mut rig, *action, *fid);
            assert_eq!(
                told,
                libc::ETIMEDOUT,
                "{dialect:?} {action:?} {fid}; the log:\n{}",
                rig.log()
            );
        }
        until(|| rig.log().contains(words).then_some(()));
        assert_eq!(rig.keys(), before);
        rig.store.dialects().clear();
        for (action, fid) in &asked {
            assert_eq!(
                told(&mut rig, *action, *fid),
                0,
                "{dialect:?} {action:?} {fid}; the log:\n{}",
                rig.log()
            );
        }
        for size in [1000, LARGE] {
            assert!(rig.read(&format!("restored-{size}")) == noise(size));
            assert!(body(&rig, &format!("changed-{size}")) == noise(size + 1));
        }
        assert_eq!(rig.store.uploads(BUCKET), []);
    }
}

#[test]
fn an_etag_that_is_wanted_without_quotes_is_learned_once() {
    let mut rig = speaking(&[Dialect::IfMatchBare], "", "");
    live(&mut rig, "small", 1000);
    live(&mut rig, "large", LARGE);
    leaves_others_objects(&mut rig, "taken", 1000);
    let log = whole_log(rig);
    assert_eq!(log.matches("trying it without quotes").count(), 1, "{log}");
    assert!(!log.contains("knows no conditional writes"), "{log}");
}

#[test]
fn etags_and_checksums_may_have_any_form() {
    for dialect in [
        Dialect::ETagBare,
        Dialect::ETagUpper,
        Dialect::ETagWeak,
        Dialect::ETagOpaque,
        Dialect::DirectoryBucket,
        Dialect::NoChecksums,
        Dialect::CompositeOnly,
        Dialect::ChecksumDropped,
    ] {
        println!("{dialect:?}");
        let mut rig = speaking(&[dialect], "", "");
        live(&mut rig, "small", 1000);
        live(&mut rig, "large", LARGE);
        leaves_others_objects(&mut rig, "taken", 1000);
        let log = whole_log(rig);
        assert!(!log.contains("knows no conditional writes"), "{dialect:?}: {log}");
    }
}

#[test]
fn where_bodies_in_chunks_are_refused_or_kept_they_go_plain_and_the_guard_stays() {
    for dialect in [
        Dialect::ChunkedRefused501,
        Dialect::ChunkedRefused400,
        Dialect::TrailingChecksum400,
        Dialect::ChunkedKept,
    ] {
        println!("{dialect:?}");
        let mut rig = speaking(&[dialect], "", "");
        live(&mut rig, "chunks", CHUNKED);
        live(&mut rig, "parts", LARGE);
        let looks = rig.store.stats().count("HeadObject");
        let fid = rig.file("fresh", &noise(CHUNKED));
        rig.archive(fid);
        if dialect != Dialect::ChunkedKept {
            // The condition alone guards it, and the checksum alone proves it.
            assert_eq!(rig.store.stats().count("HeadObject"), looks, "{dialect:?}");
        }
        leaves_others_objects(&mut rig, "taken", CHUNKED);
        leaves_others_objects(&mut rig, "taken-large", LARGE);
        let log = whole_log(rig);
        assert!(log.contains("takes no aws-chunked bodies"), "{dialect:?}: {log}");
        assert!(!log.contains("knows no conditional writes"), "{dialect:?}: {log}");
    }
}

/// By its size, which is not the file's; here in one that takes the place of a former copy.
#[test]
fn framing_that_a_store_keeps_is_found_in_the_first_object_and_taken_out() {
    for size in [CHUNKED, LARGE] {
        let mut rig = speaking(&[], "", "");
        let fid = rig.file("file", b"before");
        rig.archive(fid);
        rig.store.dialects().set(&[Dialect::ChunkedKept]);
        fs::write(rig.mount().join("file"), noise(size)).unwrap();
        rig.archive(fid);
        assert_eq!(rig.keys(), ["file"], "{}", rig.log());
        assert!(body(&rig, "file") == noise(size), "{size}; the log:\n{}", rig.log());
        rig.release(fid);
        assert!(
            rig.restore("file", fid) == noise(size),
            "{size}; the log:\n{}",
            rig.log()
        );
        rig.assert_settled();
    }
}

#[test]
fn chunks_are_of_sizes_that_all_stores_take() {
    for dialect in [Dialect::ChunkLimited16MiB, Dialect::ChunkLimitedSmall] {
        let mut rig = with_defaults(&[dialect]);
        for size in [CHUNKED, 8 * MIB + 1, 16 * MIB + 1, 32 * MIB, 32 * MIB + 1] {
            live(&mut rig, &format!("f{size}"), size);
        }
        let log = whole_log(rig);
        assert!(!log.contains("takes no aws-chunked bodies"), "{dialect:?}: {log}");
    }
}

#[test]
fn conditions_are_believed_only_where_they_were_seen_to_be_kept() {
    for dialect in [
        Dialect::ConditionsIgnored,
        Dialect::ConditionsIgnoredOnComplete,
        Dialect::NoConditions501,
    ] {
        println!("{dialect:?}");
        let mut rig = speaking(&[dialect], "", "");
        // Nothing is left of what was tried.
        assert_eq!((rig.keys(), rig.store.uploads(BUCKET)), (Vec::new(), Vec::new()));
        live(&mut rig, "small", 1000);
        live(&mut rig, "large", LARGE);
        leaves_others_objects(&mut rig, "taken", 1000);
        leaves_others_objects(&mut rig, "taken-large", LARGE);
        let log = whole_log(rig);
        assert!(
            log.contains("a condition that the store does not keep"),
            "{dialect:?}: {log}"
        );
        assert_eq!(
            log.matches("knows no conditional writes").count(),
            1,
            "{dialect:?}: {log}"
        );
    }
}

#[test]
fn who_requires_conditions_does_not_start_where_they_are_ignored() {
    for dialect in [Dialect::ConditionsIgnored, Dialect::ConditionsIgnoredOnComplete] {
        let usual = Setup::default();
        let rig = Rig::without_daemon(Setup {
            archives: format!("{}conditions = 'require'\n", usual.archives),
            ..usual
        });
        rig.store.dialects().set(&[dialect]);
        let status = rig.spawn().start().unwrap().wait(PATIENCE).unwrap();
        let log = rig.log();
        assert_eq!(status.code(), Some(1), "{dialect:?}: {log}");
        assert!(
            log.contains("does not keep If-Match or If-None-Match"),
            "{dialect:?}: {log}"
        );
    }
    let mut rig = speaking(&[], "", "conditions = 'require'\n");
    live(&mut rig, "file", 1000);
}

#[test]
fn a_delete_whose_condition_is_ignored_takes_no_other_object() {
    let mut rig = speaking(&[Dialect::ConditionsIgnoredOnDelete], "", "");
    live(&mut rig, "small", 1000);
    let fid = rig.file("file", b"ours");
    rig.archive(fid);
    rig.put("file", b"somebody's", &[]);
    assert_eq!(rig.act(Action::Remove, fid).states, 0, "{}", rig.log());
    assert_eq!(body(&rig, "file"), b"somebody's");
}

#[test]
fn trying_what_a_store_does_leaves_nothing_where_versions_are_kept() {
    let all: [&[Dialect]; 2] = [&[], &[Dialect::ConditionsIgnoredOnDelete]];
    for dialects in all {
        let setup = Setup {
            store: Config {
                versioning: true,
                ..Config::default()
            },
            ..Setup::default()
        };
        let rig = started(dialects, setup);
        assert_eq!(rig.store.versions(BUCKET), [], "{dialects:?}: {}", rig.log());
    }
}

#[test]
fn what_a_trial_left_that_ran_out_of_time_goes_with_the_next_one() {
    let mut rig = Rig::without_daemon(Setup::default());
    let completions = rig.store.faults().hold("CompleteMultipartUpload");
    rig.start();
    assert!(rig.log().contains("is tried before the first one"), "{}", rig.log());
    assert_eq!(rig.keys().len(), 1, "{:?}", rig.keys());
    completions.release();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    assert_eq!(rig.keys(), ["file"], "{}", rig.log());
}

#[test]
fn without_checksums_no_header_asks_for_any() {
    for dialect in [Dialect::ChecksumMode400, Dialect::TrailingChecksum400] {
        let mut rig = speaking(&[dialect], "", "checksum = 'none'\n");
        live(&mut rig, "small", 1000);
        live(&mut rig, "chunks", CHUNKED);
        live(&mut rig, "large", LARGE);
        leaves_others_objects(&mut rig, "taken", 1000);
        let log = whole_log(rig);
        assert!(!log.contains("can't be tried now"), "{dialect:?}: {log}");
    }
}

#[test]
fn metadata_that_is_no_utf_8_is_in_nobodys_way() {
    let mut rig = speaking(&[], "", "");
    for n in 0..50 {
        rig.put(&format!("plain-{n}"), b"plain", &[]);
    }
    rig.store
        .put_raw_metadata(BUCKET, "odd", &b"odd"[..], &[("author", &b"Andr\xe9"[..])]);
    let to = rig.mount().join("data");
    fs::create_dir(&to).unwrap();
    let line = rig.import(&to, &["--metadata", "head"]);
    assert_eq!((count(&line, "imported"), count(&line, "failed")), (51, 0), "{line}");
    for (name, content) in [("data/odd", b"odd".to_vec()), ("data/plain-7", b"plain".to_vec())] {
        let fid = rig.client.fid(&rig.mount().join(name)).unwrap();
        assert_eq!(rig.restore(name, fid), content, "{}", rig.log());
    }
    let line = rig.scrub(&[]);
    assert_eq!((count(&line, "good"), count(&line, "unknown")), (51, 0), "{line}");
    // Where each object has some.
    let mut rig = speaking(&[Dialect::MetadataLatin1], "", "");
    live(&mut rig, "small", 1000);
    live(&mut rig, "large", LARGE);
}

#[test]
fn what_else_a_store_does_not_implement_is_told_and_takes_no_guard_away() {
    for (dialect, keys) in [
        (Dialect::NotImplementedTagging, "tags = 'project=x'\n"),
        (Dialect::NotImplementedAcl, "acl = 'bucket-owner-full-control'\n"),
    ] {
        println!("{dialect:?}");
        let mut rig = speaking(&[dialect], "", keys);
        let fids = [1000, LARGE].map(|size| rig.file(&format!("f{size}"), &noise(size)));
        for fid in fids {
            assert_eq!(told(&mut rig, Action::Archive, fid), libc::EINVAL, "{}", rig.log());
        }
        assert_eq!((rig.keys(), rig.store.uploads(BUCKET)), (Vec::new(), Vec::new()));
        until(|| {
            rig.log()
                .contains("does not implement this (NotImplemented)")
                .then_some(())
        });
        rig.store.dialects().clear();
        for fid in fids {
            rig.archive(fid);
        }
        leaves_others_objects(&mut rig, "taken", 1000);
        leaves_others_objects(&mut rig, "taken-large", LARGE);
        let log = whole_log(rig);
        assert!(!log.contains("knows no conditional writes"), "{dialect:?}: {log}");
    }
}

#[test]
fn errors_without_a_body_are_known_by_their_status() {
    let mut rig = speaking(&[Dialect::NoBodyErrors], "", "");
    live(&mut rig, "small", 1000);
    live(&mut rig, "large", LARGE);
    leaves_others_objects(&mut rig, "taken", 1000);
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    rig.release(fid);
    rig.store.delete(BUCKET, "file");
    assert_eq!(told(&mut rig, Action::Restore, fid), libc::ENOENT, "{}", rig.log());
    // What is gone already is no error of a remove.
    let fid = rig.file("other", b"data");
    rig.archive(fid);
    rig.store.delete(BUCKET, "other");
    assert_eq!(rig.act(Action::Remove, fid).states, 0, "{}", rig.log());
}
