//! The metadata server with its coordinator: one lock over the state, a dispatcher thread that writes
//! to the agents' pipes outside of it, a thread for each connection, one for readers that wait.

mod actions;
mod changelog;
mod crew;
mod dispatch;
mod faults;
mod namespace;
mod nodes;
mod readers;
mod serve;
mod state;
mod wire;
mod xattr;

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lhsm_sandbox_protocol::{SOCKET, ctime, links};

use self::state::State;

/// How a sandbox starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that is the mount point; made if missing.
    pub mount: PathBuf,
    /// File system name.
    pub fsname: String,
    /// Actions at copytools at a time; Lustre's default is 3.
    pub max_requests: usize,
    /// Between two looks at what waits; Lustre's is 1 s.
    pub tick: Duration,
    /// Whether reading a released file restores it (needs root). `None`: where possible.
    pub restore_on_read: Option<bool>,
    /// MDTs, each with a coordinator that can be stopped; files are on the first but below `lfs mkdir -i`.
    pub mdts: u32,
    /// As a client of 2.10: archive ids are bits, 1 to 32.
    pub archive_bits: bool,
    /// As a client of 2.17.52 and later: a descriptor of the mount registers once, a second time is EEXIST without the
    /// MDT being asked, and closing it unregisters the mount.
    pub start_once: bool,
}

impl Options {
    /// The defaults for a mount point: Lustre's, but for more requests at a time and a quicker tick.
    #[must_use]
    pub fn new(mount: &Path) -> Self {
        Self {
            mount: mount.to_owned(),
            fsname: "lustre".into(),
            max_requests: 1000,
            tick: Duration::from_millis(10),
            restore_on_read: None,
            mdts: 1,
            archive_bits: false,
            start_once: false,
        }
    }
}

/// A running sandbox; dropping it ends it.
#[derive(Debug)]
pub struct Mdt {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    listener: UnixListener,
    restores_on_read: bool,
}

#[derive(Debug)]
struct Shared {
    mount: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, or for `limit`.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

impl Mdt {
    /// Starts one.
    ///
    /// # Errors
    /// The directory can't be used, or waiting readers were demanded and can't be had.
    pub fn start(options: Options) -> io::Result<Self> {
        for dir in [".lustre/fid", ".lustre/volatile", ctime::CTIMES, links::LINKS] {
            std::fs::create_dir_all(options.mount.join(dir))?;
        }
        let mount = options.mount.canonicalize()?;
        faults::mark_io(&mount, false).map_err(io::Error::from_raw_os_error)?;
        let listener = lhsm_sandbox_protocol::listen(&mount)?;
        let own = listener.try_clone()?;
        let shared = Arc::new(Shared {
            mount: mount.clone(),
            state: Mutex::new(State::new(&Options {
                mount,
                ..options.clone()
            })),
            changed: Condvar::new(),
        });
        let mut threads = vec![dispatch::start(Arc::clone(&shared))?];
        threads.push(serve::start(Arc::clone(&shared), listener)?);
        let restores_on_read = match options.restore_on_read {
            Some(false) => false,
            wanted => match readers::start(&shared) {
                Ok(thread) => {
                    threads.push(thread);
                    true
                }
                Err(error) if wanted == Some(true) => return Err(error),
                Err(_) => false,
            },
        };
        Ok(Self {
            shared,
            threads,
            listener: own,
            restores_on_read,
        })
    }

    /// Whether reading a released file restores it.
    #[must_use]
    pub const fn restores_on_read(&self) -> bool {
        self.restores_on_read
    }

    /// Waits until somebody asked it to stop.
    pub fn wait_stopped(&self) {
        let mut state = self.shared.lock();
        while !state.stopping {
            state = self.shared.wait(state, Duration::from_secs(3600));
        }
    }
}

impl Drop for Mdt {
    fn drop(&mut self) {
        self.shared.lock().stop();
        self.shared.changed.notify_all();
        // Wakes the listener, wherever its socket's file is by now.
        if let Err(error) = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both) {
            eprintln!("sandbox: {error}");
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("sandbox: a thread panicked");
            }
        }
        // The directory may be gone already.
        let _gone = std::fs::remove_file(self.shared.mount.join(SOCKET));
    }
}
