//! The pipeline: listers > batches > makers, with a checkpoint once a second.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::inventory::{self, InventoryError, Manifest};
use super::listers;
use super::maker::{Fatal, Maker, Shared};
use super::ranges::{Batch, Open, Ranges, Work};
use super::report::Counts;
use crate::store::{Entry, ObjectKey};
use crate::transfer::{Lane, Stop, TransferError, fetch_file};

/// Entries that go to a maker at once.
pub(super) const BATCH: usize = 100;
const CHECKPOINT: Duration = Duration::from_secs(1);
/// Digits of a row number in a range of rows: they sort as text.
const DIGITS: usize = 16;

/// Where the objects are told.
#[derive(Debug)]
pub enum Input {
    /// By listing the bucket.
    List,
    /// By an S3 Inventory, whose data files are in the bucket that the lanes' store is of.
    Inventory(Box<Inventory>),
    /// By a file with a key on each line.
    Keys(PathBuf),
    /// One object.
    One(String),
}

/// An S3 Inventory.
#[derive(Debug)]
pub struct Inventory {
    /// Rows and compressed bytes that were read so far.
    pub read: (AtomicU64, AtomicU64),
    /// What it says of itself.
    pub manifest: Manifest,
    /// To the bucket that has its data files.
    pub lane: Mutex<Lane>,
}

/// What an import needs besides [`Shared`].
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

/// Why an import ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file system or the store.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The listing.
    #[error("can't list the bucket: {0}")]
    List(TransferError),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A data file of the inventory is not what its manifest says.
    #[error("the inventory's data file '{0}' is not what the manifest says: {1}")]
    DataFile(String, String),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of ours.
    #[error("can't {what} '{}': {source}", path.display())]
    Local {
        /// What was tried.
        what: &'static str,
        /// What it was tried with.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// By a signal; a checkpoint is kept.
    #[error("stopped; give the same command again to go on")]
    Stopped,
}

/// One listing of the bucket, or the reading of what stands for one.
#[derive(Debug)]
struct Round {
    open: Vec<Open>,
    way: Way,
    /// What this import had made before the listing began anew: it is there, and is found there once more.
    before: Counts,
}

/// How the keys come.
#[derive(Debug)]
enum Way {
    /// In ranges, on the caller's word that the bucket is listed in order.
    Trusted,
    /// In ranges where the order allows it, nothing being cut yet.
    First,
    /// In the ranges of a former run; the order is looked at beside that.
    Resumed,
    /// By one lister from the beginning to the end, because of that.
    Whole(String),
    /// Not by a listing.
    Told,
}

impl Round {
    fn first(shared: &Shared, input: &Input, former: Option<Checkpoint>, trusted: bool) -> Self {
        let is_list = matches!(input, Input::List);
        let open = match former {
            None => beginning(input),
            Some(former) => {
                if let Some(why) = former.unordered.filter(|_| is_list) {
                    shared.report.note_disorder(&shared.prefix, &why);
                    return Self::whole(why, former.counts);
                }
                shared.report.count(|counts| *counts = former.counts);
                former.open
            }
        };
        let way = match (is_list, trusted) {
            (false, _) => Way::Told,
            (true, true) => Way::Trusted,
            (true, false) if open == [Open::ALL] => Way::First,
            (true, false) => Way::Resumed,
        };
        Self {
            open,
            way,
            before: Counts::default(),
        }
    }

    fn whole(why: String, before: Counts) -> Self {
        Self {
            open: vec![Open::ALL],
            way: Way::Whole(why),
            before,
        }
    }
}

/// What the threads share besides.
pub(super) struct Flow<'a> {
    pub(super) shared: &'a Shared,
    pub(super) ranges: Ranges,
    /// There are others to whom a part could be given.
    pub(super) may_cut: bool,
    before: Counts,
    /// Whoever lists from the first key on goes to the end.
    first: bool,
    batches: Mutex<Receiver<Batch>>,
    failure: Mutex<Option<ImportError>>,
    /// How the listing is not in order.
    disorder: Mutex<Option<String>>,
    /// What was listed in ranges is to be listed in one.
    again: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flow<'_> {
    fn fail(&self, error: ImportError) {
        lock(&self.failure).get_or_insert(error);
        self.shared.control.stop(Stop::Shutdown);
        self.ranges.stop();
    }

    fn stopped(&self) -> bool {
        self.shared.control.stopped().is_some()
    }

    /// The bucket can't be listed in ranges. `true`: nothing is cut yet, and the one listing that there is goes on to the
    /// end; else the round is over.
    pub(super) fn disordered(&self, why: &str) -> bool {
        // First of all: where a checkpoint finds the listing whole, it finds why as well.
        self.note_disorder(why);
        let whole = self.ranges.keep_whole();
        if !whole {
            self.begin_again();
        }
        whole
    }

    /// The same, seen by who lists nothing but a range: the round is over.
    pub(super) fn give_up_ranges(&self, why: &str) {
        self.note_disorder(why);
        self.begin_again();
    }

    fn note_disorder(&self, why: &str) {
        let mut disorder = lock(&self.disorder);
        if disorder.is_none() {
            self.shared.report.note_disorder(&self.shared.prefix, why);
            *disorder = Some(why.to_owned());
        }
    }

    fn begin_again(&self) {
        self.again.store(true, Ordering::Relaxed);
        self.ranges.stop();
    }
}

