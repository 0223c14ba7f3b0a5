//! `lhsmtool-s3 bench`: what the configured store gives to this node, by the daemon's own transfers, without Lustre.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::session::{lanes, runtime, target_of};
use crate::config::Settings;
use crate::store::{Condition, Location, ObjectKey, Target};
use crate::transfer::{Bearer, Control, Lane, NoLog, Stop, Transfer, TransferError, Upload};
use crate::types::ArchiveId;

/// How to measure.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The archive id whose store is measured (default: the configuration's first)
    #[arg(long, value_name = "N")]
    archive_id: Option<u32>,
    /// Seconds for each of the four steps
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Requests at a time (default: `threads` of the configuration)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: Option<u64>,
    /// Bytes of a large object
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    size: bytesize::ByteSize,
    /// One line of JSON at the end instead of the table
    #[arg(long)]
    json: bool,
}

const SMALL: u64 = 4096;
const LARGEST: u64 = 5 << 30;
/// For the deletes at the end.
const CLEAN_UP: Duration = Duration::from_secs(120);

/// One step's figures.
#[derive(Debug)]
struct Step {
    name: &'static str,
    requests: usize,
    bytes: u64,
    seconds: f64,
    /// Sorted, in milliseconds.
    latencies: Vec<f64>,
}

/// What the threads share.
struct Run {
    archive_id: ArchiveId,
    prefix: String,
    control: Arc<Control>,
    /// By size.
    made: Mutex<HashMap<u64, Vec<Location>>>,
    error: Mutex<Option<TransferError>>,
    moved: AtomicU64,
}

