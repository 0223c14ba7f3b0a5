//! Files without a record of their copy, because the key of its object tells all: nothing of an archive or a restore is seen
//! on them, and they lose nothing by it.

use std::collections::BTreeMap;
use std::fs;

use lhsm_sandbox::protocol::{Action, Fault, Fid, HsmControl, Request, Step, Tunable, states};
use lhsm_sandbox_s3::Config;

use crate::import::{count, json};
use crate::left_over::{has_a_successor, start_anew};
use crate::owned::written;
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

const CLEAN: u32 = states::EXISTS | states::ARCHIVED;
const MAP: &str = "trusted.lhsm_s3";
const NOTE: &str = "trusted.lhsm_s3_restored";

fn setup(more: &str) -> Setup {
    Setup {
        archives: format!("[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\nprefix = 'fs/'\nlayout = 'fid'\n{more}"),
        ..Setup::default()
    }
}

fn quiet() -> Rig {
    Rig::with(setup(""))
}

fn key_of(fid: Fid) -> String {
    format!("fs/{}", fid.to_string().replace(['[', ']'], ""))
}

/// ctime and mtime, as root's backup sees them: a program on the stand-in's client.
fn times(rig: &Rig, name: &str) -> String {
    let library = rig.spawn().library;
    let mut stat = std::process::Command::new("stat");
    stat.args(["-c", "%z %y"])
        .arg(rig.mount().join(name))
        .env("LD_PRELOAD", library);
    let told = String::from_utf8(stat.output().unwrap().stdout).unwrap();
    assert!(told.starts_with("20"), "{told}");
    told
}

fn has_record(rig: &mut Rig, fid: Fid) -> bool {
    rig.client.xattr(fid, MAP).is_ok()
}

fn metadata(rig: &Rig, key: &str) -> BTreeMap<String, String> {
    let mut objects = rig.store.objects(BUCKET).into_iter();
    objects.find(|object| object.key == key).unwrap().metadata
}

fn errno(rig: &mut Rig, fid: Fid) -> i32 {
    let actions = rig.client.actions().unwrap();
    actions.iter().rfind(|action| action.fid == fid).unwrap().errval
}

#[test]
fn nothing_puts_a_ctime_back() {
    // How the stand-in follows the MDT of 2.17.
    let mut rig = Rig::without_daemon(Setup::default());
    let fid = rig.file("file", b"data");
    let before = times(&rig, "file");
    // Clocks tick.
    let changed = until(|| {
        rig.client.set_xattr(fid, "trusted.test", b"x").unwrap();
        let now = times(&rig, "file");
        (now != before).then_some(now)
    });
    let mtime = (1_700_000_000, 0);
    let with = |ctime| Request::SetTimes {
        fid,
        atime: (1_000_000_000, 0),
        mtime,
        ctime,
    };
    rig.client.ask(&with(mtime)).unwrap();
    assert_eq!(times(&rig, "file"), changed);
    rig.client.ask(&with((4_000_000_000, 0))).unwrap();
    let stat = fs::metadata(rig.mount().join("file")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&stat), 1_700_000_000);
    assert!(times(&rig, "file").starts_with("2096"));
}

#[test]
fn a_file_that_its_key_tells_of_keeps_its_ctime_and_gets_no_attribute() {
    let mut rig = quiet();
    // One of them in parts.
    let files = [
        ("file", noise(10_000)),
        ("large", noise(12 << 20)),
        ("empty", Vec::new()),
    ];
    for (name, content) in &files {
        let fid = rig.file(name, content);
        let before = times(&rig, name);
        rig.archive(fid);
        assert_eq!(metadata(&rig, &key_of(fid))["lhsm-path"], *name);
        rig.release(fid);
        assert_eq!(rig.act(Action::Restore, fid).states, CLEAN, "{}", rig.log());
        // What comes behind the answers has come then.
        assert_eq!(rig.stop(), Some(0));
        assert_eq!(times(&rig, name), before, "{}", rig.log());
        for attribute in [MAP, NOTE] {
            assert!(rig.client.xattr(fid, attribute).is_err());
        }
        assert_eq!(rig.read(name), *content);
        rig.start();
    }
    assert!(!rig.log().contains("no record of its copy"), "{}", rig.log());
    rig.assert_settled();
}

