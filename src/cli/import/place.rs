//! What an import fills: a directory, or one file in it.

use std::path::{Component, Path, PathBuf};

use super::ImportPlan;
use crate::cli::{Bucket, Session};
use crate::config::Settings;
use crate::import::{Paths, TreePath};
use crate::store::{ListFrom, ObjectKey, Query};
use crate::transfer::Transfer;

/// What an import fills.
pub(super) struct ImportTarget {
    pub(super) directory: PathBuf,
    /// Before each key.
    pub(super) prefix: String,
    /// The name of the one object that is meant.
    pub(super) one: Option<TreePath>,
}

impl ImportPlan<'_> {
    /// Makes the directory if there is none. An object of just that key becomes a file of that name instead, as `--import`
    /// of the reference has it.
    pub(super) fn place(
        &self,
        session: &Session,
        settings: &Settings,
    ) -> Result<ImportTarget, Box<dyn std::error::Error>> {
        let below = |directory: &Path| ImportTarget {
            directory: directory.to_owned(),
            prefix: self.from.prefix.clone(),
            one: None,
        };
        let to = match self.below {
            Some(path) if !is_one_object(session, settings, self.from)? => {
                if !path.components().all(|part| matches!(part, Component::Normal(_))) {
                    return Err(format!("'{}' is no path below '{}'", path.display(), self.to.display()).into());
                }
                self.to.join(path)
            }
            _ => self.to.to_owned(),
        };
        if to.symlink_metadata().is_ok() {
            return Ok(below(&to));
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
            && is_one_object(session, settings, self.from)?
            && let (Some(parent), Some(name)) = (to.parent(), to.file_name())
        {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            made(parent)?;
            let key = self.from.prefix.trim_end_matches('/');
            return Ok(ImportTarget {
                directory: parent.to_owned(),
                prefix: key.rfind('/').map_or("", |at| key.get(..=at).unwrap_or("")).to_owned(),
                one: Some(TreePath::recorded(name.as_encoded_bytes())?),
            });
        }
        made(&to)?;
        Ok(below(&to))
    }
}

/// The last that is there of a path.
pub(super) fn nearest(path: &Path) -> &Path {
    let there = path.ancestors().find(|path| path.symlink_metadata().is_ok());
    there.unwrap_or(Path::new("."))
}

/// Whether there is an object of just that key, and nothing below it.
fn is_one_object(session: &Session, settings: &Settings, of: &Bucket) -> Result<bool, Box<dyn std::error::Error>> {
    let (Ok(key), Some(lane)) = (
        ObjectKey::new(of.prefix.trim_end_matches('/')),
        session.lanes(settings, 1)?.pop(),
    ) else {
        return Ok(false);
    };
    // One that can't be looked at may be anything: then it is a directory, as before.
    let transfer = Transfer::new(&lane, &session.control);
    if transfer.head(key.at(session.archive_id), None).is_err() {
        return Ok(false);
    }
    let query = Query {
        limit: 1,
        ..Query::below(&of.prefix, &ListFrom::Start)
    };
    Ok(transfer.list(session.archive_id, query)?.entries.is_empty())
}
