//! The journal's copy in a real PostgreSQL: rows follow the daemon, and nothing waits for them.

use std::os::unix::net::UnixListener;
use std::process::Output;

use lhsm_sandbox::process::Daemon;
use lhsm_sandbox::protocol::{Action, Fid, states};
use nix::sys::signal::Signal;

use crate::metrics::address;
use crate::postgres::{Postgres, section};
use crate::recovery::journal_is_written;
use crate::rig::{PATIENCE, Rig, Setup, until};

const METRICS: &str = "[metrics]\nlisten = '127.0.0.1:0'\n";
const ACTIONS: &str = "SELECT count(*) FROM lhsmtool_s3.action";
const COPIES: &str = "SELECT count(*) FROM lhsmtool_s3.copy";

fn rig(ledger: &str) -> Rig {
    let setup = Setup::default();
    Rig::without_daemon(Setup {
        settings: format!("{METRICS}{ledger}{}", setup.settings),
        ..setup
    })
}

/// A ledger, and a daemon that writes it.
fn serving(postgres: &Postgres) -> Rig {
    let mut rig = rig(&postgres.section("name = 'mover1'"));
    told(&rig.run(&["ledger", "init"]), true, "is the ledger of");
    rig.start();
    in_step(&rig);
    rig
}

fn status(rig: &Rig) -> String {
    let output = rig.run(&["status", "--movers", &address(&rig.log())]);
    String::from_utf8(output.stdout).unwrap()
}

fn in_step(rig: &Rig) {
    until(|| status(rig).contains("the ledger is in step").then_some(()));
}

#[track_caller]
fn told(output: &Output, good: bool, words: &str) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.success(), good, "{text}");
    assert!(text.contains(words), "no '{words}' in: {text}");
}

/// A FID as the rows have it.
pub(crate) fn hex(fid: Fid) -> String {
    let text = fid.to_string();
    let parts: Vec<u64> = text
        .trim_matches(['[', ']'])
        .split(':')
        .map(|part| u64::from_str_radix(part.trim_start_matches("0x"), 16).unwrap())
        .collect();
    format!("{:016x}{:08x}{:08x}", parts[0], parts[1], parts[2])
}

#[track_caller]
fn is_archived(rig: &mut Rig, fid: Fid) {
    assert_eq!(
        rig.settle(fid).states,
        states::EXISTS | states::ARCHIVED,
        "the log:\n{}",
        rig.log()
    );
}

#[test]
fn rows_follow_what_a_daemon_archives_and_removes() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = serving(&postgres);
    let fid = rig.file("lab/run1", b"data");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let row = "SELECT encode(a.fid, 'hex'), a.verb, a.archive_id, a.answered, a.object_key, length(a.writer) \
               FROM lhsmtool_s3.action a, lhsmtool_s3.mover m WHERE a.owner = m.incarnation AND m.name = 'mover1'";
    let expected = format!("{}|1|1|f|lab/run1|16", hex(fid));
    until(|| (postgres.rows(row) == [expected.clone()]).then_some(()));
    gate.release();
    is_archived(&mut rig, fid);
    until(|| (postgres.number(ACTIONS) == 0).then_some(()));
    let record = "SELECT encode(fid, 'hex'), convert_from(record, 'UTF8')::json->>'key' FROM lhsmtool_s3.copy";
    assert_eq!(postgres.rows(record), [format!("{}|lab/run1", hex(fid))]);
    let renewals = "SELECT renewals FROM lhsmtool_s3.mover WHERE state = 1";
    let before = postgres.number(renewals);
    until(|| (postgres.number(renewals) > before).then_some(()));
    assert_eq!(rig.act(Action::Remove, fid).states, 0);
    until(|| (postgres.number(COPIES) == 0).then_some(()));
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(
        postgres.rows("SELECT name, state FROM lhsmtool_s3.mover"),
        ["mover1|3"],
        "it says that it goes"
    );
}

