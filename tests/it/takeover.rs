//! Two movers and a real PostgreSQL: what a dead one had is done by the other, and nobody is taken for dead who is not.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lhsm_sandbox::process::{Daemon, replace};
use lhsm_sandbox::protocol::{Action, Fid, states};
use nix::sys::signal::Signal;

use crate::metrics::address;
use crate::postgres::Postgres;
use crate::recovery::ends_well;
use crate::rig::{BUCKET, PATIENCE, Rig, Setup, noise, until};

const METRICS: &str = "[metrics]\nlisten = '127.0.0.1:0'\n";
const FOUND_DEAD: &str = "a mover is dead";
const TAKEN: &str = "taken over from a dead mover";
/// Actions in the ledger of a mover that is named.
const IN_HAND: &str = "SELECT count(*) FROM lhsmtool_s3.action a JOIN lhsmtool_s3.mover m ON m.incarnation = a.owner \
                       WHERE NOT a.answered AND m.name = ";

/// A mover beside the rig's.
pub(crate) struct Second {
    pub(crate) daemon: Daemon,
    log: PathBuf,
}

impl Second {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

pub(crate) fn rig(postgres: &Postgres, takeover_archives: &str) -> Rig {
    rig_with(postgres, takeover_archives, "")
}

/// With more sections.
pub(crate) fn rig_with(postgres: &Postgres, takeover_archives: &str, more: &str) -> Rig {
    rig_prepared(postgres, takeover_archives, more, |_| {})
}

/// With something done before the daemon is started.
pub(crate) fn rig_prepared(
    postgres: &Postgres,
    takeover_archives: &str,
    more: &str,
    prepare: impl FnOnce(&mut Rig),
) -> Rig {
    let setup = Setup::default();
    let ledger = postgres.section(&format!("name = 'mover1'\ntakeover_archives = '{takeover_archives}'\n"));
    let mut rig = Rig::without_daemon(Setup {
        settings: format!("{METRICS}{ledger}{more}{}", setup.settings),
        ..setup
    });
    let made = rig.run(&["ledger", "init"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    prepare(&mut rig);
    rig.start();
    in_step(&rig, &rig.log());
    rig
}

/// As the coordinator sees it, on another node.
pub(crate) fn second(rig: &mut Rig, postgres: &Postgres) -> Second {
    second_with(rig, postgres, "", "")
}

/// With another text in its configuration.
pub(crate) fn second_with(rig: &mut Rig, postgres: &Postgres, old: &str, new: &str) -> Second {
    let (spawn, log) = rig.second_mover();
    let mut config = std::fs::read_to_string(&spawn.config).unwrap();
    config = config.replace("name = 'mover1'", "name = 'mover2'");
    if !old.is_empty() {
        config = config.replace(old, new);
    }
    replace(&spawn.config, &config).unwrap();
    let second = Second {
        daemon: spawn.start().unwrap(),
        log,
    };
    assert!(rig.client.wait_agents(2, PATIENCE).unwrap(), "{}", second.log());
    in_step(rig, &second.log());
    watches(postgres);
    second
}

pub(crate) fn in_step(rig: &Rig, log: &str) {
    let address = address(log);
    until(|| {
        let output = rig.run(&["status", "--movers", &address]);
        String::from_utf8_lossy(&output.stdout)
            .contains("the ledger is in step")
            .then_some(())
    });
}

fn renewals(postgres: &Postgres, name: &str) -> i64 {
    let rows = postgres.rows(&format!("SELECT renewals FROM lhsmtool_s3.mover WHERE name = '{name}'"));
    rows[0].parse().unwrap()
}

/// Until each mover has seen the other renew.
fn watches(postgres: &Postgres) {
    renew(postgres, 4);
}

/// Until both have renewed so often: four times in a lease.
fn renew(postgres: &Postgres, times: i64) {
    let before = ["mover1", "mover2"].map(|name| (name, renewals(postgres, name)));
    for (name, before) in before {
        until(|| (renewals(postgres, name) >= before + times).then_some(()));
    }
}

pub(crate) fn in_hand(postgres: &Postgres, mover: &str) -> i64 {
    postgres.number(&format!("{IN_HAND} '{mover}'"))
}

/// Uploads, but for what a mover tries the store with as it starts, which a gate may hold up.
pub(crate) fn uploads(rig: &Rig) -> Vec<(String, String)> {
    let uploads = rig.store.uploads(BUCKET).into_iter();
    uploads
        .filter(|(key, _)| !key.contains(".lhsm-s3-metadata/0x0:0x0:0x0."))
        .collect()
}

pub(crate) fn kill(rig: &mut Rig) {
    let mut daemon = rig.daemon.take().unwrap();
    daemon.signal(Signal::SIGKILL).unwrap();
    daemon.wait(PATIENCE).unwrap();
}

/// A successor on the killed one's node, with a log of its own.
fn start_again(rig: &mut Rig) {
    std::fs::remove_file(rig.log_path()).unwrap();
    rig.start();
    until(|| rig.log().contains("registered; serving").then_some(()));
    in_step(rig, &rig.log());
}

/// Released files, and their content.
pub(crate) fn released(rig: &mut Rig, count: usize) -> Vec<(String, Vec<u8>, Fid)> {
    let files: Vec<_> = (0..count)
        .map(|n| {
            let (name, content) = (format!("r{n}"), noise(7000 + n));
            let fid = rig.file(&name, &content);
            (name, content, fid)
        })
        .collect();
    for (_, _, fid) in &files {
        rig.archive(*fid);
        rig.release(*fid);
    }
    files
}

/// Somebody who waits for a released file's data.
fn reader(rig: &mut Rig, name: &str, fid: Fid) -> Option<JoinHandle<Vec<u8>>> {
    if !rig.mdt.restores_on_read() {
        rig.client.request(Action::Restore, 1, &[fid]).unwrap();
        return None;
    }
    let path = rig.mount().join(name);
    Some(std::thread::spawn(move || std::fs::read(path).unwrap()))
}

/// Asks for actions one by one, so that both movers get some.
pub(crate) fn ask(rig: &mut Rig, action: Action, fids: &[Fid], started: &mut usize) {
    for fid in fids {
        rig.client.request(action, 1, &[*fid]).unwrap();
        *started += 1;
        assert!(rig.client.wait_started(*started, PATIENCE).unwrap());
    }
}

#[test]
fn readers_and_archives_of_a_killed_mover_are_served_by_the_other_the_readers_first() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "4s");
    let files = released(&mut rig, 8);
    let second = second(&mut rig, &postgres);
    let fresh: Vec<_> = (0..12).map(|n| rig.file(&format!("a{n}"), &noise(100 + n))).collect();
    let gone = rig.file("gone", b"x");
    let gets = rig.store.faults().hold("GetObject");
    let puts = rig.store.faults().hold("PutObject");
    let mut started = 0;
    ask(&mut rig, Action::Archive, &fresh, &mut started);
    let mut readers = Vec::new();
    for (name, content, fid) in &files {
        readers.push((reader(&mut rig, name, *fid), content));
        started += 1;
        assert!(rig.client.wait_started(started, PATIENCE).unwrap());
    }
    until(|| (in_hand(&postgres, "mover1") + in_hand(&postgres, "mover2") == 20).then_some(()));
    let of_first = in_hand(&postgres, "mover1");
    assert!(of_first > 0 && of_first < 20, "both have some: {of_first}");
    kill(&mut rig);
    gets.release();
    puts.release();
    for (reader, content) in readers {
        if let Some(reader) = reader {
            assert_eq!(reader.join().unwrap(), *content);
        }
    }
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).chain(fresh).collect();
    assert!(rig.client.wait(&fids, PATIENCE).unwrap(), "{}", second.log());
    ends_well(&mut rig, &fids);
    for (name, content, _) in &files {
        assert_eq!(rig.read(name), *content);
    }
    let log = second.log();
    assert_eq!(log.matches(FOUND_DEAD).count(), 1, "{log}");
    // Readers first.
    let lots: Vec<_> = log.lines().filter(|line| line.contains(TAKEN)).collect();
    let number = |line: &str, key: &str| -> i64 {
        let rest = line.split_once(key).unwrap().1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    assert_eq!(
        number(lots[0], " actions="),
        number(lots[0], " restores="),
        "the first are restores alone: {log}"
    );
    let taken: i64 = lots.iter().map(|line| number(line, " actions=")).sum();
    assert_eq!(taken, of_first, "{log}");
    until(|| (in_hand(&postgres, "mover1") + in_hand(&postgres, "mover2") == 0).then_some(()));
    // The one that is left goes on alone.
    rig.archive(gone);
    rig.assert_settled();
    // Its successor finds nothing to be done, and takes nothing away.
    start_again(&mut rig);
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
    rig.assert_settled();
    for n in 0..12 {
        assert_eq!(
            rig.store.object_body(BUCKET, &format!("a{n}")),
            Some(noise(100 + n)),
            "a{n}"
        );
    }
}

#[test]
fn a_large_archive_of_a_killed_mover_goes_on_behind_the_parts_that_the_store_has() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "2s");
    let content = noise(33 << 20);
    let fid = rig.file("large", &content);
    let gate = rig.store.faults().hold("CompleteMultipartUpload");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let upload = "SELECT count(*) FROM lhsmtool_s3.action WHERE upload_id IS NOT NULL";
    until(|| (postgres.number(upload) == 1).then_some(()));
    let second = second(&mut rig, &postgres);
    kill(&mut rig);
    gate.release();
    ends_well(&mut rig, &[fid]);
    until(|| second.log().contains("parts=7 of=7").then_some(()));
    let log = second.log();
    assert!(log.contains(TAKEN), "{log}");
    let stats = rig.store.stats();
    assert_eq!(
        (stats.count("UploadPart"), stats.count("CreateMultipartUpload")),
        (7, 1),
        "{log}"
    );
    assert_eq!(rig.store.object_body(BUCKET, "large").unwrap(), content);
    assert_eq!(rig.client.pending().unwrap(), 0);
    assert_eq!(uploads(&rig), []);
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
}

