//! The rounds: some work, a death, a successor.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lhsm_sandbox::process::{Daemon, Spawn};
use lhsm_sandbox::protocol::{Action, Fault, HsmControl, Step, Tunable};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Gate, Server};
use nix::sys::signal::Signal;

use crate::Cli;
use crate::files::{Expected, Random};
use crate::reckon::Dead;
use crate::soak::Flatness;

pub(crate) const BUCKET: &str = "lhsm-sandbox";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what comes by itself.
pub(crate) const LOOK: Duration = Duration::from_millis(300);
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
    movers: u16,
    seed: u64,
    cancels: u64,
    pub(crate) purges: u64,
    scrubs: u64,
    pub(crate) files: usize,
    pub(crate) lost: usize,
    pub(crate) corrupt: usize,
    /// Uploads that nobody will finish.
    pub(crate) uploads: usize,
    /// Objects that no file is mapped to.
    pub(crate) unmapped: usize,
    /// Objects of files that are gone, whose REMOVE was purged: a scrub takes them away.
    pub(crate) purged: usize,
    pub(crate) hung: u64,
    seconds: f64,
    flatness: Option<Flatness>,
}

impl Outcome {
    const fn orphans(&self) -> usize {
        self.uploads + self.unmapped
    }

    pub(crate) fn json(&self) -> String {
        let found = format!(
            "\"files\":{},\"lost\":{},\"corrupt\":{},\"orphans\":{},\"hung\":{}",
            self.files,
            self.lost,
            self.corrupt,
            self.orphans(),
            self.hung
        );
        if let Some(flatness) = &self.flatness {
            return format!(
                "{{\"seconds\":{:.0},{found},\"purged\":{},{}}}",
                self.seconds,
                self.purged,
                flatness.json()
            );
        }
        format!(
            "{{\"kills\":{},\"movers\":{},\"seed\":{},\"cancels\":{},\"purges\":{},\"scrubs\":{},{found}}}",
            self.kills, self.movers, self.seed, self.cancels, self.purges, self.scrubs
        )
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "seed {}: {} kills of {} daemons in {:.0} s, {} of them at a chosen step or request, {} cancels, {} purges, \
             {} scrubs; {} files: {} lost, {} corrupt; {} orphans ({} uploads, {} objects that no file is mapped to), \
             {} actions hang",
            self.seed,
            self.kills,
            self.movers,
            self.seconds,
            self.at_steps,
            self.cancels,
            self.purges,
            self.scrubs,
            self.files,
            self.lost,
            self.corrupt,
            self.orphans(),
            self.uploads,
            self.unmapped,
            self.hung
        )
    }

    pub(crate) const fn is_whole(&self) -> bool {
        let flat = match &self.flatness {
            Some(flatness) => flatness.is_flat(),
            None => true,
        };
        flat && self.lost == 0 && self.corrupt == 0 && self.orphans() == 0 && self.hung == 0
    }
}

/// One daemon after the other, with one journal.
pub(crate) struct Mover {
    spawn: Spawn,
    pub(crate) daemon: Daemon,
    pub(crate) state_dir: PathBuf,
}

impl Mover {
    /// The first one is on the sandbox's own mount, each other one on another, as the coordinator sees it.
    fn start(dir: &Path, number: u16, mount: &Path, store: &Server, settings: &str) -> Result<Self> {
        let dir = match number {
            0 => dir.to_owned(),
            _ => dir.join(format!("mover{number}")),
        };
        std::fs::create_dir_all(&dir)?;
        let mut spawn = Spawn::between(&dir, mount, store, BUCKET, settings)?;
        if number > 0 {
            let client = dir.display().to_string();
            spawn.environment.push(("LHSM_SANDBOX_CLIENT".into(), client));
        }
        Ok(Self {
            daemon: spawn.start()?,
            spawn,
            state_dir: dir.join("state"),
        })
    }
}

pub(crate) struct World {
    _mdt: Mdt,
    pub(crate) store: Server,
    pub(crate) client: Client,
    mount: PathBuf,
    pub(crate) movers: Vec<Mover>,
    /// One that runs.
    scrub: Option<Child>,
    pub(crate) files: Vec<Expected>,
    pub(crate) random: Random,
    pub(crate) made: u64,
    pub(crate) dead: Dead,
    pub(crate) outcome: Outcome,
}

impl Drop for World {
    /// It may be in a hurry to end.
    fn drop(&mut self) {
        if let Some(mut scrub) = self.scrub.take() {
            // It may have ended this moment.
            let _gone = scrub.kill();
            let _reaped = scrub.wait();
        }
    }
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
    let mut random = Random(cli.seed);
    let files = (0..cli.files)
        .map(|n| Expected::create(&mount, &format!("f{n}"), &mut client, &mut random))
        .collect::<io::Result<_>>()?;
    let movers = (0..cli.movers)
        .map(|number| Mover::start(dir.path(), number, &mount, &store, settings))
        .collect::<Result<_>>()?;
    let mut world = World {
        _mdt: mdt,
        store,
        client,
        mount,
        movers,
        scrub: None,
        files,
        random,
        made: 0,
        dead: Dead::default(),
        outcome: Outcome {
            movers: cli.movers,
            seed: cli.seed,
            ..Outcome::default()
        },
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
    Ok(std::mem::take(&mut world.outcome))
}

impl World {
    fn rounds(&mut self, kills: u64) -> Result<()> {
        while self.outcome.kills < kills {
            self.registered()?;
            let trap = self.set_trap()?;
            for _ in 0..10 + self.random.below(30) {
                self.work()?;
            }
            self.spring(trap)?;
            self.outcome.kills += self.start_dead()?;
        }
        Ok(())
    }

