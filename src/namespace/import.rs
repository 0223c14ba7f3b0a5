//! The pipeline: listers > batches > makers, with a checkpoint once a second.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::inventory::{self, InventoryError, Manifest};
use super::maker::{Fatal, Maker, Shared};
use super::ranges::{Batch, Open, Ranges, Work};
use super::report::Counts;
use crate::store::{Entry, ListFrom, ObjectKey, Query};
use crate::transfer::{Lane, Stop, TransferError, fetch_file, list, pages};

/// Entries that go to a maker at once.
const BATCH: usize = 100;
const CHECKPOINT: Duration = Duration::from_secs(1);
/// Of a first look by directories, as places to cut at.
const CUTS: usize = 64;
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
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// By a signal; a checkpoint is kept.
    #[error("stopped; give the same command again to go on")]
    Stopped,
}

/// What the threads share besides.
struct Flow<'a> {
    shared: &'a Shared,
    ranges: Ranges,
    batches: Mutex<Receiver<Batch>>,
    failure: Mutex<Option<ImportError>>,
}

impl Flow<'_> {
    fn fail(&self, error: ImportError) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.shared.control.stop(Stop::Shutdown);
        self.ranges.stop();
    }

    fn stopped(&self) -> bool {
        self.shared.control.stopped().is_some()
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
    } = import;
    let resumed = former.is_some();
    let open = match former {
        Some(former) => {
            shared.report.count(|counts| *counts = former.counts);
            former.open
        }
        None => beginning(&input),
    };
    let prefix = match &input {
        Input::List => shared.prefix.clone(),
        Input::Inventory(_) | Input::Keys(_) | Input::One(_) => String::new(),
    };
    let (sender, receiver) = sync_channel(makers.len() * 2);
    let flow = Flow {
        shared,
        ranges: Ranges::new(&prefix, open),
        batches: Mutex::new(receiver),
        failure: Mutex::default(),
    };
    if matches!(input, Input::List) && !resumed {
        flow.ranges
            .presplit(&directories(shared, &listers).map_err(ImportError::List)?);
    }
    if let Input::Inventory(_) = &input {
        // One lane reads data files.
        listers.truncate(1);
    }
    let input = &input;
    // Before the first file: a run that finds a checkpoint knows that another may have been killed.
    keep(&flow, checkpoint.as_deref(), &command)?;
    std::thread::scope(|scope| {
        let listing: Vec<_> = listers
            .into_iter()
            .map(|lane| {
                let (flow, sender) = (&flow, sender.clone());
                scope.spawn(move || {
                    let _watched = Watched(flow);
                    if let Err(error) = tell(flow, input, &lane, &sender) {
                        flow.fail(error);
                    }
                })
            })
            .collect();
        drop(sender);
        let making: Vec<_> = makers
            .into_iter()
            .map(|lane| {
                let (flow, waiting) = (&flow, std::thread::current());
                scope.spawn(move || {
                    let _watched = Watched(flow);
                    make(flow, lane);
                    waiting.unpark();
                })
            })
            .collect();
        while !making.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::park_timeout(CHECKPOINT);
            if flow.stopped() {
                flow.ranges.stop();
            }
            tick(&shared.report.counts());
            if let Err(error) = keep(&flow, checkpoint.as_deref(), &command) {
                flow.fail(error);
            }
        }
        let panicked = listing
            .into_iter()
            .chain(making)
            .filter_map(|thread| thread.join().err())
            .count();
        assert_eq!(panicked, 0, "a thread of the import panicked");
    });
    keep(&flow, checkpoint.as_deref(), &command)?;
    shared.report.flush();
    if let Some(error) = flow.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    if flow.stopped() {
        return Err(ImportError::Stopped);
    }
    Ok(())
}

fn beginning(input: &Input) -> Vec<Open> {
    let whole = |after, end| Open { after, end };
    match input {
        Input::List | Input::Keys(_) | Input::One(_) => vec![whole(None, None)],
        // Rows of each data file are a range of their own.
        Input::Inventory(inventory) => (0..inventory.manifest.files.len())
            .map(|file| whole(Some(format!("{file:08}/")), Some(format!("{file:08}/~"))))
            .collect(),
    }
}

