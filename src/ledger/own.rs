//! The mover's own row: claimed at each connection, renewed some times in a lease, and given up at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::types::Type;

use super::LedgerError;
use super::fence::MoverNode;
use super::link::Link;
use super::peers::{GONE, PeerRow, SERVING, TAKEN};
use super::remembered::write_whole;
use super::rows::Owner;

/// Incarnations whose rows are this node's: more than two only where a daemon was killed between two writings.
const KNOWN: usize = 8;
/// Of them, once all rows name the newest: a replica that is promoted and lacks the last moment has the one before.
const SETTLED: usize = 2;
/// Before anything is known.
const NOTHING_TOLD: &str = "{}";
const LOOK: &str = "SELECT incarnation, renewals, state FROM lhsmtool_s3.mover WHERE name = $1 FOR UPDATE";
const INSERT: &str = "\
INSERT INTO lhsmtool_s3.mover
    (name, incarnation, address, archive_ids, renewals, state, release, host, nids, client_uuid, described_by, told, told_by)
VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9, $2, $10, $2)";
const TAKE: &str = "\
UPDATE lhsmtool_s3.mover SET incarnation = $2, address = $3, archive_ids = $4, renewals = renewals + 1, state = $5,
    release = $6, since = now(), host = $7, nids = $8, client_uuid = $9, described_by = $2, told = $10, told_by = $2
WHERE name = $1";
/// What a former incarnation had that nobody here knows, for its file is lost with all that this node knew of it: it is a
/// mover of its own that has gone, which serves no archives. Where it is not known soon what of it this node knows after all,
/// it is found dead as any other.
const KEEP_FORMER: &str = "\
INSERT INTO lhsmtool_s3.mover (name, incarnation, archive_ids, renewals, state, release)
SELECT $1, $2, '{}'::integer[], 0, $3, $4
WHERE EXISTS (SELECT 1 FROM lhsmtool_s3.action a WHERE a.owner = $2 AND NOT a.answered)
ON CONFLICT (name) DO NOTHING";
/// It is dead: whoever takes over from dead ones takes over what is left.
const LEAVE_FORMER: &str = "\
UPDATE lhsmtool_s3.mover SET state = $4, since = now()
WHERE name = $1 AND incarnation = $2 AND state = $3
    AND EXISTS (SELECT 1 FROM lhsmtool_s3.action a WHERE a.owner = $2 AND NOT a.answered)";
/// Not once it was found dead: it claims its row anew then, and looks at what others have taken from it.
const RENEW: &str = "\
UPDATE lhsmtool_s3.mover SET renewals = renewals + 1, address = $3, archive_ids = $5, told = $6, told_by = $2
WHERE name = $1 AND incarnation = $2 AND state <> $4";
/// Whoever finds it dead then knows that its node is not.
const LEAVE: &str = "\
UPDATE lhsmtool_s3.mover SET renewals = renewals + 1, left_at = renewals + 1, state = $3, since = now()
WHERE name = $1 AND incarnation = $2 AND state <> $4";

/// What the row says of this mover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OwnRow {
    pub(super) owner: Owner,
    pub(super) address: Option<String>,
    pub(super) archive_ids: Vec<i32>,
    /// What it tells of itself, as JSON.
    pub(super) told: String,
    node: MoverNode,
    file: PathBuf,
}

/// How a claim came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    Ours,
    /// Another one has the row, and counts its renewals.
    Held(Held),
}

/// Another one's row, as it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    incarnation: i64,
    renewals: i64,
}

impl OwnRow {
    /// A new incarnation, which knows by its file the ones before it.
    pub(super) fn new(
        name: String,
        address: Option<String>,
        archive_ids: Vec<i32>,
        node: MoverNode,
        file: PathBuf,
    ) -> Self {
        let incarnation = fastrand::i64(..);
        let mut known_as = vec![incarnation];
        known_as.extend(read(&file).into_iter().take(KNOWN));
        Self {
            owner: Owner {
                name,
                incarnation,
                known_as,
                others: Vec::new(),
            },
            address,
            archive_ids,
            told: NOTHING_TOLD.to_owned(),
            node,
            file,
        }
    }

