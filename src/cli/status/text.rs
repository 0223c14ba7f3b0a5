//! Plain lines and JSON.

use std::io::{self, Write};

use super::report::{Report, totals};
use crate::cli::jobs::{bytes, line};
use crate::fleet::{Mover, PeerReport, Running};

/// Of longest running actions.
const SHOWN: usize = 5;

pub(super) fn json(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    for job in &report.jobs {
        writeln!(out, "{}", serde_json::to_string(job)?)?;
    }
    for job in &report.far {
        writeln!(out, "{}", job.json())?;
    }
    if report.movers.is_empty() && report.coordinators.is_empty() && report.stopped.is_empty() {
        return Ok(());
    }
    let row = |(name, mover): &(String, Result<Mover, String>)| match mover {
        Ok(mover) => serde_json::json!({"mover": name, "answers": true, "now": mover}),
        Err(error) => serde_json::json!({"mover": name, "answers": false, "error": error}),
    };
    let movers: Vec<_> = report.movers.iter().map(row).collect();
    let line = serde_json::json!({
        "movers": movers,
        "sum": report.sum(),
        "coordinators": report.coordinators,
        "stopped": report.stopped,
    });
    writeln!(out, "{line}")
}

pub(super) fn plain(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    for job in &report.jobs {
        writeln!(out, "{} ({}): {}", job.id, job.phase.word(), line(job))?;
    }
    for job in &report.far {
        writeln!(out, "{} ({}): {}", job.id(), job.word(), job.line())?;
    }
    if let Some(error) = &report.far_error {
        writeln!(out, "jobs of other nodes are not known: {error}")?;
    }
    if report.jobs.is_empty() && report.far.is_empty() {
        writeln!(out, "no job runs; lhsmtool-s3 jobs list has those that have ended")?;
    }
    if !report.movers.is_empty() {
        writeln!(out, "{}", HEAD.join(" "))?;
        for (name, mover) in report.answered() {
            writeln!(out, "{}", row(name, mover).join(" "))?;
        }
        writeln!(out, "{}", row("all that answer", &report.sum()).join(" "))?;
        for (name, error) in report.silent() {
            writeln!(out, "{name} does not answer: {error}")?;
        }
        for (name, _) in report.answered().filter(|(_, mover)| mover.draining) {
            writeln!(
                out,
                "{name} drains: it takes nothing new, and ends when what it has is done"
            )?;
        }
        for (name, mover) in report.answered() {
            for mdt in &mover.silent_mdts {
                writeln!(
                    out,
                    "{name}: {mdt} does not answer; what is to be done for its files waits"
                )?;
            }
        }
        for (name, mover) in report.answered() {
            if let Some(ledger) = &mover.ledger {
                let error = ledger.error.as_deref().map(|error| format!(": {error}"));
                writeln!(
                    out,
                    "{name}: the ledger is {}, {:.1} s behind{}",
                    ledger.state,
                    ledger.lag,
                    error.unwrap_or_default()
                )?;
                if ledger.postponed > 0 {
                    writeln!(
                        out,
                        "{name}: {} actions wait until no other mover can have taken them over",
                        ledger.postponed
                    )?;
                }
                if ledger.offered > 0 {
                    writeln!(
                        out,
                        "{name}: {} actions are offered to other movers, for it does not reach their MDT or store",
                        ledger.offered
                    )?;
                }
                for peer in ledger.peers.iter().filter(|peer| peer.state == "dead") {
                    dead(out, name, peer)?;
                }
                for (mover, actions) in &ledger.waits_for {
                    writeln!(
                        out,
                        "{name}: {actions} waiting for {mover} to be done with the same files"
                    )?;
                }
            }
        }
        for (archive, habits) in report.dialects() {
            writeln!(
                out,
                "archive {archive}: its store is not as S3 in: {}; docs/stores.md says what follows",
                habits.into_iter().collect::<Vec<_>>().join(", ")
            )?;
        }
        for sum in report.sum().sums {
            writeln!(
                out,
                "archive {} {}: {} done ({}), {} failed, {} cancelled",
                sum.archive,
                sum.class,
                sum.done,
                bytes(sum.bytes),
                sum.failed,
                sum.cancelled
            )?;
        }
        for (name, running) in report.longest(SHOWN) {
            writeln!(out, "{name}: {}", at_work(running))?;
        }
    }
    for stopped in &report.stopped {
        for waiting in &stopped.waiting {
            writeln!(out, "the mover of {} was stopped: {waiting}", stopped.mount)?;
        }
    }
    for mdt in &report.coordinators {
        let count = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
        writeln!(
            out,
            "coordinator of {}: {} archives, {} restores, {} removes; max_requests {}",
            mdt.mdt,
            count(mdt.archives),
            count(mdt.restores),
            count(mdt.removes),
            count(mdt.max_requests)
        )?;
    }
    Ok(())
}

