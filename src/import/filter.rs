//! Which objects are wanted.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::path::TreePath;
use crate::store::Entry;

/// All of it must hold.
#[derive(Clone, Debug)]
pub struct Filter {
    include: Option<GlobSet>,
    exclude: GlobSet,
    /// Bytes, both ends included.
    pub size: std::ops::RangeInclusive<u64>,
    /// Last write, seconds since 1970.
    pub modified: std::ops::RangeInclusive<i64>,
    /// Of how many shards, which one (from 0).
    pub shard: (u64, u64),
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            include: None,
            exclude: GlobSet::empty(),
            size: 0..=u64::MAX,
            modified: i64::MIN..=i64::MAX,
            shard: (0, 1),
        }
    }
}

impl Filter {
    /// With globs over paths below the target: `*` stops at a slash, `**` does not; a pattern without a slash
    /// is for the last name alone.
    ///
    /// # Errors
    /// A glob that is none, named.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, globset::Error> {
        let set = |globs: &[String]| {
            let mut set = GlobSetBuilder::new();
            for glob in globs {
                let anywhere = if glob.contains('/') {
                    glob.clone()
                } else {
                    format!("**/{glob}")
                };
                let anywhere = anywhere.trim_start_matches('/');
                set.add(GlobBuilder::new(anywhere).literal_separator(true).build()?);
            }
            set.build()
        };
        Ok(Self {
            include: if include.is_empty() { None } else { Some(set(include)?) },
            exclude: set(exclude)?,
            ..Self::default()
        })
    }

    /// Whether the object is this shard's: by its key alone, so that shards are disjoint and complete.
    #[must_use]
    pub fn is_in_shard(&self, key: &[u8]) -> bool {
        let (shard, shards) = self.shard;
        shards <= 1 || crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, key) % shards == shard
    }

    /// Whether the object is wanted.
    #[must_use]
    pub fn wants(&self, entry: &Entry, path: &TreePath) -> bool {
        // Directories have no size, and the time of their object says nothing.
        let in_time = entry.modified.is_none_or(|time| self.modified.contains(&time));
        if !(path.is_dir() || (self.size.contains(&entry.size) && in_time)) {
            return false;
        }
        self.include.as_ref().is_none_or(|globs| globs.is_match(path.as_path()))
            && !self.exclude.is_match(path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(filter: &Filter, key: &str) -> bool {
        let entry = Entry {
            key: key.into(),
            size: 5,
            etag: None,
            modified: Some(100),
            class: None,
        };
        filter.wants(&entry, &TreePath::new(key.as_bytes()).unwrap())
    }

    #[test]
    fn globs_are_for_names_or_for_paths() {
        let globs = |include: &[&str], exclude: &[&str]| {
            let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
            Filter::new(&own(include), &own(exclude)).unwrap()
        };
        assert!(wants(&globs(&["*.bam"], &[]), "a/b/x.bam"));
        assert!(!wants(&globs(&["a/*.bam"], &[]), "a/b/x.bam"));
        assert!(wants(&globs(&["a/**"], &["*.tmp"]), "a/b/x.bam"));
        assert!(!wants(&globs(&["a/**"], &["*.tmp"]), "a/b/x.tmp"));
        assert!(Filter::new(&["[".into()], &[]).is_err());
    }

    #[test]
    fn each_object_is_in_exactly_one_of_the_shards() {
        for shards in 1..9 {
            for n in 0..200 {
                let key = format!("k{n}");
                let owners = (0..shards).filter(|shard| {
                    let filter = Filter {
                        shard: (*shard, shards),
                        ..Filter::default()
                    };
                    filter.is_in_shard(key.as_bytes())
                });
                assert_eq!(owners.count(), 1);
            }
        }
    }
}