/// The checkpoint: first what it relies on.
fn keep(flow: &Flow<'_>, path: Option<&Path>, command: &str) -> Result<(), ImportError> {
    let Some(path) = path else {
        return Ok(());
    };
    // In this order: what is counted as done has its lines on disk.
    let open = flow.ranges.open();
    let counts = flow.shared.report.counts();
    flow.shared.finishing.flush().map_err(|source| ImportError::Local {
        what: "write the list of directories beside",
        path: path.to_owned(),
        source,
    })?;
    flow.shared.report.flush();
    Ok(Checkpoint::new(command, flow.shared.began, open, counts).write(path)?)
}

/// Where to cut before anything is known: at directories.
fn directories(shared: &Shared, listers: &[Lane]) -> Result<Vec<String>, TransferError> {
    let Some(lane) = listers.first() else {
        return Ok(Vec::new());
    };
    let page = list(
        lane,
        &shared.control,
        shared.archive_id,
        Query {
            by_directory: true,
            ..Query::below(&shared.prefix, &ListFrom::Start)
        },
    )?;
    let step = page.prefixes.len().div_ceil(CUTS).max(1);
    Ok(page.prefixes.into_iter().step_by(step).collect())
}

fn tell(flow: &Flow<'_>, input: &Input, lane: &Lane, sender: &SyncSender<Batch>) -> Result<(), ImportError> {
    loop {
        match flow.ranges.claim() {
            Work::Done => return Ok(()),
            Work::List { range, after } => match input {
                Input::List => list_range(flow, lane, range, after, sender).map_err(ImportError::List)?,
                Input::Keys(path) => read_keys(flow, path, range, after, sender)?,
                Input::One(key) => read_one(flow, key, range, after, sender),
                Input::Inventory(inventory) => read_rows(flow, inventory, range, after, sender)?,
            },
            Work::Probe { range, middle } => match input {
                Input::List => probe(flow, lane, range, &middle).map_err(ImportError::List)?,
                // Rows are in no order of keys.
                Input::Keys(_) | Input::Inventory(_) | Input::One(_) => return Ok(()),
            },
        }
    }
}

fn list_range(
    flow: &Flow<'_>,
    lane: &Lane,
    range: u64,
    after: Option<String>,
    sender: &SyncSender<Batch>,
) -> Result<(), TransferError> {
    let from = after.map_or(ListFrom::Start, ListFrom::After);
    let Flow { shared, ranges, .. } = flow;
    let query = Query::below(&shared.prefix, &from);
    let listed = pages(lane, &shared.control, shared.archive_id, query, |page| {
        let (batches, more) = ranges.listed(range, page.entries, page.next.is_some(), BATCH);
        match send(sender, batches) && more {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    match listed {
        Err(TransferError::Stopped(_)) => Ok(()),
        listed => listed,
    }
}

/// `false`: nobody takes them any more.
fn send(sender: &SyncSender<Batch>, batches: Vec<Batch>) -> bool {
    batches.into_iter().all(|batch| sender.send(batch).is_ok())
}

fn probe(flow: &Flow<'_>, lane: &Lane, range: u64, middle: &str) -> Result<(), TransferError> {
    let behind = ListFrom::After(middle.to_owned());
    let query = Query {
        limit: 1,
        ..Query::below(&flow.shared.prefix, &behind)
    };
    let mut found = None;
    // Some stores give empty pages before the end.
    let probed = pages(lane, &flow.shared.control, flow.shared.archive_id, query, |page| {
        found = page.entries.into_iter().next().map(|entry| entry.key);
        match found {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    });
    match probed {
        Err(TransferError::Stopped(_)) => return Ok(()),
        probed => probed?,
    }
    let found = found.as_deref().map(String::from_utf8_lossy);
    // A store that does not look behind a key can't be listed in parts.
    if found.as_deref().is_none_or(|found| found > middle) {
        flow.ranges.cut(range, middle, found.as_deref());
    }
    Ok(())
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
        let lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
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

fn make(flow: &Flow<'_>, lane: Lane) {
    let maker = Maker::new(flow.shared, lane);
    loop {
        let next = flow.batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else {
            return;
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
