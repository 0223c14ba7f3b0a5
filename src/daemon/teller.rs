//! What this daemon tells the other movers of itself in the ledger, and its share of limits that are the whole fleet's.

use std::fmt;

use crate::fleet::Telling;
use crate::ledger::{Sharers, Teller};
use crate::store::{BandwidthLimit, Target, TargetOptions};
use crate::telemetry::{TelemetrySources, telling};

/// The daemon's numbers and its stores.
pub(super) struct FleetTeller {
    sources: TelemetrySources,
}

impl fmt::Debug for FleetTeller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetTeller").finish_non_exhaustive()
    }
}

impl FleetTeller {
    pub(super) fn new(sources: &TelemetrySources) -> Self {
        Self {
            sources: TelemetrySources {
                // Which has this one.
                ledger: None,
                ..sources.clone()
            },
        }
    }
}

impl Teller for FleetTeller {
    fn telling(&self) -> Telling {
        telling(&self.sources)
    }

    fn shared_by(&self, sharers: &Sharers) {
        for target in self.sources.targets.all() {
            share(&target, sharers);
        }
    }
}

/// Gives an archive its share of limits that are the whole fleet's.
pub(super) fn share(target: &Target, sharers: &Sharers) {
    let (limits, archive) = (target.limits(), target.options().archive_id);
    let (uploads, downloads) = sharers.of(archive);
    for (bandwidth, movers, direction) in [
        (&limits.upload, uploads, "upload"),
        (&limits.download, downloads, "download"),
    ] {
        if bandwidth.share(movers) {
            tracing::info!(
                archive = archive.get(),
                direction,
                movers,
                bytes_per_second = bandwidth.rate(),
                "the fleet's limit is divided by the movers that have it"
            );
        }
    }
}

/// What is told before there is anything but the configuration: whoever sees this mover's row counts with it.
pub(super) fn before(targets: &[TargetOptions]) -> Telling {
    let shared = |of: fn(&TargetOptions) -> Option<BandwidthLimit>| {
        let sharing = targets
            .iter()
            .filter(|options| of(options).is_some_and(BandwidthLimit::is_shared));
        sharing.map(|options| options.archive_id.get()).collect()
    };
    Telling {
        shares_upload: shared(|options| options.upload_bandwidth),
        shares_download: shared(|options| options.download_bandwidth),
        ..Telling::default()
    }
}
