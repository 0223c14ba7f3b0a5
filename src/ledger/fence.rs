//! Fences as rows have them: of which dead movers the nodes are to be fenced, which mover sees to it, and which are.
//!
//! All of it is of one death, which the count of renewals tells from every other: nobody renews a row that was found dead, and
//! whoever claims it again counts on.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::LedgerError;
use super::link::Link;
use super::peers::{PeerRow, TAKEN};
use super::rows::Owner;

/// A fencer that has ended, or is dead itself, is none.
const READ: &str = "\
SELECT m.name, m.incarnation, m.renewals, m.fenced AND m.fence_of IS NOT DISTINCT FROM m.renewals,
    m.left_at IS NOT DISTINCT FROM m.renewals,
    CASE WHEN m.fence_of = m.renewals THEN (
        SELECT f.name FROM lhsmtool_s3.mover f WHERE f.incarnation = m.fencer AND f.state IN (1, 2) LIMIT 1) END
FROM lhsmtool_s3.mover m WHERE m.name <> $1 AND m.state = $2";

/// One gets it: the first, or who takes it over from a fencer that is none any more. Nothing is done to a node of which nothing
/// is known, to one whose mover left it in order, and to one on which another mover lives. One in the middle of a transaction is
/// looked at again.
const BEGIN: &str = "\
UPDATE lhsmtool_s3.mover d SET fencer = $4, fence_of = d.renewals, fenced = false WHERE d.name = (
    SELECT m.name FROM lhsmtool_s3.mover m
    WHERE m.name = $1 AND m.incarnation = $2 AND m.renewals = $3 AND m.state = $5
        AND m.described_by = m.incarnation AND m.left_at IS DISTINCT FROM m.renewals
        AND (m.fence_of IS DISTINCT FROM m.renewals OR (NOT m.fenced AND (m.fencer = $4 OR NOT EXISTS (
            SELECT 1 FROM lhsmtool_s3.mover f WHERE f.incarnation = m.fencer AND f.state IN (1, 2)))))
        AND NOT EXISTS (
            SELECT 1 FROM lhsmtool_s3.mover o
            WHERE o.name <> m.name AND o.state IN (1, 2) AND o.described_by = o.incarnation
                AND CASE WHEN cardinality(o.nids) > 0 AND cardinality(m.nids) > 0 THEN o.nids && m.nids
                    ELSE o.host = m.host END)
        AND EXISTS (
            SELECT 1 FROM lhsmtool_s3.mover s WHERE s.name = $6 AND s.incarnation = $4 AND s.state <> $5)
    FOR UPDATE OF m SKIP LOCKED)
RETURNING d.host, d.nids, d.client_uuid";

/// Also where another one sees to it by now, or a replica that was promoted has forgotten who does: it is done all the same.
const DONE: &str = "\
UPDATE lhsmtool_s3.mover d SET fenced = true, fencer = $4, fence_of = d.renewals WHERE d.name = (
    SELECT m.name FROM lhsmtool_s3.mover m
    WHERE m.name = $1 AND m.incarnation = $2 AND m.renewals = $3 AND m.state = $5
    FOR UPDATE OF m SKIP LOCKED)";

/// Where a mover runs, for whoever has to fence it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MoverNode {
    /// The node's name.
    pub host: String,
    /// What the servers know the node by, such as `10.0.0.7@tcp`; none: not known.
    pub nids: Vec<String>,
    /// What the servers know the mount by; `None`: not known.
    pub client_uuid: Option<String>,
}

/// What a dead mover's row says of its fence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FenceRow {
    pub(super) incarnation: i64,
    pub(super) renewals: i64,
    /// It is done.
    pub(super) is_fenced: bool,
    /// It had ended in order before somebody found it dead: its node lives.
    pub(super) has_left: bool,
    /// The living mover that sees to it.
    pub(super) fencer: Option<String>,
}

/// Those of all dead movers.
#[derive(Debug, Default)]
pub(super) struct Fences(BTreeMap<String, FenceRow>);

impl Fences {
    /// `None`: the row has changed since the peer's was read.
    pub(super) fn of(&self, peer: &PeerRow) -> Option<&FenceRow> {
        let row = self.0.get(&peer.name)?;
        ((row.incarnation, row.renewals) == (peer.incarnation, peer.renewals)).then_some(row)
    }

    pub(super) fn is_fenced(&self, peer: &PeerRow) -> bool {
        self.of(peer).is_some_and(|row| row.is_fenced)
    }

    /// It is fenced since the rows were read.
    pub(super) fn set_fenced(&mut self, peer: &PeerRow) {
        if let Some(row) = self.0.get_mut(&peer.name) {
            row.is_fenced = true;
        }
    }
}

/// `name`: whose own row is no other's.
pub(super) async fn read(link: &Link, name: &str) -> Result<Fences, LedgerError> {
    let rows = link.query(READ, &[(&name, Type::TEXT), (&TAKEN, Type::INT2)]).await?;
    let mut fences = BTreeMap::new();
    for row in &rows {
        let fence = FenceRow {
            incarnation: link.get(row, 1)?,
            renewals: link.get(row, 2)?,
            is_fenced: link.get(row, 3)?,
            has_left: link.get(row, 4)?,
            fencer: link.get(row, 5)?,
        };
        fences.insert(link.get(row, 0)?, fence);
    }
    Ok(Fences(fences))
}

/// Takes it on to fence a dead mover's node, or goes on with that. `None`: another one sees to it, or it is not to be done.
pub(super) async fn begin(link: &Link, owner: &Owner, dead: &PeerRow) -> Result<Option<MoverNode>, LedgerError> {
    let rows = link
        .query(
            BEGIN,
            &[
                (&dead.name, Type::TEXT),
                (&dead.incarnation, Type::INT8),
                (&dead.renewals, Type::INT8),
                (&owner.incarnation, Type::INT8),
                (&TAKEN, Type::INT2),
                (&owner.name, Type::TEXT),
            ],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (host, nids): (Option<String>, Option<Vec<String>>) = (link.get(row, 0)?, link.get(row, 1)?);
    Ok(Some(MoverNode {
        host: host.unwrap_or_default(),
        nids: nids.unwrap_or_default(),
        client_uuid: link.get(row, 2)?,
    }))
}

/// Says that it is done. `false`: the row is busy, or that mover has come back meanwhile.
pub(super) async fn done(link: &Link, owner: &Owner, dead: &PeerRow) -> Result<bool, LedgerError> {
    let changed = link
        .execute(
            DONE,
            &[
                (&dead.name, Type::TEXT),
                (&dead.incarnation, Type::INT8),
                (&dead.renewals, Type::INT8),
                (&owner.incarnation, Type::INT8),
                (&TAKEN, Type::INT2),
            ],
        )
        .await?;
    Ok(changed == 1)
}