#[test]
fn an_upload_of_a_killed_mover_whose_file_changed_is_left_alone_and_the_archive_begins_anew() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "2s");
    let fid = rig.file("large", &noise(12 << 20));
    let gate = rig.store.faults().hold("CompleteMultipartUpload");
    rig.client.request(Action::Archive, 1, &[fid]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    let upload = "SELECT count(*) FROM lhsmtool_s3.action WHERE upload_id IS NOT NULL";
    until(|| (postgres.number(upload) == 1).then_some(()));
    let second = second(&mut rig, &postgres);
    kill(&mut rig);
    let content = vec![7; 12 << 20];
    std::fs::write(rig.mount().join("large"), &content).unwrap();
    gate.release();
    ends_well(&mut rig, &[fid]);
    let stats = rig.store.stats();
    assert_eq!(
        (
            stats.count("CreateMultipartUpload"),
            stats.count("AbortMultipartUpload")
        ),
        (2, 0),
        "{}",
        second.log()
    );
    assert_eq!(rig.store.object_body(BUCKET, "large").unwrap(), content);
    // Whoever began it takes it away when it comes back.
    start_again(&mut rig);
    until(|| uploads(&rig).is_empty().then_some(()));
    assert_eq!(rig.store.object_body(BUCKET, "large").unwrap(), content);
    assert_eq!(rig.client.pending().unwrap(), 0);
    assert_eq!(uploads(&rig), []);
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_mover_that_lost_its_state_directory_finds_what_it_had_in_hand_in_the_ledger() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "2s");
    let files = released(&mut rig, 2);
    let fresh: Vec<_> = (0..4).map(|n| rig.file(&format!("a{n}"), &noise(100 + n))).collect();
    let frozen: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    let gets = rig.store.faults().hold("GetObject");
    let puts = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &fresh).unwrap();
    rig.client.request(Action::Restore, 1, &frozen).unwrap();
    until(|| (in_hand(&postgres, "mover1") == 6).then_some(()));
    kill(&mut rig);
    std::fs::remove_dir_all(rig.dir.path().join("state")).unwrap();
    gets.release();
    puts.release();
    start_again(&mut rig);
    let fids: Vec<_> = fresh.iter().chain(&frozen).copied().collect();
    ends_well(&mut rig, &fids);
    for (name, content, _) in &files {
        assert_eq!(rig.read(name), *content);
    }
    assert!(rig.log().contains(TAKEN), "{}", rig.log());
    // Nothing is left of the one that it was.
    until(|| (postgres.rows("SELECT name FROM lhsmtool_s3.mover") == ["mover1"]).then_some(()));
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
}

