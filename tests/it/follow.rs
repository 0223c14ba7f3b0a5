//! The bucket follows the file system.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use lhsm_sandbox::protocol::{Fault, UserChange, states};

use crate::import::{count, json};
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise};

const EVERYTHING: &str = "delete,rename,attr";

/// In the keys of objects that are of no file.
const PROBES: &str = ".lhsm-s3-metadata/0x0:0x0:0x0.";

impl Rig {
    fn write(&mut self, path: &str, content: &[u8]) {
        self.client
            .change(UserChange::Write(path.into(), content.to_vec()))
            .unwrap();
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.client.change(UserChange::Rename(from.into(), to.into())).unwrap();
    }

    fn mkdir(&mut self, path: &str) {
        self.client.change(UserChange::Mkdir(path.into())).unwrap();
    }

    /// Deals with everything that has happened.
    pub(crate) fn follow(&self, user: &str, propagate: &str) -> serde_json::Value {
        let mount = self.mount().display().to_string();
        let mut arguments = vec!["export", "--follow", "--once", "--json", "--changelog-user", user];
        if !propagate.is_empty() {
            arguments.extend(["--propagate", propagate]);
        }
        arguments.push(&mount);
        json(&self.run(&arguments))
    }

    /// What the bucket should have: keys with content and permissions.
    fn whole_tree(&self) -> BTreeMap<String, (Vec<u8>, String)> {
        let mount = self.mount();
        let mut found = BTreeMap::new();
        for entry in walk(&mount) {
            let stat = entry.symlink_metadata().unwrap();
            let below = entry.strip_prefix(&mount).unwrap().to_str().unwrap().to_owned();
            let (key, content) = if stat.is_dir() {
                (format!("{below}/"), Vec::new())
            } else if stat.is_symlink() {
                let target = std::fs::read_link(&entry).unwrap();
                (below, target.as_os_str().as_bytes().to_vec())
            } else {
                (below, std::fs::read(&entry).unwrap())
            };
            use std::os::unix::fs::MetadataExt as _;
            found.insert(key, (content, format!("0{:o}", stat.mode())));
        }
        found
    }

    fn bucket(&self) -> BTreeMap<String, (Vec<u8>, String)> {
        let objects = self.store.objects(BUCKET).into_iter();
        objects
            // What a daemon that was killed had made to try the store: a later one takes it away.
            .filter(|object| !object.key.contains(PROBES))
            .map(|object| {
                let body = self.store.object_body(BUCKET, &object.key).unwrap();
                (object.key, (body, object.metadata["file-permissions"].clone()))
            })
            .collect()
    }

    #[track_caller]
    fn assert_bucket_is_tree(&self) {
        let (bucket, tree) = (self.bucket(), self.whole_tree());
        let keys = |map: &BTreeMap<String, _>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&bucket), keys(&tree));
        for (key, entry) in tree {
            assert!(bucket[&key] == entry, "'{key}' differs");
        }
    }
}

fn walk(root: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with(".lustre") {
                continue;
            }
            found.push(path.clone());
            if path.symlink_metadata().unwrap().is_dir() {
                directories.push(path);
            }
        }
    }
    found
}

