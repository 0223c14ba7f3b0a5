use std::fs::File;

use super::*;
use crate::action::{HsmError, Kind, Verdict};
use crate::types::{ArchiveId, Cookie, Extent};

#[derive(Debug)]
struct FakeAction(Item);

impl ActionHandle for FakeAction {
    fn item(&self) -> &Item {
        &self.0
    }
    fn begin(&mut self, _: Option<&[u8]>) -> Result<Option<File>, HsmError> {
        Ok(None)
    }
    fn finish(self: Box<Self>, _: Verdict, _: u64) -> Result<(), HsmError> {
        Ok(())
    }
    fn renew(&mut self) {}

    fn disown(self: Box<Self>) {}
}

fn handle(verb: Verb, cookie: u64, oid: u32) -> Box<dyn ActionHandle> {
    blocking(verb, cookie, oid, false)
}

fn blocking(verb: Verb, cookie: u64, oid: u32, blocking: bool) -> Box<dyn ActionHandle> {
    let fid = Fid {
        seq: 0x2_0000_0401,
        oid,
        ver: 0,
    };
    Box::new(FakeAction(Item {
        kind: Kind::Do(verb),
        fid,
        dfid: fid,
        cookie: Cookie(cookie),
        archive_id: ArchiveId::new(1),
        extent: Extent::WHOLE,
        gid: 0,
        blocking,
        data: Box::default(),
    }))
}

/// As a worker ends it; what was served by it.
fn ended(queue: &Queue, item: &Item, done: bool) -> Vec<Box<dyn ActionHandle>> {
    let served = if done { queue.take_served(item) } else { Vec::new() };
    queue.ended(item);
    served
}

fn admit(queue: &Queue, handle: Box<dyn ActionHandle>) -> &'static str {
    match queue.admit(handle, Instant::now()) {
        Admission::Queued => "queued",
        Admission::Duplicate(_) => "duplicate",
        Admission::Declined(_) => "declined",
    }
}

/// Parts without end.
#[derive(Default)]
struct Endless {
    crowded: std::sync::atomic::AtomicBool,
}

impl SharedWork for Endless {
    fn work_one(&self, _: &crate::transfer::Lane) -> bool {
        true
    }
    fn is_crowded(&self) -> bool {
        self.crowded.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn take(queue: &Queue, lanes: ThreadRole) -> Job {
    match queue.next(lanes) {
        Work::Job(job) => job,
        other => panic!("expected a job, got {other:?}"),
    }
}

fn cookie(job: &Job) -> u64 {
    job.handle.item().cookie.0
}

#[test]
fn an_open_overtakes_fifty_thousand_archives() {
    let queue = Queue::default();
    for n in 0..50_000 {
        admit(&queue, handle(Verb::Archive, u64::from(n), n + 10));
    }
    admit(&queue, handle(Verb::Restore, 100_000, 1));
    admit(&queue, blocking(Verb::Restore, 100_001, 2, true));
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 100_001);
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 100_000);
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 0);
    assert_eq!(queue.depth().waiting[&Class::Archive], 49_999);
    assert_eq!(queue.depth().running[&Class::Restore], 1);
}

#[test]
fn the_same_action_delivered_twice_runs_once_while_it_lives() {
    let queue = Queue::default();
    assert_eq!(admit(&queue, handle(Verb::Restore, 7, 1)), "queued");
    assert_eq!(admit(&queue, handle(Verb::Restore, 7, 1)), "duplicate");
    let job = take(&queue, ThreadRole::Restores);
    assert_eq!(admit(&queue, handle(Verb::Restore, 7, 1)), "duplicate");
    ended(&queue, job.handle.item(), false);
    // After a coordinator's restart the same cookie comes again and is new work.
    assert_eq!(admit(&queue, handle(Verb::Restore, 7, 1)), "queued");
}

#[test]
fn equal_cookies_of_two_mdts_are_two_actions() {
    let queue = Queue::default();
    assert_eq!(admit(&queue, handle(Verb::Archive, 7, 1)), "queued");
    assert_eq!(admit(&queue, handle(Verb::Archive, 7, 2)), "queued");
}

#[test]
fn actions_of_a_file_wait_their_turn() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Archive, 1, 1));
    assert_eq!(admit(&queue, handle(Verb::Remove, 3, 1)), "queued");
    admit(&queue, handle(Verb::Archive, 4, 2));

    let first = take(&queue, ThreadRole::All);
    assert_eq!(cookie(&first), 1);
    // The remove is not given out beside the archive of its file.
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 4);
    assert!(ended(&queue, first.handle.item(), true).is_empty());
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 3);
}

