//! The command that fences a dead mover's node: run once, whatever comes of it, and what goes on then. With a real PostgreSQL.

use std::path::PathBuf;
use std::time::Duration;

use lhsm_sandbox::process::{Daemon, replace};
use lhsm_sandbox::protocol::{Action, Fid, Tunable};
use nix::sys::signal::Signal;

use crate::ledger::{first_schema, hex};
use crate::metrics::{address, get, with_address};
use crate::postgres::Postgres;
use crate::recovery::ends_well;
use crate::rig::{PATIENCE, Rig, Setup, noise, until};

const METRICS: &str = "[metrics]\nlisten = '127.0.0.1:0'\n";
/// As it is logged when it is done.
const IS_FENCED: &str = "a dead mover's node is fenced";
/// Whether a mover's row says that.
const FENCED: &str = "SELECT count(*) FROM lhsmtool_s3.mover WHERE fenced AND fence_of = renewals AND name = ";

/// A mover on a node of its own, as the coordinator and the ledger see it.
struct Mover {
    name: &'static str,
    daemon: Daemon,
    log: PathBuf,
    /// What the stand-in calls its node.
    node: String,
}

impl Mover {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A script that writes a line for whom it was run and ends when it is told to, in a minute at most.
fn script(rig: &Rig) {
    let dir = rig.dir.path().display();
    let text = format!(
        "echo \"$FENCE_MOVER|$FENCE_NIDS|$FENCE_CLIENT_UUID|$FENCE_FILE_SYSTEM\" >>'{dir}/runs'\n\
         n=0\n\
         while [ ! -e '{dir}/go' ] && [ $n -lt 1200 ]; do sleep 0.05; n=$((n + 1)); done\n\
         [ -e '{dir}/go' ]\n"
    );
    std::fs::write(rig.dir.path().join("fence"), text).unwrap();
}

fn go_on(rig: &Rig) {
    std::fs::write(rig.dir.path().join("go"), "").unwrap();
}

/// For whom it was run, in the order in which that began.
fn runs(rig: &Rig) -> Vec<String> {
    let text = std::fs::read_to_string(rig.dir.path().join("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// With a ledger and a mover `mover1`; `DIR` in the command is the test's directory.
fn rig(postgres: &Postgres, takeover_archives: &str, command: &str) -> Rig {
    let mut rig = without_daemon(postgres, takeover_archives, command);
    let made = rig.run(&["ledger", "init"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    start(&mut rig);
    rig
}

fn without_daemon(postgres: &Postgres, takeover_archives: &str, command: &str) -> Rig {
    let setup = Setup::default();
    let ledger = postgres.section(&format!("name = 'mover1'\ntakeover_archives = '{takeover_archives}'\n"));
    let mut rig = Rig::without_daemon(setup);
    let command = command.replace("DIR", &rig.dir.path().display().to_string());
    rig.add_settings(&format!(
        "{METRICS}[fleet]\nfence = \"{command}\"\nnids = ['10.0.0.1@tcp']\n{ledger}"
    ));
    // No node is evicted before a test says so.
    rig.client.set(Tunable::EvictionMs, 3_600_000).unwrap();
    script(&rig);
    rig
}

fn start(rig: &mut Rig) {
    rig.start();
    in_step(rig, &with_address(|| rig.log()));
}

/// One more, which makes it so many agents.
fn another(rig: &mut Rig, postgres: &Postgres, name: &'static str, agents: usize) -> Mover {
    let mut spawn = rig.mover_called(name);
    let log = spawn.log.clone().unwrap();
    let config = std::fs::read_to_string(&spawn.config).unwrap();
    let number = name.trim_start_matches("mover");
    let nids = format!("'10.0.0.{number}@tcp', '10.1.0.{number}@o2ib'");
    replace(&spawn.config, &config.replace("'10.0.0.1@tcp'", &nids)).unwrap();
    let node = rig.dir.path().join(name);
    std::fs::create_dir_all(&node).unwrap();
    std::fs::write(node.join("uuid"), format!("uuid-of-{name}\n")).unwrap();
    let node = node.display().to_string();
    spawn.environment.retain(|(key, _)| key != "LHSM_SANDBOX_CLIENT");
    spawn.environment.push(("LHSM_SANDBOX_CLIENT".into(), node.clone()));
    let mover = Mover {
        name,
        daemon: spawn.start().unwrap(),
        log,
        node,
    };
    assert!(rig.client.wait_agents(agents, PATIENCE).unwrap(), "{}", mover.log());
    in_step(rig, &with_address(|| mover.log()));
    renew(postgres, &["mover1", name], 4);
    mover
}

fn status(rig: &Rig, log: &str) -> String {
    let output = rig.run(&["status", "--movers", &address(log)]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn in_step(rig: &Rig, log: &str) {
    until(|| status(rig, log).contains("the ledger is in step").then_some(()));
}

/// Until these have renewed so often: four times in a lease. Each has seen the others then.
fn renew(postgres: &Postgres, names: &[&str], times: i64) {
    let renewals = |name: &str| {
        let rows = postgres.rows(&format!("SELECT renewals FROM lhsmtool_s3.mover WHERE name = '{name}'"));
        rows[0].parse::<i64>().unwrap()
    };
    let before: Vec<_> = names.iter().map(|name| renewals(name)).collect();
    for (name, before) in names.iter().zip(before) {
        until(|| (renewals(name) >= before + times).then_some(()));
    }
}

fn in_hand(postgres: &Postgres, mover: &str) -> i64 {
    postgres.number(&format!(
        "SELECT count(*) FROM lhsmtool_s3.action a JOIN lhsmtool_s3.mover m ON m.incarnation = a.owner \
         WHERE NOT a.answered AND m.name = '{mover}'"
    ))
}

/// Archives that the movers have in hand, some each, and none of which ends before the store goes on.
fn archives(rig: &mut Rig, postgres: &Postgres, movers: &[&str]) -> Vec<Fid> {
    let fids: Vec<_> = (0..4 * movers.len())
        .map(|n| rig.file(&format!("a{n}"), &noise(100 + n)))
        .collect();
    for (n, fid) in fids.iter().enumerate() {
        rig.client.request(Action::Archive, 1, &[*fid]).unwrap();
        assert!(rig.client.wait_started(n + 1, PATIENCE).unwrap());
    }
    let all = i64::try_from(fids.len()).unwrap();
    until(|| (movers.iter().map(|name| in_hand(postgres, name)).sum::<i64>() == all).then_some(()));
    for name in movers {
        assert!(in_hand(postgres, name) > 0, "{name} has some");
    }
    fids
}

fn kill_node(rig: &mut Rig, mover: &mut Mover) {
    rig.client.kill_node(&mover.node).unwrap();
    mover.daemon.wait(PATIENCE).unwrap();
}

#[test]
fn a_dead_movers_node_is_fenced_once_by_one_of_the_others_and_then_all_goes_on_at_once() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "1h", "sh 'DIR/fence'");
    let mut second = another(&mut rig, &postgres, "mover2", 2);
    let third = another(&mut rig, &postgres, "mover3", 3);
    renew(&postgres, &["mover1", "mover2", "mover3"], 4);
    let puts = rig.store.faults().hold("PutObject");
    let fids = archives(&mut rig, &postgres, &["mover1", "mover2", "mover3"]);
    kill_node(&mut rig, &mut second);
    // The agent with the fewest actions gets the next one: the dead one's turn comes.
    let mut more = Vec::new();
    until(|| {
        more.push(rig.file(&format!("m{}", more.len()), b"more"));
        rig.client.request(Action::Archive, 1, &more[more.len() - 1..]).unwrap();
        rig.client
            .wait_held_up(0, Duration::from_millis(200))
            .unwrap()
            .then_some(())
    });

    until(|| (!runs(&rig).is_empty()).then_some(()));
    let log = rig.log();
    until(|| {
        let text = status(&rig, &log);
        let fencer = [
            "mover1 sees to the fence of mover2",
            "mover3 sees to the fence of mover2",
        ];
        (text.contains("MDT coordinators wait for the eviction of mover2, about ")
            && fencer.iter().any(|words| text.contains(words)))
        .then_some(())
    });
    // Both look often enough to begin it again.
    renew(&postgres, &["mover1", "mover3"], 8);
    assert_eq!(runs(&rig), ["mover2|10.0.0.2@tcp 10.1.0.2@o2ib|uuid-of-mover2|lustre"]);
    assert!(in_hand(&postgres, "mover2") > 0, "its archives wait");

    rig.client.evict(&second.node).unwrap();
    go_on(&rig);
    puts.release();
    ends_well(&mut rig, &[fids, more].concat());
    until(|| (postgres.number(&format!("{FENCED} 'mover2'")) == 1).then_some(()));
    until(|| {
        status(&rig, &log)
            .contains("mover2 is dead, and its node is fenced")
            .then_some(())
    });
    let logs = [rig.log(), third.log()].concat();
    assert_eq!(logs.matches(IS_FENCED).count(), 1, "{logs}");
    assert_eq!(runs(&rig).len(), 1);
    rig.assert_settled();

    // It boots, and is no fenced one any more.
    drop(second);
    std::fs::remove_file(rig.dir.path().join("mover2.log")).unwrap();
    let second = another(&mut rig, &postgres, "mover2", 3);
    assert_eq!(postgres.number(&format!("{FENCED} 'mover2'")), 0);
    until(|| (!status(&rig, &log).contains("mover2 is dead")).then_some(()));
    for mover in [second, third] {
        assert!(mover.daemon.stop(PATIENCE).unwrap().success());
    }
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(runs(&rig).len(), 1, "who leaves in order is not fenced");
}

#[test]
fn a_fence_that_fails_is_said_and_tried_again_and_archives_wait_for_their_time() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let command = "echo x >>'DIR/tries'; echo begins >&2; echo no route to node2 >&2; exit 255";
    let mut rig = rig(&postgres, "8s", command);
    let mut second = another(&mut rig, &postgres, "mover2", 2);
    let puts = rig.store.faults().hold("PutObject");
    let fids = archives(&mut rig, &postgres, &["mover1", "mover2"]);
    kill_node(&mut rig, &mut second);
    rig.client.evict(&second.node).unwrap();
    puts.release();
    until(|| {
        rig.log()
            .contains("the fence of a dead mover's node has failed")
            .then_some(())
    });
    let words = "exit status: 255: begins; no route to node2";
    assert!(rig.log().contains(words), "{}", rig.log());
    assert!(in_hand(&postgres, "mover2") > 0, "its archives wait");
    let failing = "lhsmtool_s3_ledger_peer_fence_failing{peer=\"mover2\"} 1";
    until(|| get(&rig, "/metrics").1.contains(failing).then_some(()));
    let log = rig.log();
    until(|| {
        status(&rig, &log)
            .contains(&format!("the fence of mover2 fails, and is tried again: {words}"))
            .then_some(())
    });
    let tries = rig.dir.path().join("tries");
    until(|| (std::fs::read_to_string(&tries).unwrap().lines().count() >= 2).then_some(()));
    ends_well(&mut rig, &fids);
    assert!(!rig.log().contains(IS_FENCED), "{}", rig.log());
    assert_eq!(postgres.number(&format!("{FENCED} 'mover2'")), 0);
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn the_fence_of_a_fencer_that_dies_is_another_ones() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "1h", "sh 'DIR/fence'");
    let mut second = another(&mut rig, &postgres, "mover2", 2);
    let mut third = another(&mut rig, &postgres, "mover3", 3);
    renew(&postgres, &["mover1", "mover2", "mover3"], 4);
    let puts = rig.store.faults().hold("PutObject");
    let fids = archives(&mut rig, &postgres, &["mover1", "mover2", "mover3"]);
    kill_node(&mut rig, &mut second);
    rig.client.evict(&second.node).unwrap();
    until(|| (!runs(&rig).is_empty()).then_some(()));
    let fencer = "SELECT f.name FROM lhsmtool_s3.mover m JOIN lhsmtool_s3.mover f ON f.incarnation = m.fencer \
                  WHERE m.name = 'mover2'";
    let fencer = postgres.rows(fencer).remove(0);
    if fencer == third.name {
        kill_node(&mut rig, &mut third);
        rig.client.evict(&third.node).unwrap();
    } else {
        let node = rig.mount().display().to_string();
        rig.client.kill_node(&node).unwrap();
        rig.daemon.take().unwrap().wait(PATIENCE).unwrap();
        rig.client.evict(&node).unwrap();
    }
    // Of both, by the one that is left.
    let of = |rig: &Rig, name: &str| {
        let all = runs(rig);
        all.iter().filter(|line| line.starts_with(&format!("{name}|"))).count()
    };
    until(|| (of(&rig, "mover2") == 2 && of(&rig, &fencer) == 1).then_some(()));
    puts.release();
    go_on(&rig);
    ends_well(&mut rig, &fids);
    for name in ["mover2", &fencer] {
        until(|| (postgres.number(&format!("{FENCED} '{name}'")) == 1).then_some(()));
    }
    assert_eq!(runs(&rig).len(), 3);
    rig.assert_settled();
}

#[test]
fn a_mover_that_comes_back_while_its_node_is_being_fenced_is_not_said_to_be() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "1h", "sh 'DIR/fence'");
    let second = another(&mut rig, &postgres, "mover2", 2);
    let puts = rig.store.faults().hold("PutObject");
    let fids = archives(&mut rig, &postgres, &["mover1", "mover2"]);
    second.daemon.signal(Signal::SIGSTOP).unwrap();
    until(|| (!runs(&rig).is_empty()).then_some(()));
    second.daemon.signal(Signal::SIGCONT).unwrap();
    until(|| {
        rig.log()
            .contains("has come back while its node was being fenced")
            .then_some(())
    });
    go_on(&rig);
    in_step(&rig, &with_address(|| second.log()));
    renew(&postgres, &["mover1", "mover2"], 8);
    assert_eq!(postgres.number(&format!("{FENCED} 'mover2'")), 0);
    assert!(in_hand(&postgres, "mover2") > 0, "it has its archives still");
    puts.release();
    ends_well(&mut rig, &fids);
    assert!(!rig.log().contains(IS_FENCED), "{}", rig.log());
    rig.assert_settled();
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_mover_that_was_stopped_in_order_is_taken_over_from_and_not_fenced() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig(&postgres, "2s", "sh 'DIR/fence'");
    go_on(&rig);
    let second = another(&mut rig, &postgres, "mover2", 2);
    let puts = rig.store.faults().hold("PutObject");
    let fids = archives(&mut rig, &postgres, &["mover1", "mover2"]);
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
    until(|| rig.log().contains("a mover is dead").then_some(()));
    until(|| (in_hand(&postgres, "mover2") == 0).then_some(()));
    puts.release();
    ends_well(&mut rig, &fids);
    assert_eq!(runs(&rig), Vec::<String>::new());
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_mover_of_the_release_before_is_watched_and_taken_over_from_and_not_fenced() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = without_daemon(&postgres, "2s", "sh 'DIR/fence'");
    go_on(&rig);
    // There is no ledger yet; it gets its name.
    rig.start();
    let file_system = rig.file_system();
    assert_eq!(rig.stop(), Some(0));
    std::fs::remove_file(rig.log_path()).unwrap();
    first_schema(&postgres, &file_system);
    // As that release claims a row.
    postgres.rows(
        "INSERT INTO lhsmtool_s3.mover (name, incarnation, address, archive_ids, renewals, state, release) \
         VALUES ('old', 7, NULL, '{1}', 1, 1, '0.3.0')",
    );
    let migrated = rig.run(&["ledger", "migrate"]);
    assert!(
        migrated.status.success(),
        "{}",
        String::from_utf8_lossy(&migrated.stderr)
    );
    let fid = rig.file("file", b"data");
    postgres.rows(&format!(
        "INSERT INTO lhsmtool_s3.action (fid, cookie, owner, verb, archive_id) \
         VALUES (decode('{}', 'hex'), 99, 7, 1, 1)",
        hex(fid)
    ));
    start(&mut rig);
    // It renews as it did, claims its row as that release does, and dies.
    for _ in 0..4 {
        postgres.rows(
            "UPDATE lhsmtool_s3.mover SET renewals = renewals + 1, address = NULL WHERE name = 'old' AND state <> 4",
        );
        renew(&postgres, &["mover1"], 1);
    }
    postgres.rows(
        "UPDATE lhsmtool_s3.mover SET incarnation = 7, address = NULL, archive_ids = '{1}', renewals = renewals + 1, \
         state = 1, release = '0.3.0', since = now() WHERE name = 'old'",
    );
    until(|| rig.log().contains("a mover is dead").then_some(()));
    until(|| (in_hand(&postgres, "old") == 0).then_some(()));
    assert_eq!(runs(&rig), Vec::<String>::new());
    assert_eq!(rig.stop(), Some(0));
}
