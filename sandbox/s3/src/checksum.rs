//! The checksums of S3: their names, their values, and those of an object from those of its parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;

use crate::sums::Running;

/// A checksum algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Crc64Nvme,
    Crc32,
    Crc32c,
    Sha1,
    Sha256,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Crc64Nvme, Self::Crc32, Self::Crc32c, Self::Sha1, Self::Sha256];

    /// As `x-amz-checksum-algorithm` spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc64Nvme => "CRC64NVME",
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header, or trailer, that carries it.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn from_header(header: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.header().eq_ignore_ascii_case(header.trim()))
    }

    /// The CRC it is, if it is one: those of parts can be combined into that of the whole.
    pub(crate) fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// A CRC as the bytes that go on the wire.
    pub(crate) fn crc_bytes(self, crc: u64) -> Vec<u8> {
        let bytes = crc.to_be_bytes();
        match self {
            Self::Crc64Nvme => bytes.to_vec(),
            _ => bytes[4..].to_vec(),
        }
    }
}

/// The value of a checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

impl Value {
    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(&self.bytes)
    }

    fn crc_number(&self) -> u64 {
        self.bytes
            .iter()
            .fold(0, |number, &byte| (number << 8) | u64::from(byte))
    }
}

/// A checksum as it is answered: its text, and whether it is that of the whole or one of the parts' checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) scope: &'static str,
}

impl Shown {
    pub(crate) fn whole(value: &Value) -> Self {
        Self {
            kind: value.kind,
            text: value.base64(),
            scope: s3s::dto::ChecksumType::FULL_OBJECT,
        }
    }

    /// The CRC of the whole from those of its parts, each with its length.
    pub(crate) fn combined(kind: Kind, parts: &[(Value, u64)]) -> Option<Self> {
        let algorithm = kind.crc()?;
        let crc = parts
            .iter()
            .map(|(value, length)| (value.crc_number(), *length))
            .reduce(|(left, before), (right, length)| {
                (
                    crc_fast::checksum_combine(algorithm, left, right, length),
                    before + length,
                )
            })?
            .0;
        Some(Self::whole(&Value {
            kind,
            bytes: kind.crc_bytes(crc),
        }))
    }

    /// The checksum of the parts' checksums, followed by their number.
    pub(crate) fn composite(kind: Kind, parts: &[(Value, u64)]) -> Self {
        let mut running = Running::new(kind);
        for (value, _) in parts {
            running.update(&value.bytes);
        }
        let text = format!("{}-{}", running.finish().base64(), parts.len());
        Self {
            kind,
            text,
            scope: s3s::dto::ChecksumType::COMPOSITE,
        }
    }

    pub(crate) fn scope(shown: Option<&Self>) -> Option<s3s::dto::ChecksumType> {
        shown.map(|shown| s3s::dto::ChecksumType::from_static(shown.scope))
    }
}

/// The checksums that the fields of an input carry, as `(Kind, text)`.
macro_rules! claims {
    ($input:expr) => {
        [
            ($crate::checksum::Kind::Crc64Nvme, $input.checksum_crc64nvme.clone()),
            ($crate::checksum::Kind::Crc32, $input.checksum_crc32.clone()),
            ($crate::checksum::Kind::Crc32c, $input.checksum_crc32c.clone()),
            ($crate::checksum::Kind::Sha1, $input.checksum_sha1.clone()),
            ($crate::checksum::Kind::Sha256, $input.checksum_sha256.clone()),
        ]
        .into_iter()
        .filter_map(|(kind, text)| Some((kind, text?)))
    };
}

/// Puts a checksum in the field of an output that is its own.
macro_rules! show {
    ($output:expr, $shown:expr) => {
        if let Some(shown) = $shown {
            let field = match shown.kind {
                $crate::checksum::Kind::Crc64Nvme => &mut $output.checksum_crc64nvme,
                $crate::checksum::Kind::Crc32 => &mut $output.checksum_crc32,
                $crate::checksum::Kind::Crc32c => &mut $output.checksum_crc32c,
                $crate::checksum::Kind::Sha1 => &mut $output.checksum_sha1,
                $crate::checksum::Kind::Sha256 => &mut $output.checksum_sha256,
            };
            *field = Some(shown.text.clone());
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combined_equals_computed_at_once() {
        let (left, right) = (vec![7; 1000], vec![9; 333]);
        for kind in [Kind::Crc64Nvme, Kind::Crc32, Kind::Crc32c] {
            let sum = |data: &[u8]| {
                let mut running = Running::new(kind);
                running.update(data);
                running.finish()
            };
            let parts = [(sum(&left), 1000), (sum(&right), 333)];
            let whole = Shown::whole(&sum(&[left.clone(), right.clone()].concat()));
            assert_eq!(Shown::combined(kind, &parts), Some(whole));
        }
    }
}
