//! The daemon's numbers as Prometheus reads them. Names, units and labels are all here; docs/metrics.md lists them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::lustre::ReaderStats;
use crate::queue::{Class, Queue};
use crate::worker::Site;

/// Where the numbers are.
#[derive(Clone)]
pub struct Sources {
    /// The table of live actions.
    pub queue: Arc<Queue>,
    /// Counters and journal.
    pub site: Site,
    /// The pipe's; set once the daemon is registered.
    pub reader: Arc<OnceLock<Arc<ReaderStats>>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Sources {
    /// Registered with the coordinator, and not on its way out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.reader.get().is_some() && !self.queue.is_parked()
    }

    /// All numbers, under their names.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("lhsmtool_s3");
        let info = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The release that runs", info);
        registry.register_collector(Box::new(self.clone()));
        registry
    }

    fn classes(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(Class) -> usize,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
        for class in Class::ALL {
            let gauge = ConstGauge::new(i64::try_from(of(class)).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("class", word(class))])?)?;
        }
        Ok(())
    }
}

const fn word(class: Class) -> &'static str {
    match class {
        Class::BlockingRestore => "blocking_restore",
        Class::Restore => "restore",
        Class::Remove => "remove",
        Class::Archive => "archive",
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let depth = self.queue.depth();
        let of = |counts: &std::collections::HashMap<Class, usize>, class| counts.get(&class).copied().unwrap_or(0);
        self.classes(
            &mut encoder,
            "actions_waiting",
            "Actions that wait for a worker",
            |class| of(&depth.waiting, class),
        )?;
        self.classes(&mut encoder, "actions_running", "Actions that a worker has", |class| {
            of(&depth.running, class)
        })?;
        let mut count = |name: &str, help: &str, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                prometheus_client::metrics::MetricType::Counter,
            )?)
        };
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.site.tally;
        count("actions_done", "Actions that ended as asked", get(&tally.done))?;
        count("actions_failed", "Actions that failed", get(&tally.failed))?;
        count(
            "actions_cancelled",
            "Actions that were cancelled",
            get(&tally.cancelled),
        )?;
        count(
            "bytes_done",
            "Bytes of the actions that ended as asked",
            get(&tally.bytes),
        )?;
        count(
            "key_conflicts",
            "Archives that went beside their key because it held what may be another file's only copy",
            get(&tally.conflicts),
        )?;
        if let Some(reader) = self.reader.get() {
            count("pipe_bytes", "Bytes read from the kernel's pipe", get(&reader.bytes))?;
            count(
                "pipe_messages",
                "Whole messages read from the pipe",
                get(&reader.messages),
            )?;
            count("pipe_items", "Items for this daemon", get(&reader.items))?;
            count("pipe_damaged", "Streams that were damaged", get(&reader.damaged))?;
        }
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let kind = prometheus_client::metrics::MetricType::Gauge;
        let unwritten = gauge(self.site.journal.unwritten());
        let help = "Changes that wait to be written to the journal";
        unwritten.encode(encoder.encode_descriptor("journal_unwritten", help, None, kind)?)?;
        let ready = gauge(usize::from(self.is_ready()));
        let help = "1 while the daemon is registered and takes work";
        ready.encode(encoder.encode_descriptor("ready", help, None, kind)?)
    }
}
