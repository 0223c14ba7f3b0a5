//! A job that the ledger is told of: begun here, gone on with here, or taken over from another node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Failure;
use super::args::copy_list;
use super::far::{PATIENCE, ago};
use super::owner::JobOwners;
use crate::action::FileSystem as _;
use crate::cli::session::open_mount;
use crate::config::Settings;
use crate::jobs::{self, JobSpec, Ledger, LedgerError, Summary};
use crate::ledger::{JobBook, JobNotice, JobRow, JobState, JobTakeError, JobTeller, LedgerOptions};
use crate::lustre::{Identify, Mount};
use crate::telemetry::host;
use crate::transfer::{Control, Stop};

/// For the last word about a job.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Of another node's job, as of any.
const MOST_WINDOW: usize = 1_000_000;
const MOST_THREADS: usize = 256;

/// How the ledger knows this process.
#[derive(Debug)]
pub(super) struct Sharing {
    number: i64,
    /// The processes before it, where the ledger could not be asked who has the job.
    unclaimed: Option<Vec<i64>>,
}

/// Where a job of another node finds here what it needs.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) mount: Option<&'a Path>,
    pub(super) from_file: Option<&'a Path>,
}

impl Sharing {
    /// Of a new job; `None`: there is no ledger.
    pub(super) fn begin(spec: &JobSpec, settings: &Settings, directory: &Path) -> Result<Option<Self>, Failure> {
        if settings.ledger.is_none() {
            return Ok(None);
        }
        let (number, _) = JobOwners::add(directory, &spec.id)?;
        Ok(Some(Self {
            number,
            unclaimed: None,
        }))
    }

    /// Of a job that this node has begun, or taken over before: another one may have it by now.
    ///
    /// # Errors
    /// Another one is at it.
    pub(super) fn reclaim(spec: &mut JobSpec, settings: &Settings, directory: &Path) -> Result<Option<Self>, Failure> {
        let Some(options) = &settings.ledger else {
            return Ok(None);
        };
        let mount = open_mount(settings, &spec.mount, Identify::Find)?;
        // Before the ledger hears of it: whatever happens then, the row is this node's.
        let (number, known) = JobOwners::add(directory, &spec.id)?;
        let notice = notice(spec, options, &mount, number)?;
        let taken = JobBook::new(options, PATIENCE)?.take_over(&notice, &known, &mut watching);
        let unclaimed = match taken {
            Ok(former) => {
                spec.taken_over |= former.is_some_and(|row| !known.contains(&row.owner));
                None
            }
            Err(JobTakeError::Ledger(error)) => {
                tracing::warn!(
                    job = spec.id,
                    %error,
                    "whether another node has taken the job over can't be known now: if one has, this run stops when the ledger is back"
                );
                Some(known)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Self { number, unclaimed }))
    }

    /// Tells of the job from now on, and stops it when others want that.
    pub(super) fn start(
        self,
        spec: &JobSpec,
        settings: &Settings,
        mount: &Mount,
        control: &Arc<Control>,
    ) -> Result<Option<JobTeller>, Failure> {
        let Some(options) = &settings.ledger else {
            return Ok(None);
        };
        let notice = notice(spec, options, mount, self.number)?;
        let control = Arc::clone(control);
        let stop = move || control.stop(Stop::Shutdown);
        Ok(Some(JobTeller::start(options, notice, self.unclaimed, stop)?))
    }
}

fn notice(spec: &JobSpec, options: &LedgerOptions, mount: &Mount, owner: i64) -> Result<JobNotice, Failure> {
    let node = host();
    let mover = options.name.clone();
    Ok(JobNotice {
        id: spec.id.clone(),
        owner,
        mover: mover.unwrap_or_else(|| format!("{node}:{}", mount.path().display())),
        node,
        file_system: mount.name().to_owned(),
        spec: serde_json::to_string(spec)?,
        list: spec.list.clone(),
    })
}

fn watching(row: &JobRow, left: Duration) {
    errln!(
        "node '{}' told of job '{}' {} ago: watching for {:.0} s whether it is still at it",
        row.node,
        row.id,
        ago(row.age),
        left.as_secs_f64()
    );
}

/// Says how a job ended.
pub(super) fn end(teller: JobTeller, id: &str, state: JobState, summary: Option<&Summary>) {
    let told = summary.and_then(|summary| serde_json::to_string(summary).ok());
    if !teller.finish(state, told, Instant::now() + LAST_WORD) {
        tracing::warn!(
            job = id,
            "the ledger is away, and was not told how the job ended: to other nodes it is silent until `lhsmtool-s3 jobs list` \
             has run on this one"
        );
    }
}

