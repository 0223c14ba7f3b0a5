//! Buckets that mean harm, and an import that dies again and again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use lhsm_sandbox::protocol::states;

use crate::import::{count, json, names};
use crate::rig::{BUCKET, PATIENCE, Rig};

/// Keys that must not become files, with a word of the reason.
fn refused() -> Vec<(String, &'static str)> {
    let mut keys: Vec<(String, &str)> = Vec::new();
    // Ways out of the directory, alone and within longer keys.
    for dots in [".", ".."] {
        for key in [
            dots.to_owned(),
            format!("{dots}/"),
            format!("{dots}/x"),
            format!("a/{dots}"),
            format!("a/{dots}/"),
            format!("a/{dots}/b"),
            format!("a/{dots}/{dots}/{dots}/etc/passwd"),
            format!("{dots}/{dots}/tmp/x"),
            format!("a/b/c/{dots}/d"),
        ] {
            keys.push((key, "'.' or '..'"));
        }
    }
    for key in [
        "/", "//", "/x", "//x", "a//b", "a//", "a///b", "/a/b", "a/b//c", "x//y//z", "///",
    ] {
        keys.push((key.to_owned(), "empty path component"));
    }
    for byte in (0x01u8..0x20).chain([0x7f]) {
        let c = char::from(byte);
        for key in [format!("c{c}"), format!("{c}"), format!("d{c}/x"), format!("d/x{c}y")] {
            keys.push((key, "control"));
        }
    }
    for c in ['\u{80}', '\u{85}', '\u{9f}'] {
        keys.push((format!("u{c}"), "control"));
    }
    let long = |n| "n".repeat(n);
    for key in [
        long(256),
        long(300),
        long(1000),
        format!("dir/{}", long(256)),
        format!("{}/x", long(256)),
        format!("ü{}", long(254)),
    ] {
        keys.push((key, "255"));
    }
    for key in [".lustre", ".lustre/", ".lustre/fid/x", ".lustre/x"] {
        keys.push((key.to_owned(), "reserved"));
    }
    keys
}

/// Keys that look bad and are none.
const FINE: &[&str] = &[
    "...",
    "..a",
    "a..",
    ".hidden",
    "a/.lustre",
    "-rf",
    "--help",
    "~",
    "~root",
    "$HOME",
    "`id`",
    "a b",
    " ",
    "  x ",
    "a\\b",
    "..\\..\\x",
    "C:\\x",
    "con",
    "a:b",
    "*",
    "?",
    "[",
    "%2e%2e/x",
    "%2e%2e%2fx",
    "%00",
    "a%0Ab",
    "+",
    "a+b",
    "é",
    "e\u{301}",
    "日本",
    "\u{202e}txt",
    "😀",
    "\u{feff}bom",
    "a;b",
    "a|b",
    "a&b",
    "\"q\"",
    "'q'",
    "<x>",
    "{}",
    "#",
    "!",
];

#[test]
fn hostile_keys_are_refused_with_a_reason_and_nothing_is_made_outside() {
    let rig = Rig::new();
    let refused = refused();
    for (key, _) in &refused {
        rig.put(&format!("p/{key}"), b"evil", &[]);
    }
    for key in FINE {
        rig.put(&format!("p/{key}"), b"good", &[]);
    }
    // Targets of links that lead out, and metadata that can't be true.
    let links = [
        "/etc/passwd",
        "../out",
        "../../x",
        "a/../../x",
        "/",
        "..",
        "x/../../..",
        "./../..",
        "a\0b",
    ];
    for (n, target) in links.iter().enumerate() {
        rig.put(
            &format!("p/link{n}"),
            target.as_bytes(),
            &[("file-permissions", "0120777")],
        );
    }
    rig.put("p/link-empty", b"", &[("file-permissions", "0120777")]);
    rig.put("p/link-long", &[b'x'; 5000], &[("file-permissions", "0120777")]);
    for (n, kind) in ["010644", "020644", "060644", "0140644"].iter().enumerate() {
        rig.put(&format!("p/special{n}"), b"", &[("file-permissions", kind)]);
    }
    let bad = [
        ("file-permissions", "99"),
        ("file-permissions", "0777777777"),
        ("file-permissions", "rwxrwxrwx"),
        ("file-owner", "-1"),
        ("file-owner", "4294967295"),
        ("file-owner", "99999999999"),
        ("file-group", "wheel"),
        ("file-mtime", "-99999999999999999999ns"),
        ("file-mtime", "999999999999999999999999ns"),
        ("file-mtime", "NaN"),
        ("file-atime", "1e300"),
        ("mtime", "inf"),
        ("lhsm-xattrs", "security.capability=AAAA=broken,x"),
        ("lhsm-layout", "%%%"),
    ];
    for (n, (key, value)) in bad.iter().enumerate() {
        rig.put(&format!("p/bad{n}"), b"data", &[(key, value)]);
    }
    let cases = refused.len() + FINE.len() + links.len() + 2 + 4 + bad.len();
    assert!(cases >= 200, "{cases}");
    let to = rig.mount().join("target");
    fs::create_dir(&to).unwrap();
    let outside: BTreeSet<_> = names(rig.dir.path())
        .into_iter()
        .filter(|name| !name.contains("target"))
        .collect();
    let report = rig.dir.path().join("report.jsonl");
    let (url, to_text, report_text) = (
        format!("s3://{BUCKET}/p"),
        to.display().to_string(),
        report.display().to_string(),
    );
    let output = rig.run(&[
        "import",
        &url,
        &to_text,
        "--metadata",
        "head",
        "--json",
        "--report",
        &report_text,
    ]);
    let line = json(&output);
    assert!(!output.status.success());
    assert_eq!(
        count(&line, "refused"),
        (refused.len() + links.len() + 2 + 4) as u64,
        "{line}"
    );
    assert_eq!(count(&line, "imported"), (FINE.len() + bad.len()) as u64, "{line}");
    assert_eq!(count(&line, "warnings"), bad.len() as u64, "{line}");
    assert_eq!(count(&line, "failed"), 0, "{line}");
    let report = fs::read_to_string(&report).unwrap();
    for (key, word) in &refused {
        let wanted = serde_json::to_string(&format!("p/{key}")).unwrap();
        let row = report.lines().find(|row| row.contains(&format!("\"key\":{wanted},")));
        assert!(row.is_some_and(|row| row.contains(word)), "{key:?}: {row:?}");
    }
    for key in FINE {
        assert!(
            to.join(key).symlink_metadata().is_ok_and(|stat| stat.len() == 4),
            "{key:?}"
        );
    }
    let after: BTreeSet<_> = names(rig.dir.path())
        .into_iter()
        .filter(|name| !name.contains("target"))
        .collect();
    let new: Vec<_> = after
        .difference(&outside)
        .filter(|name| !name.contains("state") && !name.starts_with("report"))
        .collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(names(&to).iter().all(|name| !name.contains(".lhsm-import")));
}

