//! Random scripts against a small model: every action gets one answer, bytes are what was written last,
//! no upload is left, and nothing is alive in the daemon at the end.
//!
//! A failure prints its seed: `MODEL_SEED=… cargo test --test it model`. `MODEL_SCRIPTS` sets how many
//! scripts are run.

use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use lhsm_sandbox::protocol::{Action, ActionState, Fault, Fid, HsmControl, Tunable, states};
use nix::sys::signal::Signal;

use crate::rig::{BUCKET, PATIENCE, Rig, Setup, until};

const SCRIPTS: u64 = 2000;
const WORLDS: u64 = 4;
const FILES: usize = 3;
/// Files have records of their copies, or none.
const LAYOUTS: [&str; 2] = ["path", "fid"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    Archive,
    Release,
    Restore,
    Read,
    Remove,
    Cancel,
    Rename,
    Unlink,
    Settle,
    Purge,
    Restart,
    Drain,
}

/// Likely ones first; each with its weight.
const STEPS: [(Step, u64); 13] = [
    (Step::Archive, 24),
    (Step::Write, 16),
    (Step::Settle, 16),
    (Step::Release, 14),
    (Step::Restore, 8),
    (Step::Read, 6),
    (Step::Cancel, 6),
    (Step::Rename, 5),
    (Step::Remove, 4),
    (Step::Unlink, 3),
    (Step::Purge, 1),
    (Step::Restart, 1),
    (Step::Drain, 1),
];

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn step(&mut self) -> Step {
        let total = STEPS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.below(total);
        for (step, weight) in STEPS {
            if at < weight {
                return step;
            }
            at -= weight;
        }
        Step::Settle
    }
}

/// What must be true of one file.
struct Expected {
    path: PathBuf,
    fid: Fid,
    content: Vec<u8>,
}

struct Script<'a> {
    rig: &'a mut Rig,
    random: Random,
    dir: PathBuf,
    files: Vec<Expected>,
    made: u64,
    trace: Vec<String>,
}

#[test]
fn random_scripts_end_as_the_model_says() {
    if let Ok(seed) = std::env::var("MODEL_SEED") {
        let seed: u64 = seed.parse().unwrap();
        LAYOUTS.iter().for_each(|layout| world(layout, seed..seed + 1));
        return;
    }
    let scripts = std::env::var("MODEL_SCRIPTS").map_or(SCRIPTS, |text| text.parse().unwrap());
    let each = scripts.div_ceil(WORLDS);
    let worlds: Vec<_> = (0..WORLDS)
        .zip(LAYOUTS.iter().cycle())
        .map(|(n, layout)| std::thread::spawn(move || world(layout, n * each..(n + 1) * each)))
        .collect();
    let failed = worlds.into_iter().filter_map(|world| world.join().err()).count();
    assert_eq!(failed, 0, "see the seeds above");
}

/// One sandbox and daemon for a run of scripts.
fn world(layout: &str, seeds: std::ops::Range<u64>) {
    let usual = Setup::default();
    let mut rig = Rig::with(Setup {
        settings: format!(
            "[lustre]\nkeepalive = '100ms'\nheartbeat = '100ms'\nprogress = '100ms'\nforgotten = 'log'\n{}",
            usual.settings
        ),
        archives: format!("{}layout = '{layout}'\n", usual.archives),
        ..usual
    });
    // What a restart makes the coordinator forget is given up by it soon.
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 2000).unwrap();
    rig.client.set(Tunable::LoopPeriodMs, 20).unwrap();
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut script = Script::new(&mut rig, seed);
            let result = catch_unwind(AssertUnwindSafe(|| script.run()));
            if let Err(panic) = result {
                eprintln!(
                    "MODEL_SEED={seed} failed (layout = '{layout}'); its steps:\n  {}",
                    script.trace.join("\n  ")
                );
                std::panic::resume_unwind(panic);
            }
        }));
        if let Err(panic) = outcome {
            eprintln!("the daemon's last words:\n{}", tail(&rig.log(), 60));
            std::panic::resume_unwind(panic);
        }
    }
    assert!(idle(&rig), "something is alive in the daemon:\n{}", tail(&rig.log(), 5));
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.store.uploads(BUCKET), []);
    let log = rig.log();
    let defects: Vec<_> = log
        .lines()
        .filter(|line| line.contains("defect") || line.contains("panicked"))
        .collect();
    assert!(defects.is_empty(), "{}", defects.join("\n"));
}