#[test]
fn a_server_that_was_away_has_the_journals_rows_when_it_is_back_and_archives_went_on() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = serving(&postgres);
    let first = rig.file("first", b"data");
    rig.archive(first);
    let gate = rig.store.faults().hold("PutObject");
    let [second, third] = ["second", "third"].map(|name| rig.file(name, b"data"));
    rig.client.request(Action::Archive, 1, &[second, third]).unwrap();
    until(|| (postgres.number(ACTIONS) == 2).then_some(()));
    // One that is this mover's and that the journal does not know, and one that is another's.
    for (cookie, owner) in [(1, "(SELECT incarnation FROM lhsmtool_s3.mover)"), (2, "7")] {
        postgres.rows(&format!(
            "INSERT INTO lhsmtool_s3.action (fid, cookie, owner) VALUES (decode('{}', 'hex'), {cookie}, {owner})",
            hex(first)
        ));
    }
    postgres.stop();
    gate.release();
    for fid in [second, third] {
        is_archived(&mut rig, fid);
    }
    until(|| status(&rig).contains("the ledger is away").then_some(()));
    let gate = rig.store.faults().hold("PutObject");
    let fourth = rig.file("fourth", b"data");
    rig.client.request(Action::Archive, 1, &[fourth]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    assert_eq!(rig.act(Action::Remove, first).states, 0);
    postgres.resume();
    in_step(&rig);
    let rows = "SELECT encode(fid, 'hex'), object_key FROM lhsmtool_s3.action ORDER BY owner = 7";
    assert_eq!(
        postgres.rows(rows),
        [format!("{}|fourth", hex(fourth)), format!("{}|", hex(first))]
    );
    let mut copies = [hex(second), hex(third)];
    copies.sort();
    assert_eq!(
        postgres.rows("SELECT encode(fid, 'hex') FROM lhsmtool_s3.copy ORDER BY fid"),
        copies
    );
    gate.release();
    is_archived(&mut rig, fourth);
    until(|| (postgres.number(ACTIONS) == 1).then_some(()));
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_killed_daemons_rows_are_its_successors_at_once() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = serving(&postgres);
    let fid = rig.file("file", b"data");
    let gate = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    journal_is_written(&rig);
    until(|| (postgres.number(ACTIONS) == 1).then_some(()));
    let owner = "SELECT a.owner FROM lhsmtool_s3.action a, lhsmtool_s3.mover m WHERE a.owner = m.incarnation";
    let before = postgres.number(owner);
    let mut daemon = rig.daemon.take().unwrap();
    daemon.signal(Signal::SIGKILL).unwrap();
    daemon.wait(PATIENCE).unwrap();
    std::fs::remove_file(rig.log_path()).unwrap();
    rig.start();
    let after = until(|| {
        let owners = postgres.rows(owner);
        owners.first()?.parse::<i64>().ok().filter(|now| *now != before)
    });
    assert_ne!(after, before);
    assert!(
        !rig.log().contains("waiting whether it lives"),
        "it knows its own row:\n{}",
        rig.log()
    );
    gate.release();
    is_archived(&mut rig, fid);
    until(|| (postgres.number(ACTIONS) == 0).then_some(()));
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_server_that_is_not_there_or_never_answers_costs_archives_nothing() {
    let away = tempfile::tempdir().unwrap();
    let mut rig = rig(&section(away.path(), ""));
    rig.start();
    let fid = rig.file("not-there", b"data");
    rig.archive(fid);
    until(|| status(&rig).contains("the ledger is away").then_some(()));
    assert!(rig.log().contains("can't reach PostgreSQL"), "{}", rig.log());
    // It takes connections, and that is all.
    let silent = UnixListener::bind(away.path().join(".s.PGSQL.5432")).unwrap();
    let _connection = silent.accept().unwrap();
    for n in 0..20 {
        let fid = rig.file(&format!("silent{n}"), b"data");
        rig.archive(fid);
    }
    // And it is given up.
    until(|| rig.log().contains("did not answer within").then_some(()));
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_server_that_stands_still_in_the_middle_costs_archives_nothing_and_has_them_later() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = serving(&postgres);
    postgres.freeze().unwrap();
    for n in 0..20 {
        let fid = rig.file(&format!("f{n}"), b"data");
        rig.archive(fid);
    }
    postgres.thaw().unwrap();
    until(|| (postgres.number(COPIES) == 20 && postgres.number(ACTIONS) == 0).then_some(()));
    in_step(&rig);
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn what_is_wrong_with_a_ledger_is_said_with_what_to_do() {
    let nowhere = tempfile::tempdir().unwrap();
    let without = Rig::without_daemon(Setup::default());
    told(
        &without.run(&["ledger", "check"]),
        false,
        "set `url` in section [ledger]",
    );
    told(
        &rig(&section(nowhere.path(), "")).run(&["ledger", "check"]),
        false,
        "can't reach PostgreSQL",
    );
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let rig = rig(&postgres.section(""));
    told(&rig.run(&["ledger", "check"]), false, "lhsmtool-s3 ledger init");
    told(&rig.run(&["ledger", "migrate"]), false, "lhsmtool-s3 ledger init");
    told(&rig.run(&["ledger", "init"]), true, "with schema ");
    told(&rig.run(&["ledger", "init"]), false, "already");
    told(&rig.run(&["ledger", "check"]), true, "with schema ");
    told(&rig.run(&["ledger", "migrate"]), true, "nothing was to be done");
    let rows = || String::from_utf8(rig.run(&["check", "--json"]).stdout).unwrap();
    let row = |text: &str| {
        text.lines()
            .find(|line| line.contains("\"ledger\""))
            .unwrap()
            .to_owned()
    };
    assert!(row(&rows()).contains("\"pass\""), "{}", rows());

    // As the release after this one leaves it, for as long as both run; and one that this one does not reach.
    let newer = "INSERT INTO lhsmtool_s3.schema_version (version, readable_from, oldest_release, made_by) VALUES ";
    let own = postgres.number("SELECT max(version) FROM lhsmtool_s3.schema_version");
    let (next, last) = (own + 1, own + 2);
    postgres.rows(&format!("{newer} ({next}, {own}, '0.3.0', '9.8.0')"));
    told(&rig.run(&["ledger", "check"]), true, &format!("with schema {next}"));
    told(&rig.run(&["ledger", "migrate"]), true, "nothing was to be done");
    postgres.rows(&format!("{newer} ({last}, {next}, '9.8.0', '9.9.0')"));
    told(&rig.run(&["ledger", "check"]), false, "release 9.8.0 and later");
    told(&rig.run(&["ledger", "migrate"]), false, "release 9.8.0 and later");
    postgres.rows(&format!("DELETE FROM lhsmtool_s3.schema_version WHERE version > {own}"));

    postgres.rows("UPDATE lhsmtool_s3.ledger SET file_system = 'other:1'");
    told(&rig.run(&["ledger", "check"]), false, "made for file system 'other:1'");
    let text = rows();
    assert!(
        row(&text).contains("\"fail\"") && row(&text).contains("other:1"),
        "{text}"
    );
}

#[test]
fn a_wrong_password_is_told_from_a_server_that_is_away_and_the_right_one_is_taken_from_its_file() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    postgres.rows("CREATE ROLE strict SUPERUSER LOGIN PASSWORD 'right'");
    let access = postgres.path().join("data/pg_hba.conf");
    let usual = std::fs::read_to_string(&access).unwrap();
    std::fs::write(&access, format!("local all strict scram-sha-256\n{usual}")).unwrap();
    postgres.rows("SELECT pg_reload_conf()");
    let file = postgres.path().join("password");
    let own = postgres
        .section(&format!("password_file = '{}'", file.display()))
        .replace("lhsm@", "strict@");
    let rig = rig(&own);
    told(&rig.run(&["ledger", "check"]), false, "can't read the password file");
    std::fs::write(&file, "wrong\n").unwrap();
    until(|| {
        // The server takes its new rules up when it gets to it.
        let output = rig.run(&["ledger", "check"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.contains("lets nobody in").then_some(())
    });
    std::fs::write(&file, "right\n").unwrap();
    told(&rig.run(&["ledger", "init"]), true, "is the ledger of");
}

#[test]
fn the_servers_certificate_has_to_be_a_trusted_authoritys_and_the_servers() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    let elsewhere = rcgen::generate_simple_self_signed(["db1.example.org".into()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let own = file("own.pem", made.cert.pem());
    let others = file("others.pem", other.cert.pem());
    let elsewheres = file("elsewhere.pem", elsewhere.cert.pem());
    let check = |port: u16, mode: &str, ca: &str| {
        let url = format!("postgresql://lhsm@127.0.0.1:{port}/ledger?sslmode={mode}");
        rig(&format!("[ledger]\nurl = '{url}'\nca_bundle = '{ca}'\n")).run(&["ledger", "check"])
    };
    let port = postgres
        .listen_with_tls(&made.cert.pem(), &made.signing_key.serialize_pem())
        .unwrap();
    told(&check(port, "verify-full", &own), false, "is no ledger");
    told(&check(port, "require", &others), false, "certificate");
    told(&check(port, "disable", &own), false, "lets nobody in");
    let port = postgres
        .listen_with_tls(&elsewhere.cert.pem(), &elsewhere.signing_key.serialize_pem())
        .unwrap();
    told(&check(port, "verify-full", &elsewheres), false, "certificate");
}

/// A second mover of the same file system, whose ledger calls it the same.
fn namesake(rig: &Rig) -> (Daemon, std::path::PathBuf) {
    let (spawn, log) = rig.second_mover();
    (spawn.start().unwrap(), log)
}

#[test]
fn two_living_movers_by_one_name_are_told_and_the_first_keeps_its_row() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = serving(&postgres);
    let (second, log) = namesake(&rig);
    until(|| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("another mover by the name 'mover1' lives").then_some(())
    });
    let fid = rig.file("file", b"data");
    rig.archive(fid);
    in_step(&rig);
    assert_eq!(postgres.number("SELECT count(*) FROM lhsmtool_s3.mover"), 1);
    drop(second);
    assert_eq!(rig.stop(), Some(0));
}
