//! Our side: the daemon's queue, worker threads, transfer and store, over files in a directory instead of
//! a Lustre. In a process of its own, so that all of its time and memory counts.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lhsmtool_s3::action::{
    ActionHandle, ActionKey, CopyState, Deletions, FileSystem, HsmError, Item, Kind, Verb, Verdict,
};

use lhsmtool_s3::journal::Journal;
use lhsmtool_s3::queue::Queue;
use lhsmtool_s3::store::{Checksum, Location, ObjectKey, Target, Targets};
use lhsmtool_s3::thread::Supervisor;
use lhsmtool_s3::transfer::Stop;
use lhsmtool_s3::types::{ArchiveId, Cookie, Extent, ExtraMetadata, Fid, Sequences};
use lhsmtool_s3::worker::{Context, Forgotten, Observers, OnForgotten, PoolSize, Responder, Tally, WorkerPool};

use crate::sink;

/// What one process does.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) verb: Verb,
    pub(crate) files: usize,
    pub(crate) size: u64,
    /// End after so long, whatever is done.
    pub(crate) at_most: Duration,
    pub(crate) settings: PathBuf,
    pub(crate) dir: PathBuf,
}

/// A directory in the place of Lustre: file N is FID N.
#[derive(Debug)]
struct Directory {
    dir: PathBuf,
    archive: Verb,
    record: Vec<u8>,
    maps: Mutex<HashMap<Fid, Vec<u8>>>,
}

impl Directory {
    fn path(&self, fid: Fid) -> PathBuf {
        self.dir.join(name(fid.oid as usize))
    }
}

pub(crate) fn name(n: usize) -> String {
    format!("f{n:06}")
}

impl FileSystem for Directory {
    fn name(&self) -> &str {
        "bench"
    }
    fn path_of(&self, fid: Fid) -> Result<PathBuf, HsmError> {
        Ok(name(fid.oid as usize).into())
    }
    fn imported_until(&self) -> Result<Option<i64>, HsmError> {
        Ok(None)
    }
    fn map(&self, fid: Fid) -> Result<Option<Vec<u8>>, HsmError> {
        if self.archive == Verb::Restore {
            return Ok(Some(self.record.clone()));
        }
        Ok(self.maps.lock().unwrap().get(&fid).cloned())
    }
    fn set_map(&self, fid: Fid, record: &[u8]) -> Result<(), HsmError> {
        self.maps.lock().unwrap().insert(fid, record.to_vec());
        Ok(())
    }
    fn clear_map(&self, fid: Fid) -> Result<(), HsmError> {
        self.maps.lock().unwrap().remove(&fid);
        Ok(())
    }
    fn announce_deletion(&self, _: Fid, _: u64, _: &[u8]) -> Result<(), HsmError> {
        Ok(())
    }
    fn withdraw_deletion(&self, _: Fid, _: u64) -> Result<(), HsmError> {
        Ok(())
    }
    fn note_deletion(&self, _: Fid, _: &[u8]) -> Result<(), HsmError> {
        Ok(())
    }
    fn deletions(&self, _: Fid) -> Result<Deletions, HsmError> {
        Ok(Deletions::default())
    }
    fn note_restored(&self, _: Fid) -> Result<(), HsmError> {
        Ok(())
    }
    fn is_released(&self, _: Fid) -> Result<bool, HsmError> {
        Ok(false)
    }
    fn is_archived(&self, _: Fid) -> Result<bool, HsmError> {
        Ok(false)
    }
    fn copy_state(&self, _: Fid) -> Result<CopyState, HsmError> {
        Ok(CopyState::default())
    }
    fn has_archive(&self, _: Fid) -> Result<bool, HsmError> {
        Ok(false)
    }
    fn prepare_archive(&self, _: Fid, _: Option<ArchiveId>) -> Result<CopyState, HsmError> {
        Ok(CopyState::default())
    }
    fn ask_again(&self, _: Fid, _: Option<ArchiveId>) -> Result<bool, HsmError> {
        Ok(false)
    }
    fn extras(&self, _: Fid, _: &File) -> Result<ExtraMetadata, HsmError> {
        Ok(ExtraMetadata::default())
    }

    fn size_of(&self, _: Fid) -> Result<u64, HsmError> {
        Err(HsmError::new("lstat", libc::ENOENT))
    }

    fn is_unlinked(&self, _: Fid) -> Result<bool, HsmError> {
        Ok(false)
    }

    fn data_version(&self, _: &File) -> Option<u64> {
        None
    }
    fn revoke(&self, _: Fid) -> Result<(), HsmError> {
        Ok(())
    }
    fn progress(&self, _: ActionKey, _: Extent) -> Result<(), HsmError> {
        Ok(())
    }
}

#[derive(Debug)]
struct FakeAction {
    item: Item,
    path: PathBuf,
    ended: Sender<Option<Verdict>>,
    verdict: Option<Verdict>,
}

