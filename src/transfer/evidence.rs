//! What the bytes of an object are held against. Our own record of a copy has its checksum. An object that others wrote
//! has none there: then what the store says of it is taken, the best that there is; and where there is nothing, that is
//! said once for each archive.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::{Control, Lane, Transfer, TransferError};
use crate::store::{Checksum, Evidence, EvidenceDigest, Location, Quirk, StoreError, VerifyImported};

/// Part sizes that programs use, in MiB, for stores that don't tell what parts an object was uploaded in.
const USUAL_PARTS: [u64; 14] = [5, 6, 7, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128];
/// So many sums are made at the same time, at most.
const GUESSES: usize = 4;
/// Read at a time.
const CHUNK: usize = 1 << 20;

/// What an object's bytes must be.
#[derive(Debug)]
pub(super) enum Expected {
    /// Of this checksum, which is at hand when they have come.
    Checksum(Checksum),
    /// Of this evidence, for which they are read once more; by parts of one of these sizes.
    Evidence(Evidence, Vec<u64>),
    /// Nothing is known of them.
    Unknown,
}

impl Expected {
    /// By the record, else by the store's word.
    pub(super) fn of(transfer: Transfer<'_>, from: &Location) -> Result<Self, TransferError> {
        if let Some(checksum) = from.checksum {
            return Ok(Self::Checksum(checksum));
        }
        let store = transfer.store(from.archive_id)?;
        let policy = store.target().verify_imported;
        if policy == VerifyImported::Never || from.size == 0 {
            return Ok(Self::Unknown);
        }
        let found = transfer.ask(store, async |_| {
            Ok(store.head(&from.key, from.version.as_deref()).await?)
        })?;
        if found.etag != from.etag {
            return Err(StoreError::Precondition {
                operation: "HeadObject",
            }
            .into());
        }
        if found.size != from.size {
            return Err(TransferError::Checksum {
                what: format!(
                    "the object has {} bytes, the file's record says {}",
                    found.size, from.size
                ),
            });
        }
        for evidence in found.evidence {
            if let Some(checksum) = evidence.as_checksum() {
                return Ok(Self::Checksum(checksum));
            }
            // All others cost a second reading of the bytes.
            if policy == VerifyImported::IfFree || (evidence.is_etag && store.quirks().has(Quirk::OpaqueETags)) {
                continue;
            }
            let Some(parts) = evidence.parts else {
                return Ok(Self::Evidence(evidence, Vec::new()));
            };
            let sizes = part_sizes(transfer, from, parts)?;
            if !sizes.is_empty() {
                return Ok(Self::Evidence(evidence, sizes));
            }
        }
        unproven(transfer.lane, from)?;
        Ok(Self::Unknown)
    }

    /// One for each way in which the evidence may have been made.
    pub(super) fn judges(&self, from: &Location) -> Vec<EvidenceDigest> {
        match self {
            Self::Evidence(evidence, sizes) if sizes.is_empty() => vec![evidence.judge(Some(from.size))],
            Self::Evidence(evidence, sizes) => sizes.iter().map(|size| evidence.judge(Some(*size))).collect(),
            Self::Checksum(_) | Self::Unknown => Vec::new(),
        }
    }

    /// Compares a file that was written.
    pub(super) fn compare(
        &self,
        transfer: Transfer<'_>,
        from: &Location,
        found: Checksum,
        file: &File,
    ) -> Result<(), TransferError> {
        let mut judges = self.judges(from);
        if !judges.is_empty() {
            read(transfer.control, file, &mut judges)?;
        }
        match self.judge(transfer.lane, from, found, judges) {
            Err(TransferError::Checksum { what }) => match self.by_each_part(transfer, from)? {
                Some(mut judges) => {
                    read(transfer.control, file, &mut judges)?;
                    self.judge(transfer.lane, from, found, judges).map(drop)
                }
                None => Err(TransferError::Checksum { what }),
            },
            judged => judged.map(drop),
        }
    }

