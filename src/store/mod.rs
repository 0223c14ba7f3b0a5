//! The border to S3. What comes in: keys, bodies, conditions. What goes out: what was stored, bytes,
//! errors by class. SDK types stay in here.

mod client;
mod error;
mod key;
mod location;
mod metadata;
mod target;

pub use client::{Condition, Download, ObjectInfo, Store, Stored, StoredPart, UploadId};
pub use error::{StartError, StoreError};
pub use key::{InvalidKey, KeyLayout, ObjectKey};
pub use location::{Checksum, InvalidLocation, Location};
pub use metadata::{FileMetadata, Owner};
pub use target::{ChecksumKind, Connection, Target, TargetOptions};