#[test]
fn an_archive_behind_one_that_worked_is_served_unless_a_remove_comes_between() {
    let queue = Queue::default();
    for (verb, cookie) in [
        (Verb::Archive, 1),
        (Verb::Archive, 2),
        (Verb::Remove, 3),
        (Verb::Archive, 4),
    ] {
        assert_eq!(admit(&queue, handle(verb, cookie, 1)), "queued");
    }
    let job = take(&queue, ThreadRole::All);
    let served: Vec<_> = ended(&queue, job.handle.item(), true);
    assert_eq!(
        served.iter().map(|handle| handle.item().cookie.0).collect::<Vec<_>>(),
        [2]
    );
    for next in [3, 4] {
        let job = take(&queue, ThreadRole::All);
        assert_eq!(cookie(&job), next);
        ended(&queue, job.handle.item(), true);
    }
    assert_eq!(queue.depth().waiting[&Class::Archive], 0);
}

#[test]
fn an_archive_behind_one_that_was_stopped_or_failed_gets_its_own_try() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Archive, 1, 1));
    let job = take(&queue, ThreadRole::All);
    // The coordinator gave the first one up, and is asked again before that one noticed.
    assert_eq!(admit(&queue, handle(Verb::Archive, 2, 1)), "queued");
    job.control.stop(Stop::Forgotten);
    assert!(ended(&queue, job.handle.item(), false).is_empty());
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 2);
}

#[test]
fn a_restore_that_is_sent_again_while_it_runs_is_stopped_and_waits_again() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Restore, 7, 1));
    let job = take(&queue, ThreadRole::All);
    assert_eq!(admit(&queue, handle(Verb::Restore, 7, 1)), "duplicate");
    assert_eq!(job.control.stopped(), Some(Stop::SentAgain));
    let key = job.handle.item().key();
    assert!(queue.defer(job.handle, Instant::now(), PutOff::Other).is_ok());
    let again = take(&queue, ThreadRole::All);
    assert_eq!((again.handle.item().key(), again.control.stopped()), (key, None));
    assert_eq!((job.deferrals.others, again.deferrals.others), (0, 1));
    // A cancel is more than that.
    assert_eq!(admit(&queue, handle(Verb::Restore, 7, 1)), "duplicate");
    assert!(matches!(queue.cancel(key, Stop::Cancelled), Cancelled::Running));
    let refused = queue.defer(again.handle, Instant::now(), PutOff::Other);
    assert!(matches!(refused, Err((_, Stop::Cancelled))));
}

#[test]
fn how_often_an_action_was_put_off_is_counted_apart_by_why_until_it_ends() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Restore, 7, 1));
    for why in [
        PutOff::Frozen,
        PutOff::CutOff,
        PutOff::Frozen,
        PutOff::Frozen,
        PutOff::Other,
    ] {
        let job = take(&queue, ThreadRole::All);
        assert!(queue.defer(job.handle, Instant::now(), why).is_ok());
    }
    let job = take(&queue, ThreadRole::All);
    let counted = Deferrals {
        frozen: 3,
        cut_off: 1,
        others: 1,
    };
    assert_eq!(job.deferrals, counted);
    ended(&queue, job.handle.item(), true);
    admit(&queue, handle(Verb::Restore, 7, 1));
    assert!(!take(&queue, ThreadRole::All).deferrals.are_any());
}

#[test]
fn a_restore_behind_one_that_worked_is_given_back_as_served() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Restore, 1, 1));
    admit(&queue, handle(Verb::Restore, 2, 1));
    let job = take(&queue, ThreadRole::All);
    let served = ended(&queue, job.handle.item(), true);
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].item().cookie, Cookie(2));
    assert_eq!(queue.depth().waiting[&Class::Restore], 0);
}

#[test]
fn a_restore_behind_one_that_failed_gets_its_own_try() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Restore, 1, 1));
    admit(&queue, handle(Verb::Restore, 2, 1));
    let job = take(&queue, ThreadRole::All);
    assert!(ended(&queue, job.handle.item(), false).is_empty());
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 2);
}

