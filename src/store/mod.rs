//! The border to S3. What comes in: keys, bodies, conditions. What goes out: what was stored, bytes,
//! errors by class. SDK types stay in here.

mod ca;
mod choices;
mod client;
mod connection;
mod copy;
mod credentials;
mod error;
mod key;
mod limits;
mod list;
mod listing;
mod location;
mod metadata;
mod multipart;
mod object;
mod payload;
mod proof;
mod requests;
mod target;
mod targets;
mod told;

pub use ca::{CaBundle, InvalidCaBundle};
pub use choices::{Choices, CustomerKey, Encryption, Thaw, ThawTier};
pub use client::Store;
pub use connection::{Connections, check_proxy};
pub use error::{StartError, StoreError};
pub use key::{InvalidKey, KeyLayout, ObjectKey};
pub use limits::{Bandwidth, Limits, Pace, Trouble};
pub use list::{Entry, From as ListFrom, Page, Query};
pub use listing::{Circle, Listing, hash};
pub use location::{Checksum, InvalidLocation, Location};
pub use metadata::{COOKIE, FileMetadata, Owner, sidecar_of};
pub use multipart::{ListedUpload, SentPart, StoredPart, UploadId};
pub use object::{Condition, Download, ObjectInfo, Stored};
pub use payload::Payload;
pub use proof::{ChecksumKind, Proof, Prover};
pub use requests::{Operation, Requests};
pub use target::{Target, TargetOptions};
pub use targets::Targets;
pub use told::Told;
