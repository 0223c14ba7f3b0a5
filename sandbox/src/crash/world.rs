//! The rounds: some work, a death, a successor.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lhsm_sandbox::mover::{Mover, Plan, Site};
use lhsm_sandbox::postgres::Postgres;
use lhsm_sandbox::protocol::{Action, Fault, HsmControl, NodeState, Step, Tunable};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Gate, Server};
use nix::sys::signal::Signal;

use crate::Cli;
use crate::files::{Expected, Random};
use crate::fleet::{Counts, Deaths, Span};
use crate::readers::Readers;
use crate::reckon::Dead;
use crate::soak::Flatness;
use crate::trouble::ACTIVE_REQUEST_TIMEOUT;

pub(crate) const BUCKET: &str = "lhsm-sandbox";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what comes by itself.
pub(crate) const LOOK: Duration = Duration::from_millis(300);
/// What daemons are told, so that what takes minutes takes moments.
pub(crate) const SETTINGS: &str = "keepalive = '200ms'\nheartbeat = '500ms'\nprogress = '500ms'\n[workers]\nthreads = 8\n\
    restore_threads = 2\n[transfer]\nmultipart_threshold = '5MiB'\npart_size = '5MiB'\nabort_uploads_after = '1s'\n";
/// For a step or a request that was hoped for and does not come.
const HOPE: Duration = Duration::from_millis(400);
/// Between two looks at whether it does, and who lives.
const GLANCE: Duration = Duration::from_millis(10);
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
    pub(crate) kills: u64,
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
    /// Where movers share a ledger.
    has_ledger: bool,
    pub(crate) fleet: Counts,
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
        let fleet = match self.has_ledger {
            true => format!(",{}", self.fleet.json()),
            false => String::new(),
        };
        format!(
            "{{\"kills\":{},\"movers\":{},\"seed\":{},\"cancels\":{},\"purges\":{},\"scrubs\":{},{found}{fleet}}}",
            self.kills, self.movers, self.seed, self.cancels, self.purges, self.scrubs
        )
    }

    pub(crate) fn text(&self) -> String {
        let fleet = match self.has_ledger {
            true => self.fleet.text(),
            false => String::new(),
        };
        format!(
            "seed {}: {} kills of {} daemons in {:.0} s, {} of them at a chosen step or request, {} cancels, {} purges, \
             {} scrubs; {} files: {} lost, {} corrupt; {} orphans ({} uploads, {} objects that no file is mapped to), \
             {} actions hang{fleet}",
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
        let served = self.fleet.failed_reads == 0;
        flat && served && self.lost == 0 && self.corrupt == 0 && self.orphans() == 0 && self.hung == 0
    }
}

