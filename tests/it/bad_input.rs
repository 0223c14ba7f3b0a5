//! What can be wrong at the start: one paragraph with the fix, exit code 1 (2 for usage), nothing begun.

use std::process::Command;

use lhsm_sandbox::process::{self, Spawn};

use crate::rig::{PATIENCE, Rig, Setup};

/// Starts the daemon, which must refuse; what it says.
fn refusal(rig: &Rig, edit: impl FnOnce(&mut Spawn, String) -> String) -> String {
    let mut spawn = rig.spawn();
    let text = std::fs::read_to_string(&spawn.config).unwrap();
    let edited = edit(&mut spawn, text);
    std::fs::write(&spawn.config, edited).unwrap();
    let mut daemon = spawn.start().unwrap();
    let status = daemon.wait(PATIENCE).unwrap();
    let log = rig.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let said: Vec<_> = log.lines().filter(|line| line.starts_with("lhsmtool-s3: ")).collect();
    assert_eq!(said.len(), 1, "one paragraph: {log}");
    log
}

fn rig() -> Rig {
    Rig::without_daemon(Setup::default())
}

#[test]
fn no_configuration() {
    let program = process::artifact("lhsmtool-s3").unwrap();
    let out = Command::new(program)
        .arg("--config")
        .arg("/nonexistent/x.toml")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(
        said.contains("/nonexistent/x.toml") && said.contains("--config FILE"),
        "{said}"
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let program = process::artifact("lhsmtool-s3").unwrap();
    let out = Command::new(program).arg("--no-such-flag").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn help_and_version_need_no_lustre() {
    let program = process::artifact("lhsmtool-s3").unwrap();
    for flag in ["--help", "--version"] {
        let out = Command::new(&program).arg(flag).output().unwrap();
        assert!(out.status.success());
        assert!(String::from_utf8(out.stdout).unwrap().contains("lhsmtool-s3"));
    }
}

#[test]
fn a_wrong_key() {
    let rig = rig();
    let said = refusal(&rig, |_, text| format!("{text}bukket = 'x'\n"));
    assert!(
        said.contains("unknown key 'bukket'") && said.contains("did you mean 'bucket'?"),
        "{said}"
    );
}

#[test]
fn a_missing_bucket() {
    let rig = rig();
    let said = refusal(&rig, |_, text| {
        text.replace("bucket = 'lhsm-sandbox'", "bucket = 'nowhere'")
    });
    assert!(
        said.contains("bucket 'nowhere' does not exist") && said.contains("Create it"),
        "{said}"
    );
}

#[test]
fn wrong_credentials() {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        let rig = rig();
        let said = refusal(&rig, |spawn, text| {
            spawn.environment.push((name.into(), "wrong".into()));
            text
        });
        assert!(
            said.contains("refuses our credentials") && said.contains(name),
            "{said}"
        );
    }
}

#[test]
fn no_credentials() {
    let rig = rig();
    let said = refusal(&rig, |spawn, text| {
        spawn.environment = vec![
            ("AWS_SHARED_CREDENTIALS_FILE".into(), "/nonexistent".into()),
            ("AWS_CONFIG_FILE".into(), "/nonexistent".into()),
        ];
        text
    });
    assert!(said.contains("no AWS credentials found"), "{said}");
}

#[test]
fn a_mount_that_is_none() {
    let rig = rig();
    let mount = rig.mount().display().to_string();
    let other = rig.dir.path().display().to_string();
    let said = refusal(&rig, |_, text| {
        text.replace(&format!("mount = '{mount}'"), &format!("mount = '{other}'"))
    });
    assert!(said.contains("is not on a Lustre file system"), "{said}");
}

#[test]
fn a_mount_that_is_missing() {
    let rig = rig();
    let mount = rig.mount().display().to_string();
    let said = refusal(&rig, |_, text| {
        text.replace(&format!("mount = '{mount}'"), "mount = '/nonexistent/lustre'")
    });
    assert!(
        said.contains("can't open the mount point '/nonexistent/lustre'"),
        "{said}"
    );
}

#[test]
fn a_directory_inside_the_mount() {
    let rig = rig();
    let inside = rig.mount().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let mount = rig.mount().display().to_string();
    let said = refusal(&rig, |_, text| {
        text.replace(
            &format!("mount = '{mount}'"),
            &format!("mount = '{}'", inside.display()),
        )
    });
    assert!(said.contains("is not its mount point"), "{said}");
}

#[test]
fn a_library_that_is_missing_or_another() {
    let rig = rig();
    let library = process::artifact(process::LIBRARY).unwrap().display().to_string();
    let said = refusal(&rig, |_, text| text.replace(&library, "/nonexistent/liblustreapi.so.1"));
    assert!(
        said.contains("can't open the Lustre library '/nonexistent/liblustreapi.so.1'"),
        "{said}"
    );
    assert!(said.contains("No such file"), "the loader's words: {said}");
    assert!(said.contains("lustre-client"), "what to install: {said}");
    std::fs::remove_file(rig.log_path()).unwrap();

    let said = refusal(&rig, |_, text| {
        text.replace("/nonexistent/liblustreapi.so.1", "libc.so.6")
            .replace(&library, "libc.so.6")
    });
    assert!(said.contains("lacks llapi_hsm_copytool_register"), "{said}");
}
