//! A few keys, listed: their order, the tokens of pages, start-after, the delimiter. What a listing does otherwise is no
//! failure: the daemon lists nothing, and the commands that do look at it themselves.

use std::ops::ControlFlow;

use super::{Probe, Rows};
use crate::store::{Condition, Entry, ListFrom, ObjectKey, Query, StoreError};
use crate::transfer::TransferError;

/// In the order of their bytes, in which `/` stands between `-` and `0`: who sorts by directories has another one.
const NAMES: [&str; 8] = ["a", "obj+1", "obj-1", "obj/1", "obj/2", "obj0", "obj1", "z"];
/// Of these, one and the one behind it.
const AFTER: &str = "obj/1";
const BEHIND: &str = "obj/2";
const DIRECTORY: &str = "obj/";
/// Keys on a page.
const PAGE: i32 = 3;

const FIX: &str = "the daemon lists nothing; import, rebuild and scrub find all keys in any order, or end with what the \
                   store did (docs/import.md)";

impl Probe<'_> {
    pub(super) fn keys(&self, below: &str, rows: &mut Rows) {
        let what = self.what("list order");
        let prefix = format!("{below}/");
        let keys: Vec<_> = NAMES
            .iter()
            .filter_map(|name| ObjectKey::new(format!("{prefix}{name}")).ok())
            .collect();
        let written = keys.iter().try_for_each(|key| self.write(key, Condition::None, b"x"));
        match written {
            Err(error) => rows.warn(what, format!("objects to list can't be written: {error}"), FIX),
            Ok(()) => match self.deviations(&prefix) {
                odd if odd.is_empty() => {
                    rows.pass(what, "by the keys' bytes; tokens, start-after and delimiter are heeded")
                }
                odd => rows.warn(what, odd.join("; "), FIX),
            },
        }
        // Each was written once: the version goes, where there is one.
        let left = keys.iter().filter(|key| !self.is_gone(key)).count();
        if left > 0 {
            rows.warn(
                self.what("list order"),
                format!("{left} objects below '{prefix}' can't be deleted, and are left"),
                "delete them by hand",
            );
        }
    }

    fn is_gone(&self, key: &ObjectKey) -> bool {
        let found = match self.found(key) {
            Ok(found) => found,
            Err(TransferError::Store(StoreError::NotFound { .. })) => return true,
            Err(_) => return false,
        };
        let by_version = found.version.as_deref().zip(self.lane.store(self.archive_id).ok());
        let gone = by_version.is_some_and(|(version, store)| {
            let deleted = async {
                let delete = Box::pin(store.delete(key, Some(version), None));
                tokio::time::timeout(super::PATIENCE, delete).await
            };
            matches!(self.lane.block_on(deleted), Ok(Ok(())))
        });
        gone || self.remove(key, &found).is_ok()
    }

    /// What is not as it should be, in words.
    fn deviations(&self, prefix: &str) -> Vec<String> {
        let mut odd = Vec::new();
        let start = ListFrom::Start;
        let by_pages = Query {
            limit: PAGE,
            ..Query::below(prefix, &start)
        };
        let (mut found, mut disorder) = (Vec::new(), None);
        let listed = self.listed(by_pages, |entries, _, told| {
            found.extend(entries.into_iter().map(|entry| entry.key));
            disorder = told;
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            // Nothing that is built upon it can be told.
            return vec![error.to_string()];
        }
        let full = |name: &str| format!("{prefix}{name}").into_bytes();
        let missing = NAMES.iter().filter(|name| !found.contains(&full(name))).count();
        if missing > 0 {
            odd.push(format!(
                "{missing} of {} keys that were just written are not listed",
                NAMES.len()
            ));
        }
        odd.extend(disorder);
        odd.extend(self.start_after(prefix));
        odd.extend(self.delimiter(prefix));
        odd
    }

    fn start_after(&self, prefix: &str) -> Option<String> {
        let from = ListFrom::After(format!("{prefix}{AFTER}"));
        let mut first = None;
        let listed = self.listed(Query::below(prefix, &from), |entries, _, _| {
            first = entries.into_iter().next().map(|entry| entry.key);
            match first {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        });
        match listed {
            Err(error) => Some(format!("start-after: {error}")),
            Ok(()) if first.as_deref() == Some(format!("{prefix}{BEHIND}").as_bytes()) => None,
            Ok(()) => Some(format!(
                "start-after: behind '{AFTER}' comes '{}'",
                String::from_utf8_lossy(first.as_deref().unwrap_or_default())
            )),
        }
    }

    fn delimiter(&self, prefix: &str) -> Option<String> {
        let start = ListFrom::Start;
        let by_directory = Query {
            by_directory: true,
            ..Query::below(prefix, &start)
        };
        let (mut keys, mut directories) = (0, Vec::new());
        let listed = self.listed(by_directory, |entries, prefixes, _| {
            keys += entries.len();
            directories.extend(prefixes);
            ControlFlow::Continue(())
        });
        match listed {
            Err(error) => Some(format!("delimiter: {error}")),
            Ok(()) if directories == [format!("{prefix}{DIRECTORY}")] && keys == NAMES.len() - 2 => None,
            Ok(()) => Some(format!(
                "delimiter: {keys} keys and {} directories are listed, not {} and 1",
                directories.len(),
                NAMES.len() - 2
            )),
        }
    }

    fn listed(
        &self,
        query: Query<'_>,
        mut each: impl FnMut(Vec<Entry>, Vec<String>, Option<String>) -> ControlFlow<()>,
    ) -> Result<(), TransferError> {
        self.transfer().pages(self.archive_id, query, |page| {
            each(page.entries, page.prefixes, page.disorder)
        })
    }
}
