//! Readers on a client that lives: each reads a released file, waits for its data as long as that takes, and says how long it
//! was and what it found.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use lhsm_sandbox::Client;
use lhsm_sandbox::protocol::{Action, Fid, RequestInfo};

use crate::files::Expected;

/// More would leave the others few files to work on.
const AT_ONCE: usize = 6;
/// A reader that waits for longer is given up.
const HANGS: Duration = Duration::from_secs(300);

/// What came of one read.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) file: Expected,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) found: Found,
}

#[derive(Debug)]
pub(crate) enum Found {
    /// The bytes that were written last.
    Right,
    Wrong,
    Failed(Failure),
}

/// A read that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: String,
    /// The restore that it waited for, as the coordinator had it right then.
    pub(crate) restore: Option<RequestInfo>,
    /// Somebody asked for its cancel.
    pub(crate) is_cancelled: bool,
    /// When its copytool had got it.
    pub(crate) delivered: Option<Instant>,
}

/// All that read, each on a thread of its own.
#[derive(Debug)]
pub(crate) struct Readers {
    mount: PathBuf,
    /// Whether a read of a released file waits for it; else it is asked for.
    waits: bool,
    tell: Sender<Told>,
    told: Receiver<Told>,
    under_way: HashMap<Fid, Instant>,
}

impl Readers {
    pub(crate) fn new(mount: &Path, waits: bool) -> Self {
        let (tell, told) = channel();
        Self {
            mount: mount.to_owned(),
            waits,
            tell,
            told,
            under_way: HashMap::new(),
        }
    }

    pub(crate) fn have_room(&self) -> bool {
        self.under_way.len() < AT_ONCE
    }

    /// Whether somebody reads a file: it must stay what it is meanwhile.
    pub(crate) fn are_at(&self, fid: Fid) -> bool {
        self.under_way.contains_key(&fid)
    }

    /// Reads a file that is released.
    pub(crate) fn begin(&mut self, file: &Expected) -> io::Result<()> {
        let (mount, waits, tell, file) = (self.mount.clone(), self.waits, self.tell.clone(), file.clone());
        let (fid, began) = (file.fid, Instant::now());
        std::thread::Builder::new().name("reader".into()).spawn(move || {
            let read = read(&mount, waits, &file);
            let ended = Instant::now();
            let found = match read {
                Ok(true) => Found::Right,
                Ok(false) => Found::Wrong,
                Err(error) => Found::Failed(failure(&mount, fid, &error)),
            };
            // The run may be over.
            let _over = tell.send(Told {
                file,
                began,
                ended,
                found,
            });
        })?;
        self.under_way.insert(fid, began);
        Ok(())
    }

    /// One that has ended, if any does in that time.
    pub(crate) fn ended(&mut self, limit: Duration) -> Option<Told> {
        let told = self.told.recv_timeout(limit).ok()?;
        self.under_way.remove(&told.file.fid);
        Some(told)
    }

    /// What is read now, since when.
    pub(crate) fn under_way(&self) -> Vec<(Fid, Instant)> {
        self.under_way.iter().map(|(fid, since)| (*fid, *since)).collect()
    }
}

/// Whether the bytes are right.
fn read(mount: &Path, waits: bool, file: &Expected) -> io::Result<bool> {
    // Whatever its name is by now.
    let path = mount.join(".lustre/fid").join(file.fid.to_string());
    if !waits {
        let mut client = Client::new(mount)?;
        client.request(Action::Restore, 0, &[file.fid])?;
        if !client.wait(&[file.fid], HANGS)? {
            return Err(io::Error::other("its restore does not end"));
        }
        if file.is_released(&mut client)? {
            return Err(io::Error::other("its restore ended without its data"));
        }
    }
    Ok(std::fs::read(path)? == file.content())
}

fn failure(mount: &Path, fid: Fid, error: &io::Error) -> Failure {
    let mut failure = Failure {
        error: error.to_string(),
        restore: None,
        is_cancelled: false,
        delivered: None,
    };
    let actions = match Client::new(mount).and_then(|mut client| client.actions()) {
        Ok(actions) => actions,
        Err(error) => {
            failure.error += &format!("; and the coordinator does not say why: {error}");
            return failure;
        }
    };
    let now = Instant::now();
    let restore = actions
        .iter()
        .rfind(|action| action.action == Action::Restore && action.fid == fid);
    if let Some(restore) = restore {
        failure.is_cancelled = actions
            .iter()
            .any(|action| action.action == Action::Cancel && action.fid == fid && action.cookie == restore.cookie);
        let ago = restore.delivered_ms.map(Duration::from_millis);
        failure.delivered = ago.and_then(|ago| now.checked_sub(ago));
        failure.restore = Some(restore.clone());
    }
    failure
}
