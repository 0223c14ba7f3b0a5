//! The rounds: some work, a death, a successor; and the reckoning.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lhsm_sandbox::process::{Daemon, Spawn};
use lhsm_sandbox::protocol::{Action, Fault, HsmControl, Step, Tunable, states};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Gate, Server};
use nix::sys::signal::Signal;

use crate::Cli;
use crate::files::{Expected, Random};
use crate::soak::Flatness;

const BUCKET: &str = "lhsm-sandbox";
/// In the keys of what a daemon makes to try the store.
const PROBES: &str = ".lhsm-s3-metadata/0x0:0x0:0x0.";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// For a step or a request that was hoped for and does not come.
const HOPE: Duration = Duration::from_millis(400);
const STEPS: [Step; 4] = [Step::Begin, Step::Map, Step::Unmap, Step::End];
const REQUESTS: [&str; 7] = [
    "PutObject",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "GetObject",
    "HeadObject",
    "DeleteObject",
];

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What was found at the end.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    kills: u64,
    at_steps: u64,
    files: usize,
    lost: usize,
    corrupt: usize,
    /// Uploads that nobody will finish.
    orphans: usize,
    /// Objects that no file is mapped to: PUTs of a daemon's last moment, that it had no time to write down. A later
    /// archive of the file takes the key over; they cost space, not data.
    unmapped: usize,
    hung: u64,
    seconds: f64,
    flatness: Option<Flatness>,
}

impl Outcome {
    pub(crate) fn json(&self) -> String {
        if let Some(flatness) = &self.flatness {
            return format!(
                "{{\"seconds\":{:.0},\"files\":{},\"lost\":{},\"corrupt\":{},\"orphans\":{},\"hung\":{},{}}}",
                self.seconds,
                self.files,
                self.lost,
                self.corrupt,
                self.orphans,
                self.hung,
                flatness.json()
            );
        }
        format!(
            "{{\"kills\":{},\"files\":{},\"lost\":{},\"corrupt\":{},\"orphans\":{},\"hung\":{}}}",
            self.kills, self.files, self.lost, self.corrupt, self.orphans, self.hung
        )
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "{} kills in {:.0} s, {} of them at a chosen step or request; {} files: {} lost, {} corrupt; \
             {} orphan uploads, {} objects that no file is mapped to, {} actions hang",
            self.kills,
            self.seconds,
            self.at_steps,
            self.files,
            self.lost,
            self.corrupt,
            self.orphans,
            self.unmapped,
            self.hung
        )
    }

    pub(crate) const fn is_whole(&self) -> bool {
        let flat = match &self.flatness {
            Some(flatness) => flatness.is_flat(),
            None => true,
        };
        flat && self.lost == 0 && self.corrupt == 0 && self.orphans == 0 && self.hung == 0
    }
}

pub(crate) struct World {
    _mdt: Mdt,
    pub(crate) store: Server,
    pub(crate) client: Client,
    spawn: Spawn,
    pub(crate) daemon: Daemon,
    pub(crate) files: Vec<Expected>,
    pub(crate) random: Random,
    pub(crate) made: u64,
    pub(crate) state_dir: PathBuf,
    outcome: Outcome,
}