pub(super) fn run(args: &BenchArgs, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    let size = args.size.as_u64();
    if !(1..=LARGEST).contains(&size) {
        return Err(format!("--size {}: give a size from 1 byte to 5 GiB", args.size).into());
    }
    let options = target_of(settings, args.archive_id)?;
    let runtime = runtime()?;
    let target = Arc::new(runtime.block_on(Target::resolve(options.clone()))?);
    let threads = args
        .threads
        .map_or(settings.threads, |n| usize::try_from(n).unwrap_or(1));
    let lanes = lanes(&[target], settings, threads)?;
    let run = Run {
        archive_id: options.archive_id,
        prefix: format!("{}lhsmtool-s3-bench-{:016x}/", options.prefix, fastrand::u64(..)),
        control: Arc::default(),
        made: Mutex::default(),
        error: Mutex::default(),
        moved: AtomicU64::new(0),
    };
    // Ctrl-C ends the measuring, not the cleaning up.
    let control = Arc::clone(&run.control);
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            control.stop(Stop::Shutdown);
        }
    });
    let limit = Duration::from_secs(args.seconds);
    let bar = progress(args, &options.bucket);
    let mut steps = Vec::new();
    for (name, bytes, down) in [
        ("put small", SMALL, false),
        ("get small", SMALL, true),
        ("put large", size, false),
        ("get large", size, true),
    ] {
        if run.ended() {
            break;
        }
        bar.set_message(name);
        steps.push(run.step(name, &lanes, bytes, down, limit, &bar)?);
    }
    bar.set_message("cleaning up");
    let left = run.clean_up(&lanes);
    bar.finish_and_clear();
    report(args, threads, &steps);
    if left > 0 {
        return Err(format!(
            "{left} objects below '{}' could not be deleted; delete them by hand",
            run.prefix
        )
        .into());
    }
    match run.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn progress(args: &BenchArgs, bucket: &str) -> ProgressBar {
    // Four steps in tenths of a second; hidden by itself where nobody looks.
    let bar = ProgressBar::new(args.seconds * 40);
    if args.json {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(bucket.to_owned());
    bar
}

impl Run {
    fn ended(&self) -> bool {
        let failed = self.error.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        failed || self.control.stopped().is_some()
    }

    fn step(
        &self,
        name: &'static str,
        lanes: &[Lane],
        size: u64,
        down: bool,
        limit: Duration,
        bar: &ProgressBar,
    ) -> std::io::Result<Step> {
        let start = Instant::now();
        let done = AtomicBool::new(false);
        self.moved.store(0, Ordering::Relaxed);
        let latencies = std::thread::scope(|scope| {
            let threads: Vec<_> = lanes
                .iter()
                .enumerate()
                .map(|(n, lane)| scope.spawn(move || self.thread(lane, n, size, down, start + limit)))
                .collect();
            let ticker = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::park_timeout(Duration::from_millis(100));
                    bar.inc(1);
                }
            });
            let mut all = Vec::new();
            let mut failure = None;
            for thread in threads {
                match thread.join() {
                    Ok(Ok(latencies)) => all.extend(latencies),
                    Ok(Err(error)) => failure = Some(error),
                    Err(_) => failure = Some(std::io::Error::other("a thread panicked")),
                }
            }
            done.store(true, Ordering::Relaxed);
            ticker.thread().unpark();
            failure.map_or(Ok(all), Err)
        });
        let mut latencies = latencies?;
        latencies.sort_by(f64::total_cmp);
        Ok(Step {
            name,
            requests: latencies.len(),
            bytes: self.moved.load(Ordering::Relaxed),
            seconds: start.elapsed().as_secs_f64(),
            latencies,
        })
    }

    /// One request after the other until the time is over; milliseconds of each.
    fn thread(&self, lane: &Lane, n: usize, size: u64, down: bool, until: Instant) -> std::io::Result<Vec<f64>> {
        let file = Arc::new(scratch(if down { 0 } else { size })?);
        let mut latencies = Vec::new();
        for round in 0.. {
            if Instant::now() >= until || self.ended() {
                break;
            }
            let start = Instant::now();
            let result = match down {
                false => self.put(lane, &file, size, &format!("{size}-{n}-{round}")),
                true => self.get(lane, size),
            };
            match result {
                Ok(false) => break,
                Ok(true) => {
                    latencies.push(start.elapsed().as_secs_f64() * 1e3);
                    self.moved.fetch_add(size, Ordering::Relaxed);
                }
                Err(TransferError::Stopped(_)) => break,
                Err(error) => {
                    let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(error);
                    break;
                }
            }
        }
        Ok(latencies)
    }

    fn transfer<'t>(&'t self, lane: &'t Lane) -> Transfer<'t> {
        Transfer::new(lane, &self.control)
    }

    fn put(&self, lane: &Lane, file: &Arc<File>, size: u64, name: &str) -> Result<bool, TransferError> {
        let to = Upload {
            archive_id: self.archive_id,
            key: ObjectKey::new(format!("{}{name}", self.prefix))?,
            condition: Condition::None,
            metadata: HashMap::new(),
            is_data: true,
            log: Arc::new(NoLog),
        };
        let done = self.transfer(lane).upload(file, size, &to)?;
        let location = Location {
            archive_id: self.archive_id,
            key: to.key,
            size,
            etag: done.stored.etag,
            version: done.stored.version,
            checksum: Some(done.checksum),
            pinned: false,
            layout: None,
            sidecar: None,
            written_for: None,
            writer: None,
            cookie: None,
            data_version: None,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(size).or_default().push(location);
        Ok(true)
    }

    /// `false`: nothing of that size was put.
    fn get(&self, lane: &Lane, size: u64) -> Result<bool, TransferError> {
        let from = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            let objects = made.get(&size).filter(|objects| !objects.is_empty());
            objects.and_then(|objects| objects.get(fastrand::usize(..objects.len())).cloned())
        };
        let Some(from) = from else {
            return Ok(false);
        };
        let file = Arc::new(scratch(0).map_err(TransferError::Write)?);
        self.transfer(lane).download(&file, &from)?;
        Ok(true)
    }

    /// Deletes what was made; how many objects are left.
    fn clean_up(&self, lanes: &[Lane]) -> usize {
        let made: Vec<Location> = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.drain().flat_map(|(_, objects)| objects).collect()
        };
        let (next, gone) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let until = Instant::now() + CLEAN_UP;
        let control = Arc::new(Control::default());
        std::thread::scope(|scope| {
            for lane in lanes {
                scope.spawn(|| {
                    while let Some(location) = made.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if Instant::now() > until {
                            return;
                        }
                        // One that is gone is deleted, too.
                        if Transfer::new(lane, &control)
                            .delete(Bearer::Nobody, location, |_, _| true)
                            .is_ok()
                        {
                            gone.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        made.len() - gone.load(Ordering::Relaxed)
    }
}

/// A file in memory with bytes that no store can squeeze.
fn scratch(size: u64) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"lhsmtool-s3-bench", MFdFlags::MFD_CLOEXEC)?);
    let mut left = size;
    let mut chunk = vec![0; 1 << 16];
    while left > 0 {
        fastrand::fill(&mut chunk);
        let n = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(chunk.get(..n).unwrap_or_default())?;
        left -= n as u64;
    }
    Ok(file)
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
fn report(args: &BenchArgs, threads: usize, steps: &[Step]) {
    if args.json {
        let steps: serde_json::Map<_, _> = steps
            .iter()
            .map(|step| {
                let figures = serde_json::json!({
                    "requests": step.requests,
                    "requests_per_s": step.requests as f64 / step.seconds,
                    "bytes_per_s": step.bytes as f64 / step.seconds,
                    "p50_ms": percentile(&step.latencies, 50),
                    "p95_ms": percentile(&step.latencies, 95),
                    "p99_ms": percentile(&step.latencies, 99),
                });
                (step.name.replace(' ', "_"), figures)
            })
            .collect();
        outln!("{}", serde_json::json!({ "threads": threads, "steps": steps }));
        return;
    }
    outln!(
        "{:<10} {:>10} {:>12} {:>14} {:>10} {:>10} {:>10}",
        "step",
        "requests",
        "requests/s",
        "throughput",
        "p50",
        "p95",
        "p99"
    );
    for step in steps {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bytes a second are positive and fit"
        )]
        let rate = bytesize::ByteSize::b((step.bytes as f64 / step.seconds) as u64);
        outln!(
            "{:<10} {:>10} {:>12.1} {:>12}/s {:>7.1} ms {:>7.1} ms {:>7.1} ms",
            step.name,
            step.requests,
            step.requests as f64 / step.seconds,
            rate.display().iec().to_string(),
            percentile(&step.latencies, 50),
            percentile(&step.latencies, 95),
            percentile(&step.latencies, 99),
        );
    }
    outln!("{threads} requests at a time; each was checked by size and checksum");
}