#[test]
fn what_is_made_written_renamed_and_removed_is_so_in_the_bucket() {
    let mut rig = Rig::new();
    let user = rig.client.register_changelog().unwrap();
    // From before anybody read the changelog.
    std::fs::create_dir(rig.mount().join("old")).unwrap();
    rig.file("old/file", b"old");
    rig.write("a", &noise(100));
    rig.mkdir("dir");
    rig.write("dir/b", &noise(6_000_000));
    rig.client
        .change(UserChange::Symlink("dir/link".into(), "../a".into()))
        .unwrap();
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!((count(&line, "archived"), count(&line, "scans")), (3, 1), "{line}");
    rig.assert_bucket_is_tree();
    assert_eq!(rig.client.counters().unwrap().changes, 0, "all records are cleared");

    // A second time nothing is to be done.
    let before = rig.store.stats().count("PutObject");
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!((count(&line, "archived"), count(&line, "scans")), (0, 0), "{line}");
    // What tries how the store copies does not count.
    assert_eq!(rig.store.stats().count("PutObject"), before);

    rig.write("a", b"anew");
    rig.rename("dir", "moved");
    rig.rename("old/file", "moved/file");
    rig.client.change(UserChange::Rmdir("old".into())).unwrap();
    rig.client.change(UserChange::Chmod("moved/b".into(), 0o600)).unwrap();
    rig.client.change(UserChange::Unlink("moved/link".into())).unwrap();
    rig.write("short-lived", b"x");
    rig.client.change(UserChange::Unlink("short-lived".into())).unwrap();
    let line = rig.follow(&user, EVERYTHING);
    rig.assert_bucket_is_tree();
    assert_eq!((count(&line, "archived"), count(&line, "failed")), (1, 0), "{line}");
    assert!(count(&line, "moved") >= 3, "{line}");

    // What was moved is restored from where it is now.
    let fid = rig.client.fid(&rig.mount().join("moved/b")).unwrap();
    assert_eq!(rig.client.state(fid).unwrap().states, states::EXISTS | states::ARCHIVED);
    rig.release(fid);
    assert_eq!(rig.restore("moved/b", fid), noise(6_000_000));
    rig.assert_settled();
}

#[test]
fn without_being_asked_nothing_is_moved_or_deleted() {
    let mut rig = Rig::new();
    let user = rig.client.register_changelog().unwrap();
    rig.write("a", b"a");
    rig.write("b", b"b");
    rig.follow(&user, "");
    rig.rename("a", "c");
    rig.client.change(UserChange::Unlink("b".into())).unwrap();
    let line = rig.follow(&user, "");
    assert_eq!(rig.keys(), ["a", "b"], "{line}");
    // The renamed one is the same file, and its copy is found.
    let fid = rig.client.fid(&rig.mount().join("c")).unwrap();
    rig.release(fid);
    assert_eq!(rig.restore("c", fid), b"a");
}

#[test]
fn two_files_that_change_places_change_keys_too() {
    let mut rig = Rig::new();
    let user = rig.client.register_changelog().unwrap();
    for name in ["one", "two", "three"] {
        rig.write(name, name.as_bytes());
    }
    rig.follow(&user, EVERYTHING);
    rig.rename("one", "spare");
    rig.rename("two", "one");
    rig.rename("three", "two");
    rig.rename("spare", "three");
    // And one is put over another.
    rig.write("new", b"new");
    rig.rename("new", "two");
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!(count(&line, "failed"), 0, "{line}");
    rig.assert_bucket_is_tree();
    assert_eq!(rig.bucket()["three"].0, b"one");
    for name in ["one", "two", "three"] {
        let fid = rig.client.fid(&rig.mount().join(name)).unwrap();
        let content = rig.read(name);
        rig.release(fid);
        assert_eq!(rig.restore(name, fid), content);
    }
}

#[test]
fn lost_records_are_made_good_by_one_look_through_everything() {
    let mut rig = Rig::new();
    let user = rig.client.register_changelog().unwrap();
    rig.write("kept", b"1");
    rig.write("gone", b"2");
    rig.follow(&user, EVERYTHING);
    rig.write("kept", b"changed");
    rig.client.change(UserChange::Unlink("gone".into())).unwrap();
    rig.write("made", b"3");
    rig.client.inject(Fault::ForgetChanges).unwrap();
    // The next record shows that some are missing.
    rig.write("shown", b"4");
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!(count(&line, "scans"), 1, "{line}");
    rig.assert_bucket_is_tree();
}

