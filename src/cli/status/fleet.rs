//! `lhsmtool-s3 status --fleet`: all movers of the ledger as one. The mover of this node has seen the others; without one the
//! command looks itself.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::Failure;
use crate::cli::jobs::bytes;
use crate::cli::session::runtime;
use crate::config::Settings;
use crate::fleet::{Ailment, Fleet, FleetReport, SeenMover, Telling};
use crate::ledger;

/// Between two reports.
const PAUSE: Duration = Duration::from_secs(10);
const PAUSE_OF_JSON: Duration = Duration::from_secs(1);

pub(super) fn run(settings: &Settings, goes_on: bool, is_json: bool) -> Result<(), Failure> {
    loop {
        let report = read(settings)?;
        let mut out = BufWriter::new(crate::cli::output::Stdout);
        match is_json {
            true => json(&mut out, &report)?,
            false => plain(&mut out, &report)?,
        }
        out.flush()?;
        if !goes_on {
            return Ok(());
        }
        drop(out);
        std::thread::park_timeout(if is_json { PAUSE_OF_JSON } else { PAUSE });
    }
}

fn read(settings: &Settings) -> Result<FleetReport, Failure> {
    let Some(options) = &settings.ledger else {
        return Err(
            "status --fleet shows the movers of a ledger, and the configuration has none: set `url` in section [ledger]. \
             Without one, status shows those in `movers` of section [fleet]"
                .into(),
        );
    };
    if let Some(own) = settings.metrics.filter(|own| own.port() != 0) {
        let asked = Fleet::new(vec![reachable(own).to_string()]).ask_for_all().pop();
        // Another mount's daemon may be there, with a ledger of its own.
        if let Some((_, Ok(report))) = asked
            && report.ledger == options.address.place()
        {
            return Ok(report);
        }
    }
    let runtime = runtime()?;
    Ok(runtime.block_on(Box::pin(ledger::see(options)))?)
}

/// Where this node finds who listens there.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    listen
}

/// A mover, and what is wrong with it.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    seen: &'a SeenMover,
    sick: Vec<Ailment>,
}

fn json(out: &mut dyn Write, report: &FleetReport) -> io::Result<()> {
    let rows = report.movers.iter().map(|seen| Row {
        seen,
        sick: report.ailments(seen),
    });
    let line = serde_json::json!({
        "ledger": report.ledger,
        "observer": report.observer,
        "age": report.age,
        "lease": report.lease,
        "movers": rows.collect::<Vec<_>>(),
        "by_state": report.by_state(),
        "sum": report.sum(),
    });
    writeln!(out, "{line}")
}

/// Of the table.
const HEAD: [&str; 11] = [
    "mover               ",
    "state   ",
    "ids     ",
    "release ",
    "node        ",
    "   renewed",
    "  restores",
    "  archives",
    "   removes",
    "actions/s",
    "     bytes/s",
];

fn plain(out: &mut dyn Write, report: &FleetReport) -> io::Result<()> {
    let by = match &report.observer {
        Some(mover) => format!("as {mover} saw it {:.1} s ago", report.age),
        None => "as it is now".to_owned(),
    };
    writeln!(out, "the ledger {}, {by}; actions are waiting/running", report.ledger)?;
    writeln!(out, "{}", HEAD.join(" "))?;
    for mover in &report.movers {
        writeln!(out, "{}", row(mover).join(" ").trim_end())?;
    }
    let sum = report.sum();
    writeln!(out, "{}", sums("all that live", &sum).join(" "))?;
    let mut is_well = true;
    for mover in &report.movers {
        for ailment in report.ailments(mover) {
            is_well = false;
            writeln!(out, "{}: {}", mover.mover, ailment.words)?;
        }
    }
    if is_well {
        writeln!(out, "nothing is wrong with any of them")?;
    }
    Ok(())
}

fn row(mover: &SeenMover) -> [String; 11] {
    let ids: Vec<_> = mover.archives.iter().map(u32::to_string).collect();
    let renewed = mover
        .renewed
        .map_or_else(|| "not seen".to_owned(), |seconds| format!("{seconds:.1} s"));
    // What one that does not live had in hand is others'.
    let told = mover.told.as_ref().filter(|_| mover.state.is_up());
    let [restores, archives, removes, actions, moved] = numbers(told);
    [
        format!("{:20}", mover.mover),
        format!("{:8}", mover.state.word()),
        format!("{:8}", ids.join(",")),
        format!("{:8}", mover.release),
        format!("{:12}", mover.node.as_deref().unwrap_or("?")),
        format!("{renewed:>10}"),
        restores,
        archives,
        removes,
        actions,
        moved,
    ]
}

