//! Whether a mover may do what its successor could not put right: another one may have taken over what it has in hand, while
//! it was not heard of.

use std::sync::Arc;

use super::state::Shared;

/// Asked before an action is answered with an error, and before a copy is removed. What completes needs none.
#[derive(Clone, Debug)]
pub struct Warrant(Arc<Shared>);

impl Warrant {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// The mover has renewed its row within the lease, so nobody takes it for dead. Or there is nobody who could, as far as it
    /// has ever seen; or none of them has the ledger either.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.is_warranted()
    }
}
