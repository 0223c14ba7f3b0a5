//! Events as the reference copytool writes them into a FIFO, one JSON object each, for monitors that sites have.
//!
//! Events without a reader are lost, and nobody waits for one. The format is that of liblustreapi_hsm.c, one line each:
//! its fields in its order, with a space behind each colon and comma.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::action::{ActionKey, FileSystem, Item, Kind, Verb, Verdict};
use crate::queue::Queue;
use crate::thread::{Supervisor, Thread};
use crate::types::Fid;
use crate::worker::{ActionEnd, Observer};

const MODE: u32 = 0o644;

/// The FIFO; dropping the last one says UNREGISTER and removes it, if it was made here.
#[derive(Debug)]
pub struct EventFifo {
    path: PathBuf,
    made: bool,
    mount: PathBuf,
    archives: usize,
    uuid: String,
    state: Mutex<FifoState>,
}

#[derive(Debug, Default)]
struct FifoState {
    /// `None` until there is a reader.
    fifo: Option<File>,
    /// Paths and sizes of running actions.
    running: HashMap<ActionKey, (String, u64)>,
}

/// For workers.
#[derive(Debug)]
pub struct FifoObserver(pub Arc<EventFifo>);

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

    fn lock(&self) -> MutexGuard<'_, FifoState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, kind: &str, more: &[Field]) {
        let line = line(&local_time(), kind, more);
        let mut state = self.lock();
        if state.fifo.is_none() {
            let mut options = File::options();
            state.fifo = options.write(true).custom_flags(libc::O_NONBLOCK).open(&self.path).ok();
        }
        // At most PIPE_BUF goes whole or not at all.
        if let Some(fifo) = &mut state.fifo
            && line.len() <= libc::PIPE_BUF
            && let Err(error) = fifo.write_all(line.as_bytes())
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            state.fifo = None;
        }
    }

    fn registration(&self, kind: &str) {
        let mount = self.mount.display().to_string();
        self.write(
            kind,
            &[
                ("archive", self.archives.into()),
                ("mount_point", mount.into()),
                ("uuid", self.uuid.as_str().into()),
            ],
        );
    }

    /// The copytool is registered.
    pub fn registered(&self) {
        self.registration("REGISTER");
    }

    /// Something that an administrator should know.
    pub fn message(&self, level: &str, message: &str) {
        self.write(
            "LOGGED_MESSAGE",
            &[("level", level.into()), ("message", message.into())],
        );
    }

    fn progress(&self, item: (ActionKey, Fid, Verb), step: &str, path: &str, total: u64, current: Option<u64>) {
        let (key, dfid, verb) = item;
        let mut more: Vec<Field> = Vec::with_capacity(5);
        if let Some(current) = current {
            more.push(("current_bytes", current.into()));
        }
        more.push(("total_bytes", total.into()));
        more.push(("lustre_path", path.into()));
        more.extend(fids(key.fid, dfid));
        self.write(&format!("{}_{step}", word(verb)), &more);
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

impl Observer for FifoObserver {
    fn started(&self, fs: &dyn FileSystem, item: &Item) {
        let Kind::Do(verb) = item.kind else {
            return;
        };
        let path = fs
            .path_of(item.fid)
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        let total = fs.size_of(item.fid).unwrap_or(0);
        let of = (item.key(), item.dfid, verb);
        self.0.progress(of, "START", &path, total, None);
        // The reference reports that it begins before it has copied anything.
        if verb != Verb::Remove {
            self.0.progress(of, "RUNNING", &path, total, Some(0));
        }
        self.0.lock().running.insert(item.key(), (path, total));
    }

    fn ended(&self, _: &dyn FileSystem, ending: &ActionEnd<'_>) {
        let item = ending.item;
        let Kind::Do(verb) = item.kind else {
            return;
        };
        self.0.lock().running.remove(&item.key());
        let mut more: Vec<Field> = Vec::with_capacity(4);
        let step = match ending.verdict {
            Verdict::Done => "FINISH",
            Verdict::Cancelled => "CANCEL",
            Verdict::Failed { errno, .. } => {
                let text = || nix::errno::Errno::from_raw(errno.get()).desc();
                more.push(("error", ending.reason.unwrap_or_else(text).into()));
                more.push(("errno", errno.get().into()));
                "ERROR"
            }
        };
        more.extend(fids(item.fid, item.dfid));
        self.0.write(&format!("{}_{step}", word(verb)), &more);
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

/// A name and its value, in the order in which they are written.
type Field = (&'static str, Value);

fn fids(source: Fid, data: Fid) -> [Field; 2] {
    [("source_fid", source.bare().into()), ("data_fid", data.bare().into())]
}

/// One event with the end of its line, as readers of lines want it.
fn line(time: &str, kind: &str, more: &[Field]) -> String {
    let first: [Field; 2] = [("event_time", time.into()), ("event_type", kind.into())];
    let fields: Vec<String> = first
        .iter()
        .chain(more)
        .map(|(name, value): &Field| format!("\"{name}\": {value}"))
        .collect();
    format!("{{{}}}\n", fields.join(", "))
}

/// `%Y-%m-%d %T %z`
fn local_time() -> String {
    jiff::ZonedDateTime::now().strftime("%Y-%m-%d %T %z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_with_the_references_fields_in_its_order() {
        let fid = Fid {
            seq: 0x2_0000_13a1,
            oid: 2,
            ver: 0,
        };
        let mut more: Vec<Field> = vec![
            ("current_bytes", 5_242_880.into()),
            ("total_bytes", 39_000_000.into()),
            ("lustre_path", "d71/f \"71\"".into()),
        ];
        more.extend(fids(fid, fid));
        assert_eq!(
            line("2014-02-26 14:50:18 -0500", "ARCHIVE_RUNNING", &more),
            "{\"event_time\": \"2014-02-26 14:50:18 -0500\", \"event_type\": \"ARCHIVE_RUNNING\", \
             \"current_bytes\": 5242880, \"total_bytes\": 39000000, \"lustre_path\": \"d71/f \\\"71\\\"\", \
             \"source_fid\": \"0x2000013a1:0x2:0x0\", \"data_fid\": \"0x2000013a1:0x2:0x0\"}\n"
        );
    }
}
