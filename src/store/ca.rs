//! Certificates of a private authority.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A file of certificates that was read and can be used.
#[derive(Clone, PartialEq, Eq)]
pub struct CaBundle(Vec<u8>);

/// A file that is none.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCaBundle {
    /// It can't be read.
    #[error("can't read '{}': {source}", path.display())]
    Read {
        /// `ca_bundle`, as configured.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It has no certificate, or one that can't be an authority's.
    #[error("'{}' is no PEM file with CA certificates: {what}", path.display())]
    Content {
        /// `ca_bundle`, as configured.
        path: PathBuf,
        /// What is wrong with its certificates, in words.
        what: String,
    },
}

impl CaBundle {
    /// Reads and checks a PEM file: the HTTP client would panic on one that can't be used.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, InvalidCaBundle> {
        let pem = std::fs::read(path).map_err(|source| InvalidCaBundle::Read {
            path: path.to_owned(),
            source,
        })?;
        let content = |what: String| InvalidCaBundle::Content {
            path: path.to_owned(),
            what,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| content(error.to_string()))?;
            roots.add(certificate).map_err(|error| content(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(content("no certificate in it".into()));
        }
        Ok(Self(pem))
    }

    pub(super) fn pem(&self) -> Vec<u8> {
        self.0.clone()
    }
}

impl std::fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CaBundle({} bytes)", self.0.len())
    }
}
