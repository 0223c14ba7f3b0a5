//! Which uploads movers have in hand, for whoever throws old ones away: one of another mover's is in no journal here.

use std::collections::HashSet;

use tokio_postgres::types::Type;

use super::link::Link;
use super::schema::LedgerState;
use super::{LedgerError, LedgerOptions};

/// What was answered is taken away by whoever wrote it, and by nobody where that one is gone.
const AMONG: &str = "\
SELECT DISTINCT upload_id FROM lhsmtool_s3.action WHERE upload_id = ANY ($1) AND NOT answered";

/// Where to ask.
#[derive(Clone, Debug)]
pub struct UploadsInHand {
    options: LedgerOptions,
    file_system: String,
}

impl UploadsInHand {
    /// Of the movers of that file system, with its incarnation.
    #[must_use]
    pub fn new(options: &LedgerOptions, file_system: &str) -> Self {
        Self {
            options: options.clone(),
            file_system: file_system.to_owned(),
        }
    }

    /// Those of these upload ids that an action of some mover names which is not answered, by a connection of its own. In a
    /// runtime, which drives it.
    ///
    /// # Errors
    /// The ledger can't be asked, or not be used.
    pub async fn among(&self, ids: &[&str]) -> Result<HashSet<String>, LedgerError> {
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let link = Box::pin(Link::open(&self.options)).await?;
        let state = Box::pin(LedgerState::read(&link)).await?;
        state.must_be_of(Some(&self.file_system))?;
        state.must_be_usable()?;
        let rows = link.query(AMONG, &[(&ids, Type::TEXT_ARRAY)]).await?;
        rows.iter().map(|row| link.get(row, 0)).collect()
    }
}
