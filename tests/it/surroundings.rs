//! What a process finds around it: credentials that change or go away, variables, endpoints, a bucket that is not there.

use std::fs;
use std::path::{Path, PathBuf};

use lhsm_sandbox::process::{self, Spawn};
use lhsm_sandbox::protocol::{Action, states};
use lhsm_sandbox_s3::{Config, Dialect};
use nix::sys::signal::Signal;

use crate::recovery::journal_is_written;
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

/// Larger than one part of the usual rig.
const LARGE: usize = 11 << 20;

impl Rig {
    /// As usual, with keys from a file of AWS's form instead of variables.
    fn with_keys_in_a_file(&self) -> (Spawn, PathBuf) {
        let file = self.dir.path().join("credentials");
        let keys = Config::default();
        write_keys(&file, "default", &keys.access_key, &keys.secret_key);
        let mut spawn = self.spawn();
        spawn.environment = vec![
            ("AWS_SHARED_CREDENTIALS_FILE".into(), file.display().to_string()),
            ("AWS_CONFIG_FILE".into(), "/nonexistent".into()),
        ];
        (spawn, file)
    }

    fn serve(&mut self, spawn: &Spawn) {
        self.daemon = Some(spawn.start().unwrap());
        let registered = self.client.wait_agents(1, PATIENCE).unwrap();
        assert!(registered, "not registered; the log:\n{}", self.log());
    }

    /// What a daemon says that must not start.
    fn refusal(&self, spawn: &Spawn) -> String {
        let status = spawn.start().unwrap().wait(PATIENCE).unwrap();
        let log = self.log();
        assert_eq!(status.code(), Some(1), "{log}");
        log
    }
}

