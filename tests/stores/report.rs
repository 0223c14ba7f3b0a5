//! What a run found of its store, for the table in docs/stores.md: a line for each row, tabs between store, row, finding
//! and what is done then. Written when `LHSM_STORES_REPORT` names a file; `cargo xtask stores-table` reads it.

use std::fs::File;
use std::io::Write as _;

use crate::store::Store;

impl Store {
    /// A promise that was kept.
    pub(crate) fn kept(&self, row: &str) {
        self.tell(row, "yes", "");
    }

    /// A finding; `then`: what we do where it is not as it should be.
    pub(crate) fn tell(&self, row: &str, finding: &str, then: &str) {
        let Some(path) = std::env::var_os("LHSM_STORES_REPORT") else {
            return;
        };
        let cell = |text: &str| text.replace(['\t', '\n', '|'], " ");
        let line = [self.name(), cell(row), cell(finding), cell(then)].join("\t");
        let mut report = File::options().create(true).append(true).open(path).unwrap();
        // One write: tests end side by side.
        report.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}
