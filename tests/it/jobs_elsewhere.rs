//! Bulk jobs of several nodes and a real PostgreSQL: seen, stopped and gone on with from another node than their own.

use std::process::{Child, Command, Output, Stdio};

use lhsm_sandbox::process::Spawn;
use lhsm_sandbox::protocol::Action;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::import::{count, json};
use crate::postgres::Postgres;
use crate::rig::{BUCKET, PATIENCE, Rig, until};
use crate::takeover::rig_with;

/// Another node, with a state directory of its own and no daemon.
struct Node(Spawn);

impl Node {
    fn new(rig: &Rig, name: &str) -> Self {
        Self(rig.mover_called(name))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.0.command(arguments).output().unwrap()
    }

    fn begin(&self, arguments: &[&str]) -> Child {
        started(self.0.command(arguments))
    }

    /// All jobs, as this node lists them.
    fn jobs(&self) -> Vec<Value> {
        let output = self.run(&["jobs", "list", "--json"]);
        assert!(output.status.success(), "{}", text(&output));
        lines(&output)
    }

    /// The only one.
    fn job(&self) -> Option<Value> {
        let mut jobs = self.jobs();
        assert!(jobs.len() <= 1, "{jobs:?}");
        jobs.pop()
    }

    /// Until that one has asked for so many files that have not ended.
    fn at_work(&self, files: u64) -> Value {
        until(|| self.job().filter(|job| job["active"].as_u64() == Some(files)))
    }
}

fn started(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn name(job: &Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}

fn signal(job: &Child, signal: Signal) {
    kill(Pid::from_raw(job.id().try_into().unwrap()), signal).unwrap();
}

/// How often an archive was asked for.
fn asked(rig: &mut Rig) -> usize {
    let actions = rig.client.actions().unwrap();
    actions.iter().filter(|action| action.action == Action::Archive).count()
}

fn settled(rig: &mut Rig) {
    until(|| (rig.client.pending().unwrap() == 0).then_some(()));
}

fn files(rig: &mut Rig, count: usize) -> String {
    for n in 0..count {
        rig.file(&format!("d/f{n:03}"), format!("data {n}").as_bytes());
    }
    rig.mount().join("d").display().to_string()
}

#[test]
fn a_job_is_seen_and_cancelled_from_another_node() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_with(&postgres, "2s", "");
    let other = Node::new(&rig, "mover2");
    let tree = files(&mut rig, 40);
    let gate = rig.store.faults().hold("PutObject");
    let job = started(rig.command(&["archive", &tree, "--json"]));
    let seen = other.at_work(40);
    let id = name(&seen);
    assert_eq!((&seen["state"], &seen["mover"]), (&"running".into(), &"mover1".into()));
    assert!(
        seen["renewals"].as_u64() > Some(0) && seen["node"].is_string(),
        "{seen}"
    );
    let status = text(&other.run(&["status"]));
    assert!(
        status.contains(&format!("{id} (running): 0 of 40")) && status.contains("; on "),
        "{status}"
    );
    // The movers are told behind it.
    let one = lines(&other.run(&["status", &id, "--json"]));
    assert_eq!(
        (&one[0]["id"], &one[0]["state"]),
        (&id.as_str().into(), &"running".into()),
        "{one:?}"
    );
    let own = lines(&rig.run(&["jobs", "list", "--json"]));
    assert_eq!(own.len(), 1, "to its node it is its own, and no other one's: {own:?}");
    let shown = other.run(&["jobs", "show", &id]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["spec"]["roots"][0], tree.as_str(), "{shown}");
    let refused = other.run(&["jobs", "resume", &id]);
    assert!(
        !refused.status.success() && text(&refused).contains("runs on node"),
        "{}",
        text(&refused)
    );

    let cancelled = other.run(&["jobs", "cancel", &id]);
    assert!(
        cancelled.status.success() && text(&cancelled).contains("stopped on node"),
        "{}",
        text(&cancelled)
    );
    let output = job.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(
        text(&output).contains("40 actions were asked to be cancelled"),
        "{}",
        text(&output)
    );
    settled(&mut rig);
    gate.release();
    assert_eq!(rig.keys(), Vec::<String>::new());
    assert_eq!(other.job().unwrap()["state"], "cancelled");
    let again = other.run(&["jobs", "cancel", &id]);
    assert!(text(&again).contains("was cancelled before"), "{}", text(&again));
    let report = other.run(&["jobs", "report", &id]);
    assert!(
        text(&report).contains("is on the node that did it"),
        "{}",
        text(&report)
    );
}

