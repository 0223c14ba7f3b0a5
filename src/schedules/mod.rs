//! Random schedules: two movers of one archive id, cancels, purges, time-outs, files that are changed, removed, renamed
//! and copied with their records, objects that are copied within the bucket, and `scrub --delete-orphans`, all at the
//! same time and in any order, over the code that decides what is written, replaced and deleted. And three movers with a
//! ledger, of which each may be killed, cut off, found dead and taken over from while it goes on ([`fleet`]); there files are
//! restored, too, and at the end each one that counts as archived is read. A call that writes a file's record may be held up there
//! behind whatever others do.
//!
//! Each call to the file system and each request is a step, and between two steps anybody else may go on ([`gate`]). In
//! half of the schedules the bucket has versions. In the others equal bytes have equal ETags, and a request can't tell them
//! apart.
//!
//! The scheduler is a lot and a turn, for all that matters are the orders of single calls and transactions, and the code blocks
//! in each of them: simulators of networks and clocks, as turmoil or madsim, want it to be asynchronous, and would add delays of
//! messages between which nothing is decided.
//!
//! Orders of events that chance hardly comes to are in [`orders`], one by one.
//!
//! `LHSM_SCHEDULES` is how many, `LHSM_SCHEDULE_SEED` the first seed: a schedule is its seed's alone.

mod bucket;
mod fleet;
mod gate;
mod mdt;
mod orders;
mod play;
mod world;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::fleet::Fleet;
use self::mdt::Mdt;
use self::world::{Broken, Door, MOVERS, SCRUB, World};
use crate::journal::Journal;
use crate::store::memory::target;
use crate::store::{ChecksumKind, Conditions, KeyLayout, ObjectOptions, Records, TargetOptions, VerifyImported};
use crate::thread::Supervisor;
use crate::transfer::{Lane, PlanOptions, RetryOptions, TransferOptions};
use crate::types::ArchiveId;
use crate::worker::{Context, Forgotten, Observers, OnForgotten, Tally};

const ARCHIVE: ArchiveId = match ArchiveId::new(1) {
    Some(id) => id,
    None => panic!("1 is an archive id"),
};
/// What a schedule is tried with.
#[derive(Clone, Copy)]
struct Course {
    broken: Broken,
    layout: KeyLayout,
    /// Three movers with a ledger.
    is_fleet: bool,
}

const NEVER: Duration = Duration::from_secs(86_400);
/// As many as are promised.
const SCHEDULES: u64 = 5000;
/// Of three movers with journals, which take longer. More are tried by `.ci/full`.
const FLEETS: u64 = 150;
/// Within so many a broken rule is found.
const ENOUGH: u64 = 3000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn options() -> TransferOptions {
    let ms = Duration::from_millis;
    TransferOptions {
        plan: PlanOptions {
            threshold: 1 << 20,
            part_size: 1 << 20,
        },
        retry: RetryOptions {
            // No machine's pace decides anything: what runs out of time is drawn by lot.
            stall: NEVER,
            give_up_after: NEVER,
            first_pause: ms(1),
            longest_pause: ms(1),
            afterwards: NEVER,
        },
        thaw_poll: ms(1),
        chunk: 64 << 10,
    }
}

fn archive(layout: KeyLayout) -> TargetOptions {
    TargetOptions {
        archive_id: ARCHIVE,
        bucket: "bucket".to_owned(),
        prefix: String::new(),
        layout,
        records: Records::WhenNeeded,
        endpoint_url: Some("http://memory.invalid".to_owned()),
        region: Some("us-east-1".to_owned()),
        path_style: true,
        profile: None,
        checksum: ChecksumKind::Crc64Nvme,
        sign_payload: false,
        connect_timeout: Duration::from_secs(60),
        ca_bundle: None,
        proxy: None,
        choices: ObjectOptions::default(),
        requester_pays: false,
        conditions: Conditions::Auto,
        verify_imported: VerifyImported::Always,
        use_fips_endpoint: false,
        use_dualstack_endpoint: false,
        use_accelerate_endpoint: false,
        upload_bandwidth: None,
        download_bandwidth: None,
    }
}

