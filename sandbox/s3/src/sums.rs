//! Computing what is known of a body while it passes: its MD5 and its checksums.

use crc_fast::Digest;
use md5::{Digest as _, Md5};
use s3s::crypto::{Checksum as _, Sha1, Sha256};

use crate::checksum::{Kind, Value};

/// A checksum being computed.
pub(crate) enum Running {
    Crc(Kind, Digest),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Running {
    pub(crate) fn new(kind: Kind) -> Self {
        match (kind.crc(), kind) {
            (Some(algorithm), _) => Self::Crc(kind, Digest::new(algorithm)),
            (None, Kind::Sha1) => Self::Sha1(Sha1::new()),
            (None, _) => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Crc(_, digest) => digest.update(data),
            Self::Sha1(sha) => sha.update(data),
            Self::Sha256(sha) => sha.update(data),
        }
    }

    pub(crate) fn finish(self) -> Value {
        match self {
            Self::Crc(kind, digest) => Value {
                kind,
                bytes: kind.crc_bytes(digest.finalize()),
            },
            Self::Sha1(sha) => Value {
                kind: Kind::Sha1,
                bytes: sha.finalize().to_vec(),
            },
            Self::Sha256(sha) => Value {
                kind: Kind::Sha256,
                bytes: sha.finalize().to_vec(),
            },
        }
    }
}

/// Everything that is computed of a body while it is received.
pub(crate) struct Hasher {
    md5: Md5,
    crc64: Running,
    asked: Option<Running>,
}

impl Hasher {
    /// MD5 and CRC64NVME always, and what the client asked for.
    pub(crate) fn new(asked: Option<Kind>) -> Self {
        Self {
            md5: Md5::new(),
            crc64: Running::new(Kind::Crc64Nvme),
            asked: asked.filter(|&kind| kind != Kind::Crc64Nvme).map(Running::new),
        }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        self.md5.update(data);
        self.crc64.update(data);
        if let Some(asked) = &mut self.asked {
            asked.update(data);
        }
    }

    pub(crate) fn finish(self) -> Sums {
        Sums {
            md5: self.md5.finalize().into(),
            crc64: self.crc64.finish(),
            other: self.asked.map(Running::finish),
        }
    }
}

/// What was computed of a body.
#[derive(Debug, Clone)]
pub(crate) struct Sums {
    pub(crate) md5: [u8; 16],
    pub(crate) crc64: Value,
    pub(crate) other: Option<Value>,
}

impl Sums {
    /// The value of one algorithm, if it was computed.
    pub(crate) fn get(&self, kind: Kind) -> Option<&Value> {
        if kind == Kind::Crc64Nvme {
            return Some(&self.crc64);
        }
        self.other.as_ref().filter(|value| value.kind == kind)
    }

    /// The ETag of a body that is received whole.
    pub(crate) fn etag(&self) -> String {
        hex(&self.md5)
    }
}

/// The ETag of a multipart object: the MD5 of the parts' MD5s, and their number.
pub(crate) fn multipart_etag<'a>(parts: impl Iterator<Item = &'a [u8; 16]>) -> String {
    let mut md5 = Md5::new();
    let mut count = 0;
    for part in parts {
        md5.update(part);
        count += 1;
    }
    let digest: [u8; 16] = md5.finalize().into();
    format!("{}-{count}", hex(&digest))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let mut hasher = Hasher::new(Some(Kind::Crc32c));
        hasher.update(b"123456789");
        let sums = hasher.finish();
        assert_eq!(sums.etag(), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(sums.crc64.bytes, 0xae8b_1486_0a79_9888_u64.to_be_bytes());
        assert_eq!(
            sums.get(Kind::Crc32c).map(|value| value.bytes.clone()),
            Some(vec![0xe3, 0x06, 0x92, 0x83])
        );
        assert_eq!(sums.get(Kind::Sha256), None);
    }
}