#[test]
fn changed_bytes_replace_the_object_in_place_and_a_remove_takes_it_away() {
    let mut rig = quiet();
    let fid = rig.file("file", b"first");
    rig.archive(fid);
    fs::write(rig.mount().join("file"), b"second").unwrap();
    // Whoever looks first sends its bytes once.
    let puts = rig.store.stats().count("PutObject");
    rig.archive(fid);
    assert_eq!(rig.store.stats().count("PutObject"), puts + 1);
    assert_eq!(rig.keys(), [key_of(fid)]);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"second");
    assert_eq!(rig.act(Action::Remove, fid).states, 0);
    assert_eq!(rig.keys(), Vec::<String>::new());
    rig.archive(fid);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"second");
    assert!(!has_record(&mut rig, fid));
    rig.assert_settled();
}

#[test]
fn the_object_of_a_file_without_a_record_goes_with_its_last_name() {
    let mut rig = quiet();
    rig.client.set(Tunable::RemoveArchiveOnLastUnlink, 1).unwrap();
    rig.client.set(Tunable::LoopPeriodMs, 20).unwrap();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    // What another mover has written since, too.
    let mut other = metadata(&rig, &key_of(fid));
    other.insert("lhsm-writer".into(), "0123456789abcdef".into());
    rig.store.put(BUCKET, &key_of(fid), &b"other"[..], other);
    fs::remove_file(rig.mount().join("file")).unwrap();
    assert!(rig.client.wait_ended(Action::Remove, fid, PATIENCE).unwrap());
    assert_eq!(rig.keys(), Vec::<String>::new(), "{}", rig.log());
}

#[test]
fn scrub_knows_the_copies_of_files_without_records() {
    let mut rig = quiet();
    let (good, gone, dirty) = (
        rig.file("good", b"1"),
        rig.file("gone", b"22"),
        rig.file("dirty", b"333"),
    );
    for fid in [good, gone, dirty] {
        rig.archive(fid);
    }
    fs::write(rig.mount().join("dirty"), b"changed").unwrap();
    for options in [&["--delete-orphans"][..], &["--deep"], &["--repair"]] {
        let line = rig.scrub(options);
        let told = ["good", "orphans", "unmapped", "missing", "changed", "unknown"].map(|what| count(&line, what));
        assert_eq!(told, [3, 0, 0, 0, 0, 0], "{line}");
    }
    assert_eq!(rig.keys().len(), 3);
    rig.archive(dirty);
    rig.release(gone);
    assert!(rig.store.delete(BUCKET, &key_of(gone)));
    // Another's object at the key is no copy, and no orphan.
    rig.put(&key_of(good), b"1", &[]);
    let line = rig.scrub(&["--delete-orphans"]);
    let told = ["good", "missing", "unmapped", "orphans"].map(|what| count(&line, what));
    assert_eq!(told, [1, 1, 1, 0], "{line}");
    rig.scrub(&["--repair", "--max-missing", "100%"]);
    assert_ne!(rig.client.state(gone).unwrap().states & states::LOST, 0);
    rig.archive(good);
    rig.release(good);
    assert_eq!(rig.restore("good", good), b"1");
    // Its copy is beside the other's by now, and that is told on the file.
    assert!(has_record(&mut rig, good));
}

#[test]
fn an_object_of_a_file_that_is_archived_no_more_is_an_orphan() {
    let mut rig = quiet();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    let forgotten = Request::SetState {
        fid,
        set: 0,
        clear: states::ARCHIVED,
        archive_id: None,
    };
    rig.client.ask(&forgotten).unwrap();
    let line = rig.scrub(&["--delete-orphans"]);
    assert_eq!(count(&line, "orphans"), 1, "{line}");
    assert_eq!(rig.keys(), Vec::<String>::new());
    rig.archive(fid);
    assert_eq!(rig.keys(), [key_of(fid)]);
}

