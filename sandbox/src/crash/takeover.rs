//! Many restores wait at a mover that dies: how long until another one has served the first of them, and all. The daemon
//! alone is killed; or its node, which is evicted at once as a fence has it; or its node, which is evicted when the servers
//! have waited for long enough, and until then an MDT that sends something to it stands still for everybody.

use std::path::Path;
use std::time::{Duration, Instant};

use lhsm_sandbox::mover::{self, Mover, Site};
use lhsm_sandbox::postgres::Postgres;
use lhsm_sandbox::protocol::{Action, Fid, Tunable, states};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Gate, Server};
use tempfile::TempDir;

use crate::files::Random;
use crate::trouble::LEASE;
use crate::world::{BUCKET, PATIENCE, Result};

/// From a mover's death to the first restore that another one has served, where the coordinator goes on.
const IN_TIME: Duration = LEASE.saturating_add(Duration::from_secs(3));
/// Lustre's is 100 s.
const EVICTION: Duration = Duration::from_secs(10);
/// No eviction by itself.
const NEVER: Duration = Duration::from_secs(3600);
/// Readers that come after the death.
const NEW: u64 = 10;
/// Files of one request: an ioctl takes 52.
const REQUEST: usize = 50;
/// Until all is archived, or delivered, or served.
const LONG: Duration = Duration::from_secs(600);
/// Between two looks at the coordinator.
const LOOK: Duration = Duration::from_millis(5);
/// Between two at the ledger, each by a process of its own.
const LOOK_LEDGER: Duration = Duration::from_millis(100);
const SETTINGS: &str = "keepalive = '1s'\n[workers]\nthreads = 9\nrestore_threads = 8\n";

/// What becomes of the mover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    /// Its daemon's alone.
    Killed,
    /// With its node, which is evicted at once.
    Fenced,
    /// With its node, which is evicted after a while.
    Unfenced,
}

/// How long it took from the death on.
#[derive(Clone, Copy, Debug)]
struct Served {
    first: Duration,
    all: Duration,
    /// The last one of those that were asked for after the death.
    new: Duration,
    /// Files that have not what they must have, or nothing.
    failed: usize,
}

/// Of all three.
#[derive(Debug)]
pub(crate) struct Outcome {
    count: u64,
    killed: Served,
    fenced: Served,
    unfenced: Served,
}

impl Served {
    fn json(&self) -> String {
        format!(
            "{{\"first_s\":{:.2},\"all_s\":{:.2},\"new_s\":{:.2},\"failed\":{}}}",
            self.first.as_secs_f64(),
            self.all.as_secs_f64(),
            self.new.as_secs_f64(),
            self.failed
        )
    }

    fn text(&self) -> String {
        format!(
            "the first restore was served after {:.1} s, all after {:.1} s, and {NEW} that came after the death after {:.1} s; \
             {} failed",
            self.first.as_secs_f64(),
            self.all.as_secs_f64(),
            self.new.as_secs_f64(),
            self.failed
        )
    }
}

impl Outcome {
    pub(crate) fn json(&self) -> String {
        format!(
            "{{\"takeover\":{},\"lease_s\":{},\"killed\":{},\"fenced\":{},\"unfenced\":{},\"eviction_s\":{}}}",
            self.count,
            LEASE.as_secs(),
            self.killed.json(),
            self.fenced.json(),
            self.unfenced.json(),
            EVICTION.as_secs()
        )
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "{} restores wait at a mover, lease {} s.\nIts daemon is killed: {}.\nIts node dies and is fenced: {}.\n\
             Its node dies and is evicted after {} s (100 s on Lustre): {}.",
            self.count,
            LEASE.as_secs(),
            self.killed.text(),
            self.fenced.text(),
            EVICTION.as_secs(),
            self.unfenced.text()
        )
    }

    /// Whether nobody got an error, and the first was served in time wherever the coordinator did not stand still.
    pub(crate) fn is_in_time(&self) -> bool {
        let failed = self.killed.failed + self.fenced.failed + self.unfenced.failed;
        failed == 0 && self.killed.first <= IN_TIME && self.fenced.first <= IN_TIME
    }
}

/// `None`: there is no PostgreSQL, and nobody demands one.
pub(crate) fn run(count: u64) -> Result<Option<Outcome>> {
    let mut served = Vec::new();
    for death in [Death::Killed, Death::Fenced, Death::Unfenced] {
        let Some(postgres) = Postgres::start_if_there()? else {
            return Ok(None);
        };
        let (of_one, dir) = Scene::new(count, death, postgres)?.play(death);
        if of_one.as_ref().is_ok_and(|served| served.failed == 0) {
            drop(dir);
        } else {
            eprintln!("{death:?}: everything is kept in {}", dir.keep().display());
        }
        served.push(of_one?);
    }
    let [killed, fenced, unfenced] = served[..] else {
        return Err("not every death was played".into());
    };
    for (death, of_one) in [(Death::Killed, killed), (Death::Fenced, fenced)] {
        if of_one.first > IN_TIME {
            eprintln!(
                "{death:?}: the first restore was served after {:.2} s, later than {:.0} s",
                of_one.first.as_secs_f64(),
                IN_TIME.as_secs_f64()
            );
        }
    }
    Ok(Some(Outcome {
        count,
        killed,
        fenced,
        unfenced,
    }))
}