impl ActionHandle for FakeAction {
    fn item(&self) -> &Item {
        &self.item
    }
    fn begin(&mut self, _: Option<&[u8]>) -> Result<Option<File>, HsmError> {
        let opened = match self.item.kind {
            Kind::Do(Verb::Archive) => File::open(&self.path),
            _ => OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&self.path),
        };
        opened.map(Some).map_err(|error| HsmError::io("open", &error))
    }
    fn finish(mut self: Box<Self>, verdict: Verdict, _: u64) -> Result<(), HsmError> {
        self.verdict = Some(verdict);
        Ok(())
    }
    fn renew(&mut self) {}
    fn disown(self: Box<Self>) {}
}

/// Also where a worker panicked.
impl Drop for FakeAction {
    fn drop(&mut self) {
        // At a given time nobody counts any more.
        let _gone = self.ended.send(self.verdict);
    }
}

fn fid(n: usize) -> Fid {
    Fid {
        seq: 0x2_0000_0401,
        oid: u32::try_from(n).unwrap(),
        ver: 0,
    }
}

/// The checksum of what the sink serves as an object of that size.
fn served_checksum(size: u64) -> Checksum {
    let bytes = sink::pattern();
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    let mut left = size;
    while left > 0 {
        let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        digest.update(&bytes[..n]);
        left -= n as u64;
    }
    Checksum(digest.finalize())
}

/// Does it; prints seconds, files done and the peak of resident memory.
pub(crate) fn run(task: &Task) {
    let text = std::fs::read_to_string(&task.settings).unwrap();
    let settings = lhsmtool_s3::config::parse(&text, None).unwrap();
    lhsmtool_s3::telemetry::init("warn", settings.log_format);
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let target = control.block_on(Target::resolve(settings.targets[0].clone())).unwrap();
    let archive_id = ArchiveId::new(1).unwrap();
    // The sum is made by the caller once for all processes, outside of what is measured.
    let sum = std::env::var("BENCH_SUM").ok().and_then(|text| text.parse().ok());
    let record = Location {
        archive_id,
        key: ObjectKey::new(format!("object-{}", task.size)).unwrap(),
        size: task.size,
        etag: "\"00000000000000000000000000000000\"".into(),
        version: None,
        checksum: sum.map(Checksum),
        pinned: false,
        layout: None,
        sidecar: None,
        written_for: None,
        writer: None,
        cookie: None,
        data_version: None,
    };
    let fs = Arc::new(Directory {
        dir: task.dir.clone(),
        archive: task.verb,
        record: record.to_bytes(),
        maps: Mutex::default(),
    });
    let queue = Arc::new(Queue::default());
    let tally = Arc::new(Tally::default());
    let supervisor = Supervisor::default();
    let responder = Arc::new(Responder::new(&supervisor, Sequences::default(), 1, &tally));
    // A new one for each run: what a former run had in hand is not gone on with.
    let state = tempfile::tempdir_in(task.settings.parent().unwrap()).unwrap();
    let context = Context {
        journal: Arc::new(Journal::open(&supervisor, state.path(), "bench", &task.dir)),
        fs: Arc::clone(&fs) as Arc<dyn FileSystem>,
        tally,
        observers: Observers::default(),
        forgotten: Arc::new(Forgotten::new(OnForgotten::Log, Duration::from_secs(1))),
        warrant: None,
        others_copies: None,
    };
    let pool = WorkerPool::start(
        &supervisor,
        PoolSize {
            threads: settings.threads,
            for_restores: 0,
        },
        &queue,
        &responder,
        &context,
        &Targets::new(vec![Arc::new(target)]),
        settings.transfer,
    )
    .unwrap();
    let (ended, ends) = channel();
    let start = Instant::now();
    for n in 0..task.files {
        let item = Item {
            kind: Kind::Do(task.verb),
            fid: fid(n),
            dfid: fid(n),
            cookie: Cookie(1 + n as u64),
            archive_id: Some(archive_id),
            extent: Extent {
                offset: 0,
                length: u64::MAX,
            },
            gid: 0,
            blocking: false,
            data: Box::default(),
        };
        let path = fs.path(item.fid);
        let handle = FakeAction {
            item,
            path,
            ended: ended.clone(),
            verdict: None,
        };
        queue.admit(Box::new(handle), Instant::now() + FOREVER);
    }
    let mut done = 0;
    while done < task.files {
        let left = (start + task.at_most).saturating_duration_since(Instant::now());
        match ends.recv_timeout(left) {
            Ok(verdict) => assert_eq!(verdict, Some(Verdict::Done)),
            Err(_) => break,
        }
        done += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    if done < task.files {
        drop(queue.take_all_waiting());
        queue.stop_running(Stop::Shutdown);
        assert!(queue.wait_idle(Instant::now() + Duration::from_secs(60)));
    }
    let until = Instant::now() + Duration::from_secs(60);
    assert!(pool.join(until) && responder.finish(until));
    println!("{seconds} {done} {}", peak_rss());
}

pub(crate) const FOREVER: Duration = Duration::from_secs(3600);

/// Bytes.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

pub(crate) fn sum_of(size: u64) -> String {
    served_checksum(size).0.to_string()
}
