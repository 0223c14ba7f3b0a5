//! What commands that touch both a file system and a bucket begin with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::bucket::Bucket;
use crate::config::Settings;
use crate::import::inventory::Manifest;
use crate::import::{Input, Inventory};
use crate::lustre::{Identify, Library, Mount};
use crate::store::{ObjectKey, Target, TargetOptions};
use crate::transfer::{Control, Lane, Stop, Transfer};
use crate::types::ArchiveId;

type Failure = Box<dyn std::error::Error>;

/// What a command names.
#[derive(Debug)]
pub(super) struct SessionPlan<'a> {
    pub(super) bucket: &'a Bucket,
    pub(super) archive_id: Option<u32>,
    pub(super) directory: &'a Path,
    pub(super) identify: Identify,
}

/// A mounted file system and a store, ready.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) mount: Mount,
    pub(super) archive_id: ArchiveId,
    /// The one of the bucket first.
    pub(super) targets: Vec<Arc<Target>>,
    pub(super) control: Arc<Control>,
    /// Signals and credentials are looked after on it.
    runtime: Arc<tokio::runtime::Runtime>,
}

impl Session {
    /// # Errors
    /// What is missing, and where to put it.
    pub(super) fn open(settings: &Settings, plan: &SessionPlan<'_>) -> Result<Self, Failure> {
        let options = archive_of(settings, plan.bucket, plan.archive_id)?;
        let mount = open_mount(settings, plan.directory, plan.identify)?;
        let runtime = runtime()?;
        let target = runtime.block_on(Target::resolve(options.clone()))?;
        let control = stopped_by_signals(&runtime);
        Ok(Self {
            mount,
            archive_id: options.archive_id,
            targets: vec![Arc::new(target)],
            control,
            runtime,
        })
    }

    /// A path below the mount point.
    pub(super) fn below_mount(&self, directory: &Path) -> Result<PathBuf, Failure> {
        let directory = directory.canonicalize()?;
        Ok(directory
            .strip_prefix(self.mount.path())
            .unwrap_or(Path::new(""))
            .to_owned())
    }

    pub(super) fn lanes(&self, settings: &Settings, count: usize) -> std::io::Result<Vec<Lane>> {
        lanes(&self.targets, settings, count)
    }

    /// An inventory by its manifest, which may be in another bucket of the same store.
    pub(super) fn inventory(&self, settings: &Settings, manifest: &Bucket, of: &Bucket) -> Result<Input, Failure> {
        let Some(target) = self.targets.first() else {
            return Err("no store".into());
        };
        let beside = |bucket: &str| -> Result<Lane, Failure> {
            let options = TargetOptions {
                bucket: bucket.to_owned(),
                ..target.options().clone()
            };
            let target = self.runtime.block_on(Target::resolve(options))?;
            Ok(Lane::new(&[Arc::new(target)], settings.transfer)?)
        };
        let lane = beside(&manifest.name)?;
        // It was read as a prefix, which it is not.
        let key = ObjectKey::new(manifest.prefix.trim_end_matches('/'))?;
        let mut file = Transfer::new(&lane, &self.control)
            .fetch_file(key.at(self.archive_id))
            .map_err(|error| format!("can't read the manifest '{key}' in bucket '{}': {error}", manifest.name))?;
        let mut json = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut json)?;
        let manifest = Manifest::parse(&json)?;
        if manifest.source_bucket != of.name {
            return Err(format!(
                "the inventory is of bucket '{}', not of '{}'",
                manifest.source_bucket, of.name
            )
            .into());
        }
        let lane = beside(&manifest.destination_bucket)?;
        Ok(Input::Inventory(Box::new(Inventory {
            manifest,
            lane: Mutex::new(lane),
            read: Default::default(),
        })))
    }
}

/// The archive with that id, or the first one.
pub(super) fn target_of(settings: &Settings, archive_id: Option<u32>) -> Result<&TargetOptions, String> {
    let mut targets = settings.targets.iter();
    let target = targets.find(|target| archive_id.is_none_or(|id| target.archive_id.get() == id));
    target.ok_or_else(|| match archive_id {
        Some(id) => format!("no [[archive]] section has id {id}"),
        None => "the configuration has no [[archive]] section".into(),
    })
}

/// As many, for a thread each.
pub(super) fn lanes(targets: &[Arc<Target>], settings: &Settings, count: usize) -> std::io::Result<Vec<Lane>> {
    (0..count.max(1))
        .map(|_| Lane::new(targets, settings.transfer))
        .collect()
}

/// The archive of a bucket.
pub(super) fn archive_of<'a>(
    settings: &'a Settings,
    bucket: &Bucket,
    archive_id: Option<u32>,
) -> Result<&'a TargetOptions, String> {
    let mut fitting: Vec<_> = settings
        .targets
        .iter()
        .filter(|target| target.bucket == bucket.name && archive_id.is_none_or(|id| target.archive_id.get() == id))
        .collect();
    // The one whose own prefix is nearest.
    fitting.sort_by_key(|target| {
        let fits = bucket.prefix.starts_with(&target.prefix);
        std::cmp::Reverse(if fits { 1 + target.prefix.len() } else { 0 })
    });
    fitting.first().copied().ok_or_else(|| {
        let with_id = archive_id.map(|id| format!(" and id = {id}")).unwrap_or_default();
        format!(
            "no [[archive]] section of the configuration has bucket = \"{}\"{with_id}: add one, for the copytool \
             restores by it",
            bucket.name
        )
    })
}

/// The Lustre that a path is in.
pub(super) fn open_mount(settings: &Settings, path: &Path, identify: Identify) -> Result<Mount, Failure> {
    let library = Library::open(&settings.library)?;
    let mount = Mount::around(library, path, identify)?.leaving_out(&settings.system_xattrs);
    Ok(mount.migrating(settings.migrate_hsm_allowed))
}

/// The Lustre that all these files and directories are in, and they as it has them.
pub(super) fn open_paths(
    settings: &Settings,
    paths: &[PathBuf],
    identify: Identify,
) -> Result<(Mount, Vec<PathBuf>), Failure> {
    let mut found = Vec::new();
    for path in paths {
        let path = path
            .canonicalize()
            .map_err(|error| format!("'{}': {error}", path.display()))?;
        found.push(path);
    }
    let Some(first) = found.first() else {
        return Err("no path".into());
    };
    let mount = open_mount(settings, first, identify)?;
    if let Some(other) = found.iter().find(|path| !path.starts_with(mount.path())) {
        return Err(format!("'{}' is not in '{}'", other.display(), mount.path().display()).into());
    }
    Ok((mount, found))
}

pub(super) fn runtime() -> std::io::Result<Arc<tokio::runtime::Runtime>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    Ok(Arc::new(runtime))
}

/// Ctrl-C and SIGTERM end the work in order.
pub(super) fn stopped_by_signals(runtime: &tokio::runtime::Runtime) -> Arc<Control> {
    use tokio::signal::unix::{SignalKind, signal};
    let control = Arc::<Control>::default();
    let stopping = Arc::clone(&control);
    runtime.spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopping.stop(Stop::Shutdown);
    });
    control
}
