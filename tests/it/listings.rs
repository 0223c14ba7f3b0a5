//! Listings that are not as S3 gives them: all objects are found, or the command ends with what the store did.

use std::fs;
use std::path::Path;
use std::process::Output;

use lhsm_sandbox_s3::{Config, Dialect};

use crate::import::{count, json, names};
use crate::rig::{BUCKET, Rig, Setup, until};

/// Below the prefix.
const OBJECTS: u64 = 600;

/// What has to come of a listing.
enum Right {
    All,
    /// An error that says so.
    Error(&'static str),
}

const DIALECTS: &[(Dialect, Right)] = &[
    (Dialect::ListShuffled, Right::All),
    (Dialect::ListDirectoryOrder, Right::All),
    (Dialect::DirectoryBucket, Right::All),
    (Dialect::ListEmptyPages, Right::All),
    (Dialect::ListIgnoresStartAfter, Right::All),
    (Dialect::ListNoDelimiter, Right::All),
    (Dialect::ListTruncatedNoToken, Right::Error("no token")),
    (Dialect::ListRepeatsPage, Right::Error("circle")),
    (Dialect::ListIgnoresToken, Right::Error("circle")),
    (
        Dialect::ListBehindPrefix,
        Right::Error("begins with 'p/' has 'q/behind'"),
    ),
];

/// Nothing but a sandbox and a store with small pages.
fn rig(list_page: usize) -> Rig {
    Rig::without_daemon(Setup {
        store: Config {
            list_page,
            ..Config::default()
        },
        ..Setup::default()
    })
}

/// Keys of which a directory's stand elsewhere than their bytes say, and one behind the prefix.
fn fill(rig: &Rig) {
    for n in 0..OBJECTS {
        let key = match n % 3 {
            0 => format!("p/obj/{n:03}"),
            1 => format!("p/obj+{n:03}"),
            _ => format!("p/a{n:03}"),
        };
        rig.put(&key, b"x", &[("file-permissions", "0100640")]);
    }
    rig.put("q/behind", b"x", &[]);
}

fn files(root: &Path) -> u64 {
    let is_file = |name: &&String| root.join(name).symlink_metadata().unwrap().is_file();
    names(root).iter().filter(is_file).count() as u64
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `import` or `rebuild` of the prefix into a directory of its own.
fn take(rig: &Rig, verb: &str, name: &str, more: &[&str]) -> Output {
    let to = rig.mount().join(name);
    fs::create_dir_all(&to).unwrap();
    let (url, to) = (format!("s3://{BUCKET}/p"), to.display().to_string());
    let mut arguments = vec![verb, &url, &to, "--json"];
    arguments.extend(more);
    rig.run(&arguments)
}

fn report_of(rig: &Rig) -> String {
    rig.dir.path().join("report.json").display().to_string()
}

/// The lines of the report about a key.
fn lines_of(rig: &Rig, key: &str) -> Vec<String> {
    let report = fs::read_to_string(report_of(rig)).unwrap();
    let about = format!("\"key\":\"{key}\"");
    let lines = report.lines().filter(|line| line.contains(&about));
    lines.map(str::to_owned).collect()
}

fn finds_all_or_says_why(verb: &str) {
    let rig = rig(100);
    fill(&rig);
    for (dialect, right) in DIALECTS {
        rig.store.dialects().set(&[*dialect]);
        let name = format!("{verb}-{}", dialect.name());
        let output = take(&rig, verb, &name, &[]);
        let said = said(&output);
        match right {
            Right::All => {
                assert!(output.status.success(), "{name}: {said}");
                assert_eq!(count(&json(&output), "imported"), OBJECTS, "{name}: {said}");
                assert_eq!(files(&rig.mount().join(&name)), OBJECTS, "{name}: {said}");
            }
            Right::Error(words) => {
                assert!(!output.status.success(), "{name}: {said}");
                assert!(said.contains(words), "{name}: {said}");
            }
        }
    }
}

#[test]
fn an_import_finds_all_objects_or_says_what_the_store_did() {
    finds_all_or_says_why("import");
}

#[test]
fn a_rebuild_finds_all_objects_or_says_what_the_store_did() {
    finds_all_or_says_why("rebuild");
}

#[test]
fn a_scrub_looks_at_all_objects_or_says_what_the_store_did() {
    let mut setup = Setup {
        store: Config {
            list_page: 100,
            ..Config::default()
        },
        ..Setup::default()
    };
    setup.archives.push_str("prefix = 'p/'\n");
    let rig = Rig::without_daemon(setup);
    fill(&rig);
    let mount = rig.mount().display().to_string();
    for (dialect, right) in DIALECTS {
        rig.store.dialects().set(&[*dialect]);
        let output = rig.run(&["scrub", &mount, "--json"]);
        let said = said(&output);
        match right {
            Right::All => {
                assert!(output.status.success(), "{dialect:?}: {said}");
                let line = json(&output);
                assert_eq!(
                    (count(&line, "objects"), count(&line, "foreign")),
                    (OBJECTS, OBJECTS),
                    "{dialect:?}"
                );
            }
            Right::Error(words) => {
                assert!(!output.status.success(), "{dialect:?}: {said}");
                assert!(said.contains(words), "{dialect:?}: {said}");
            }
        }
    }
}

#[test]
fn a_key_out_of_order_far_behind_the_first_pages_is_found_and_counted_once() {
    let rig = rig(10);
    // In order for forty pages, which is when they are listed in parts; then what belongs before all of them.
    for n in 0..400 {
        rig.put(&format!("p/d/{n:03}"), b"x", &[]);
        rig.put(&format!("p/e/{n:03}"), b"x", &[]);
    }
    rig.put("p/d+", b"x", &[]);
    let pages = 81;
    let output = take(&rig, "import", "in-order", &["--report", &report_of(&rig)]);
    let line = json(&output);
    assert_eq!(
        (count(&line, "imported"), &line["unordered"]),
        (801, &serde_json::Value::Null),
        "{line}"
    );
    rig.store.dialects().set(&[Dialect::ListDirectoryOrder]);
    let before = rig.store.stats().count("ListObjectsV2");
    let output = take(&rig, "import", "out-of-order", &["--report", &report_of(&rig)]);
    let line = json(&output);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        ["imported", "same", "failed", "objects", "bytes"].map(|name| count(&line, name)),
        [801, 0, 0, 801, 801],
        "{line}"
    );
    let unordered = line["unordered"].as_str().unwrap_or_default();
    assert!(unordered.contains("'p/d+' after 'p/d/399'"), "{line}");
    assert_eq!(files(&rig.mount().join("out-of-order")), 801);
    // It had been cut, or there would be no second listing.
    assert!(rig.store.stats().count("ListObjectsV2") - before > pages + 41, "{line}");
    assert!(
        fs::read_to_string(report_of(&rig))
            .unwrap()
            .contains("\"outcome\":\"note\"")
    );
}

#[test]
fn who_trusts_the_order_spares_the_listing_that_proves_it() {
    let rig = rig(10);
    for n in 0..400 {
        rig.put(&format!("p/d{}/{n:03}", n % 4), b"x", &[]);
    }
    let line = json(&take(&rig, "import", "trusted", &["--trust-order"]));
    assert_eq!((count(&line, "imported"), count(&line, "failed")), (400, 0), "{line}");
    // Even so a key that is out of order where it is seen is no part of a range.
    rig.store.dialects().set(&[Dialect::ListShuffled]);
    let line = json(&take(&rig, "import", "wrongly", &["--trust-order"]));
    assert_eq!((count(&line, "imported"), count(&line, "same")), (400, 0), "{line}");
}

#[test]
fn an_import_of_an_unordered_bucket_that_is_killed_goes_on_and_misses_nothing() {
    let rig = rig(10);
    fill(&rig);
    rig.store.dialects().set(&[Dialect::ListShuffled]);
    let to = rig.mount().join("killed");
    fs::create_dir(&to).unwrap();
    let (url, directory) = (format!("s3://{BUCKET}/p"), to.display().to_string());
    let arguments = ["import", &url, &directory, "--json", "--threads", "1"];
    for part in [100, 300] {
        let gate = rig.store.faults().hold_after("ListObjectsV2", part / 10);
        let mut child = rig
            .command(&arguments)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        until(|| (files(&to) >= u64::from(part) / 2).then_some(()));
        child.kill().unwrap();
        child.wait().unwrap();
        gate.release();
        rig.store.faults().clear();
    }
    let output = rig.run(&arguments);
    let line = json(&output);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(count(&line, "objects"), OBJECTS, "{line}");
    assert_eq!(files(&to), OBJECTS);
}

#[test]
fn nothing_is_deleted_because_a_listing_is_odd() {
    let rig = rig(100);
    fill(&rig);
    let output = take(&rig, "import", "kept", &[]);
    assert!(output.status.success(), "{}", said(&output));
    rig.store.delete(BUCKET, "p/obj/000");
    let refresh = ["--on-conflict", "refresh", "--delete"];
    for (dialect, right) in DIALECTS {
        rig.store.dialects().set(&[*dialect]);
        let output = take(&rig, "import", "kept", &refresh);
        assert_eq!(
            output.status.success(),
            matches!(right, Right::All),
            "{dialect:?}: {}",
            said(&output)
        );
        // The one that is gone, once.
        assert_eq!(
            files(&rig.mount().join("kept")),
            OBJECTS - 1,
            "{dialect:?}: {}",
            said(&output)
        );
    }
}

#[test]
fn one_object_that_is_denied_is_one_line_and_the_others_are_here() {
    let rig = rig(1000);
    for n in 0..301 {
        rig.put(&format!("p/d{}/{n:03}", n % 7), b"x", &[]);
    }
    rig.store.deny(BUCKET, "p/d3/150");
    let output = take(
        &rig,
        "import",
        "some",
        &["--metadata", "head", "--report", &report_of(&rig)],
    );
    let line = json(&output);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!((count(&line, "imported"), count(&line, "failed")), (300, 1), "{line}");
    let lines = lines_of(&rig, "p/d3/150");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("denied"), "{lines:?}");
    // It comes when it may.
    rig.store.allow(BUCKET, "p/d3/150");
    let output = take(&rig, "import", "some", &["--metadata", "head"]);
    let line = json(&output);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((count(&line, "imported"), count(&line, "same")), (1, 300), "{line}");
}

