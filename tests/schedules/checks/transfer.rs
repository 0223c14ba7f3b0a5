//! A file's parts, the turns at writing it, and the chunks of a request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use lhsm_schedules::sync::Time;
use lhsm_schedules::transfer::{
    Control, IdleThreads, Lane, SharedWork, Stop, TransferError, WriteSlots, in_parts, requests,
};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};

use crate::harness::{Check, every_wake_up_is_needed, holds};

const fn still(run: fn()) -> Check {
    Check {
        time: Time::Stands,
        run,
    }
}

type Offer = Arc<dyn SharedWork>;

/// Two threads that help with what is offered, as long as it is.
struct Two {
    offered: Mutex<Option<Sender<Offer>>>,
}

impl IdleThreads for Two {
    fn offer(&self, parts: Arc<dyn SharedWork>, _: bool) {
        if let Some(offered) = &*self.offered.lock().unwrap() {
            (0..2).for_each(|_| offered.send(Arc::clone(&parts)).unwrap());
        }
    }

    fn withdraw(&self, _: &Arc<dyn SharedWork>) {
        *self.offered.lock().unwrap() = None;
    }
}

fn two() -> (Two, JoinHandle<()>) {
    let (offered, offers): (Sender<Offer>, Receiver<Offer>) = channel();
    let offers = thread::spawn(move || {
        let idle_threads: Vec<_> = offers
            .iter()
            .map(|parts| thread::spawn(move || while parts.work_one(&Lane) {}))
            .collect();
        idle_threads.into_iter().for_each(|helper| helper.join().unwrap());
    });
    let offered = Mutex::new(Some(offered));
    (Two { offered }, offers)
}

/// Four parts of a file that somebody else has open, too: what is done with them, and that nobody is in them afterwards.
fn parts(work: fn(usize) -> Result<usize, TransferError>) -> Result<Vec<usize>, TransferError> {
    let (idle_threads, ends) = two();
    let file = Arc::new(());
    let inside = Arc::new(AtomicUsize::new(0));
    let (of_the_work, seen) = (Arc::clone(&file), Arc::clone(&inside));
    let done = in_parts(&idle_threads, false, 4, move |_, index| {
        let _file = &of_the_work;
        seen.fetch_add(1, Ordering::SeqCst);
        let done = work(index);
        seen.fetch_sub(1, Ordering::SeqCst);
        done
    });
    assert_eq!(inside.load(Ordering::SeqCst), 0, "nobody works on");
    assert!(Arc::into_inner(file).is_some(), "and nobody has the file open");
    ends.join().unwrap();
    done
}

fn parts_that_work() {
    assert_eq!(parts(Ok), Ok(vec![0, 1, 2, 3]));
}

fn parts_of_which_one_fails() {
    let failing = |index| {
        if index == 1 {
            Err(TransferError::Changed)
        } else {
            Ok(index)
        }
    };
    assert_eq!(parts(failing), Err(TransferError::Changed));
}

fn writers() {
    let slots = Arc::new(WriteSlots::of(1));
    let inside = Arc::new(AtomicUsize::new(0));
    let writers = [(); 3].map(|()| {
        let (slots, inside) = (Arc::clone(&slots), Arc::clone(&inside));
        thread::spawn(move || {
            let alone = slots.take(&Control::default(), || {
                let before = inside.fetch_add(1, Ordering::SeqCst);
                inside.fetch_sub(1, Ordering::SeqCst);
                before == 0
            });
            assert_eq!(alone, Ok(true));
        })
    });
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

/// One keeps its turn until the other, which waits for it, has been stopped.
fn a_writer_that_is_stopped() {
    let slots = Arc::new(WriteSlots::of(1));
    let control = Arc::new(Control::default());
    let (begun, begins) = channel();
    let (over, ends) = channel::<()>();
    let holder = thread::spawn({
        let slots = Arc::clone(&slots);
        move || {
            slots.take(&Control::default(), || {
                begun.send(()).unwrap();
                ends.recv().unwrap();
            })
        }
    });
    begins.recv().unwrap();
    let waiting = thread::spawn({
        let (slots, control) = (Arc::clone(&slots), Arc::clone(&control));
        move || slots.take(&control, || ())
    });
    control.stop(Stop::Cancelled);
    assert_eq!(waiting.join().unwrap(), Err(TransferError::Stopped(Stop::Cancelled)));
    over.send(()).unwrap();
    assert_eq!(holder.join().unwrap(), Ok(()));
}

/// A task that sleeps until it is woken.
#[derive(Default)]
struct Task {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Task {
    fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !std::mem::take(&mut *woken) {
            woken = self.changed.wait(woken).unwrap();
        }
    }
}

/// One request is given up with its chunks still on their way; its successor gets its own, wakes, and sends all.
fn chunks() {
    let task = Arc::new(Task::default());
    let waker = Waker::from(Arc::clone(&task));
    let (line, sent) = channel();
    let connection = thread::spawn(move || {
        let mut bytes = VecDeque::new();
        for chunk in sent {
            bytes.push_back(chunk);
            if bytes.len() == 2 {
                bytes.pop_front();
            }
        }
    });
    let mut requests = requests(2, 8).into_iter();
    let given_up = requests.next().unwrap();
    for byte in 0..2 {
        line.send(given_up.fill(&waker, byte, 8).unwrap()).unwrap();
    }
    drop(given_up);
    let request = requests.next().unwrap();
    for byte in 0..5 {
        let chunk = loop {
            match request.fill(&waker, byte, 3) {
                Some(chunk) => break chunk,
                None => task.sleep(),
            }
        };
        assert_eq!(&chunk[..], [byte; 3]);
        line.send(chunk).unwrap();
    }
    drop(line);
    connection.join().unwrap();
}

#[test]
fn all_parts_are_done_once_and_nobody_is_in_one_when_the_owner_goes_on() {
    holds(still(parts_that_work));
    holds(still(parts_of_which_one_fails));
}

#[test]
fn one_writes_at_a_time_and_each_gets_its_turn_or_is_stopped() {
    holds(still(writers));
    holds(Check {
        time: Time::Passes,
        run: a_writer_that_is_stopped,
    });
}

#[test]
fn a_request_that_waits_for_a_chunk_is_woken() {
    holds(still(chunks));
}

#[test]
fn each_wake_up_of_parts_and_turns_would_be_missed() {
    every_wake_up_is_needed("transfer/parts.rs", &[still(parts_that_work)]);
    every_wake_up_is_needed("transfer/write_slots.rs", &[still(writers)]);
}
