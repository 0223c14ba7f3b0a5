//! The journal: what is told to it is on disk in the end, and is found at any time before.

use lhsm_schedules::disk::Disk;
use lhsm_schedules::journal::Journal;
use lhsm_schedules::store::{Location, ObjectKey, WriterId};
use lhsm_schedules::sync::{FOR_EVER, Instant, Time};
use lhsm_schedules::thread::Supervisor;
use lhsm_schedules::types::{ArchiveId, Fid};
use shuttle::thread;
use std::sync::Arc;

use crate::harness::{Check, every_wake_up_is_needed, holds};

fn fid(oid: u32) -> Fid {
    Fid {
        seq: 0x2_0000_0401,
        oid,
        ver: 0,
    }
}

fn copy(number: u64) -> Location {
    Location {
        archive_id: ArchiveId::new(1).unwrap(),
        key: ObjectKey::new("a/b").unwrap(),
        etag: "\"e\"".into(),
        writer: Some(WriterId(number)),
    }
}

fn number(journal: &Journal, oid: u32) -> Option<u64> {
    journal.find(fid(oid))?.writer.map(|writer| writer.0)
}

/// What a later daemon finds.
fn on(disk: &Disk, oid: u32) -> Option<u64> {
    disk.set_full(false);
    number(&disk.journal(&Supervisor::default()), oid)
}

fn changes_of_two_threads_and_the_end() {
    let (disk, supervisor) = (Disk::default(), Supervisor::default());
    let journal = Arc::new(disk.journal(&supervisor));
    let other = thread::spawn({
        let journal = Arc::clone(&journal);
        move || {
            journal.remember(fid(2), &copy(1));
            journal.forget(fid(2));
        }
    });
    journal.remember(fid(1), &copy(1));
    journal.remember(fid(1), &copy(2));
    other.join().unwrap();
    journal.finish(Instant::now() + FOR_EVER);
    assert_eq!(journal.unwritten(), 0);
    assert_eq!(supervisor.first_death(), None);
    drop(journal);
    assert_eq!((on(&disk, 1), on(&disk, 2)), (Some(2), None));
}

fn a_change_and_nobody_who_ends_it() {
    let (disk, supervisor) = (Disk::default(), Supervisor::default());
    let journal = disk.journal(&supervisor);
    journal.remember(fid(1), &copy(1));
    while journal.unwritten() > 0 {
        thread::yield_now();
    }
    assert_eq!(number(&journal, 1), Some(1));
    journal.finish(Instant::now() + FOR_EVER);
}

/// Who looks never sees the copy of before again, wherever the change just is.
fn a_reader_beside_the_writer() {
    let (disk, supervisor) = (Disk::default(), Supervisor::default());
    let journal = Arc::new(disk.journal(&supervisor));
    let reader = thread::spawn({
        let journal = Arc::clone(&journal);
        move || {
            let mut before = None;
            for _ in 0..4 {
                let now = number(&journal, 1);
                assert!(now >= before, "{now:?} after {before:?}");
                before = now;
            }
        }
    });
    journal.remember(fid(1), &copy(1));
    thread::yield_now();
    journal.remember(fid(1), &copy(2));
    reader.join().unwrap();
    journal.finish(Instant::now() + FOR_EVER);
    drop(journal);
    assert_eq!(on(&disk, 1), Some(2));
}

fn a_disk_that_is_full_for_a_while() {
    let (disk, supervisor) = (Disk::default(), Supervisor::default());
    let journal = Arc::new(disk.journal(&supervisor));
    let trouble = thread::spawn({
        let disk = disk.clone();
        move || {
            disk.set_full(true);
            thread::yield_now();
            thread::yield_now();
            disk.set_full(false);
        }
    });
    for n in 1..4 {
        journal.remember(fid(1), &copy(n));
        assert_eq!(number(&journal, 1), Some(n), "also while it can't be written");
        thread::yield_now();
    }
    trouble.join().unwrap();
    while journal.unwritten() > 0 {
        thread::yield_now();
    }
    journal.finish(Instant::now() + FOR_EVER);
    assert_eq!(supervisor.first_death(), None);
    drop(journal);
    assert_eq!(on(&disk, 1), Some(3));
}

const fn passing(run: fn()) -> Check {
    Check {
        time: Time::Passes,
        run,
    }
}

const fn still(run: fn()) -> Check {
    Check {
        time: Time::Stands,
        run,
    }
}

#[test]
fn what_is_told_is_on_disk_at_the_end_whenever_that_comes() {
    holds(passing(changes_of_two_threads_and_the_end));
    holds(still(changes_of_two_threads_and_the_end));
    holds(passing(a_change_and_nobody_who_ends_it));
}

#[test]
fn who_looks_sees_the_last_copy_while_it_is_written() {
    holds(passing(a_reader_beside_the_writer));
}

#[test]
fn a_disk_that_fails_for_a_while_loses_nothing() {
    holds(passing(a_disk_that_is_full_for_a_while));
}

#[test]
fn each_wake_up_of_the_journal_would_be_missed() {
    let checks = [
        passing(a_change_and_nobody_who_ends_it),
        still(changes_of_two_threads_and_the_end),
    ];
    every_wake_up_is_needed("journal/mod.rs", &checks);
}