#[test]
fn metadata_that_is_no_text_hurts_one_object_at_most() {
    let rig = rig(1000);
    for n in 0..50 {
        rig.put(&format!("p/{n:02}"), b"x", &[("file-permissions", "0100640")]);
    }
    rig.store
        .put_raw_metadata(BUCKET, "p/latin1", b"x".to_vec(), &[("author", &b"Ren\xe9"[..])]);
    let output = take(
        &rig,
        "import",
        "latin1",
        &["--metadata", "head", "--report", &report_of(&rig)],
    );
    let line = json(&output);
    let (imported, failed) = (count(&line, "imported"), count(&line, "failed"));
    assert!(imported >= 50 && imported + failed == 51, "{}", said(&output));
    assert_eq!(output.status.success(), failed == 0, "{}", said(&output));
    if failed > 0 {
        assert_eq!(lines_of(&rig, "p/latin1").len(), 1);
    }
}

#[test]
fn what_vanishes_while_it_is_imported_is_one_line() {
    let rig = rig(1000);
    for n in 0..20 {
        rig.put(&format!("p/{n:02}"), b"x", &[]);
    }
    rig.store.faults().fail("HeadObject", 404, "NoSuchKey", 1);
    let output = take(&rig, "import", "some", &["--metadata", "head"]);
    let line = json(&output);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!((count(&line, "imported"), count(&line, "failed")), (19, 1), "{line}");
}