pub(crate) struct World {
    pub(crate) began: Instant,
    _mdt: Mdt,
    pub(crate) store: Server,
    pub(crate) client: Client,
    mount: PathBuf,
    pub(crate) movers: Vec<Mover>,
    /// Which the movers share. What follows is of use only then.
    pub(crate) ledger: Option<Postgres>,
    pub(crate) readers: Option<Readers>,
    pub(crate) deaths: Deaths,
    pub(crate) purges: Vec<Span>,
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
    let ledger = if cli.movers > 1 && !cli.no_ledger && cli.minutes.is_none() {
        Postgres::start_if_there()?
    } else {
        None
    };
    let mut client = Client::new(&mount)?;
    // What was in the pipe when a daemon died nobody can know: the coordinator gives it up after a while. Where others take
    // over, they have to be done by then.
    let timeout = match ledger {
        Some(_) => ACTIVE_REQUEST_TIMEOUT,
        None => Duration::from_secs(4),
    };
    client.set(Tunable::ActiveRequestTimeoutMs, u64::try_from(timeout.as_millis())?)?;
    client.set(Tunable::LoopPeriodMs, 100)?;
    let mut random = Random(cli.seed);
    let files = (0..cli.files)
        .map(|n| Expected::create(&mount, &format!("f{n}"), &mut client, &mut random))
        .collect::<io::Result<_>>()?;
    let site = Site {
        dir: dir.path(),
        mount: &mount,
        store: &store,
        bucket: BUCKET,
        settings: SETTINGS,
        ledger: ledger.as_ref(),
        ledger_settings: "takeover_archives = '3s'\n",
    };
    let plans = (0..cli.movers)
        .map(|number| site.mover(number))
        .collect::<io::Result<Vec<_>>>()?;
    if let (Some(_), Some(plan)) = (&ledger, plans.first()) {
        plan.init_ledger()?;
    }
    let movers: Vec<_> = plans.into_iter().map(Plan::start).collect::<io::Result<_>>()?;
    let readers = ledger.as_ref().map(|_| Readers::new(&mount, mdt.restores_on_read()));
    let mut world = World {
        began: start,
        _mdt: mdt,
        store,
        client,
        mount,
        deaths: Deaths::new(movers.len()),
        movers,
        readers,
        purges: Vec::new(),
        scrub: None,
        files,
        random,
        made: 0,
        dead: Dead::default(),
        outcome: Outcome {
            movers: cli.movers,
            seed: cli.seed,
            has_ledger: ledger.is_some(),
            ..Outcome::default()
        },
        ledger,
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
        world.keep_log(&kept);
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
            if self.ledger.is_some() {
                self.trouble()?;
            } else {
                self.kill_some()?;
                self.outcome.kills += self.start_dead()?;
            }
        }
        Ok(())
    }

    /// Of the ledger: beside the daemons' logs.
    fn keep_log(&self, dir: &Path) {
        if let Some(ledger) = &self.ledger
            && let Err(error) = std::fs::write(dir.join("postgres.log"), ledger.log())
        {
            eprintln!("PostgreSQL's log is not kept: {error}");
        }
    }

    fn registered(&mut self) -> Result<()> {
        if !self.client.wait_agents(self.movers.len(), PATIENCE)? {
            return Err("a daemon does not register".into());
        }
        if self.ledger.is_none() {
            return Ok(());
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let agents = self.client.agents()?;
            let nodes = self.client.nodes()?;
            // A node that died has an agent for some time, too, and by the same name until it has booted.
            let is_up = |name: &str| {
                nodes
                    .iter()
                    .any(|node| node.name == name && node.state != NodeState::Dead)
            };
            let is_there = |name: &str| is_up(name) && agents.iter().any(|agent| agent.client == name);
            let missing = self.movers.iter().find(|mover| !is_there(mover.node()));
            let Some(missing) = missing else {
                return Ok(());
            };
            if Instant::now() > until {
                return Err(format!("the daemon of {} does not register: see its log", missing.node()).into());
            }
            // A trap may have killed it.
            self.outcome.kills += self.start_dead()?;
            std::thread::park_timeout(GLANCE);
        }
    }

    fn all_run(&mut self) -> bool {
        self.movers.iter_mut().all(Mover::is_running)
    }

    /// A successor for each that is dead; how many.
    pub(crate) fn start_dead(&mut self) -> Result<u64> {
        self.look();
        let mut dead = 0;
        for (at, mover) in self.movers.iter_mut().enumerate() {
            // One that dies in this moment is seen to be dead first.
            if self.deaths.is_dead(at) {
                mover.start_again()?;
                dead += 1;
            }
        }
        self.look();
        Ok(dead)
    }

    /// Kills one or all under load, at a step, in a request or at a random moment.
    pub(crate) fn kill_some(&mut self) -> Result<()> {
        let trap = self.set_trap()?;
        self.some_work()?;
        self.spring(trap)
    }

    /// As much as fits between two troubles.
    pub(crate) fn some_work(&mut self) -> Result<()> {
        for _ in 0..10 + self.random.below(30) {
            self.work()?;
            self.look();
        }
        self.hear_readers();
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
            let until = Instant::now() + HOPE;
            while Instant::now() < until {
                self.look();
                if gate.wait_held_blocking(1, GLANCE) {
                    self.outcome.at_steps += 1;
                    break;
                }
            }
        } else {
            // A random moment, unless a step kills one sooner.
            let until = Instant::now() + Duration::from_millis(self.random.below(150));
            while Instant::now() < until && self.all_run() {
                self.look();
                std::thread::yield_now();
            }
        }
        self.look();
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
                    mover.kill()?;
                }
            }
        } else {
            self.outcome.at_steps += 1;
        }
        self.look();
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
        let is_read = self.readers.as_ref().is_some_and(|readers| readers.are_at(fid));
        let request = |client: &mut Client, action| client.request(action, 1, &[fid]).or_else(refused);
        match self.random.below(40) {
            0..14 => request(&mut self.client, Action::Archive)?,
            14..27 if is_read => {}
            14..21 => self.client.release(fid).or_else(refused)?,
            21..27 => {
                let readers = self.readers.as_mut().filter(|readers| readers.have_room());
                match readers {
                    Some(readers) if file.is_released(&mut self.client)? => readers.begin(file)?,
                    _ => request(&mut self.client, Action::Restore)?,
                }
            }
            27..29 => request(&mut self.client, Action::Remove)?,
            29..31 => {
                self.outcome.cancels += 1;
                request(&mut self.client, Action::Cancel)?;
            }
            31..37 => {
                // A writer of a released file waits for its restore on Lustre; here it leaves it alone.
                if !busy && !is_read && !file.is_released(&mut self.client)? {
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
                    let from = Instant::now();
                    self.client.control(HsmControl::Purge)?;
                    let to = Instant::now();
                    self.purges.push(Span { from, to });
                }
                1 => {
                    self.outcome.fleet.mdt_restarts += 1;
                    self.client.inject(Fault::Restart)?;
                }
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
        let mut command = mover.plan.spawn.command(&arguments);
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
