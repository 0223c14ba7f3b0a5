//! `lhsmtool-s3 check`: a good set-up, and broken ones with the row and the fix that each gets.

use lhsm_sandbox::protocol::HsmControl;
use lhsm_sandbox_s3::{Config, Dialect};
use serde_json::Value;

use crate::rig::{Rig, Setup};

impl Rig {
    /// Its rows, and whether nothing failed.
    fn check(&self) -> (Vec<Value>, bool) {
        let output = self.run(&["check", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (rows.collect(), output.status.success())
    }

    /// The row has that mark, and what was found and the fix have these words.
    #[track_caller]
    fn assert_row(&self, what: &str, mark: &str, found: &str, fix: &str) {
        let (rows, good) = self.check();
        let fits = |row: &&Value| row["what"].as_str().unwrap() == what && row["mark"] == mark;
        let row = rows.iter().find(fits);
        let row = row.unwrap_or_else(|| panic!("no {mark} '{what}' in {rows:#?}"));
        assert!(row["found"].as_str().unwrap().contains(found), "{row}");
        assert!(row["fix"].as_str().unwrap_or_default().contains(fix), "{row}");
        assert_eq!(good, mark != "fail", "{rows:#?}");
    }

    fn without(setup: impl FnOnce(&mut Setup)) -> Self {
        let mut usual = Setup::default();
        setup(&mut usual);
        Self::without_daemon(usual)
    }
}

const ALWAYS: u32 = 1000;

#[test]
fn a_good_set_up_passes_everything_and_leaves_nothing() {
    let mut rig = Rig::without_daemon(Setup::default());
    let (rows, good) = rig.check();
    assert!(good, "{rows:#?}");
    assert!(rows.iter().all(|row| row["mark"] == "pass"), "{rows:#?}");
    let whats: Vec<_> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    for wanted in [
        "configuration",
        "state directory",
        "liblustreapi",
        "mount",
        "coordinator",
        "archive 1 credentials",
        "archive 1 list",
        "archive 1 put",
        "archive 1 get",
        "archive 1 range",
        "archive 1 checksum",
        "archive 1 versioning",
        "archive 1 expiry",
        "archive 1 conditional writes",
        "archive 1 If-None-Match on PutObject",
        "archive 1 If-Match on PutObject",
        "archive 1 If-None-Match on CompleteMultipartUpload",
        "archive 1 If-Match on CompleteMultipartUpload",
        "archive 1 If-Match on DeleteObject",
        "archive 1 copy",
        "archive 1 conditions of a copy",
        "archive 1 object lock",
        "archive 1 list order",
        "archive 1 large body",
        "archive 1 multipart",
        "archive 1 checksum of parts",
        "archive 1 dialect",
        "archive 1 delete",
        "archive 1 clock",
    ] {
        assert!(whats.contains(&wanted), "no '{wanted}' in {whats:?}");
    }
    assert_eq!(rig.keys(), Vec::<String>::new());
    assert_eq!(rig.client.agents().unwrap(), [], "it does not register");
    // For a person.
    let text = String::from_utf8(rig.run(&["check"]).stdout).unwrap();
    assert!(text.contains("pass  archive 1 put"), "{text}");
}

#[test]
fn a_wrong_key_of_the_configuration_has_its_line() {
    let mut rig = Rig::without_daemon(Setup::default());
    rig.add_settings("[workers]\nthreads = 'many'\n[x]\n");
    rig.assert_row("configuration", "fail", "threads", "correct that line");
}

#[test]
fn a_library_that_is_not_there_or_another_one() {
    let mut rig = Rig::without_daemon(Setup::default());
    let library = rig.spawn().library.display().to_string();
    rig.replace_settings(&library, "/nowhere/liblustreapi.so");
    rig.assert_row(
        "liblustreapi",
        "fail",
        "/nowhere",
        "install the Lustre client's user tools",
    );
    rig.replace_settings(&library, "libm.so.6");
    rig.assert_row("liblustreapi", "fail", "llapi_hsm_copytool_register", "2.10");
}

#[test]
fn a_mount_point_that_is_none() {
    let mut rig = Rig::without_daemon(Setup::default());
    let mount = rig.mount().display().to_string();
    rig.replace_settings(&format!("mount = '{mount}'"), "mount = '/proc'");
    rig.assert_row("mount", "fail", "/proc", "mount the Lustre client there");
    rig.replace_settings(&format!("mount = '{mount}'"), "mount = '/not/there'");
    rig.assert_row("mount", "fail", "/not/there", "mount the Lustre client there");
}

#[test]
fn a_coordinator_that_is_stopped() {
    let mut rig = Rig::without_daemon(Setup::default());
    rig.client.control(HsmControl::Shutdown).unwrap();
    rig.assert_row("coordinator", "fail", "MDT0000", "hsm_control=enabled");
}

#[test]
fn a_state_directory_that_can_not_be_written() {
    let rig = Rig::without_daemon(Setup::default());
    std::fs::write(rig.dir.path().join("state"), b"a file").unwrap();
    rig.assert_row("state directory", "fail", "can't be written", "state_dir");
}

#[test]
fn an_address_for_metrics_that_is_taken() {
    let mut rig = Rig::without_daemon(Setup::default());
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rig.add_settings(&format!("[metrics]\nlisten = '{}'\n", other.local_addr().unwrap()));
    rig.assert_row("metrics", "warn", "in use", "change `listen`");
}

#[test]
fn a_bucket_that_is_not_there() {
    let rig = Rig::without(|setup| setup.archives = "[[archive]]\nid = 1\nbucket = 'other'\n".into());
    rig.assert_row(
        "archive 1 bucket",
        "fail",
        "'other' does not exist",
        "create the bucket",
    );
}

#[test]
fn keys_that_the_store_does_not_know() {
    let rig = Rig::without(|setup| {
        setup.store = Config {
            secret_key: "another".into(),
            ..Config::default()
        };
    });
    rig.assert_row(
        "archive 1 credentials",
        "fail",
        "SignatureDoesNotMatch",
        "correct the keys",
    );
}

#[test]
fn each_permission_that_is_missing_is_named() {
    let denied = |operation: &str| {
        let rig = Rig::without_daemon(Setup::default());
        rig.store.faults().fail(operation, 403, "AccessDenied", ALWAYS);
        rig
    };
    denied("ListObjectsV2").assert_row("archive 1 list", "warn", "AccessDenied", "s3:ListBucket");
    denied("PutObject").assert_row("archive 1 put", "fail", "AccessDenied", "s3:PutObject");
    denied("GetObject").assert_row("archive 1 get", "fail", "AccessDenied", "s3:GetObject");
    denied("CreateMultipartUpload").assert_row(
        "archive 1 multipart",
        "fail",
        "AccessDenied",
        "s3:AbortMultipartUpload",
    );
    denied("DeleteObject").assert_row("archive 1 delete", "fail", "AccessDenied", "s3:DeleteObject");
    denied("CopyObject").assert_row("archive 1 copy", "warn", "AccessDenied", "--propagate");
}

#[test]
fn a_store_without_conditional_writes_or_checksums_is_served_with_a_warning() {
    let rig = Rig::without(|setup| {
        setup.store = Config {
            conditional_writes: false,
            full_object_checksums: false,
            ..Config::default()
        };
    });
    rig.assert_row(
        "archive 1 conditional writes",
        "warn",
        "does not implement",
        "let no other program",
    );
    rig.assert_row("archive 1 checksum", "warn", "no CRC64NVME", "nothing needs to be done");
}

#[test]
fn a_store_that_is_not_there_is_said_in_seconds() {
    let mut rig = Rig::without_daemon(Setup::default());
    let endpoint = rig.store.endpoint();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    rig.replace_settings(&endpoint, &gone);
    rig.assert_row("archive 1 put", "fail", "Connection refused", "endpoint_url");
}

/// A dialect, the row that tells of it, its mark, and words of what was found and of the fix.
type Told = (Dialect, &'static str, &'static str, &'static str, &'static str);

#[track_caller]
fn are_told(rows: &[Told]) {
    let rig = Rig::without(|setup| setup.settings.push_str("give_up_after = '1s'\n"));
    // What a listing comes to that does not stop at its prefix.
    rig.put("zz", b"behind", &[]);
    for (dialect, what, mark, found, fix) in rows {
        rig.store.dialects().set(&[*dialect]);
        rig.assert_row(&format!("archive 1 {what}"), mark, found, fix);
        assert_eq!(rig.keys(), ["zz"], "{dialect:?}: nothing is left");
    }
}

#[test]
fn what_a_store_does_otherwise_with_objects_has_its_row() {
    are_told(&[
        (Dialect::RangeIgnored, "range", "warn", "ignores Range", "read whole"),
        (Dialect::RangeShifted, "range", "fail", "were asked for", "part_size"),
        (
            Dialect::ETagUpper,
            "dialect",
            "warn",
            "etags-in-capitals",
            "nothing needs",
        ),
        (
            Dialect::ETagOpaque,
            "dialect",
            "warn",
            "etags-are-no-md5",
            "nothing needs",
        ),
        (
            Dialect::ChunkedRefused501,
            "dialect",
            "warn",
            "no-aws-chunked",
            "nothing needs",
        ),
        (
            Dialect::ChunkedKept,
            "dialect",
            "warn",
            "no-aws-chunked",
            "nothing needs",
        ),
        (
            Dialect::ChecksumDropped,
            "checksum",
            "warn",
            "no CRC64NVME",
            "nothing needs",
        ),
        (
            Dialect::CompositeOnly,
            "checksum of parts",
            "warn",
            "of parts",
            "nothing needs",
        ),
        (
            Dialect::Expires,
            "expiry",
            "warn",
            "by lifecycle rule 'old'",
            "take the rule",
        ),
    ]);
}

#[test]
fn what_a_store_does_otherwise_with_conditions_has_its_row() {
    are_told(&[
        (
            Dialect::ConditionsIgnored,
            "If-None-Match on PutObject",
            "warn",
            "ignored",
            "looked at before",
        ),
        (
            Dialect::ConditionsIgnoredOnComplete,
            "If-Match on CompleteMultipartUpload",
            "warn",
            "ignored",
            "looked at before",
        ),
        (
            Dialect::ConditionsIgnoredOnComplete,
            "If-Match on PutObject",
            "pass",
            "heeded",
            "",
        ),
        (
            Dialect::ConditionsIgnoredOnDelete,
            "If-Match on DeleteObject",
            "warn",
            "ignored",
            "preceded by a look",
        ),
        (
            Dialect::CopyConditionsIgnored,
            "conditions of a copy",
            "warn",
            "If-None-Match is ignored; x-amz-copy-source-if-match is ignored",
            "--follow",
        ),
        (
            Dialect::IfMatchBare,
            "dialect",
            "warn",
            "if-match-without-quotes",
            "nothing needs",
        ),
    ]);
}

#[test]
fn what_a_store_does_otherwise_with_lists_has_its_row() {
    let list = |dialect, found| (dialect, "list order", "warn", found, "the daemon lists nothing");
    are_told(&[
        list(Dialect::ListShuffled, "not in the order of its keys"),
        list(Dialect::ListDirectoryOrder, "not in the order of its keys"),
        list(Dialect::ListTruncatedNoToken, "no token"),
        list(Dialect::ListRepeatsPage, "circle"),
        list(Dialect::ListIgnoresToken, "circle"),
        list(Dialect::ListBehindPrefix, "has 'zz'"),
        list(Dialect::ListIgnoresStartAfter, "start-after: "),
        list(Dialect::ListNoDelimiter, "delimiter: 8 keys and 0 directories"),
        list(Dialect::DirectoryBucket, "start-after: "),
    ]);
}

#[test]
fn a_bucket_whose_requester_pays_names_the_setting_and_works_with_it() {
    let rig = Rig::without_daemon(Setup::default());
    rig.store.dialects().set(&[Dialect::RequesterPays]);
    rig.assert_row("archive 1 put", "fail", "AccessDenied", "requester_pays = true");
    let rig = Rig::without(|setup| setup.archives.push_str("requester_pays = true\n"));
    rig.store.dialects().set(&[Dialect::RequesterPays]);
    rig.assert_row("archive 1 requester pays", "pass", "x-amz-request-payer", "");
}

#[test]
fn the_policy_of_conditions_decides_what_is_made_of_a_store_that_ignores_them() {
    let with = |policy: &str| {
        let rig = Rig::without(|setup| setup.archives.push_str(&format!("conditions = '{policy}'\n")));
        rig.store.dialects().set(&[Dialect::ConditionsIgnored]);
        rig
    };
    let what = "archive 1 conditional writes";
    with("auto").assert_row(what, "warn", "If-None-Match on PutObject: ignored", "no other program");
    with("require").assert_row(what, "fail", "require", "conditions = \"auto\"");
    with("look").assert_row(what, "pass", "whatever the store heeds", "");
}