#[test]
fn a_frozen_symlink_or_sidecar_is_one_line_and_its_thaw_is_asked_for() {
    let rig = rig(1000);
    let sidecar = "p/.lhsm-s3-metadata/0x200000401-0x1-0x0.1";
    rig.put("p/file", b"x", &[]);
    rig.put("p/link", b"file", &[("file-permissions", "0120777")]);
    rig.put(
        "p/more",
        b"x",
        &[("file-permissions", "0100600"), ("lhsm-sidecar", sidecar)],
    );
    rig.put(sidecar, br#"{"file-owner":"77"}"#, &[]);
    rig.store.dialects().set(&[Dialect::Cold]);
    for key in ["p/link", sidecar] {
        assert!(rig.store.set_class(BUCKET, key, "GLACIER"));
    }
    let output = take(
        &rig,
        "import",
        "cold",
        &["--metadata", "head", "--report", &report_of(&rig)],
    );
    let line = json(&output);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!((count(&line, "imported"), count(&line, "failed")), (1, 2), "{line}");
    for key in ["p/link", "p/more"] {
        let lines = lines_of(&rig, key);
        assert!(lines.len() == 1 && lines[0].contains("thaw was asked for"), "{lines:?}");
    }
    assert_eq!(rig.store.stats().count("RestoreObject"), 2);
    for key in ["p/link", sidecar] {
        assert!(rig.store.thaw(BUCKET, key));
    }
    let output = take(&rig, "import", "cold", &["--metadata", "head"]);
    assert!(output.status.success(), "{}", said(&output));
    let to = rig.mount().join("cold");
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("file"));
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(to.join("more")).unwrap());
    assert_eq!(owner, 77);
}

#[test]
fn a_file_whose_object_can_not_be_asked_for_is_not_deleted() {
    let rig = rig(1000);
    for key in ["p/denied", "p/gone", "p/here"] {
        rig.put(key, b"x", &[]);
    }
    assert!(take(&rig, "import", "pruned", &[]).status.success());
    rig.store.delete(BUCKET, "p/denied");
    rig.store.delete(BUCKET, "p/gone");
    rig.store.deny(BUCKET, "p/denied");
    let refresh = ["--on-conflict", "refresh", "--delete", "--report", &report_of(&rig)];
    let output = take(&rig, "import", "pruned", &refresh);
    let line = json(&output);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!((count(&line, "deleted"), count(&line, "failed")), (1, 1), "{line}");
    assert_eq!(names(&rig.mount().join("pruned")), ["denied", "here"]);
    assert_eq!(lines_of(&rig, "p/denied").len(), 1);
}
