//! Attributes that protect: modes, ACLs, times, storage classes; and keys of any length.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lhsm_sandbox::protocol::{Action, Fid, states};

use crate::import::{count, json};
use crate::rig::{BUCKET, Rig, Setup, noise, until};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn bare(fid: Fid) -> String {
    fid.to_string().trim_matches(['[', ']']).to_owned()
}

/// As the kernel has it: version 2, then entries of tag, permissions and id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `user::rwx,user:1001:rwx,group::r-x,group:1002:r-x,mask::rwx,other::---`
fn protecting() -> Vec<u8> {
    const NONE: u32 = u32::MAX;
    acl(&[
        (0x01, 7, NONE),
        (0x02, 7, 1001),
        (0x04, 5, NONE),
        (0x08, 5, 1002),
        (0x10, 7, NONE),
        (0x20, 0, NONE),
    ])
}

/// As an object's metadata has attributes.
fn told(xattrs: &[(&str, &[u8])]) -> String {
    let pairs = xattrs
        .iter()
        .map(|(name, value)| format!("{name}={}", BASE64_STANDARD.encode(value)));
    pairs.collect::<Vec<_>>().join(",")
}

impl Rig {
    /// All objects of another rig's bucket.
    fn take_over(&self, other: &Self) {
        for object in other.store.objects(BUCKET) {
            let body = other.store.object_body(BUCKET, &object.key).unwrap();
            self.store.put(BUCKET, &object.key, body, object.metadata);
        }
    }

    fn rebuild(&self) -> serde_json::Value {
        let (url, to) = (format!("s3://{BUCKET}"), self.mount().display().to_string());
        json(&self.run(&["rebuild", &url, &to, "--json"]))
    }

    fn export(&self) -> serde_json::Value {
        json(&self.run(&["export", &self.mount().display().to_string(), "--json"]))
    }
}

#[test]
fn rclones_modes_and_times_are_taken_and_a_mode_that_nobody_understands_stays_private() {
    let rig = Rig::without_daemon(Setup::default());
    let rclone = |mode| {
        [
            ("mode", mode),
            ("uid", "1234"),
            ("gid", "2345"),
            ("atime", "2024-03-01T11:22:33.000000007+01:00"),
            ("mtime", "2024-03-01T10:22:33.123456789Z"),
        ]
    };
    rig.put("d/private", b"1", &rclone("100600"));
    rig.put("d/", b"", &rclone("40750"));
    let s3fs = [("mode", "33184"), ("mtime", "1709288553"), ("ctime", "1709288553")];
    rig.put("s3fs", b"2", &s3fs);
    rig.put("untyped", b"3", &[("mode", "644")]);
    rig.put("directory/", b"", &[("mode", "100644")]);
    rig.put("silent", b"4", &[("mtime", "1709288553")]);
    let report = rig.dir.path().join("report.json");
    let line = rig.import(
        &rig.mount(),
        &["--metadata", "head", "--report", &report.display().to_string()],
    );
    assert_eq!((count(&line, "failed"), count(&line, "refused")), (0, 0), "{line}");
    let to = rig.mount();
    let private = fs::metadata(to.join("d/private")).unwrap();
    assert_eq!(private.mode() & 0o7777, 0o600);
    assert_eq!((private.uid(), private.gid()), (1234, 2345));
    let times = |stat: &fs::Metadata| ((stat.mtime(), stat.mtime_nsec()), (stat.atime(), stat.atime_nsec()));
    let rclones = ((1_709_288_553, 123_456_789), (1_709_288_553, 7));
    assert_eq!(times(&private), rclones);
    assert_eq!(mode(&to.join("d")), 0o750);
    assert_eq!(times(&fs::metadata(to.join("d")).unwrap()), rclones);
    assert_eq!(mode(&to.join("s3fs")), 0o640);
    assert_eq!(mode(&to.join("untyped")), 0o600);
    assert_eq!(mode(&to.join("directory")), 0o700);
    assert_eq!(mode(&to.join("silent")), 0o644, "nothing was said of its mode");
    assert_eq!(count(&line, "warnings"), 2, "{line}");
    let report = fs::read_to_string(&report).unwrap();
    for key in ["untyped", "directory/"] {
        let said = format!("\"key\":\"{key}\"");
        let lines: Vec<_> = report.lines().filter(|line| line.contains(&said)).collect();
        assert!(lines.len() == 1 && lines[0].contains("only its owner"), "{report}");
    }
}