/// A copy whose file is gone may be another file's by now.
#[test]
fn an_object_that_was_imported_again_outlives_its_former_file() {
    let mut rig = Rig::new();
    let user = rig.client.register_changelog().unwrap();
    for name in ["same-path", "elsewhere"] {
        rig.write(name, name.as_bytes());
    }
    rig.follow(&user, EVERYTHING);
    for name in ["same-path", "elsewhere"] {
        rig.client.change(UserChange::Unlink(name.into())).unwrap();
    }
    std::fs::create_dir(rig.mount().join("again")).unwrap();
    let url = format!("s3://{BUCKET}");
    for (target, key) in [("", "same-path"), ("again", "elsewhere")] {
        let target = rig.mount().join(target).display().to_string();
        let output = rig.run(&["import", &url, &target, "--include", key]);
        assert!(output.status.success(), "{output:?}");
    }
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!(count(&line, "deleted"), 0, "{line}");
    for name in ["same-path", "again/elsewhere"] {
        let fid = rig.client.fid(&rig.mount().join(name)).unwrap();
        assert_eq!(rig.restore(name, fid), name.rsplit('/').next().unwrap().as_bytes());
    }
}

#[test]
fn further_names_and_large_attributes_move_along() {
    let mut rig = Rig::new();
    let user = rig.client.register_changelog().unwrap();
    rig.mkdir("dir");
    for n in 0..20 {
        let name = format!("dir/f{n}");
        rig.write(&name, name.as_bytes());
        xattr::set(rig.mount().join(&name), "user.large", &noise(2500)).unwrap();
        let link = format!("dir/second-{n}");
        rig.client.change(UserChange::Link(name.into(), link.into())).unwrap();
    }
    rig.follow(&user, EVERYTHING);
    rig.rename("dir", "moved");
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!(count(&line, "failed"), 0, "{line}");
    let is_sidecar = |key: &&String| key.starts_with(".lhsm-s3-metadata/");
    let keys = rig.keys();
    assert_eq!(keys.iter().filter(is_sidecar).count(), 20, "{keys:?}");
    assert_eq!(
        keys.iter().filter(|key| key.starts_with("moved/")).count(),
        21,
        "{keys:?}"
    );
    for object in rig.store.objects(BUCKET) {
        if object.key.starts_with("moved/") && !object.key.ends_with('/') {
            let sidecar = object.metadata["lhsm-sidecar"].replace("%3A", ":");
            assert!(keys.contains(&sidecar), "{} has lost '{sidecar}'", object.key);
        }
    }
    for n in 0..20 {
        let name = format!("moved/f{n}");
        let fid = rig.client.fid(&rig.mount().join(&name)).unwrap();
        rig.release(fid);
        assert_eq!(rig.restore(&name, fid), format!("dir/f{n}").as_bytes());
    }
}

#[test]
fn where_keys_are_fids_a_rename_renews_the_path_that_the_object_tells() {
    let mut rig = Rig::with(Setup {
        archives: "[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\nlayout = 'fid'\n".into(),
        ..Setup::default()
    });
    let user = rig.client.register_changelog().unwrap();
    rig.write("before", b"x");
    rig.follow(&user, EVERYTHING);
    rig.rename("before", "after");
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!((count(&line, "moved"), count(&line, "restated")), (0, 1), "{line}");
    let objects = rig.store.objects(BUCKET);
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0].metadata["lhsm-path"], "after");
    // What its key tells needs no record, whatever it is and wherever it goes.
    let fid = rig.client.fid(&rig.mount().join("after")).unwrap();
    assert!(rig.client.xattr(fid, "trusted.lhsm_s3").is_err());
    rig.write("after", b"other bytes");
    rig.follow(&user, EVERYTHING);
    assert_eq!(rig.keys(), [objects[0].key.clone()]);
    assert_eq!(rig.store.object_body(BUCKET, &objects[0].key).unwrap(), b"other bytes");
    rig.release(fid);
    assert_eq!(rig.restore("after", fid), b"other bytes");
    assert!(rig.client.xattr(fid, "trusted.lhsm_s3").is_err());
    rig.client.change(UserChange::Unlink(b"after".to_vec())).unwrap();
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!(count(&line, "deleted"), 1, "{line}");
    assert_eq!(rig.keys(), Vec::<String>::new());
}

