//! A sequence of each MDT, kept for the next start: one line for each, behind the name of the file system.
//!
//! Lost or damaged it is made anew; that one file is then made on each MDT is all that it costs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::types::{Fid, Mdt};

/// What is there for that file system.
pub(super) fn read(file: &Path, file_system: &str) -> Vec<(Mdt, Fid)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(file_system) {
        return Vec::new();
    }
    let each = lines.filter_map(|line| {
        let (mdt, fid) = line.split_once(' ')?;
        Some((Mdt(mdt.parse().ok()?), fid.parse().ok()?))
    });
    each.collect()
}

/// Replaces what is there.
pub(super) fn write(file: &Path, file_system: &str, fids: &BTreeMap<Mdt, Fid>) {
    let mut text = format!("{file_system}\n");
    for (mdt, fid) in fids {
        // Into memory.
        let _never = writeln!(text, "{} {fid}", mdt.0);
    }
    let beside = file.with_extension("new");
    if let Err(error) = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, file)) {
        tracing::debug!(%error, file = %file.display(), "not kept for the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_for_the_same_file_system_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mdts");
        let fid = Fid {
            seq: 0x2_4000_0401,
            oid: 7,
            ver: 0,
        };
        assert!(read(&file, "fs:1").is_empty());
        write(&file, "fs:1", &BTreeMap::from([(Mdt(0), Fid::ROOT), (Mdt(31), fid)]));
        assert_eq!(read(&file, "fs:1"), [(Mdt(0), Fid::ROOT), (Mdt(31), fid)]);
        assert!(read(&file, "fs:2").is_empty());
        std::fs::write(&file, "fs:1\nx [0x1]\n3 [0x240000401:0x1:0x0]\n").unwrap();
        assert_eq!(read(&file, "fs:1").len(), 1);
    }
}
