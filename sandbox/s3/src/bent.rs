//! Pages of a listing as stores give them that do not list as S3 does.
//!
//! What is listed is put in the store's own order first, and a token names the place in it: so the tokens are right
//! whatever the order, and stay so when keys come and go between the pages.

use std::collections::BTreeMap;
use std::ops::Bound;

use md5::{Digest as _, Md5};
use s3s::dto::ListObjectsV2Input;
use s3s::{S3ErrorCode, S3Result};

use crate::dialect::Dialect;
use crate::dialects::Dialects;
use crate::error::refuse;
use crate::index::{Bucket, Object};
use crate::list::{Entries, Page, decode, encode};

const BENDS: &[Dialect] = &[
    Dialect::ListShuffled,
    Dialect::ListDirectoryOrder,
    Dialect::ListTruncatedNoToken,
    Dialect::ListEmptyPages,
    Dialect::ListRepeatsPage,
    Dialect::ListIgnoresStartAfter,
    Dialect::ListIgnoresToken,
    Dialect::ListBehindPrefix,
    Dialect::ListNoDelimiter,
    Dialect::DirectoryBucket,
];

/// Whether a dialect has to do with pages.
pub(crate) fn is_bent(dialects: &Dialects) -> bool {
    dialects.any(BENDS)
}

/// What a token says of the page that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    First,
    /// The page behind this name.
    Behind(String),
    /// An empty one, and then the page behind this name.
    Empty(String),
}

impl Step {
    /// What the request leads to.
    fn of(dialects: &Dialects, token: Option<&str>) -> S3Result<Self> {
        let Some(token) = token.filter(|_| !dialects.has(Dialect::ListIgnoresToken)) else {
            return Ok(Self::First);
        };
        let text = decode(token)?;
        Ok(match (text.strip_prefix('+'), text.strip_prefix('0')) {
            (Some(name), _) => Self::Behind(name.to_owned()),
            (_, Some(name)) => Self::Empty(name.to_owned()),
            (None, None) => Self::First,
        })
    }

    /// What the token of this page says, when there is more behind `last`.
    fn next(&self, dialects: &Dialects, last: String) -> Self {
        if matches!(self, Self::Behind(_)) && dialects.has(Dialect::ListRepeatsPage) {
            Self::First
        } else if dialects.has(Dialect::ListEmptyPages) {
            Self::Empty(last)
        } else {
            Self::Behind(last)
        }
    }

    fn token(&self) -> String {
        match self {
            Self::First => encode("^"),
            Self::Behind(name) => encode(&format!("+{name}")),
            Self::Empty(name) => encode(&format!("0{name}")),
        }
    }
}

/// One page. `repeats` is the fault by which each is the first.
pub(crate) fn page<'a>(
    bucket: &'a Bucket,
    dialects: &Dialects,
    input: &ListObjectsV2Input,
    max: usize,
    repeats: bool,
) -> S3Result<Page<'a>> {
    if dialects.has(Dialect::DirectoryBucket) && input.start_after.is_some() {
        let message = "StartAfter is not supported for directory buckets";
        return Err(refuse(S3ErrorCode::NotImplemented, message));
    }
    let step = Step::of(dialects, input.continuation_token.as_deref().filter(|_| !repeats))?;
    let behind = match &step {
        Step::First => Bound::Unbounded,
        Step::Behind(name) => Bound::Excluded(rank(dialects, name)),
        Step::Empty(name) => {
            return Ok(Page {
                entries: Entries::default(),
                next: Some(Step::Behind(name.clone()).token()),
                truncated: true,
            });
        }
    };
    let listed = listed(bucket, dialects, input);
    let mut rest = listed.range::<Vec<u8>, _>((behind, Bound::Unbounded));
    let (mut entries, mut last) = (Entries::default(), None);
    for (_, (name, object)) in rest.by_ref().take(max) {
        match object {
            Some(object) => entries.contents.push((*name, *object)),
            None => entries.prefixes.push((*name).to_owned()),
        }
        last = Some((*name).to_owned());
    }
    let truncated = last.is_some() && (rest.next().is_some() || repeats);
    let token = !dialects.has(Dialect::ListTruncatedNoToken);
    let next = last.filter(|_| truncated && token);
    Ok(Page {
        entries,
        next: next.map(|last| step.next(dialects, last).token()),
        truncated,
    })
}

/// A key with its object, or a common prefix.
type Listed<'a> = (&'a str, Option<&'a Object>);

/// All that the listing has, in the order of the store.
fn listed<'a>(bucket: &'a Bucket, dialects: &Dialects, input: &ListObjectsV2Input) -> BTreeMap<Vec<u8>, Listed<'a>> {
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let delimiter = delimiter.filter(|_| !dialects.has(Dialect::ListNoDelimiter));
    let after = input.start_after.as_deref();
    let after = after.filter(|_| !dialects.has(Dialect::ListIgnoresStartAfter));
    let behind = dialects.has(Dialect::ListBehindPrefix);
    let mut listed = BTreeMap::new();
    for (key, object) in bucket.objects() {
        let key = key.as_str();
        let rest = key.strip_prefix(prefix);
        let wanted = rest.is_some() || (behind && key > prefix);
        if !wanted || after.is_some_and(|after| key <= after) {
            continue;
        }
        let common = delimiter
            .zip(rest)
            .and_then(|(it, rest)| Some(prefix.len() + rest.find(it)? + it.len()))
            .map(|end| &key[..end]);
        let name = common.unwrap_or(key);
        if after != Some(name) {
            let object = common.is_none().then_some(&**object);
            listed.insert(rank(dialects, name), (name, object));
        }
    }
    listed
}

/// What a name is sorted by.
fn rank(dialects: &Dialects, name: &str) -> Vec<u8> {
    let mut rank = Vec::new();
    if dialects.any(&[Dialect::ListShuffled, Dialect::DirectoryBucket]) {
        rank.extend(Md5::digest(name).iter().copied());
    }
    if dialects.has(Dialect::ListDirectoryOrder) {
        // A component ends before any other byte.
        rank.extend(name.bytes().map(|byte| if byte == b'/' { 0 } else { byte }));
    } else {
        rank.extend_from_slice(name.as_bytes());
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_first_and_a_shuffle_is_none_of_bytes() {
        let dialects = Dialects::default();
        let sorted = |dialects: &Dialects| {
            let mut names = ["obj", "obj+", "obj-1", "obj/1", "obj/2"];
            names.sort_by_key(|name| rank(dialects, name));
            names
        };
        assert_eq!(sorted(&dialects), ["obj", "obj+", "obj-1", "obj/1", "obj/2"]);
        dialects.set(&[Dialect::ListDirectoryOrder]);
        assert_eq!(sorted(&dialects), ["obj", "obj/1", "obj/2", "obj+", "obj-1"]);
        dialects.set(&[Dialect::ListShuffled]);
        let keys: Vec<String> = (0..100).map(|number| format!("key-{number:03}")).collect();
        let mut shuffled = keys.clone();
        shuffled.sort_by_key(|key| rank(&dialects, key));
        let rising = shuffled.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((20..80).contains(&rising), "{rising} of 99 pairs are in order");
    }
}
