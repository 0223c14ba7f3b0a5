//! A bucket becomes a namespace of released files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use lhsm_sandbox::protocol::{Action, Request, states};

use crate::rig::{BUCKET, Rig, Setup, noise, until};

impl Rig {
    /// A command of ours, as a person gives it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.spawn().command(arguments)
    }

    /// Its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn put(&self, key: &str, body: &[u8], metadata: &[(&str, &str)]) {
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        self.store.put(BUCKET, key, body.to_vec(), metadata.collect());
    }

    /// Imports the whole bucket with more options; the line of JSON.
    pub(crate) fn import(&self, directory: &Path, options: &[&str]) -> serde_json::Value {
        let directory = directory.display().to_string();
        let url = format!("s3://{BUCKET}");
        let mut arguments = vec!["import", &url, &directory, "--json"];
        arguments.extend(options);
        json(&self.run(&arguments))
    }
}

pub(crate) fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last();
    serde_json::from_str(last.unwrap_or_else(|| panic!("no line: {}", String::from_utf8_lossy(&output.stderr))))
        .unwrap()
}

pub(crate) fn count(line: &serde_json::Value, name: &str) -> u64 {
    line[name].as_u64().unwrap()
}

/// Every name below a directory, `.lustre` left out.
pub(crate) fn names(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() == ".lustre" {
                continue;
            }
            names.push(path.strip_prefix(root).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                directories.push(path);
            }
        }
    }
    names.sort();
    names
}

#[test]
fn an_imported_file_is_released_and_its_first_read_restores_it() {
    let mut rig = Rig::new();
    let content = noise(300_000);
    rig.put("lab/a/large.bin", &content, &[]);
    rig.put("lab/a/empty", b"", &[]);
    rig.put("lab/top", b"top", &[]);
    rig.put("labyrinth/other", b"no", &[]);
    let to = rig.mount().join("data");
    fs::create_dir(&to).unwrap();
    let url = format!("s3://{BUCKET}/lab");
    let output = rig.run(&["import", &url, &to.display().to_string(), "--json"]);
    let line = json(&output);
    assert!(output.status.success(), "{line}");
    assert_eq!((count(&line, "imported"), count(&line, "bytes")), (3, 300_003));
    assert_eq!(names(&to), ["a", "a/empty", "a/large.bin", "top"]);
    let path = to.join("a/large.bin");
    let fid = rig.client.fid(&path).unwrap();
    let state = rig.client.state(fid).unwrap();
    assert_eq!(state.states, states::EXISTS | states::ARCHIVED | states::RELEASED);
    assert_eq!(path.metadata().unwrap().len(), 300_000);
    assert_eq!(rig.restore("data/a/large.bin", fid), content);
    // Back it goes to the key that it came from.
    fs::write(&path, b"changed").unwrap();
    rig.archive(fid);
    assert_eq!(rig.store.object_body(BUCKET, "lab/a/large.bin").unwrap(), b"changed");
    assert_eq!(rig.keys().len(), 4);
    // An empty one, too.
    let empty = rig.client.fid(&to.join("a/empty")).unwrap();
    assert_eq!(rig.restore("data/a/empty", empty), b"");
    rig.assert_settled();
}