#[test]
fn a_directory_and_a_file_come_back_with_their_acls_or_without_their_groups_access() {
    let mut old = Rig::new();
    let shared = old.mount().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2750)).unwrap();
    let fid = old.file("file", &noise(100));
    let file = old.mount().join("file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    // Of two entries that only root has: it tells the two ACLs apart.
    let inherited = acl(&[(0x01, 7, u32::MAX), (0x04, 5, u32::MAX), (0x20, 0, u32::MAX)]);
    let new = Rig::without_daemon(Setup::default());
    let set = |path: &Path, name: &str, value: &[u8]| xattr::set(path, name, value).is_ok();
    let has_acls =
        set(&shared, ACCESS, &protecting()) && set(&shared, DEFAULT, &inherited) && set(&file, ACCESS, &protecting());
    if has_acls {
        assert_eq!(
            (mode(&shared), mode(&file)),
            (0o2770, 0o770),
            "the group's bits are the mask"
        );
        old.archive(fid);
        assert_eq!(count(&old.export(), "failed"), 0);
        new.take_over(&old);
    } else {
        // This test's file system has none, and neither sets one: the objects are as if it had.
        let of_directory = told(&[(ACCESS, &protecting()), (DEFAULT, &inherited)]);
        new.put(
            "shared/",
            b"",
            &[("file-permissions", "042770"), ("lhsm-xattrs", &of_directory)],
        );
        let of_file = told(&[(ACCESS, &protecting())]);
        new.put(
            "file",
            b"x",
            &[("file-permissions", "0100770"), ("lhsm-xattrs", &of_file)],
        );
    }
    let line = new.rebuild();
    assert_eq!((count(&line, "failed"), count(&line, "refused")), (0, 0), "{line}");
    let (shared, file) = (new.mount().join("shared"), new.mount().join("file"));
    if has_acls {
        assert_eq!(count(&line, "warnings"), 0, "{line}");
        assert_eq!((mode(&shared), mode(&file)), (0o2770, 0o770));
        assert_eq!(xattr::get(&shared, ACCESS).unwrap(), Some(protecting()));
        assert_eq!(xattr::get(&shared, DEFAULT).unwrap(), Some(inherited));
        assert_eq!(xattr::get(&file, ACCESS).unwrap(), Some(protecting()));
    } else {
        assert_eq!(count(&line, "warnings"), 2, "{line}");
        assert_eq!((mode(&shared), mode(&file)), (0o2700, 0o700));
    }
}

#[test]
fn an_acl_that_cannot_be_set_or_read_leaves_the_group_without_access_and_is_told() {
    let rig = Rig::without_daemon(Setup::default());
    let broken = told(&[(ACCESS, b"no ACL"), ("user.tag", b"kept")]);
    rig.put(
        "directory/",
        b"",
        &[("file-permissions", "042775"), ("lhsm-xattrs", &broken)],
    );
    // One of the two is good where the file system has ACLs, and brings the group's bits along.
    let half = told(&[(ACCESS, &protecting()), (DEFAULT, b"no ACL")]);
    rig.put("half/", b"", &[("file-permissions", "040770"), ("lhsm-xattrs", &half)]);
    rig.put(
        "file",
        b"1",
        &[("file-permissions", "0100664"), ("lhsm-xattrs", &broken)],
    );
    let sidecar = ("lhsm-sidecar", ".lhsm-s3-metadata/0x1%3A0x2%3A0x0.3");
    rig.put("no-sidecar", b"2", &[("file-permissions", "0100660"), sidecar]);
    rig.put(
        "garbage",
        b"3",
        &[
            ("file-permissions", "0100660"),
            ("lhsm-xattrs", "system.posix_acl_access"),
        ],
    );
    let report = rig.dir.path().join("report.json");
    let line = rig.import(
        &rig.mount(),
        &["--metadata", "head", "--report", &report.display().to_string()],
    );
    let to = rig.mount();
    for (name, expected) in [
        ("directory", 0o705),
        ("half", 0o700),
        ("file", 0o604),
        ("no-sidecar", 0o600),
        ("garbage", 0o600),
    ] {
        assert_eq!(mode(&to.join(name)), expected, "{name}: {line}");
    }
    assert_eq!(xattr::get(to.join("directory"), "user.tag").unwrap().unwrap(), b"kept");
    assert_eq!((count(&line, "failed"), count(&line, "warnings")), (0, 5), "{line}");
    let report = fs::read_to_string(&report).unwrap();
    for key in ["directory/", "half/", "file", "no-sidecar"] {
        let said = format!("\"key\":\"{key}\"");
        let lines: Vec<_> = report.lines().filter(|line| line.contains(&said)).collect();
        assert!(
            lines.len() == 1 && lines[0].contains("its group gets no access"),
            "{key}: {report}"
        );
    }
}

#[test]
fn what_was_brought_back_or_copied_in_just_now_is_not_released_for_its_old_times() {
    let mut rig = Rig::new();
    let january = UNIX_EPOCH + Duration::from_secs(1_704_067_200);
    let old = fs::FileTimes::new().set_accessed(january).set_modified(january);
    let fid = rig.file("brought-back", &noise(5000));
    let copied = rig.file("copied-in", &noise(6000));
    let age = |rig: &Rig| {
        for name in ["brought-back", "copied-in"] {
            fs::File::open(rig.mount().join(name)).unwrap().set_times(old).unwrap();
        }
    };
    age(&rig);
    for fid in [fid, copied] {
        rig.archive(fid);
    }
    rig.release(fid);
    let state = rig.act(Action::Restore, fid);
    assert_eq!(state.states & states::RELEASED, 0);
    // After the answer.
    let noted = until(|| rig.client.xattr(fid, "trusted.lhsm_s3_restored").ok());
    assert!(String::from_utf8(noted).unwrap().parse::<u64>().unwrap() > 1_704_067_200);
    // Whoever read it meanwhile, its times are those of before.
    age(&rig);
    let mount = rig.mount().display().to_string();
    let line = json(&rig.run(&["release", &mount, "--json", "--unread-for", "7d"]));
    assert_eq!((count(&line, "found"), count(&line, "done")), (0, 0), "{line}");
    let line = json(&rig.run(&["release", &mount, "--json"]));
    assert_eq!(count(&line, "done"), 2, "{line}");
}