    /// Claims the row: nobody has it, or one that this node was before, or one that has gone or was found dead. `dead`: it was seen like this
    /// a lease ago, so whoever has it doesn't live. Waits for a late transaction of an earlier connection.
    ///
    /// # Errors
    /// PostgreSQL refuses, or a file can't be written: without it a successor would have to wait for its own row.
    pub(super) async fn claim(&self, link: &Link, dead: Option<Held>) -> Result<Claim, LedgerError> {
        write(&self.file, &self.owner.known_as)?;
        let Owner { name, incarnation, .. } = &self.owner;
        link.batch("BEGIN").await?;
        let rows = link.query(LOOK, &[(name, Type::TEXT)]).await?;
        let mut former = None;
        let statement = match rows.first() {
            None => INSERT,
            Some(row) => {
                let held = Held {
                    incarnation: link.get(row, 0)?,
                    renewals: link.get(row, 1)?,
                };
                let state: i16 = link.get(row, 2)?;
                let is_known = self.owner.known_as.contains(&held.incarnation);
                if !is_known && ![GONE, TAKEN].contains(&state) && dead != Some(held) {
                    link.batch("ROLLBACK").await?;
                    return Ok(Claim::Held(held));
                }
                former = (!is_known).then_some(held.incarnation);
                TAKE
            }
        };
        link.execute(
            statement,
            &[
                (name, Type::TEXT),
                (incarnation, Type::INT8),
                (&self.address, Type::TEXT),
                (&self.archive_ids, Type::INT4_ARRAY),
                (&SERVING, Type::INT2),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                (&self.node.host, Type::TEXT),
                (&self.node.nids, Type::TEXT_ARRAY),
                (&self.node.client_uuid, Type::TEXT),
                (&self.told, Type::TEXT),
            ],
        )
        .await?;
        if let Some(former) = former {
            // From here on no row says whose it was.
            link.execute(
                KEEP_FORMER,
                &[
                    (&self.former_name(former), Type::TEXT),
                    (&former, Type::INT8),
                    (&GONE, Type::INT2),
                    (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                ],
            )
            .await?;
        }
        link.batch("COMMIT").await?;
        Ok(Claim::Ours)
    }

    /// What an incarnation is called that is in no file here.
    fn former_name(&self, incarnation: i64) -> String {
        format!("{} ({incarnation:016x})", self.owner.name)
    }

    /// Whether a mover of that name is such a one: what the journal has is none of its business.
    pub(super) fn is_former(&self, name: &str) -> bool {
        let number = name
            .strip_prefix(&self.owner.name)
            .and_then(|rest| rest.strip_prefix(" ("));
        let number = number.and_then(|rest| rest.strip_suffix(')'));
        number.is_some_and(|number| number.len() == 16 && number.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// Has what is left of an incarnation that is in no file here taken over, by whoever is first. Once what the journal has is
    /// this one's by its rows.
    ///
    /// # Errors
    /// PostgreSQL refuses.
    pub(super) async fn leave_former(&self, link: &Link, former: &PeerRow) -> Result<(), LedgerError> {
        let PeerRow { name, incarnation, .. } = former;
        let left = link
            .execute(
                LEAVE_FORMER,
                &[
                    (name, Type::TEXT),
                    (incarnation, Type::INT8),
                    (&GONE, Type::INT2),
                    (&TAKEN, Type::INT2),
                ],
            )
            .await?;
        if left > 0 {
            tracing::warn!(
                mover = name,
                "this mover had actions in hand of which its state directory knows nothing, for it is another one or was lost: \
                 they are taken over as a dead mover's, its archives and removes after a while"
            );
        }
        Ok(())
    }

    /// Its rows name it by now: those of the incarnations before it are nobody's.
    pub(super) fn settle(&mut self) -> Result<(), LedgerError> {
        self.owner.known_as.truncate(SETTLED);
        write(&self.file, &self.owner.known_as)
    }

    /// # Errors
    /// The row is another one's by now.
    pub(super) async fn renew(&self, link: &Link) -> Result<(), LedgerError> {
        let Owner { name, incarnation, .. } = &self.owner;
        let renewed = link
            .execute(
                RENEW,
                &[
                    (name, Type::TEXT),
                    (incarnation, Type::INT8),
                    (&self.address, Type::TEXT),
                    (&TAKEN, Type::INT2),
                    (&self.archive_ids, Type::INT4_ARRAY),
                    (&self.told, Type::TEXT),
                ],
            )
            .await?;
        self.was_ours(renewed)
    }

    /// Nobody has to wait for it any more.
    ///
    /// # Errors
    /// The row is another one's by now.
    pub(super) async fn leave(&self, link: &Link) -> Result<(), LedgerError> {
        let Owner { name, incarnation, .. } = &self.owner;
        let left = link
            .execute(
                LEAVE,
                &[
                    (name, Type::TEXT),
                    (incarnation, Type::INT8),
                    (&GONE, Type::INT2),
                    (&TAKEN, Type::INT2),
                ],
            )
            .await?;
        self.was_ours(left)
    }

    fn was_ours(&self, rows: u64) -> Result<(), LedgerError> {
        if rows == 1 {
            return Ok(());
        }
        Err(LedgerError::RowLost {
            name: self.owner.name.clone(),
        })
    }
}

/// Between two renewals.
pub(super) fn between(lease: Duration) -> Duration {
    lease / 4
}

/// The incarnations in a file, the newest first; none where there is no such file or it is damaged.
fn read(path: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let parsed = text.lines().map(|line| u64::from_str_radix(line, 16));
    parsed.map_while(|number| number.ok().map(u64::cast_signed)).collect()
}

/// All of it or nothing: half a line would be another incarnation.
fn write(path: &Path, incarnations: &[i64]) -> Result<(), LedgerError> {
    let text: String = incarnations.iter().map(|number| format!("{number:016x}\n")).collect();
    write_whole(path, &text).map_err(|source| LedgerError::OwnFile {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(file: &Path) -> OwnRow {
        let node = MoverNode::default();
        OwnRow::new("node1:/mnt/lustre".into(), None, vec![1], node, file.to_owned())
    }

    #[test]
    fn a_successor_knows_whose_rows_are_its_nodes_until_they_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("incarnation");
        let first = row(&file);
        assert_eq!(first.owner.known_as, [first.owner.incarnation]);
        write(&file, &first.owner.known_as).unwrap();
        let second = row(&file);
        assert_eq!(
            second.owner.known_as,
            [second.owner.incarnation, first.owner.incarnation]
        );
        write(&file, &second.owner.known_as).unwrap();
        // Killed before its rows were written: the first one's are still there.
        let mut third = row(&file);
        assert_eq!(third.owner.known_as.len(), 3);
        assert!(third.owner.known_as.contains(&first.owner.incarnation));
        third.settle().unwrap();
        assert_eq!(
            row(&file).owner.known_as[1..],
            [third.owner.incarnation, second.owner.incarnation]
        );
    }

    #[test]
    fn a_former_incarnation_that_is_in_no_file_is_called_so_that_its_mover_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        let row = row(&dir.path().join("incarnation"));
        for number in [0, 1, -1, i64::MIN] {
            assert!(row.is_former(&row.former_name(number)), "{number}");
        }
        for other in [
            "node1:/mnt/lustre",
            "node1:/mnt/lustre (2)",
            "node2:/mnt/lustre (0000000000000001)",
        ] {
            assert!(!row.is_former(other), "{other}");
        }
    }

    #[test]
    fn a_damaged_file_makes_nobody_anothers_successor() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("incarnation");
        std::fs::write(&file, "not a number\n0000000000000001\n").unwrap();
        assert_eq!(row(&file).owner.known_as.len(), 1);
    }
}