#[test]
fn a_cancel_takes_a_waiting_action_out_and_stops_a_running_one() {
    let queue = Queue::default();
    let waiting = handle(Verb::Archive, 1, 1);
    let key = waiting.item().key();
    admit(&queue, waiting);
    admit(&queue, handle(Verb::Remove, 9, 1));
    assert!(matches!(queue.cancel(key, Stop::Cancelled), Cancelled::Waiting(_)));
    assert!(matches!(queue.cancel(key, Stop::Cancelled), Cancelled::Unknown));
    // What waited behind it goes on.
    let job = take(&queue, ThreadRole::All);
    assert_eq!(cookie(&job), 9);
    assert!(matches!(
        queue.cancel(job.handle.item().key(), Stop::Cancelled),
        Cancelled::Running
    ));
    assert_eq!(job.control.stopped(), Some(Stop::Cancelled));
}

#[test]
fn a_heartbeat_comes_round_for_what_still_waits() {
    let queue = Queue::default();
    let now = Instant::now();
    for n in 0..10 {
        let admitted = queue.admit(handle(Verb::Archive, n, u32::try_from(n).unwrap() + 1), now);
        assert!(matches!(admitted, Admission::Queued));
    }
    let _running = take(&queue, ThreadRole::All);
    let later = now + Duration::from_secs(10);
    assert_eq!(queue.due_waiting(None, now, later, 4).len(), 4);
    assert_eq!(
        queue.due_waiting(None, now, later, 100).len(),
        5,
        "one of the ten runs by now"
    );
    assert_eq!(queue.due_waiting(None, now, later, 100).len(), 0);
    assert_eq!(
        queue
            .due_waiting(None, later, later + Duration::from_secs(1), 100)
            .len(),
        9
    );
}

#[test]
fn a_parked_queue_gives_nothing_new_out_and_hands_all_back() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Archive, 1, 1));
    let running = take(&queue, ThreadRole::All);
    queue.park(Stop::Shutdown);
    for n in 2..100 {
        admit(&queue, handle(Verb::Archive, n, u32::try_from(n).unwrap()));
    }
    assert_eq!(queue.take_all_waiting().len(), 98);
    assert!(!queue.wait_idle(Instant::now()));
    ended(&queue, running.handle.item(), true);
    assert!(queue.wait_idle(Instant::now()));
    queue.close();
    assert!(matches!(queue.next(ThreadRole::All), Work::Closed));
}

#[test]
fn what_would_wait_for_a_time_learns_why_a_parked_queue_does_not_take_it() {
    for reason in [Stop::Shutdown, Stop::HandOn] {
        let queue = Queue::default();
        admit(&queue, handle(Verb::Restore, 1, 1));
        let job = take(&queue, ThreadRole::All);
        queue.park(reason);
        let refused = queue.defer(job.handle, Instant::now(), PutOff::Other);
        assert!(refused.is_err_and(|(_, stop)| stop == reason));
    }
}

#[test]
fn what_comes_while_an_action_is_being_answered_is_new_work() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Archive, 1, 1));
    let job = take(&queue, ThreadRole::All);
    job.control.set_ending();
    assert_eq!(admit(&queue, handle(Verb::Archive, 2, 1)), "queued");
    assert!(ended(&queue, job.handle.item(), true).is_empty());
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 2);

    admit(&queue, handle(Verb::Restore, 3, 5));
    let job = take(&queue, ThreadRole::All);
    job.control.set_ending();
    admit(&queue, handle(Verb::Restore, 4, 5));
    assert!(
        ended(&queue, job.handle.item(), true).is_empty(),
        "released again meanwhile"
    );
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 4);
}

#[test]
fn a_restore_waits_for_no_archive_of_its_file() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Archive, 1, 1));
    let archive = take(&queue, ThreadRole::All);
    admit(&queue, handle(Verb::Remove, 2, 1));
    // The archive may be reading the file, and the kernel asks for its data.
    admit(&queue, blocking(Verb::Restore, 3, 1, true));
    let restore = take(&queue, ThreadRole::Restores);
    assert_eq!(cookie(&restore), 3);
    ended(&queue, restore.handle.item(), true);
    ended(&queue, archive.handle.item(), true);
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 2);
}

#[test]
fn an_action_sent_again_while_it_is_being_answered_runs_again() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Restore, 7, 1));
    let job = take(&queue, ThreadRole::All);
    job.control.set_ending();
    assert_eq!(admit(&queue, handle(Verb::Restore, 7, 1)), "queued");
    assert_eq!(admit(&queue, handle(Verb::Restore, 7, 1)), "duplicate");
    assert!(ended(&queue, job.handle.item(), false).is_empty());
    let again = take(&queue, ThreadRole::All);
    assert_eq!(cookie(&again), 7);
    ended(&queue, again.handle.item(), true);
    assert!(queue.wait_idle(Instant::now()));
}