#[test]
fn what_a_lost_state_directory_left_is_found_when_a_daemon_ended_before_it_had_looked() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "2s");
    let files = released(&mut rig, 2);
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    let gets = rig.store.faults().hold("GetObject");
    rig.client.request(Action::Restore, 1, &fids).unwrap();
    until(|| (in_hand(&postgres, "mover1") == 2).then_some(()));
    kill(&mut rig);
    std::fs::remove_dir_all(rig.dir.path().join("state")).unwrap();
    gets.release();
    // The next one claims its row, and gets no further.
    let incarnation = "SELECT incarnation FROM lhsmtool_s3.mover WHERE name = 'mover1'";
    let before = postgres.number(incarnation);
    postgres.rows(
        "CREATE FUNCTION lhsmtool_s3.refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'not now'; END $$; \
         CREATE TRIGGER refuse BEFORE UPDATE ON lhsmtool_s3.action EXECUTE FUNCTION lhsmtool_s3.refuse()",
    );
    rig.start();
    until(|| (postgres.number(incarnation) != before).then_some(()));
    kill(&mut rig);
    postgres.rows("DROP TRIGGER refuse ON lhsmtool_s3.action");
    start_again(&mut rig);
    ends_well(&mut rig, &fids);
    for (name, content, _) in &files {
        assert_eq!(rig.read(name), *content);
    }
    assert!(rig.log().contains(TAKEN), "{}", rig.log());
    until(|| (postgres.rows("SELECT name FROM lhsmtool_s3.mover") == ["mover1"]).then_some(()));
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
}