/// Takes a job over that another node began.
///
/// # Errors
/// There is none, it runs, or what it needs is not here.
pub(super) fn adopt(
    job: &str,
    settings: &Settings,
    directory: &Path,
    given: &Given<'_>,
) -> Result<(Ledger, JobSpec, Option<Sharing>), Failure> {
    let none = || LedgerError::None {
        id: job.to_owned(),
        directory: directory.to_owned(),
    };
    let Some(options) = settings.ledger.as_ref().filter(|_| jobs::is_name(job)) else {
        return Err(none().into());
    };
    let mut book = JobBook::new(options, PATIENCE)?;
    let (Some(row), Some(kept)) = (book.find(job)?, book.kept(job)?) else {
        return Err(none().into());
    };
    let node = &row.node;
    let Some(text) = kept.spec else {
        return Err(format!("what job '{job}' is to do is too long for the ledger: resume it on node '{node}'").into());
    };
    let spec: JobSpec = serde_json::from_str(&text).map_err(|error| {
        format!("the ledger has job '{job}' in words of another release ({error}): resume it on node '{node}'")
    })?;
    let place = given.mount.unwrap_or(&spec.mount);
    let mount = open_mount(settings, place, Identify::Find).map_err(|error| {
        format!(
            "{error}. On node '{node}' the file system is mounted at '{}'; if that is another place here, name it: --mount MOUNT",
            spec.mount.display()
        )
    })?;
    let former = spec.mount.clone();
    let spec = moved(spec, job, mount.path(), directory);
    if let Some(other) = spec.roots.iter().find(|root| !root.starts_with(mount.path())) {
        return Err(format!(
            "job '{job}' is about '{}', which is not in '{}'. Where the file system is mounted elsewhere here, name that: --mount MOUNT",
            other.display(),
            mount.path().display()
        )
        .into());
    }
    std::fs::create_dir_all(directory).map_err(|error| format!("can't make '{}': {error}", directory.display()))?;
    if let Some(list) = &spec.list {
        match (given.from_file, kept.names) {
            (Some(file), _) => drop(copy_list(file, spec.nul, directory, job)?),
            (None, Some(names)) => std::fs::write(list, moved_names(&names, spec.nul, &former, mount.path()))?,
            (None, None) => {
                return Err(format!(
                    "the names of job '{job}' are on node '{node}' only, in jobs/{job}.list of its `state_dir`: resume it there, or \
                     bring that file here and name it: --from-file FILE"
                )
                .into());
            }
        }
    }
    let (number, _) = JobOwners::add(directory, job)?;
    let begun = notice(&spec, options, &mount, number).and_then(|notice| {
        book.take_over(&notice, &[], &mut watching)?;
        Ok(())
    });
    let ledger = begun.and_then(|()| Ok(Ledger::create(directory, &spec)?));
    match ledger {
        Ok(ledger) => {
            let unclaimed = None;
            Ok((ledger, spec, Some(Sharing { number, unclaimed })))
        }
        Err(error) => {
            // It may have been taken already.
            if let Err(error) = book.settle((job, number), &[JobState::Running], JobState::Stopped, None) {
                tracing::warn!(job, %error, "the ledger has the job as this node's");
            }
            JobOwners::forget(directory, job);
            if let Some(list) = &spec.list {
                let _left = std::fs::remove_file(list);
            }
            Err(error)
        }
    }
}

/// The same job as it is on this node.
fn moved(mut spec: JobSpec, job: &str, mount: &Path, directory: &Path) -> JobSpec {
    let former = std::mem::replace(&mut spec.mount, mount.to_owned());
    for root in &mut spec.roots {
        *root = moved_path(root, &former, mount);
    }
    spec.list = spec.list.map(|_| directory.join(format!("{job}.list")));
    job.clone_into(&mut spec.id);
    // As the command line has it: the row may be anybody's.
    spec.window = spec.window.clamp(1, MOST_WINDOW);
    spec.threads = spec.threads.clamp(1, MOST_THREADS);
    spec.dry_run = false;
    spec.taken_over = true;
    spec
}

fn moved_path(path: &Path, former: &Path, mount: &Path) -> PathBuf {
    match path.strip_prefix(former) {
        // A slash behind the mount point would be another path.
        Ok(below) if below.as_os_str().is_empty() => mount.to_owned(),
        Ok(below) => mount.join(below),
        Err(_) => path.to_owned(),
    }
}

fn moved_names(names: &[u8], nul: bool, former: &Path, mount: &Path) -> Vec<u8> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let end = if nul { 0 } else { b'\n' };
    let mut all = Vec::with_capacity(names.len());
    for name in names.split(|byte| *byte == end).filter(|name| !name.is_empty()) {
        let name = moved_path(Path::new(OsStr::from_bytes(name)), former, mount);
        all.extend_from_slice(name.as_os_str().as_bytes());
        all.push(end);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_a_mount_point_go_below_another_one_and_others_stay() {
        let (former, mount) = (Path::new("/mnt/lustre"), Path::new("/l"));
        let moved = |path: &str| moved_path(Path::new(path), former, mount).display().to_string();
        assert_eq!(moved("/mnt/lustre"), "/l");
        assert_eq!(moved("/mnt/lustre/a/b"), "/l/a/b");
        assert_eq!(moved("/mnt/lustre2/a"), "/mnt/lustre2/a");
        let names = moved_names(b"/mnt/lustre/new\nline\0/elsewhere\0", true, former, mount);
        assert_eq!(names, b"/l/new\nline\0/elsewhere\0");
        assert_eq!(moved_names(b"/mnt/lustre/a\n", false, former, mount), b"/l/a\n");
    }
}