#[test]
fn where_a_copy_could_put_old_data_over_new_nothing_is_moved() {
    let mut rig = Rig::with(Setup {
        store: lhsm_sandbox_s3::Config {
            copy_conditions: false,
            ..lhsm_sandbox_s3::Config::default()
        },
        ..Setup::default()
    });
    let user = rig.client.register_changelog().unwrap();
    rig.write("a", b"a");
    rig.follow(&user, EVERYTHING);
    rig.rename("a", "b");
    let mount = rig.mount().display().to_string();
    let arguments = [
        "export",
        "--follow",
        "--once",
        "--changelog-user",
        &user,
        "--propagate",
        EVERYTHING,
        &mount,
    ];
    let output = rig.run(&arguments);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("does not heed conditions"), "{said}");
    assert_eq!(rig.keys(), ["a"]);
}

/// A stream of changes while the command runs, is killed and started again.
#[test]
fn under_a_stream_of_changes_and_kills_the_bucket_is_the_tree_in_the_end() {
    let mut rig = Rig::new();
    let user = rig.client.register_changelog().unwrap();
    let mount = rig.mount().display().to_string();
    let arguments = [
        "export",
        "--follow",
        "--changelog-user",
        &user,
        "--quiet",
        "20ms",
        "--propagate",
        EVERYTHING,
        &mount,
    ];
    for directory in ["d0", "d1", "d2"] {
        rig.mkdir(directory);
    }
    let mut random = fastrand::Rng::with_seed(7);
    let mut names: Vec<String> = Vec::new();
    for round in 0..4 {
        let mut command = rig.command(&arguments);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        for n in 0..60 {
            let fresh = format!("d{}/f{round}-{n}", random.u8(0..3));
            match random.u8(0..10) {
                0..4 => {
                    rig.write(&fresh, &noise(random.usize(1..2000)));
                    names.push(fresh);
                }
                4..6 if !names.is_empty() => {
                    let name = names[random.usize(0..names.len())].clone();
                    rig.write(&name, &noise(random.usize(1..2000)));
                }
                6..8 if !names.is_empty() => {
                    let at = random.usize(0..names.len());
                    let from = names.swap_remove(at);
                    // Now and then over another one.
                    let to = if random.bool() && !names.is_empty() {
                        names[random.usize(0..names.len())].clone()
                    } else {
                        names.push(fresh.clone());
                        fresh
                    };
                    rig.rename(&from, &to);
                }
                8 if !names.is_empty() => {
                    let name = names.swap_remove(random.usize(0..names.len()));
                    rig.client.change(UserChange::Unlink(name.into())).unwrap();
                }
                _ if !names.is_empty() => {
                    let name = names[random.usize(0..names.len())].clone();
                    let mode = 0o600 + random.u32(0..0o77);
                    rig.client.change(UserChange::Chmod(name.into(), mode)).unwrap();
                }
                _ => {}
            }
        }
        // Something of this round is in the bucket, and hardly all.
        let some = |rig: &Rig| rig.keys().iter().any(|key| key.contains(&format!("/f{round}-")));
        let until = std::time::Instant::now() + PATIENCE;
        while !some(&rig) && std::time::Instant::now() < until {
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let line = rig.follow(&user, EVERYTHING);
    assert_eq!(count(&line, "failed"), 0, "{line}");
    // What a kill left of a move is found at the next look at everything.
    let root = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(rig.mount(), root).unwrap();
    rig.assert_bucket_is_tree();
}

#[test]
fn without_a_reader_or_at_another_place_than_the_mount_point_the_command_says_what_to_do() {
    let mut rig = Rig::without_daemon(Setup::default());
    rig.client.register_changelog().unwrap();
    let mount = rig.mount().display().to_string();
    let output = rig.run(&["export", "--follow", &mount]);
    assert_eq!(output.status.code(), Some(2));
    std::fs::create_dir(rig.mount().join("sub")).unwrap();
    let sub = format!("{mount}/sub");
    let output = rig.run(&["export", "--follow", "--changelog-user", "cl1", &sub]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&mount));
    rig.mkdir("d");
    let output = rig.run(&["export", "--follow", "--once", "--changelog-user", "cl9", &mount]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("changelog_register"), "{error}");
}