#[test]
fn help_beyond_the_processors_is_given_where_some_are_to_spare_and_nobody_is_in_the_way() {
    let queue = Queue::default();
    let parts = Arc::new(Endless::default());
    let offer: Arc<dyn SharedWork> = Arc::clone(&parts) as _;
    queue.offer(Arc::clone(&offer), false);
    let helps =
        |processors: &Processors| matches!(queue.lock().pick(ThreadRole::All, processors), Some(Work::Parts(_)));
    let (busy, idle) = (Processors::of(2, false), Processors::of(2, true));
    assert!(helps(&busy) && helps(&busy), "a thread for each processor");
    assert!(!helps(&busy) && helps(&idle));
    parts.crowded.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(!helps(&idle), "one more would only wait");
    (0..2).for_each(|_| queue.helped(&offer, true));
    assert_eq!(queue.depth().helping, 1);
    assert!(helps(&busy) && !helps(&busy));
    (0..2).for_each(|_| queue.helped(&offer, false));
    assert_eq!(queue.depth().helping, 0);
    assert!(!helps(&idle), "nothing is offered any more");
}

#[test]
fn an_archive_into_another_archive_is_not_served_by_one() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Archive, 1, 1));
    let mut item = handle(Verb::Archive, 2, 1).item().clone();
    item.archive_id = ArchiveId::new(2);
    admit(&queue, Box::new(FakeAction(item)));
    admit(&queue, handle(Verb::Archive, 3, 1));
    let job = take(&queue, ThreadRole::All);
    assert!(queue.may_serve(job.handle.item()));
    let served = ended(&queue, job.handle.item(), true);
    assert_eq!(
        served.iter().map(|handle| handle.item().cookie.0).collect::<Vec<_>>(),
        [3]
    );
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 2);
}

const SEQUENCE: u64 = 0x2_0000_0401;

/// Of the MDT that has sequence `SEQUENCE + mdt`.
fn on(mdt: u32, verb: Verb, cookie: u64) -> Box<dyn ActionHandle> {
    let mut item = handle(verb, cookie, u32::try_from(cookie).unwrap()).item().clone();
    item.fid.seq = SEQUENCE + u64::from(mdt);
    Box::new(FakeAction(item))
}

fn mdt_of(job: &Job) -> u32 {
    u32::try_from(job.handle.item().fid.seq - SEQUENCE).unwrap()
}

/// With so many threads, and MDTs whose sequences are known.
fn of_mdts(mdts: u32, threads: usize, restores: usize) -> Queue {
    let sequences = Sequences::default();
    for mdt in 0..mdts {
        sequences.learn(on(mdt, Verb::Archive, 1).item().fid, Mdt(mdt));
    }
    Queue::new(sequences, threads, restores)
}

/// What a thread would get now, without waiting for more.
fn offered(queue: &Queue, lanes: ThreadRole) -> Option<Job> {
    match queue.lock().pick(lanes, &queue.processors) {
        Some(Work::Job(job)) => Some(job),
        _ => None,
    }
}

#[test]
fn a_flood_of_one_mdt_leaves_threads_of_each_kind_for_the_others() {
    let queue = of_mdts(2, 8, 2);
    for cookie in 1..100 {
        admit(&queue, on(1, Verb::Archive, cookie));
        admit(&queue, on(1, Verb::Restore, 100 + cookie));
    }
    admit(&queue, on(0, Verb::Archive, 1000));
    admit(&queue, on(0, Verb::Restore, 1001));
    let restores: Vec<_> = (0..2).filter_map(|_| offered(&queue, ThreadRole::Restores)).collect();
    let mut mdts: Vec<_> = restores.iter().map(mdt_of).collect();
    mdts.sort_unstable();
    assert_eq!(mdts, [0, 1], "they take turns");
    let jobs: Vec<_> = std::iter::from_fn(|| offered(&queue, ThreadRole::All)).collect();
    let held = |mdt| jobs.iter().filter(|job| mdt_of(job) == mdt).count();
    assert_eq!((held(1), held(0)), (4, 1), "of six threads for everything");
    // One that comes back may have the next.
    let ended_one = jobs.iter().find(|job| mdt_of(job) == 1).unwrap();
    queue.ended(ended_one.handle.item());
    assert_eq!(offered(&queue, ThreadRole::All).map(|job| mdt_of(&job)), Some(1));
    assert!(offered(&queue, ThreadRole::All).is_none());
}

