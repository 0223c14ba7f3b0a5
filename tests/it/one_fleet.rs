//! Several movers and a real PostgreSQL: the fleet as one, seen by a mover and by a command, and limits that all share.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use lhsm_sandbox::process::{Daemon, replace};
use lhsm_sandbox::protocol::{Action, Fid};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::metrics::{address, get, get_at, with_address};
use crate::postgres::{Postgres, section};
use crate::recovery::ends_well;
use crate::rig::{PATIENCE, Rig, Setup, until};
use crate::takeover::{in_step, rig_prepared, rig_with};

const LIMIT: u64 = 3 << 20;
const SHARED: &str = "bucket = 'lhsm-sandbox'\nupload_bandwidth = { limit = '3MiB', scope = 'fleet' }";

/// A mover on a node of its own, as the coordinator and the ledger see it.
struct Another {
    daemon: Daemon,
    log: PathBuf,
}

impl Another {
    /// The one by that name, which makes it so many agents.
    fn start(rig: &mut Rig, name: &str, agents: usize) -> Self {
        let mut spawn = rig.mover_called(name);
        let log = spawn.log.clone().unwrap();
        let node = rig.dir.path().join(name).display().to_string();
        spawn.environment.retain(|(key, _)| key != "LHSM_SANDBOX_CLIENT");
        spawn.environment.push(("LHSM_SANDBOX_CLIENT".into(), node));
        let another = Self {
            daemon: spawn.start().unwrap(),
            log,
        };
        assert!(rig.client.wait_agents(agents, PATIENCE).unwrap(), "{}", another.log());
        in_step(rig, &with_address(|| another.log()));
        another
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn kill(&mut self) {
        self.daemon.signal(Signal::SIGKILL).unwrap();
        self.daemon.wait(PATIENCE).unwrap();
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// By a command that looks itself.
fn seen(rig: &Rig) -> Value {
    let output = rig.run(&["status", "--fleet", "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn mover<'a>(fleet: &'a Value, name: &str) -> &'a Value {
    let movers = fleet["movers"].as_array().unwrap();
    let found = movers.iter().find(|mover| mover["mover"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {fleet}"))
}

fn kinds(mover: &Value) -> Vec<&str> {
    let sick = mover["sick"].as_array().unwrap();
    sick.iter().map(|ailment| ailment["kind"].as_str().unwrap()).collect()
}

/// The value of a series; `None`: there is none.
fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

/// What a mover may send a second to archive 1.
fn share(log: &str) -> Option<f64> {
    let (_, metrics) = get_at(&address(log), "/metrics");
    value(
        &metrics,
        "lhsmtool_s3_s3_limit_bytes_per_second{archive=\"1\",direction=\"upload\"}",
    )
}

/// Until that is a part of the limit.
#[track_caller]
fn has_share(log: &str, movers: u64) {
    #[expect(clippy::cast_precision_loss, reason = "some MiB")]
    let expected = (LIMIT / movers) as f64;
    until(|| (share(log) == Some(expected)).then_some(()));
}

fn archives(rig: &mut Rig, count: usize) -> Vec<Fid> {
    let fids: Vec<_> = (0..count).map(|n| rig.file(&format!("a{n}"), b"data")).collect();
    for (n, fid) in fids.iter().enumerate() {
        rig.client.request(Action::Archive, 1, &[*fid]).unwrap();
        assert!(rig.client.wait_started(n + 1, PATIENCE).unwrap());
    }
    fids
}

#[test]
fn one_mover_and_a_command_show_what_all_have_in_hand_and_that_one_is_dead() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_with(&postgres, "2s", "");
    let mut second = Another::start(&mut rig, "mover2", 2);
    let third = Another::start(&mut rig, "mover3", 3);
    let gate = rig.store.faults().hold("PutObject");
    let fids = archives(&mut rig, 12);
    // One that has no processor for a moment is silent for as long.
    let fleet = until(|| {
        let fleet = seen(&rig);
        let is_well = fleet["movers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|mover| kinds(mover).is_empty());
        (is_well && fleet["sum"]["running"]["archive"] == 12).then_some(fleet)
    });
    assert_eq!(
        (&fleet["observer"], &fleet["by_state"]["serving"]),
        (&Value::Null, &3.into())
    );
    for name in ["mover1", "mover2", "mover3"] {
        let mover = mover(&fleet, name);
        assert_eq!((&mover["state"], &mover["archives"][0]), (&"serving".into(), &1.into()));
        assert!(mover["renewed"].as_f64().unwrap() <= 2.0, "{mover}");
        assert!(mover["told"]["running"]["archive"].as_u64().unwrap() > 0, "{mover}");
    }
    // As the mover of the node has seen it, where the command finds one.
    let mut spawn = rig.spawn();
    let config = std::fs::read_to_string(&spawn.config).unwrap();
    spawn.config = rig.dir.path().join("with-mover.toml");
    replace(&spawn.config, &config.replace("127.0.0.1:0", &address(&rig.log()))).unwrap();
    let asked = spawn.command(&["status", "--fleet", "--json"]).output().unwrap();
    let fleet: Value = serde_json::from_slice(&asked.stdout).unwrap_or_else(|_| panic!("{}", text(&asked)));
    assert_eq!(fleet["observer"], "mover1");
    assert_eq!(fleet["movers"].as_array().unwrap().len(), 3);

    second.kill();
    let up = |name: &str| {
        let (_, metrics) = get(&rig, "/metrics");
        value(&metrics, &format!("lhsmtool_s3_fleet_mover_up{{mover=\"{name}\"}}"))
    };
    until(|| (up("mover2") == Some(0.0)).then_some(()));
    until(|| (up("mover1") == Some(1.0) && up("mover3") == Some(1.0)).then_some(()));
    until(|| (mover(&seen(&rig), "mover2")["state"] == "dead").then_some(()));
    let (_, metrics) = get(&rig, "/metrics");
    let sick = "lhsmtool_s3_fleet_mover_sick{mover=\"mover2\",why=\"dead\"}";
    until(|| {
        let (_, metrics) = get(&rig, "/metrics");
        (value(&metrics, sick) == Some(1.0)).then_some(())
    });
    assert!(
        value(
            &metrics,
            "lhsmtool_s3_fleet_mover_waiting{mover=\"mover2\",verb=\"archive\"}"
        )
        .is_none(),
        "what it told is nothing any more:\n{metrics}"
    );
    let plain = text(&rig.run(&["status", "--fleet"]));
    assert!(
        plain.contains("mover2: is dead; what it had in hand is taken over"),
        "{plain}"
    );
    gate.release();
    ends_well(&mut rig, &fids);
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert!(third.daemon.stop(PATIENCE).unwrap().success());
}

#[test]
fn a_command_without_a_daemon_tells_older_releases_and_silent_movers_from_those_that_ended() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let setup = Setup::default();
    let rig = Rig::without_daemon(Setup {
        settings: format!("{}{}", postgres.section(""), setup.settings),
        ..setup
    });
    let made = rig.run(&["ledger", "init"]);
    assert!(made.status.success(), "{}", text(&made));
    let columns =
        "INSERT INTO lhsmtool_s3.mover (name, incarnation, archive_ids, renewals, state, release, told, told_by)";
    for row in [
        "'older', 1, '{1}', 1, 1, '0.1.0', NULL, NULL",
        // An older release has its row now.
        "'changed', 2, '{1}', 1, 1, '0.2.0', '{\"ready\":true}', 99",
        "'well', 3, '{1,2}', 1, 1, '0.2.0', '{\"ready\":true,\"mood\":7}', 3",
        "'still', 4, '{1}', 1, 1, '0.2.0', '{\"ready\":true}', 4",
        "'ended', 5, '{1}', 1, 3, '0.2.0', '{\"ready\":true}', 5",
        "'dead', 6, '{1}', 1, 4, '0.2.0', '{\"ready\":true}', 6",
        // What a mover had before it lost its files; no mover.
        "'well (000000000000002a)', 42, '{}', 0, 4, '0.2.0', NULL, NULL",
    ] {
        postgres.rows(&format!("{columns} VALUES ({row})"));
    }
    let mut command = rig.command(&["status", "--fleet", "--json"]);
    let mut looking = command.stdout(Stdio::piped()).spawn().unwrap();
    until(|| {
        postgres
            .rows("UPDATE lhsmtool_s3.mover SET renewals = renewals + 1 WHERE name IN ('older', 'changed', 'well')");
        looking.try_wait().unwrap().map(drop)
    });
    let output = looking.wait_with_output().unwrap();
    let fleet: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let states: Vec<_> = fleet["movers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mover| &mover["state"])
        .collect();
    assert_eq!(
        states,
        ["serving", "dead", "ended", "serving", "silent", "serving"],
        "{fleet}"
    );
    assert_eq!(kinds(mover(&fleet, "older")), ["untold", "release"]);
    assert_eq!(kinds(mover(&fleet, "changed")), ["untold"]);
    assert!(kinds(mover(&fleet, "well")).is_empty() && kinds(mover(&fleet, "ended")).is_empty());
    assert_eq!(kinds(mover(&fleet, "still")), ["silent"]);
    assert_eq!(kinds(mover(&fleet, "dead")), ["dead"]);
}

#[test]
fn a_fleet_without_a_ledger_is_told_what_to_do() {
    let without = Rig::without_daemon(Setup::default());
    let said = text(&without.run(&["status", "--fleet"]));
    assert!(said.contains("set `url` in section [ledger]"), "{said}");
    let wrong = without.run(&["status", "--fleet", "--movers", "mover1:9818"]);
    assert_eq!(wrong.status.code(), Some(2));
    let away = tempfile::tempdir().unwrap();
    let setup = Setup::default();
    let rig = Rig::without_daemon(Setup {
        settings: format!("{}{}", section(away.path(), ""), setup.settings),
        ..setup
    });
    let output = rig.run(&["status", "--fleet"]);
    assert!(
        !output.status.success() && text(&output).contains("can't reach PostgreSQL"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_limit_of_the_fleet_is_divided_by_those_who_live_and_kept_while_the_ledger_is_away() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_prepared(&postgres, "2s", "", |rig| {
        rig.replace_settings("bucket = 'lhsm-sandbox'", SHARED);
    });
    has_share(&rig.log(), 1);
    let mut second = Another::start(&mut rig, "mover2", 2);
    let mut third = Another::start(&mut rig, "mover3", 3);
    for log in [rig.log(), second.log(), third.log()] {
        has_share(&log, 3);
    }
    third.kill();
    for log in [rig.log(), second.log()] {
        has_share(&log, 2);
    }
    postgres.stop();
    until(|| {
        let output = rig.run(&["status", "--movers", &address(&rig.log())]);
        text(&output).contains("the ledger is away").then_some(())
    });
    // Nobody can know of this one.
    second.kill();
    until(|| {
        let (_, metrics) = get(&rig, "/metrics");
        let lag = value(&metrics, "lhsmtool_s3_ledger_lag_seconds");
        lag.is_some_and(|seconds| seconds > 4.0).then_some(())
    });
    has_share(&rig.log(), 2);
    assert_eq!(get(&rig, "/fleet").0, 503, "nobody has looked for longer than a lease");
    // A successor that finds the ledger away knows whom its node saw last.
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    std::fs::remove_file(rig.log_path()).unwrap();
    rig.start();
    has_share(&with_address(|| rig.log()), 2);
    // And one's own limit is nobody else's.
    let config = rig.spawn().config;
    let usual = std::fs::read_to_string(&config).unwrap();
    replace(&config, &usual.replace("scope = 'fleet'", "scope = 'mover'")).unwrap();
    rig.daemon.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    has_share(&rig.log(), 1);
    postgres.resume();
    in_step(&rig, &rig.log());
    has_share(&rig.log(), 1);
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
}