#[test]
fn an_archive_class_is_asked_for_files_data_and_for_nothing_else() {
    let mut rig = Rig::with(Setup {
        archives: "[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\nstorage_class = 'GLACIER'\n".into(),
        ..Setup::default()
    });
    let root = rig.mount();
    let plain = rig.file("dir/plain", &noise(10));
    let large = rig.file("dir/large", &noise(12 << 20));
    let attributes = rig.file("dir/attributes", &noise(100));
    for n in 0..40 {
        xattr::set(root.join("dir/attributes"), format!("user.n{n:02}"), &noise(48)).unwrap();
    }
    std::os::unix::fs::symlink("dir/plain", root.join("link")).unwrap();
    for fid in [plain, large, attributes] {
        rig.archive(fid);
    }
    let line = rig.export();
    assert_eq!((count(&line, "directories"), count(&line, "links")), (1, 1), "{line}");
    let classes: Vec<_> = rig
        .store
        .objects(BUCKET)
        .iter()
        .map(|object| {
            let class = object.asked.get("storage_class").cloned();
            let key = match object.key.starts_with(".lhsm-s3-metadata/") {
                true => "sidecar".to_owned(),
                false => object.key.clone(),
            };
            (key, class)
        })
        .collect();
    let glacier = || Some("GLACIER".to_owned());
    let expected = [
        ("sidecar", None),
        ("dir/", None),
        ("dir/attributes", glacier()),
        ("dir/large", glacier()),
        ("dir/plain", glacier()),
        ("link", None),
    ];
    assert_eq!(classes, expected.map(|(key, class)| (key.to_owned(), class)));
}

/// A path of so many bytes below the mount point, each name of it one that a directory takes.
fn path_of(len: usize) -> String {
    let mut path = format!("n{len}");
    while path.len() < len {
        match len - path.len() {
            1 => path.push('x'),
            room => {
                path.push('/');
                path.push_str(&"x".repeat((room - 1).min(200)));
            }
        }
    }
    path
}

#[test]
fn a_file_whose_key_is_taken_and_has_no_room_beside_it_goes_by_its_fid_and_comes_back() {
    let mut rig = Rig::new();
    let mut files = Vec::new();
    for len in 1000..=1030 {
        let path = path_of(len);
        assert_eq!(path.len(), len);
        let content = noise(len);
        let fid = rig.file(&path, &content);
        if len <= 1024 {
            rig.put(&path, b"a stranger's", &[]);
        }
        rig.archive(fid);
        let beside = format!("{path}~{}", bare(fid));
        let expected = if beside.len() <= 1024 { beside } else { bare(fid) };
        let body = rig.store.object_body(BUCKET, &expected);
        assert_eq!(body.as_deref(), Some(&content[..]), "{len}: {:?}", rig.keys());
        if len <= 1024 {
            assert_eq!(rig.store.object_body(BUCKET, &path).unwrap(), b"a stranger's");
        }
        rig.release(fid);
        assert_eq!(rig.restore(&path, fid), content, "{len}");
        // Again, and it stays where it is.
        fs::write(rig.mount().join(&path), b"changed").unwrap();
        rig.archive(fid);
        assert_eq!(rig.store.object_body(BUCKET, &expected).unwrap(), b"changed", "{len}");
        files.push((path, fid));
    }
    // Directories and symlinks beside them, of paths as long.
    for (path, _) in &files {
        let path = Path::new(path);
        let rest = "y".repeat(path.file_name().unwrap().len() - 1);
        let beside = |first: &str| rig.mount().join(path.with_file_name(format!("{first}{rest}")));
        std::os::unix::fs::symlink("target", beside("l")).unwrap();
        fs::create_dir(beside("d")).unwrap();
    }
    let line = rig.export();
    assert_eq!(
        (count(&line, "failed"), count(&line, "links")),
        (0, files.len() as u64),
        "{line}"
    );
    // All of it is made anew from the bucket, each under its own path.
    let new = Rig::without_daemon(Setup::default());
    new.take_over(&rig);
    let line = new.rebuild();
    assert_eq!(
        (
            count(&line, "failed"),
            count(&line, "refused"),
            count(&line, "imported")
        ),
        (0, 0, files.len() as u64),
        "{line}"
    );
    let names = crate::import::names(&new.mount());
    assert_eq!(names, crate::import::names(&rig.mount()));
    rig.assert_settled();
}
