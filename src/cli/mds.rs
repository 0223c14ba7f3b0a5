//! The coordinators' own numbers, where this node is an MDS: `/sys/fs/lustre/mdt/NAME/hsm/` since 2.11 (LU-8626).
//! Counters only; their list of actions takes too long to read when it matters.

use std::path::Path;

use serde::Serialize;

/// Where an MDS has them.
pub(super) const MDTS: &str = "/sys/fs/lustre/mdt";

/// One MDT's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct CoordinatorReport {
    /// The MDT.
    pub(super) mdt: String,
    /// Actions that may be active at once.
    pub(super) max_requests: Option<u64>,
    /// Archives that are not ended.
    pub(super) archives: Option<u64>,
    /// Restores that are not ended.
    pub(super) restores: Option<u64>,
    /// Removes that are not ended.
    pub(super) removes: Option<u64>,
    /// Seconds without a sign of life until an action is given up.
    #[serde(skip)]
    pub(super) active_request_timeout: Option<u64>,
    /// 1: files with a copy may go to other MDTs.
    #[serde(skip)]
    pub(super) migrate_hsm_allowed: Option<u64>,
}

impl CoordinatorReport {
    /// Of all MDTs of this node; none elsewhere.
    pub(super) fn all(mdts: &Path) -> Vec<Self> {
        let mut all: Vec<_> = std::fs::read_dir(mdts)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|mdt| Self::of(&mdt.path()))
            .collect();
        all.sort_by(|a, b| a.mdt.cmp(&b.mdt));
        all
    }

    fn of(mdt: &Path) -> Option<Self> {
        let hsm = mdt.join("hsm");
        let at = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        let number = |name: &str| at(&hsm.join(name));
        hsm.is_dir().then(|| Self {
            mdt: mdt
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            max_requests: number("max_requests"),
            archives: number("archive_count"),
            restores: number("restore_count"),
            removes: number("remove_count"),
            active_request_timeout: number("active_request_timeout"),
            migrate_hsm_allowed: at(&mdt.join("migrate_hsm_allowed")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mds_tells_its_counters_and_another_node_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert!(CoordinatorReport::all(root.path()).is_empty());
        let hsm = root.path().join("fs-MDT0000/hsm");
        std::fs::create_dir_all(&hsm).unwrap();
        std::fs::create_dir(root.path().join("exports")).unwrap();
        std::fs::write(hsm.join("archive_count"), "17\n").unwrap();
        std::fs::write(hsm.join("max_requests"), "3\n").unwrap();
        let all = CoordinatorReport::all(root.path());
        assert_eq!((all.len(), all[0].mdt.as_str()), (1, "fs-MDT0000"));
        assert_eq!(
            (all[0].archives, all[0].max_requests, all[0].restores),
            (Some(17), Some(3), None)
        );
    }
}
