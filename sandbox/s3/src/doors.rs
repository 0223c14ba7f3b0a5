//! What tests say by the back door about keys, tokens and the region.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A bucket and a key in it.
type Name = (String, String);

#[derive(Debug, Default)]
struct State {
    denied: BTreeSet<Name>,
    expiring: BTreeSet<Name>,
    expired: BTreeSet<String>,
    region: Option<String>,
}

/// What was said by the back door.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    state: Mutex<State>,
}

impl Doors {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn deny(&self, bucket: &str, key: &str) {
        self.state().denied.insert(name(bucket, key));
    }

    pub(crate) fn allow(&self, bucket: &str, key: &str) {
        self.state().denied.remove(&name(bucket, key));
    }

    pub(crate) fn is_denied(&self, bucket: &str, key: &str) -> bool {
        self.state().denied.contains(&name(bucket, key))
    }

    pub(crate) fn expire_object(&self, bucket: &str, key: &str) {
        self.state().expiring.insert(name(bucket, key));
    }

    /// Whether an object is about to expire. Where none was named, `otherwise` holds for all.
    pub(crate) fn is_expiring(&self, bucket: &str, key: &str, otherwise: bool) -> bool {
        let state = self.state();
        state.expiring.contains(&name(bucket, key)) || (otherwise && state.expiring.is_empty())
    }

    pub(crate) fn expire_token(&self, token: &str) {
        self.state().expired.insert(token.to_owned());
    }

    /// Whether one of these has expired.
    pub(crate) fn is_expired(&self, tokens: &[&str]) -> bool {
        let state = self.state();
        tokens.iter().any(|&token| state.expired.contains(token))
    }

    pub(crate) fn set_region(&self, region: &str) {
        self.state().region = Some(region.to_owned());
    }

    /// The region that was named, else one that is seldom anybody's default.
    pub(crate) fn region(&self) -> String {
        let region = self.state().region.clone();
        region.unwrap_or_else(|| "eu-central-1".to_owned())
    }
}

fn name(bucket: &str, key: &str) -> Name {
    (bucket.to_owned(), key.to_owned())
}
