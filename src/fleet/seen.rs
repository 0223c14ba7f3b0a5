//! All movers of a ledger as one observer sees them: who lives, what each told of itself last, and what is wrong with whom.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Telling;

/// A ledger may lag this long before somebody is told.
const LAGS: f64 = 10.0;
/// Leases without a renewal of who lives, before somebody is told.
const STANDS_STILL: f64 = 1.5;

/// The movers of a ledger at one moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct FleetReport {
    /// Host, port and database.
    pub ledger: String,
    /// The mover that looked; `None`: a command did.
    pub observer: Option<String>,
    /// Seconds since that was.
    pub age: f64,
    /// Seconds of the observer's `lease`: who lives renews its row four times in it.
    pub lease: f64,
    /// By name.
    pub movers: Vec<SeenMover>,
}

/// One of them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SeenMover {
    /// What the ledger calls it.
    pub mover: String,
    /// Whether it lives, as far as the observer can tell.
    pub state: SeenState,
    /// Its node; `None`: it doesn't say.
    pub node: Option<String>,
    /// Its release.
    pub release: String,
    /// The archive ids that it serves.
    pub archives: Vec<u32>,
    /// Seconds since the observer saw it renew its row; `None`: it has not seen that.
    pub renewed: Option<f64>,
    /// Seconds for which it did not, while the observer looked.
    pub silent: f64,
    /// It is dead, and its node was fenced.
    #[serde(default)]
    pub fenced: bool,
    /// The mover that sees to the fence of its node.
    #[serde(default)]
    pub fencer: Option<String>,
    /// Why the last fence command of the observer failed.
    #[serde(default)]
    pub fence_error: Option<String>,
    /// Its own words; `None`: unknown, for its release tells nothing.
    pub told: Option<Telling>,
}

/// Whether a mover lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeenState {
    /// It renews its row.
    #[default]
    Serving,
    /// The same, and takes nothing new.
    Draining,
    /// It was not seen to renew for as long as one that lives needs, and nobody has found it dead.
    Silent,
    /// It was found dead.
    Dead,
    /// It ended in order.
    Ended,
}

impl SeenState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Serving, Self::Draining, Self::Silent, Self::Dead, Self::Ended];

    /// As reports and metrics say it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Silent => "silent",
            Self::Dead => "dead",
            Self::Ended => "ended",
        }
    }

    /// Whether it renews its row.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Serving | Self::Draining)
    }
}

/// What is wrong with a mover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Ailment {
    /// `silent`, `dead`, `fence`, `draining`, `unready`, `mdt`, `store`, `ledger`, `untold` or `release`.
    pub kind: &'static str,
    /// In words, to go on behind its name.
    pub words: String,
}

fn ailment(kind: &'static str, words: impl Into<String>) -> Ailment {
    Ailment {
        kind,
        words: words.into(),
    }
}

impl FleetReport {
    /// What is wrong with one of them, the worst first; nothing with who has ended in order.
    #[must_use]
    pub fn ailments(&self, of: &SeenMover) -> Vec<Ailment> {
        let mut all = Vec::new();
        match of.state {
            SeenState::Silent => all.push(ailment(
                "silent",
                format!(
                    "did not renew its row for {:.1} s: it is dead or cut off from the ledger, and not found dead yet",
                    of.silent
                ),
            )),
            SeenState::Dead => {
                all.push(dead(of));
                all.extend(fence(of));
            }
            SeenState::Draining => all.push(ailment(
                "draining",
                "drains: it takes nothing new, and ends when what it has is done",
            )),
            SeenState::Serving | SeenState::Ended => {}
        }
        if !of.state.is_up() {
            return all;
        }
        // One that answers over HTTP is not silent.
        if let Some(renewed) = of
            .renewed
            .filter(|renewed| self.lease > 0.0 && *renewed > STANDS_STILL * self.lease)
        {
            all.push(ailment(
                "ledger",
                format!("lives and has not renewed its row for {renewed:.0} s: the ledger is away for it"),
            ));
        }
        match &of.told {
            Some(told) => own_words(told, of.state, &mut all),
            None => all.push(ailment(
                "untold",
                "unknown (older release): what it has in hand, its rates and what it reaches",
            )),
        }
        let newest = self.movers.iter().filter(|mover| mover.state.is_up());
        let newest = newest.max_by_key(|mover| number(&mover.release));
        if let Some(newest) = newest.filter(|newest| number(&newest.release) > number(&of.release)) {
            all.push(ailment(
                "release",
                format!(
                    "is of a former release, {}; {} is of {}",
                    of.release, newest.mover, newest.release
                ),
            ));
        }
        all
    }

    /// What those tell together that renew their rows.
    #[must_use]
    pub fn sum(&self) -> Telling {
        let mut sum = Telling::default();
        let up = self.movers.iter().filter(|mover| mover.state.is_up());
        up.filter_map(|mover| mover.told.as_ref())
            .for_each(|told| sum.add(told));
        sum
    }

    /// How many there are in each state.
    #[must_use]
    pub fn by_state(&self) -> BTreeMap<SeenState, u64> {
        let mut counts: BTreeMap<_, _> = SeenState::ALL.map(|state| (state, 0)).into();
        for mover in &self.movers {
            *counts.entry(mover.state).or_default() += 1;
        }
        counts
    }
}

