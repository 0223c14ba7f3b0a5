//! All movers of the ledger in the metrics of each: one exporter is enough to see that another mover is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::TelemetrySources;
use super::metrics::{FamilySink, Labels};
use crate::fleet::{FleetReport, SeenMover, SeenState, Telling};

/// Movers that have series of their own, the first ones by name; all are counted.
const MOST: usize = 256;

impl TelemetrySources {
    /// Nothing where there is no ledger, and no mover while it is away: then nobody knows.
    pub(super) fn fleet(&self, to: &mut FamilySink<'_>) -> fmt::Result {
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        let report = ledger.fleet();
        let counts = report.as_ref().map(FleetReport::by_state).unwrap_or_default();
        to.gauges(
            "fleet_movers",
            "Movers that the ledger has, by state: serving, draining, silent, dead or ended",
            counts
                .into_iter()
                .map(|(state, n)| (vec![("state", state.word().to_owned())], number(n))),
        )?;
        let report = report.unwrap_or_default();
        let movers = report.movers.get(..report.movers.len().min(MOST)).unwrap_or_default();
        each(to, movers)?;
        told(to, movers)?;
        to.gauges(
            "fleet_mover_sick",
            "1 for each thing that is wrong with a mover",
            movers.iter().flat_map(|mover| {
                let kinds: BTreeSet<_> = report.ailments(mover).iter().map(|ailment| ailment.kind).collect();
                let with = |kind: &str| {
                    let mut labels = of(mover);
                    labels.push(("why", kind.to_owned()));
                    (labels, 1.0)
                };
                kinds.into_iter().map(with).collect::<Vec<_>>()
            }),
        )
    }
}

fn each(to: &mut FamilySink<'_>, movers: &[SeenMover]) -> fmt::Result {
    let flag = |is_so| if is_so { 1.0 } else { 0.0 };
    to.gauges(
        "fleet_mover_up",
        "1 for a mover that renews its row in the ledger, 0 for one that does not",
        movers.iter().map(|mover| (of(mover), flag(mover.state.is_up()))),
    )?;
    to.gauges(
        "fleet_mover_ended",
        "1 for a mover that ended in order and has not come back",
        movers
            .iter()
            .map(|mover| (of(mover), flag(mover.state == SeenState::Ended))),
    )?;
    to.gauges(
        "fleet_mover_renewed_seconds",
        "Since this mover saw that one renew its row, where it has",
        movers.iter().filter_map(|mover| Some((of(mover), mover.renewed?))),
    )
}

/// Of those that renew their rows: what others told last is old.
fn told(to: &mut FamilySink<'_>, movers: &[SeenMover]) -> fmt::Result {
    let telling = || {
        let up = movers.iter().filter(|mover| mover.state.is_up());
        up.filter_map(|mover| Some((mover, mover.told.as_ref()?)))
    };
    let by_verb = |of_told: fn(&Telling) -> &BTreeMap<String, u64>| {
        telling().flat_map(move |(mover, told)| {
            of_told(told).iter().map(move |(verb, n)| {
                let mut labels = of(mover);
                labels.push(("verb", verb.clone()));
                (labels, number(*n))
            })
        })
    };
    to.gauges(
        "fleet_mover_waiting",
        "Actions that wait at a mover, as it told last",
        by_verb(|told| &told.waiting),
    )?;
    to.gauges(
        "fleet_mover_running",
        "Actions that run at a mover, as it told last",
        by_verb(|told| &told.running),
    )?;
    to.gauges(
        "fleet_mover_actions_per_second",
        "Actions that ended at a mover a second, as it told last",
        telling().map(|(mover, told)| (of(mover), told.actions_per_second)),
    )?;
    to.gauges(
        "fleet_mover_bytes_per_second",
        "Bytes of objects that a mover sent and got a second, as it told last",
        telling().flat_map(|(mover, told)| {
            let directions = [
                ("upload", told.upload_per_second),
                ("download", told.download_per_second),
            ];
            directions.map(|(direction, rate)| {
                let mut labels = of(mover);
                labels.push(("direction", direction.to_owned()));
                (labels, rate)
            })
        }),
    )
}

fn of(mover: &SeenMover) -> Labels {
    vec![("mover", mover.mover.clone())]
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
const fn number(n: u64) -> f64 {
    n as f64
}
