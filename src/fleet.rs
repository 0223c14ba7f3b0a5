//! The movers of a site, asked over HTTP. One that does not answer is said, and holds up nothing.

use std::collections::HashMap;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::telemetry::{Failures, Mover};
use crate::types::Fid;
use crate::worker::Failure;

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Asked at the same time.
const AT_ONCE: usize = 16;
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
        self.get_all(|_| "/status".to_owned())
    }

    fn get_all<T: DeserializeOwned + Send>(
        &self,
        path: impl Fn(&str) -> String + Sync,
    ) -> Vec<(String, Result<T, String>)> {
        let get = |mover: &String| {
            let url = format!("http://{mover}{}", path(mover));
            let answer = self.agent.get(url).call();
            let answer = answer.and_then(|mut answer| answer.body_mut().read_to_vec());
            let read = answer.map_err(|error| error.to_string()).and_then(|body| {
                serde_json::from_slice(&body).map_err(|error| format!("what answers is no mover: {error}"))
            });
            (mover.clone(), read)
        };
        let mut all = Vec::new();
        for some in self.movers.chunks(AT_ONCE) {
            std::thread::scope(|scope| {
                let asked: Vec<_> = some.iter().map(|mover| scope.spawn(move || get(mover))).collect();
                all.extend(asked.into_iter().filter_map(|asked| asked.join().ok()));
            });
        }
        all
    }
}

/// Why files failed, as the movers know it.
#[derive(Debug)]
pub struct Reasons<'a> {
    fleet: &'a Fleet,
    /// The last number that each mover told.
    last: HashMap<String, u64>,
    by_fid: HashMap<String, Failure>,
}

impl<'a> Reasons<'a> {
    /// None known yet.
    #[must_use]
    pub fn new(fleet: &'a Fleet) -> Self {
        Self {
            fleet,
            last: HashMap::new(),
            by_fid: HashMap::new(),
        }
    }

    /// Asks the movers for what failed since the last time.
    pub fn renew(&mut self) {
        let last = &self.last;
        let news = self.fleet.get_all::<Failures>(|mover| {
            let after = last.get(mover).copied().unwrap_or(0);
            format!("/failures?after={after}")
        });
        for (mover, news) in news {
            match news {
                Ok(news) => {
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
                Err(error) => tracing::debug!(mover, error, "does not tell why actions failed"),
            }
        }
    }

    /// Why the file's last action failed.
    #[must_use]
    pub fn of(&self, fid: Fid) -> Option<&Failure> {
        self.by_fid.get(&fid.bare())
    }
}