fn dead(of: &SeenMover) -> Ailment {
    let words = match of.fenced {
        true => "is dead, and its node is fenced; all that it had in hand is taken over",
        false => "is dead; what it had in hand is taken over, its archives and removes after a while",
    };
    ailment("dead", words)
}

fn fence(of: &SeenMover) -> Option<Ailment> {
    if of.fenced {
        return None;
    }
    match (&of.fence_error, &of.fencer) {
        (Some(error), _) => Some(ailment(
            "fence",
            format!("the fence of its node fails, and is tried again: {error}"),
        )),
        (None, Some(fencer)) => Some(ailment("fence", format!("its node's fence is under way, by {fencer}"))),
        (None, None) => None,
    }
}

fn own_words(told: &Telling, state: SeenState, all: &mut Vec<Ailment>) {
    if !told.ready && state != SeenState::Draining {
        all.push(ailment("unready", "is not registered with the coordinator"));
    }
    for out in &told.out_of_reach {
        all.push(ailment(
            if out.is_mdt { "mdt" } else { "store" },
            format!("does not reach {} for {:.0} s", out.what, out.seconds),
        ));
    }
    if told.offered > 0 {
        all.push(ailment(
            "store",
            format!(
                "offers {} actions to the others, for it does not reach what they want",
                told.offered
            ),
        ));
    }
    if told.behind >= LAGS {
        all.push(ailment(
            "ledger",
            format!("the ledger is {:.0} s behind its journal", told.behind),
        ));
    }
}

/// Of a release, to compare it with another one; what is no number counts as 0.
fn number(release: &str) -> Vec<u64> {
    let words = release.split(['.', '-', '+']).take(3);
    words.map(|word| word.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Unreached;
    use super::*;

    fn mover(name: &str, state: SeenState) -> SeenMover {
        SeenMover {
            mover: name.into(),
            state,
            release: "0.9.0".into(),
            archives: vec![1],
            renewed: Some(1.0),
            told: Some(Telling {
                ready: true,
                waiting: [("restore".to_owned(), 3)].into(),
                upload_per_second: 10.0,
                ..Telling::default()
            }),
            ..SeenMover::default()
        }
    }

    fn kinds(report: &FleetReport, n: usize) -> Vec<&'static str> {
        let all = report.ailments(&report.movers[n]).into_iter();
        all.map(|ailment| ailment.kind).collect()
    }

    #[test]
    fn who_is_well_has_no_ailment_and_who_ended_has_none_either() {
        let report = FleetReport {
            movers: vec![mover("a", SeenState::Serving), mover("b", SeenState::Ended)],
            ..FleetReport::default()
        };
        assert!(kinds(&report, 0).is_empty() && kinds(&report, 1).is_empty());
        assert_eq!(report.sum().waiting["restore"], 3, "who has ended has nothing in hand");
        assert_eq!(report.by_state()[&SeenState::Ended], 1);
        assert_eq!(report.by_state().len(), 5);
    }

    #[test]
    fn each_ailment_is_told_with_what_it_is() {
        let mut report = FleetReport {
            movers: [
                SeenState::Serving,
                SeenState::Silent,
                SeenState::Dead,
                SeenState::Draining,
                SeenState::Serving,
                SeenState::Serving,
            ]
            .into_iter()
            .enumerate()
            .map(|(n, state)| mover(&format!("m{n}"), state))
            .collect(),
            ..FleetReport::default()
        };
        report.movers[2].fencer = Some("m0".into());
        let told = report.movers[4].told.as_mut().unwrap();
        told.ready = false;
        told.behind = 40.0;
        told.out_of_reach = [(true, "MDT0001"), (false, "the store of archive 2")]
            .map(|(is_mdt, what)| Unreached {
                is_mdt,
                what: what.into(),
                seconds: 33.0,
            })
            .into();
        report.movers[5].told = None;
        report.movers[5].release = "0.8.12".into();
        assert_eq!(kinds(&report, 1), ["silent"]);
        assert_eq!(kinds(&report, 2), ["dead", "fence"]);
        assert_eq!(kinds(&report, 3), ["draining"]);
        assert_eq!(kinds(&report, 4), ["unready", "mdt", "store", "ledger"]);
        assert_eq!(kinds(&report, 5), ["untold", "release"]);
        let words = |n: usize, at: usize| report.ailments(&report.movers[n]).swap_remove(at).words;
        assert!(words(5, 0).starts_with("unknown (older release)"));
        assert_eq!(words(4, 1), "does not reach MDT0001 for 33 s");
        assert_eq!(words(2, 1), "its node's fence is under way, by m0");
        let mut dead = report.movers[2].clone();
        dead.fence_error = Some("exit status: 1".into());
        assert!(report.ailments(&dead)[1].words.ends_with("tried again: exit status: 1"));
        dead.fenced = true;
        assert_eq!(report.ailments(&dead).len(), 1);
    }

    #[test]
    fn one_that_lives_without_a_ledger_is_told() {
        let mut report = FleetReport {
            lease: 20.0,
            movers: vec![mover("a", SeenState::Serving)],
            ..FleetReport::default()
        };
        report.movers[0].renewed = Some(29.0);
        assert!(kinds(&report, 0).is_empty());
        report.movers[0].renewed = Some(31.0);
        assert_eq!(kinds(&report, 0), ["ledger"]);
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert!(number("0.10.0") > number("0.9.3") && number("1.0.0-rc1") >= number("1.0.0"));
        assert_eq!(number("nonsense"), [0]);
    }
}