#[test]
fn old_uploads_that_another_mover_has_in_hand_stay_and_one_that_nobody_has_goes() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "300s");
    rig.replace_settings("[transfer]\n", "[transfer]\nabort_uploads_after = '1s'\n");
    let fids = ["in-hand", "nobodys"].map(|name| rig.file(name, &noise(12 << 20)));
    let gate = rig.store.faults().hold("CompleteMultipartUpload");
    rig.client.request(Action::Archive, 1, &fids).unwrap();
    assert!(gate.wait_held_blocking(2, PATIENCE));
    let begun = Instant::now();
    until(|| {
        let named = "SELECT count(*) FROM lhsmtool_s3.action WHERE upload_id IS NOT NULL";
        (postgres.number(named) == 2).then_some(())
    });
    postgres.rows("DELETE FROM lhsmtool_s3.action WHERE object_key = 'nobodys'");
    // A store tells whole seconds.
    while begun.elapsed() < Duration::from_millis(2100) {
        std::thread::yield_now();
    }
    let second = second(&mut rig, &postgres);
    until(|| second.log().contains("abandoned uploads aborted").then_some(()));
    let keys: Vec<_> = uploads(&rig).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["in-hand"], "{}", second.log());
    gate.release();
    ends_well(&mut rig, &fids);
    until(|| uploads(&rig).is_empty().then_some(()));
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
}

