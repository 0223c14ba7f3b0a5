//! How a file is cut into requests: a pure function of its size.

use std::num::NonZeroU64;

use crc_fast::{CrcAlgorithm, checksum_combine};

use crate::store::Checksum;

/// S3's limits (the same at every store that calls itself compatible).
const MAX_PARTS: u64 = 10_000;
const MIN_PART: u64 = 5 << 20;
const MAX_PART: u64 = 5 << 30;
const MAX_OBJECT: u64 = MAX_PARTS * MAX_PART;
/// Parts are whole numbers of these: the stripe sizes of Lustre are, too.
const STEP: u64 = 1 << 20;

/// Where to cut, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanOptions {
    /// Files up to this size are one request.
    pub threshold: u64,
    /// Size of a part, unless the file needs larger ones.
    pub part_size: u64,
}

/// The requests for one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// All of it at once; also the empty file.
    Single {
        /// Bytes of the file.
        size: u64,
    },
    /// Several parts, of one size but for the last.
    Multipart {
        /// Bytes of the file.
        size: u64,
        /// Bytes of each part but the last.
        part_size: NonZeroU64,
    },
}

/// One part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// First byte.
    pub offset: u64,
    /// Bytes of the part.
    pub length: u64,
}

/// A file that no object can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the file has {0} bytes; the largest object has {MAX_OBJECT} (48.8 TiB)")]
pub struct PlanError(pub u64);

impl Plan {
    /// Plans a file of `size` bytes.
    ///
    /// # Errors
    /// It is too large for any object.
    pub fn new(size: u64, options: PlanOptions) -> Result<Self, PlanError> {
        if size <= options.threshold.min(MAX_PART) {
            return Ok(Self::Single { size });
        }
        if size > MAX_OBJECT {
            return Err(PlanError(size));
        }
        let needed = size.div_ceil(MAX_PARTS);
        let part_size = options
            .part_size
            .max(needed)
            .max(MIN_PART)
            .next_multiple_of(STEP)
            .min(MAX_PART);
        match NonZeroU64::new(part_size) {
            Some(part_size) => Ok(Self::Multipart { size, part_size }),
            None => Err(PlanError(size)),
        }
    }

    /// The number of requests that carry data.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most 10,000")]
    pub fn count(self) -> usize {
        match self {
            Self::Single { .. } => 1,
            Self::Multipart { size, part_size } => size.div_ceil(part_size.get()) as usize,
        }
    }

    /// The checksum of the whole from those of its parts, in their order.
    #[must_use]
    pub fn combine(self, sums: impl IntoIterator<Item = Checksum>) -> Checksum {
        let whole = sums.into_iter().enumerate().fold(None, |whole, (index, sum)| {
            Some(whole.map_or(sum.0, |whole| {
                checksum_combine(CrcAlgorithm::Crc64Nvme, whole, sum.0, self.part(index).length)
            }))
        });
        Checksum(whole.unwrap_or_default())
    }

    /// The part with `index`, counted from 0.
    #[must_use]
    pub fn part(self, index: usize) -> Part {
        match self {
            Self::Single { size } => Part {
                offset: 0,
                length: size,
            },
            Self::Multipart { size, part_size } => {
                let offset = index as u64 * part_size.get();
                Part {
                    offset,
                    length: part_size.get().min(size.saturating_sub(offset)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options() -> impl Strategy<Value = PlanOptions> {
        (0u64..=6 << 30, 0u64..=6 << 30).prop_map(|(threshold, part_size)| PlanOptions { threshold, part_size })
    }

    fn sizes() -> impl Strategy<Value = u64> {
        prop_oneof![0..=1u64 << 24, 0..=1u64 << 34, 0..=MAX_OBJECT, Just(MAX_OBJECT)]
    }

    proptest! {
        #[test]
        fn the_parts_cover_the_file_without_gap_and_within_the_stores_limits(size in sizes(), options in options()) {
            let plan = Plan::new(size, options).unwrap();
            let mut next = 0;
            let count = plan.count();
            prop_assert!(count >= 1 && count as u64 <= MAX_PARTS);
            for index in 0..count {
                let part = plan.part(index);
                prop_assert_eq!(part.offset, next);
                next += part.length;
                prop_assert!(part.length <= MAX_PART);
                if let Plan::Multipart { .. } = plan {
                    prop_assert!(part.length > 0);
                    prop_assert!(part.offset.is_multiple_of(STEP));
                    prop_assert!(part.length >= MIN_PART || index + 1 == count);
                }
            }
            prop_assert_eq!(next, size);
        }

        #[test]
        fn a_small_file_is_one_request(size in 0u64..=32 << 20) {
            let options = PlanOptions { threshold: 32 << 20, part_size: 16 << 20 };
            prop_assert_eq!(Plan::new(size, options), Ok(Plan::Single { size }));
        }
    }

    #[test]
    fn a_file_beyond_the_largest_object_is_refused() {
        let options = PlanOptions {
            threshold: 1,
            part_size: 1,
        };
        assert_eq!(Plan::new(MAX_OBJECT + 1, options), Err(PlanError(MAX_OBJECT + 1)));
    }
}
