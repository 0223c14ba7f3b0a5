//! What is sent of an object: a range, a part, or all of it, as the dialects have it.

use std::ops::Range;

use hyper::StatusCode;
use s3s::dto::{self, ChecksumType};
use s3s::{S3ErrorCode, S3Result};

use crate::checksum::Shown;
use crate::dialect::Dialect;
use crate::error::refuse;
use crate::index::Object;
use crate::store::Store;

const IGNORED: &[Dialect] = &[Dialect::RangeIgnored, Dialect::RangeIgnoredWithLength];

/// What is sent, and what is said of it.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) range: Range<u64>,
    pub(crate) content_range: Option<String>,
    /// How many parts there are, where one was asked for.
    pub(crate) parts_count: Option<i32>,
    /// That of the part.
    pub(crate) checksum: Option<Shown>,
    /// Without a length.
    pub(crate) chunked: bool,
}

/// What a GET is answered with.
pub(crate) fn served(
    store: &Store,
    object: &Object,
    range: Option<dto::Range>,
    part_number: Option<i32>,
) -> S3Result<Served> {
    let size = object.size;
    let Some(asked) = range else {
        return of_part(object, part_number);
    };
    if store.dialects.any(IGNORED) {
        return Ok(Served {
            range: 0..size,
            chunked: !store.dialects.has(Dialect::RangeIgnoredWithLength),
            ..Served::default()
        });
    }
    if size == 0 {
        return Err(S3ErrorCode::InvalidRange.into());
    }
    let mut range = asked.check(size)?;
    if store.dialects.has(Dialect::RangeShifted) {
        range = 0..range.end - range.start;
    }
    Ok(of_range(range, size))
}

fn of_range(range: Range<u64>, size: u64) -> Served {
    let content_range = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
    Served {
        content_range: (size > 0).then_some(content_range),
        range,
        ..Served::default()
    }
}

/// The part of that number, or all when none is named. What was uploaded in one piece is its own first part.
pub(crate) fn of_part(object: &Object, number: Option<i32>) -> S3Result<Served> {
    let Some(number) = number else {
        return Ok(Served {
            range: 0..object.size,
            ..Served::default()
        });
    };
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    if object.parts.is_empty() && index == Some(0) {
        return Ok(of_range(0..object.size, object.size));
    }
    let part = index.and_then(|index| {
        Some((
            object.blobs.get(..index)?,
            object.blobs.get(index)?,
            object.parts.get(index)?,
        ))
    });
    let Some((before, blob, sums)) = part else {
        let code = S3ErrorCode::from_bytes(b"InvalidPartNumber").unwrap_or(S3ErrorCode::InvalidRange);
        let mut error = refuse(code, "The requested partnumber is not satisfiable");
        error.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE);
        return Err(error);
    };
    let start: u64 = before.iter().map(|blob| blob.len()).sum();
    // Those of parts are kept where that of the object is made of them.
    let whole = object.checksum.as_ref();
    let whole = whole.filter(|shown| shown.scope == ChecksumType::COMPOSITE);
    let checksum = whole.and_then(|shown| sums.get(shown.kind)).map(Shown::whole);
    Ok(Served {
        parts_count: i32::try_from(object.parts.len()).ok(),
        checksum,
        ..of_range(start..start + blob.len(), object.size)
    })
}