    fn registered(&mut self) -> Result<()> {
        if !self.client.wait_agents(self.movers.len(), PATIENCE)? {
            return Err("a daemon does not register".into());
        }
        Ok(())
    }

    fn all_run(&mut self) -> bool {
        self.movers.iter_mut().all(|mover| mover.daemon.is_running())
    }

    /// A successor for each that is dead; how many.
    pub(crate) fn start_dead(&mut self) -> Result<u64> {
        let mut dead = 0;
        for mover in &mut self.movers {
            if !mover.daemon.is_running() {
                mover.daemon = mover.spawn.start()?;
                dead += 1;
            }
        }
        Ok(dead)
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
            // A random moment, unless a step kills one sooner.
            let until = Instant::now() + Duration::from_millis(self.random.below(150));
            while Instant::now() < until && self.all_run() {
                std::thread::yield_now();
            }
        }
        if self.all_run() {
            // Mostly one of them.
            let count = self.movers.len() as u64;
            let chosen = if count == 1 || self.random.below(4) == 0 {
                None
            } else {
                Some(usize::try_from(self.random.below(count))?)
            };
            for (at, mover) in self.movers.iter_mut().enumerate() {
                if chosen.is_none_or(|chosen| chosen == at) {
                    // It may die of its step at this moment.
                    let _gone = mover.daemon.signal(Signal::SIGKILL);
                    mover.daemon.wait(PATIENCE)?;
                }
            }
        } else {
            self.outcome.at_steps += 1;
        }
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
            29..31 => {
                self.outcome.cancels += 1;
                request(&mut self.client, Action::Cancel)?;
            }
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
                0 => {
                    self.outcome.purges += 1;
                    self.client.control(HsmControl::Purge)?;
                }
                1 => self.client.inject(Fault::Restart)?,
                2 => self.scrub()?,
                _ => {}
            },
        }
        Ok(())
    }

    /// Begins a scrub, unless one runs. It may find what is under way, and deletes what has been nobody's for long.
    fn scrub(&mut self) -> Result<()> {
        if let Some(scrub) = &mut self.scrub
            && scrub.try_wait()?.is_none()
        {
            return Ok(());
        }
        let deletes = self.random.below(2) == 0;
        self.start_scrub(deletes.then_some("30s"))
    }

    /// Begins one that deletes what has been nobody's for so long.
    pub(crate) fn start_scrub(&mut self, grace: Option<&str>) -> Result<()> {
        let mut arguments = vec!["scrub", "--json"];
        if let Some(grace) = grace {
            arguments.extend(["--delete-orphans", "--grace", grace]);
        }
        let mount = self.mount.display().to_string();
        arguments.push(&mount);
        let mover = self.movers.first().ok_or("there is no daemon")?;
        let mut command = mover.spawn.command(&arguments);
        self.scrub = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        self.outcome.scrubs += 1;
        Ok(())
    }

    pub(crate) fn end_scrub(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while let Some(scrub) = &mut self.scrub {
            if scrub.try_wait()?.is_some() {
                self.scrub = None;
            } else if Instant::now() > until {
                return Err("a scrub does not end".into());
            } else {
                self.pause(LOOK)?;
            }
        }
        Ok(())
    }

    /// Nothing of this kind will happen: it is a clock.
    pub(crate) fn pause(&mut self, time: Duration) -> Result<()> {
        self.client.wait_agents(self.movers.len() + 9, time)?;
        Ok(())
    }

    /// Until nothing is asked for any more. A trap of the last round may still be there.
    pub(crate) fn idle(&mut self) -> Result<()> {
        let fids: Vec<_> = self.files.iter().map(|file| file.fid).collect();
        let until = Instant::now() + PATIENCE;
        loop {
            self.start_dead()?;
            self.registered()?;
            if (self.client.wait(&fids, LOOK)? && self.all_run()) || Instant::now() > until {
                return Ok(());
            }
        }
    }

    /// Ends the daemons well and starts others.
    pub(crate) fn successors(&mut self) -> Result<()> {
        for mover in &mut self.movers {
            if mover.daemon.is_running() {
                mover.daemon.signal(Signal::SIGTERM)?;
            }
            mover.daemon.wait(PATIENCE)?;
        }
        self.start_dead()?;
        self.registered()
    }
}

/// The coordinator's no is an answer.
pub(crate) fn refused(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(_) => Ok(()),
        None => Err(error),
    }
}
