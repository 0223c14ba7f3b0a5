//! The movers of a site: what each tells of itself, and asking them over HTTP. One that does not answer is said, and
//! holds up nothing. What one told last is in a file where it ran. Where they have a ledger, each tells of itself there, and
//! whoever looks sees all of them.

mod mover;
mod seen;
mod stopped;
mod telling;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

pub use mover::{ActionFailure, ClassTotals, Failures, LedgerReport, Mover, PeerReport, Running};
pub use seen::{Ailment, FleetReport, SeenMover, SeenState};
pub use stopped::{DrainedActions, StopReport, WaitingActions};
pub use telling::{Telling, Unreached};

use crate::types::Fid;

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Asked at the same time.
const AT_ONCE: usize = 16;
/// Between two questions why something failed.
const EVERY: Duration = Duration::from_secs(1);
/// After which one that was silent is asked again.
const SILENCE: Duration = Duration::from_secs(30);
/// Reasons that are kept.
const KEPT: usize = 10_000;

/// Where they listen.
#[derive(Debug)]
pub struct Fleet {
    movers: Vec<String>,
    agent: ureq::Agent,
}

impl Fleet {
    /// By `host:port`.
    #[must_use]
    pub fn new(movers: Vec<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            // Nodes of one cluster.
            .proxy(None)
            .build();
        Self {
            movers,
            agent: config.into(),
        }
    }

    /// There is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.movers.is_empty()
    }

    /// How each is, in the order given, or why that is not known.
    #[must_use]
    pub fn ask(&self) -> Vec<(String, Result<Mover, String>)> {
        self.get_all(|_| Some("/status".to_owned()))
    }

    /// How each sees all movers of its ledger, in the order given, or why that is not known.
    #[must_use]
    pub fn ask_for_all(&self) -> Vec<(String, Result<FleetReport, String>)> {
        self.get_all(|_| Some("/fleet".to_owned()))
    }

    fn get_all<T: DeserializeOwned + Send>(
        &self,
        path: impl Fn(&str) -> Option<String> + Sync,
    ) -> Vec<(String, Result<T, String>)> {
        let get = |mover: &String, path: String| {
            let url = format!("http://{mover}{path}");
            let answer = self.agent.get(url).call();
            let answer = answer.and_then(|mut answer| answer.body_mut().read_to_vec());
            let read = answer.map_err(|error| error.to_string()).and_then(|body| {
                serde_json::from_slice(&body).map_err(|error| format!("what answers is no mover: {error}"))
            });
            (mover.clone(), read)
        };
        let mut all = Vec::new();
        let wanted: Vec<_> = self
            .movers
            .iter()
            .filter_map(|mover| Some((mover, path(mover)?)))
            .collect();
        for some in wanted.chunks(AT_ONCE) {
            std::thread::scope(|scope| {
                let asked: Vec<_> = some
                    .iter()
                    .map(|(mover, path)| scope.spawn(move || get(mover, path.clone())))
                    .collect();
                all.extend(asked.into_iter().filter_map(|asked| asked.join().ok()));
            });
        }
        all
    }
}

/// Why files failed, as the movers know it.
#[derive(Debug)]
pub struct FailureReasons<'a> {
    fleet: &'a Fleet,
    /// The last number that each mover told.
    last: HashMap<String, u64>,
    by_fid: HashMap<String, ActionFailure>,
    renewed: Option<Instant>,
    /// Those that did not answer, and when.
    silent: HashMap<String, Instant>,
}

impl<'a> FailureReasons<'a> {
    /// None known yet.
    #[must_use]
    pub fn new(fleet: &'a Fleet) -> Self {
        Self {
            fleet,
            last: HashMap::new(),
            by_fid: HashMap::new(),
            renewed: None,
            silent: HashMap::new(),
        }
    }

    /// Asks the movers for what failed since the last time, at most once a second; one that was silent is left alone
    /// for a while.
    pub fn renew(&mut self) {
        let now = Instant::now();
        if self.renewed.is_some_and(|renewed| now - renewed < EVERY) {
            return;
        }
        self.renewed = Some(now);
        let (last, silent) = (&self.last, &self.silent);
        let news = self.fleet.get_all::<Failures>(|mover| {
            if silent.get(mover).is_some_and(|since| now - *since < SILENCE) {
                return None;
            }
            let after = last.get(mover).copied().unwrap_or(0);
            Some(format!("/failures?after={after}"))
        });
        for (mover, news) in news {
            match news {
                Ok(news) => {
                    self.silent.remove(&mover);
                    if self.by_fid.len() + news.failures.len() > 2 * KEPT {
                        self.by_fid.clear();
                    }
                    // One that was started again counts from 1.
                    let known = self.last.insert(mover.clone(), news.last).unwrap_or(0);
                    if news.last < known {
                        self.last.insert(mover, 0);
                    }
                    let failures = news.failures.into_iter();
                    self.by_fid
                        .extend(failures.map(|failure| (failure.fid.clone(), failure)));
                }
                Err(error) => {
                    tracing::debug!(mover, error, "does not tell why actions failed");
                    self.silent.insert(mover, now);
                }
            }
        }
    }

    /// Why the file's last action failed.
    #[must_use]
    pub fn of(&self, fid: Fid) -> Option<&ActionFailure> {
        self.by_fid.get(&fid.bare())
    }
}