#[test]
fn what_anothers_object_holds_is_not_taken_for_a_files_copy() {
    let mut rig = quiet();
    let other_system = |rig: &mut Rig, fid| {
        let mut metadata = written(rig, fid, &key_of(fid));
        metadata.insert("lhsm-fs".into(), "lustre:another".into());
        metadata
    };
    for others in [false, true] {
        let name = if others { "others" } else { "strangers" };
        let fid = rig.file(name, b"data");
        let key = key_of(fid);
        let metadata = if others {
            other_system(&mut rig, fid).into_iter().collect()
        } else {
            BTreeMap::new()
        };
        rig.store.put(BUCKET, &key, &b"else"[..], metadata);
        // It goes beside, and the file says where.
        for content in [&b"data"[..], b"other data"] {
            fs::write(rig.mount().join(name), content).unwrap();
            rig.archive(fid);
            let record: serde_json::Value = serde_json::from_slice(&rig.client.xattr(fid, MAP).unwrap()).unwrap();
            assert!(
                record["key"].as_str().unwrap().starts_with(&format!("{key}~")),
                "{record}"
            );
            assert_eq!(rig.store.object_body(BUCKET, &key).unwrap(), b"else");
            rig.release(fid);
            assert_eq!(rig.restore(name, fid), content);
        }
    }
}

#[test]
fn other_data_in_the_place_of_a_released_files_object_is_no_restored_file() {
    let mut rig = quiet();
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    let key = key_of(fid);
    let own = metadata(&rig, &key);
    rig.release(fid);
    let others = [
        ("lhsm-fs", "lustre:another"),
        ("lhsm-fid", "0x200000401:0x999:0x0"),
        ("lhsm-key", "0"),
    ];
    let mut replaced: Vec<(Vec<u8>, BTreeMap<String, String>)> = others
        .iter()
        .map(|(name, value)| {
            let mut metadata = own.clone();
            metadata.insert((*name).to_owned(), (*value).to_owned());
            (b"else".to_vec(), metadata)
        })
        .collect();
    replaced.push((b"else".to_vec(), BTreeMap::new()));
    // Its own, of another size.
    replaced.push((b"others".to_vec(), own.clone()));
    for (body, metadata) in replaced {
        rig.store.put(BUCKET, &key, body, metadata.clone());
        assert_ne!(
            rig.act(Action::Restore, fid).states & states::RELEASED,
            0,
            "{metadata:?}"
        );
        assert_ne!(errno(&mut rig, fid), 0);
    }
    rig.store.put(BUCKET, &key, &b"data"[..], own);
    assert_eq!(rig.restore("file", fid), b"data");
}

#[test]
fn where_the_key_does_not_tell_all_a_record_is_written() {
    let versioning = Config {
        versioning: true,
        ..Config::default()
    };
    let no_checksums = Config {
        full_object_checksums: false,
        ..Config::default()
    };
    let usual = Setup::default().settings;
    let migrates = format!("[lustre]\nmigrate_hsm_allowed = true\n{usual}");
    let cases = [
        ("record = 'always'\n", Config::default(), usual.clone(), false),
        ("", versioning, usual.clone(), false),
        ("", no_checksums, usual.clone(), false),
        ("checksum = 'crc32c'\n", Config::default(), usual.clone(), false),
        ("", Config::default(), migrates, false),
        // What has no room in the object's metadata is in a sidecar.
        ("", Config::default(), usual, true),
    ];
    for (n, (more, store, settings, has_sidecar)) in cases.into_iter().enumerate() {
        let mut rig = Rig::with(Setup {
            store,
            settings,
            ..setup(more)
        });
        let fid = rig.file("file", b"first");
        if has_sidecar {
            xattr::set(rig.mount().join("file"), "user.large", &noise(2500)).unwrap();
        }
        for content in [&b"first"[..], b"second"] {
            fs::write(rig.mount().join("file"), content).unwrap();
            rig.archive(fid);
            assert!(has_record(&mut rig, fid), "case {n}: {}", rig.log());
            rig.release(fid);
            assert_eq!(rig.restore("file", fid), content);
        }
        rig.assert_settled();
    }
}

#[test]
fn a_setting_has_files_get_their_records_and_a_file_with_one_keeps_it() {
    let mut rig = quiet();
    let (file, other) = (rig.file("file", b"data"), rig.file("other", b"data"));
    rig.archive(file);
    assert_eq!(rig.stop(), Some(0));
    rig.replace_settings("layout = 'fid'", "layout = 'fid'\nrecord = 'always'");
    rig.start();
    fs::write(rig.mount().join("file"), b"changed").unwrap();
    for fid in [file, other] {
        rig.archive(fid);
        assert!(has_record(&mut rig, fid));
    }
    assert_eq!(rig.stop(), Some(0));
    rig.replace_settings("layout = 'fid'", "layout = 'fid'");
    rig.start();
    fs::write(rig.mount().join("file"), b"once more").unwrap();
    let record = rig.client.xattr(file, MAP).unwrap();
    rig.archive(file);
    assert_ne!(rig.client.xattr(file, MAP).unwrap(), record, "it is renewed");
    rig.release(file);
    assert_eq!(rig.restore("file", file), b"once more");
    assert_eq!(rig.keys().len(), 2);
}

