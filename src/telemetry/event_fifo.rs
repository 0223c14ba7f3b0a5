//! Events as the reference copytool writes them into a FIFO, one JSON object each, for monitors that sites have.
//!
//! Events without a reader are lost, and nobody waits for one. The format is that of liblustreapi_hsm.c.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::action::{ActionKey, FileSystem, Item, Kind, Verb, Verdict};
use crate::queue::Queue;
use crate::thread::{Supervisor, Thread};
use crate::types::Fid;
use crate::worker::{Ending, Witness};

const MODE: u32 = 0o644;

/// The FIFO; dropping the last one says UNREGISTER and removes it, if it was made here.
#[derive(Debug)]
pub struct EventFifo {
    path: PathBuf,
    made: bool,
    mount: PathBuf,
    archives: usize,
    uuid: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until there is a reader.
    fifo: Option<File>,
    /// Paths and sizes of running actions.
    running: HashMap<ActionKey, (String, u64)>,
}

/// For workers.
#[derive(Debug)]
pub struct FifoWitness(pub Arc<EventFifo>);

impl EventFifo {
    /// Makes the FIFO, or takes one that is there.
    ///
    /// # Errors
    /// Something else is there, or it can't be made.
    pub fn open(path: &Path, mount: &Path, archives: usize, uuid: String) -> io::Result<Self> {
        let made = match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_fifo() => return Err(io::Error::other("it is there and no FIFO")),
            Ok(found) if found.permissions().mode() & 0o777 != MODE => {
                return Err(io::Error::other(format!("it is there with another mode than {MODE:o}")));
            }
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(MODE))?;
                // Whatever the umask is.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
                true
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            made,
            mount: mount.to_owned(),
            archives,
            uuid,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, kind: &str, more: Value) {
        let mut event = Map::new();
        event.insert("event_time".into(), local_time().into());
        event.insert("event_type".into(), kind.into());
        if let Value::Object(more) = more {
            event.extend(more);
        }
        let line = Value::Object(event).to_string();
        let mut state = self.lock();
        if state.fifo.is_none() {
            let mut options = File::options();
            state.fifo = options.write(true).custom_flags(libc::O_NONBLOCK).open(&self.path).ok();
        }
        // At most PIPE_BUF goes whole or not at all.
        if let Some(fifo) = &mut state.fifo
            && line.len() <= libc::PIPE_BUF
            && let Err(error) = fifo.write_all(line.as_bytes())
            && error.raw_os_error() == Some(libc::EPIPE)
        {
            state.fifo = None;
        }
    }

    fn registration(&self, kind: &str) {
        let mount = self.mount.display().to_string();
        self.write(
            kind,
            json!({"archive": self.archives, "mount_point": mount, "uuid": self.uuid}),
        );
    }

    /// The copytool is registered.
    pub fn registered(&self) {
        self.registration("REGISTER");
    }

    /// Something that an administrator should know.
    pub fn message(&self, level: &str, message: &str) {
        self.write("LOGGED_MESSAGE", json!({"level": level, "message": message}));
    }

    fn progress(&self, item: (ActionKey, Fid, Verb), step: &str, path: &str, total: u64, current: Option<u64>) {
        let (key, dfid, verb) = item;
        let mut more = json!({
            "data_fid": dfid.bare(),
            "source_fid": key.fid.bare(),
            "lustre_path": path,
            "total_bytes": total,
        });
        if let (Some(current), Some(more)) = (current, more.as_object_mut()) {
            more.insert("current_bytes".into(), current.into());
        }
        self.write(&format!("{}_{step}", word(verb)), more);
    }

    fn update(&self, queue: &Queue) {
        for running in queue.running() {
            let known = self.lock().running.get(&running.key).cloned();
            if let Some((path, total)) = known {
                let of = (running.key, running.key.fid, running.verb);
                self.progress(of, "RUNNING", &path, total, Some(running.moved()));
            }
        }
    }
}

impl Drop for EventFifo {
    fn drop(&mut self) {
        self.registration("UNREGISTER");
        if self.made
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "the event FIFO stays");
        }
    }
}

const fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Archive => "ARCHIVE",
        Verb::Restore => "RESTORE",
        Verb::Remove => "REMOVE",
    }
}

impl Witness for FifoWitness {
    fn started(&self, fs: &dyn FileSystem, item: &Item) {
        let Kind::Do(verb) = item.kind else {
            return;
        };
        let path = fs
            .path_of(item.fid)
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        let total = fs.size_of(item.fid).unwrap_or(0);
        self.0
            .progress((item.key(), item.dfid, verb), "START", &path, total, None);
        self.0.lock().running.insert(item.key(), (path, total));
    }

    fn ended(&self, _: &dyn FileSystem, ending: &Ending<'_>) {
        let item = ending.item;
        let Kind::Do(verb) = item.kind else {
            return;
        };
        self.0.lock().running.remove(&item.key());
        let mut more = json!({"data_fid": item.dfid.bare(), "source_fid": item.fid.bare()});
        let step = match ending.verdict {
            Verdict::Done => "FINISH",
            Verdict::Cancelled => "CANCEL",
            Verdict::Failed { errno, .. } => {
                if let Some(more) = more.as_object_mut() {
                    more.insert("errno".into(), errno.get().into());
                    let text = ending.reason.map_or_else(|| errno.to_string(), str::to_owned);
                    more.insert("error".into(), text.into());
                }
                "ERROR"
            }
        };
        self.0.write(&format!("{}_{step}", word(verb)), more);
    }
}

/// Says now and then how far running actions are; dropping it ends it.
#[derive(Debug)]
pub struct FifoUpdates {
    thread: Thread,
}

impl FifoUpdates {
    /// Starts it.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn start(
        supervisor: &Supervisor,
        fifo: Arc<EventFifo>,
        queue: Arc<Queue>,
        every: Duration,
    ) -> io::Result<Self> {
        let (stop, stopped): (Sender<()>, _) = channel();
        let thread = supervisor.serve(
            "event-fifo",
            || drop(stop),
            move || {
                while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    fifo.update(&queue);
                }
            },
        )?;
        Ok(Self { thread })
    }

    /// The thread.
    pub const fn thread(&mut self) -> &mut Thread {
        &mut self.thread
    }
}

/// `%Y-%m-%d %T %z`
fn local_time() -> String {
    jiff::ZonedDateTime::now().strftime("%Y-%m-%d %T %z").to_string()
}