#[test]
fn where_all_is_of_one_mdt_it_has_all_threads() {
    let queue = of_mdts(2, 4, 0);
    for cookie in 1..10 {
        admit(&queue, on(1, Verb::Archive, cookie));
    }
    assert_eq!((0..9).filter_map(|_| offered(&queue, ThreadRole::All)).count(), 9);
}

#[test]
fn a_silent_mdt_gets_no_thread_until_it_answers_again() {
    let queue = of_mdts(2, 8, 0);
    for cookie in 1..10 {
        admit(&queue, on(1, Verb::Archive, cookie));
        admit(&queue, on(0, Verb::Archive, 10 + cookie));
    }
    assert!(queue.set_silent(Some(Mdt(1)), true));
    assert!(!queue.set_silent(Some(Mdt(1)), true), "that was known");
    assert_eq!(queue.mdts(), [(Mdt(0), 0, true), (Mdt(1), 0, false)]);
    let jobs: Vec<_> = (0..4).filter_map(|_| offered(&queue, ThreadRole::All)).collect();
    assert!(jobs.len() == 4 && jobs.iter().all(|job| mdt_of(job) == 0));
    assert!(queue.set_silent(Some(Mdt(1)), false));
    let next: Vec<_> = (0..2)
        .filter_map(|_| offered(&queue, ThreadRole::All))
        .map(|job| mdt_of(&job))
        .collect();
    assert!(next.contains(&1), "{next:?}");
}

#[test]
fn what_is_found_out_of_where_files_are_counts_from_then_on() {
    let sequences = Sequences::default();
    let queue = Queue::new(sequences.clone(), 8, 0);
    let now = Instant::now();
    for cookie in 1..5 {
        admit(&queue, on(1, Verb::Archive, cookie));
    }
    assert_eq!(queue.domains(), [None]);
    sequences.learn(on(1, Verb::Archive, 1).item().fid, Mdt(1));
    // Its entries are moved where they are met.
    let (soon, later) = (now + Duration::from_secs(60), now + Duration::from_secs(120));
    assert!(queue.due_waiting(None, soon, later, 100).is_empty());
    assert_eq!(queue.domains(), [Some(Mdt(1))]);
    assert_eq!(queue.due_waiting(Some(Mdt(1)), soon, later, 100).len(), 4);
    drop(take(&queue, ThreadRole::All));
    assert_eq!(queue.mdts(), [(Mdt(1), 1, true)]);
    assert_eq!(queue.running_on(Some(Mdt(1))).len(), 1);
    assert!(queue.running_on(None).is_empty());
}

