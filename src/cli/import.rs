//! `lhsmtool-s3 import` and `rebuild`: a bucket becomes a namespace of released files.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;

use super::bucket::Bucket;
use super::progress::Progress;
use super::{Site, SitePlan};
use crate::action::HsmError;
use crate::config::Settings;
use crate::import::{
    self, Checkpoint, Counts, Defaults, Filter, Finishing, Import, Input, MetadataFrom, OnConflict, Outcome, Paths,
    Report, Shared, Tree, TreePath,
};
use crate::lustre::{Identify, Importing};
use crate::store::{ListFrom, ObjectKey, Query};
use crate::transfer::{head, list};
use crate::types::Timestamp;

/// What to import, where to, and how.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// s3://BUCKET/PREFIX: what lies below PREFIX/ is imported
    #[arg(value_name = "S3-URL")]
    from: Bucket,
    /// A directory of a mounted Lustre, made if it is not there; or the name of a file, for one object
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// The archive id that the files get (default: those of the archive section with that bucket)
    #[arg(long, value_name = "N")]
    archive_id: Option<u32>,
    /// Where owners, modes and times come from
    #[arg(long, value_enum, default_value = "list")]
    metadata: MetadataFrom,
    /// What happens where something is in an object's place
    #[arg(long, value_enum, default_value = "fail")]
    on_conflict: OnConflict,
    /// With --on-conflict refresh: delete files of this bucket whose objects are gone
    #[arg(long)]
    delete: bool,
    /// Replace and delete also files with data that is in no archive
    #[arg(long)]
    force: bool,
    /// Permissions of files whose objects tell none, octal
    #[arg(long, value_name = "MODE", default_value = "644", value_parser = octal)]
    file_mode: u32,
    /// Permissions of directories whose objects tell none, octal
    #[arg(long, value_name = "MODE", default_value = "755", value_parser = octal)]
    dir_mode: u32,
    /// Owner of files whose objects tell none
    #[arg(long, value_name = "UID", default_value_t = 0)]
    uid: u32,
    /// Group of files whose objects tell none
    #[arg(long, value_name = "GID", default_value_t = 0)]
    gid: u32,
    /// Take setuid, setgid and sticky bits from objects
    #[arg(long)]
    allow_setid: bool,
    /// Make symlinks that lead out of DIR
    #[arg(long)]
    outside_links: bool,
    /// Only paths that match one of these globs (below PREFIX/; `*` stops at a slash, `**` does not)
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No paths that match one of these globs
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Only objects of at least this size
    #[arg(long, value_name = "SIZE")]
    min_size: Option<bytesize::ByteSize>,
    /// Only objects of at most this size
    #[arg(long, value_name = "SIZE")]
    max_size: Option<bytesize::ByteSize>,
    /// Only objects written since then (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    newer_than: Option<i64>,
    /// Only objects written until then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    older_than: Option<i64>,
    /// The part I of N of the objects, I from 1: for job arrays
    #[arg(long, value_name = "I/N", value_parser = shard, default_value = "1/1")]
    shard: (u64, u64),
    /// An S3 Inventory instead of a listing: the URL of its manifest.json
    #[arg(long, value_name = "S3-URL", conflicts_with = "keys_from")]
    inventory: Option<Bucket>,
    /// The keys in this file, one on each line, instead of a listing
    #[arg(long, value_name = "FILE")]
    keys_from: Option<PathBuf>,
    /// Make nothing; count
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// What to re-create, where.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// s3://BUCKET/PREFIX: as the lost file system archived to
    #[arg(value_name = "S3-URL")]
    from: Bucket,
    /// The mount point of the new file system, or a directory in it
    #[arg(value_name = "MOUNT")]
    to: PathBuf,
    /// The archive id that the files get (default: those of the archive section with that bucket)
    #[arg(long, value_name = "N")]
    archive_id: Option<u32>,
    /// What happens where something is in a file's place
    #[arg(long, value_enum, default_value = "fail")]
    on_conflict: OnConflict,
    /// Make nothing; count
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// How it runs.
#[derive(Debug, Args)]
struct RunArgs {
    /// Files made at a time (default: `threads` of the configuration)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Ranges of keys listed at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=128))]
    listers: u16,
    /// The store lists in the order of the keys' bytes: spare the one listing from beginning to end that proves it
    #[arg(long)]
    trust_order: bool,
    /// A line for each object that was refused, failed or changed on the way: JSON lines for .json, else CSV
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How far it is, to go on from (default: in the state directory)
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "give permissions in octal, such as 644".into())
}

