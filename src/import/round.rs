//! One listing of the bucket, or the reading of what stands for one: how its keys come, and what of it may be cut.

use std::path::PathBuf;

use super::checkpoint::Checkpoint;
use super::flow::{ImportError, ImportRun};
use super::input::{Input, beginning};
use super::listers;
use super::maker::ImportContext;
use super::report::ImportCounts;
use crate::ranges::OpenRange;
use crate::transfer::Lane;

/// One listing of the bucket, or the reading of what stands for one.
#[derive(Debug)]
pub(super) struct ListingRound {
    pub(super) open: Vec<OpenRange>,
    way: ListingMode,
    /// What this import had made before the listing began anew: it is there, and is found there once more.
    pub(super) before: ImportCounts,
}

/// How the keys come.
#[derive(Debug)]
enum ListingMode {
    /// In ranges, on the caller's word that the bucket is listed in order.
    Trusted,
    /// In ranges where the order allows it, nothing being cut yet.
    First,
    /// In the ranges of a former run; the order is looked at beside that.
    Resumed,
    /// By one lister from the beginning to the end, because of that.
    Whole(String),
    /// Not by a listing.
    Told,
}

impl ListingRound {
    pub(super) fn first(shared: &ImportContext, input: &Input, former: Option<Checkpoint>, trusted: bool) -> Self {
        let is_list = matches!(input, Input::List);
        let open = match former {
            None => beginning(input),
            Some(former) => {
                if let Some(why) = former.unordered.filter(|_| is_list) {
                    shared.report.note_disorder(&shared.prefix, &why);
                    return Self::whole(why, former.counts);
                }
                shared.report.count(|counts| *counts = former.counts);
                former.open
            }
        };
        let way = match (is_list, trusted) {
            (false, _) => ListingMode::Told,
            (true, true) => ListingMode::Trusted,
            (true, false) if open == [OpenRange::ALL] => ListingMode::First,
            (true, false) => ListingMode::Resumed,
        };
        Self {
            open,
            way,
            before: ImportCounts::default(),
        }
    }

    pub(super) fn whole(why: String, before: ImportCounts) -> Self {
        Self {
            open: vec![OpenRange::ALL],
            way: ListingMode::Whole(why),
            before,
        }
    }

    /// Whoever lists from the first key on goes to the end.
    pub(super) const fn goes_to_the_end(&self) -> bool {
        matches!(self.way, ListingMode::First | ListingMode::Whole(_))
    }

    /// How the listing is not in order, where that is known before it begins.
    pub(super) fn disorder(&self) -> Option<&str> {
        match &self.way {
            ListingMode::Whole(why) => Some(why),
            ListingMode::Trusted | ListingMode::First | ListingMode::Resumed | ListingMode::Told => None,
        }
    }

    /// Says what may be cut, and gives a lane to whoever looks at the order beside the ranges. `first`: that of a lister.
    pub(super) fn prepare(&self, flow: &ImportRun<'_>, first: Option<&Lane>) -> Result<Option<Lane>, ImportError> {
        match &self.way {
            ListingMode::Told => Ok(None),
            ListingMode::Trusted => {
                if let Some(lane) = first.filter(|_| self.open == [OpenRange::ALL]) {
                    flow.ranges.hold_cuts();
                    let places = listers::directories(flow, lane).map_err(ImportError::List)?;
                    flow.ranges.allow_cuts(&places);
                }
                Ok(None)
            }
            ListingMode::First => {
                flow.ranges.hold_cuts();
                Ok(None)
            }
            ListingMode::Whole(_) => {
                // It is one range from the beginning on, and is not cut.
                let whole = flow.ranges.keep_whole();
                debug_assert!(whole);
                Ok(None)
            }
            ListingMode::Resumed => {
                let lane = first.map(Lane::another).transpose();
                lane.map_err(|source| ImportError::Local {
                    what: "make a thread's",
                    path: PathBuf::from("(runtime)"),
                    source,
                })
            }
        }
    }
}
