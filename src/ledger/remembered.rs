//! Which other movers there were when the ledger was there last, in a plain file beside the journal: a daemon that is started
//! while the ledger is away is not alone for that.

use std::io;
use std::path::{Path, PathBuf};

use super::LedgerError;
use super::peers::{PeerRow, SERVING};

/// The file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Remembered {
    path: PathBuf,
    /// As it is, where that is known.
    written: Option<String>,
}

impl Remembered {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    /// As rows that no ledger has: of an incarnation that nobody is. None where there is no such file.
    pub(super) fn read(&mut self) -> Vec<PeerRow> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let rows = text.lines().filter_map(|line| {
            let (address, name) = line.split_once('\t')?;
            Some(PeerRow {
                name: name.to_owned(),
                incarnation: 0,
                renewals: 0,
                state: SERVING,
                address: (!address.is_empty()).then(|| address.to_owned()),
            })
        });
        let rows = rows.collect();
        self.written = Some(text);
        rows
    }

    /// Writes down those that live, where they are others than before.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write<'a>(&mut self, living: impl Iterator<Item = &'a PeerRow>) -> Result<(), LedgerError> {
        let lines = living.filter(|row| !row.name.contains('\n'));
        let text: String = lines
            .map(|row| format!("{}\t{}\n", row.address.as_deref().unwrap_or_default(), row.name))
            .collect();
        if self.written.as_ref() == Some(&text) {
            return Ok(());
        }
        write_whole(&self.path, &text).map_err(|source| LedgerError::OwnFile {
            path: self.path.clone(),
            source,
        })?;
        self.written = Some(text);
        Ok(())
    }
}

/// Writes a file: all of it or nothing.
pub(super) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_lived_are_known_to_a_successor_with_their_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Remembered::new(dir.path().join("peers"));
        assert_eq!(file.read(), []);
        let peer = |name: &str, address: Option<&str>| PeerRow {
            name: name.into(),
            incarnation: 7,
            renewals: 9,
            state: SERVING,
            address: address.map(str::to_owned),
        };
        let rows = [
            peer("node1:/mnt/a b", Some("10.0.0.1:9818")),
            peer("node2:/mnt/lustre", None),
        ];
        file.write(rows.iter()).unwrap();
        let found = Remembered::new(dir.path().join("peers")).read();
        assert_eq!(found.len(), 2);
        for (found, row) in found.iter().zip(&rows) {
            assert_eq!((&found.name, &found.address), (&row.name, &row.address));
            assert_ne!(found, row, "the ledger's own row is news");
        }
        file.write(rows[1..].iter()).unwrap();
        assert_eq!(Remembered::new(dir.path().join("peers")).read().len(), 1);
    }
}
