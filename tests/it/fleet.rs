//! Several movers, one report.

use lhsm_sandbox::process::Daemon;
use lhsm_sandbox::protocol::Tunable;

use crate::import::{count, json};
use crate::metrics::address;
use crate::rig::{PATIENCE, Rig, Setup, until};

const METRICS: &str = "[metrics]\nlisten = '127.0.0.1:0'\n";

fn rig() -> Rig {
    let setup = Setup::default();
    Rig::with(Setup {
        settings: format!("{METRICS}{}", setup.settings),
        ..setup
    })
}

/// A second mover of the same file system, on another mount as the coordinator sees it.
fn another(rig: &mut Rig) -> (Daemon, String) {
    let (spawn, log) = rig.second_mover();
    let daemon = spawn.start().unwrap();
    assert!(rig.client.wait_agents(2, PATIENCE).unwrap());
    (daemon, address(&std::fs::read_to_string(log).unwrap()))
}

fn fleet(rig: &Rig, movers: &str) -> serde_json::Value {
    let output = rig.run(&["status", "--json", "--movers", movers]);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("\"movers\"")).unwrap();
    serde_json::from_str(line).unwrap()
}

fn done(fleet: &serde_json::Value) -> u64 {
    let sums = fleet["sum"]["sums"].as_array().unwrap();
    sums.iter().map(|sum| count(sum, "done")).sum()
}

#[test]
fn two_movers_are_one_sum_and_of_one_that_is_killed_it_is_said() {
    let mut rig = rig();
    let (second, second_address) = another(&mut rig);
    let movers = format!("{},{second_address}", address(&rig.log()));
    let mount = rig.mount().display().to_string();
    for n in 0..120 {
        rig.file(&format!("f{n}"), b"data");
    }
    let line = json(&rig.run(&["archive", &mount, "--json"]));
    assert_eq!(count(&line, "done"), 120, "{line}");
    // The coordinator hears of an end before it is counted.
    until(|| (done(&fleet(&rig, &movers)) >= 120).then_some(()));
    let now = fleet(&rig, &movers);
    let of = |n: usize| count(&now["movers"][n]["now"]["sums"][0], "done");
    assert_eq!(of(0) + of(1), 120, "{now}");
    assert!(of(0) > 0 && of(1) > 0, "both have worked: {now}");

    // What the second one has in hand when it is killed is the coordinator's to give up.
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 500).unwrap();
    let gate = rig.store.faults().hold("PutObject");
    for n in 0..120 {
        rig.file(&format!("g{n}"), b"data");
    }
    let mut command = rig.command(&["archive", &mount, "--include", "g*", "--json"]);
    let job = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let in_hand = |fleet: &serde_json::Value, n: usize| {
        let now = &fleet["movers"][n]["now"];
        count(&now["running"], "archive") + count(&now["waiting"], "archive")
    };
    until(|| {
        let now = fleet(&rig, &movers);
        (in_hand(&now, 0) > 0 && in_hand(&now, 1) > 0).then_some(())
    });
    drop(second);
    let now = fleet(&rig, &movers);
    assert_eq!(
        (&now["movers"][0]["answers"], &now["movers"][1]["answers"]),
        (&true.into(), &false.into())
    );
    gate.release();
    let line = json(&job.wait_with_output().unwrap());
    assert!(count(&line, "done") > 0 && count(&line, "failed") > 0, "{line}");
    assert_eq!(count(&line, "done") + count(&line, "failed"), 120, "{line}");
}

#[test]
fn the_report_of_a_job_has_the_movers_reasons() {
    let mut rig = rig();
    let mount = rig.mount().display().to_string();
    rig.file("good", b"data");
    rig.file("bad", b"data");
    rig.store.faults().fail("PutObject", 403, "AccessDenied", 1);
    let spawn = rig.spawn();
    let text = std::fs::read_to_string(&spawn.config).unwrap();
    let own = rig.dir.path().join("with-fleet.toml");
    std::fs::write(&own, format!("{text}[fleet]\nmovers = ['{}']\n", address(&rig.log()))).unwrap();
    let mut command = std::process::Command::new(&spawn.program);
    command.arg("--config").arg(&own).args(["archive", &mount, "--json"]);
    let line = json(&command.env("LD_PRELOAD", &spawn.library).output().unwrap());
    assert_eq!((count(&line, "done"), count(&line, "failed")), (1, 1), "{line}");
    let id = line["id"].as_str().unwrap();
    let report = rig.run(&["jobs", "report", id, "--failed", "--format", "json"]);
    let row: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.contains("AccessDenied"), "{row}");
    assert_eq!(row["errno"], libc::EACCES);
}

#[test]
fn a_mover_that_can_not_be_one_is_a_usage_error() {
    let rig = Rig::without_daemon(Setup::default());
    let wrong = rig.run(&["status", "--movers", "http://mover1"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("mover1:9818"));
}