/// Released files, of which one mover has the restores.
struct Scene {
    // In the order in which they must end.
    movers: Vec<Mover>,
    mdt: Mdt,
    client: Client,
    store: Server,
    /// The store runs on it.
    _runtime: tokio::runtime::Runtime,
    postgres: Postgres,
    dir: TempDir,
    /// Each with the seed of its bytes: those that wait, those of new readers, and one whose restore is cancelled.
    files: Vec<(Fid, u64)>,
    count: usize,
}

impl Scene {
    fn new(count: u64, death: Death, postgres: Postgres) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lhsm-takeover-").tempdir()?;
        let mount = dir.path().join("lustre");
        let files = count + NEW + 1;
        let mdt = Mdt::start(Options {
            tick: Duration::from_millis(2),
            max_requests: usize::try_from(2 * files)?,
            // Nobody reads before the end.
            restore_on_read: Some(false),
            ..Options::new(&mount)
        })?;
        let runtime = tokio::runtime::Runtime::new()?;
        let store = runtime.block_on(Server::start(Config {
            data_dir: Some(dir.path().to_owned()),
            ..Config::default()
        }))?;
        let mut client = Client::new(&mount)?;
        let eviction = match death {
            Death::Unfenced => EVICTION,
            Death::Killed | Death::Fenced => NEVER,
        };
        client.set(Tunable::EvictionMs, u64::try_from(eviction.as_millis())?)?;
        let files = (0..files)
            .map(|seed| {
                let path = mount.join(format!("f{seed}"));
                std::fs::write(&path, content(seed))?;
                Ok((client.fid(&path)?, seed))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            movers: Vec::new(),
            mdt,
            client,
            store,
            _runtime: runtime,
            postgres,
            dir,
            files,
            count: usize::try_from(count)?,
        })
    }

    /// What came of it, and the directory with the logs.
    fn play(mut self, death: Death) -> (Result<Served>, TempDir) {
        let served = self.served(death);
        // Whoever runs ends before its directory.
        self.movers.clear();
        let Self { dir, mdt, postgres, .. } = self;
        drop(mdt);
        if let Err(error) = std::fs::write(dir.path().join("postgres.log"), postgres.log()) {
            eprintln!("PostgreSQL's log is not kept: {error}");
        }
        (served, dir)
    }

    fn served(&mut self, death: Death) -> Result<Served> {
        self.start(0)?;
        let all: Vec<_> = self.files.iter().map(|(fid, _)| *fid).collect();
        self.release(&all)?;
        let (waiting, rest) = all.split_at_checked(self.count).ok_or("too few files")?;
        let (new, cancelled) = rest
            .split_last()
            .map(|(last, new)| (new, *last))
            .ok_or("too few files")?;
        let gate = self.store.faults().hold("GetObject");
        self.ask(waiting)?;
        self.ask(&[cancelled])?;
        self.wait_in_hand(self.count + 1)?;
        self.start(1)?;
        mover::renewing(&self.postgres, 2, PATIENCE)?;
        let served = self.die(death, &gate, new, cancelled);
        gate.release();
        let mut served = served?;
        // The cancelled one may have been served, or not.
        if !self.client.wait(&all, PATIENCE)? {
            return Err(format!("{} actions hang", self.client.pending()?).into());
        }
        served.failed = self.failed(cancelled)?;
        Ok(served)
    }

    fn start(&mut self, number: u16) -> Result<()> {
        let mount = self.client.mount().to_owned();
        let plan = Site {
            dir: self.dir.path(),
            mount: &mount,
            store: &self.store,
            bucket: BUCKET,
            settings: SETTINGS,
            ledger: Some(&self.postgres),
            ledger_settings: "takeover_archives = '3s'\n",
        }
        .mover(number)?;
        if number == 0 {
            plan.init_ledger()?;
        }
        self.movers.push(plan.start()?);
        if !self.client.wait_agents(self.movers.len(), PATIENCE)? {
            return Err("a daemon does not register".into());
        }
        Ok(())
    }

    /// Archives and releases files.
    fn release(&mut self, fids: &[Fid]) -> Result<()> {
        for some in fids.chunks(REQUEST) {
            self.client.request(Action::Archive, 1, some)?;
        }
        let until = Instant::now() + LONG;
        while self.client.pending()? > 0 {
            if Instant::now() > until {
                return Err("the files are not archived in time".into());
            }
            std::thread::park_timeout(LOOK);
        }
        for fid in fids {
            self.client.release_closed(*fid, PATIENCE)?;
        }
        Ok(())
    }

    fn ask(&mut self, fids: &[Fid]) -> Result<()> {
        for some in fids.chunks(REQUEST) {
            self.client.request(Action::Restore, 1, some)?;
        }
        Ok(())
    }

    /// Until the first mover has so many, and the ledger knows.
    fn wait_in_hand(&self, count: usize) -> Result<()> {
        let statement = format!(
            "SELECT count(*) FROM lhsmtool_s3.action a JOIN lhsmtool_s3.mover m ON m.incarnation = a.owner \
             WHERE NOT a.answered AND a.verb = 2 AND m.name = '{}'",
            mover::name(0)
        );
        let until = Instant::now() + LONG;
        loop {
            let rows = self.postgres.rows(&statement)?;
            let known: usize = rows.first().ok_or("the ledger counts nothing")?.parse()?;
            if known == count {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("the ledger knows {known} of {count} restores").into());
            }
            std::thread::park_timeout(LOOK_LEDGER);
        }
    }

    /// The first mover dies.
    fn die(&mut self, death: Death, gate: &Gate, new: &[Fid], cancelled: Fid) -> Result<Served> {
        let before = self.restored()?;
        let first = self.movers.first_mut().ok_or("there is no mover")?;
        let node = first.node().to_owned();
        let died = Instant::now();
        match death {
            Death::Killed => first.kill()?,
            Death::Fenced | Death::Unfenced => {
                self.client.kill_node(&node)?;
                first.kill()?;
            }
        }
        if death == Death::Fenced {
            self.client.evict(&node)?;
        }
        gate.release();
        // Its cancel is for the dead one: the MDT sends it there.
        self.client.request(Action::Cancel, 1, &[cancelled])?;
        if death == Death::Unfenced && !self.client.wait_held_up(0, PATIENCE)? {
            return Err("the MDT does not stand still".into());
        }
        self.ask(new)?;
        self.look_on(died, before, new)
    }

    fn look_on(&mut self, died: Instant, before: u64, new: &[Fid]) -> Result<Served> {
        let (mut first, mut all, mut last_new) = (None, None, None);
        let mut new = new.to_vec();
        let mut served_new = 0;
        let count = u64::try_from(self.count)?;
        loop {
            let elapsed = died.elapsed();
            // Before the new ones are looked at: one that ends in between is not taken for one that waited.
            let restored = self.restored()?;
            let mut left = Vec::new();
            for fid in new {
                if self.client.state(fid)?.states & states::RELEASED == 0 {
                    served_new += 1;
                } else {
                    left.push(fid);
                }
            }
            new = left;
            if new.is_empty() {
                last_new.get_or_insert(elapsed);
            }
            let served = (restored - before).saturating_sub(served_new);
            if served > 0 {
                first.get_or_insert(elapsed);
            }
            if served >= count {
                all.get_or_insert(elapsed);
            }
            if let (Some(first), Some(all), Some(new)) = (first, all, last_new) {
                return Ok(Served {
                    first,
                    all,
                    new,
                    failed: 0,
                });
            }
            // All are over, and not all are served.
            if elapsed > LONG || (elapsed > PATIENCE && self.client.pending()? == 0) {
                return Err(format!(
                    "{served} of {count} restores were served, and all but {} of {NEW} new ones",
                    new.len()
                )
                .into());
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// Restores that ended well since the beginning.
    fn restored(&mut self) -> Result<u64> {
        Ok(self
            .client
            .counters()?
            .ended
            .get("RESTORE SUCCEED")
            .copied()
            .unwrap_or(0))
    }

    /// Files that have not what they must have.
    fn failed(&mut self, cancelled: Fid) -> Result<usize> {
        let mut failed = 0;
        for (fid, seed) in &self.files {
            let is_there = self.client.state(*fid)?.states & states::RELEASED == 0;
            let path = self.client.mount().join(format!("f{seed}"));
            if (!is_there && *fid != cancelled) || (is_there && !is_right(&path, *seed)?) {
                eprintln!("not restored, or not right: {} {fid}", path.display());
                failed += 1;
            }
        }
        Ok(failed)
    }
}

fn is_right(path: &Path, seed: u64) -> Result<bool> {
    Ok(std::fs::read(path)? == content(seed))
}

/// Some hundred bytes that no other file has.
fn content(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let words = 20 + seed % 100;
    (0..words).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect()
}