#[test]
fn owners_modes_and_times_come_from_metadata_when_asked() {
    let rig = Rig::new();
    rig.put(
        "d/file",
        b"x",
        &[
            ("file-permissions", "0104751"),
            ("file-owner", "1234"),
            ("file-group", "2345"),
            ("file-atime", "1595002920000000007ns"),
            ("file-mtime", "1595002921000000009ns"),
        ],
    );
    rig.put(
        "d/",
        b"",
        &[
            ("file-permissions", "040750"),
            ("file-owner", "7"),
            ("file-mtime", "1000000000000000001ns"),
        ],
    );
    rig.put(
        "d/link",
        b"file",
        &[("file-permissions", "0120777"), ("file-mtime", "1595002921000000009ns")],
    );
    rig.put("d/out", b"../../etc/passwd", &[("file-permissions", "0120777")]);
    rig.put(
        "d/bad",
        b"y",
        &[("file-owner", "-5"), ("file-mtime", "99999999999999999999")],
    );
    rig.put("d/fifo", b"", &[("file-permissions", "010644")]);
    rig.put("list", b"z", &[("file-permissions", "0100600")]);
    let to = rig.mount();
    let line = rig.import(&to, &["--metadata", "head", "--uid", "11", "--file-mode", "640"]);
    assert_eq!(
        (
            count(&line, "imported"),
            count(&line, "links"),
            count(&line, "directories"),
            count(&line, "refused")
        ),
        (3, 1, 1, 2),
        "{line}"
    );
    assert_eq!(count(&line, "warnings"), 2);
    let stat = fs::metadata(to.join("d/file")).unwrap();
    // setuid is for --allow-setid only.
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o751, 1234, 2345));
    assert_eq!(
        (stat.mtime(), stat.mtime_nsec(), stat.atime_nsec()),
        (1_595_002_921, 9, 7)
    );
    let stat = fs::metadata(to.join("d")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o750, 7));
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_000_000_000, 1));
    assert_eq!(fs::read_link(to.join("d/link")).unwrap(), Path::new("file"));
    assert_eq!(fs::symlink_metadata(to.join("d/link")).unwrap().mtime_nsec(), 9);
    let stat = fs::metadata(to.join("d/bad")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (11, 0o640));
    assert!(!to.join("d/out").exists() && !to.join("d/fifo").exists());
    assert_eq!(fs::metadata(to.join("list")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_second_import_takes_what_is_new_changed_and_gone_and_no_local_work() {
    let mut rig = Rig::new();
    for (key, body) in [
        ("same", "1"),
        ("changed", "2"),
        ("gone", "3"),
        ("edited", "4"),
        ("edited-gone", "5"),
    ] {
        rig.put(key, body.as_bytes(), &[]);
    }
    let to = rig.mount().join("data");
    fs::create_dir(&to).unwrap();
    assert_eq!(count(&rig.import(&to, &[]), "imported"), 5);
    for name in ["edited", "edited-gone"] {
        let fid = rig.client.fid(&to.join(name)).unwrap();
        rig.restore(&format!("data/{name}"), fid);
        fs::write(to.join(name), b"my own work").unwrap();
    }
    fs::write(to.join("local"), b"never archived").unwrap();
    rig.put("changed", b"22", &[]);
    rig.put("edited", b"44", &[]);
    rig.put("new", b"6", &[]);
    rig.store.delete(BUCKET, "gone");
    rig.store.delete(BUCKET, "edited-gone");
    let report = rig.dir.path().join("report.json");
    let line = rig.import(
        &to,
        &[
            "--on-conflict",
            "refresh",
            "--delete",
            "--report",
            &report.display().to_string(),
        ],
    );
    assert_eq!(
        ["imported", "updated", "same", "deleted", "failed"].map(|name| count(&line, name)),
        [1, 1, 1, 1, 2],
        "{line}"
    );
    assert_eq!(names(&to), ["changed", "edited", "edited-gone", "local", "new", "same"]);
    assert_eq!(fs::read(to.join("edited")).unwrap(), b"my own work");
    assert_eq!(fs::read(to.join("local")).unwrap(), b"never archived");
    let changed = rig.client.fid(&to.join("changed")).unwrap();
    assert_eq!(rig.restore("data/changed", changed), b"22");
    let report = fs::read_to_string(&report).unwrap();
    for said in ["edited", "gone", "edited-gone"] {
        assert!(report.contains(&format!("\"key\":\"{said}\"")), "{report}");
    }
    // With force the bucket's word counts.
    let line = rig.import(&to, &["--on-conflict", "refresh", "--delete", "--force"]);
    assert_eq!(
        ["updated", "deleted", "failed"].map(|name| count(&line, name)),
        [1, 1, 0],
        "{line}"
    );
}

#[test]
fn what_is_in_the_way_is_left_or_replaced_as_asked() {
    let rig = Rig::new();
    rig.put("file", b"from the bucket", &[]);
    let to = rig.mount().join("data");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("file"), b"here").unwrap();
    assert_eq!(count(&rig.import(&to, &[]), "failed"), 1);
    assert_eq!(count(&rig.import(&to, &["--on-conflict", "skip"]), "skipped"), 1);
    assert_eq!(count(&rig.import(&to, &["--on-conflict", "refresh"]), "failed"), 1);
    assert_eq!(count(&rig.import(&to, &["--on-conflict", "overwrite"]), "failed"), 1);
    assert_eq!(fs::read(to.join("file")).unwrap(), b"here");
    assert_eq!(
        count(&rig.import(&to, &["--on-conflict", "overwrite", "--force"]), "updated"),
        1
    );
    assert_eq!(fs::metadata(to.join("file")).unwrap().len(), 15);
}

#[test]
fn a_key_that_is_file_and_directory_is_a_directory_whatever_comes_first() {
    for (first, second) in [("a", "a/b"), ("a/b", "a")] {
        let rig = Rig::new();
        let to = rig.mount().join("data");
        fs::create_dir(&to).unwrap();
        rig.put(first, b"1", &[]);
        rig.import(&to, &[]);
        rig.put(second, b"2", &[]);
        let line = rig.import(&to, &[]);
        assert_eq!(names(&to), ["a", "a/b"], "{line}");
        assert_eq!(count(&line, "refused"), 1, "{line}");
    }
}

#[test]
fn filters_and_shards_take_their_part_and_a_dry_run_makes_nothing() {
    let rig = Rig::new();
    for n in 0..60 {
        rig.put(
            &format!("d{}/f{n}.{}", n % 4, if n % 2 == 0 { "bam" } else { "tmp" }),
            &noise(n),
            &[],
        );
    }
    let to = rig.mount().join("data");
    fs::create_dir(&to).unwrap();
    let line = rig.import(
        &to,
        &[
            "--dry-run",
            "--include",
            "*.bam",
            "--exclude",
            "d0/**",
            "--min-size",
            "10",
        ],
    );
    assert_eq!(count(&line, "imported") + count(&line, "filtered"), 60);
    assert_eq!(count(&line, "imported"), 13, "{line}");
    assert_eq!(names(&to), Vec::<String>::new());
    let mut seen = 0;
    for shard in ["1/3", "2/3", "3/3"] {
        seen += count(&rig.import(&to, &["--shard", shard]), "imported");
    }
    assert_eq!(seen, 60);
    assert_eq!(count(&rig.import(&to, &[]), "same"), 60);
}

#[test]
fn keys_from_a_file_and_from_an_inventory_are_imported() {
    let rig = Rig::new();
    for key in ["data/a b", "data/c+d", "data/é", "data/not"] {
        rig.put(key, key.as_bytes(), &[]);
    }
    let to = rig.mount().join("data");
    fs::create_dir(&to).unwrap();
    let keys = rig.dir.path().join("keys");
    fs::write(&keys, "data/a b\r\n\ndata/é\ndata/missing\n").unwrap();
    let url = format!("s3://{BUCKET}/data");
    let (to_text, keys) = (to.display().to_string(), keys.display().to_string());
    let line = json(&rig.run(&["import", &url, &to_text, "--keys-from", &keys, "--json"]));
    assert_eq!((count(&line, "imported"), count(&line, "failed")), (2, 1), "{line}");
    assert_eq!(names(&to), ["a b", "é"]);

    let rows = "\"b\",\"data/c%2Bd\",\"8\",\"2021-01-01T00:00:00.000Z\",\"ETAG\"\n\"b\",\"other\",\"1\",\"2021-01-01T00:00:00.000Z\",\"x\"\n";
    let etag = rig
        .store
        .objects(BUCKET)
        .into_iter()
        .find(|object| object.key == "data/c+d")
        .unwrap()
        .etag;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, rows.replace("ETAG", &etag).as_bytes()).unwrap();
    let data = gzip.finish().unwrap();
    let manifest = serde_json::json!({
        "sourceBucket": BUCKET, "destinationBucket": format!("arn:aws:s3:::{BUCKET}"), "version": "2016-11-30",
        "creationTimestamp": "1514944800000", "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag",
        "files": [{"key": "inventory/data.csv.gz", "size": data.len()}],
    });
    rig.put("inventory/data.csv.gz", &data, &[]);
    rig.put("inventory/manifest.json", manifest.to_string().as_bytes(), &[]);
    let inventory = format!("s3://{BUCKET}/inventory/manifest.json");
    let output = rig.run(&["import", &url, &to_text, "--inventory", &inventory, "--json"]);
    let line = json(&output);
    assert_eq!((count(&line, "imported"), count(&line, "failed")), (1, 0), "{line}");
    assert_eq!(fs::metadata(to.join("c+d")).unwrap().mtime(), 1_609_459_200);
    assert_eq!(names(&to), ["a b", "c+d", "é"]);
}