fn moment(text: &str) -> Result<i64, String> {
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| error.to_string())?;
    let seconds = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).map_err(|error| error.to_string())
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(shard, shards)| Some((shard.parse::<u64>().ok()?, shards.parse::<u64>().ok()?)));
    match parsed {
        Some((shard, shards)) if shard >= 1 && shard <= shards => Ok((shard - 1, shards)),
        _ => Err("give I/N with I from 1 to N, such as 3/16".into()),
    }
}

pub(super) fn import(args: &ImportArgs, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    let mut filter = Filter::new(&args.include, &args.exclude)?;
    let size = |size: Option<bytesize::ByteSize>, other: u64| size.map_or(other, |size| size.as_u64());
    filter.size = size(args.min_size, 0)..=size(args.max_size, u64::MAX);
    filter.modified = args.newer_than.unwrap_or(i64::MIN)..=args.older_than.unwrap_or(i64::MAX);
    filter.shard = args.shard;
    if args.delete && args.on_conflict != OnConflict::Refresh {
        return Err("--delete is for --on-conflict refresh".into());
    }
    let narrowed = !args.include.is_empty() || !args.exclude.is_empty() || args.keys_from.is_some();
    if args.delete && narrowed {
        return Err("--delete needs the whole bucket: not with --include, --exclude or --keys-from".into());
    }
    let plan = Plan {
        from: &args.from,
        to: &args.to,
        archive_id: args.archive_id,
        metadata: args.metadata,
        paths: Paths::Keys,
        on_conflict: args.on_conflict,
        force: args.force,
        delete: args.delete,
        defaults: Defaults {
            file_mode: args.file_mode,
            dir_mode: args.dir_mode,
            uid: args.uid,
            gid: args.gid,
        },
        allow_setid: args.allow_setid,
        outside_links: args.outside_links,
        filter,
        dry_run: args.dry_run,
        inventory: args.inventory.as_ref(),
        keys_from: args.keys_from.as_deref(),
        run: &args.run,
        // Whatever changes what is made; the rest may differ when it goes on.
        command: format!(
            "import {} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            args.from,
            args.to.display(),
            args.archive_id,
            args.metadata,
            args.include,
            args.exclude,
            args.min_size,
            args.max_size,
            args.newer_than,
            args.older_than,
            args.shard,
            args.inventory,
            args.keys_from,
        ),
    };
    plan.run(settings)
}

pub(super) fn rebuild(args: &RebuildArgs, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    let plan = Plan {
        from: &args.from,
        to: &args.to,
        archive_id: args.archive_id,
        metadata: MetadataFrom::Head,
        paths: Paths::Recorded,
        on_conflict: args.on_conflict,
        force: false,
        delete: false,
        defaults: Defaults {
            file_mode: 0o600,
            dir_mode: 0o755,
            uid: 0,
            gid: 0,
        },
        // What we wrote ourselves.
        allow_setid: true,
        outside_links: true,
        filter: Filter::default(),
        dry_run: args.dry_run,
        inventory: None,
        keys_from: None,
        run: &args.run,
        command: format!("rebuild {} {} {:?}", args.from, args.to.display(), args.archive_id),
    };
    plan.run(settings)
}