#[test]
fn a_change_under_an_archive_leaves_the_object_to_the_next_one() {
    let mut rig = quiet();
    let fid = rig.file("file", b"first");
    rig.archive(fid);
    for (content, next) in [(&b"second"[..], &b"the third"[..]), (b"fourth", b"the fifth")] {
        fs::write(rig.mount().join("file"), content).unwrap();
        let gate = rig.store.faults().hold("PutObject");
        rig.client.request(Action::Archive, 1, &[fid]).unwrap();
        assert!(gate.wait_held_blocking(1, PATIENCE));
        fs::write(rig.mount().join("file"), next).unwrap();
        gate.release();
        assert_eq!(rig.settle(fid).states, CLEAN | states::DIRTY, "{}", rig.log());
        assert_eq!(errno(&mut rig, fid), libc::EBUSY);
        assert!(rig.client.release_closed(fid, PATIENCE).is_err());
        // A scrub takes nothing away, for the state says that it has a copy.
        assert_eq!(count(&rig.scrub(&["--delete-orphans"]), "orphans"), 0);
        assert_eq!(rig.keys(), [key_of(fid)]);
        rig.archive(fid);
        assert_eq!(rig.store.object_body(BUCKET, &key_of(fid)).unwrap(), next);
    }
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"the fifth");
    assert!(!has_record(&mut rig, fid));
    rig.assert_settled();
}

#[test]
fn the_object_of_a_first_archive_that_did_not_count_is_taken_away() {
    let mut rig = quiet();
    let fid = rig.file("file", b"first");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    fs::write(rig.mount().join("file"), b"second").unwrap();
    gate.release();
    rig.settle(fid);
    assert_eq!(errno(&mut rig, fid), libc::EBUSY);
    until(|| rig.keys().is_empty().then_some(()));
    // One that a killed daemon left as well, and not what a file is archived as.
    for is_archived in [false, true] {
        let kill = Fault::Kill {
            step: Step::End,
            before: !is_archived,
        };
        rig.client.inject(kill).unwrap();
        rig.client.request(Action::Archive, 1, &[fid]).unwrap();
        rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
        assert_eq!(rig.keys(), [key_of(fid)]);
        rig.client.control(HsmControl::Purge).unwrap();
        assert_eq!(rig.settle(fid).states & states::ARCHIVED != 0, is_archived);
        // It looks for what is left at its end at the latest.
        has_a_successor(&mut rig);
        assert_eq!(rig.keys().is_empty(), !is_archived, "{}", rig.log());
        start_anew(&mut rig);
    }
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"second");
}

#[test]
fn an_attempt_leaves_the_key_to_another_one_that_is_under_way_and_writes_a_record() {
    let mut rig = quiet();
    let fid = rig.file("file", b"data");
    let key = key_of(fid);
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    // One that another mover might have begun: it is alive at the coordinator.
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(rig.client.wait_started(2, PATIENCE).unwrap());
    let second = rig.client.actions().unwrap().pop().unwrap().cookie;
    let mut metadata = written(&mut rig, fid, &key);
    metadata.insert("lhsm-writer".into(), "0123456789abcdef".into());
    metadata.insert("lhsm-cookie".into(), format!("{second:#x}"));
    rig.store
        .put(BUCKET, &key, &b"data"[..], metadata.into_iter().collect());
    gate.release();
    assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    assert_eq!(rig.keys().len(), 2, "each has its own: {:?}", rig.keys());
    assert!(has_record(&mut rig, fid));
    rig.release(fid);
    // The other one's action is over, and its object nobody's.
    let line = rig.scrub(&["--delete-orphans"]);
    assert_eq!((count(&line, "good"), count(&line, "orphans")), (1, 1), "{line}");
    assert_eq!(rig.restore("file", fid), b"data");
}