#[test]
fn an_import_goes_nowhere_but_into_its_directory() {
    let rig = Rig::new();
    rig.put("planted/file", b"1", &[]);
    rig.put("link", b"2", &[]);
    rig.put("dangling", b"3", &[]);
    let to = rig.mount().join("data");
    let outside = rig.dir.path().join("outside");
    fs::create_dir(&to).unwrap();
    fs::create_dir(&outside).unwrap();
    // Anybody may make names here.
    fs::set_permissions(&to, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(&outside, to.join("planted")).unwrap();
    fs::write(outside.join("target"), b"keep").unwrap();
    std::os::unix::fs::symlink(outside.join("target"), to.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("new"), to.join("dangling")).unwrap();
    let line = rig.import(&to, &[]);
    assert_eq!(
        (
            count(&line, "imported"),
            count(&line, "refused"),
            count(&line, "failed")
        ),
        (0, 1, 2),
        "{line}"
    );
    let line = rig.import(&to, &["--on-conflict", "overwrite"]);
    // The links themselves are replaced, never what they point at.
    assert_eq!(count(&line, "updated"), 2, "{line}");
    assert_eq!(names(&outside), ["target"]);
    assert_eq!(fs::read(outside.join("target")).unwrap(), b"keep");
}

#[test]
fn a_wrong_command_says_what_to_do() {
    let rig = Rig::without_daemon(Setup::default());
    let mount = rig.mount().display().to_string();
    let error = |arguments: &[&str]| {
        let output = rig.run(arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(error(&["import", "bucket", &mount]).contains("s3://bucket/prefix"));
    assert!(error(&["import", "s3://other", &mount]).contains("bucket = \"other\""));
    assert!(error(&["import", &format!("s3://{BUCKET}"), "/tmp"]).contains("not on a Lustre"));
    assert!(error(&["import", &format!("s3://{BUCKET}"), &mount, "--delete"]).contains("refresh"));
    assert!(error(&["import", &format!("s3://{BUCKET}"), &mount, "--shard", "4/3"]).contains("I/N"));
    let mut rig = rig;
    rig.store.put(BUCKET, "x", b"1".to_vec(), BTreeMap::new());
    let checkpoint = rig.dir.path().join("checkpoint");
    fs::write(&checkpoint, b"{}").unwrap();
    let given = checkpoint.display().to_string();
    assert!(
        String::from_utf8_lossy(
            &rig.run(&["import", &format!("s3://{BUCKET}"), &mount, "--checkpoint", &given])
                .stderr
        )
        .contains("no checkpoint")
    );
    assert_eq!(rig.client.actions().unwrap().len(), 0);
}

#[test]
fn a_lost_file_system_is_made_anew_from_its_bucket() {
    let archive = "[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\nlayout = 'fid'\nprefix = 'copies/'\n";
    let setup = || Setup {
        archives: archive.into(),
        ..Setup::default()
    };
    let mut old = Rig::with(setup());
    let files = [
        ("a/one", noise(100)),
        ("a/b/two", noise(70_000)),
        ("a/b/Ünï \u{7}", noise(10)),
    ];
    for (name, content) in &files {
        let fid = old.file(name, content);
        let path = old.mount().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
        std::os::unix::fs::chown(&path, Some(77), Some(88)).unwrap();
        old.archive(fid);
    }
    let mut new = Rig::with(setup());
    for object in old.store.objects(BUCKET) {
        let body = old.store.object_body(BUCKET, &object.key).unwrap();
        new.store.put(BUCKET, &object.key, body, object.metadata);
    }
    new.put("copies/strangers", b"object", &[]);
    let (url, to) = (format!("s3://{BUCKET}/copies"), new.mount().display().to_string());
    let output = new.run(&["rebuild", &url, &to, "--json"]);
    let line = json(&output);
    assert_eq!(
        (
            count(&line, "imported"),
            count(&line, "refused"),
            count(&line, "filtered")
        ),
        (3, 0, 1),
        "{line}"
    );
    for (name, content) in &files {
        let stat = fs::metadata(new.mount().join(name)).unwrap();
        let before = fs::metadata(old.mount().join(name)).unwrap();
        assert_eq!((stat.mode(), stat.uid(), stat.gid()), (before.mode(), 77, 88));
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
        let fid = new.client.fid(&new.mount().join(name)).unwrap();
        assert_eq!(&new.restore(name, fid), content);
    }
    assert_eq!(
        new.client
            .actions()
            .unwrap()
            .iter()
            .filter(|action| action.action == Action::Restore)
            .count(),
        3
    );
}

/// All that can be compared of everything below a directory; sizes and times of directories that differ by nature
/// (of the target itself) left out.
fn everything(root: &Path) -> Vec<String> {
    let attributes = |path: &Path| {
        let names = xattr::list(path)
            .unwrap()
            .filter(|name| name.to_string_lossy().starts_with("user."));
        let pairs = names.map(|name| format!("{name:?}={:?}", xattr::get(path, &name).unwrap()));
        pairs.collect::<Vec<_>>().join(",")
    };
    let of = |name: &String| {
        let path = root.join(name);
        let stat = path.symlink_metadata().unwrap();
        let target = fs::read_link(&path)
            .map(|target| target.display().to_string())
            .unwrap_or_default();
        let size = if stat.is_dir() { 0 } else { stat.len() };
        // One link of each file is the sandbox's own.
        let times = (stat.mtime(), stat.mtime_nsec());
        format!(
            "{name} {:o} {}:{} {size} {times:?} '{target}' [{}]",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            attributes(&path)
        )
    };
    names(root).iter().map(of).collect()
}

#[test]
fn a_nasty_tree_comes_back_as_it_was_from_archive_and_export() {
    let mut old = Rig::new();
    let root = old.mount();
    let files = [
        ("plain", 0o640, noise(100)),
        ("empty", 0o000, Vec::new()),
        ("dir/spaces and + % ?#&=\u{fc}", 0o604, noise(5)),
        ("dir/deep/er/日本語 \"quoted\"", 0o4711, noise(70_000)),
        ("dir/~tilde~", 0o2755, noise(1)),
        ("-rf", 0o600, noise(12 << 20)),
    ];
    let at = |seconds, nanos| {
        let mtime = std::time::UNIX_EPOCH + std::time::Duration::new(seconds, nanos);
        fs::FileTimes::new().set_modified(mtime).set_accessed(mtime)
    };
    for (n, (name, mode, content)) in (1u32..).zip(&files) {
        old.file(name, content);
        let path = root.join(name);
        xattr::set(&path, "user.tag", &[0, 255, 16]).unwrap();
        std::os::unix::fs::chown(&path, Some(1000 + n), Some(2000 + n)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        fs::File::open(&path)
            .unwrap()
            .set_times(at(1_000_000_000 + u64::from(n), n))
            .unwrap();
    }
    // More than an object's metadata has room for.
    xattr::set(root.join("dir/~tilde~"), "user.large", &noise(2500)).unwrap();
    let plain = old.client.fid(&root.join("plain")).unwrap();
    let layout = composite();
    old.client
        .ask(&Request::SetXattr(plain, "lustre.lov".into(), layout.clone()))
        .unwrap();
    // Sparse: data at both ends of a hole.
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"begin", 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 40 << 20).unwrap();
    fs::hard_link(root.join("plain"), root.join("dir/second name")).unwrap();
    fs::create_dir_all(root.join("void/inner")).unwrap();
    std::os::unix::fs::symlink("plain", root.join("link")).unwrap();
    std::os::unix::fs::symlink("../nowhere/at/all", root.join("dir/dangling")).unwrap();
    std::os::unix::fs::lchown(root.join("link"), Some(5), Some(6)).unwrap();
    for (n, directory) in (1u32..).zip(["void/inner", "void", "dir/deep/er", "dir/deep", "dir"]) {
        let path = root.join(directory);
        std::os::unix::fs::chown(&path, Some(n), Some(n)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1750 + n)).unwrap();
    }
    let names_of_files: Vec<_> = files.iter().map(|(name, ..)| *name).chain(["sparse"]).collect();
    for name in &names_of_files {
        let fid = old.client.fid(&root.join(name)).unwrap();
        old.archive(fid);
    }
    for (n, directory) in (1u32..).zip(["void/inner", "void", "dir/deep/er", "dir/deep", "dir"]) {
        fs::File::open(root.join(directory))
            .unwrap()
            .set_times(at(900_000_000, n))
            .unwrap();
    }
    let exported = json(&old.run(&["export", &root.display().to_string(), "--json"]));
    assert_eq!(
        (count(&exported, "directories"), count(&exported, "links")),
        (5, 2),
        "{exported}"
    );
    // As FSx reads it.
    let object = |key: &str| {
        old.store
            .objects(BUCKET)
            .into_iter()
            .find(|object| object.key == key)
            .unwrap()
    };
    assert_eq!(object("dir/").metadata["file-permissions"], "041755");
    assert_eq!(old.store.object_body(BUCKET, "link").unwrap(), b"plain");
    // A second time nothing is in the way.
    let again = json(&old.run(&["export", &root.display().to_string(), "--json"]));
    assert_eq!(count(&again, "failed"), 0, "{again}");

    let before = everything(&root);
    let mut new = Rig::new();
    for object in old.store.objects(BUCKET) {
        let body = old.store.object_body(BUCKET, &object.key).unwrap();
        new.store.put(BUCKET, &object.key, body, object.metadata);
    }
    let line = new.import(&new.mount(), &["--metadata", "head", "--allow-setid"]);
    assert_eq!(
        (
            count(&line, "failed"),
            count(&line, "refused"),
            count(&line, "warnings")
        ),
        (0, 0, 0),
        "{line}"
    );
    assert_eq!(everything(&new.mount()), before);
    let inode = |name: &str| new.mount().join(name).metadata().unwrap().ino();
    assert_eq!(inode("plain"), inode("dir/second name"));
    for name in names_of_files {
        let content = fs::read(root.join(name)).unwrap();
        let fid = new.client.fid(&new.mount().join(name)).unwrap();
        let mode = fs::metadata(new.mount().join(name)).unwrap().permissions();
        assert_eq!(new.restore(name, fid), content, "{name}");
        assert_eq!(
            fs::metadata(new.mount().join(name)).unwrap().permissions(),
            mode,
            "{name}"
        );
    }
    let plain = new.client.fid(&new.mount().join("plain")).unwrap();
    let restored = new.client.xattr(plain, "lustre.lov").unwrap();
    assert_eq!(restored, layout, "stripes and components are what they were");
    assert!(new.mount().join("sparse").metadata().unwrap().blocks() * 512 < 1 << 20);
    // Restoring changes data alone.
    assert_eq!(everything(&new.mount()), before);
    new.assert_settled();
    // What is removed takes its sidecar along.
    let sidecars = |rig: &Rig| {
        let objects = rig.store.objects(BUCKET);
        objects
            .iter()
            .filter(|object| object.key.starts_with(".lhsm-s3-metadata/"))
            .count()
    };
    assert_eq!(sidecars(&old), 1);
    let fid = old.client.fid(&root.join("dir/~tilde~")).unwrap();
    fs::write(root.join("dir/~tilde~"), b"changed").unwrap();
    old.archive(fid);
    // The former copy's goes after the answer.
    // The new copy's, and no longer the old one's.
    until(|| (sidecars(&old) == 1).then_some(()));
    old.client.request(Action::Remove, 1, &[fid]).unwrap();
    old.settle(fid);
    assert_eq!(sidecars(&old), 0, "a remove answers when all is gone");
}

/// A progressive file layout before it has objects.
fn composite() -> Vec<u8> {
    let arguments = ["-E", "1M", "-c", "1", "-E", "-1", "-c", "2", "file"].map(str::to_owned);
    lhsm_sandbox::stripes::Stripes::parse(&arguments).unwrap().0.to_bytes()
}