#[test]
fn the_job_of_a_node_that_was_killed_is_gone_on_with_by_one_other_node_and_nothing_is_done_twice() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_with(&postgres, "2s", "");
    let (second, third) = (Node::new(&rig, "mover2"), Node::new(&rig, "mover3"));
    files(&mut rig, 60);
    let names: String = (0..60)
        .map(|n| format!("{}\n", rig.mount().join(format!("d/f{n:03}")).display()))
        .collect();
    let list = rig.dir.path().join("list");
    std::fs::write(&list, names).unwrap();
    let list = list.display().to_string();
    let gate = rig.store.faults().hold_after("PutObject", 10);
    let mut job = started(rig.command(&["archive", "--from-file", &list, "--window", "20", "--json"]));
    assert!(gate.wait_held_blocking(4, PATIENCE));
    let id = name(&second.at_work(20));
    signal(&job, Signal::SIGKILL);
    job.wait().unwrap();
    gate.release();
    settled(&mut rig);
    let before = asked(&mut rig);
    assert!((20..60).contains(&before), "{before}");
    assert_eq!(
        second.job().unwrap()["phase"],
        "running",
        "nobody has said that it is over"
    );
    // Its node knows.
    rig.run(&["jobs", "list"]);
    assert_eq!(second.job().unwrap()["state"], "stopped");

    let gate = rig.store.faults().hold("PutObject");
    let mut runs = [&second, &third].map(|node| node.begin(&["jobs", "resume", &id, "--json"]));
    let lost = until(|| runs.iter_mut().position(|run| run.try_wait().unwrap().is_some()));
    let [one, two] = runs;
    let (lost, won) = if lost == 0 { (one, two) } else { (two, one) };
    let lost = lost.wait_with_output().unwrap();
    assert!(
        !lost.status.success() && text(&lost).contains("runs on node"),
        "{}",
        text(&lost)
    );
    assert!(gate.wait_held_blocking(1, PATIENCE));
    gate.release();
    let won = won.wait_with_output().unwrap();
    let line = json(&won);
    assert_eq!(
        (count(&line, "done") + count(&line, "already"), count(&line, "failed")),
        (60, 0),
        "{line}"
    );
    assert_eq!((asked(&mut rig), rig.keys().len()), (60, 60));
    assert_eq!(rig.store.stats().count("PutObject"), 60);
    // The node that began it sees whose it is now, and names that nobody needs any more are gone.
    let seen = lines(&rig.run(&["jobs", "list", "--json"]));
    assert_eq!((seen.len(), &seen[0]["state"]), (1, &"ended".into()), "{seen:?}");
    assert_ne!(seen[0]["mover"], "mover1");
    assert_eq!(postgres.number("SELECT count(*) FROM lhsmtool_s3.job_list"), 0);
    rig.assert_settled();
}

