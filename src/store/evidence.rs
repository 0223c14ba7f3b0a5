//! What a store says of an object's bytes, for objects that we did not write: checksums of all kinds, of the whole or of
//! its parts, and ETags that are MD5s. The bytes of a restored file are held against the best of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest};
use md5::{Digest as _, Md5};

use super::{Checksum, etag};

/// How bytes are summed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// CRC-64/NVME.
    Crc64Nvme,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// SHA-512.
    Sha512,
    /// SHA-256.
    Sha256,
    /// SHA-1.
    Sha1,
    /// MD5, as a checksum or as the ETag.
    Md5,
}

impl Algorithm {
    const fn length(self) -> usize {
        match self {
            Self::Crc64Nvme => 8,
            Self::Crc32c | Self::Crc32 => 4,
            Self::Sha512 => 64,
            Self::Sha256 => 32,
            Self::Sha1 => 20,
            Self::Md5 => 16,
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Crc64Nvme => "CRC64NVME",
            Self::Crc32c => "CRC32C",
            Self::Crc32 => "CRC32",
            Self::Sha512 => "SHA512",
            Self::Sha256 => "SHA256",
            Self::Sha1 => "SHA1",
            Self::Md5 => "MD5",
        })
    }
}

/// One thing that a store says of an object's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// How they are summed up.
    pub algorithm: Algorithm,
    /// The sum, or that of the parts' sums.
    value: Vec<u8>,
    /// How many parts were summed up each by itself; `None`: all bytes at once.
    pub parts: Option<u32>,
    /// It is the ETag: only most stores make it of the bytes.
    pub is_etag: bool,
}

impl Evidence {
    /// From a checksum's header: base64, with `-N` behind it where it is one of parts.
    #[must_use]
    pub fn from_header(algorithm: Algorithm, text: &str, composite: bool) -> Option<Self> {
        let (text, parts) = match text.split_once('-') {
            Some((text, parts)) => (text, Some(parts.parse().ok().filter(|parts| *parts > 0)?)),
            // How many is not told: of one part it may be the sum of the sum.
            None if composite => return None,
            None => (text, None),
        };
        let value = STANDARD.decode(text).ok()?;
        (value.len() == algorithm.length()).then_some(Self {
            algorithm,
            value,
            parts,
            is_etag: false,
        })
    }

    /// From an ETag that may be an MD5, or that of the parts' MD5s.
    #[must_use]
    pub fn from_etag(etag: &str) -> Option<Self> {
        let (digits, parts) = match etag::bare(etag).split_once('-') {
            Some((digits, parts)) => (digits, Some(parts.parse().ok().filter(|parts| *parts > 0)?)),
            None => (etag::bare(etag), None),
        };
        let value: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
            .collect::<Option<_>>()?;
        (value.len() == Algorithm::Md5.length()).then_some(Self {
            algorithm: Algorithm::Md5,
            value,
            parts,
            is_etag: true,
        })
    }

    /// As our own records have it; `None` for any other.
    #[must_use]
    pub fn as_checksum(&self) -> Option<Checksum> {
        let bytes: [u8; 8] = self.value.as_slice().try_into().ok()?;
        (self.algorithm == Algorithm::Crc64Nvme && self.parts.is_none()).then(|| Checksum(u64::from_be_bytes(bytes)))
    }

    /// One who is shown all bytes in their order. `part_size`: of the parts that were summed up, but for the last.
    #[must_use]
    pub fn judge(&self, part_size: Option<u64>) -> EvidenceDigest {
        let part_size = part_size.filter(|_| self.parts.is_some());
        EvidenceDigest {
            evidence: self.clone(),
            in_parts: part_size.is_some(),
            part_size,
            later: None,
            sum: Sum::new(self.algorithm),
            of_part: 0,
            sums: Vec::new(),
        }
    }

    /// The same where the parts are of several sizes: these, and what is left over.
    #[must_use]
    pub fn judge_parts(&self, sizes: Vec<u64>) -> EvidenceDigest {
        let mut later = sizes.into_iter();
        EvidenceDigest {
            part_size: later.next(),
            in_parts: true,
            later: Some(later),
            ..self.judge(None)
        }
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.algorithm, STANDARD.encode(&self.value))?;
        match self.parts {
            Some(parts) => write!(f, " of {parts} parts"),
            None => Ok(()),
        }
    }
}

/// Sums up bytes as the store did.
#[derive(Debug)]
pub struct EvidenceDigest {
    evidence: Evidence,
    in_parts: bool,
    /// Of this part; `None`: to the end.
    part_size: Option<u64>,
    /// Of the parts behind it; `None`: the same.
    later: Option<std::vec::IntoIter<u64>>,
    sum: Sum,
    /// Bytes of the part so far.
    of_part: u64,
    /// Of the parts before.
    sums: Vec<u8>,
}

impl EvidenceDigest {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while let Some(part_size) = self.part_size {
            let left = part_size - self.of_part;
            let Some((here, rest)) = usize::try_from(left).ok().and_then(|left| bytes.split_at_checked(left)) else {
                break;
            };
            // The last part may be full, too: it is closed at the end.
            if rest.is_empty() {
                break;
            }
            self.sum.update(here);
            self.close_part();
            bytes = rest;
        }
        self.sum.update(bytes);
        self.of_part += bytes.len() as u64;
    }

    fn close_part(&mut self) {
        let whole = std::mem::replace(&mut self.sum, Sum::new(self.evidence.algorithm));
        self.sums.extend(whole.finish());
        self.of_part = 0;
        if let Some(later) = &mut self.later {
            self.part_size = later.next();
        }
    }

    /// Whether the bytes were those of the evidence.
    #[must_use]
    pub fn agrees(mut self) -> bool {
        if !self.in_parts {
            return self.sum.finish() == self.evidence.value;
        }
        self.close_part();
        let mut of_sums = Sum::new(self.evidence.algorithm);
        of_sums.update(&self.sums);
        of_sums.finish() == self.evidence.value
    }
}

