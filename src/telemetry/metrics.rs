//! The daemon's numbers as Prometheus reads them. Names, units and labels are all here; docs/metrics.md lists them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::TelemetrySources;
use crate::ledger::{PeerHealth, Step};
use crate::measure::Histogram;
use crate::queue::Class;
use crate::store::Target;
use crate::types::Mdt;

const PREFIX: &str = "lhsmtool_s3";

pub(super) type Labels = Vec<(&'static str, String)>;

impl TelemetrySources {
    /// All numbers, under their names.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        let info = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The release that runs", info);
        registry.register_collector(Box::new(self.clone()));
        registry
    }

    fn actions(&self, to: &mut FamilySink<'_>) -> fmt::Result {
        let depth = self.queue.depth();
        let by_class = |counts: &HashMap<Class, usize>| {
            let of = |class| counts.get(&class).copied().unwrap_or(0);
            Class::ALL.map(|class| (vec![("class", class.word().to_owned())], count(of(class))))
        };
        let busy = depth.running.values().sum::<usize>();
        to.gauges(
            "actions_waiting",
            "Actions that wait for a worker",
            by_class(&depth.waiting),
        )?;
        to.gauges("actions_running", "Actions that a worker has", by_class(&depth.running))?;
        let oldest = depth.oldest.unwrap_or_default().as_secs_f64();
        to.gauge(
            "oldest_waiting_seconds",
            "How long the oldest waiting action has waited",
            oldest,
        )?;
        let (threads, restores) = self.threads;
        to.gauge("workers", "Worker threads", count(threads))?;
        to.gauge(
            "workers_for_restores",
            "Worker threads that serve nothing but restores",
            count(restores),
        )?;
        to.gauge("workers_busy", "Worker threads that have an action", count(busy))?;
        to.gauge(
            "workers_helping",
            "Worker threads that help with the parts of another's action",
            count(depth.helping),
        )?;
        let sums = self.context.tally.sums();
        let share = |(archive, class): &(u32, Class)| {
            vec![("archive", archive.to_string()), ("class", class.word().to_owned())]
        };
        to.counters(
            "actions",
            "Actions that ended; outcome is done, failed or cancelled",
            sums.iter().flat_map(|(of, sums)| {
                let outcomes = [
                    ("done", sums.done),
                    ("failed", sums.failed),
                    ("cancelled", sums.cancelled),
                ];
                outcomes.map(|(outcome, n)| {
                    let mut labels = share(of);
                    labels.push(("outcome", outcome.to_owned()));
                    (labels, n)
                })
            }),
        )?;
        to.counters(
            "bytes",
            "Bytes of the actions that ended as asked",
            sums.iter().map(|(of, sums)| (share(of), sums.bytes)),
        )?;
        to.histograms(
            "action_seconds",
            "From a worker's first step to its answer",
            sums.iter().map(|(of, sums)| (share(of), &sums.took)),
        )?;
        to.counter(
            "key_conflicts",
            "Archives that went beside their key because it held what may be another file's only copy",
            get(&self.context.tally.conflicts),
        )
    }

    fn stores(&self, to: &mut FamilySink<'_>) -> fmt::Result {
        let archive = |target: &Target| vec![("archive", target.options().archive_id.to_string())];
        let targets = self.targets.all();
        let operations: Vec<_> = targets
            .iter()
            .map(|target| (archive(target), target.requests().so_far()))
            .collect();
        let of_operation = |labels: &Labels, operation: &str| {
            let mut labels = labels.clone();
            labels.push(("operation", operation.to_owned()));
            labels
        };
        to.counters(
            "s3_requests",
            "Requests to the store by HTTP status; 0: no answer",
            operations.iter().flat_map(|(labels, operations)| {
                operations.iter().flat_map(move |(name, operation)| {
                    operation.answers.iter().map(move |(status, n)| {
                        let mut labels = of_operation(labels, name);
                        labels.push(("status", status.to_string()));
                        (labels, *n)
                    })
                })
            }),
        )?;
        to.histograms(
            "s3_request_seconds",
            "From the sending of a request to the head of its answer",
            operations.iter().flat_map(|(labels, operations)| {
                let each = operations.iter();
                each.map(move |(name, operation)| (of_operation(labels, name), &operation.took))
            }),
        )?;
        to.counters(
            "s3_bytes",
            "Bytes of objects to and from the store, second tries included",
            targets.iter().flat_map(|target| {
                let limits = target.limits();
                let directions = [("upload", &limits.upload), ("download", &limits.download)];
                directions.map(|(direction, bandwidth)| {
                    let mut labels = archive(target);
                    labels.push(("direction", direction.to_owned()));
                    (labels, bandwidth.moved().total())
                })
            }),
        )?;
        let trouble = |of: fn(&crate::store::Trouble) -> &AtomicU64| {
            let each = targets.iter();
            each.map(move |target| (archive(target), get(of(&target.limits().trouble))))
        };
        to.counters(
            "s3_retries",
            "Second and further tries",
            trouble(|trouble| &trouble.retries),
        )?;
        to.counters(
            "s3_throttled",
            "Answers that asked for fewer requests",
            trouble(|trouble| &trouble.throttled),
        )?;
        to.counters(
            "s3_damaged",
            "Transfers whose bytes did not have their checksum, and were done again",
            trouble(|trouble| &trouble.damaged),
        )?;
        to.gauges(
            "s3_requests_in_flight",
            "Requests that are under way, with their bodies",
            trouble(|trouble| &trouble.in_flight).map(|(labels, n)| (labels, n as f64)),
        )?;
        to.gauges(
            "s3_pace_seconds",
            "Least time between two requests, as the store's complaints have it; 0: no limit",
            targets
                .iter()
                .map(|target| (archive(target), target.limits().pace.interval().as_secs_f64())),
        )?;
        to.gauges(
            "s3_limit_bytes_per_second",
            "What this mover may send or get a second where that is limited; of a limit of the whole fleet its share",
            targets.iter().flat_map(|target| {
                let limits = target.limits();
                let directions = [("upload", &limits.upload), ("download", &limits.download)];
                let limited = directions.map(|(direction, bandwidth)| {
                    let mut labels = archive(target);
                    labels.push(("direction", direction.to_owned()));
                    Some((labels, bandwidth.rate()? as f64))
                });
                limited.into_iter().flatten()
            }),
        )?;
        to.gauges(
            "s3_clock_offset_seconds",
            "By which the store's clock is ahead of this node's; S3 refuses requests from 900 on",
            targets.iter().filter_map(|target| {
                #[expect(clippy::cast_precision_loss, reason = "seconds")]
                let ahead = target.requests().clock_offset()? as f64;
                Some((archive(target), ahead))
            }),
        )?;
        to.gauges(
            "store_dialect",
            "1 for each thing that the store was found to do otherwise than S3",
            targets.iter().flat_map(|target| {
                target.quirks().names().into_iter().map(|quirk| {
                    let mut labels = archive(target);
                    labels.push(("habit", quirk.to_owned()));
                    (labels, 1.0)
                })
            }),
        )
    }

    fn coordinator(&self, to: &mut FamilySink<'_>) -> fmt::Result {
        let link = self.link.get();
        let reader = |of: fn(&crate::lustre::ReaderStats) -> &AtomicU64| link.map_or(0, |link| get(of(&link.reader)));
        let ready = if self.is_ready() { 1.0 } else { 0.0 };
        to.gauge("ready", "1 while the daemon is registered and takes work", ready)?;
        to.counter(
            "registrations",
            "Registrations with the coordinator",
            reader(|reader| &reader.registrations),
        )?;
        to.counter(
            "pipe_bytes",
            "Bytes read from the kernel's pipe",
            reader(|reader| &reader.bytes),
        )?;
        to.counter(
            "pipe_messages",
            "Whole messages read from the pipe",
            reader(|reader| &reader.messages),
        )?;
        to.counter("pipe_items", "Items for this daemon", reader(|reader| &reader.items))?;
        to.counter(
            "pipe_damaged",
            "Streams that were damaged",
            reader(|reader| &reader.damaged),
        )?;
        to.counter(
            "heartbeats",
            "Reports of live actions to the coordinator",
            link.map_or(0, |link| get(&link.heartbeats)),
        )?;
        let mdts = self.queue.mdts();
        let of = |mdt: &Mdt| vec![("mdt", format!("{:04x}", mdt.0))];
        to.gauges(
            "mdt_silent",
            "1 while an MDT that had actions here does not answer",
            mdts.iter()
                .map(|(mdt, _, answers)| (of(mdt), if *answers { 0.0 } else { 1.0 })),
        )?;
        to.gauges(
            "mdt_workers_busy",
            "Worker threads that have an action of that MDT",
            mdts.iter().map(|(mdt, held, _)| (of(mdt), count(*held))),
        )?;
        to.gauge(
            "journal_unwritten",
            "Changes that wait to be written to the journal",
            count(self.context.journal.unwritten()),
        )?;
        let broken = if self.context.journal.is_broken() { 1.0 } else { 0.0 };
        to.gauge(
            "journal_broken",
            "1 while changes can't be written to the journal: a crash would leave actions to the time-out",
            broken,
        )?;
        to.gauge(
            "journal_bytes",
            "Size of the journal",
            self.context.journal.size() as f64,
        )
    }
}

