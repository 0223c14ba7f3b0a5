//! What a mover tells of itself in the ledger with each renewal of its row, as it travels: small, for rows are written often.
//!
//! Movers of two releases read it of each other: what is missing has its default, and what is not known is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// MDTs and stores that are named.
const NAMED: usize = 16;

/// A mover's own words. Archive ids, of which Lustre has at most 1024 for a mover, are what grows.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Telling {
    /// Registered and taking work.
    pub ready: bool,
    /// It takes nothing new, and ends when what it has is done.
    pub draining: bool,
    /// Actions that wait for a worker, by verb.
    pub waiting: BTreeMap<String, u64>,
    /// Actions that a worker has, by verb.
    pub running: BTreeMap<String, u64>,
    /// Seconds that the oldest waiting action has waited.
    pub oldest_waiting: Option<f64>,
    /// Actions that ended a second, over the last minute.
    pub actions_per_second: f64,
    /// Bytes that went to the stores a second, over the last minute.
    pub upload_per_second: f64,
    /// Bytes that came from the stores a second, over the last minute.
    pub download_per_second: f64,
    /// MDTs and stores that it does not reach; 16 at most.
    pub out_of_reach: Vec<Unreached>,
    /// Seconds since the oldest change that the ledger lacks.
    pub behind: f64,
    /// Actions that other movers may take, for it can't carry them out.
    pub offered: u64,
    /// Actions that wait until no other mover can have taken them over.
    pub postponed: u64,
    /// Archive ids whose `upload_bandwidth` is the whole fleet's, by its configuration.
    pub shares_upload: Vec<u32>,
    /// Archive ids whose `download_bandwidth` is.
    pub shares_download: Vec<u32>,
}

/// An MDT or a store that a mover does not reach.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unreached {
    /// It is an MDT.
    pub is_mdt: bool,
    /// In words.
    pub what: String,
    /// Seconds for which that is known.
    pub seconds: f64,
}

impl Telling {
    /// As a row has it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut told = self.clone();
        told.out_of_reach.truncate(NAMED);
        serde_json::to_string(&told).unwrap_or_else(|_| "{}".to_owned())
    }

    /// From a row; `None`: that is nothing which this release can read.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The same of another mover besides, as a sum.
    pub(super) fn add(&mut self, other: &Self) {
        let add = |to: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>| {
            for (verb, n) in from {
                *to.entry(verb.clone()).or_default() += n;
            }
        };
        add(&mut self.waiting, &other.waiting);
        add(&mut self.running, &other.running);
        self.oldest_waiting = match (self.oldest_waiting, other.oldest_waiting) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.actions_per_second += other.actions_per_second;
        self.upload_per_second += other.upload_per_second;
        self.download_per_second += other.download_per_second;
        self.offered += other.offered;
        self.postponed += other.postponed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_release_tells_another_one_reads_as_far_as_it_knows_it() {
        let told = Telling {
            ready: true,
            waiting: [("restore".to_owned(), 7)].into(),
            oldest_waiting: Some(1.5),
            shares_upload: vec![1, 9],
            ..Telling::default()
        };
        assert_eq!(Telling::from_json(&told.to_json()), Some(told));
        let newer =
            Telling::from_json("{\"ready\":true,\"mood\":[1],\"waiting\":{\"archive\":2,\"verify\":1}}").unwrap();
        assert_eq!((newer.ready, newer.waiting["archive"]), (true, 2));
        assert_eq!(Telling::from_json("{}"), Some(Telling::default()));
        assert_eq!(Telling::from_json("{\"waiting\":3}"), None);
    }

    #[test]
    fn however_much_is_out_of_reach_a_row_stays_small() {
        let unreached = |n| Unreached {
            is_mdt: true,
            what: format!("MDT{n:04x}"),
            seconds: 1e6,
        };
        let told = Telling {
            out_of_reach: (0..10_000).map(unreached).collect(),
            ..Telling::default()
        };
        let json = told.to_json();
        assert!(json.len() < 2000, "{} bytes", json.len());
        assert_eq!(Telling::from_json(&json).unwrap().out_of_reach.len(), NAMED);
    }
}
