//! Finds out which MDT new sequences are on. The client asks for it once, and that may take until a dead MDT is back.

use std::collections::HashSet;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::action::FileSystem;
use crate::thread::{Supervisor, Threads, guarded};
use crate::types::{Fid, Sequences};

/// One that is held up leaves the others.
const THREADS: usize = 4;
/// What could not be told is asked again after that.
const AGAIN: Duration = Duration::from_secs(60);

/// The running threads.
#[derive(Debug)]
pub struct MdtFinder {
    sequences: Sequences,
    to_find: Inlet,
    asked: Mutex<AskedSequences>,
    threads: Mutex<Threads>,
}

/// `None` after the end.
type Inlet = Arc<Mutex<Option<Sender<Fid>>>>;

#[derive(Debug)]
struct AskedSequences {
    sequences: HashSet<u64>,
    since: Instant,
}

impl MdtFinder {
    /// Starts them.
    ///
    /// # Errors
    /// A thread could not be made.
    pub fn start(supervisor: &Supervisor, fs: &Arc<dyn FileSystem>) -> std::io::Result<Self> {
        let (to_find, work) = channel::<Fid>();
        let (to_find, work) = (Arc::new(Mutex::new(Some(to_find))), Arc::new(Mutex::new(work)));
        let closing = Arc::clone(&to_find);
        let mut threads = Threads::new(move || drop(lock(&closing).take()));
        for n in 0..THREADS {
            let (work, fs) = (Arc::clone(&work), Arc::clone(fs));
            threads.add(supervisor, format!("mdt-finder-{n}"), move || {
                loop {
                    let next = lock(&work).recv();
                    let Ok(fid) = next else {
                        return;
                    };
                    drop(guarded(|| fs.find_mdt(fid)));
                }
            })?;
        }
        Ok(Self {
            sequences: fs.sequences(),
            to_find,
            asked: Mutex::new(AskedSequences {
                sequences: HashSet::new(),
                since: Instant::now(),
            }),
            threads: Mutex::new(threads),
        })
    }

    /// Has a file's MDT found out, where that is not known; does not wait. `true`: it is known.
    pub fn find(&self, fid: Fid) -> bool {
        if self.sequences.domain(fid).is_some() {
            return true;
        }
        let mut asked = lock(&self.asked);
        if asked.since.elapsed() > AGAIN {
            asked.sequences.clear();
            asked.since = Instant::now();
        }
        if asked.sequences.insert(fid.seq)
            && let Some(to_find) = &*lock(&self.to_find)
        {
            // The threads are there until it is closed.
            let _gone = to_find.send(fid);
        }
        false
    }

    /// Nothing is found out any more; waits for the threads until the deadline. `false`: an MDT holds some.
    pub fn finish(&self, deadline: Instant) -> bool {
        lock(&self.threads).join(deadline)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
