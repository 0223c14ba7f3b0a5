//! One listing of the bucket, or the reading of what stands for one: how its keys come, and what of it may be cut.

use std::path::PathBuf;

use super::checkpoint::Checkpoint;
use super::flow::{Flow, ImportError};
use super::input::{Input, beginning};
use super::listers;
use super::maker::Shared;
use super::report::Counts;
use crate::ranges::Open;
use crate::transfer::Lane;

/// One listing of the bucket, or the reading of what stands for one.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) open: Vec<Open>,
    way: Way,
    /// What this import had made before the listing began anew: it is there, and is found there once more.
    pub(super) before: Counts,
}

/// How the keys come.
#[derive(Debug)]
enum Way {
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

impl Round {
    pub(super) fn first(shared: &Shared, input: &Input, former: Option<Checkpoint>, trusted: bool) -> Self {
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
            (false, _) => Way::Told,
            (true, true) => Way::Trusted,
            (true, false) if open == [Open::ALL] => Way::First,
            (true, false) => Way::Resumed,
        };
        Self {
            open,
            way,
            before: Counts::default(),
        }
    }

    pub(super) fn whole(why: String, before: Counts) -> Self {
        Self {
            open: vec![Open::ALL],
            way: Way::Whole(why),
            before,
        }
    }

    /// Whoever lists from the first key on goes to the end.
    pub(super) const fn goes_to_the_end(&self) -> bool {
        matches!(self.way, Way::First | Way::Whole(_))
    }

    /// How the listing is not in order, where that is known before it begins.
    pub(super) fn disorder(&self) -> Option<&str> {
        match &self.way {
            Way::Whole(why) => Some(why),
            Way::Trusted | Way::First | Way::Resumed | Way::Told => None,
        }
    }

    /// Says what may be cut, and gives a lane to whoever looks at the order beside the ranges. `first`: that of a lister.
    pub(super) fn prepare(&self, flow: &Flow<'_>, first: Option<&Lane>) -> Result<Option<Lane>, ImportError> {
        match &self.way {
            Way::Told => Ok(None),
            Way::Trusted => {
                if let Some(lane) = first.filter(|_| self.open == [Open::ALL]) {
                    flow.ranges.hold_cuts();
                    let places = listers::directories(flow, lane).map_err(ImportError::List)?;
                    flow.ranges.allow_cuts(&places);
                }
                Ok(None)
            }
            Way::First => {
                flow.ranges.hold_cuts();
                Ok(None)
            }
            Way::Whole(_) => {
                // It is one range from the beginning on, and is not cut.
                let whole = flow.ranges.keep_whole();
                debug_assert!(whole);
                Ok(None)
            }
            Way::Resumed => {
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
