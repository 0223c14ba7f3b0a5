//! What Prometheus and a load balancer see.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use lhsm_sandbox::protocol::Action;

use crate::rig::{PATIENCE, Rig, Setup, until};

/// Only whoever has one tells of it, whether it can be reached or not.
const LEDGER: &str = "[ledger]\nurl = 'postgresql://lhsm@%2Fnonexistent/ledger'\n";

fn rig() -> Rig {
    rig_with("")
}

fn rig_with(more: &str) -> Rig {
    let setup = Setup::default();
    let rig = Rig::with(Setup {
        settings: format!("[metrics]\nlisten = '127.0.0.1:0'\n{more}{}", setup.settings),
        ..setup
    });
    // The coordinator knows of the registration before the daemon does.
    until(|| (get(&rig, "/readyz").0 == 200).then_some(()));
    rig
}

/// The port is the kernel's choice; the log tells it.
pub(crate) fn address(log: &str) -> String {
    let line = log.lines().find(|line| line.contains("127.0.0.1:")).unwrap();
    let at = line.find("127.0.0.1:").unwrap();
    let port: String = line[at + 10..].chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}")
}

/// A log that has it: it is written by a thread of its own.
pub(crate) fn with_address(log: impl Fn() -> String) -> String {
    until(|| {
        let log = log();
        log.contains(" metrics address=127.0.0.1:").then_some(log)
    })
}

pub(crate) fn get(rig: &Rig, path: &str) -> (u16, String) {
    get_at(&address(&with_address(|| rig.log())), path)
}

pub(crate) fn get_at(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let accept = "application/openmetrics-text; version=1.0.0";
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

const DONE: &str = "lhsmtool_s3_actions_total{archive=\"1\",class=\"archive\",outcome=\"done\"}";

/// The coordinator hears of an end before it is counted.
fn done(rig: &Rig, count: u64) -> String {
    until(|| {
        let (_, text) = get(rig, "/metrics");
        (value(&text, DONE) == count).then_some(text)
    })
}

/// 0 before there is one.
pub(crate) fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    // Gauges have a fraction.
    line.map_or(0, |line| line.trim().trim_end_matches(".0").parse().unwrap())
}

#[test]
fn metrics_tell_what_waits_runs_and_was_done_while_the_store_is_silent() {
    let mut rig = rig();
    let fid = rig.file("first", b"12345");
    rig.archive(fid);
    let gate = rig.store.faults().hold("PutObject");
    let slow = rig.file("slow", b"data");
    rig.client.request(Action::Archive, 1, &[slow]).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    assert_eq!(get(&rig, "/metrics").0, 200);
    let text = done(&rig, 1);
    assert_eq!(value(&text, "lhsmtool_s3_actions_running{class=\"archive\"}"), 1);
    assert_eq!(
        value(&text, "lhsmtool_s3_bytes_total{archive=\"1\",class=\"archive\"}"),
        5
    );
    assert_eq!(value(&text, "lhsmtool_s3_workers_busy"), 1);
    assert_eq!(value(&text, "lhsmtool_s3_s3_requests_in_flight{archive=\"1\"}"), 1);
    let puts = "lhsmtool_s3_s3_requests_total{archive=\"1\",operation=\"PutObject\",status=\"200\"}";
    // Two more than one: what the store does with conditions was tried at the start.
    assert_eq!(value(&text, puts), 3);
    assert_eq!(value(&text, "lhsmtool_s3_ready"), 1);
    assert_eq!(value(&text, "lhsmtool_s3_registrations_total"), 1);
    assert!(text.ends_with("# EOF\n"), "{text}");
    gate.release();
    rig.settle(slow);
    let text = done(&rig, 2);
    assert_eq!(value(&text, puts), 4);
    let took = "lhsmtool_s3_action_seconds_bucket{le=\"+Inf\",archive=\"1\",class=\"archive\"}";
    assert_eq!(value(&text, took), 2, "{text}");
    assert_eq!(value(&text, "lhsmtool_s3_s3_requests_in_flight{archive=\"1\"}"), 0);
    assert_eq!(
        value(&text, "lhsmtool_s3_bytes_total{archive=\"1\",class=\"archive\"}"),
        9
    );
}

#[test]
fn health_and_readiness_have_addresses_of_their_own_and_nothing_else_has() {
    let rig = rig();
    assert_eq!(get(&rig, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(&rig, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(&rig, "/secrets").0, 404);
}

#[test]
fn every_metric_is_in_the_documentation() {
    let rig = rig_with(LEDGER);
    let documented = include_str!("../../docs/metrics.md");
    let (_, text) = get(&rig, "/metrics");
    let mut names = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(
            documented.contains(&format!("`{name}")),
            "{name} is not in docs/metrics.md"
        );
        names += 1;
    }
    assert_eq!(documented.matches("| `lhsmtool_s3_").count(), names, "{text}");
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_is_one_of_ours() {
    let rig = rig_with(LEDGER);
    let (_, text) = get(&rig, "/metrics");
    let ours: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_whitespace().next())
        .collect();
    for (file, content) in [
        ("grafana.json", include_str!("../../config/grafana.json")),
        ("alerts.yml", include_str!("../../config/alerts.yml")),
        ("alerts.test.yml", include_str!("../../config/alerts.test.yml")),
    ] {
        let mut used = 0;
        for (at, _) in content.match_indices("lhsmtool_s3_") {
            let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            let name: String = content[at..].chars().take_while(word).collect();
            let suffixes = ["", "_total", "_bucket", "_sum", "_count"];
            let known = suffixes
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|base| ours.contains(&base)));
            assert!(known, "{file}: '{name}' is not served");
            used += 1;
        }
        assert!(used > 4, "{file}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../../config/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(
        panels
            .iter()
            .all(|panel| panel["targets"][0]["expr"].is_string() && panel["gridPos"].is_object())
    );
}
