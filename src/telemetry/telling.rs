//! This mover in few words, for its row in the ledger: what others show of it, and which limits it shares with them.

use std::collections::{BTreeMap, HashMap};

use super::TelemetrySources;
use crate::fleet::Telling;
use crate::queue::Class;
use crate::store::{Bandwidth, Limits};

/// This mover at this moment, but for what the ledger's own thread knows of it.
#[must_use]
pub fn telling(sources: &TelemetrySources) -> Telling {
    let depth = sources.queue.depth();
    let targets = sources.targets.all();
    let rate = |of: fn(&Limits) -> &Bandwidth| targets.iter().map(|target| of(target.limits()).moved().rate()).sum();
    let shared = |of: fn(&Limits) -> &Bandwidth| {
        let sharing = targets.iter().filter(|target| of(target.limits()).is_shared());
        sharing.map(|target| target.options().archive_id.get()).collect()
    };
    Telling {
        ready: sources.is_ready(),
        draining: sources.is_draining(),
        waiting: by_verb(&depth.waiting),
        running: by_verb(&depth.running),
        oldest_waiting: depth.oldest.map(|age| age.as_secs_f64()),
        actions_per_second: sources.context.tally.ended().rate(),
        upload_per_second: rate(|limits| &limits.upload),
        download_per_second: rate(|limits| &limits.download),
        shares_upload: shared(|limits| &limits.upload),
        shares_download: shared(|limits| &limits.download),
        ..Telling::default()
    }
}

fn by_verb(counts: &HashMap<Class, usize>) -> BTreeMap<String, u64> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for class in Class::ALL {
        let count = counts.get(&class).map_or(0, |n| *n as u64);
        *sums.entry(class.verb().to_string()).or_default() += count;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    #[test]
    fn restores_that_a_reader_waits_for_are_restores() {
        let counts = HashMap::from([(Class::BlockingRestore, 2), (Class::Restore, 3), (Class::Archive, 1)]);
        let sums = by_verb(&counts);
        assert_eq!((sums["restore"], sums["archive"], sums["remove"]), (5, 1, 0));
        assert_eq!(Class::BlockingRestore.verb(), Verb::Restore);
    }
}