/// What schedules have in common: a journal that keeps nothing, so that no disk's pace decides anything.
struct Common {
    journal: Arc<Journal>,
    runtime: tokio::runtime::Runtime,
}

impl Common {
    fn new() -> Self {
        let nowhere = Path::new("/dev/null/nowhere");
        let journal = Journal::open(&Supervisor::default(), nowhere, "lustre", Path::new("/mnt"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            journal: Arc::new(journal),
            runtime: runtime.expect("a runtime"),
        }
    }

    fn context(&self, world: &Arc<World>) -> Context {
        Context {
            fs: Arc::new(Mdt(Arc::clone(world))),
            journal: Arc::clone(&self.journal),
            tally: Arc::new(Tally::default()),
            observers: Observers::default(),
            forgotten: Arc::new(Forgotten::new(OnForgotten::Log, Duration::from_secs(60))),
            warrant: None,
            others_copies: None,
        }
    }

    /// What happened in a schedule, and what must not have.
    fn run(&self, seed: u64, course: Course) -> (Vec<String>, Vec<String>) {
        let Course {
            broken,
            layout,
            is_fleet,
        } = course;
        let world = World::new(seed, broken, layout, is_fleet.then(|| Fleet::new(seed)));
        let store = {
            let _on_it = self.runtime.enter();
            Arc::new(target(archive(layout), Arc::new(Door)))
        };
        let lane = || Lane::new(&[Arc::clone(&store)], options()).expect("a lane");
        let movers = if is_fleet { MOVERS } else { MOVERS - 1 };
        let (lanes, third): (Vec<Lane>, _) = ((0..movers).map(|_| lane()).collect(), lane());
        let context = self.context(&world);
        let (world_of, context_of) = (&world, &context);
        let fine = std::thread::scope(|scope| {
            let mut threads: Vec<_> = lanes
                .iter()
                .enumerate()
                .map(|(number, lane)| {
                    scope.spawn(move || match is_fleet {
                        true => fleet::mover(world_of, number, lane, context_of),
                        false => play::mover(world_of, number, lane, context_of),
                    })
                })
                .collect();
            threads.push(scope.spawn(|| match is_fleet {
                true => fleet::users(&world),
                false => play::users(&world),
            }));
            threads.push(scope.spawn(|| play::scrub(&world, &third)));
            // All are waited for.
            let ends: Vec<bool> = threads.into_iter().map(|thread| thread.join().is_ok()).collect();
            ends.iter().all(|fine| *fine)
        });
        world.stand_in(SCRUB);
        while world.with(|state| !state.late.is_empty()) {
            world.at(|state| state.arrive(0));
        }
        for _ in 0..2 {
            if !world.with(|state| state.orphans().is_empty()) {
                play::scrub_once(&world, &third);
            }
        }
        if is_fleet && fine {
            fleet::read_all(&world, &third, &context);
            // Whose record was put right by that has left what it named.
            for _ in 0..2 {
                if !world.with(|state| state.orphans().is_empty()) {
                    play::scrub_once(&world, &third);
                }
            }
        }
        world.with(|state| {
            let mut wrong = std::mem::take(&mut state.losses);
            if !fine {
                wrong.push("a thread panicked".to_owned());
            }
            if !state.actions.is_empty() {
                wrong.push(format!("not answered: {:?}", state.actions));
            }
            let orphans = state.orphans();
            if wrong.is_empty() && !orphans.is_empty() {
                wrong.push(format!("nobody's: {orphans:?}"));
            }
            (std::mem::take(&mut state.told), wrong)
        })
    }

    /// The first schedule that goes wrong with a story that is looked for.
    fn search(
        &self,
        seeds: std::ops::Range<u64>,
        course: Course,
        is_sought: impl Fn(&str) -> bool + Sync,
    ) -> Option<String> {
        let (next, found, over) = (AtomicU64::new(seeds.start), Mutex::new(None), AtomicBool::new(false));
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return;
                        }
                        let (told, wrong) = self.run(seed, course);
                        if wrong.is_empty() {
                            continue;
                        }
                        let text = format!("seed {seed}:\n{}\n{}", told.join("\n"), wrong.join("\n"));
                        if is_sought(&text) {
                            over.store(true, Ordering::Relaxed);
                            found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
                        }
                    }
                });
            }
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::print_stdout, reason = "a test's own output")]
fn nothing_is_lost(layout: KeyLayout, is_fleet: bool) {
    let count = number("LHSM_SCHEDULES").unwrap_or(if is_fleet { FLEETS } else { SCHEDULES });
    // The same ones each time, so that a failure is a change's; others are tried by other seeds.
    let first = number("LHSM_SCHEDULE_SEED").unwrap_or(1);
    println!("{count} schedules from LHSM_SCHEDULE_SEED={first} on");
    let begun = Instant::now();
    let course = Course {
        broken: Broken::Nothing,
        layout,
        is_fleet,
    };
    let wrong = Common::new().search(first..first + count, course, |_| true);
    println!("took {:?}", begun.elapsed());
    assert!(wrong.is_none(), "first seed {first}; {}", wrong.unwrap_or_default());
}