pub(crate) fn run(cli: &Cli) -> Result<Outcome> {
    let start = Instant::now();
    let dir = tempfile::Builder::new().prefix("lhsm-crash-").tempdir()?;
    let mount = dir.path().join("lustre");
    let mdt = Mdt::start(Options {
        tick: Duration::from_millis(2),
        ..Options::new(&mount)
    })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = runtime.block_on(Server::start(Config {
        data_dir: Some(dir.path().to_owned()),
        conditional_writes: !cli.unconditional,
        ..Config::default()
    }))?;
    let mut client = Client::new(&mount)?;
    // What was in the pipe when a daemon died nobody can know: the coordinator gives it up after a while.
    client.set(Tunable::ActiveRequestTimeoutMs, 4000)?;
    client.set(Tunable::LoopPeriodMs, 100)?;
    let settings = "keepalive = '200ms'\nheartbeat = '500ms'\nprogress = '500ms'\n[workers]\nthreads = 8\n\
                    restore_threads = 2\n[transfer]\nmultipart_threshold = '5MiB'\npart_size = '5MiB'\n\
                    abort_uploads_after = '1s'\n";
    let spawn = Spawn::between(dir.path(), &mount, &store, BUCKET, settings)?;
    let mut random = Random(cli.seed);
    let files = (0..cli.files)
        .map(|n| Expected::create(&mount, &format!("f{n}"), &mut client, &mut random))
        .collect::<io::Result<_>>()?;
    let daemon = spawn.start()?;
    let mut world = World {
        _mdt: mdt,
        store,
        client,
        spawn,
        daemon,
        files,
        random,
        made: 0,
        state_dir: dir.path().join("state"),
        outcome: Outcome::default(),
    };
    let worked = match cli.minutes {
        None => world.rounds(cli.kills),
        Some(minutes) => world
            .soak(Duration::from_secs(60 * minutes))
            .map(|flatness| world.outcome.flatness = Some(flatness)),
    };
    let result = worked.and_then(|()| world.reckon());
    if result.is_err() || !world.outcome.is_whole() {
        let kept = dir.keep();
        eprintln!("seed {}; everything is kept in {}", cli.seed, kept.display());
    }
    result?;
    world.outcome.seconds = start.elapsed().as_secs_f64();
    Ok(world.outcome)
}

impl World {
    fn rounds(&mut self, kills: u64) -> Result<()> {
        while self.outcome.kills < kills {
            if !self.client.wait_agents(1, PATIENCE)? {
                return Err("the daemon does not register".into());
            }
            let trap = self.set_trap()?;
            for _ in 0..10 + self.random.below(30) {
                self.work()?;
            }
            self.spring(trap)?;
            self.daemon = self.spawn.start()?;
            self.outcome.kills += 1;
        }
        Ok(())
    }

    /// Something that the daemon does not survive, or a request that it will be killed in.
    fn set_trap(&mut self) -> Result<Option<Gate>> {
        match self.random.below(3) {
            0 => {
                let step = STEPS[usize::try_from(self.random.below(4))?];
                let before = self.random.below(2) == 0;
                self.client.inject(Fault::Kill { step, before })?;
                Ok(None)
            }
            1 => {
                let request = REQUESTS[usize::try_from(self.random.below(7))?];
                Ok(Some(self.store.faults().hold(request)))
            }
            _ => Ok(None),
        }
    }

    fn spring(&mut self, trap: Option<Gate>) -> Result<()> {
        if let Some(gate) = &trap {
            if gate.wait_held_blocking(1, HOPE) {
                self.outcome.at_steps += 1;
            }
        } else {
            // A random moment, unless a step kills it sooner.
            let until = Instant::now() + Duration::from_millis(self.random.below(150));
            while Instant::now() < until && self.daemon.is_running() {
                std::thread::yield_now();
            }
        }
        if self.daemon.is_running() {
            // It may die of its step at this moment.
            let _gone = self.daemon.signal(Signal::SIGKILL);
        } else {
            self.outcome.at_steps += 1;
        }
        self.daemon.wait(PATIENCE)?;
        if let Some(gate) = trap {
            gate.release();
        }
        Ok(())
    }

