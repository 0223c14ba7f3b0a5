//! The bucket follows a file system of several MDTs: each has a changelog and a reader of its own, and troubles of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use lhsm_sandbox::protocol::{ActionState, Fault, RequestInfo, UserChange, states};

use crate::import::{count, json};
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

const ALWAYS: u32 = u32::MAX;

/// Follows until it is dropped.
struct Follower {
    child: Child,
    log: PathBuf,
}

impl Follower {
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    fn says(&self, words: &str) {
        until(|| self.said().contains(words).then_some(()));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn rig(mdts: u32) -> Rig {
    rig_of(Setup {
        mdts,
        ..Setup::default()
    })
}

fn rig_of(setup: Setup) -> Rig {
    let mdts = setup.mdts;
    let mut rig = Rig::with(setup);
    for mdt in 0..mdts {
        rig.client
            .make_dir(&rig.mount().join(format!("mdt{mdt}")), mdt)
            .unwrap();
    }
    rig
}

impl Rig {
    /// A reader on each MDT, as `--changelog-user` takes them; each MDT counts for itself.
    fn readers(&mut self, mdts: u32) -> String {
        let named = |mdt| {
            format!(
                "lustre-MDT{mdt:04x}={}",
                self.client.register_changelog_on(mdt).unwrap()
            )
        };
        (0..mdts).map(named).collect::<Vec<_>>().join(",")
    }

    fn write_on(&mut self, mdt: u32, name: &str, content: &[u8]) {
        let path = format!("mdt{mdt}/{name}");
        self.client
            .change(UserChange::Write(path.into(), content.to_vec()))
            .unwrap();
    }

    fn follower(&self, readers: &str, options: &[&str]) -> Follower {
        let log = self.dir.path().join("follow.log");
        let mount = self.mount().display().to_string();
        let mut arguments = vec!["export", "--follow", "--changelog-user", readers, "--quiet", "0s"];
        arguments.extend(options);
        arguments.push(&mount);
        let mut command = self.command(&arguments);
        command
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        Follower {
            child: command.spawn().unwrap(),
            log,
        }
    }

    /// Those of files, without what tried the store.
    fn has(&self, keys: &[&str]) -> bool {
        let there = self.keys();
        keys.iter().all(|key| there.iter().any(|there| there == key))
    }

    #[track_caller]
    fn gets(&self, follower: &Follower, keys: &[&str]) {
        until(|| {
            let gone = !self.has(keys) && follower.said().contains("error:");
            assert!(!gone, "{}", follower.said());
            self.has(keys).then_some(())
        });
    }
}

#[test]
fn one_changelog_that_fails_ends_nothing_of_the_others_and_heals() {
    let mut rig = rig(3);
    let readers = rig.readers(3);
    for (n, errno) in [libc::ENOENT, libc::EIO].into_iter().enumerate() {
        let times = ALWAYS;
        rig.client
            .inject(Fault::ChangelogErrno { mdt: 1, errno, times })
            .unwrap();
        let follower = rig.follower(&readers, &["--propagate", "delete"]);
        let name = |what: &str| format!("{what}{n}");
        for mdt in 0..3 {
            rig.write_on(mdt, &name("a"), b"a");
        }
        rig.gets(&follower, &[&format!("mdt0/a{n}"), &format!("mdt2/a{n}")]);
        follower.says("its changelog can't be read");
        // Behind the first look at everything, a record alone tells of it.
        for mdt in 0..3 {
            rig.write_on(mdt, &name("b"), b"b");
        }
        rig.gets(&follower, &[&format!("mdt0/b{n}"), &format!("mdt2/b{n}")]);
        // Whether somebody on the first MDT's objects is another file's now is told by all changelogs together.
        rig.client
            .change(UserChange::Unlink(format!("mdt0/a{n}").into()))
            .unwrap();
        rig.write_on(2, &name("c"), b"c");
        rig.gets(&follower, &[&format!("mdt2/c{n}")]);
        assert!(rig.has(&[&format!("mdt0/a{n}")]), "{}", follower.said());

        let times = 0;
        rig.client
            .inject(Fault::ChangelogErrno { mdt: 1, errno, times })
            .unwrap();
        rig.gets(&follower, &[&format!("mdt1/b{n}")]);
        until(|| (!rig.has(&[&format!("mdt0/a{n}")])).then_some(()));
        follower.says("its changelog is read again");
    }
}

#[test]
fn once_deals_with_what_the_other_mdts_tell_and_says_which_was_not_read() {
    let mut rig = rig(2);
    let readers = rig.readers(2);
    let mount = rig.mount().display().to_string();
    let arguments = [
        "export",
        "--follow",
        "--once",
        "--json",
        "--changelog-user",
        &readers,
        "--propagate",
        "delete",
        &mount,
    ];
    rig.write_on(0, "gone", b"1");
    assert_eq!(count(&json(&rig.run(&arguments)), "unread"), 0);
    rig.client.change(UserChange::Unlink("mdt0/gone".into())).unwrap();
    rig.write_on(0, "file", b"1");
    rig.client
        .inject(Fault::ChangelogErrno {
            mdt: 1,
            errno: libc::ENOENT,
            times: ALWAYS,
        })
        .unwrap();
    let output = rig.run(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lustre-MDT0001"), "{said}");
    assert_eq!(count(&json(&output), "unread"), 1);
    assert!(rig.has(&["mdt0/file", "mdt0/gone"]), "{said}");
    rig.client
        .inject(Fault::ChangelogErrno {
            mdt: 1,
            errno: 0,
            times: 0,
        })
        .unwrap();
    // What could not be told was written down.
    assert_eq!(count(&json(&rig.run(&arguments)), "deleted"), 1);
    assert!(!rig.has(&["mdt0/gone"]));
}

#[test]
fn a_reader_without_news_acknowledges_the_same_again() {
    let mut rig = rig(2);
    let readers = rig.readers(2);
    rig.write_on(1, "file", b"1");
    let follower = rig.follower(&readers, &["--acknowledge", "100ms"]);
    rig.gets(&follower, &["mdt1/file"]);
    // All is read and acknowledged.
    until(|| (rig.client.counters().unwrap().changes == 0).then_some(()));
    let heard = |rig: &mut Rig| {
        let calls = rig.client.counters().unwrap().calls;
        calls.get("ChangelogClear").copied().unwrap_or(0)
    };
    let before = heard(&mut rig);
    until(|| (heard(&mut rig) >= before + 3).then_some(()));
    assert!(
        !follower.said().contains("can't be acknowledged"),
        "{}",
        follower.said()
    );
}

#[test]
fn a_reader_that_was_dropped_is_registered_anew_and_what_was_not_recorded_is_found() {
    let mut rig = rig(2);
    let readers = rig.readers(2);
    let asked = rig.dir.path().join("asked");
    let register = rig.dir.path().join("register");
    // The next name is cl2, and it is taken by the time that this asks.
    let script = format!("#!/bin/sh\necho $MDT >> '{}'\necho cl2\n", asked.display());
    std::fs::write(&register, script).unwrap();
    std::fs::set_permissions(&register, std::fs::Permissions::from_mode(0o755)).unwrap();
    let register = register.display().to_string();
    let options = ["--acknowledge", "100ms", "--register-reader", &register];
    rig.write_on(1, "before", b"1");
    {
        let follower = rig.follower(&readers, &options);
        rig.gets(&follower, &["mdt1/before"]);
        until(|| (rig.client.counters().unwrap().changes == 0).then_some(()));
        let fid = rig.client.fid(&rig.mount().join("mdt1/before")).unwrap();
        until(|| (rig.client.state(fid).unwrap().states == states::EXISTS | states::ARCHIVED).then_some(()));
    }
    // With its last reader the changelog is off: of this there is no record, and no gap shows it.
    rig.client.inject(Fault::DropReader(1, "cl1".into())).unwrap();
    rig.write_on(1, "unseen", b"2");
    assert_eq!(rig.client.register_changelog_on(1).unwrap(), "cl2");
    let follower = rig.follower(&readers, &options);
    rig.gets(&follower, &["mdt1/unseen"]);
    follower.says("registered anew");
    assert_eq!(std::fs::read_to_string(&asked).unwrap(), "lustre-MDT0001\n");
    rig.write_on(1, "after", b"3");
    rig.gets(&follower, &["mdt1/after"]);
    until(|| (rig.client.counters().unwrap().changes == 0).then_some(()));
    drop(follower);
    // The name on the command line is the one from before.
    let follower = rig.follower(&readers, &options);
    rig.write_on(1, "again", b"4");
    rig.gets(&follower, &["mdt1/again"]);
    until(|| (rig.client.counters().unwrap().changes == 0).then_some(()));
    assert!(!follower.said().contains("does not know"), "{}", follower.said());
}

#[test]
fn a_reader_that_can_not_be_registered_is_told_and_another_ones_name_heals_it() {
    let mut rig = rig(2);
    let readers = rig.readers(2);
    let options = ["--acknowledge", "100ms", "--register-reader", "exit 7"];
    rig.write_on(0, "first", b"1");
    rig.write_on(1, "first", b"1");
    {
        let follower = rig.follower(&readers, &options);
        rig.gets(&follower, &["mdt0/first", "mdt1/first"]);
        until(|| (rig.client.counters().unwrap().changes == 0).then_some(()));
        rig.client.inject(Fault::DropReader(1, "cl1".into())).unwrap();
        follower.says("no reader of its changelog can be registered");
        rig.write_on(1, "unseen", b"2");
        rig.write_on(0, "seen", b"2");
        rig.gets(&follower, &["mdt0/seen"]);
    }
    let named = readers.replace(
        "0001=cl1",
        &format!("0001={}", rig.client.register_changelog_on(1).unwrap()),
    );
    let follower = rig.follower(&named, &options);
    follower.says("another reader than before");
    rig.gets(&follower, &["mdt1/unseen"]);
}

/// Large enough for parts, which can be held while small ones pass.
const LARGE: usize = 6_000_000;

#[test]
fn neither_a_slow_archive_nor_the_first_look_at_everything_holds_up_what_is_changed_meanwhile() {
    let usual = Setup::default();
    // Who tries the store before the first write makes uploads as well, which are not to be held.
    let mut rig = rig_of(Setup {
        archives: format!("{}conditions = 'look'\n", usual.archives),
        ..usual
    });
    let readers = rig.readers(1);
    rig.file("large", &noise(LARGE));
    rig.file("small", b"1");
    let parts = rig.store.faults().hold("UploadPart");
    let follower = rig.follower(&readers, &["--propagate", "delete"]);
    // The first look at everything waits for the end of this one's archive.
    assert!(parts.wait_held_blocking(1, PATIENCE), "{}", follower.said());
    rig.write_on(0, "made", b"2");
    rig.gets(&follower, &["small", "mdt0/made"]);
    rig.write_on(0, "made", b"changed");
    let body = |rig: &Rig| rig.store.object_body(BUCKET, "mdt0/made");
    until(|| (body(&rig).as_deref() == Some(&b"changed"[..])).then_some(()));
    assert!(!rig.has(&["large"]), "it is held");
    // A second one, by its record, and what is written behind it.
    rig.client
        .change(UserChange::Write("second".into(), noise(LARGE)))
        .unwrap();
    let second = rig.client.fid(&rig.mount().join("second")).unwrap();
    let is_out = |action: &RequestInfo| action.fid == second && action.state == ActionState::Started;
    until(|| rig.client.actions().unwrap().iter().any(is_out).then_some(()));
    rig.write_on(0, "made", b"once more");
    until(|| (body(&rig).as_deref() == Some(&b"once more"[..])).then_some(()));
    parts.release();
    rig.gets(&follower, &["large", "second"]);
    // Each was asked for once.
    until(|| (rig.client.pending().unwrap() == 0).then_some(()));
    for name in ["large", "second"] {
        let fid = rig.client.fid(&rig.mount().join(name)).unwrap();
        let actions = rig.client.actions().unwrap();
        assert_eq!(
            actions.iter().filter(|action| action.fid == fid).count(),
            1,
            "{actions:?}"
        );
    }
}

#[test]
fn a_look_at_everything_asks_for_many_files_at_a_time_and_for_no_path_that_it_has_walked() {
    const FILES: u64 = 40;
    let mut rig = rig(1);
    let readers = rig.readers(1);
    for n in 0..FILES {
        rig.file(&format!("dir/f{n}"), b"1");
    }
    let once = ["--once", "--json"];
    let follow = |rig: &Rig| {
        let mount = rig.mount().display().to_string();
        let mut arguments = vec!["export", "--follow", "--changelog-user", &readers];
        arguments.extend(once);
        arguments.push(&mount);
        json(&rig.run(&arguments))
    };
    assert_eq!(count(&follow(&rig), "archived"), FILES);
    assert_eq!(count(&follow(&rig), "scans"), 0);
    // All are as they were; a gap makes it look at them.
    rig.write_on(0, "lost", b"2");
    rig.client.inject(Fault::ForgetChanges).unwrap();
    rig.write_on(0, "shown", b"3");
    let calls = |rig: &mut Rig| rig.client.counters().unwrap().calls;
    let before = calls(&mut rig);
    rig.client.inject(Fault::Slow(5)).unwrap();
    let line = follow(&rig);
    rig.client.inject(Fault::Slow(0)).unwrap();
    assert_eq!((count(&line, "scans"), count(&line, "archived")), (1, 2), "{line}");
    let after = calls(&mut rig);
    let made = |name: &str| after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
    assert!(made("State") >= FILES, "{after:?}");
    // Of what the book has it is asked whether it is still there, and of nothing else.
    assert!(made("PathOf") < FILES + FILES / 2, "{}", made("PathOf"));
    let at_once = rig.client.counters().unwrap().at_once;
    for name in ["FidOf", "State", "PathOf"] {
        assert!(at_once.get(name).copied().unwrap_or(0) > 1, "{name}: {at_once:?}");
    }
}