    /// After bytes that do not agree: somebody may have uploaded parts of several sizes, and then each is asked for.
    /// `None`: they are of one size, or it is not told.
    pub(super) fn by_each_part(
        &self,
        transfer: Transfer<'_>,
        from: &Location,
    ) -> Result<Option<Vec<EvidenceDigest>>, TransferError> {
        let Self::Evidence(evidence, sizes) = self else {
            return Ok(None);
        };
        let (Some(parts), [first]) = (evidence.parts, &sizes[..]) else {
            return Ok(None);
        };
        let store = transfer.store(from.archive_id)?;
        let mut sizes = vec![*first];
        // The last one has what is left.
        for number in 2..i32::try_from(parts).unwrap_or(0) {
            let told = transfer.ask(store, async |_| Ok(store.size_of_part(from, number).await?));
            match told {
                Ok(size) => sizes.push(size),
                Err(TransferError::Store(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let uneven = sizes.iter().any(|size| size != first);
        Ok(uneven.then(|| vec![evidence.judge_parts(sizes)]))
    }

    /// `found`: of all bytes; `judges` have seen them. `false`: nothing proves them.
    pub(super) fn judge(
        &self,
        lane: &Lane,
        from: &Location,
        found: Checksum,
        judges: Vec<EvidenceDigest>,
    ) -> Result<bool, TransferError> {
        let what = match self {
            Self::Unknown => return Ok(false),
            Self::Checksum(expected) if *expected == found => return Ok(true),
            Self::Checksum(expected) => format!("CRC64NVME {}", expected.to_base64()),
            Self::Evidence(evidence, _) if judges.into_iter().any(EvidenceDigest::agrees) => {
                if evidence.is_etag {
                    lane.store(from.archive_id)?.saw_md5();
                }
                return Ok(true);
            }
            Self::Evidence(evidence, sizes) => {
                // The parts were guessed, or the ETag may be no sum of bytes at all: then it proves nothing.
                let guessed = sizes.len() > 1;
                if guessed || (evidence.is_etag && !lane.store(from.archive_id)?.etags_are_md5()) {
                    unproven(lane, from)?;
                    return Ok(false);
                }
                let way_out = match evidence.is_etag {
                    true => " as its ETag (if ETags are no MD5s here: verify_imported = \"if-free\")",
                    false => "",
                };
                format!("{evidence}{way_out}")
            }
        };
        Err(TransferError::Checksum {
            what: format!(
                "object {} has {what} by its record or its store, the bytes that came have CRC64NVME {}",
                from.key,
                found.to_base64()
            ),
        })
    }
}

/// The sizes that the parts of an object may have had.
fn part_sizes(transfer: Transfer<'_>, from: &Location, parts: u32) -> Result<Vec<u64>, TransferError> {
    let store = transfer.store(from.archive_id)?;
    let fits = |size: u64| size > 0 && from.size.div_ceil(size) == u64::from(parts);
    let told = transfer.ask(store, async |_| {
        match store.part_size(from).await {
            Ok(size) => Ok(size),
            Err(error) if error.is_transient() => Err(error.into()),
            // Not every store knows the question.
            Err(_) => Ok(None),
        }
    })?;
    if let Some(size) = told.filter(|size| fits(*size)) {
        return Ok(vec![size]);
    }
    let even = from.size.div_ceil(u64::from(parts)).next_multiple_of(1 << 20);
    let mut sizes: Vec<_> = USUAL_PARTS
        .iter()
        .map(|mib| mib << 20)
        .chain([even])
        .filter(|size| fits(*size))
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.truncate(GUESSES);
    // A guess is known as one by having company.
    if let [only] = sizes[..] {
        sizes.push(only);
    }
    Ok(sizes)
}

/// Shows a file to those who sum it up. It was just written: it is in the page cache.
fn read(control: &Control, file: &File, judges: &mut [EvidenceDigest]) -> Result<(), TransferError> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        if let Some(stop) = control.stopped() {
            return Err(TransferError::Stopped(stop));
        }
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                judges.iter_mut().for_each(|judge| judge.update(bytes));
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TransferError::Read(error)),
        }
    }
}

fn unproven(lane: &Lane, from: &Location) -> Result<(), TransferError> {
    if lane.store(from.archive_id)?.said_unproven() {
        tracing::warn!(
            archive = from.archive_id.get(), key = %from.key,
            "the store has no checksum of this object's bytes, and others may be like it: restores of what was imported \
             rest on size, ETag and ranges (said once)"
        );
    }
    Ok(())
}
