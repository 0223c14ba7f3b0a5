//! `lhsmtool-s3 export --follow`: the bucket follows the file system by its changelogs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::ExitWith;
use super::export::ExportArgs;
use super::session::{lanes, open_mount, runtime, stopped_by_signals};
use crate::config::Settings;
use crate::fleet::Fleet;
use crate::follow::{FollowCounts, FollowOptions, Propagate, Users, is_reader};
use crate::lustre::Identify;
use crate::store::Target;

/// Between two lines of the log.
const SAY: Duration = Duration::from_secs(60);

/// How to follow.
#[derive(Debug, Args)]
pub struct FollowArgs {
    /// Archive what is changed from now on, as the changelogs tell it, and keep directories and symlinks up to date.
    /// DIR is the mount point
    #[arg(long, requires = "changelog_user")]
    follow: bool,
    /// The name that `lctl changelog_register` printed; where it is not the same on each MDS, MDT=NAME for each
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "follow")]
    changelog_user: Option<Vec<String>>,
    /// A shell command that registers a reader on the MDT $MDT and prints its name, for an MDT that dropped ours (by
    /// default lctl, which can where the MDT is mounted): ssh mds lctl --device $MDT changelog_register -n
    #[arg(long, value_name = "COMMAND", requires = "follow")]
    register_reader: Option<String>,
    /// A reader without news shows itself to its MDT at least so often: less than mdd.*.changelog_max_idle_time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration, requires = "follow")]
    acknowledge: Duration,
    /// How long nothing happened to a file before it is archived
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, requires = "follow")]
    quiet: Duration,
    /// What the bucket follows beside data
    #[arg(long, value_name = "WHAT", value_delimiter = ',', requires = "follow")]
    propagate: Vec<Followed>,
    /// End when everything that has happened by now is dealt with; for a timer
    #[arg(long, requires = "follow")]
    once: bool,
    /// At most so many files are asked for and not archived
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), requires = "follow")]
    window: u32,
}

/// What can be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Followed {
    /// Objects of files that are gone are deleted
    Delete,
    /// Objects of renamed files get the new key
    Rename,
    /// Objects of files whose owner, permissions, times or attributes changed get new metadata
    Attr,
}

type Failure = Box<dyn std::error::Error>;

impl FollowArgs {
    pub(super) const fn is_wanted(&self) -> bool {
        self.follow
    }

    pub(super) const fn goes_on(&self) -> bool {
        self.follow && !self.once
    }
}

pub(super) fn run(export: &ExportArgs, args: &FollowArgs, settings: &Settings) -> Result<(), Failure> {
    let options = export.target(settings)?;
    let directory = export.directory()?;
    let mount = open_mount(settings, &directory, Identify::Make)?;
    if mount.path() != directory {
        return Err(ExitWith::usage(format!(
            "a changelog is of a whole file system: name its mount point, '{}'",
            mount.path().display()
        ))
        .into());
    }
    let runtime = runtime()?;
    let target = Arc::new(runtime.block_on(Target::resolve(options.clone()))?);
    let control = stopped_by_signals(&runtime);
    let lanes = lanes(&[target], settings, export.threads(settings))?;
    let wants = |what| args.propagate.contains(&what);
    let mut users = Users::default();
    for user in args.changelog_user.iter().flatten() {
        match user.split_once('=') {
            Some((mdt, name)) => drop(users.each.insert(mdt.to_owned(), name.to_owned())),
            None => users.all = Some(user.clone()),
        }
    }
    if let Some(wrong) = users.each.values().chain(&users.all).find(|name| !is_reader(name)) {
        return Err(ExitWith::usage(format!(
            "'{wrong}' is no reader of a changelog: --changelog-user takes the name that lctl changelog_register printed, cl1 say"
        ))
        .into());
    }
    let fleet = Fleet::new(settings.movers.clone());
    let follow = FollowOptions {
        mount: &mount,
        users: &users,
        register: args.register_reader.as_deref(),
        acknowledge: args.acknowledge,
        archive_id: options.archive_id,
        lanes: &lanes,
        state_dir: &settings.state_dir,
        quiet: if args.once { Duration::ZERO } else { args.quiet },
        propagate: Propagate {
            delete: wants(Followed::Delete),
            rename: wants(Followed::Rename),
            attributes: wants(Followed::Attr),
        },
        window: usize::try_from(args.window)?,
        once: args.once,
        fleet: &fleet,
        control: &control,
    };
    tracing::info!(mount = %mount.path().display(), archive = options.archive_id.get(), "following the changelogs");
    let (mut said, mut last) = (Instant::now(), FollowCounts::default());
    let counts = follow.run(&mut |counts| {
        if said.elapsed() >= SAY && *counts != last {
            (said, last) = (Instant::now(), *counts);
            tracing::info!(?counts, "so far");
        }
    })?;
    if export.json() {
        outln!("{}", serde_json::json!(counts));
    } else {
        outln!(
            "{} records: {} files archived, {} directories and symlinks written, {} objects moved, {} restated, {} deleted; \
             {} failed, {} not dealt with",
            counts.records,
            counts.archived,
            counts.nodes,
            counts.moved,
            counts.restated,
            counts.deleted,
            counts.failed,
            counts.pending
        );
    }
    match (counts.failed, counts.unread) {
        (0, 0) => Ok(()),
        (0, n) => Err(ExitWith::failed(format!(
            "the changelogs of {n} MDTs were not read to their ends; the log says which and why"
        ))
        .into()),
        (n, _) => Err(ExitWith::failed(format!("{n} files were given up; the log says why")).into()),
    }
}
