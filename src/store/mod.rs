//! The border to S3. What comes in: keys, bodies, conditions. What goes out: what was stored, bytes,
//! errors by class. SDK types stay in here.

mod answer;
mod attributes;
mod aws_environment;
mod bandwidth;
mod ca;
mod choices;
mod client;
mod connection;
mod copy;
mod credential_watcher;
mod credentials;
mod error;
mod etag;
mod evidence;
mod headers;
mod identity;
mod key;
mod limits;
mod list;
mod listing;
mod location;
mod lock;
#[cfg(test)]
pub(crate) mod memory;
mod metadata;
mod multipart;
mod object;
mod page;
mod payload;
mod probe;
mod proof;
mod quirks;
mod requests;
mod target;
mod targets;
mod wire_form;

pub use attributes::ParsedAttributes;
pub use aws_environment::{AwsEnvironment, SourcedValue};
pub use bandwidth::{BandwidthLimit, LimitScope};
pub use ca::{CaBundle, InvalidCaBundle};
pub use choices::{Conditions, CustomerKey, Encryption, ObjectOptions, Thaw, ThawTier, VerifyImported};
pub use client::Store;
pub use connection::{Connections, check_proxy};
pub use error::{StartError, StoreError, Whose};
pub use evidence::{Algorithm, Evidence, EvidenceDigest};
pub use identity::{
    COOKIE, Claim, Identity, Origin, Owner, WriteAttempt, WriterId, data_version_of, name_key, note_data_version,
};
pub use key::{InvalidKey, KeyAt, KeyLayout, ObjectKey, Records};
pub use limits::{Bandwidth, Limits, Pace, Reach, Trouble};
pub use list::ListedVersion;
pub use listing::{CycleDetector, Listing, hash};
pub use location::{Checksum, InvalidLocation, Location};
pub use metadata::{FileMetadata, sidecar_of};
pub use multipart::{ListedPart, ListedUpload, SentPart, StoredPart, UploadId};
pub use object::{Condition, Download, Expiry, ObjectInfo, StoredObject, Thawing};
pub use page::{Entry, From as ListFrom, Page, Query};
pub use payload::Payload;
pub use probe::{ConditionTest, ConditionTests};
pub use proof::{ChecksumKind, Proof, ProofDigest};
pub use quirks::{Quirk, Quirks};
pub use requests::{Operation, Requests};
pub use target::{Target, TargetOptions};
pub use targets::Targets;
