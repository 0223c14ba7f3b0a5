//! Checksums of what is sent: the one that the store verifies, and CRC-64/NVME, which goes on record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};

use super::Checksum;

/// The checksum that the store verifies on arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumKind {
    /// Over the whole object, also of a multipart upload.
    #[default]
    Crc64Nvme,
    /// Per part, for stores without CRC64NVME.
    Crc32c,
    /// Per part, where policy asks for a cryptographic one; costs four times as much as the rest of a request.
    Sha256,
    /// Only the size is compared.
    None,
}

impl ChecksumKind {
    /// As the header, or the trailer, is called.
    pub(super) const fn header(self) -> Option<&'static str> {
        match self {
            Self::Crc64Nvme => Some("x-amz-checksum-crc64nvme"),
            Self::Crc32c => Some("x-amz-checksum-crc32c"),
            Self::Sha256 => Some("x-amz-checksum-sha256"),
            Self::None => None,
        }
    }

    /// Bytes of its value in base64.
    pub(super) const fn encoded_length(self) -> u64 {
        match self {
            Self::Crc64Nvme => 12,
            Self::Crc32c => 8,
            Self::Sha256 => 44,
            Self::None => 0,
        }
    }
}

/// A checksum as it goes over the wire.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    pub(super) kind: ChecksumKind,
    /// Base64.
    pub(super) value: String,
}

/// Sums up bytes as they are sent.
pub struct ProofDigest {
    kind: ChecksumKind,
    crc64: Digest,
    wire: Wire,
}

enum Wire {
    None,
    Crc64,
    Crc32c(Digest),
    Sha256(ring::digest::Context),
}

impl std::fmt::Debug for ProofDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prover({:?})", self.kind)
    }
}

impl ProofDigest {
    /// Of nothing yet.
    #[must_use]
    pub fn new(kind: ChecksumKind) -> Self {
        Self {
            kind,
            crc64: Digest::new(CrcAlgorithm::Crc64Nvme),
            wire: match kind {
                ChecksumKind::Crc64Nvme => Wire::Crc64,
                ChecksumKind::Crc32c => Wire::Crc32c(Digest::new(CrcAlgorithm::Crc32Iscsi)),
                ChecksumKind::Sha256 => Wire::Sha256(ring::digest::Context::new(&ring::digest::SHA256)),
                ChecksumKind::None => Wire::None,
            },
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc64.update(bytes);
        match &mut self.wire {
            Wire::None | Wire::Crc64 => {}
            Wire::Crc32c(digest) => digest.update(bytes),
            Wire::Sha256(context) => context.update(bytes),
        }
    }

    /// CRC-64/NVME of all so far.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        Checksum(self.crc64.finalize())
    }

    /// What the store is to compare with; `None` where it compares nothing.
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        let value = match &self.wire {
            Wire::None => return None,
            Wire::Crc64 => self.checksum().to_base64(),
            // The upper half of the digest's number is 0: CRC-32.
            Wire::Crc32c(digest) => STANDARD.encode(&digest.finalize().to_be_bytes()[4..]),
            Wire::Sha256(context) => STANDARD.encode(context.clone().finish().as_ref()),
        };
        Some(Proof { kind: self.kind, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_gives_the_value_that_s3_documents_for_the_test_string() {
        // "123456789": CRC-64/NVME ae8b14860a799888, CRC-32C e3069283 (the catalogue of parametrised CRCs).
        for (kind, expected) in [
            (ChecksumKind::Crc64Nvme, Some("rosUhgp5mIg=")),
            (ChecksumKind::Crc32c, Some("4waSgw==")),
            (
                ChecksumKind::Sha256,
                Some("FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
            ),
            (ChecksumKind::None, None),
        ] {
            let mut prover = ProofDigest::new(kind);
            prover.update(b"12345");
            prover.update(b"6789");
            let proof = prover.proof();
            assert_eq!(proof.as_ref().map(|proof| proof.value.as_str()), expected, "{kind:?}");
            let length = proof.map_or(0, |proof| proof.value.len() as u64);
            assert_eq!(length, kind.encoded_length(), "{kind:?}");
        }
    }
}
