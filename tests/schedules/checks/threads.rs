//! Threads: each end is heard of, by whoever joins it and, where nobody asked for it, by the supervisor.

use lhsm_schedules::sync::{FOR_EVER, Instant, Time};
use lhsm_schedules::thread::{Supervisor, Threads};
use shuttle::sync::mpsc::channel;

use crate::harness::{Check, every_wake_up_is_needed, holds};

const fn still(run: fn()) -> Check {
    Check {
        time: Time::Stands,
        run,
    }
}

fn one_that_is_asked_to_end() {
    let supervisor = Supervisor::default();
    let (stop, stopped) = channel::<()>();
    let work = move || assert!(stopped.recv().is_err());
    let mut thread = supervisor.serve("asked", move || drop(stop), work).unwrap();
    assert!(thread.join(Instant::now() + FOR_EVER));
    assert_eq!((supervisor.first_death(), supervisor.held()), (None, Vec::new()));
}

fn several_that_end_together() {
    let supervisor = Supervisor::default();
    let (stop, stopped) = channel::<()>();
    let (told, tells) = channel::<()>();
    let mut threads = Threads::new(move || drop((stop, told)));
    for (name, stopped) in [("one", stopped), ("two", tells)] {
        let work = move || assert!(stopped.recv().is_err());
        threads.add(&supervisor, name, work).unwrap();
    }
    assert!(threads.join(Instant::now() + FOR_EVER));
    assert_eq!(supervisor.first_death(), None);
}

fn one_that_returns_of_itself() {
    let supervisor = Supervisor::default();
    let (about, comes) = channel::<()>();
    let mut thread = supervisor.serve("tired", || {}, move || drop(about)).unwrap();
    assert!(comes.recv().is_err());
    // It may just have been on its way out when it was asked.
    assert!(thread.join(Instant::now() + FOR_EVER));
    let death = supervisor.first_death();
    assert!(death.is_none_or(|death| death.thread == "tired"));
    assert_eq!(supervisor.held(), Vec::new());
}

#[test]
fn an_end_that_was_asked_for_is_waited_for_and_is_no_death() {
    holds(still(one_that_is_asked_to_end));
    holds(still(several_that_end_together));
    holds(still(one_that_returns_of_itself));
}

#[test]
fn each_wake_up_of_threads_would_be_missed() {
    every_wake_up_is_needed("thread/mod.rs", &[still(one_that_is_asked_to_end)]);
}
