//! The same world without deaths, for as long as asked: the store misbehaves all the time, and what the daemon holds
//! must stay as it is.

use std::time::{Duration, Instant};

use lhsm_sandbox::protocol::Tunable;

use crate::files::Expected;
use crate::world::{PATIENCE, Result, World};

const OPERATIONS: [&str; 6] = [
    "PutObject",
    "UploadPart",
    "CompleteMultipartUpload",
    "GetObject",
    "HeadObject",
    "DeleteObject",
];
const SAMPLE: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_secs(300);
/// What waits at the coordinator before the next lot of work.
const DEEP: u64 = 100;

/// What the daemon holds at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    rss_kib: u64,
    files: u64,
    threads: u64,
    journal_kib: u64,
}

/// The daemon at the beginning, when it was warm, and at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flatness {
    actions: u64,
    faults: u64,
    warm: Sample,
    end: Sample,
}

impl Flatness {
    /// Nothing grows with time: a fifth and a little is noise.
    pub(crate) const fn is_flat(&self) -> bool {
        const fn within(warm: u64, end: u64, slack: u64) -> bool {
            end <= warm + warm / 5 + slack
        }
        within(self.warm.rss_kib, self.end.rss_kib, 8 << 10)
            && within(self.warm.files, self.end.files, 16)
            && within(self.warm.threads, self.end.threads, 2)
            && within(self.warm.journal_kib, self.end.journal_kib, 2 << 10)
    }

    pub(crate) fn json(&self) -> String {
        format!(
            "\"actions\":{},\"faults\":{},\"rss_kib\":[{},{}],\"open_files\":[{},{}],\"threads\":[{},{}],\
             \"journal_kib\":[{},{}],\"flat\":{}",
            self.actions,
            self.faults,
            self.warm.rss_kib,
            self.end.rss_kib,
            self.warm.files,
            self.end.files,
            self.warm.threads,
            self.end.threads,
            self.warm.journal_kib,
            self.end.journal_kib,
            self.is_flat()
        )
    }
}

impl World {
    pub(crate) fn soak(&mut self, duration: Duration) -> Result<Flatness> {
        if !self.client.wait_agents(1, PATIENCE)? {
            return Err("the daemon does not register".into());
        }
        // Slow answers are not given up here, as nobody dies.
        self.client.set(Tunable::ActiveRequestTimeoutMs, 60_000)?;
        self.client.set(Tunable::RemoveArchiveOnLastUnlink, 1)?;
        let start = Instant::now();
        let mut samples = Vec::new();
        let mut faults = 0;
        let mut next = start;
        while start.elapsed() < duration {
            for _ in 0..20 {
                self.work()?;
            }
            if self.random.below(4) == 0 {
                self.replace()?;
            }
            if self.random.below(3) == 0 {
                self.misbehave();
                faults += 1;
            }
            let began = Instant::now();
            while self.client.pending()? > DEEP && began.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
            if Instant::now() >= next {
                next = Instant::now() + SAMPLE;
                samples.push(self.sample()?);
            }
        }
        self.store.faults().clear();
        // What the last complaints slowed down gets its time.
        let began = Instant::now();
        while self.client.pending()? > 0 && began.elapsed() < DRAIN {
            std::thread::yield_now();
        }
        let middle = |samples: &[Sample]| {
            let of = |get: fn(&Sample) -> u64| {
                let mut values: Vec<_> = samples.iter().map(get).collect();
                values.sort_unstable();
                values.get(values.len() / 2).copied().unwrap_or(0)
            };
            Sample {
                rss_kib: of(|sample| sample.rss_kib),
                files: of(|sample| sample.files),
                threads: of(|sample| sample.threads),
                journal_kib: of(|sample| sample.journal_kib),
            }
        };
        let quarter = samples.len() / 4;
        Ok(Flatness {
            actions: self.client.actions()?.len() as u64,
            faults,
            warm: middle(samples.get(quarter..2 * quarter).unwrap_or_default()),
            end: middle(samples.get(3 * quarter..).unwrap_or_default()),
        })
    }

    /// A file goes, and its copy with it; another one comes.
    fn replace(&mut self) -> Result<()> {
        let at = usize::try_from(self.random.below(self.files.len() as u64))?;
        self.made += 1;
        let name = format!("n{}", self.made);
        let Some(file) = self.files.get_mut(at) else {
            return Ok(());
        };
        std::fs::remove_file(&file.path)?;
        self.dead.add(file.fid, self.outcome.purges);
        let Some(directory) = file.path.parent().map(std::path::Path::to_owned) else {
            return Ok(());
        };
        *file = Expected::create(&directory, &name, &mut self.client, &mut self.random)?;
        Ok(())
    }

    /// As stores do on bad days.
    fn misbehave(&mut self) {
        let at = usize::try_from(self.random.below(OPERATIONS.len() as u64)).unwrap_or(0);
        let operation = OPERATIONS.get(at).copied().unwrap_or("PutObject");
        let faults = self.store.faults();
        match self.random.below(20) {
            // Each one halves the pace for a while.
            0 => faults.fail(operation, 503, "SlowDown", 1),
            1..5 => faults.fail(operation, 500, "InternalError", 3),
            5..9 => faults.reset(operation, 2),
            9..12 => faults.truncate_body("GetObject", 1000, 2),
            12..14 => faults.corrupt_body(1),
            14..17 => faults.slow(operation, Duration::from_millis(20)),
            _ => faults.slow(operation, Duration::ZERO),
        }
    }

    fn sample(&self) -> Result<Sample> {
        let mover = self.movers.first().ok_or("there is no daemon")?;
        let process = format!("/proc/{}", mover.daemon.pid());
        let status = std::fs::read_to_string(format!("{process}/status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        let mut journal = 0;
        for file in std::fs::read_dir(&mover.plan.state_dir)? {
            journal += file?.metadata()?.len();
        }
        Ok(Sample {
            rss_kib: number("VmRSS:"),
            files: std::fs::read_dir(format!("{process}/fd"))?.count() as u64,
            threads: number("Threads:"),
            journal_kib: journal >> 10,
        })
    }
}
