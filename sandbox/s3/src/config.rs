//! What a server is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// How a [`Server`](crate::Server) is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The buckets that exist from the start.
    pub buckets: Vec<String>,
    /// The one access key that is known.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Under which directory the bodies are kept, `None` for the system's temporary one. Either way they are put in a
    /// fresh sub-directory that is removed when the server ends: nothing survives a restart.
    pub data_dir: Option<PathBuf>,
    /// Whether `If-Match` and `If-None-Match` are honoured on writes; when not, such a write is answered with 501.
    pub conditional_writes: bool,
    /// Whether they are honoured on copies; when not, they are ignored without a word.
    pub copy_conditions: bool,
    /// Whether the buckets keep old versions.
    pub versioning: bool,
    /// Whether the server knows CRC64NVME; when not, it ignores that checksum and never answers with it.
    pub full_object_checksums: bool,
    /// The most keys on a page of a listing, whatever is asked for.
    pub list_page: usize,
    /// Requests for keys that have this in them are served, and not counted: what a client makes to try the store.
    pub uncounted: String,
}

impl Config {
    pub(crate) fn is_uncounted(&self, key: &str) -> bool {
        !self.uncounted.is_empty() && key.contains(&self.uncounted)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            buckets: vec!["lhsm-sandbox".to_owned()],
            access_key: "sandbox-access".to_owned(),
            secret_key: "sandbox-secret".to_owned(),
            data_dir: None,
            conditional_writes: true,
            copy_conditions: true,
            versioning: false,
            full_object_checksums: true,
            list_page: 1000,
            uncounted: ".lhsm-s3-metadata/0x0:0x0:0x0".to_owned(),
        }
    }
}
