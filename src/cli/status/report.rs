//! What is shown, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Failure;
use crate::cli::jobs::{FarJob, FarJobs};
use crate::cli::mds::CoordinatorReport;
use crate::fleet::{ClassTotals, Fleet, Mover, Running, StopReport};
use crate::jobs::{Phase, Summary};

/// Jobs of all nodes, movers of the site, coordinators of this node if it is an MDS.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) jobs: Vec<Summary>,
    /// Of other nodes, where there is a ledger.
    pub(super) far: Vec<FarJob>,
    /// Why those are not known.
    pub(super) far_error: Option<String>,
    /// One job was asked for by name.
    pub(super) one: bool,
    pub(super) movers: Vec<(String, Result<Mover, String>)>,
    pub(super) coordinators: Vec<CoordinatorReport>,
    /// What movers of this node left to successors that have not come yet.
    pub(super) stopped: Vec<StopReport>,
}

impl Report {
    pub(super) fn read(
        (directory, state_dir): (&Path, &Path),
        job: Option<&str>,
        far: Option<&mut FarJobs>,
        fleet: &Fleet,
        mdts: &Path,
    ) -> Result<Self, Failure> {
        let far = far.map_or(Ok(Vec::new()), |far| match job {
            Some(job) => Ok(far.find(job)?.into_iter().collect()),
            None => far.read(true),
        });
        let (far, far_error) = match far {
            Ok(far) => (far, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let jobs = match job {
            Some(_) if !far.is_empty() => Vec::new(),
            // Whose it is can't be known where the ledger is away.
            Some(job) => vec![Summary::find(directory, job).map_err(|error| match &far_error {
                Some(away) => format!("{error}; jobs of other nodes are not known: {away}"),
                None => error.to_string(),
            })?],
            None => {
                let mut all = Summary::all(directory)?;
                let is_far = |id: &str| far.iter().any(|job| job.id() == id);
                all.retain(|summary| summary.phase == Phase::Running && !is_far(&summary.id));
                all
            }
        };
        Ok(Self {
            jobs,
            far,
            far_error,
            one: job.is_some(),
            movers: fleet.ask(),
            coordinators: CoordinatorReport::all(mdts),
            stopped: StopReport::all(state_dir)
                .into_iter()
                .filter(|report| !report.waiting.is_empty())
                .collect(),
        })
    }

    /// Whether there will be more to see.
    pub(super) fn goes_on(&self) -> bool {
        let running = self.jobs.iter().any(|job| job.phase == Phase::Running) || self.far.iter().any(FarJob::goes_on);
        running || (!self.one && !self.movers.is_empty())
    }

    pub(super) fn answered(&self) -> impl Iterator<Item = (&str, &Mover)> {
        let movers = self.movers.iter();
        movers.filter_map(|(name, mover)| Some((name.as_str(), mover.as_ref().ok()?)))
    }

    /// By archive id, of all movers that answer.
    pub(super) fn dialects(&self) -> BTreeMap<u32, BTreeSet<&str>> {
        let mut all: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        for (_, mover) in self.answered() {
            for (archive, habits) in &mover.dialects {
                all.entry(*archive)
                    .or_default()
                    .extend(habits.iter().map(String::as_str));
            }
        }
        all
    }

    pub(super) fn silent(&self) -> impl Iterator<Item = (&str, &str)> {
        let movers = self.movers.iter();
        movers.filter_map(|(name, mover)| Some((name.as_str(), mover.as_ref().err()?.as_str())))
    }

    /// All movers that answered as one.
    pub(super) fn sum(&self) -> Mover {
        let mut sum = Mover::default();
        for (_, mover) in self.answered() {
            let add = |to: &mut BTreeMap<String, u64>, from: &BTreeMap<_, u64>| {
                for (class, n) in from {
                    *to.entry(String::clone(class)).or_default() += n;
                }
            };
            add(&mut sum.waiting, &mover.waiting);
            add(&mut sum.running, &mover.running);
            sum.oldest_waiting = match (sum.oldest_waiting, mover.oldest_waiting) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
            for row in &mover.sums {
                let same = |sum: &&mut ClassTotals| sum.archive == row.archive && sum.class == row.class;
                match sum.sums.iter_mut().find(same) {
                    Some(sum) => {
                        sum.done += row.done;
                        sum.failed += row.failed;
                        sum.cancelled += row.cancelled;
                        sum.bytes += row.bytes;
                    }
                    None => sum.sums.push(row.clone()),
                }
            }
            sum.actions_per_second += mover.actions_per_second;
            sum.bytes_per_second += mover.bytes_per_second;
            sum.retries += mover.retries;
            sum.throttled += mover.throttled;
        }
        sum.sums
            .sort_by(|a, b| (a.archive, &a.class).cmp(&(b.archive, &b.class)));
        sum
    }

    /// The actions that run longest, with their movers.
    pub(super) fn longest(&self, limit: usize) -> Vec<(&str, &Running)> {
        let mut all: Vec<_> = self
            .answered()
            .flat_map(|(name, mover)| mover.longest.iter().map(move |running| (name, running)))
            .collect();
        all.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
        all.truncate(limit);
        all
    }
}

/// Done, failed and bytes over all archive ids and classes.
pub(super) fn totals(mover: &Mover) -> (u64, u64, u64) {
    let of = |add: fn(&ClassTotals) -> u64| mover.sums.iter().map(add).sum();
    (of(|sum| sum.done), of(|sum| sum.failed), of(|sum| sum.bytes))
}

#[cfg(test)]
pub(super) fn example() -> Report {
    let sum = |class: &str, done| ClassTotals {
        archive: 1,
        class: class.into(),
        done,
        failed: 2,
        cancelled: 0,
        bytes: done << 20,
    };
    let mover = |host: &str, done| Mover {
        host: host.into(),
        mount: "/mnt/lustre".into(),
        ready: true,
        waiting: [("restore".to_owned(), 700)].into(),
        running: [("restore".to_owned(), 8)].into(),
        oldest_waiting: Some(12.0),
        sums: vec![sum("restore", done), sum("archive", 5)],
        actions_per_second: 100.0,
        bytes_per_second: 1e8,
        longest: vec![Running {
            fid: "0x200000401:0x9:0x0".into(),
            path: Some("lab/run7/big.h5".into()),
            verb: "restore".into(),
            archive: 1,
            seconds: 61.0,
            bytes: 5 << 30,
        }],
        silent_mdts: vec!["MDT0001".into()],
        ledger: Some(crate::fleet::LedgerReport {
            state: "away".into(),
            lag: 12.0,
            error: Some("connection refused".into()),
            postponed: 3,
            waits_for: [("mover2".to_owned(), 3)].into(),
            ..crate::fleet::LedgerReport::default()
        }),
        ..Mover::default()
    };
    Report {
        jobs: Vec::new(),
        far: vec![crate::cli::jobs::far_example()],
        far_error: Some("PostgreSQL at db1 did not answer within 2 s".into()),
        one: false,
        movers: vec![
            ("mover1:9818".into(), Ok(mover("mover1", 1000))),
            ("mover2:9818".into(), Ok(mover("mover2", 3000))),
            ("mover3:9818".into(), Err("connection refused".into())),
        ],
        coordinators: Vec::new(),
        stopped: vec![StopReport {
            mount: "/mnt/lustre".into(),
            waiting: vec![crate::fleet::WaitingActions {
                archive: 1,
                actions: 40,
                restores: 7,
            }],
            ..StopReport::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movers_are_summed_by_archive_id_and_class_and_the_silent_ones_are_named() {
        let report = example();
        let sum = report.sum();
        assert_eq!(totals(&sum), (4010, 8, 4010 << 20));
        assert_eq!(sum.sums.len(), 2);
        assert_eq!(sum.waiting["restore"], 1400);
        assert_eq!(
            report.silent().collect::<Vec<_>>(),
            [("mover3:9818", "connection refused")]
        );
        assert_eq!(report.longest(5).len(), 2);
        assert!(report.goes_on());
    }
}