    /// One thing that users and administrators do. What does not fit a file's state is refused, which is fine.
    pub(crate) fn work(&mut self) -> Result<()> {
        let at = usize::try_from(self.random.below(self.files.len() as u64))?;
        let file = &mut self.files[at];
        let fid = file.fid;
        let busy = self.client.state(fid)?.action.is_some();
        let request = |client: &mut Client, action| client.request(action, 1, &[fid]).or_else(refused);
        match self.random.below(40) {
            0..14 => request(&mut self.client, Action::Archive)?,
            14..21 => self.client.release(fid).or_else(refused)?,
            21..27 => request(&mut self.client, Action::Restore)?,
            27..29 => request(&mut self.client, Action::Remove)?,
            29..31 => request(&mut self.client, Action::Cancel)?,
            31..37 => {
                // A writer of a released file waits for its restore on Lustre; here it leaves it alone.
                if !busy && !file.is_released(&mut self.client)? {
                    file.write(&mut self.random)?;
                }
            }
            37..39 => {
                self.made += 1;
                let to = file.path.with_file_name(format!("r{}", self.made));
                std::fs::rename(&file.path, &to)?;
                file.path = to;
            }
            _ => match self.random.below(6) {
                0 => self.client.control(HsmControl::Purge)?,
                1 => self.client.inject(Fault::Restart)?,
                _ => {}
            },
        }
        Ok(())
    }

    fn reckon(&mut self) -> Result<()> {
        if !self.client.wait_agents(1, PATIENCE)? {
            return Err("the last daemon does not register".into());
        }
        let fids: Vec<_> = self.files.iter().map(|file| file.fid).collect();
        self.client.wait(&fids, PATIENCE)?;
        self.outcome.hung = self.client.pending()?;
        self.outcome.files = self.files.len();
        // What is left at the store may belong to somebody until it is old; a daemon looks when it starts.
        self.successor()?;
        let until = Instant::now() + PATIENCE;
        while !self.store.uploads(BUCKET).is_empty() && Instant::now() < until {
            // Nothing of this kind will happen: it is a clock.
            self.client.wait_agents(9, Duration::from_millis(1100))?;
            self.successor()?;
        }
        self.orphans()?;
        for at in 0..self.files.len() {
            let file = &self.files[at];
            for _ in 0..5 {
                if !file.is_released(&mut self.client)? {
                    break;
                }
                self.client.request(Action::Restore, 1, &[file.fid]).or_else(refused)?;
                self.client.wait(&[file.fid], PATIENCE)?;
            }
            if file.is_released(&mut self.client)? {
                eprintln!("lost: {} {}", file.path.display(), file.fid);
                self.outcome.lost += 1;
            } else if std::fs::read(&file.path)? != file.content() {
                eprintln!("corrupt: {} {}", file.path.display(), file.fid);
                self.outcome.corrupt += 1;
            }
        }
        self.daemon.signal(Signal::SIGTERM)?;
        self.daemon.wait(PATIENCE)?;
        Ok(())
    }

    /// Ends the daemon well and starts another.
    fn successor(&mut self) -> Result<()> {
        if self.daemon.is_running() {
            self.daemon.signal(Signal::SIGTERM)?;
        }
        self.daemon.wait(PATIENCE)?;
        self.daemon = self.spawn.start()?;
        if !self.client.wait_agents(1, PATIENCE)? {
            return Err("the daemon does not register".into());
        }
        Ok(())
    }

    /// Uploads, and objects that are no file's copy.
    fn orphans(&mut self) -> Result<()> {
        // What a daemon was killed over while it tried the store is of no file, and goes when its time is over.
        let uploads = self.store.uploads(BUCKET).into_iter();
        for (key, id) in uploads.filter(|(key, _)| !key.contains(PROBES)) {
            eprintln!("orphan upload: {key} {id}");
            self.outcome.orphans += 1;
        }
        let mut mapped = HashSet::new();
        for file in &self.files {
            if let Ok(record) = self.client.xattr(file.fid, "trusted.lhsm_s3") {
                let record: serde_json::Value = serde_json::from_slice(&record)?;
                mapped.insert(record["key"].as_str().unwrap_or_default().to_owned());
            } else if self.client.state(file.fid)?.states & states::ARCHIVED != 0 {
                eprintln!("archived and without a record: {}", file.path.display());
                self.outcome.lost += 1;
            }
        }
        for object in self.store.objects(BUCKET) {
            if !mapped.contains(&object.key) {
                self.outcome.unmapped += 1;
            }
        }
        Ok(())
    }
}

/// The coordinator's no is an answer.
fn refused(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(_) => Ok(()),
        None => Err(error),
    }
}