#[test]
fn heartbeats_of_one_mdt_are_no_other_ones() {
    let queue = of_mdts(2, 8, 0);
    let now = Instant::now();
    for cookie in 1..5 {
        admit(&queue, on(u32::try_from(cookie % 2).unwrap(), Verb::Archive, cookie));
    }
    let (soon, later) = (now + Duration::from_secs(60), now + Duration::from_secs(120));
    let due = queue.due_waiting(Some(Mdt(0)), soon, later, 100);
    assert_eq!(due.iter().map(|key| key.cookie.0).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(queue.due_waiting(Some(Mdt(1)), soon, later, 100).len(), 2);
}

#[test]
fn who_waits_for_the_end_does_not_wait_for_a_silent_mdt() {
    let queue = of_mdts(2, 8, 0);
    admit(&queue, on(0, Verb::Archive, 1));
    admit(&queue, on(1, Verb::Archive, 2));
    let jobs: Vec<_> = (0..2).filter_map(|_| offered(&queue, ThreadRole::All)).collect();
    queue.set_silent(Some(Mdt(1)), true);
    assert!(!queue.wait_done(Instant::now()));
    let answers = jobs.iter().find(|job| mdt_of(job) == 0).unwrap();
    queue.ended(answers.handle.item());
    assert!(queue.wait_done(Instant::now()) && !queue.wait_idle(Instant::now()));
    assert!(queue.is_silent(on(1, Verb::Archive, 9).item().fid));
}

#[test]
fn a_held_action_holds_nobody_up_can_be_cancelled_and_is_given_out_when_it_is_let_go() {
    let queue = Queue::default();
    let held = [handle(Verb::Archive, 1, 1), handle(Verb::Remove, 2, 2)];
    let keys = held.each_ref().map(|handle| handle.item().key());
    assert!(queue.hold(keys[0]), "it is on its way");
    for handle in held {
        assert_eq!(admit(&queue, handle), "queued");
    }
    assert!(queue.hold(keys[1]));
    assert_eq!(admit(&queue, handle(Verb::Archive, 3, 3)), "queued");
    let job = take(&queue, ThreadRole::All);
    assert_eq!((job.handle.item().cookie, job.has_waited), (Cookie(3), false));
    assert!(!queue.hold(job.handle.item().key()), "it is under way");
    ended(&queue, &job.handle.item().clone(), true);
    assert!(matches!(queue.cancel(keys[1], Stop::Cancelled), Cancelled::Waiting(_)));
    assert!(!queue.let_go(keys[1]));
    assert!(queue.let_go(keys[0]));
    let job = take(&queue, ThreadRole::All);
    assert_eq!((job.handle.item().cookie, job.has_waited), (Cookie(1), true));
    ended(&queue, &job.handle.item().clone(), true);
    assert_eq!(queue.depth().to_string(), "nothing");
}

#[test]
fn an_action_that_asks_waits_for_the_answer_or_for_its_time() {
    let queue = Queue::default();
    let now = Instant::now();
    let long = now + Duration::from_secs(60);
    let asks = |cookie: u64, until| {
        let handle = handle(Verb::Archive, cookie, u32::try_from(cookie).unwrap());
        let key = handle.item().key();
        assert!(matches!(
            queue.admit_asking(handle, now, Some(until)),
            Admission::Queued
        ));
        key
    };
    let (first, second) = (asks(1, long), asks(2, long));
    asks(3, now + Duration::from_millis(20));
    let job = take(&queue, ThreadRole::All);
    assert_eq!((job.handle.item().cookie, job.has_waited), (Cookie(3), false));
    assert!(!queue.let_go(second), "it asked, and has not waited for anybody");
    let job = take(&queue, ThreadRole::All);
    assert_eq!((job.handle.item().cookie, job.has_waited), (Cookie(2), false));
    assert!(queue.hold(first), "the answer was that it has to wait");
    assert!(queue.let_go(first));
    let job = take(&queue, ThreadRole::All);
    assert_eq!((job.handle.item().cookie, job.has_waited), (Cookie(1), true));
}

#[test]
fn an_action_that_asked_in_vain_does_not_overtake_the_one_before_it_of_its_file() {
    let queue = Queue::default();
    admit(&queue, handle(Verb::Archive, 1, 1));
    let first = take(&queue, ThreadRole::All);
    let now = Instant::now();
    assert!(matches!(
        queue.admit_asking(handle(Verb::Remove, 2, 1), now, Some(now)),
        Admission::Queued
    ));
    for other in [3, 4] {
        admit(&queue, handle(Verb::Archive, u64::from(other), other));
        assert_eq!(cookie(&take(&queue, ThreadRole::All)), u64::from(other));
    }
    ended(&queue, first.handle.item(), false);
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 2);
}

#[test]
fn what_is_behind_a_held_action_of_its_file_waits_with_it() {
    let queue = Queue::default();
    let (first, second) = (handle(Verb::Archive, 1, 1), handle(Verb::Remove, 2, 1));
    let key = first.item().key();
    assert_eq!((admit(&queue, first), admit(&queue, second)), ("queued", "queued"));
    assert!(queue.hold(key));
    let behind = handle(Verb::Remove, 2, 1).item().key();
    assert!(queue.holds_up(key) && !queue.holds_up(behind));
    assert!(queue.hold(behind) && !queue.holds_up(key), "both wait");
    queue.let_go(behind);
    assert!(queue.holds_up(key));
    assert_eq!(admit(&queue, handle(Verb::Archive, 3, 3)), "queued");
    let job = take(&queue, ThreadRole::All);
    assert_eq!(job.handle.item().cookie, Cookie(3));
    let Cancelled::Waiting(_) = queue.cancel(key, Stop::Cancelled) else {
        panic!("it waited");
    };
    let job = take(&queue, ThreadRole::All);
    assert_eq!(job.handle.item().cookie, Cookie(2));
}

