//! Finds out which MDT new sequences are on. The client asks for it once, and that may take until a dead MDT is back.

use std::collections::HashSet;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::action::FileSystem;
use crate::crowd::Crowd;
use crate::guard::guarded;
use crate::mdt::Sequences;
use crate::types::Fid;

/// One that is held up leaves the others.
const THREADS: usize = 4;
/// What could not be told is asked again after that.
const AGAIN: Duration = Duration::from_secs(60);

/// The running threads. Dropping it lets them end; nobody waits for them.
#[derive(Debug)]
pub struct Finder {
    sequences: Sequences,
    to_find: Sender<Fid>,
    asked: Mutex<Asked>,
}

#[derive(Debug)]
struct Asked {
    sequences: HashSet<u64>,
    since: Instant,
}

impl Finder {
    /// Starts them.
    ///
    /// # Errors
    /// A thread could not be made.
    pub fn start(fs: &Arc<dyn FileSystem>) -> std::io::Result<Self> {
        let (to_find, work) = channel::<Fid>();
        let work = Arc::new(Mutex::new(work));
        let mut threads = Crowd::default();
        for n in 0..THREADS {
            let (work, fs) = (Arc::clone(&work), Arc::clone(fs));
            threads.spawn(format!("mdt-finder-{n}"), move || {
                loop {
                    let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
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
            asked: Mutex::new(Asked {
                sequences: HashSet::new(),
                since: Instant::now(),
            }),
        })
    }

    /// Has a file's MDT found out, where that is not known; does not wait. `true`: it is known.
    pub fn find(&self, fid: Fid) -> bool {
        if self.sequences.domain(fid).is_some() {
            return true;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.since.elapsed() > AGAIN {
            asked.sequences.clear();
            asked.since = Instant::now();
        }
        if asked.sequences.insert(fid.seq) {
            // The threads live as long as this does.
            let _gone = self.to_find.send(fid);
        }
        false
    }
}