/// Name, type, size, mode, owner and time of everything below a directory.
fn picture(root: &std::path::Path) -> Vec<String> {
    let of = |name: &String| {
        let stat = root.join(name).symlink_metadata().unwrap();
        let size = if stat.is_dir() { 0 } else { stat.len() };
        // Directories that no object stands for have the time at which they were made.
        let made = stat.is_dir() && stat.mtime() > 1_500_000_000;
        let time = (!made).then(|| (stat.mtime(), stat.mtime_nsec()));
        format!("{name} {:o} {size} {} {time:?}", stat.mode(), stat.uid())
    };
    names(root).iter().map(of).collect()
}

#[test]
fn an_import_that_is_killed_twenty_times_ends_as_one_that_was_not() {
    const FILES: u32 = 100_000;
    let rig = Rig::without_daemon(crate::rig::Setup::default());
    for n in 0..FILES {
        rig.put(&format!("d{:02}/s{}/f{n:06}", n % 40, n % 3), b"x", &[]);
        if n < 40 {
            let mtime = format!("{}000000007ns", 1_000_000_000 + n);
            rig.put(
                &format!("d{n:02}/"),
                b"",
                &[("file-permissions", "040751"), ("file-mtime", &mtime)],
            );
        }
    }
    let run = |name: &str| {
        let to = rig.mount().join(name);
        fs::create_dir_all(&to).unwrap();
        let url = format!("s3://{BUCKET}");
        let to = to.display().to_string();
        let checkpoint = rig.dir.path().join(format!("{name}.checkpoint")).display().to_string();
        rig.command(&[
            "import",
            &url,
            &to,
            "--json",
            "--threads",
            "4",
            "--checkpoint",
            &checkpoint,
        ])
    };
    let whole = json(&run("whole").output().unwrap());
    assert_eq!(
        (count(&whole, "imported"), count(&whole, "failed")),
        (u64::from(FILES), 0),
        "{whole}"
    );
    let killed = rig.mount().join("killed");
    for _ in 0..20 {
        let listed = || rig.store.stats().count("ListObjectsV2");
        let mut child = run("killed")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = listed() + fastrand::u64(3..60);
        let began = std::time::Instant::now();
        while listed() < until && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = run("killed").output().unwrap();
    let line = json(&last);
    assert!(
        last.status.success(),
        "{line} {}",
        String::from_utf8_lossy(&last.stderr)
    );
    assert_eq!(picture(&killed), picture(&rig.mount().join("whole")));
    let mut rig = rig;
    for n in (0..FILES).step_by(1999) {
        let fid = rig
            .client
            .fid(&killed.join(format!("d{:02}/s{}/f{n:06}", n % 40, n % 3)))
            .unwrap();
        let state = rig.client.state(fid).unwrap();
        assert_eq!(state.states, states::EXISTS | states::ARCHIVED | states::RELEASED);
        assert!(rig.client.xattr(fid, "trusted.lhsm_s3").is_ok());
    }
}