#[test]
fn what_waits_behind_an_action_that_is_another_movers_does_not_begin_in_its_place() {
    let queue = Queue::default();
    let (first, behind) = (handle(Verb::Remove, 1, 1), handle(Verb::Archive, 2, 1));
    let keys = [first.item().key(), behind.item().key()];
    admit(&queue, first);
    admit(&queue, behind);
    admit(&queue, handle(Verb::Restore, 3, 1));
    admit(&queue, handle(Verb::Archive, 4, 2));
    assert_eq!(queue.hold_others(keys[0]), [keys[1]]);
    assert!(queue.hold_others(keys[0]).is_empty(), "it waits already");
    let Cancelled::Waiting(_) = queue.cancel(keys[0], Stop::HandOn) else {
        panic!("it waited");
    };
    let jobs: Vec<_> = std::iter::from_fn(|| offered(&queue, ThreadRole::All)).collect();
    assert_eq!(jobs.iter().map(cookie).collect::<Vec<_>>(), [3, 4]);
    queue.let_go(keys[1]);
    let job = take(&queue, ThreadRole::All);
    assert_eq!(cookie(&job), 2);
    // One that runs is held no more.
    assert!(queue.hold_others(keys[0]).is_empty());
}

#[test]
fn what_comes_later_waits_for_an_action_of_its_file_that_is_on_its_way() {
    let queue = Queue::default();
    let remove = handle(Verb::Remove, 1, 1);
    queue.reserve(remove.item());
    queue.reserve(handle(Verb::Restore, 9, 1).item());
    assert!(queue.has_file(remove.item().fid));
    for handle in [
        handle(Verb::Archive, 2, 1),
        handle(Verb::Restore, 3, 1),
        handle(Verb::Archive, 4, 2),
    ] {
        assert_eq!(admit(&queue, handle), "queued");
    }
    let jobs: Vec<_> = std::iter::from_fn(|| offered(&queue, ThreadRole::All)).collect();
    assert_eq!(jobs.iter().map(cookie).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(admit(&queue, remove), "queued");
    let first = take(&queue, ThreadRole::All);
    assert_eq!(cookie(&first), 1);
    assert!(offered(&queue, ThreadRole::All).is_none());
    ended(&queue, first.handle.item(), true);
    assert_eq!(cookie(&take(&queue, ThreadRole::All)), 2);
}

#[test]
fn what_does_not_come_after_all_holds_nobody_up() {
    let queue = Queue::default();
    let [first, second] = [handle(Verb::Remove, 1, 1), handle(Verb::Remove, 2, 1)];
    let keys = [first.item().key(), second.item().key()];
    queue.reserve(first.item());
    queue.reserve(second.item());
    admit(&queue, handle(Verb::Archive, 3, 1));
    queue.unreserve(keys[1]);
    assert!(offered(&queue, ThreadRole::All).is_none(), "the other one comes");
    queue.unreserve(keys[0]);
    queue.unreserve(keys[0]);
    let job = take(&queue, ThreadRole::All);
    assert_eq!(cookie(&job), 3);
    // And one that runs, and is delivered twice.
    queue.reserve(job.handle.item());
    assert_eq!(admit(&queue, handle(Verb::Archive, 3, 1)), "duplicate");
    ended(&queue, job.handle.item(), true);
    assert!(!queue.has_file(keys[0].fid));
}

#[test]
fn what_was_another_movers_goes_before_what_waited_for_it_here() {
    let queue = Queue::default();
    let [archive, remove] = [handle(Verb::Archive, 1, 1), handle(Verb::Remove, 2, 1)];
    let key = archive.item().key();
    admit(&queue, archive);
    assert!(queue.hold(key));
    queue.reserve(remove.item());
    queue.let_go(key);
    assert!(offered(&queue, ThreadRole::All).is_none());
    admit(&queue, remove);
    let job = take(&queue, ThreadRole::All);
    assert_eq!(cookie(&job), 2);
    // It is given up to another one, and comes back before its worker has let go of it.
    assert_eq!(queue.hold_others(job.handle.item().key()), [key]);
    queue.reserve(job.handle.item());
    queue.let_go(key);
    ended(&queue, job.handle.item(), false);
    assert!(offered(&queue, ThreadRole::All).is_none());
    admit(&queue, job.handle);
    let job = take(&queue, ThreadRole::All);
    assert_eq!(cookie(&job), 2);
    ended(&queue, job.handle.item(), true);
    let job = take(&queue, ThreadRole::All);
    assert_eq!((cookie(&job), job.has_waited), (1, true));
    assert!(offered(&queue, ThreadRole::All).is_none());
}

#[test]
fn what_is_set_aside_is_given_out_again_only_when_it_is_put_back_and_others_stay() {
    let queue = of_mdts(2, 8, 0);
    for cookie in 1..=3 {
        admit(&queue, on(1, Verb::Archive, cookie));
    }
    admit(&queue, on(1, Verb::Restore, 4));
    admit(&queue, on(0, Verb::Archive, 5));
    let silent = OutOfReach::Mdt(Mdt(1));
    let mut aside = queue.set_aside(silent, true, 3);
    aside.extend(queue.set_aside(silent, false, 2));
    let cookies: Vec<_> = aside.iter().map(|key| key.cookie.0).collect();
    assert_eq!(cookies, [4, 1, 2], "as many as were asked for");
    assert!(aside.iter().all(|key| queue.is_aside(*key)));
    assert_eq!(queue.depth().waiting[&Class::Archive], 4, "they count as waiting");
    let mut jobs: Vec<_> = std::iter::from_fn(|| offered(&queue, ThreadRole::All)).collect();
    jobs.sort_unstable_by_key(cookie);
    assert_eq!(jobs.iter().map(cookie).collect::<Vec<_>>(), [3, 5]);
    queue.put_back(aside[1]);
    queue.put_back(aside[1]);
    assert_eq!(offered(&queue, ThreadRole::All).as_ref().map(cookie), Some(1));
    assert!(offered(&queue, ThreadRole::All).is_none(), "once");
    let Cancelled::Waiting(_) = queue.cancel(aside[2], Stop::Cancelled) else {
        panic!("it waited");
    };
    assert!(!queue.is_aside(aside[2]));
    queue.put_back(aside[2]);
    assert!(offered(&queue, ThreadRole::All).is_none());
    assert_eq!(queue.take_aside().len(), 1);
    assert_eq!(queue.depth().waiting.values().sum::<usize>(), 0);
}

#[test]
fn what_is_set_aside_waits_for_other_movers_too_and_what_waits_for_them_is_not_set_aside() {
    let queue = of_mdts(1, 8, 0);
    let all = OutOfReach::Archive(ArchiveId::new(1).unwrap());
    let [first, second] = [on(0, Verb::Archive, 1), on(0, Verb::Archive, 2)];
    let keys = [first.item().key(), second.item().key()];
    admit(&queue, first);
    admit(&queue, second);
    assert!(queue.hold(keys[1]));
    assert_eq!(queue.set_aside(all, false, 10), [keys[0]]);
    assert!(queue.hold(keys[0]));
    queue.let_go(keys[0]);
    queue.let_go(keys[1]);
    assert_eq!(offered(&queue, ThreadRole::All).as_ref().map(cookie), Some(2));
    assert!(offered(&queue, ThreadRole::All).is_none(), "it is aside still");
    assert!(queue.hold(keys[0]));
    queue.put_back(keys[0]);
    assert!(
        offered(&queue, ThreadRole::All).is_none(),
        "another mover is at its file"
    );
    queue.let_go(keys[0]);
    assert_eq!(offered(&queue, ThreadRole::All).as_ref().map(cookie), Some(1));
}

#[test]
fn an_archive_that_has_begun_is_not_set_aside_and_a_restore_that_waits_for_its_object_is() {
    let queue = of_mdts(1, 8, 0);
    admit(&queue, on(0, Verb::Archive, 1));
    admit(&queue, on(0, Verb::Restore, 2));
    let jobs: Vec<_> = (0..2).filter_map(|_| offered(&queue, ThreadRole::All)).collect();
    for job in jobs {
        assert!(queue.defer(job.handle, Instant::now(), PutOff::Other).is_ok());
    }
    queue.lock().line_up_due(Instant::now());
    let mut aside = queue.set_aside(OutOfReach::Mdt(Mdt(0)), true, 10);
    aside.extend(queue.set_aside(OutOfReach::Mdt(Mdt(0)), false, 10));
    assert_eq!(aside.iter().map(|key| key.cookie.0).collect::<Vec<_>>(), [2]);
    assert_eq!(offered(&queue, ThreadRole::All).as_ref().map(cookie), Some(1));
    assert!(offered(&queue, ThreadRole::All).is_none());
}