/// What a mover says of a dead one.
fn dead(out: &mut dyn Write, name: &str, peer: &PeerReport) -> io::Result<()> {
    let mover = &peer.mover;
    if peer.fenced {
        return writeln!(
            out,
            "{name}: {mover} is dead, and its node is fenced; all that it had in hand is taken over"
        );
    }
    writeln!(
        out,
        "{name}: {mover} is dead; what it had in hand is taken over, its archives and removes after a while"
    )?;
    if let Some(left) = peer.until_eviction {
        writeln!(
            out,
            "{name}: MDT coordinators wait for the eviction of {mover}, about {left:.0} s left, unless its node lives"
        )?;
    }
    match (&peer.fence_error, &peer.fencer) {
        (Some(error), _) => writeln!(out, "{name}: the fence of {mover} fails, and is tried again: {error}"),
        (None, Some(fencer)) => writeln!(out, "{name}: {fencer} sees to the fence of {mover}"),
        (None, None) => Ok(()),
    }
}

/// Of the table of movers.
pub(super) const HEAD: [&str; 8] = [
    "mover               ",
    "waiting",
    "running",
    "    done",
    "  failed",
    "     bytes",
    "    bytes/s",
    "oldest",
];

pub(super) fn row(name: &str, mover: &Mover) -> [String; 8] {
    let (done, failed, moved) = totals(mover);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let rate = mover.bytes_per_second as u64;
    let oldest = mover
        .oldest_waiting
        .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s"));
    [
        format!("{name:20}"),
        format!("{:7}", mover.waiting.values().sum::<u64>()),
        format!("{:7}", mover.running.values().sum::<u64>()),
        format!("{done:8}"),
        format!("{failed:8}"),
        format!("{:>10}", bytes(moved)),
        format!("{:>11}", format!("{}/s", bytes(rate))),
        format!("{oldest:>6}"),
    ]
}

/// A running action.
pub(super) fn at_work(running: &Running) -> String {
    format!(
        "{} for {:.0} s, {} so far: {}",
        running.verb,
        running.seconds,
        bytes(running.bytes),
        running.path.as_deref().unwrap_or(&running.fid)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::report::example;

    #[test]
    fn the_report_has_a_row_for_each_mover_one_for_all_and_says_who_is_silent() {
        let mut out = Vec::new();
        plain(&mut out, &example()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let has = |wanted: &str| assert!(text.contains(wanted), "no '{wanted}' in\n{text}");
        has("restore-1 (silent): how far it is that node knows; on node7, told 1m 30s ago");
        has("jobs of other nodes are not known: PostgreSQL at db1 did not answer");
        has("mover2:9818");
        has("all that answer         1400      16     4010        8");
        has("mover3:9818 does not answer: connection refused");
        has("mover1:9818: MDT0001 does not answer");
        has("mover1:9818: the ledger is away, 12.0 s behind: connection refused");
        has("mover1:9818: 3 actions wait until no other mover can have taken them over");
        has("mover1:9818: 3 waiting for mover2 to be done with the same files");
        has("archive 1 restore: 4000 done (3.9 GiB), 4 failed, 0 cancelled");
        has(
            "the mover of /mnt/lustre was stopped: 40 actions, 7 of them readers' restores, wait until a mover for archive id 1",
        );
        has("mover1:9818: restore for 61 s, 5.0 GiB so far: lab/run7/big.h5");
    }

    #[test]
    fn of_a_dead_mover_it_is_said_who_waits_for_its_eviction_and_how_its_fence_is() {
        let words = |peer: &PeerReport| {
            let mut out = Vec::new();
            dead(&mut out, "mover1:9818", peer).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut peer = PeerReport {
            mover: "node3".into(),
            state: "dead".into(),
            until_eviction: Some(39.7),
            fencer: Some("node2".into()),
            ..PeerReport::default()
        };
        let text = words(&peer);
        assert!(
            text.contains("MDT coordinators wait for the eviction of node3, about 40 s left"),
            "{text}"
        );
        assert!(text.ends_with("node2 sees to the fence of node3\n"), "{text}");
        peer.fence_error = Some("exit status: 255: no route to host".into());
        assert!(words(&peer).ends_with("tried again: exit status: 255: no route to host\n"));
        peer.fenced = true;
        let text = words(&peer);
        assert!(
            text.lines().count() == 1 && text.contains("its node is fenced"),
            "{text}"
        );
    }

    #[test]
    fn json_is_one_line_for_the_movers() {
        let mut out = Vec::new();
        json(&mut out, &example()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let (job, movers) = text.split_once('\n').unwrap();
        let job: serde_json::Value = serde_json::from_str(job).unwrap();
        assert_eq!((&job["node"], &job["state"]), (&"node7".into(), &"silent".into()));
        let line: serde_json::Value = serde_json::from_str(movers).unwrap();
        assert_eq!(line["movers"][2]["answers"], false);
        assert_eq!(line["sum"]["sums"][1]["done"], 4000);
    }
}
