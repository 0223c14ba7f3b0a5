//! Names for FIDs, where a mover's mount is mounted here, too.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::report::Report;
use crate::action::FileSystem as _;
use crate::lustre::{Identify, Library, Mount};
use crate::thread::Supervisor;
use crate::types::Fid;

/// For all names of a report: a file system that hangs shows FIDs.
const PATIENCE: Duration = Duration::from_millis(500);
const KEPT: usize = 1000;

type Ask = (String, Fid);

/// What is known by now.
pub(super) struct Paths {
    asked: HashMap<Ask, Option<String>>,
    to_lustre: Option<Sender<Ask>>,
    answers: Receiver<(Ask, String)>,
}

impl Paths {
    pub(super) fn new(library: &Path) -> Self {
        let (to_lustre, asked) = channel::<Ask>();
        let (to_us, answers) = channel();
        let library = library.to_owned();
        // It may hang in a call until the process ends.
        let thread = Supervisor::default().errand("paths", move || {
            let mut mounts: HashMap<String, Option<Mount>> = HashMap::new();
            for (mount, fid) in asked {
                let opened = mounts.entry(mount.clone()).or_insert_with(|| open(&library, &mount));
                let path = opened.as_ref().and_then(|opened| opened.path_of(fid).ok());
                if let Some(path) = path
                    && to_us.send(((mount, fid), path.display().to_string())).is_err()
                {
                    return;
                }
            }
        });
        Self {
            asked: HashMap::new(),
            to_lustre: thread.ok().map(|_| to_lustre),
            answers,
        }
    }

    /// Adds names where they come in time.
    pub(super) fn fill(&mut self, report: &mut Report) {
        let mut waits_for = 0usize;
        if self.asked.len() > KEPT {
            self.asked.clear();
        }
        for (_, mover) in report.answered() {
            for running in &mover.longest {
                let Ok(fid) = running.fid.parse() else {
                    continue;
                };
                let ask = (mover.mount.clone(), fid);
                if self.asked.contains_key(&ask) {
                    continue;
                }
                if let Some(to_lustre) = &self.to_lustre
                    && to_lustre.send(ask.clone()).is_ok()
                {
                    self.asked.insert(ask, None);
                    waits_for += 1;
                }
            }
        }
        let until = Instant::now() + PATIENCE;
        while waits_for > 0
            && let Ok((ask, path)) = self
                .answers
                .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.asked.insert(ask, Some(path));
            waits_for -= 1;
        }
        for (_, mover) in &mut report.movers {
            let Ok(mover) = mover else {
                continue;
            };
            for running in &mut mover.longest {
                let ask = running.fid.parse().ok().map(|fid| (mover.mount.clone(), fid));
                running.path = ask.and_then(|ask| self.asked.get(&ask).cloned().flatten());
            }
        }
    }
}

fn open(library: &Path, mount: &str) -> Option<Mount> {
    let path = PathBuf::from(mount);
    if !path.join(".lustre/fid").is_dir() {
        return None;
    }
    Mount::open(Library::open(library).ok()?, &path, Identify::Find).ok()
}