fn sums(name: &str, sum: &Telling) -> [String; 11] {
    let [restores, archives, removes, actions, moved] = numbers(Some(sum));
    let blank = |n: usize| " ".repeat(n);
    [
        format!("{name:20}"),
        blank(8),
        blank(8),
        blank(8),
        blank(12),
        blank(10),
        restores,
        archives,
        removes,
        actions,
        moved,
    ]
}

fn numbers(told: Option<&Telling>) -> [String; 5] {
    let verb = |verb: &str| {
        let count = told.map(|told| {
            let of = |counts: &BTreeMap<String, u64>| counts.get(verb).copied().unwrap_or_default();
            format!("{}/{}", of(&told.waiting), of(&told.running))
        });
        format!("{:>10}", count.unwrap_or_else(|| "-".to_owned()))
    };
    let actions = told.map(|told| format!("{:.1}", told.actions_per_second));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let moved = told.map(|told| {
        format!(
            "{}/s",
            bytes((told.upload_per_second + told.download_per_second) as u64)
        )
    });
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        verb("restore"),
        verb("archive"),
        verb("remove"),
        format!("{:>9}", or_none(actions)),
        format!("{:>12}", or_none(moved)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::SeenState;

    fn example() -> FleetReport {
        let mover = |name: &str, state| SeenMover {
            mover: name.into(),
            state,
            node: Some("node1".into()),
            release: "0.9.0".into(),
            archives: vec![1, 2],
            renewed: Some(1.5),
            told: Some(Telling {
                ready: true,
                waiting: [("restore".to_owned(), 700)].into(),
                running: [("restore".to_owned(), 8)].into(),
                actions_per_second: 12.0,
                download_per_second: 2e6,
                ..Telling::default()
            }),
            ..SeenMover::default()
        };
        let mut older = mover("mover3", SeenState::Serving);
        (older.told, older.release) = (None, "0.8.0".into());
        FleetReport {
            ledger: "db1:5432/lhsm".into(),
            observer: Some("mover1".into()),
            age: 2.0,
            lease: 20.0,
            movers: vec![
                mover("mover1", SeenState::Serving),
                mover("mover2", SeenState::Dead),
                older,
            ],
        }
    }

    #[test]
    fn each_mover_has_a_row_and_what_is_wrong_with_it_a_line() {
        let mut out = Vec::new();
        plain(&mut out, &example()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let has = |wanted: &str| assert!(text.contains(wanted), "no '{wanted}' in\n{text}");
        has("the ledger db1:5432/lhsm, as mover1 saw it 2.0 s ago");
        has("mover1               serving  1,2      0.9.0    node1             1.5 s      700/8");
        has("mover2               dead ");
        has("mover2: is dead; what it had in hand is taken over");
        has("mover3: unknown (older release)");
        has("mover3: is of a former release, 0.8.0; mover1 is of 0.9.0");
        let sum = text.lines().find(|line| line.starts_with("all that live")).unwrap();
        assert!(
            sum.contains("700/8") && !sum.contains("1400"),
            "the dead one counts no more: {sum}"
        );
        let widths: Vec<_> = HEAD.iter().map(|title| title.len()).collect();
        let row = row(&example().movers[0]).map(|cell| cell.len());
        assert_eq!(row.to_vec(), widths);
    }

    #[test]
    fn json_has_the_same_in_one_line() {
        let mut out = Vec::new();
        json(&mut out, &example()).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["movers"][0]["told"]["waiting"]["restore"], 700);
        assert_eq!(line["movers"][1]["sick"][0]["kind"], "dead");
        assert_eq!(line["movers"][2]["told"], serde_json::Value::Null);
        assert_eq!(
            (&line["by_state"]["dead"], &line["sum"]["running"]["restore"]),
            (&1.into(), &8.into())
        );
    }

    #[test]
    fn who_listens_everywhere_is_found_on_loopback() {
        let found = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(found("0.0.0.0:9818"), "127.0.0.1:9818");
        assert_eq!(found("[::]:9818"), "[::1]:9818");
        assert_eq!(found("10.0.0.7:9818"), "10.0.0.7:9818");
    }
}
