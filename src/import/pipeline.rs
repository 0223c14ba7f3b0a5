//! The pipeline: listers > batches > makers, with a checkpoint once a second.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::flow::{ImportError, ImportRun, PanicGuard, lock};
use super::input::{Input, read_keys, read_one, read_rows};
use super::listers;
use super::maker::{Fatal, ImportContext, Maker};
use super::report::ImportCounts;
use super::round::ListingRound;
use crate::ranges::{Batch, ListerTask, Ranges};
use crate::transfer::{Lane, TransferError};

const CHECKPOINT: Duration = Duration::from_secs(1);

/// What an import needs besides [`ImportContext`].
#[derive(Debug)]
pub struct Import {
    /// Where the objects are told.
    pub input: Input,
    /// One for each thread that lists.
    pub listers: Vec<Lane>,
    /// One for each thread that makes files.
    pub makers: Vec<Lane>,
    /// What a former run left.
    pub former: Option<Checkpoint>,
    /// How far it is, on disk; `None`: not kept.
    pub checkpoint: Option<PathBuf>,
    /// What tells this import from another.
    pub command: String,
    /// The bucket is listed in the order of its keys' bytes, on the caller's word.
    pub trust_order: bool,
}

/// The threads' connections.
#[derive(Debug)]
struct ImportLanes {
    listers: Vec<Lane>,
    makers: Vec<Lane>,
}

/// Where the checkpoint is, and of what.
#[derive(Debug)]
struct CheckpointFile {
    path: Option<PathBuf>,
    command: String,
}

/// Imports everything. `tick` is called once a second with the counters so far.
///
/// # Errors
/// What ended it early; single objects' trouble is in the report.
pub fn run(shared: &ImportContext, import: Import, tick: &mut dyn FnMut(&ImportCounts)) -> Result<(), ImportError> {
    let Import {
        input,
        mut listers,
        makers,
        former,
        checkpoint,
        command,
        trust_order,
    } = import;
    if let Input::Inventory(_) = &input {
        // One lane reads data files.
        listers.truncate(1);
    }
    let mut lanes = ImportLanes { listers, makers };
    let keeper = CheckpointFile {
        path: checkpoint,
        command,
    };
    let mut round = ListingRound::first(shared, &input, former, trust_order);
    loop {
        let (back, again) = go(shared, &input, &round, lanes, &keeper, tick)?;
        let Some(why) = again else {
            break;
        };
        lanes = back;
        let made = if shared.dry_run {
            ImportCounts::default()
        } else {
            round.before.with_made(&shared.report.counts())
        };
        // What made way for a directory is not counted a second time.
        let refused = u64::try_from(lock(&shared.cleared).len()).unwrap_or(u64::MAX);
        shared.report.begin_again(refused);
        round = ListingRound::whole(why, made);
    }
    // What an earlier listing led to is there now, and this import made it.
    shared.report.count(|counts| counts.take_over(&round.before));
    Ok(())
}