struct Plan<'a> {
    from: &'a Bucket,
    to: &'a Path,
    archive_id: Option<u32>,
    metadata: MetadataFrom,
    paths: Paths,
    on_conflict: OnConflict,
    force: bool,
    delete: bool,
    defaults: Defaults,
    allow_setid: bool,
    outside_links: bool,
    filter: Filter,
    dry_run: bool,
    inventory: Option<&'a Bucket>,
    keys_from: Option<&'a Path>,
    run: &'a RunArgs,
    command: String,
}

impl Plan<'_> {
    fn run(self, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
        let site = Site::open(
            settings,
            &SitePlan {
                bucket: self.from,
                archive_id: self.archive_id,
                directory: nearest(self.to),
                identify: if self.dry_run { Identify::Find } else { Identify::Make },
            },
        )?;
        let place = self.place(&site, settings)?;
        let directory = place.directory.as_path();
        let checkpoint = self.checkpoint(settings)?;
        let tree = Tree::open(directory).map_err(|error| format!("can't open '{}': {error}", directory.display()))?;
        let finishing = checkpoint.as_ref().map(|path| path.with_extension("directories"));
        let threads = self.run.threads.map_or(settings.threads, usize::from);
        let listers = site.lanes(settings, usize::from(self.run.listers))?;
        let makers = site.lanes(settings, threads)?;
        let input = match (self.inventory, self.keys_from) {
            _ if place.one.is_some() => Input::One(self.from.prefix.trim_end_matches('/').to_owned()),
            (Some(manifest), _) => site.inventory(settings, manifest, self.from)?,
            (None, Some(keys)) => Input::Keys(keys.to_owned()),
            (None, None) => Input::List,
        };
        let lines = match self.keys_from {
            Some(keys) => std::fs::read_to_string(keys).map_or(0, |text| text.lines().count() as u64),
            None => 0,
        };
        let former = match &checkpoint {
            Some(path) => Checkpoint::read(path, &self.command)?,
            None => None,
        };
        let resumed = former.is_some();
        let shared = Shared {
            target: site.below_mount(directory)?,
            archive_id: site.archive_id,
            prefix: place.prefix,
            named: place.one,
            tree,
            filter: self.filter,
            defaults: self.defaults,
            metadata: self.metadata,
            paths: self.paths,
            on_conflict: self.on_conflict,
            force: self.force,
            allow_setid: self.allow_setid,
            outside_links: self.outside_links,
            dry_run: self.dry_run,
            report: Report::new(self.run.report.as_deref(), resumed)?,
            finishing: Finishing::new(finishing.as_deref())?,
            control: Arc::clone(&site.control),
            mount: site.mount,
            resumed,
            seen: import::Seen::default(),
            cleared: Mutex::default(),
            crowds: Mutex::default(),
            began: former
                .as_ref()
                .map_or_else(|| Timestamp::now().seconds, |former| former.began),
            given_up: AtomicU32::default(),
        };
        let importing = begin(&shared)?;
        let mut progress = progress(self.run.json, lines);
        let pruner = if self.delete {
            site.targets
                .first()
                .map(|target| crate::transfer::Lane::new(&[Arc::clone(target)], settings.transfer))
                .transpose()?
        } else {
            None
        };
        let import = Import {
            input,
            listers,
            makers,
            former,
            checkpoint: checkpoint.clone(),
            command: self.command,
            trust_order: self.run.trust_order,
        };
        let imported = import::run(&shared, import, &mut |counts| {
            show(&mut progress, counts, shared.report.expected());
        });
        end(&shared, importing.as_ref())?;
        if let Err(error) = imported {
            progress.end();
            return Err(error.into());
        }
        if let Some(lane) = pruner {
            import::prune(&shared, &lane)?;
        }
        let failed = |path: &Path, error: &std::io::Error| {
            shared.report.count(|counts| counts.failed += 1);
            let key = format!("{}{}/", shared.prefix, path.display());
            let reason = format!("the directory's attributes can't be set: {error}");
            shared.report.say(Outcome::Failed, key.as_bytes(), &reason);
        };
        let without_acl = |path: &Path, error: &std::io::Error| {
            shared.report.count(|counts| counts.warnings += 1);
            let reason = format!("its ACL can't be set ({error}): its group gets no access");
            let key = format!("{}{}/", shared.prefix, path.display());
            shared.report.say(Outcome::Warning, key.as_bytes(), &reason);
        };
        shared.finishing.finish(&shared.tree, failed, without_acl)?;
        let counts = shared.report.counts();
        shared.report.flush();
        shared.finishing.remove();
        if let Some(path) = &checkpoint
            && path.exists()
        {
            std::fs::remove_file(path)?;
        }
        progress.end();
        report(
            &counts,
            shared.report.disorder().as_deref(),
            progress.elapsed(),
            self.run.json,
            self.dry_run,
        );
        match counts.refused + counts.failed {
            0 => Ok(()),
            n => Err(format!(
                "{n} of {} objects are not here; {}",
                counts.objects(),
                match &self.run.report {
                    Some(path) => format!("'{}' says why", path.display()),
                    None => "--report FILE says why".into(),
                }
            )
            .into()),
        }
    }

    /// Makes the directory if there is none. An object of just that key becomes a file of that name instead, as `--import`
    /// of the reference has it.
    fn place(&self, site: &Site, settings: &Settings) -> Result<Place, Box<dyn std::error::Error>> {
        let below = |directory: &Path| Place {
            directory: directory.to_owned(),
            prefix: self.from.prefix.clone(),
            one: None,
        };
        if self.to.symlink_metadata().is_ok() {
            return Ok(below(self.to));
        }
        let made = |directory: &Path| {
            if self.dry_run && !directory.is_dir() {
                return Err(format!(
                    "'{}' is not there, and a dry run makes nothing",
                    directory.display()
                ));
            }
            std::fs::create_dir_all(directory).map_err(|error| format!("can't make '{}': {error}", directory.display()))
        };
        let whole_bucket = self.inventory.is_some() || self.keys_from.is_some() || self.paths == Paths::Recorded;
        if !whole_bucket
            && is_one_object(site, settings, self.from)?
            && let (Some(parent), Some(name)) = (self.to.parent(), self.to.file_name())
        {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            made(parent)?;
            let key = self.from.prefix.trim_end_matches('/');
            return Ok(Place {
                directory: parent.to_owned(),
                prefix: key.rfind('/').map_or("", |at| key.get(..=at).unwrap_or("")).to_owned(),
                one: Some(TreePath::recorded(name.as_encoded_bytes())?),
            });
        }
        made(self.to)?;
        Ok(below(self.to))
    }

    fn checkpoint(&self, settings: &Settings) -> Result<Option<PathBuf>, String> {
        if self.dry_run {
            return Ok(None);
        }
        if let Some(path) = &self.run.checkpoint {
            return Ok(Some(path.clone()));
        }
        let directory = &settings.state_dir;
        std::fs::create_dir_all(directory).map_err(|error| {
            format!(
                "can't make the state directory '{}': {error}. Set `state_dir` in section [lustre], or give --checkpoint FILE",
                directory.display()
            )
        })?;
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, self.command.as_bytes());
        Ok(Some(directory.join(format!("import-{sum:016x}.checkpoint"))))
    }
}

