//! Archive, restore, remove.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use lhsm_sandbox::protocol::{Action, Request, states};

use crate::rig::{BUCKET, Rig, Setup, noise, until};

#[test]
fn files_of_every_size_come_back_as_they_were() {
    let mut rig = Rig::new();
    let sizes = [0, 1, 4096, 100_000, 5 << 20, (5 << 20) + 1, 17 << 20];
    for size in sizes {
        let name = format!("sizes/{size}.bin");
        let content = noise(size);
        let fid = rig.file(&name, &content);
        rig.archive(fid);
        let path = rig.mount().join(&name);
        let before = fs::metadata(&path).unwrap();
        rig.release(fid);
        // The record may have a block of its own; the data has none.
        assert!(fs::metadata(&path).unwrap().blocks() <= 8);
        assert_eq!(fs::metadata(&path).unwrap().len(), size as u64);

        assert_eq!(rig.restore(&name, fid), content);
        let after = fs::metadata(&path).unwrap();
        assert_eq!(
            (after.mtime(), after.mtime_nsec()),
            (before.mtime(), before.mtime_nsec())
        );
        assert_eq!(rig.store.object_body(BUCKET, &name).unwrap(), content);
    }
    rig.assert_settled();
}

#[test]
fn the_archive_of_a_small_file_is_one_put_and_no_other_request() {
    let mut rig = Rig::new();
    // The look for abandoned uploads, at the start, is not the archive's.
    let requests = |rig: &Rig| {
        let stats = rig.store.stats();
        stats.requests.values().sum::<u64>() - stats.count("ListMultipartUploads")
    };
    let before = requests(&rig);
    let fid = rig.file("small", &noise(4096));
    rig.archive(fid);
    assert_eq!(rig.store.stats().count("PutObject"), 1);
    assert_eq!(requests(&rig) - before, 1);
}

#[test]
fn a_large_file_goes_in_parts_and_is_confirmed_as_a_whole() {
    let mut rig = Rig::new();
    let fid = rig.file("large", &noise(23 << 20));
    rig.archive(fid);
    assert_eq!(rig.store.stats().count("UploadPart"), 5);
    assert_eq!(rig.store.stats().count("CompleteMultipartUpload"), 1);
    rig.assert_settled();
}

#[test]
fn holes_stay_holes_both_ways() {
    use std::os::unix::fs::FileExt as _;
    let mut rig = Rig::new();
    let path = rig.mount().join("sparse");
    let file = fs::File::create(&path).unwrap();
    file.set_len(9 << 20).unwrap();
    file.write_all_at(&noise(4096), 0).unwrap();
    file.write_all_at(&noise(4096), 5 << 20).unwrap();
    drop(file);
    let content = fs::read(&path).unwrap();
    let fid = rig.client.fid(&path).unwrap();
    rig.archive(fid);
    rig.release(fid);
    assert_eq!(rig.restore("sparse", fid), content);
    assert!(fs::metadata(&path).unwrap().blocks() <= 64);
    assert_eq!(rig.store.object_body(BUCKET, "sparse").unwrap(), content);
}

#[test]
fn a_removed_copy_is_gone_and_so_is_its_record() {
    let mut rig = Rig::new();
    let fid = rig.file("dir/file", b"data");
    rig.archive(fid);
    assert_eq!(rig.keys(), ["dir/file"]);
    assert!(rig.client.xattr(fid, "trusted.lhsm_s3").is_ok());
    assert_eq!(rig.act(Action::Remove, fid).states, 0);
    assert_eq!(rig.keys(), Vec::<String>::new());
    assert!(rig.client.xattr(fid, "trusted.lhsm_s3").is_err());
    rig.assert_settled();
}

#[test]
fn keys_follow_fids_where_that_is_the_layout() {
    let mut rig = Rig::with(Setup {
        archives: "[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\nprefix = 'fs/'\nlayout = 'fid'\n".into(),
        ..Setup::default()
    });
    let fid = rig.file("a", b"one");
    rig.archive(fid);
    let key = format!("fs/{}", fid.to_string().trim_matches(['[', ']']));
    assert_eq!(rig.keys(), [key]);
    fs::rename(rig.mount().join("a"), rig.mount().join("b")).unwrap();
    rig.release(fid);
    assert_eq!(rig.restore("b", fid), b"one");
}

#[test]
fn each_archive_id_has_its_bucket_and_prefix() {
    let mut rig = Rig::with(Setup {
        archives:
            "[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\n[[archive]]\nid = 7\nbucket = 'second'\nprefix = 'seven/'\n"
                .into(),
        store: lhsm_sandbox_s3::Config {
            buckets: vec![BUCKET.into(), "second".into()],
            ..lhsm_sandbox_s3::Config::default()
        },
        ..Setup::default()
    });
    let one = rig.file("one", b"1");
    let seven = rig.file("deep/seven", b"7");
    rig.client.request(Action::Archive, 1, &[one]).unwrap();
    rig.client.request(Action::Archive, 7, &[seven]).unwrap();
    rig.settle(one);
    assert_eq!(rig.settle(seven).archive_id, 7);
    assert_eq!(rig.keys(), ["one"]);
    assert_eq!(rig.store.object_body("second", "seven/deep/seven").unwrap(), b"7");
    rig.release(seven);
    assert_eq!(rig.restore("deep/seven", seven), b"7");
}