#[test]
fn a_job_whose_process_stands_still_is_taken_over_and_that_one_stops_when_it_comes_back() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_with(&postgres, "2s", "");
    let other = Node::new(&rig, "mover2");
    let tree = files(&mut rig, 60);
    let gate = rig.store.faults().hold("PutObject");
    let job = started(rig.command(&["archive", &tree, "--window", "20", "--json"]));
    assert!(gate.wait_held_blocking(4, PATIENCE));
    other.at_work(20);
    signal(&job, Signal::SIGSTOP);
    gate.release();
    settled(&mut rig);
    assert_eq!(asked(&mut rig), 20);
    let id = name(&until(|| other.job().filter(|job| job["state"] == "silent")));

    let gate = rig.store.faults().hold("PutObject");
    let began = std::time::Instant::now();
    let resumed = other.begin(&["jobs", "resume", &id, "--json"]);
    assert!(gate.wait_held_blocking(4, PATIENCE));
    let took = began.elapsed().as_secs_f64();
    assert!(
        took >= 32.0,
        "it was watched for {took:.1} s: a lease and what an outage takes"
    );
    until(|| (asked(&mut rig) == 40).then_some(()));
    // Each file of its window is done by now: it would ask for the next ones.
    signal(&job, Signal::SIGCONT);
    let output = job.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("goes on on node"), "{}", text(&output));
    assert_eq!(asked(&mut rig), 40, "the former one has asked for something");
    gate.release();
    let output = resumed.wait_with_output().unwrap();
    assert!(text(&output).contains("watching for 32 s"), "{}", text(&output));
    let line = json(&output);
    let counts = ["done", "already", "failed"].map(|what| count(&line, what));
    assert_eq!(counts, [40, 20, 0], "{line}");
    assert_eq!((asked(&mut rig), rig.store.objects(BUCKET).len()), (60, 60));
    assert_eq!(rig.store.stats().count("PutObject"), 60);
    assert_eq!(lines(&rig.run(&["jobs", "list", "--json"]))[0]["state"], "ended");
}

#[test]
fn without_its_ledger_a_job_goes_on_and_others_learn_of_it_when_that_is_back() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_with(&postgres, "2s", "");
    let other = Node::new(&rig, "mover2");
    let tree = files(&mut rig, 20);
    let gate = rig.store.faults().hold("PutObject");
    postgres.stop();
    let job = started(rig.command(&["archive", &tree, "--json"]));
    assert!(gate.wait_held_blocking(4, PATIENCE), "it does not wait for the ledger");
    let status = text(&other.run(&["status"]));
    assert!(
        status.contains("jobs of other nodes are not known: can't reach PostgreSQL"),
        "{status}"
    );
    postgres.resume();
    assert_eq!(other.at_work(20)["state"], "running");
    postgres.stop();
    gate.release();
    let output = job.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(count(&json(&output), "done"), 20);
    assert!(
        text(&output).contains("was not told how the job ended"),
        "{}",
        text(&output)
    );
    postgres.resume();
    until(|| other.job().filter(|job| job["state"] == "silent"));
    rig.run(&["status"]);
    let seen = other.job().unwrap();
    assert_eq!((&seen["state"], count(&seen, "done")), (&"ended".into(), 20), "{seen}");
}

#[test]
fn a_job_goes_on_on_its_own_node_without_a_ledger_and_stops_when_another_one_has_it() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_with(&postgres, "2s", "");
    let other = Node::new(&rig, "mover2");
    let tree = files(&mut rig, 40);
    let gate = rig.store.faults().hold("PutObject");
    let mut job = started(rig.command(&["archive", &tree, "--window", "10", "--json"]));
    assert!(gate.wait_held_blocking(4, PATIENCE));
    let id = name(&other.at_work(10));
    signal(&job, Signal::SIGTERM);
    assert_eq!(job.wait().unwrap().code(), Some(3));
    assert_eq!(other.job().unwrap()["state"], "stopped");
    let taken = other.begin(&["jobs", "resume", &id, "--json"]);
    until(|| {
        let row = format!("SELECT mover, state FROM lhsmtool_s3.job WHERE id = '{id}'");
        (postgres.rows(&row) == ["mover2|1"]).then_some(())
    });
    postgres.stop();
    let own = started(rig.command(&["jobs", "resume", &id, "--json"]));
    postgres.resume();
    let output = own.wait_with_output().unwrap();
    let words = text(&output);
    // It began before the ledger was back, or after that.
    assert!(
        !output.status.success() && (words.contains("goes on on node") || words.contains("runs on node")),
        "{words}"
    );
    gate.release();
    let line = json(&taken.wait_with_output().unwrap());
    assert_eq!(count(&line, "done") + count(&line, "already"), 40, "{line}");
    assert_eq!(rig.store.stats().count("PutObject"), 40);
}