/// What an import fills.
struct Place {
    directory: PathBuf,
    /// Before each key.
    prefix: String,
    /// The name of the one object that is meant.
    one: Option<TreePath>,
}

/// The last that is there of a path.
fn nearest(path: &Path) -> &Path {
    let there = path.ancestors().find(|path| path.symlink_metadata().is_ok());
    there.unwrap_or(Path::new("."))
}

/// Whether there is an object of just that key, and nothing below it.
fn is_one_object(site: &Site, settings: &Settings, of: &Bucket) -> Result<bool, Box<dyn std::error::Error>> {
    let (Ok(key), Some(lane)) = (
        ObjectKey::new(of.prefix.trim_end_matches('/')),
        site.lanes(settings, 1)?.pop(),
    ) else {
        return Ok(false);
    };
    // One that can't be looked at may be anything: then it is a directory, as before.
    if head(&lane, &site.control, site.archive_id, &key, None).is_err() {
        return Ok(false);
    }
    let query = Query {
        limit: 1,
        ..Query::below(&of.prefix, &ListFrom::Start)
    };
    Ok(list(&lane, &site.control, site.archive_id, query)?.entries.is_empty())
}

const WITH_TOTAL: &str = "{bar:30} {pos}/{len} {msg} ETA {eta}";
const WITHOUT: &str = "{spinner} {pos} objects {msg} {elapsed}";