#[test]
fn an_object_tells_what_file_it_was() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    let stat = fs::metadata(rig.mount().join("file")).unwrap();
    let object = rig.store.objects(BUCKET).remove(0);
    assert_eq!(object.metadata["file-permissions"], format!("0{:o}", stat.mode()));
    assert_eq!(object.metadata["file-owner"], stat.uid().to_string());
    assert_eq!(
        object.metadata["file-mtime"],
        format!(
            "{}ns",
            i128::from(stat.mtime()) * 1_000_000_000 + i128::from(stat.mtime_nsec())
        )
    );
    assert_eq!(object.metadata["lhsm-fid"], fid.to_string().trim_matches(['[', ']']));
    assert!(object.metadata["lhsm-fs"].starts_with("lustre:"));
}

#[test]
fn a_file_without_a_record_is_restored_by_its_path() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"content");
    rig.archive(fid);
    // Who archived it reads the record back after the end, and would write it once more.
    until(|| rig.log().contains("archive done").then_some(()));
    rig.client
        .ask(&Request::RemoveXattr(fid, "trusted.lhsm_s3".into()))
        .unwrap();
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"content");
    until(|| rig.log().contains("no record of its copy").then_some(()));
}

#[test]
fn a_changed_file_is_archived_again_under_its_key() {
    let mut rig = Rig::new();
    let fid = rig.file("file", b"first");
    rig.archive(fid);
    fs::write(rig.mount().join("file"), b"second, longer").unwrap();
    assert_eq!(
        rig.client.state(fid).unwrap().states,
        states::EXISTS | states::ARCHIVED | states::DIRTY
    );
    rig.archive(fid);
    assert_eq!(rig.keys(), ["file"]);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"second, longer");
}

#[test]
fn a_new_file_never_overwrites_the_only_copy_of_a_released_one() {
    let mut rig = Rig::new();
    let old = rig.file("name", b"old data");
    rig.archive(old);
    rig.release(old);
    fs::rename(rig.mount().join("name"), rig.mount().join("moved")).unwrap();
    let new = rig.file("name", b"new data");
    rig.archive(new);
    assert_eq!(rig.keys().len(), 2);
    rig.release(new);
    assert_eq!(rig.restore("moved", old), b"old data");
    assert_eq!(rig.restore("name", new), b"new data");
}

#[test]
fn swapped_names_keep_their_data() {
    let mut rig = Rig::new();
    let (a, b) = (rig.file("a", b"data of a"), rig.file("b", b"data of b"));
    rig.archive(a);
    rig.archive(b);
    let path = |name: &str| rig.dir.path().join("lustre").join(name);
    fs::rename(path("a"), path("t")).unwrap();
    fs::rename(path("b"), path("a")).unwrap();
    fs::rename(path("t"), path("b")).unwrap();
    fs::write(path("b"), b"new data of a").unwrap();
    fs::write(path("a"), b"new data of b").unwrap();
    for fid in [a, b] {
        rig.archive(fid);
        rig.release(fid);
    }
    assert_eq!(rig.restore("b", a), b"new data of a");
    assert_eq!(rig.restore("a", b), b"new data of b");
}

#[test]
fn a_file_written_anew_under_the_name_of_a_dead_one_takes_its_key() {
    let mut rig = Rig::new();
    let old = rig.file("result", b"run 1");
    rig.archive(old);
    fs::remove_file(rig.mount().join("result")).unwrap();
    let new = rig.file("result", b"run 2");
    rig.archive(new);
    assert_eq!(rig.keys(), ["result"]);
    assert_eq!(rig.store.object_body(BUCKET, "result").unwrap(), b"run 2");
}

#[test]
fn the_object_of_a_dead_file_stays_when_an_import_has_made_another_file_of_it() {
    let mut rig = Rig::new();
    let mount = rig.mount();
    let old = rig.file("result", b"run 1");
    rig.archive(old);
    // A daemon that has just archived a file removes the object of one that is gone.
    assert_eq!(rig.stop(), Some(0));
    fs::remove_file(mount.join("result")).unwrap();
    let imported = rig.run(&["import", "s3://lhsm-sandbox", &mount.display().to_string()]);
    assert!(imported.status.success(), "{imported:?}");
    fs::rename(mount.join("result"), mount.join("kept")).unwrap();
    rig.start();
    let new = rig.file("result", b"run 2");
    rig.archive(new);
    assert_eq!(rig.keys().len(), 2, "{:?}", rig.keys());
    let kept = rig.client.fid(&mount.join("kept")).unwrap();
    assert_eq!(rig.restore("kept", kept), b"run 1");
    rig.release(new);
    assert_eq!(rig.restore("result", new), b"run 2");
}

#[test]
fn a_store_without_conditional_writes_or_checksums_serves_too() {
    let mut rig = Rig::with(Setup {
        store: lhsm_sandbox_s3::Config {
            conditional_writes: false,
            full_object_checksums: false,
            ..lhsm_sandbox_s3::Config::default()
        },
        ..Setup::default()
    });
    let old = rig.file("name", &noise(11 << 20));
    rig.archive(old);
    rig.release(old);
    fs::rename(rig.mount().join("name"), rig.mount().join("moved")).unwrap();
    let new = rig.file("name", b"small");
    rig.archive(new);
    assert_eq!(rig.restore("moved", old), noise(11 << 20));
    assert_eq!(rig.act(Action::Remove, new).states, 0);
    assert_eq!(rig.keys(), ["name"]);
}
