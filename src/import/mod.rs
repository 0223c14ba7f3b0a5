//! A bucket becomes a namespace of released files.
//!
//! In: a listing, an inventory or a list of keys. Out: directories, released files and symlinks below one target
//! directory, and a report of what could not be one. Data flows through bounded channels: listers > batches > makers;
//! memory does not grow with the bucket.

mod checkpoint;
mod crowds;
mod filter;
mod finish;
mod flow;
mod input;
pub mod inventory;
mod listers;
mod maker;
mod newest;
mod outlook;
pub mod path;
mod pipeline;
mod prune;
mod report;
mod round;
mod tree;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use crowds::Crowds;
pub use filter::Filter;
pub use finish::Finishing;
pub use flow::ImportError;
pub use input::{Input, Inventory};
pub use maker::{Defaults, Fatal, ImportContext, Maker, location_at};
pub use newest::NewestObject;
pub use path::{Refusal, TreePath};
pub use pipeline::{Import, run};
pub use prune::prune;
pub use report::{ImportCounts, Outcome, Report};
pub use tree::{Attributes, Dir, Tree};

/// Whether objects are asked for their metadata: a HEAD each costs as much as all the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum MetadataFrom {
    /// Size, ETag and time of the listing; owners and modes by default
    List,
    /// Everything that the object's metadata tells, one HEAD for each object
    Head,
}

/// Where an object's path comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paths {
    /// From its key.
    Keys,
    /// From what an archive of ours recorded, else from its key.
    Recorded,
}

/// What happens where something is in an object's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum OnConflict {
    /// It stays and counts as a failure
    Fail,
    /// It stays
    Skip,
    /// It is replaced if it is this object's file and the object changed
    Refresh,
    /// It is replaced
    Overwrite,
}
