//! Which of the files that a job comes across are meant.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use crate::lustre::HsmStates;
use crate::types::ArchiveId;

/// As a job's ledger keeps it: times are absolute, so that a resumed job means the same files.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileFilter {
    /// Only names or paths that match one of these.
    pub include: Vec<String>,
    /// None that match one of these.
    pub exclude: Vec<String>,
    /// No smaller files, in bytes.
    pub min_size: Option<u64>,
    /// No larger files, in bytes.
    pub max_size: Option<u64>,
    /// Last changed before, in seconds since 1970.
    pub modified_before: Option<i64>,
    /// Last changed since.
    pub modified_since: Option<i64>,
    /// Last read, changed, made, brought back or archived before: a restore puts the times of before back, and notes itself
    /// by the ctime, which users can't set; the record that an archive writes changes it, too. Files without a record are
    /// left as they were by both. Who copies files with their old times is told by the ctime as well.
    pub accessed_before: Option<i64>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// In one of these states; none: in any.
    pub states: Vec<HsmFilter>,
    /// Whose copy is in that archive.
    pub in_archive: Option<ArchiveId>,
}

/// A state of a file, as a person asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HsmFilter {
    /// HSM never had to do with it.
    New,
    /// It has a copy and is here.
    Archived,
    /// It was changed after it was archived.
    Dirty,
    /// Its data is in the archive only.
    Released,
    /// Its copy is marked LOST.
    Lost,
}

/// A glob that is none.
#[derive(Debug, thiserror::Error)]
#[error("'{glob}' is no glob: {source}")]
pub struct SelectError {
    glob: String,
    source: globset::Error,
}

/// The same, ready to be asked.
#[derive(Debug)]
pub(super) struct CompiledFilter<'a> {
    select: &'a FileFilter,
    include: Globs,
    exclude: Globs,
}

impl FileFilter {
    /// Whether its globs are globs.
    ///
    /// # Errors
    /// The first that is none.
    pub fn check(&self) -> Result<(), SelectError> {
        self.selector().map(drop)
    }

    pub(super) fn selector(&self) -> Result<CompiledFilter<'_>, SelectError> {
        Ok(CompiledFilter {
            select: self,
            include: Globs::new(&self.include)?,
            exclude: Globs::new(&self.exclude)?,
        })
    }

    /// What takes a look at HSM's state.
    pub(super) fn wants_states(&self, states: HsmStates) -> bool {
        let in_state = self.states.is_empty()
            || self.states.iter().any(|wanted| match wanted {
                HsmFilter::New => states.is_none(),
                HsmFilter::Archived => states.archived() && !states.released() && !states.dirty(),
                HsmFilter::Dirty => states.dirty(),
                HsmFilter::Released => states.released(),
                HsmFilter::Lost => states.lost(),
            });
        in_state && self.in_archive.is_none_or(|id| states.is_in(id))
    }
}

impl CompiledFilter<'_> {
    /// What its name and attributes tell.
    pub(super) fn wants(&self, below_mount: &Path, stat: &Metadata) -> bool {
        let select = self.select;
        let size = stat.len();
        (self.include.none || self.include.has(below_mount))
            && !self.exclude.has(below_mount)
            && select.min_size.is_none_or(|least| size >= least)
            && select.max_size.is_none_or(|most| size <= most)
            && select.modified_before.is_none_or(|time| stat.mtime() < time)
            && select.modified_since.is_none_or(|time| stat.mtime() >= time)
            && select.accessed_before.is_none_or(|time| last_used(stat) < time)
            && select.uid.is_none_or(|uid| stat.uid() == uid)
            && select.gid.is_none_or(|gid| stat.gid() == gid)
    }
}

fn last_used(stat: &Metadata) -> i64 {
    stat.atime().max(stat.mtime()).max(stat.ctime())
}

/// A glob without a slash is of names, one with a slash of paths below the mount point.
#[derive(Debug)]
struct Globs {
    names: GlobSet,
    paths: GlobSet,
    none: bool,
}

impl Globs {
    fn new(globs: &[String]) -> Result<Self, SelectError> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for glob in globs {
            let failed = |source| SelectError {
                glob: glob.clone(),
                source,
            };
            let built = GlobBuilder::new(glob.trim_start_matches('/'))
                .literal_separator(true)
                .build()
                .map_err(failed)?;
            if glob.contains('/') {
                paths.add(built);
            } else {
                names.add(built);
            }
        }
        let build = |set: &GlobSetBuilder| {
            set.build().map_err(|source| SelectError {
                glob: globs.join(" "),
                source,
            })
        };
        Ok(Self {
            names: build(&names)?,
            paths: build(&paths)?,
            none: globs.is_empty(),
        })
    }

    fn has(&self, below_mount: &Path) -> bool {
        self.paths.is_match(below_mount) || below_mount.file_name().is_some_and(|name| self.names.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(select: &FileFilter, path: &str) -> bool {
        let stat = std::fs::metadata(".").unwrap();
        select.selector().unwrap().wants(Path::new(path), &stat)
    }

    #[test]
    fn the_latest_of_all_times_tells_how_long_a_file_was_not_used() {
        let file = tempfile::tempfile().unwrap();
        let january = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_704_067_200);
        let old = std::fs::FileTimes::new().set_accessed(january).set_modified(january);
        file.set_times(old).unwrap();
        let stat = file.metadata().unwrap();
        let unread_since = |time| {
            let select = FileFilter {
                accessed_before: Some(time),
                ..FileFilter::default()
            };
            select.selector().unwrap().wants(Path::new("file"), &stat)
        };
        // It was copied here just now, with its old times.
        assert!(!unread_since(1_704_067_201));
        assert!(!unread_since(stat.ctime()));
        assert!(unread_since(stat.ctime() + 1));
        let later = january + std::time::Duration::from_secs(4_000_000_000);
        file.set_times(old.set_accessed(later)).unwrap();
        let stat = file.metadata().unwrap();
        assert_eq!(last_used(&stat), stat.atime());
    }

    #[test]
    fn globs_without_a_slash_are_of_names_and_others_of_paths() {
        let of = |include: &[&str], exclude: &[&str]| FileFilter {
            include: include.iter().map(|&glob| glob.to_owned()).collect(),
            exclude: exclude.iter().map(|&glob| glob.to_owned()).collect(),
            ..FileFilter::default()
        };
        assert!(wants(&of(&[], &[]), "a/b.tmp"));
        assert!(!wants(&of(&[], &["*.tmp"]), "a/b.tmp"));
        assert!(wants(&of(&["*.h5"], &[]), "deep/er/b.h5"));
        assert!(!wants(&of(&["lab/*.h5"], &[]), "lab/er/b.h5"));
        assert!(wants(&of(&["/lab/**/*.h5"], &[]), "lab/er/b.h5"));
        assert!(of(&["a["], &[]).check().is_err());
    }
}
