//! Copies of files that were unlinked, with several movers: whichever gets the REMOVE finds the object, at once or later.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lhsm_sandbox::process::{Daemon, Spawn, replace};
use lhsm_sandbox::protocol::{Action, Fid, Tunable};

use crate::ledger::hex;
use crate::metrics::address;
use crate::postgres::{Postgres, section};
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

const COPIES: &str = "SELECT count(*) FROM lhsmtool_s3.copy";
const TOMBSTONES: &str = "SELECT count(*) FROM lhsmtool_s3.tombstone";
const UNHEARD: &str =
    "the ledger is away: a copy that another mover made is not found; scrub --delete-orphans finds it";

fn rig() -> Rig {
    let setup = Setup::default();
    let mut rig = Rig::without_daemon(Setup {
        settings: format!("[metrics]\nlisten = '127.0.0.1:0'\n{}", setup.settings),
        ..setup
    });
    rig.client.set(Tunable::RemoveArchiveOnLastUnlink, 1).unwrap();
    rig.client.set(Tunable::LoopPeriodMs, 20).unwrap();
    rig
}

/// One of several movers, of which one serves at a time: so it is the one that gets what comes.
struct Mover {
    spawn: Spawn,
    daemon: Option<Daemon>,
}

impl Mover {
    /// With a journal of its own. `ledger`: the section, if it has one.
    fn new(rig: &Rig, name: &str, ledger: &str) -> Self {
        let mut spawn = rig.spawn();
        let dir = rig.dir.path();
        let text = fs::read_to_string(&spawn.config).unwrap();
        let text = text.replace(
            &format!("{}/state'", dir.display()),
            &format!("{}/state-{name}'", dir.display()),
        );
        spawn.config = dir.join(format!("{name}.toml"));
        replace(&spawn.config, &format!("{text}\n{ledger}")).unwrap();
        spawn.log = Some(dir.join(format!("{name}.log")));
        Self { spawn, daemon: None }
    }

    fn of(rig: &Rig, name: &str, postgres: &Postgres) -> Self {
        Self::new(rig, name, &postgres.section(&format!("name = '{name}'")))
    }

