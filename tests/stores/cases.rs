//! What each store must do, or what we do without it.

use std::time::Instant;

use lhsm_sandbox::protocol::{Action, UserChange, states};
use serde_json::Value;

use crate::proxy::Proxy;
use crate::store::Store;
use crate::world::{PATIENCE, World, noise};

fn rows(world: &World) -> Vec<Value> {
    let output = world.run(&["check", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn mark(rows: &[Value], what: &str) -> String {
    let row = rows.iter().find(|row| row["what"] == format!("archive 1 {what}"));
    row.unwrap_or_else(|| panic!("no '{what}' in {rows:#?}"))["mark"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The rows are what docs/stores.md has of a store.
#[test]
fn a_check_finds_everything_that_archive_and_restore_need() {
    let world = World::new(Store::start());
    let rows = rows(&world);
    let text = |row: &Value, of: &str| row[of].as_str().unwrap_or_default().to_owned();
    for row in &rows {
        println!("{row}");
        let what = text(row, "what");
        let Some(what) = what.strip_prefix("archive 1 ") else {
            continue;
        };
        let finding = match text(row, "mark").as_str() {
            // Neither is better than the other.
            "pass" if matches!(what, "versioning" | "expiry" | "object lock" | "requester pays") => continue,
            "pass" => "yes".to_owned(),
            mark => format!("**{mark}**: {}", text(row, "found")),
        };
        world.store.tell(what, &finding, &text(row, "fix"));
    }
    for what in ["credentials", "list", "put", "get", "multipart", "delete"] {
        assert_eq!(mark(&rows, what), "pass", "{rows:#?}");
    }
    assert_eq!(world.store.objects().len(), 0);
}

#[test]
fn files_of_all_kinds_come_back_byte_for_byte() {
    let mut world = World::new(Store::start());
    let mut sparse = noise(1000, 1);
    sparse.resize(20 << 20, 0);
    sparse.extend(noise(1000, 2));
    let files = [
        ("empty", Vec::new()),
        ("small", noise(100, 3)),
        ("dir/spaces and + % ?#&=\u{fc} 日本語 ~'()*!", noise(5000, 4)),
        ("threshold", noise(5 << 20, 5)),
        ("one more", noise((5 << 20) + 1, 6)),
        ("large", noise(23_456_789, 7)),
        ("sparse", sparse),
    ];
    for (name, content) in &files {
        let fid = world.file(name, content);
        world.archive(fid);
        world.assert_comes_back(name, fid, content);
    }
    let objects = world.store.objects();
    assert_eq!(objects.len(), files.len(), "{objects:?}");
    for (name, content) in &files {
        assert_eq!(objects[*name], i64::try_from(content.len()).unwrap());
    }
    assert_eq!(world.store.uploads(), 0);
    world.store.kept("files of all kinds come back");
}

#[test]
fn a_changed_file_replaces_its_object_and_a_remove_takes_it() {
    let mut world = World::new(Store::start());
    for size in [1000, 12 << 20] {
        let name = format!("f{size}");
        let fid = world.file(&name, &noise(size, 1));
        world.archive(fid);
        let anew = noise(size + 1, 2);
        std::fs::write(world.mount().join(&name), &anew).unwrap();
        world.archive(fid);
        world.assert_comes_back(&name, fid, &anew);
        assert_eq!(world.act(Action::Remove, fid), 0);
        assert!(!world.store.objects().contains_key(&name));
    }
    assert_eq!(world.store.uploads(), 0);
    world.store.kept("re-archive and remove");
}

#[test]
fn what_somebody_else_put_at_a_key_stays() {
    let mut world = World::new(Store::start());
    world.store.put("small", b"somebody's");
    world.store.put("large", b"somebody's");
    for (name, size) in [("small", 1000), ("large", 6 << 20)] {
        let content = noise(size, 1);
        let fid = world.file(name, &content);
        world.archive(fid);
        let objects = world.store.objects();
        assert_eq!(objects[name], 10, "{objects:?}");
        assert!(
            objects.keys().any(|key| key.starts_with(&format!("{name}~"))),
            "{objects:?}"
        );
        world.assert_comes_back(name, fid, &content);
    }
    world.store.kept("others' objects stay");
}

#[test]
fn a_bucket_of_more_than_a_page_is_imported_and_read() {
    let mut world = World::new(Store::start());
    for n in 0..1100 {
        world
            .store
            .put(&format!("d{}/o{n:04}", n % 3), &noise(10 + n % 7, n as u64));
    }
    let url = format!(
        "s3://{}/{}",
        world.store.bucket,
        world.store.prefix.trim_end_matches('/')
    );
    let mount = world.mount().display().to_string();
    let output = world.run(&["import", &url, &mount, "--json"]);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&line["imported"], &line["failed"]),
        (&1100.into(), &0.into()),
        "{output:?}"
    );
    let fid = world.client.fid(&world.mount().join("d1/o0700")).unwrap();
    assert_ne!(world.client.state(fid).unwrap().states & states::RELEASED, 0);
    world.act(Action::Restore, fid);
    assert_eq!(std::fs::read(world.mount().join("d1/o0700")).unwrap(), noise(10, 700));
    world.store.kept("import of many objects");
}

#[test]
fn connections_that_are_cut_are_made_good() {
    let store = Store::start();
    if !store.endpoint.starts_with("http://") {
        return;
    }
    let proxy = Proxy::start(&store.endpoint, 12, 700_000);
    let endpoint = proxy.endpoint.clone();
    let mut world = World::at(store, &endpoint, "");
    let content = noise(16 << 20, 1);
    let fid = world.file("large", &content);
    world.archive(fid);
    world.assert_comes_back("large", fid, &content);
    assert!(
        proxy.cuts.load(std::sync::atomic::Ordering::Relaxed) >= 3,
        "the line did break"
    );
    assert_eq!(world.store.uploads(), 0);
    world.store.kept("connections that are cut");
}

#[test]
fn an_upload_of_a_daemon_that_was_killed_is_gone_on_with() {
    let store = Store::start();
    let endpoint = store.endpoint.clone();
    let mut world = World::at(store, &endpoint, "upload_bandwidth = '16MiB'");
    let content = noise(48 << 20, 1);
    let fid = world.file("large", &content);
    world.client.request(Action::Archive, 1, &[fid]).unwrap();
    // It has been reported alive some times: it is in the journal by then, and in mid-upload.
    let began = Instant::now();
    let reports = |world: &mut World| world.client.actions().unwrap()[0].progress;
    while reports(&mut world) < 3 && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    world.kill();
    world.start();
    assert!(
        world.client.wait(&[fid], PATIENCE).unwrap(),
        "the log:\n{}",
        world.log()
    );
    let state = world.client.state(fid).unwrap().states;
    assert_eq!(state, states::EXISTS | states::ARCHIVED, "the log:\n{}", world.log());
    world.assert_comes_back("large", fid, &content);
    assert_eq!((world.store.uploads(), world.store.objects().len()), (0, 1));
    world.store.kept("an upload goes on after a kill");
}

#[test]
fn where_versions_are_kept_the_very_one_is_restored_and_removed() {
    let mut world = World::new(Store::with(None, true));
    let fid = world.file("f", b"one");
    world.archive(fid);
    std::fs::write(world.mount().join("f"), b"two").unwrap();
    world.archive(fid);
    world.assert_comes_back("f", fid, b"two");
    assert_eq!(world.act(Action::Remove, fid), 0);
    // Not even the version before is to be seen.
    assert_eq!(world.store.objects().len(), 0);
    world.store.kept("versions");
}

/// Moved where the store heeds a copy's conditions, else left where it is; readable in both cases.
#[test]
fn renames_are_followed_as_far_as_the_store_lets_us() {
    let mut world = World::new(Store::start());
    let user = world.client.register_changelog().unwrap();
    let mount = world.mount().display().to_string();
    let arguments = [
        "export",
        "--follow",
        "--once",
        "--json",
        "--changelog-user",
        &user,
        "--propagate",
        "rename,delete,attr",
        &mount,
    ];
    let large = noise(11 << 20, 1);
    let change = |world: &mut World, change| world.client.change(change).unwrap();
    change(&mut world, UserChange::Write("small".into(), b"x".to_vec()));
    change(&mut world, UserChange::Write("large".into(), large.clone()));
    change(&mut world, UserChange::Write("gone".into(), b"y".to_vec()));
    assert!(world.run(&arguments).status.success());
    assert_eq!(world.store.objects().len(), 3);
    change(&mut world, UserChange::Rename("small".into(), "small-2".into()));
    change(&mut world, UserChange::Rename("large".into(), "large-2".into()));
    change(&mut world, UserChange::Chmod("large-2".into(), 0o600));
    change(&mut world, UserChange::Unlink("gone".into()));
    let output = world.run(&arguments);
    assert!(output.status.success(), "{output:?}");
    let keys: Vec<_> = world.store.objects().into_keys().collect();
    if String::from_utf8_lossy(&output.stderr).contains("does not heed conditions") {
        let then = "`export --follow` moves nothing and changes no metadata";
        world
            .store
            .tell("conditions of a copy", "**no**: they are ignored", then);
        assert_eq!(keys, ["large", "small"]);
    } else {
        assert_eq!(keys, ["large-2", "small-2"]);
        world.store.kept("conditions of a copy");
    }
    let fid = world.client.fid(&world.mount().join("large-2")).unwrap();
    world.assert_comes_back("large-2", fid, &large);
}

#[test]
#[ignore = "the embedded store has no TLS: LHSM_MINIO=/path/to/minio cargo test --test stores -- --include-ignored"]
fn a_private_ca_is_trusted_when_it_is_named_and_another_one_is_refused() {
    let certificates = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
    std::fs::write(certificates.path().join("public.crt"), made.cert.pem()).unwrap();
    std::fs::write(
        certificates.path().join("private.key"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    let wrong = certificates.path().join("wrong.pem");
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    let store = Store::with(Some(certificates.path()), false);
    let endpoint = store.endpoint.clone();
    let ca = certificates.path().join("public.crt");
    let trusted = World::without_daemon(store, &endpoint, &format!("ca_bundle = '{}'", ca.display()));
    let found = rows(&trusted);
    // The bucket is not there, and the store said so: it was heard.
    assert!(
        found
            .iter()
            .any(|row| row["found"].as_str().unwrap().contains("does not exist")),
        "{found:#?}"
    );
    let World { store, .. } = trusted;
    let wrong = World::without_daemon(store, &endpoint, &format!("ca_bundle = '{}'", wrong.display()));
    let found = rows(&wrong);
    let is_refused = |row: &Value| row["mark"] == "fail" && row["found"].as_str().unwrap().contains("ertificate");
    assert!(found.iter().any(is_refused), "{found:#?}");
    wrong.store.kept("TLS with a private CA, another one refused");
}