impl TelemetrySources {
    /// Nothing where there is none.
    fn ledger(&self, to: &mut FamilySink<'_>) -> fmt::Result {
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        let health = ledger.health();
        to.gauge(
            "ledger_in_step",
            "1 while the ledger has what the journal has, but for the last moment",
            if health.step == Step::InStep { 1.0 } else { 0.0 },
        )?;
        to.gauge(
            "ledger_lag_seconds",
            "Age of the oldest change that the ledger lacks",
            health.lag.as_secs_f64(),
        )?;
        to.gauge(
            "ledger_unwritten",
            "Changes that wait to be written to the ledger",
            count(health.unwritten),
        )?;
        to.counter(
            "ledger_changes",
            "Changes that were written to the ledger",
            health.written,
        )?;
        to.counter(
            "ledger_renewals",
            "Renewals of this mover's row in the ledger",
            health.renewals,
        )?;
        to.counter(
            "ledger_connections",
            "Connections to the ledger that were made and claimed this mover's row",
            health.connections,
        )?;
        to.counter(
            "ledger_found_dead",
            "Movers that this one found dead",
            health.found_dead,
        )?;
        to.counter(
            "ledger_taken_over",
            "Actions that were taken over from dead movers",
            health.taken_over,
        )?;
        to.counter(
            "ledger_given_up",
            "Actions that other movers took over from this one",
            health.given_up,
        )?;
        to.gauge(
            "ledger_offered",
            "Actions that other movers may take, for this one does not reach their MDT or store",
            count(health.offered),
        )?;
        to.counter(
            "ledger_offers_taken",
            "Actions that were taken from movers that are cut off from their MDT or store",
            health.offers_taken,
        )?;
        to.counter(
            "ledger_offers_given",
            "Actions that other movers took from this one while it was cut off from their MDT or store",
            health.offers_given,
        )?;
        to.gauge(
            "ledger_postponed",
            "Actions that wait until no other mover can have taken them over",
            count(health.postponed),
        )?;
        to.gauges(
            "ledger_peer_silent_seconds",
            "For how long another mover did not renew its row while this one looked",
            health
                .peers
                .iter()
                .map(|peer| (vec![("peer", peer.name.clone())], peer.still.as_secs_f64())),
        )?;
        to.gauges(
            "ledger_peer_dead",
            "1 for another mover that was found dead and has not come back",
            health.peers.iter().map(|peer| {
                let is_dead = if peer.word() == "dead" { 1.0 } else { 0.0 };
                (vec![("peer", peer.name.clone())], is_dead)
            }),
        )?;
        to.counter(
            "ledger_fences",
            "Dead movers' nodes that this one has fenced",
            health.fences,
        )?;
        to.counter(
            "ledger_fence_failures",
            "Fence commands of this mover that failed",
            health.fence_failures,
        )?;
        let of = |peer: &PeerHealth| vec![("peer", peer.name.clone())];
        let flag = |is_so| if is_so { 1.0 } else { 0.0 };
        to.gauges(
            "ledger_peer_fenced",
            "1 for another mover that was found dead and whose node was fenced",
            health.peers.iter().map(|peer| (of(peer), flag(peer.is_fenced))),
        )?;
        to.gauges(
            "ledger_peer_fence_failing",
            "1 for a dead mover whose node this one is to fence, while the last command for it has failed",
            health
                .peers
                .iter()
                .map(|peer| (of(peer), flag(peer.fence_error.is_some()))),
        )?;
        to.gauges(
            "ledger_peer_eviction_seconds",
            "Until the servers evict a dead mover's node, about; 0: nobody waits for that",
            health.peers.iter().map(|peer| {
                let left = peer.until_eviction().unwrap_or_default();
                (of(peer), left.as_secs_f64())
            }),
        )
    }
}