/// One round; the lanes, and why there has to be another one.
fn go(
    shared: &ImportContext,
    input: &Input,
    round: &ListingRound,
    lanes: ImportLanes,
    keeper: &CheckpointFile,
    tick: &mut dyn FnMut(&ImportCounts),
) -> Result<(ImportLanes, Option<String>), ImportError> {
    let prefix = match input {
        Input::List => shared.prefix.clone(),
        Input::Inventory(_) | Input::Keys(_) | Input::One(_) => String::new(),
    };
    let (sender, receiver) = sync_channel(lanes.makers.len() * 2);
    let flow = ImportRun {
        shared,
        ranges: Ranges::new(&prefix, round.open.clone()),
        may_cut: lanes.listers.len() > 1,
        before: round.before,
        first: round.goes_to_the_end(),
        batches: Mutex::new(receiver),
        failure: Mutex::default(),
        disorder: Mutex::new(round.disorder().map(str::to_owned)),
        again: AtomicBool::new(false),
    };
    let prover = round.prepare(&flow, lanes.listers.first())?;
    // Before the first file: a run that finds a checkpoint knows that another may have been killed.
    keep(&flow, keeper)?;
    let mut back = ImportLanes {
        listers: Vec::new(),
        makers: Vec::new(),
    };
    std::thread::scope(|scope| {
        let proving = prover.map(|lane| {
            let (flow, sender) = (&flow, sender.clone());
            scope.spawn(move || {
                let _watched = PanicGuard(flow);
                if let Err(error) = listers::from_the_beginning(flow, &lane, None, &sender) {
                    flow.fail(ImportError::List(error));
                }
            })
        });
        let listing: Vec<_> = lanes
            .listers
            .into_iter()
            .map(|lane| {
                let (flow, sender) = (&flow, sender.clone());
                scope.spawn(move || {
                    let _watched = PanicGuard(flow);
                    if let Err(error) = tell(flow, input, &lane, &sender) {
                        flow.fail(error);
                    }
                    drop(sender);
                    lane
                })
            })
            .collect();
        drop(sender);
        let making: Vec<_> = lanes
            .makers
            .into_iter()
            .map(|lane| {
                let (flow, waiting) = (&flow, std::thread::current());
                scope.spawn(move || {
                    let _watched = PanicGuard(flow);
                    let lane = make(flow, lane);
                    waiting.unpark();
                    lane
                })
            })
            .collect();
        while !making.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::park_timeout(CHECKPOINT);
            if flow.stopped() {
                flow.ranges.stop();
            }
            tick(&shared.report.counts());
            if let Err(error) = keep(&flow, keeper) {
                flow.fail(error);
            }
        }
        let mut panicked = 0;
        for thread in listing {
            match thread.join() {
                Ok(lane) => back.listers.push(lane),
                Err(_) => panicked += 1,
            }
        }
        for thread in making {
            match thread.join() {
                Ok(lane) => back.makers.push(lane),
                Err(_) => panicked += 1,
            }
        }
        panicked += usize::from(proving.is_some_and(|thread| thread.join().is_err()));
        assert_eq!(panicked, 0, "a thread of the import panicked");
    });
    keep(&flow, keeper)?;
    shared.report.flush();
    if let Some(error) = lock(&flow.failure).take() {
        return Err(error);
    }
    if flow.stopped() {
        return Err(ImportError::Stopped);
    }
    let again = flow.again.load(Ordering::Relaxed);
    let why = lock(&flow.disorder).take().filter(|_| again);
    Ok((back, why))
}

/// The checkpoint: first what it relies on.
fn keep(flow: &ImportRun<'_>, CheckpointFile { path, command }: &CheckpointFile) -> Result<(), ImportError> {
    let Some(path) = path else {
        return Ok(());
    };
    // In this order: what is counted as done has its lines on disk.
    let open = flow.ranges.open();
    let unordered = lock(&flow.disorder).clone();
    let mut counts = flow.shared.report.counts();
    if unordered.is_some() {
        // A listing that no key says the place of begins anew; what it led to is there.
        counts = flow.before.with_made(&counts);
    }
    flow.shared.finishing.flush().map_err(|source| ImportError::Local {
        what: "write the list of directories beside",
        path: path.clone(),
        source,
    })?;
    flow.shared.report.flush();
    Ok(Checkpoint::new(command, flow.shared.began, open, counts, unordered).write(path)?)
}

fn tell(flow: &ImportRun<'_>, input: &Input, lane: &Lane, sender: &SyncSender<Batch>) -> Result<(), ImportError> {
    loop {
        match flow.ranges.claim() {
            ListerTask::Done => return Ok(()),
            ListerTask::List { range, after } => match input {
                Input::List => {
                    let listed = if flow.first && after.is_none() {
                        listers::from_the_beginning(flow, lane, Some(range), sender)
                    } else {
                        listers::list_range(flow, lane, range, after, sender)
                    };
                    listed.map_err(ImportError::List)?;
                }
                Input::Keys(path) => read_keys(flow, path, range, after, sender)?,
                Input::One(key) => read_one(flow, key, range, after, sender),
                Input::Inventory(inventory) => read_rows(flow, inventory, range, after, sender)?,
            },
            ListerTask::Probe { range, middle } => match input {
                Input::List => listers::probe(flow, lane, range, &middle).map_err(ImportError::List)?,
                // Rows are in no order of keys.
                Input::Keys(_) | Input::Inventory(_) | Input::One(_) => return Ok(()),
            },
        }
    }
}

/// Makes what comes until nothing more does; gives the lane back.
fn make(flow: &ImportRun<'_>, lane: Lane) -> Lane {
    let maker = Maker::new(flow.shared, lane);
    loop {
        let next = lock(&flow.batches).recv();
        let Ok(batch) = next else {
            return maker.into_lane();
        };
        for entry in batch.entries {
            // The rest is taken as well, unseen: a lister may wait for room.
            if flow.stopped() {
                break;
            }
            match maker.make(entry) {
                Ok(()) => {}
                Err(Fatal::Store(TransferError::Stopped(_))) => break,
                Err(fatal) => flow.fail(fatal.into()),
            }
        }
        if !flow.stopped() {
            flow.ranges.done(batch.ticket);
        }
    }
}
