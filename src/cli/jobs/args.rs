//! What a bulk job is told, and the job that this is.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::cli::ExitWith;
use crate::cli::session::open_mount;
use crate::config::Settings;
use crate::jobs::{self, FileFilter, HsmFilter, JobSpec};
use crate::lustre::{Identify, UserAction};
use crate::types::{ArchiveId, Timestamp};

/// Which files, and how.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Files and directories of one Lustre
    #[arg(value_name = "PATH", required_unless_present = "from_file")]
    paths: Vec<PathBuf>,
    /// The files named in FILE, one on each line, in this order; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "paths")]
    from_file: Option<PathBuf>,
    /// Names in FILE end with NUL (find -print0)
    #[arg(short = '0', long = "null", requires = "from_file")]
    nul: bool,
    /// The archive to use (default: the file's own, else the coordinator's default)
    #[arg(long, short = 'A', value_name = "N", value_parser = archive_id)]
    archive_id: Option<ArchiveId>,
    /// Only files that match one of these globs: of names, or with a slash of paths below the mount point
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No files that match one of these globs
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Only files of at least this size
    #[arg(long, value_name = "SIZE")]
    min_size: Option<bytesize::ByteSize>,
    /// Only files of at most this size
    #[arg(long, value_name = "SIZE")]
    max_size: Option<bytesize::ByteSize>,
    /// Only files that were not changed for that long (30d)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Only files that were changed since then (1d)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
    /// Only files that were neither read nor changed, copied here or brought back for that long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    unread_for: Option<Duration>,
    /// Only this user's files (name or number)
    #[arg(long, value_name = "USER", value_parser = user)]
    owner: Option<u32>,
    /// Only this group's files (name or number)
    #[arg(long, value_name = "GROUP", value_parser = group)]
    group: Option<u32>,
    /// Only files in one of these states
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<HsmFilter>,
    /// Only files whose copy is in this archive
    #[arg(long, value_name = "N", value_parser = archive_id)]
    in_archive: Option<ArchiveId>,
    /// At most so many files are asked for and not done
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    window: u32,
    /// Calls at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Ask for nothing; count
    #[arg(long, conflicts_with = "detach")]
    pub(super) dry_run: bool,
    /// Say the job's name and go on without a terminal
    #[arg(long)]
    pub(super) detach: bool,
    /// Wait for the end (the default)
    #[arg(long, conflicts_with = "detach")]
    wait: bool,
    /// One line of JSON at the end
    #[arg(long)]
    pub(super) json: bool,
}

fn archive_id(text: &str) -> Result<ArchiveId, String> {
    let number = text.parse().map_err(|_| "give a number from 1".to_owned())?;
    ArchiveId::new(number).ok_or_else(|| "archive ids begin with 1".into())
}

fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(format!("no user '{text}'")),
    }
}

fn group(text: &str) -> Result<u32, String> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(format!("no group '{text}'")),
    }
}

pub(super) fn usage(message: impl Into<String>) -> Failure {
    ExitWith::usage(message.into()).into()
}

/// The job in full: absolute names, moments instead of ages.
pub(super) fn spec(
    args: &JobArgs,
    action: UserAction,
    settings: &Settings,
    directory: &Path,
) -> Result<JobSpec, Failure> {
    std::fs::create_dir_all(directory).map_err(|error| format!("can't make '{}': {error}", directory.display()))?;
    let id = jobs::new_id(action);
    let mut roots = Vec::new();
    for path in &args.paths {
        let parent = |path: &Path| -> std::io::Result<PathBuf> {
            // A symlink is itself, not what it points to; what leads to it is.
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) if path.symlink_metadata()?.is_symlink() => {
                    let parent = if parent.as_os_str().is_empty() {
                        Path::new(".")
                    } else {
                        parent
                    };
                    Ok(parent.canonicalize()?.join(name))
                }
                _ => path.canonicalize(),
            }
        };
        roots.push(parent(path).map_err(|error| usage(format!("'{}': {error}", path.display())))?);
    }
    roots.sort();
    roots.dedup_by(|later, earlier| later.starts_with(&*earlier));
    let list = args
        .from_file
        .as_deref()
        .map(|from| copy_list(from, args.nul, directory, &id))
        .transpose()?;
    let inside = match (&list, roots.first()) {
        (Some((_, first)), _) => first.clone().ok_or_else(|| usage("the list names no file"))?,
        (None, Some(root)) => root.clone(),
        (None, None) => return Err(usage("no path")),
    };
    let inside = if inside.is_dir() {
        inside
    } else {
        inside.parent().map(Path::to_owned).unwrap_or_default()
    };
    let mount = open_mount(settings, &inside, Identify::Find)?;
    if let Some(other) = roots.iter().find(|root| !root.starts_with(mount.path())) {
        return Err(usage(format!(
            "'{}' is not in '{}'",
            other.display(),
            mount.path().display()
        )));
    }
    let now = Timestamp::now().seconds;
    let ago =
        |time: Option<Duration>| time.map(|time| now.saturating_sub(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)));
    Ok(JobSpec {
        id,
        action,
        archive_id: args.archive_id,
        mount: mount.path().to_owned(),
        roots,
        list: list.map(|(path, _)| path),
        nul: args.nul,
        select: FileFilter {
            include: args.include.clone(),
            exclude: args.exclude.clone(),
            min_size: args.min_size.map(|size| size.as_u64()),
            max_size: args.max_size.map(|size| size.as_u64()),
            modified_before: ago(args.older_than),
            modified_since: ago(args.newer_than),
            accessed_before: ago(args.unread_for),
            uid: args.owner,
            gid: args.group,
            states: args.state.clone(),
            in_archive: args.in_archive,
        },
        window: usize::try_from(args.window)?,
        threads: usize::from(args.threads),
        dry_run: args.dry_run,
        created: now,
        taken_over: false,
    })
}

/// The list as the job keeps it, with absolute names: standard input is gone when it is resumed. And its first name.
pub(super) fn copy_list(
    from: &Path,
    nul: bool,
    directory: &Path,
    id: &str,
) -> Result<(PathBuf, Option<PathBuf>), Failure> {
    let input: Box<dyn std::io::Read> = if from == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(from);
        Box::new(opened.map_err(|error| usage(format!("can't read '{}': {error}", from.display())))?)
    };
    let here = std::env::current_dir()?;
    let to = directory.join(format!("{id}.list"));
    let mut output = BufWriter::new(std::fs::File::create(&to)?);
    let end = if nul { 0 } else { b'\n' };
    let mut first = None;
    for name in BufReader::new(input).split(end) {
        let name = name?;
        if name.is_empty() {
            continue;
        }
        let name = here.join(std::ffi::OsString::from_vec(name));
        output.write_all(name.as_os_str().as_bytes())?;
        output.write_all(&[end])?;
        first.get_or_insert(name);
    }
    output.flush()?;
    Ok((to, first))
}