#[test]
fn no_schedule_of_two_movers_and_a_scrub_leaves_an_archived_file_without_its_object() {
    nothing_is_lost(KeyLayout::Path, false);
}

/// Of those in buckets without versions only files with much to tell have records.
#[test]
fn no_schedule_leaves_an_archived_file_without_a_record_without_its_object() {
    nothing_is_lost(KeyLayout::Fid, false);
}

#[test]
fn no_schedule_of_three_movers_and_a_ledger_leaves_an_archived_file_without_its_object() {
    nothing_is_lost(KeyLayout::Path, true);
}

#[test]
fn no_schedule_of_three_movers_leaves_an_archived_file_without_a_record_without_its_object() {
    nothing_is_lost(KeyLayout::Fid, true);
}

fn finds(broken: Broken, is_fleet: bool) -> bool {
    let course = Course {
        broken,
        layout: KeyLayout::Path,
        is_fleet,
    };
    // Who is made to see less leaves more behind, too; what must be found is a loss.
    let story = Common::new().search(0..ENOUGH, course, |story| story.contains("lost: "));
    story.is_some()
}

#[test]
fn schedules_find_a_scrub_that_asks_for_records_before_it_looks_at_objects() {
    assert!(finds(Broken::Scrub, false));
}

#[test]
fn schedules_find_movers_that_ask_for_records_before_they_look_at_objects() {
    assert!(finds(Broken::Movers, false));
}

#[test]
fn schedules_find_archives_that_do_not_look_for_deletions() {
    assert!(finds(Broken::Archives, false));
}

/// What a fleet's schedules are there for, in the words of their stories.
const EVENTS: [&str; 9] = [
    "is held up",
    "is found dead",
    "takes over",
    "others have",
    "is failed over",
    "is gone for good",
    "lacks the last changes",
    "HandedOn",
    "Later",
];

#[test]
fn schedules_of_a_fleet_come_to_all_that_they_are_there_for() {
    let course = Course {
        broken: Broken::Nothing,
        layout: KeyLayout::Path,
        is_fleet: true,
    };
    let (common, mut missing) = (Common::new(), EVENTS.to_vec());
    for seed in 0..ENOUGH {
        if missing.is_empty() {
            return;
        }
        let (told, _) = common.run(seed, course);
        missing.retain(|event| !told.iter().any(|told| told.contains(*event)));
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// What a late record hides is found by what was archived, and who wrote it puts it right besides: with both, breaking one loses
/// nothing. Here movers are made blind to both.
#[test]
fn schedules_of_a_fleet_find_movers_that_ask_for_records_before_they_look_at_objects() {
    assert!(finds(Broken::Movers, true));
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let common = Common::new();
    for is_fleet in [false, true] {
        let course = Course {
            broken: Broken::Nothing,
            layout: KeyLayout::Fid,
            is_fleet,
        };
        for seed in 0..8 {
            assert_eq!(common.run(seed, course), common.run(seed, course), "{seed}");
        }
    }
}
