//! Asks the MDTs' coordinators whether they run, before anything is registered.

use std::time::Duration;

use super::Mount;
use crate::action::HsmError;
use crate::types::Mdt;

/// What the MDTs' coordinators say (`mdt.*.hsm_control`), those that did not say that they run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnreadyCoordinators {
    /// Registering now would crash this node.
    pub stopped: Vec<Mdt>,
    /// No answer came in time.
    pub silent: Vec<Mdt>,
}

impl UnreadyCoordinators {
    /// Asks on each MDT whether its coordinator runs, for `patience` at most; needs no registration and leaves no trace.
    ///
    /// # Errors
    /// Another answer came: an MDT can't be reached, or this is no Lustre client.
    pub fn ask(mount: &Mount, patience: Duration) -> Result<Self, HsmError> {
        let answers = mount.ask_mdts(patience);
        let probed = Self {
            stopped: answers.stopped,
            silent: answers.silent,
        };
        match answers.refused {
            Some(error) if probed == Self::default() => Err(error),
            _ => Ok(probed),
        }
    }
}
