//! The queue: what comes is done once, whoever comes between, and nobody sleeps beside work.

use std::sync::Arc;
use std::time::Duration;

use lhsm_schedules::action::{ActionHandle, ActionKey, Verb, Verdict};
use lhsm_schedules::queue::{Admission, Cancelled, Job, PutOff, Queue, ThreadRole, Work};
use lhsm_schedules::sync::{FOR_EVER, Instant, Time};
use lhsm_schedules::transfer::{IdleThreads as _, Lane, SharedWork, Stop, in_parts};
use shuttle::sync::mpsc::{Sender, channel};
use shuttle::thread::{self, JoinHandle};

use crate::handles::Ledger;
use crate::harness::{Check, every_wake_up_is_needed, holds};

/// Where time stands: what ends a wait is a wake-up.
const fn still(run: fn()) -> Check {
    Check {
        time: Time::Stands,
        run,
    }
}

fn end(handle: Box<dyn ActionHandle>, verdict: Verdict) {
    handle.finish(verdict, 0).unwrap();
}

/// Goes on as the daemon's workers do, until the queue is closed, and tells each end just before the queue hears of it.
fn worker(queue: &Arc<Queue>, lanes: ThreadRole, ends: &Sender<ActionKey>) -> JoinHandle<()> {
    let (queue, ends) = (Arc::clone(queue), ends.clone());
    thread::spawn(move || {
        loop {
            match queue.next(lanes) {
                Work::Closed => return,
                Work::Parts(parts) => {
                    let more = parts.work_one(&Lane);
                    queue.helped(&parts, more);
                }
                Work::Job(job) => work(&queue, job, &ends),
            }
        }
    })
}

fn work(queue: &Queue, job: Job, ends: &Sender<ActionKey>) {
    let item = job.handle.item().clone();
    let handle = match job.control.end_unless_stopped(false) {
        None => {
            end(job.handle, Verdict::Done);
            for served in queue.take_served(&item) {
                let key = served.item().key();
                end(served, Verdict::Done);
                ends.send(key).unwrap();
            }
            None
        }
        Some(Stop::SentAgain) => match queue.defer(job.handle, Instant::now(), PutOff::Other) {
            Ok(()) => return,
            Err((handle, _)) => Some(handle),
        },
        Some(_) => Some(job.handle),
    };
    if let Some(handle) = handle {
        end(handle, Verdict::Cancelled);
    }
    ends.send(item.key()).unwrap();
    queue.ended(&item);
}

fn all_are_done(lanes: &[ThreadRole], actions: &[(Verb, u64, u32)]) {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let (ends, ended) = channel();
    let workers: Vec<_> = lanes.iter().map(|lanes| worker(&queue, *lanes, &ends)).collect();
    let mut keys = Vec::new();
    for (verb, cookie, oid) in actions {
        let handle = ledger.handle(*verb, *cookie, *oid);
        keys.push(handle.item().key());
        assert!(matches!(queue.admit(handle, Instant::now()), Admission::Queued));
    }
    let mut done: Vec<_> = actions.iter().map(|_| ended.recv().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, keys);
    assert!(queue.wait_idle(Instant::now() + FOR_EVER));
    assert_eq!(queue.depth().all_waiting(), 0);
    queue.close();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(ledger.is_settled());
}

fn one_thread_serves_archives() {
    all_are_done(&[ThreadRole::All], &[(Verb::Archive, 1, 1), (Verb::Archive, 2, 2)]);
}

fn one_thread_serves_restores() {
    all_are_done(&[ThreadRole::All], &[(Verb::Restore, 1, 1), (Verb::Restore, 2, 2)]);
}

fn a_thread_for_restores_alone_serves_them() {
    all_are_done(&[ThreadRole::Restores], &[(Verb::Restore, 1, 1), (Verb::Restore, 2, 2)]);
}

fn three_threads_serve_a_file_in_its_order() {
    let actions = [
        (Verb::Archive, 1, 1),
        (Verb::Archive, 2, 1),
        (Verb::Remove, 3, 1),
        (Verb::Restore, 4, 1),
        (Verb::Archive, 5, 2),
    ];
    all_are_done(&[ThreadRole::All, ThreadRole::All, ThreadRole::Restores], &actions);
}

fn a_cancel_meets_it_anywhere() {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let (ends, ended) = channel();
    let worker = worker(&queue, ThreadRole::All, &ends);
    let (first, behind) = (ledger.handle(Verb::Archive, 1, 1), ledger.handle(Verb::Remove, 2, 1));
    let key = first.item().key();
    let canceller = thread::spawn({
        let (queue, ends) = (Arc::clone(&queue), ends.clone());
        move || match queue.cancel(key, Stop::Cancelled) {
            Cancelled::Waiting(handle) => {
                end(handle, Verdict::Cancelled);
                ends.send(key).unwrap();
            }
            Cancelled::Running | Cancelled::Unknown => {}
        }
    });
    for handle in [first, behind] {
        assert!(matches!(queue.admit(handle, Instant::now()), Admission::Queued));
    }
    let mut done = [ended.recv().unwrap(), ended.recv().unwrap()];
    done.sort_unstable();
    assert_eq!(done.map(|key| key.cookie.0), [1, 2]);
    canceller.join().unwrap();
    assert!(queue.wait_idle(Instant::now() + FOR_EVER));
    queue.close();
    worker.join().unwrap();
    assert!(ledger.is_settled());
}

