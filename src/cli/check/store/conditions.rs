//! Whether a store keeps its word on writes that demand something of their key, and what is made of that.

use std::time::Duration;

use super::{Probe, Rows};
use crate::store::{ConditionTest, ConditionTests, Conditions, StoreError};

const FIX: &str = "a store without them is looked at before each write; let no other program write below this prefix";
const DENIED: &str = "each archive looks at its key first, which is one request more: allow PutObject, GetObject, DeleteObject \
                      and AbortMultipartUpload below PREFIX.lhsm-s3-metadata/";
/// Some fifteen small requests.
const PATIENCE: Duration = Duration::from_secs(30);

impl Probe<'_> {
    pub(super) fn conditions(&self, rows: &mut Rows) {
        let what = self.what("conditional writes");
        if self.options.conditions == Conditions::Look {
            return rows.pass(
                what,
                "conditions = \"look\": keys are looked at before they are written, whatever the store heeds",
            );
        }
        let Ok(store) = self.lane.store(self.archive_id) else {
            return;
        };
        let trial = async { tokio::time::timeout(PATIENCE, Box::pin(store.try_conditions())).await };
        match self.lane.block_on(trial) {
            Ok(Ok(heeds)) => self.heeds(&heeds, rows),
            Ok(Err(error @ StoreError::Denied { .. })) => {
                rows.warn(what, format!("they can't be tried: {error}"), DENIED)
            }
            Ok(Err(error)) => rows.warn(what, format!("they can't be tried: {error}"), FIX),
            Err(_) => rows.warn(what, "they can't be tried: the store does not answer", FIX),
        }
    }

    fn heeds(&self, heeds: &ConditionTests, rows: &mut Rows) {
        let mut first = None;
        for (name, heed) in heeds.rows() {
            let what = self.what(name);
            let found = match heed {
                ConditionTest::Heeded => {
                    rows.pass(what, "heeded");
                    continue;
                }
                ConditionTest::Ignored => "ignored: it was done although it should not".to_owned(),
                ConditionTest::Refused(why) => why.clone(),
            };
            if name.ends_with("DeleteObject") {
                rows.warn(
                    what,
                    found,
                    "nothing needs to be done: each delete is preceded by a look",
                );
            } else {
                first.get_or_insert_with(|| format!("{name}: {found}"));
                rows.warn(what, found, FIX);
            }
        }
        let what = self.what("conditional writes");
        match (first, self.options.conditions) {
            (None, _) => rows.pass(what, "they are relied on"),
            (Some(lack), Conditions::Require) => rows.fail(
                what,
                format!("{lack}; and conditions = \"require\""),
                "the daemon refuses this store: use another one, or set conditions = \"auto\"",
            ),
            (Some(lack), Conditions::Auto | Conditions::Look) => {
                rows.warn(what, format!("{lack}; keys are looked at before they are written"), FIX)
            }
        }
    }
}
