//! What stands for a listing: an inventory, a list of keys, or one of them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::SyncSender;

use super::flow::{BATCH, ImportError, ImportRun, lock};
use super::inventory::{self, Manifest};
use super::outlook::RowEstimate;
use crate::ranges::{Batch, OpenRange};
use crate::store::{Entry, ObjectKey};
use crate::transfer::Lane;

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

/// What is to be read, nothing of it being done.
pub(super) fn beginning(input: &Input) -> Vec<OpenRange> {
    let whole = |after, end| OpenRange { after, end };
    match input {
        Input::List | Input::Keys(_) | Input::One(_) => vec![OpenRange::ALL],
        // Rows of each data file are a range of their own.
        Input::Inventory(inventory) => (0..inventory.manifest.files.len())
            .map(|file| whole(Some(format!("{file:08}/")), Some(format!("{file:08}/~"))))
            .collect(),
    }
}

/// Rows as a range: their places stand where keys would.
struct InventoryRows<'a> {
    flow: &'a ImportRun<'a>,
    sender: &'a SyncSender<Batch>,
    range: u64,
    /// Before each row's number.
    name: String,
    /// Rows that a former run has done.
    done: u64,
    row: u64,
    waiting: Vec<Entry>,
}

impl<'a> InventoryRows<'a> {
    fn new(
        flow: &'a ImportRun<'a>,
        sender: &'a SyncSender<Batch>,
        range: u64,
        name: String,
        after: Option<&str>,
    ) -> Self {
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

pub(super) fn read_one(flow: &ImportRun<'_>, key: &str, range: u64, after: Option<String>, sender: &SyncSender<Batch>) {
    let mut rows = InventoryRows::new(flow, sender, range, String::new(), after.as_deref());
    // One that is not pushed is done already.
    let _done = rows.push(named(key.as_bytes()));
    rows.flush(false);
}

pub(super) fn read_keys(
    flow: &ImportRun<'_>,
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
    let mut rows = InventoryRows::new(flow, sender, range, String::new(), after.as_deref());
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

pub(super) fn read_rows(
    flow: &ImportRun<'_>,
    inventory: &Inventory,
    range: u64,
    after: Option<String>,
    sender: &SyncSender<Batch>,
) -> Result<(), ImportError> {
    let Inventory { read, manifest, lane } = inventory;
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
        flow.shared
            .transfer(&lane)
            .fetch_file(key.at(flow.shared.archive_id))
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
    let mut rows = InventoryRows::new(flow, sender, range, format!("{number:08}/"), Some(&after));
    let mut stopped = false;
    let mut outlook = RowEstimate::new(read, manifest, &file, data.size);
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