enum Sum {
    Crc(Digest, usize),
    Ring(ring::digest::Context),
    Md5(Box<Md5>),
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sum")
    }
}

impl Sum {
    fn new(algorithm: Algorithm) -> Self {
        let crc = |kind| Self::Crc(Digest::new(kind), algorithm.length());
        match algorithm {
            Algorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
            Algorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Sha512 => Self::Ring(ring::digest::Context::new(&ring::digest::SHA512)),
            Algorithm::Sha256 => Self::Ring(ring::digest::Context::new(&ring::digest::SHA256)),
            Algorithm::Sha1 => Self::Ring(ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY)),
            Algorithm::Md5 => Self::Md5(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(digest, _) => digest.update(bytes),
            Self::Ring(context) => context.update(bytes),
            Self::Md5(md5) => md5.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            // A CRC of 32 bits is in the lower half of the digest's number.
            Self::Crc(digest, length) => {
                let bytes = digest.finalize().to_be_bytes();
                bytes.into_iter().skip(8 - length).collect()
            }
            Self::Ring(context) => context.finish().as_ref().to_vec(),
            Self::Md5(md5) => md5.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: &[u8] = b"123456789";

    fn agrees(evidence: &Evidence, part_size: Option<u64>, pieces: &[&[u8]]) -> bool {
        let mut judge = evidence.judge(part_size);
        pieces.iter().for_each(|piece| judge.update(piece));
        judge.agrees()
    }

    #[test]
    fn bytes_are_proved_by_each_checksum_that_s3_has_and_by_an_md5() {
        // Of "123456789", by the catalogue of parametrised CRCs and coreutils' sums.
        for (algorithm, value) in [
            (Algorithm::Crc64Nvme, "rosUhgp5mIg="),
            (Algorithm::Crc32c, "4waSgw=="),
            (Algorithm::Crc32, "y/Q5Jg=="),
            (Algorithm::Sha256, "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
            (Algorithm::Sha1, "98O8HYCOBHMq32eZZczDTKeuNEE="),
            (Algorithm::Md5, "JfnnlDI7RTiF9RgfG2JNCw=="),
        ] {
            let evidence = Evidence::from_header(algorithm, value, false).unwrap();
            assert!(agrees(&evidence, None, &[b"1234", b"", b"56789"]), "{algorithm}");
            assert!(!agrees(&evidence, None, &[b"123456780"]), "{algorithm}");
        }
        let etag: String = Md5::digest(BYTES).iter().map(|byte| format!("{byte:02x}")).collect();
        let evidence = Evidence::from_etag(&format!("\"{etag}\"")).unwrap();
        assert!(evidence.is_etag && agrees(&evidence, None, &[BYTES]));
    }

    #[test]
    fn a_sum_of_parts_is_proved_where_the_parts_are_known() {
        let of = |parts: &[&[u8]]| {
            let sums: Vec<u8> = parts.iter().flat_map(Md5::digest).collect();
            let whole: String = Md5::digest(sums).iter().map(|byte| format!("{byte:02x}")).collect();
            Evidence::from_etag(&format!("\"{whole}-{}\"", parts.len())).unwrap()
        };
        for (parts, size) in [
            (vec![&b"1234"[..], b"5678", b"9"], 4),
            (vec![b"123", b"456", b"789"], 3),
            (vec![BYTES], 9),
        ] {
            let evidence = of(&parts);
            assert!(agrees(&evidence, Some(size), &[BYTES]), "{size}");
            assert!(agrees(&evidence, Some(size), &[b"1", b"2345", b"678", b"9"]), "{size}");
            assert!(!agrees(&evidence, Some(size), &[b"123456788"]), "{size}");
        }
        assert!(!agrees(&of(&[b"1234", b"56789"]), Some(3), &[BYTES]), "other parts");
        let uneven = of(&[b"12", b"34567", b"89"]);
        let cuts: [&[&[u8]]; 2] = [&[BYTES], &[b"1", b"2345", b"678", b"9"]];
        for pieces in cuts {
            let agrees = |sizes: &[u64]| {
                let mut judge = uneven.judge_parts(sizes.to_vec());
                pieces.iter().for_each(|piece| judge.update(piece));
                judge.agrees()
            };
            assert!(agrees(&[2, 5]) && agrees(&[2, 5, 2]));
            assert!(!agrees(&[2, 4]) && !agrees(&[2]));
        }
    }

    #[test]
    fn what_is_no_sum_of_bytes_is_no_evidence() {
        assert_eq!(Evidence::from_header(Algorithm::Crc32c, "4waSgw==", true), None);
        assert_eq!(Evidence::from_header(Algorithm::Crc32c, "rosUhgp5mIg=", false), None);
        assert_eq!(Evidence::from_header(Algorithm::Crc32c, "4waSgw==-0", true), None);
        assert_eq!(
            Evidence::from_header(Algorithm::Crc32c, "4waSgw==-3", true)
                .unwrap()
                .parts,
            Some(3)
        );
        for etag in [
            "\"abc\"",
            "",
            "\"0cc175b9c0f1b6a831c399e26977266\u{e9}\"",
            "\"0cc175b9c0f1b6a831c399e269772661-x\"",
        ] {
            assert_eq!(Evidence::from_etag(etag), None, "{etag}");
        }
    }
}