    fn init_ledger(&self) {
        let output = self.spawn.command(&["ledger", "init"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.spawn.log.as_ref().unwrap()).unwrap_or_default()
    }

    /// Its log is that of the daemon that runs.
    fn start(&mut self, rig: &mut Rig) {
        drop(fs::remove_file(self.spawn.log.as_ref().unwrap()));
        self.daemon = Some(self.spawn.start().unwrap());
        until(|| self.log().contains("registered; serving").then_some(()));
        assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", self.log());
    }

    /// With its rows in the ledger.
    fn serve(&mut self, rig: &mut Rig) {
        self.start(rig);
        until(|| {
            let mut status = self.spawn.command(&["status", "--movers", &address(&self.log())]);
            let output = status.output().unwrap();
            String::from_utf8_lossy(&output.stdout)
                .contains("the ledger is in step")
                .then_some(())
        });
    }

    fn stop(&mut self) {
        let status = self.daemon.take().unwrap().stop(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// Unlinks a file, and waits until its REMOVE is answered.
    fn unlink(&self, rig: &mut Rig, name: &str, fid: Fid) {
        fs::remove_file(rig.mount().join(name)).unwrap();
        self.removes(rig, fid);
    }

    fn removes(&self, rig: &mut Rig, fid: Fid) {
        let is_over = rig.client.wait_ended(Action::Remove, fid, PATIENCE).unwrap();
        assert!(is_over, "{}", self.log());
        let failed: Vec<_> = rig.client.actions().unwrap();
        let failed: Vec<_> = failed.iter().filter(|action| action.errval != 0).collect();
        assert!(failed.is_empty(), "{failed:?}\n{}", self.log());
    }
}

fn nothing_is_left(rig: &Rig, mover: &Mover) {
    assert_eq!(rig.keys(), Vec::<String>::new(), "{}", mover.log());
}

/// A file that one mover has archived, with a sidecar; that one has ended.
fn archived(rig: &mut Rig, mover: &mut Mover, postgres: &Postgres) -> Fid {
    mover.serve(rig);
    let fid = rig.file("file", b"data");
    xattr::set(rig.mount().join("file"), "user.large", &noise(2500)).unwrap();
    rig.archive(fid);
    assert_eq!(rig.keys().len(), 2, "{}", mover.log());
    until(|| (postgres.number(COPIES) == 1).then_some(()));
    mover.stop();
    fid
}

#[test]
fn whichever_mover_gets_the_remove_of_an_unlinked_file_deletes_its_object() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig();
    let (mut first, mut second) = (
        Mover::of(&rig, "first", &postgres),
        Mover::of(&rig, "second", &postgres),
    );
    first.init_ledger();
    let fid = archived(&mut rig, &mut first, &postgres);
    second.serve(&mut rig);
    fs::rename(rig.mount().join("file"), rig.mount().join("renamed")).unwrap();
    second.unlink(&mut rig, "renamed", fid);
    nothing_is_left(&rig, &second);
    until(|| (postgres.number(COPIES) == 0).then_some(()));
    assert_eq!(postgres.number(TOMBSTONES), 0);
    second.stop();
    rig.assert_settled();
}

#[test]
fn a_mover_whose_journal_has_a_former_copy_finds_the_one_that_another_made_since() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig();
    let (mut first, mut second) = (
        Mover::of(&rig, "first", &postgres),
        Mover::of(&rig, "second", &postgres),
    );
    first.init_ledger();
    first.serve(&mut rig);
    let fid = rig.file("former", b"data");
    rig.archive(fid);
    first.stop();
    second.serve(&mut rig);
    fs::rename(rig.mount().join("former"), rig.mount().join("present")).unwrap();
    fs::write(rig.mount().join("present"), b"other data").unwrap();
    rig.archive(fid);
    until(|| (rig.keys() == ["present"]).then_some(()));
    let key = "SELECT convert_from(record, 'UTF8')::json->>'key' FROM lhsmtool_s3.copy";
    until(|| (postgres.rows(key) == ["present"]).then_some(()));
    second.stop();
    first.serve(&mut rig);
    first.unlink(&mut rig, "present", fid);
    nothing_is_left(&rig, &first);
    until(|| (postgres.number(COPIES) == 0).then_some(()));
    first.stop();
}

#[test]
fn while_the_ledger_is_away_the_remove_is_answered_and_the_log_says_what_is_not_found() {
    let mut rig = rig();
    let nowhere = tempfile::tempdir().unwrap();
    let mut first = Mover::new(&rig, "first", "");
    let mut second = Mover::new(&rig, "second", &section(nowhere.path(), ""));
    first.start(&mut rig);
    let [fid, own] = [rig.file("file", b"data"), rig.file("own", b"data")];
    rig.archive(fid);
    first.stop();
    second.start(&mut rig);
    until(|| second.log().contains("can't reach PostgreSQL").then_some(()));
    rig.archive(own);
    // With the answer alone the file may be found unlinked before its copy is written down: then its object goes at once.
    until(|| second.log().contains("archive done").then_some(()));
    second.unlink(&mut rig, "own", own);
    assert!(!second.log().contains(UNHEARD), "it knows its own copy");
    second.unlink(&mut rig, "file", fid);
    assert_eq!(rig.keys(), ["file"]);
    assert!(second.log().contains(UNHEARD), "{}", second.log());
    second.stop();
}

/// A way to a server that is closed until it is opened.
fn open(door: &Path, postgres: &Postgres) {
    let socket = ".s.PGSQL.5432";
    symlink(postgres.path().join(socket), door.join(socket)).unwrap();
}

#[test]
fn a_copy_whose_row_comes_after_the_remove_of_its_file_goes_with_whoever_brings_it() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig();
    let door = tempfile::tempdir().unwrap();
    let mut first = Mover::new(&rig, "first", &section(door.path(), "name = 'first'"));
    let mut second = Mover::of(&rig, "second", &postgres);
    second.init_ledger();
    first.start(&mut rig);
    until(|| first.log().contains("can't reach PostgreSQL").then_some(()));
    let [fid, kept] = [rig.file("file", b"data"), rig.file("kept", b"data")];
    xattr::set(rig.mount().join("file"), "user.large", &noise(2500)).unwrap();
    rig.archive(fid);
    rig.archive(kept);
    first.stop();
    second.serve(&mut rig);
    second.unlink(&mut rig, "file", fid);
    assert_eq!(rig.keys().len(), 3, "{}", second.log());
    let tombstones = "SELECT encode(fid, 'hex'), archive_id FROM lhsmtool_s3.tombstone";
    assert_eq!(postgres.rows(tombstones), [format!("{}|1", hex(fid))]);
    second.stop();