/// Ends the import when its thread panics: the others would wait for it.
struct Watched<'a>(&'a Flow<'a>);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.shared.control.stop(Stop::Shutdown);
            self.0.ranges.stop();
        }
    }
}

/// The threads' connections.
#[derive(Debug)]
struct Lanes {
    listers: Vec<Lane>,
    makers: Vec<Lane>,
}

/// Where the checkpoint is, and of what.
#[derive(Debug)]
struct Keeper {
    path: Option<PathBuf>,
    command: String,
}

/// Imports everything. `tick` is called once a second with the counters so far.
///
/// # Errors
/// What ended it early; single objects' trouble is in the report.
pub fn run(shared: &Shared, import: Import, tick: &mut dyn FnMut(&Counts)) -> Result<(), ImportError> {
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
    let mut lanes = Lanes { listers, makers };
    let keeper = Keeper {
        path: checkpoint,
        command,
    };
    let mut round = Round::first(shared, &input, former, trust_order);
    loop {
        let (back, again) = go(shared, &input, &round, lanes, &keeper, tick)?;
        let Some(why) = again else {
            break;
        };
        lanes = back;
        let made = if shared.dry_run {
            Counts::default()
        } else {
            round.before.with_made(&shared.report.counts())
        };
        // What made way for a directory is not counted a second time.
        let refused = u64::try_from(lock(&shared.cleared).len()).unwrap_or(u64::MAX);
        shared.report.begin_again(refused);
        round = Round::whole(why, made);
    }
    // What an earlier listing led to is there now, and this import made it.
    shared.report.count(|counts| counts.take_over(&round.before));
    Ok(())
}