fn progress(quiet: bool, total: u64) -> Progress {
    let progress = Progress::new(WITHOUT, quiet);
    if total > 0 {
        progress.expect(total, WITH_TOTAL);
    }
    progress
}

fn show(progress: &mut Progress, counts: &Counts, expected: Option<u64>) {
    let objects = counts.objects();
    if let Some(expected) = expected {
        progress.expect(expected.max(objects), WITH_TOTAL);
    }
    let rate = objects / progress.elapsed().as_secs().max(1);
    let text = format!(
        "({rate}/s), {} directories, {} refused, {} failed",
        counts.directories, counts.refused, counts.failed
    );
    progress.set_done(objects);
    progress.show_or(text, |text| {
        let left = expected.map_or_else(String::new, |expected| {
            let left = expected.saturating_sub(objects) / rate.max(1);
            format!(
                " of about {expected}, {} to go,",
                indicatif::HumanDuration(Duration::from_secs(left))
            )
        });
        format!("{objects} objects{left} {text}")
    });
}

fn unmarked(error: &HsmError) -> String {
    format!("the root directory can't be marked: {error}; it takes root to import")
}

/// Before the first file: whatever is listed soon was written before that, also by a clock that is ahead.
fn begin(shared: &Shared) -> Result<Option<Importing>, String> {
    const AHEAD: i64 = 3600;
    if shared.dry_run {
        return Ok(None);
    }
    let noted = shared.mount.import_begins(Timestamp::now().seconds + AHEAD);
    noted.map(Some).map_err(|error| unmarked(&error))
}

/// After the last: from now on it is known what was listed. Not so of what a killed run listed, or what no time is told of.
fn end(shared: &Shared, importing: Option<&Importing>) -> Result<(), String> {
    let Some(importing) = importing else {
        return Ok(());
    };
    let latest = if shared.resumed || shared.seen.is_untimed() {
        Some(importing.until())
    } else {
        shared.seen.latest()
    };
    shared
        .mount
        .import_ended(importing, latest)
        .map_err(|error| unmarked(&error))
}

fn report(counts: &Counts, disorder: Option<&str>, took: Duration, json: bool, dry_run: bool) {
    if json {
        let mut line = serde_json::json!(counts);
        if let Some(line) = line.as_object_mut() {
            line.insert("objects".into(), counts.objects().into());
            line.insert("seconds".into(), took.as_secs_f64().into());
            line.insert("dry_run".into(), dry_run.into());
            line.insert("unordered".into(), disorder.into());
        }
        outln!("{line}");
        return;
    }
    outln!(
        "{}{} objects in {:.1} s: {} files imported ({}), {} directories, {} symlinks, {} replaced, {} there already, \
         {} left as they are, {} not asked for, {} deleted, {} refused, {} failed, {} warnings",
        if dry_run { "dry run, nothing was made: " } else { "" },
        counts.objects(),
        took.as_secs_f64(),
        counts.imported,
        bytesize::ByteSize::b(counts.bytes).display().iec(),
        counts.directories,
        counts.links,
        counts.updated,
        counts.same,
        counts.skipped,
        counts.filtered,
        counts.deleted,
        counts.refused,
        counts.failed,
        counts.warnings,
    );
    if let Some(disorder) = disorder {
        outln!("the bucket was listed from its beginning to its end, not in parts: {disorder}");
    }
}
