use std::sync::atomic::{AtomicBool, Ordering};

use super::tables::{aside, file_name, with_tables};
use super::*;
use crate::action::{Kind, Verb};
use crate::database::StorageBackend;
use crate::store::ObjectKey;
use crate::types::{ArchiveId, Cookie, Extent};

const FID: Fid = Fid {
    seq: 0x2_0000_0401,
    oid: 9,
    ver: 0,
};

fn location() -> Location {
    Location {
        archive_id: ArchiveId::new(1).unwrap(),
        key: ObjectKey::new("a/b").unwrap(),
        size: 7,
        etag: "\"e\"".into(),
        version: None,
        checksum: None,
        pinned: false,
        layout: None,
        sidecar: None,
        written_for: None,
        writer: None,
        cookie: None,
        data_version: None,
    }
}

fn open_in(dir: &Path) -> Journal {
    Journal::open(&Supervisor::default(), dir, "lustre", Path::new("/mnt/lustre"))
}

#[test]
fn a_copy_is_remembered_across_restarts_and_forgotten_when_told() {
    let dir = tempfile::tempdir().unwrap();
    open_in(dir.path()).remember(FID, &location());
    let journal = open_in(dir.path());
    assert_eq!(journal.find(FID), Some(location()));
    journal.forget(FID);
    assert_eq!(journal.find(FID), None);
}

#[test]
fn a_damaged_journal_is_set_aside_and_the_daemon_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file_name("lustre", Path::new("/mnt/lustre")));
    std::fs::write(&path, vec![0xee; 100_000]).unwrap();
    let journal = open_in(dir.path());
    journal.remember(FID, &location());
    assert_eq!(journal.find(FID), Some(location()));
    assert_eq!(std::fs::read(aside(&path)).unwrap(), vec![0xee; 100_000]);
}

fn action(oid: u32) -> ActionKey {
    ActionKey {
        cookie: Cookie(7),
        fid: Fid { oid, ..FID },
    }
}

fn single() -> UploadRecord {
    UploadRecord::single(location().archive_id, &location().key, crate::store::WriterId::random())
}

#[test]
fn no_place_for_a_journal_is_no_reason_not_to_serve() {
    let journal = open_in(Path::new("/proc/nonexistent"));
    journal.remember(FID, &location());
    assert_eq!(journal.find(FID), None);
}

#[test]
fn what_is_owed_is_counted_by_archive_and_only_a_journal_that_can_be_written_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open_in(dir.path());
    assert!(journal.keeps());
    for (oid, verb, id) in [
        (1, Verb::Restore, 1),
        (2, Verb::Archive, 1),
        (3, Verb::Restore, 5),
        (4, Verb::Restore, 5),
    ] {
        journal.admitted(&Item {
            kind: Kind::Do(verb),
            fid: action(oid).fid,
            dfid: action(oid).fid,
            cookie: action(oid).cookie,
            archive_id: ArchiveId::new(id),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        });
    }
    journal.ended(action(4));
    journal.finish(Instant::now() + Duration::from_secs(60));
    let owed = |id, actions, restores| OwedActions {
        archive_id: ArchiveId::new(id),
        actions,
        restores,
    };
    assert_eq!(journal.owed(), [owed(1, 2, 1), owed(5, 1, 1)]);
    let nowhere = open_in(Path::new("/proc/nonexistent"));
    assert!(!nowhere.keeps() && nowhere.owed().is_empty());
}

/// A disk that can be full.
#[derive(Debug)]
struct Disk {
    file: redb::backends::FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }
}

/// On a disk that is full when it is said.
fn open_on(path: PathBuf, full: &Arc<AtomicBool>) -> Journal {
    let (file, is_full) = (path.clone(), Arc::clone(full));
    let open = move || -> Result<Database, DiskError> {
        let mut options = std::fs::File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)?;
        let file = redb::backends::FileBackend::new(file)?;
        let full = Arc::clone(&is_full);
        Ok(with_tables(Database::create_on(Disk { file, full })?)?)
    };
    Journal::start(&Supervisor::default(), path, Box::new(open))
}

fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "it did not come");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_loses_nothing_and_the_journal_is_written_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file_name("lustre", Path::new("/mnt/lustre")));
    let full = Arc::new(AtomicBool::new(false));
    let journal = open_on(path, &full);
    journal.remember(FID, &location());
    until(|| journal.unwritten() == 0);
    full.store(true, Ordering::SeqCst);
    let other = Fid { oid: 10, ..FID };
    journal.remember(other, &location());
    until(|| journal.is_broken());
    // It waits in memory, for as long as that is.
    assert_eq!(journal.find(other), Some(location()));
    assert_eq!(journal.unwritten(), 1);
    full.store(false, Ordering::SeqCst);
    until(|| !journal.is_broken() && journal.unwritten() == 0);
    journal.forget(FID);
    drop(journal);
    let journal = open_in(dir.path());
    assert_eq!(journal.find(other), Some(location()));
    assert_eq!(journal.find(FID), None);
}

/// What a process leaves that is killed before the next transaction.
fn killed(dir: &Path) -> (tempfile::TempDir, Journal) {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "redb") {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let journal = open_in(copy.path());
    assert_eq!(journal.unfinished(), []);
    (copy, journal)
}

#[test]
fn what_an_archive_is_about_to_write_is_known_to_a_successor_at_once_and_until_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let journal = open_on(dir.path().join(file_name("lustre", Path::new("/mnt/lustre"))), &full);
    // There is no next transaction.
    full.store(true, Ordering::SeqCst);
    let (first, second, upload) = (action(1), action(2), single());
    journal.uploading(first, &upload);
    let (_copy, successor) = killed(dir.path());
    assert_eq!(successor.orphans(Duration::ZERO), [first]);
    assert_eq!(successor.upload_of(first).unwrap().0, upload);
    // The answer alone settles nothing.
    journal.ended(first);
    assert_eq!(journal.upload_of(first).unwrap().0, upload);
    journal.settled(first, true);
    assert_eq!(journal.upload_of(first), None);
    journal.uploading(second, &upload);
    let (_copy, successor) = killed(dir.path());
    assert_eq!(successor.orphans(Duration::ZERO), [second]);
}

#[test]
fn what_is_left_of_an_archive_is_taken_away_once_and_nobody_goes_on_with_it_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open_in(dir.path());
    let key = action(1);
    journal.uploading(key, &single());
    journal.ended(key);
    journal.settled(key, false);
    assert_eq!(journal.orphans(Duration::ZERO), [key]);
    assert!(journal.sweeping(key) && !journal.sweeping(key));
    assert!(!journal.may_have_upload(key));
    journal.left(key);
    assert!(journal.may_have_upload(key) && journal.sweeping(key));
    // Begun anew under the same cookie.
    let anew = single();
    journal.uploading(key, &anew);
    journal.cleaned(key);
    assert_eq!(journal.upload_of(key).unwrap().0, anew);
    journal.ended(key);
    journal.settled(key, true);
    drop(journal);
    let journal = open_in(dir.path());
    assert_eq!(journal.unfinished(), []);
    assert_eq!(journal.orphans(Duration::ZERO), []);
}

#[test]
fn what_is_finished_is_on_disk_whoever_still_has_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open_in(dir.path()));
    let held = Arc::clone(&journal);
    journal.remember(FID, &location());
    journal.finish(Instant::now() + Duration::from_secs(60));
    assert_eq!(journal.unwritten(), 0);
    // Such as a thread that comes back when the daemon has ended: it neither waits nor fails.
    held.forget(FID);
    drop((journal, held));
    assert_eq!(open_in(dir.path()).find(FID), Some(location()));
}