#[test]
fn an_outage_of_the_ledger_and_its_return_fence_nobody() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "2s");
    let second = second(&mut rig, &postgres);
    let fresh: Vec<_> = (0..20).map(|n| rig.file(&format!("a{n}"), &noise(100 + n))).collect();
    let puts = rig.store.faults().hold("PutObject");
    ask(&mut rig, Action::Archive, &fresh, &mut 0);
    until(|| (in_hand(&postgres, "mover1") + in_hand(&postgres, "mover2") == 20).then_some(()));
    let of_first = in_hand(&postgres, "mover1");
    postgres.stop();
    let movers = [address(&rig.log()), address(&second.log())];
    for mover in &movers {
        until(|| {
            let output = rig.run(&["status", "--movers", mover]);
            String::from_utf8_lossy(&output.stdout)
                .contains("the ledger is away")
                .then_some(())
        });
    }
    postgres.resume();
    in_step(&rig, &rig.log());
    in_step(&rig, &second.log());
    // And one that stands still for longer than a lease.
    renew(&postgres, 12);
    postgres.freeze().unwrap();
    let before = second.log().len();
    until(|| {
        // It answers neither; its statements come to their end.
        (second.log().len() > before && second.log()[before..].contains("did not answer within")).then_some(())
    });
    postgres.thaw().unwrap();
    in_step(&rig, &rig.log());
    in_step(&rig, &second.log());
    renew(&postgres, 12);
    assert_eq!(
        postgres.number("SELECT count(*) FROM lhsmtool_s3.mover WHERE state <> 1"),
        0
    );
    assert_eq!(in_hand(&postgres, "mover1"), of_first);
    for log in [rig.log(), second.log()] {
        assert!(!log.contains(FOUND_DEAD) && !log.contains(TAKEN), "{log}");
    }
    puts.release();
    ends_well(&mut rig, &fresh);
    rig.assert_settled();
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_mover_that_comes_back_from_a_pause_lets_go_of_what_the_other_has_and_does_no_harm() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "2s");
    let files = released(&mut rig, 6);
    let second = second(&mut rig, &postgres);
    let fresh: Vec<_> = (0..12).map(|n| rig.file(&format!("a{n}"), &noise(100 + n))).collect();
    let gets = rig.store.faults().hold("GetObject");
    let puts = rig.store.faults().hold("PutObject");
    let mut started = 0;
    ask(&mut rig, Action::Archive, &fresh, &mut started);
    let mut readers = Vec::new();
    for (name, content, fid) in &files {
        readers.push((reader(&mut rig, name, *fid), content));
        started += 1;
        assert!(rig.client.wait_started(started, PATIENCE).unwrap());
    }
    until(|| (in_hand(&postgres, "mover1") + in_hand(&postgres, "mover2") == 18).then_some(()));
    let of_first = in_hand(&postgres, "mover1");
    assert!(of_first > 0, "it has some");
    rig.daemon.as_ref().unwrap().signal(Signal::SIGSTOP).unwrap();
    until(|| (in_hand(&postgres, "mover1") == 0 && in_hand(&postgres, "mover2") == 18).then_some(()));
    // While the other has them all in hand.
    rig.daemon.as_ref().unwrap().signal(Signal::SIGCONT).unwrap();
    until(|| {
        rig.log()
            .contains("other movers have taken these over meanwhile")
            .then_some(())
    });
    in_step(&rig, &rig.log());
    assert_eq!(in_hand(&postgres, "mover1"), 0, "it takes nothing back");
    gets.release();
    puts.release();
    for (reader, content) in readers {
        if let Some(reader) = reader {
            assert_eq!(reader.join().unwrap(), *content);
        }
    }
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).chain(fresh.clone()).collect();
    ends_well(&mut rig, &fids);
    rig.assert_settled();
    // What it wrote itself, if anything, is looked at and taken away by both; what counts stays.
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
    for (n, fid) in fresh.iter().enumerate() {
        assert_eq!(
            rig.client.state(*fid).unwrap().states,
            states::EXISTS | states::ARCHIVED,
            "{}",
            rig.log()
        );
        assert_eq!(
            rig.store.object_body(BUCKET, &format!("a{n}")),
            Some(noise(100 + n)),
            "a{n}"
        );
    }
    for (name, content, _) in &files {
        assert_eq!(rig.read(name), *content);
        assert_eq!(rig.store.object_body(BUCKET, name), Some(content.clone()));
    }
    assert_eq!(rig.keys().len(), 18, "{:?}", rig.keys());
}

#[test]
fn a_mover_that_comes_back_when_all_is_done_does_no_harm() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "2s");
    let second = second(&mut rig, &postgres);
    let fresh: Vec<_> = (0..12).map(|n| rig.file(&format!("a{n}"), &noise(100 + n))).collect();
    let puts = rig.store.faults().hold("PutObject");
    ask(&mut rig, Action::Archive, &fresh, &mut 0);
    until(|| (in_hand(&postgres, "mover1") + in_hand(&postgres, "mover2") == 12).then_some(()));
    assert!(in_hand(&postgres, "mover1") > 0);
    rig.daemon.as_ref().unwrap().signal(Signal::SIGSTOP).unwrap();
    until(|| (in_hand(&postgres, "mover2") == 12).then_some(()));
    // What the paused one had sent arrives now, too.
    puts.release();
    ends_well(&mut rig, &fresh);
    rig.daemon.as_ref().unwrap().signal(Signal::SIGCONT).unwrap();
    renew(&postgres, 8);
    in_step(&rig, &rig.log());
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
    for (n, fid) in fresh.iter().enumerate() {
        assert_eq!(
            rig.client.state(*fid).unwrap().states,
            states::EXISTS | states::ARCHIVED,
            "{}",
            rig.log()
        );
        assert_eq!(
            rig.store.object_body(BUCKET, &format!("a{n}")),
            Some(noise(100 + n)),
            "a{n}"
        );
    }
    assert_eq!(rig.keys().len(), 12, "{:?}", rig.keys());
}