fn write_keys(file: &Path, profile: &str, key: &str, secret: &str) {
    let text = format!("[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    process::replace(file, &text).unwrap();
}

/// Those of a second archive, too.
fn write_both_keys(file: &Path) {
    let keys = Config::default();
    let both = ["default", "late"].map(|profile| {
        format!(
            "[{profile}]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            keys.access_key, keys.secret_key
        )
    });
    process::replace(file, &both.concat()).unwrap();
}

#[test]
fn keys_that_have_expired_are_read_anew_and_the_action_goes_on() {
    let mut rig = Rig::without_daemon(Setup::default());
    let (spawn, file) = rig.with_keys_in_a_file();
    rig.serve(&spawn);
    let first = rig.file("first", b"data");
    rig.archive(first);
    let large = noise(LARGE);
    let second = rig.file("second", &large);
    // The file has others already, as a helper leaves it that renews them.
    rig.store.dialects().set(&[Dialect::TokenExpired400]);
    rig.store.expire_token(&Config::default().access_key);
    rig.store.set_keys("new-key", "new-secret");
    write_keys(&file, "default", "new-key", "new-secret");
    // The first thing that it asks is a HEAD, whose refusal has no words.
    assert_eq!(rig.act(Action::Remove, first).states, 0, "{}", rig.log());
    rig.archive(second);
    assert_eq!(rig.store.object_body(BUCKET, "second").unwrap(), large);
    assert!(!rig.log().contains("new-secret"));
    rig.assert_settled();
}

#[test]
fn an_action_waits_for_new_keys_also_where_the_store_refuses_without_a_word() {
    let mut rig = Rig::without_daemon(Setup::default());
    rig.add_settings("[log]\nlevel = 'info,lhsmtool_s3::transfer=debug'\n");
    let (spawn, file) = rig.with_keys_in_a_file();
    rig.serve(&spawn);
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    rig.store.dialects().set(&[Dialect::TokenExpired400]);
    rig.store.expire_token(&Config::default().access_key);
    rig.client.request(Action::Remove, 1, &[fid]).unwrap();
    // The source was asked and has nothing else: a list tells what the HEAD does not.
    until(|| rig.log().contains("400 ExpiredToken").then_some(()));
    rig.store.set_keys("new-key", "new-secret");
    write_keys(&file, "default", "new-key", "new-secret");
    assert_eq!(rig.settle(fid).states, 0, "{}", rig.log());
    assert_eq!(rig.keys(), Vec::<String>::new());
}

#[test]
fn keys_that_the_store_knows_no_more_are_read_anew() {
    let mut rig = Rig::without_daemon(Setup::default());
    let (spawn, file) = rig.with_keys_in_a_file();
    rig.serve(&spawn);
    rig.store.set_keys("new-key", "new-secret");
    write_keys(&file, "default", "new-key", "new-secret");
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    // And where the source has nothing else, it is an answer like any other.
    rig.store.set_keys("another-key", "another-secret");
    let fid = rig.file("other", b"data");
    let state = rig.act(Action::Archive, fid);
    assert_eq!(state.states & states::ARCHIVED, 0, "{}", rig.log());
    until(|| rig.log().contains("InvalidAccessKeyId").then_some(()));
}

#[test]
fn all_wait_while_whoever_gives_credentials_is_away() {
    let mut rig = Rig::without_daemon(Setup::default());
    let dir = rig.dir.path().to_owned();
    let (config, answer) = (dir.join("aws-config"), dir.join("answer.json"));
    // As an instance's service gives them: with an end, here one that is over.
    let give = |until: &str| {
        let Config {
            access_key, secret_key, ..
        } = Config::default();
        let text = format!(
            "{{\"Version\":1,\"AccessKeyId\":\"{access_key}\",\"SecretAccessKey\":\"{secret_key}\",\
             \"Expiration\":\"{until}\"}}"
        );
        process::replace(&answer, &text).unwrap();
    };
    give("2020-01-01T00:00:00Z");
    let helper = format!("[default]\ncredential_process = cat {}\n", answer.display());
    fs::write(&config, helper).unwrap();
    let mut spawn = rig.spawn();
    spawn.environment = vec![
        ("AWS_SHARED_CREDENTIALS_FILE".into(), "/nonexistent".into()),
        ("AWS_CONFIG_FILE".into(), config.display().to_string()),
    ];
    rig.serve(&spawn);
    fs::remove_file(&answer).unwrap();
    let files: Vec<_> = (0..20).map(|n| rig.file(&format!("dir/{n}"), b"data")).collect();
    rig.client.request(Action::Archive, 1, &files).unwrap();
    until(|| rig.log().contains("no credentials").then_some(()));
    give("2099-01-01T00:00:00Z");
    for fid in files {
        assert_ne!(rig.settle(fid).states & states::ARCHIVED, 0, "{}", rig.log());
    }
    rig.assert_settled();
}

#[test]
fn a_bucket_whose_owner_does_not_pay_is_used_by_those_who_say_that_they_do() {
    let setup = Setup::default();
    let mut rig = Rig::without_daemon(Setup {
        archives: format!("{}requester_pays = true\n", setup.archives),
        ..setup
    });
    rig.store.dialects().set(&[Dialect::RequesterPays]);
    rig.start();
    let large = noise(LARGE);
    for (name, content) in [("small", &b"data"[..]), ("large", &large)] {
        let fid = rig.file(name, content);
        rig.archive(fid);
        rig.release(fid);
        assert!(rig.restore(name, fid) == content, "{name}");
        assert_eq!(rig.act(Action::Remove, fid).states, 0, "{}", rig.log());
    }
    rig.assert_settled();
}

#[test]
fn an_endpoint_of_the_environment_is_heeded_and_told() {
    let mut rig = Rig::without_daemon(Setup::default());
    let endpoint = rig.store.endpoint();
    rig.replace_settings(&format!("endpoint_url = '{endpoint}'"), "");
    let mut spawn = rig.spawn();
    spawn.environment.push(("AWS_ENDPOINT_URL_S3".into(), endpoint.clone()));
    let output = spawn.command(&["print-config", "--origin"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed.contains(&format!("endpoint_url = \"{endpoint}\"  # $AWS_ENDPOINT_URL_S3\n")),
        "{printed}"
    );
    rig.serve(&spawn);
    let fid = rig.file("file", b"data");
    rig.archive(fid);
}

#[test]
fn what_only_aws_has_is_refused_beside_another_endpoint() {
    let mut rig = Rig::without_daemon(Setup::default());
    let mut spawn = rig.spawn();
    spawn.environment.push(("AWS_USE_FIPS_ENDPOINT".into(), "true".into()));
    let said = rig.refusal(&spawn);
    assert!(
        said.contains("$AWS_USE_FIPS_ENDPOINT") && said.contains("and endpoint_url exclude each other"),
        "{said}"
    );
    let arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/lab";
    rig.replace_settings(&format!("bucket = '{BUCKET}'"), &format!("bucket = '{arn}'"));
    let said = rig.refusal(&rig.spawn());
    assert!(
        said.contains(arn) && said.contains("is an ARN, which only AWS's own endpoints know"),
        "{said}"
    );
}

#[test]
fn a_bucket_in_another_region_is_told_with_its_region() {
    for dialect in [Dialect::WrongRegion301, Dialect::WrongRegion400] {
        let setup = Setup::default();
        let rig = Rig::without_daemon(Setup {
            archives: format!("{}region = 'eu-west-3'\n", setup.archives),
            ..setup
        });
        rig.store.dialects().set(&[dialect]);
        rig.store.set_region("eu-central-1");
        let said = rig.refusal(&rig.spawn());
        assert!(
            said.contains("is in region 'eu-central-1'") && said.contains("`region = \"eu-central-1\"`"),
            "{dialect:?}: {said}"
        );
    }
}

#[test]
fn one_archive_that_can_not_be_used_keeps_nobody_from_the_others() {
    let setup = Setup::default();
    let mut rig = Rig::without_daemon(Setup {
        archives: format!(
            "{}[[archive]]\nid = 2\nbucket = 'lhsm-sandbox'\nprefix = 'late/'\nprofile = 'late'\n\
             [[archive]]\nid = 3\nbucket = 'nowhere'\n",
            setup.archives
        ),
        ..setup
    });
    let (spawn, file) = rig.with_keys_in_a_file();
    rig.serve(&spawn);
    assert_eq!(rig.client.agents().unwrap()[0].archives, [1]);
    until(|| (rig.log().matches("an archive is not added").count() == 2).then_some(()));
    let log = rig.log();
    assert!(
        log.contains("no AWS credentials found") && log.contains("bucket 'nowhere' does not exist"),
        "{log}"
    );
    let first = rig.file("first", b"data");
    rig.archive(first);
    // Once it can be used, it is: nobody has to tell the daemon.
    write_both_keys(&file);
    until(|| (rig.client.agents().unwrap().first()?.archives == [1, 2]).then_some(()));
    let second = rig.file("second", b"data");
    rig.client.request(Action::Archive, 2, &[second]).unwrap();
    assert_eq!(rig.settle(second).archive_id, 2);
    assert_eq!(rig.store.object_body(BUCKET, "late/second").unwrap(), b"data");
}

#[test]
fn what_a_killed_daemon_had_in_hand_of_an_archive_is_done_once_that_can_be_used() {
    let setup = Setup::default();
    let mut rig = Rig::without_daemon(Setup {
        archives: format!(
            "{}[[archive]]\nid = 2\nbucket = 'lhsm-sandbox'\nprefix = 'late/'\nprofile = 'late'\n",
            setup.archives
        ),
        ..setup
    });
    let (spawn, file) = rig.with_keys_in_a_file();
    write_both_keys(&file);
    rig.serve(&spawn);
    let fid = rig.file("file", b"data");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 2, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    journal_is_written(&rig);
    let mut daemon = rig.daemon.take().unwrap();
    daemon.signal(Signal::SIGKILL).unwrap();
    daemon.wait(PATIENCE).unwrap();
    gate.release();
    let keys = Config::default();
    write_keys(&file, "default", &keys.access_key, &keys.secret_key);
    rig.serve(&spawn);
    until(|| rig.log().contains("left in the journal").then_some(()));
    until(|| (rig.log().matches("registered; serving").count() == 2).then_some(()));
    assert_eq!(rig.client.state(fid).unwrap().states & states::ARCHIVED, 0);
    write_both_keys(&file);
    // The coordinator gave it out once, and does not send it again.
    let state = rig.settle(fid);
    assert_eq!(
        (state.states, state.archive_id),
        (states::EXISTS | states::ARCHIVED, 2),
        "{}",
        rig.log()
    );
    assert_eq!(rig.store.object_body(BUCKET, "late/file").unwrap(), b"data");
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}