/// Takes one action, which nobody else is there for.
fn taken(ledger: &Ledger, queue: &Queue, verb: Verb) -> Job {
    assert!(matches!(
        queue.admit(ledger.handle(verb, 1, 1), Instant::now()),
        Admission::Queued
    ));
    match queue.next(ThreadRole::All) {
        Work::Job(job) => job,
        other => panic!("expected a job, got {other:?}"),
    }
}

fn put_off(lanes: ThreadRole, verb: Verb, wait: Duration) {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let (ends, ended) = channel();
    let job = taken(&ledger, &queue, verb);
    let worker = worker(&queue, lanes, &ends);
    assert!(queue.defer(job.handle, Instant::now() + wait, PutOff::Other).is_ok());
    assert_eq!(ended.recv().unwrap().cookie.0, 1);
    queue.close();
    worker.join().unwrap();
    assert!(ledger.is_settled());
}

fn what_is_put_off_is_anybodys() {
    put_off(ThreadRole::All, Verb::Archive, Duration::ZERO);
}

fn a_restore_that_is_put_off_is_anybodys() {
    put_off(ThreadRole::Restores, Verb::Restore, Duration::ZERO);
}

fn what_is_put_off_is_done_in_time() {
    put_off(ThreadRole::Restores, Verb::Restore, Duration::from_secs(1));
}

fn what_is_put_off_runs_no_more() {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let job = taken(&ledger, &queue, Verb::Restore);
    let waiting = thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.wait_idle(Instant::now() + FOR_EVER)
    });
    assert!(
        queue
            .defer(job.handle, Instant::now() + FOR_EVER, PutOff::Other)
            .is_ok()
    );
    assert!(waiting.join().unwrap());
    for handle in queue.take_all_waiting() {
        end(handle, Verdict::Cancelled);
    }
    assert!(ledger.is_settled());
}

fn a_cancel_meets_what_is_being_put_off() {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let job = taken(&ledger, &queue, Verb::Restore);
    let item = job.handle.item().clone();
    let canceller = thread::spawn({
        let (queue, key) = (Arc::clone(&queue), item.key());
        move || match queue.cancel(key, Stop::Cancelled) {
            Cancelled::Waiting(handle) => end(handle, Verdict::Cancelled),
            Cancelled::Running => {}
            Cancelled::Unknown => panic!("it is there"),
        }
    });
    if let Err((handle, stop)) = queue.defer(job.handle, Instant::now() + FOR_EVER, PutOff::Other) {
        assert_eq!(stop, Stop::Cancelled);
        end(handle, Verdict::Cancelled);
        queue.ended(&item);
    }
    canceller.join().unwrap();
    assert!(ledger.is_settled());
    assert!(!queue.has_file(item.fid));
}

/// Nobody knows of these files where they are.
fn of_an_mdt_that_answers_again(lanes: ThreadRole, verb: Verb) {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let (ends, ended) = channel();
    assert!(queue.set_silent(None, true));
    assert!(matches!(
        queue.admit(ledger.handle(verb, 1, 1), Instant::now()),
        Admission::Queued
    ));
    let worker = worker(&queue, lanes, &ends);
    assert!(queue.set_silent(None, false));
    assert_eq!(ended.recv().unwrap().cookie.0, 1);
    queue.close();
    worker.join().unwrap();
}

fn an_archive_of_an_mdt_that_answers_again_runs() {
    of_an_mdt_that_answers_again(ThreadRole::All, Verb::Archive);
}

fn a_restore_of_an_mdt_that_answers_again_runs() {
    of_an_mdt_that_answers_again(ThreadRole::Restores, Verb::Restore);
}

fn nobody_waits_for_an_mdt_that_falls_silent() {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let job = taken(&ledger, &queue, Verb::Archive);
    let waiting = thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.wait_done(Instant::now() + FOR_EVER)
    });
    assert!(queue.set_silent(None, true));
    assert!(waiting.join().unwrap());
    let item = job.handle.item().clone();
    end(job.handle, Verdict::Done);
    queue.ended(&item);
}

/// One part, whose owner waits for somebody to take it.
struct OnePart(Sender<()>);

impl SharedWork for OnePart {
    fn work_one(&self, _: &Lane) -> bool {
        self.0.send(()).unwrap();
        false
    }

    fn is_crowded(&self) -> bool {
        false
    }
}