impl Collector for TelemetrySources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = FamilySink(encoder);
        to.gauge(
            "uptime_seconds",
            "Since the daemon was started",
            self.context.tally.age().as_secs_f64(),
        )?;
        self.actions(&mut to)?;
        self.stores(&mut to)?;
        self.coordinator(&mut to)?;
        self.ledger(&mut to)?;
        self.fleet(&mut to)?;
        to.counter(
            "log_lines_lost",
            "Lines of the log that stderr did not take",
            super::stderr::lost(),
        )?;
        to.counter(
            "completions_lost",
            "Lines that the completion log lacks: it could not be written",
            super::completions::lost(),
        )?;
        let process = procfs_numbers();
        to.gauge("resident_bytes", "Memory of the process", process.resident)?;
        to.gauge("open_files", "Open descriptors of the process", process.files)?;
        to.gauge("threads", "Threads of the process", process.threads)
    }
}

/// Where numbers go, one family after the other.
pub(super) struct FamilySink<'a>(DescriptorEncoder<'a>);

impl FamilySink<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [(Labels::new(), value)])
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            with(&mut family, &labels, |metric| encode_gauge(metric, &value))?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(Labels::new(), value)])
    }

    fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            with(&mut family, &labels, |metric| {
                metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
            })?;
        }
        Ok(())
    }

    fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, &'a Histogram)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, value) in values {
            let buckets: Vec<_> = value.buckets().collect();
            with(&mut family, &labels, |metric| {
                metric.encode_histogram::<NoLabelSet>(value.seconds(), value.count(), &buckets, None)
            })?;
        }
        Ok(())
    }
}

fn encode_gauge(metric: &mut MetricEncoder<'_>, value: &impl EncodeGaugeValue) -> fmt::Result {
    metric.encode_gauge(value)
}

fn with(
    family: &mut MetricEncoder<'_>,
    labels: &Labels,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() {
        return encode(family);
    }
    encode(&mut family.encode_family(labels)?)
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
const fn count(n: usize) -> f64 {
    n as f64
}

struct Process {
    resident: f64,
    files: f64,
    threads: f64,
}

/// Of this process, from /proc; what can't be read is 0.
fn procfs_numbers() -> Process {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        value.unwrap_or(0.0)
    };
    Process {
        resident: number("VmRSS:") * 1024.0,
        files: std::fs::read_dir("/proc/self/fd").map_or(0.0, |files| count(files.count())),
        threads: number("Threads:"),
    }
}
