//! `lhsmtool-s3 import` and `rebuild`: a bucket becomes a namespace of released files.

mod args;
mod place;
mod told;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use self::args::RunArgs;
pub use self::args::{ImportArgs, RebuildArgs};
use self::place::nearest;
use self::told::{progress, report, show};
use super::bucket::Bucket;
use super::{Session, SessionPlan};
use crate::action::HsmError;
use crate::config::Settings;
use crate::import::{
    self, Checkpoint, Defaults, Filter, Finishing, Import, ImportContext, Input, MetadataFrom, OnConflict, Outcome,
    Paths, Report, Tree,
};
use crate::lustre::{Identify, Importing};
use crate::types::Timestamp;

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
    let plan = ImportPlan {
        from: &args.from,
        to: &args.to,
        below: args.below.as_deref(),
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
    let plan = ImportPlan {
        from: &args.from,
        to: &args.to,
        below: None,
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

struct ImportPlan<'a> {
    from: &'a Bucket,
    to: &'a Path,
    /// Where below `to` what is more than one object comes.
    below: Option<&'a Path>,
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

impl ImportPlan<'_> {
    fn run(self, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
        let session = Session::open(
            settings,
            &SessionPlan {
                bucket: self.from,
                archive_id: self.archive_id,
                directory: nearest(self.to),
                identify: if self.dry_run { Identify::Find } else { Identify::Make },
            },
        )?;
        let place = self.place(&session, settings)?;
        let directory = place.directory.as_path();
        let checkpoint = self.checkpoint(settings)?;
        let tree = Tree::open(directory).map_err(|error| format!("can't open '{}': {error}", directory.display()))?;
        let finishing = checkpoint.as_ref().map(|path| path.with_extension("directories"));
        let threads = self.run.threads.map_or(settings.threads, usize::from);
        let listers = session.lanes(settings, usize::from(self.run.listers))?;
        let makers = session.lanes(settings, threads)?;
        let input = match (self.inventory, self.keys_from) {
            _ if place.one.is_some() => Input::One(self.from.prefix.trim_end_matches('/').to_owned()),
            (Some(manifest), _) => session.inventory(settings, manifest, self.from)?,
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
        let shared = ImportContext {
            target: session.below_mount(directory)?,
            archive_id: session.archive_id,
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
            control: Arc::clone(&session.control),
            mount: session.mount,
            resumed,
            seen: import::NewestObject::default(),
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
            session
                .targets
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

fn unmarked(error: &HsmError) -> String {
    format!("the root directory can't be marked: {error}; it takes root to import")
}

/// Before the first file: whatever is listed soon was written before that, also by a clock that is ahead.
fn begin(shared: &ImportContext) -> Result<Option<Importing>, String> {
    const AHEAD: i64 = 3600;
    if shared.dry_run {
        return Ok(None);
    }
    let noted = shared.mount.import_begins(Timestamp::now().seconds + AHEAD);
    noted.map(Some).map_err(|error| unmarked(&error))
}

/// After the last: from now on it is known what was listed. Not so of what a killed run listed, or what no time is told of.
fn end(shared: &ImportContext, importing: Option<&Importing>) -> Result<(), String> {
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