fn an_offer_finds(lanes: ThreadRole, urgent: bool) {
    let queue = Arc::new(Queue::default());
    let (ends, _ended) = channel();
    let worker = worker(&queue, lanes, &ends);
    let (word, words) = channel();
    let part: Arc<dyn SharedWork> = Arc::new(OnePart(word));
    queue.offer(Arc::clone(&part), urgent);
    words.recv().unwrap();
    queue.withdraw(&part);
    queue.close();
    worker.join().unwrap();
    assert_eq!(queue.depth().helping, 0);
}

fn an_offer_finds_a_thread_that_sleeps() {
    an_offer_finds(ThreadRole::All, false);
}

fn an_urgent_offer_finds_a_thread_for_restores() {
    an_offer_finds(ThreadRole::Restores, true);
}

fn a_files_parts_are_done_among_the_threads_of_a_queue() {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let (ends, ended) = channel();
    let workers = [ThreadRole::All, ThreadRole::Restores].map(|lanes| worker(&queue, lanes, &ends));
    let archive = ledger.handle(Verb::Archive, 1, 1);
    assert!(matches!(queue.admit(archive, Instant::now()), Admission::Queued));
    let done = in_parts(queue.as_ref(), true, 3, |_, index| {
        thread::yield_now();
        Ok(index)
    });
    assert_eq!(done, Ok(vec![0, 1, 2]));
    assert_eq!(ended.recv().unwrap().cookie.0, 1);
    queue.close();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(queue.depth().helping, 0);
}

/// Both deliveries are answered or let go of, also when the daemon ends right behind them.
fn one_that_is_sent_again_is_answered_before_the_end() {
    let (ledger, queue) = (Ledger::default(), Arc::new(Queue::default()));
    let (ends, _ended) = channel();
    let worker = worker(&queue, ThreadRole::All, &ends);
    for _ in 0..2 {
        match queue.admit(ledger.handle(Verb::Restore, 1, 1), Instant::now()) {
            Admission::Queued => {}
            Admission::Duplicate(handle) => handle.disown(),
            Admission::Declined(_) => panic!("a restore is work"),
        }
    }
    queue.park(Stop::Shutdown);
    assert!(queue.wait_idle(Instant::now() + FOR_EVER));
    for handle in queue.take_all_waiting() {
        end(handle, Verdict::Cancelled);
    }
    queue.close();
    worker.join().unwrap();
    assert!(ledger.is_settled());
    assert_eq!(queue.depth().all_waiting(), 0);
}

#[test]
fn what_comes_is_done_once_and_in_the_order_of_its_file() {
    holds(still(three_threads_serve_a_file_in_its_order));
    holds(still(one_thread_serves_archives));
    holds(still(one_thread_serves_restores));
    holds(still(a_thread_for_restores_alone_serves_them));
}

#[test]
fn a_cancel_finds_an_action_once_wherever_it_is() {
    holds(still(a_cancel_meets_it_anywhere));
    holds(still(a_cancel_meets_what_is_being_put_off));
}

#[test]
fn what_is_put_off_comes_back_by_whoever_is_free() {
    holds(still(what_is_put_off_is_anybodys));
    holds(still(a_restore_that_is_put_off_is_anybodys));
    holds(still(what_is_put_off_runs_no_more));
    holds(Check {
        time: Time::Passes,
        run: what_is_put_off_is_done_in_time,
    });
}

#[test]
fn parts_are_taken_by_threads_that_sleep_and_all_done() {
    holds(still(an_offer_finds_a_thread_that_sleeps));
    holds(still(an_urgent_offer_finds_a_thread_for_restores));
    holds(Check {
        time: Time::Passes,
        run: a_files_parts_are_done_among_the_threads_of_a_queue,
    });
}

#[test]
fn an_mdt_that_falls_silent_or_answers_again_is_noticed() {
    holds(still(an_archive_of_an_mdt_that_answers_again_runs));
    holds(still(a_restore_of_an_mdt_that_answers_again_runs));
    holds(still(nobody_waits_for_an_mdt_that_falls_silent));
}

#[test]
fn a_second_delivery_is_answered_also_at_the_end_of_the_daemon() {
    holds(still(one_that_is_sent_again_is_answered_before_the_end));
}

#[test]
fn each_wake_up_of_the_queue_would_be_missed() {
    let checks = [
        one_thread_serves_archives,
        one_thread_serves_restores,
        a_thread_for_restores_alone_serves_them,
        what_is_put_off_is_anybodys,
        a_restore_that_is_put_off_is_anybodys,
        what_is_put_off_runs_no_more,
        an_archive_of_an_mdt_that_answers_again_runs,
        a_restore_of_an_mdt_that_answers_again_runs,
        nobody_waits_for_an_mdt_that_falls_silent,
        an_offer_finds_a_thread_that_sleeps,
        an_urgent_offer_finds_a_thread_for_restores,
    ];
    every_wake_up_is_needed("queue/mod.rs", &checks.map(still));
}