#[test]
fn what_a_stopped_attempt_left_at_the_key_is_replaced() {
    let mut rig = quiet();
    let fid = rig.file("file", b"data");
    let key = key_of(fid);
    let mut metadata = written(&mut rig, fid, &key);
    metadata.insert("lhsm-writer".into(), "0123456789abcdef".into());
    metadata.insert("lhsm-cookie".into(), "0x1".into());
    rig.store.put(BUCKET, &key, &b"old"[..], metadata.into_iter().collect());
    rig.archive(fid);
    assert_eq!(rig.keys(), [key]);
    assert!(!has_record(&mut rig, fid));
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), b"data");
}

#[test]
fn files_without_records_are_restored_and_archived_anew_after_a_change_of_the_layout() {
    let mut rig = quiet();
    let fid = rig.file("dir/file", b"data");
    rig.archive(fid);
    rig.release(fid);
    assert_eq!(rig.stop(), Some(0));
    rig.replace_settings("layout = 'fid'", "layout = 'path'");
    rig.start();
    // Another's object by its name is none of it.
    rig.put("fs/dir/file", b"else", &[]);
    assert_eq!(rig.restore("dir/file", fid), b"data");
    assert!(rig.store.delete(BUCKET, "fs/dir/file"));
    assert_eq!(count(&rig.scrub(&["--delete-orphans"]), "good"), 1);
    fs::write(rig.mount().join("dir/file"), b"changed").unwrap();
    rig.archive(fid);
    until(|| (rig.keys() == ["fs/dir/file"]).then_some(()));
    assert!(has_record(&mut rig, fid));
    rig.release(fid);
    assert_eq!(rig.restore("dir/file", fid), b"changed");
}

#[test]
fn rebind_lets_files_without_records_be_and_gives_one_to_what_went_elsewhere() {
    let mut rig = quiet();
    let (here, moved) = (rig.file("here", b"data"), rig.file("moved", b"more"));
    for fid in [here, moved] {
        rig.archive(fid);
        rig.release(fid);
    }
    let mount = rig.mount().display().to_string();
    let line = json(&rig.run(&["rebind", &mount, "--json"]));
    assert_eq!((count(&line, "same"), count(&line, "failed")), (2, 0), "{line}");
    assert!(!has_record(&mut rig, here));
    // As another tool copies it, with its metadata.
    let key = key_of(moved);
    let body = rig.store.object_body(BUCKET, &key).unwrap();
    let copied = key.replace("fs/", "new/");
    rig.store.put(BUCKET, &copied, body, metadata(&rig, &key));
    assert!(rig.store.delete(BUCKET, &key));
    let prefixes = ["--from-prefix", "fs/", "--to-prefix", "new/"];
    let mut arguments = vec!["rebind", &mount, "--json"];
    arguments.extend(prefixes);
    let line = json(&rig.run(&arguments));
    assert_eq!(count(&line, "rebound"), 1, "{line}");
    assert!(has_record(&mut rig, moved));
    assert_eq!(rig.restore("moved", moved), b"more");
    assert_eq!(rig.restore("here", here), b"data");
}

#[test]
fn two_movers_that_are_given_the_same_file_leave_it_its_copy() {
    let mut rig = quiet();
    let mut spawn = rig.spawn();
    spawn
        .environment
        .push(("LHSM_SANDBOX_CLIENT".into(), rig.second_client()));
    let second = spawn.start().unwrap();
    assert!(rig.client.wait_agents(2, PATIENCE).unwrap(), "{}", rig.log());
    let fid = rig.file("file", b"data");
    let mut content = Vec::new();
    for n in 0..6 {
        content = noise(1000 + n);
        fs::write(rig.mount().join("file"), &content).unwrap();
        let gate = rig.store.faults().hold("PutObject");
        rig.client.request(Action::Archive, 1, &[fid]).unwrap();
        assert!(gate.wait_held_blocking(1, PATIENCE));
        // Whoever has it learns late that it is to be done by the other one.
        rig.client.control(HsmControl::Purge).unwrap();
        rig.client.request(Action::Archive, 1, &[fid]).unwrap();
        gate.release();
        assert_eq!(rig.settle(fid).states, CLEAN, "{}", rig.log());
    }
    // What the other one takes away it has taken away then.
    assert_eq!(rig.stop(), Some(0));
    assert!(second.stop(PATIENCE).unwrap().success());
    rig.start();
    assert_eq!(count(&rig.scrub(&["--delete-orphans"]), "good"), 1);
    rig.release(fid);
    assert_eq!(rig.restore("file", fid), content, "{}", rig.log());
}