/// One round; the lanes, and why there has to be another one.
fn go(
    shared: &Shared,
    input: &Input,
    round: &Round,
    lanes: Lanes,
    keeper: &Keeper,
    tick: &mut dyn FnMut(&Counts),
) -> Result<(Lanes, Option<String>), ImportError> {
    let prefix = match input {
        Input::List => shared.prefix.clone(),
        Input::Inventory(_) | Input::Keys(_) | Input::One(_) => String::new(),
    };
    let (sender, receiver) = sync_channel(lanes.makers.len() * 2);
    let why = match &round.way {
        Way::Whole(why) => Some(why.clone()),
        Way::Trusted | Way::First | Way::Resumed | Way::Told => None,
    };
    let flow = Flow {
        shared,
        ranges: Ranges::new(&prefix, round.open.clone()),
        may_cut: lanes.listers.len() > 1,
        before: round.before,
        first: matches!(round.way, Way::First | Way::Whole(_)),
        batches: Mutex::new(receiver),
        failure: Mutex::default(),
        disorder: Mutex::new(why),
        again: AtomicBool::new(false),
    };
    let prover = prepare(&flow, round, &lanes)?;
    // Before the first file: a run that finds a checkpoint knows that another may have been killed.
    keep(&flow, keeper)?;
    let mut back = Lanes {
        listers: Vec::new(),
        makers: Vec::new(),
    };
    std::thread::scope(|scope| {
        let proving = prover.map(|lane| {
            let (flow, sender) = (&flow, sender.clone());
            scope.spawn(move || {
                let _watched = Watched(flow);
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
                    let _watched = Watched(flow);
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
                    let _watched = Watched(flow);
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

/// Says what may be cut, and gives a lane to whoever looks at the order beside the ranges.
fn prepare(flow: &Flow<'_>, round: &Round, lanes: &Lanes) -> Result<Option<Lane>, ImportError> {
    let first = lanes.listers.first();
    match &round.way {
        Way::Told => Ok(None),
        Way::Trusted => {
            if let Some(lane) = first.filter(|_| round.open == [Open::ALL]) {
                flow.ranges.hold_cuts();
                let places = listers::directories(flow, lane).map_err(ImportError::List)?;
                flow.ranges.allow_cuts(&places);
            }
            Ok(None)
        }
        Way::First => {
            flow.ranges.hold_cuts();
            Ok(None)
        }
        Way::Whole(_) => {
            // It is one range from the beginning on, and is not cut.
            let whole = flow.ranges.keep_whole();
            debug_assert!(whole);
            Ok(None)
        }
        Way::Resumed => {
            let lane = first.map(Lane::another).transpose();
            lane.map_err(|source| ImportError::Local {
                what: "make a thread's",
                path: PathBuf::from("(runtime)"),
                source,
            })
        }
    }
}

fn beginning(input: &Input) -> Vec<Open> {
    let whole = |after, end| Open { after, end };
    match input {
        Input::List | Input::Keys(_) | Input::One(_) => vec![Open::ALL],
        // Rows of each data file are a range of their own.
        Input::Inventory(inventory) => (0..inventory.manifest.files.len())
            .map(|file| whole(Some(format!("{file:08}/")), Some(format!("{file:08}/~"))))
            .collect(),
    }
}

/// The checkpoint: first what it relies on.
fn keep(flow: &Flow<'_>, Keeper { path, command }: &Keeper) -> Result<(), ImportError> {
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

fn tell(flow: &Flow<'_>, input: &Input, lane: &Lane, sender: &SyncSender<Batch>) -> Result<(), ImportError> {
    loop {
        match flow.ranges.claim() {
            Work::Done => return Ok(()),
            Work::List { range, after } => match input {
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
            Work::Probe { range, middle } => match input {
                Input::List => listers::probe(flow, lane, range, &middle).map_err(ImportError::List)?,
                // Rows are in no order of keys.
                Input::Keys(_) | Input::Inventory(_) | Input::One(_) => return Ok(()),
            },
        }
    }
}

/// Rows as a range: their places stand where keys would.
struct Rows<'a> {
    flow: &'a Flow<'a>,
    sender: &'a SyncSender<Batch>,
    range: u64,
    /// Before each row's number.
    name: String,
    /// Rows that a former run has done.
    done: u64,
    row: u64,
    waiting: Vec<Entry>,
}

impl<'a> Rows<'a> {
    fn new(flow: &'a Flow<'a>, sender: &'a SyncSender<Batch>, range: u64, name: String, after: Option<&str>) -> Self {
        let done = after
            .and_then(|after| after.strip_prefix(&name))
            .and_then(|row| row.parse().ok());
        Self {
            flow,
            sender,
            range,
            name,
            done: done.unwrap_or(0),
            row: 0,
            waiting: Vec::new(),
        }
    }

    fn push(&mut self, entry: Entry) -> ControlFlow<()> {
        self.row += 1;
        if self.row <= self.done {
            return ControlFlow::Continue(());
        }
        self.waiting.push(entry);
        if self.waiting.len() >= BATCH && !self.flush(true) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// `false`: nobody takes them any more.
    fn flush(&mut self, more: bool) -> bool {
        let entries = std::mem::take(&mut self.waiting);
        let place = format!("{}{:0DIGITS$}", self.name, self.row);
        let batch = self.flow.ranges.rows(self.range, entries, place, more);
        !self.flow.stopped() && batch.is_none_or(|batch| self.sender.send(batch).is_ok())
    }
}

/// What is known of an object before it was looked at.
fn named(key: &[u8]) -> Entry {
    Entry {
        key: key.to_owned(),
        size: 0,
        etag: None,
        modified: None,
        class: None,
    }
}

fn read_one(flow: &Flow<'_>, key: &str, range: u64, after: Option<String>, sender: &SyncSender<Batch>) {
    let mut rows = Rows::new(flow, sender, range, String::new(), after.as_deref());
    // One that is not pushed is done already.
    let _done = rows.push(named(key.as_bytes()));
    rows.flush(false);
}

fn read_keys(
    flow: &Flow<'_>,
    path: &Path,
    range: u64,
    after: Option<String>,
    sender: &SyncSender<Batch>,
) -> Result<(), ImportError> {
    let failed = |source| ImportError::Local {
        what: "read the keys in",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut rows = Rows::new(flow, sender, range, String::new(), after.as_deref());
    for line in BufReader::new(file).split(b'\n') {
        let key = line.map_err(failed)?;
        let key = key.strip_suffix(b"\r").unwrap_or(&key);
        if key.is_empty() {
            continue;
        }
        if rows.push(named(key)).is_break() {
            return Ok(());
        }
    }
    rows.flush(false);
    Ok(())
}

fn read_rows(
    flow: &Flow<'_>,
    inventory: &Inventory,
    range: u64,
    after: Option<String>,
    sender: &SyncSender<Batch>,
) -> Result<(), ImportError> {
    let Inventory { manifest, lane, .. } = inventory;
    let after = after.unwrap_or_default();
    let number = after
        .split('/')
        .next()
        .and_then(|number| number.parse::<usize>().ok())
        .unwrap_or(0);
    let Some(data) = manifest.files.get(number) else {
        return Ok(());
    };
    let wrong = |what: String| ImportError::DataFile(data.key.clone(), what);
    let file = {
        let lane = lock(lane);
        let key = ObjectKey::new(&data.key).map_err(|error| wrong(error.to_string()))?;
        fetch_file(&lane, &flow.shared.control, flow.shared.archive_id, &key)
            .map_err(|error| wrong(error.to_string()))?
    };
    let size = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
    if size != data.size {
        return Err(wrong(format!("it has {size} bytes, not {}", data.size)));
    }
    if let Some(wanted) = &data.md5 {
        let found = md5_of(&file).map_err(|error| wrong(error.to_string()))?;
        if !found.eq_ignore_ascii_case(wanted) {
            return Err(wrong(format!("its MD5 is {found}, not {wanted}")));
        }
    }
    let mut rows = Rows::new(flow, sender, range, format!("{number:08}/"), Some(&after));
    let mut stopped = false;
    let mut outlook = Outlook::new(inventory, &file, data.size);
    inventory::read(manifest, &data.key, file, &mut |entry| {
        if let Some(expected) = outlook.after_row() {
            flow.shared.report.expect(expected);
        }
        // An inventory is of the whole bucket.
        if !entry.key.starts_with(flow.shared.prefix.as_bytes()) {
            return ControlFlow::Continue(());
        }
        let flow = rows.push(entry);
        stopped |= flow.is_break();
        flow
    })?;
    if let Some(expected) = outlook.after_file() {
        flow.shared.report.expect(expected);
    }
    if !stopped {
        rows.flush(false);
    }
    Ok(())
}

/// How many rows all data files have, by the bytes that those so far took.
struct Outlook<'a> {
    /// Rows and bytes, of all readers.
    read: &'a (AtomicU64, AtomicU64),
    /// Rows that are not among these yet.
    here: u64,
    /// Bytes of this file that are.
    told: u64,
    all: u64,
    size: u64,
    /// Moves with the reader's; Parquet is not read from front to back.
    file: Option<File>,
}

impl<'a> Outlook<'a> {
    fn new(inventory: &'a Inventory, file: &File, size: u64) -> Self {
        let csv = matches!(inventory.manifest.format, inventory::Format::Csv { .. });
        Self {
            read: &inventory.read,
            here: 0,
            told: 0,
            all: inventory.manifest.files.iter().map(|file| file.size).sum(),
            size,
            file: if csv { file.try_clone().ok() } else { None },
        }
    }

    fn after_row(&mut self) -> Option<u64> {
        self.here += 1;
        if !self.here.is_multiple_of(BATCH as u64) {
            return None;
        }
        let position = self.file.as_mut()?.stream_position().ok()?;
        self.tell(position.min(self.size))
    }

    /// At its end.
    fn after_file(&mut self) -> Option<u64> {
        self.tell(self.size)
    }

    fn tell(&mut self, position: u64) -> Option<u64> {
        let rows = self.read.0.fetch_add(self.here, Ordering::Relaxed) + self.here;
        let more = position.saturating_sub(self.told);
        let bytes = self.read.1.fetch_add(more, Ordering::Relaxed) + more;
        (self.here, self.told) = (0, position.max(self.told));
        let expected = u128::from(rows) * u128::from(self.all) / u128::from(bytes).max(1);
        u64::try_from(expected).ok()
    }
}

fn md5_of(file: &File) -> io::Result<String> {
    use md5::Digest as _;
    let mut reader = BufReader::with_capacity(1 << 20, file.try_clone()?);
    let mut sum = md5::Md5::new();
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        sum.update(bytes);
        let n = bytes.len();
        reader.consume(n);
    }
    (&*file).rewind()?;
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes what comes until nothing more does; gives the lane back.
fn make(flow: &Flow<'_>, lane: Lane) -> Lane {
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