    // Not at the first try.
    rig.store.faults().fail("DeleteObject", 403, "InvalidAccessKeyId", 1);
    open(door.path(), &postgres);
    first.serve(&mut rig);
    until(|| (rig.keys() == ["kept"]).then_some(()));
    until(|| (postgres.number(COPIES) == 1).then_some(()));
    assert_eq!(
        postgres.rows("SELECT encode(fid, 'hex') FROM lhsmtool_s3.copy"),
        [hex(kept)]
    );
    first.stop();
}

#[test]
fn the_object_of_a_mover_that_never_comes_back_goes_with_the_others_rounds_and_old_tombstones_go() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig();
    let mut first = Mover::of(&rig, "first", &postgres);
    let mut without = Mover::new(&rig, "without", "");
    let mut third = Mover::of(&rig, "third", &postgres);
    first.init_ledger();
    let fid = archived(&mut rig, &mut first, &postgres);
    without.start(&mut rig);
    without.unlink(&mut rig, "file", fid);
    assert_eq!(rig.keys().len(), 2, "{}", without.log());
    without.stop();
    // As if its REMOVE had asked before the first mover's row came.
    postgres.rows(&format!(
        "INSERT INTO lhsmtool_s3.tombstone (fid, archive_id, taken) VALUES (decode('{}', 'hex'), 0, now()), \
         ('\\x01', 1, now() - interval '31 days')",
        hex(fid)
    ));
    third.serve(&mut rig);
    until(|| rig.keys().is_empty().then_some(()));
    until(|| (postgres.number(COPIES) == 0).then_some(()));
    assert_eq!(postgres.number(TOMBSTONES), 1, "the young one");
    third.stop();
}

#[test]
fn an_object_that_another_file_has_put_in_the_place_of_the_unlinked_ones_stays() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig();
    rig.client.set(Tunable::RemoveArchiveOnLastUnlink, 0).unwrap();
    let (mut first, mut second) = (
        Mover::of(&rig, "first", &postgres),
        Mover::of(&rig, "second", &postgres),
    );
    first.init_ledger();
    first.serve(&mut rig);
    let gone = rig.file("file", b"data");
    rig.archive(gone);
    until(|| (postgres.number(COPIES) == 1).then_some(()));
    fs::remove_file(rig.mount().join("file")).unwrap();
    let present = rig.file("file", b"data");
    assert_ne!(gone, present);
    rig.archive(present);
    assert_eq!(rig.keys(), ["file"], "{}", first.log());
    until(|| (postgres.number(COPIES) == 2).then_some(()));
    first.stop();
    second.serve(&mut rig);
    rig.client.set(Tunable::RemoveArchiveOnLastUnlink, 1).unwrap();
    second.removes(&mut rig, gone);
    assert_eq!(rig.store.object_body(BUCKET, "file").unwrap(), b"data");
    until(|| {
        let log = second.log();
        log.contains("does not say that it is; left alone").then_some(())
    });
    // What names nothing of its file is of no use.
    until(|| (postgres.rows("SELECT encode(fid, 'hex') FROM lhsmtool_s3.copy") == [hex(present)]).then_some(()));
    rig.release(present);
    assert_eq!(rig.restore("file", present), b"data");
    second.stop();
}