/// Asks the daemon what waits and runs until it says nothing does: its last answer may still be under way.
pub(crate) fn idle(rig: &Rig) -> bool {
    let statuses = || {
        let log = rig.log();
        log.lines()
            .filter(|line| line.contains(" status "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    (0..100).any(|_| {
        let before = statuses().len();
        rig.daemon.as_ref().unwrap().signal(Signal::SIGUSR1).unwrap();
        let now = until(|| Some(statuses()).filter(|now| now.len() > before));
        now.last().is_some_and(|line| line.contains(" waiting=0 running=0 "))
    })
}

fn tail(log: &str, lines: usize) -> String {
    let all: Vec<_> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl<'a> Script<'a> {
    fn new(rig: &'a mut Rig, seed: u64) -> Self {
        let dir = rig.mount().join(format!("s{seed}"));
        fs::create_dir(&dir).unwrap();
        let mut script = Self {
            rig,
            random: Random(seed),
            dir,
            files: Vec::new(),
            made: 0,
            trace: Vec::new(),
        };
        for _ in 0..FILES {
            script.create();
        }
        script
    }

    fn content(&mut self) -> Vec<u8> {
        self.made += 1;
        let size = match self.random.below(20) {
            0 => 0,
            1 => 6 << 20,
            n => usize::try_from(n * n * 100).unwrap(),
        };
        let mark = (self.random.below(251) + 1).to_le_bytes()[0];
        let mut content = vec![mark; size];
        for (slot, byte) in content.iter_mut().zip(self.made.to_le_bytes()) {
            *slot = byte;
        }
        content
    }

    fn create(&mut self) {
        let content = self.content();
        let path = self.dir.join(format!("f{}", self.made));
        fs::write(&path, &content).unwrap();
        let fid = self.rig.client.fid(&path).unwrap();
        self.files.push(Expected { path, fid, content });
    }

    fn run(&mut self) {
        for _ in 0..8 + self.random.below(12) {
            let step = self.random.step();
            let at = usize::try_from(self.random.below(self.files.len() as u64)).unwrap();
            self.trace.push(format!(
                "{step:?} {} {}",
                self.files[at].path.display(),
                self.files[at].fid
            ));
            self.step(step, at);
        }
        self.trace.push("end".into());
        self.check();
    }

    fn states(&mut self, at: usize) -> u32 {
        self.rig.client.state(self.files[at].fid).unwrap().states
    }

    fn settle(&mut self, at: usize) {
        let ended = self.rig.client.wait(&[self.files[at].fid], PATIENCE).unwrap();
        assert!(ended, "{} is pending for ever", self.files[at].fid);
    }

    /// A request that does not fit the file's state is refused, and that is fine.
    fn request(&mut self, action: Action, at: usize) {
        let refused = self.rig.client.request(action, 1, &[self.files[at].fid]);
        if let Err(error) = refused {
            self.trace.push(format!("  refused: {error}"));
        }
    }

    fn step(&mut self, step: Step, at: usize) {
        match step {
            Step::Archive => self.request(Action::Archive, at),
            Step::Restore => self.request(Action::Restore, at),
            Step::Remove => self.request(Action::Remove, at),
            Step::Cancel => self.request(Action::Cancel, at),
            Step::Release => {
                let released = self.rig.client.release(self.files[at].fid);
                self.trace.push(format!("  {released:?}"));
            }
            Step::Settle => self.settle(at),
            Step::Write => {
                // A restore that is under way would take the write's place; Lustre makes the writer wait.
                self.bring_back(at);
                let content = self.content();
                fs::write(&self.files[at].path, &content).unwrap();
                self.files[at].content = content;
            }
            Step::Read => {
                self.bring_back(at);
                assert_eq!(fs::read(&self.files[at].path).unwrap(), self.files[at].content);
            }
            Step::Rename => {
                self.made += 1;
                let to = self.dir.join(format!("r{}", self.made));
                fs::rename(&self.files[at].path, &to).unwrap();
                self.files[at].path = to;
            }
            Step::Unlink => {
                let gone = self.files.remove(at);
                fs::remove_file(gone.path).unwrap();
                self.create();
            }
            Step::Purge => self.rig.client.control(HsmControl::Purge).unwrap(),
            Step::Restart => self.rig.client.inject(Fault::Restart).unwrap(),
            Step::Drain => {
                assert_eq!(self.rig.stop(), Some(0));
                self.rig.start();
            }
        }
    }

    /// The file's data is on Lustre when this returns.
    fn bring_back(&mut self, at: usize) {
        for _ in 0..50 {
            if self.states(at) & states::RELEASED == 0 {
                return;
            }
            self.request(Action::Restore, at);
            self.settle(at);
        }
        panic!("{} can't be restored", self.files[at].fid);
    }

    fn check(&mut self) {
        for at in 0..self.files.len() {
            self.settle(at);
        }
        self.answers();
        for at in 0..self.files.len() {
            let states = self.states(at);
            if states & states::ARCHIVED != 0 && states & states::DIRTY == 0 {
                let (key, fid) = (self.mapped_key(at), self.files[at].fid);
                let object = self.rig.store.object_body(BUCKET, &key);
                assert_eq!(
                    object.as_ref(),
                    Some(&self.files[at].content),
                    "the copy of {fid} under '{key}'"
                );
            }
            self.bring_back(at);
            assert_eq!(fs::read(&self.files[at].path).unwrap(), self.files[at].content);
        }
    }

    fn mapped_key(&mut self, at: usize) -> String {
        let fid = self.files[at].fid;
        let Ok(record) = self.rig.client.xattr(fid, "trusted.lhsm_s3") else {
            return fid.to_string().replace(['[', ']'], "");
        };
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        record["key"].as_str().unwrap().to_owned()
    }

    /// One answer each, but for those that the coordinator itself gave up.
    fn answers(&mut self) {
        let fids: HashMap<Fid, ()> = self.files.iter().map(|file| (file.fid, ())).collect();
        for action in self.rig.client.actions().unwrap() {
            if action.action == Action::Cancel || !fids.contains_key(&action.fid) {
                continue;
            }
            let given_up = action.state == ActionState::Canceled || action.sends == 0;
            assert!(
                action.ends == 1 || (given_up && action.ends == 0),
                "answers of {action:?}"
            );
        }
    }
}
