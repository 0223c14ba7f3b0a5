//! Runs a check in many schedules, and shows of each line that wakes threads up that a check would miss it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use lhsm_schedules::sync::{self, Site, Time};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// Schedules for each check, two thirds of them at random; `SCHEDULES` says another number.
const SCHEDULES: usize = 300;
/// Schedules in which a lost wake-up must have been missed.
const TO_BE_MISSED: usize = 300;
/// So many times PCT lets another thread go first.
const PREEMPTIONS: usize = 3;
/// A check that takes more of them waits for what does not come.
const STEPS: usize = 20_000;
/// The embedded database wants more than shuttle's 60 KiB.
const STACK: usize = 1 << 20;

/// One check: what time does in it, and what is done.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub(crate) time: Time,
    pub(crate) run: fn(),
}

/// Runs `check` in as many schedules as are wanted. Prints the seed; `SCHEDULES_SEED` repeats one.
pub(crate) fn holds(check: Check) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SCHEDULES_SEED").unwrap_or_else(|| fastrand::u64(..));
    let schedules = number("SCHEDULES").map_or(SCHEDULES, |n| usize::try_from(n).unwrap_or(SCHEDULES));
    let test = std::thread::current();
    // Shown when it fails: the schedule itself is printed behind it.
    println!(
        "{}: SCHEDULES={schedules} SCHEDULES_SEED={seed}",
        test.name().unwrap_or_default()
    );
    explore(check, seed, schedules, None);
}

/// Each line of `file` below `src/` that wakes threads up, outside its own tests, is one that one of the `checks` needs:
/// where it is left out, that check waits for ever in some schedule.
pub(crate) fn every_wake_up_is_needed(file: &str, checks: &[Check]) {
    sync::take_sites();
    checks.iter().for_each(|check| explore(*check, 1, TO_BE_MISSED, None));
    let seen = sync::take_sites();
    let seen: BTreeSet<Site> = seen.into_iter().filter(|site| site.file.ends_with(file)).collect();
    let seen_lines: Vec<u32> = seen.iter().map(|site| site.line).collect();
    assert_eq!(
        seen_lines,
        lines_in(file),
        "lines of {file} that wake threads up: those run, and those there are"
    );
    // Each lost wake-up is told by a panic.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let unneeded: Vec<_> = seen.into_iter().filter(|site| !is_missed(*site, checks)).collect();
    std::panic::set_hook(hook);
    assert!(unneeded.is_empty(), "nobody would miss {unneeded:?}");
}

fn is_missed(site: Site, checks: &[Check]) -> bool {
    checks.iter().any(|check| {
        let explored = AssertUnwindSafe(|| explore(*check, 1, TO_BE_MISSED, Some(site)));
        catch_unwind(explored).is_err()
    })
}

fn lines_in(file: &str) -> Vec<u32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let production = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let wakes = |line: &str| line.contains(".notify_one()") || line.contains(".notify_all()");
    let lines = production.lines().zip(1..).filter(|(line, _)| wakes(line));
    lines.map(|(_, number)| number).collect()
}

fn explore(check: Check, seed: u64, schedules: usize, left_out: Option<Site>) {
    let pct = schedules / 3;
    run(RandomScheduler::new_from_seed(seed, schedules - pct), check, left_out);
    run(PctScheduler::new_from_seed(seed, PREEMPTIONS, pct), check, left_out);
}

fn run(scheduler: impl Scheduler + 'static, check: Check, left_out: Option<Site>) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    // Memory orders are not looked at: all atomics are as strong as they can be.
    config.silence_warnings = true;
    if left_out.is_some() {
        config.failure_persistence = FailurePersistence::None;
    }
    Runner::new(scheduler, config).run(move || {
        sync::begin(check.time, left_out);
        (check.run)();
    });
}
