//! Listing the objects of a bucket, page by page.

use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    CommonPrefix, DeleteMarkerEntry, EncodingType, ListObjectVersionsInput, ListObjectVersionsOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object as Entry, ObjectStorageClass, ObjectVersion,
};
use s3s::{S3ErrorCode, S3Response, S3Result};

use crate::bent::{self, is_bent};
use crate::error::refuse;
use crate::etag::Forms;
use crate::index::{Bucket, Object};
use crate::object::length;
use crate::store::Store;
use crate::tricks::Trick;

/// The most that a page has, whatever is asked for.
const PAGE: i32 = 1000;

/// How many entries a page is to have.
pub(crate) fn page_size(asked: Option<i32>) -> S3Result<usize> {
    usize::try_from(asked.unwrap_or(PAGE).min(PAGE))
        .map_err(|_| refuse(S3ErrorCode::InvalidArgument, "The size of a page cannot be negative"))
}

/// What a page lists.
#[derive(Debug, Default)]
pub(crate) struct Entries<'a> {
    pub(crate) contents: Vec<(&'a str, &'a Object)>,
    pub(crate) prefixes: Vec<String>,
}

/// A page, and the token of the next.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) entries: Entries<'a>,
    pub(crate) next: Option<String>,
    pub(crate) truncated: bool,
}

pub(crate) fn objects(store: &Store, input: ListObjectsV2Input) -> S3Result<S3Response<ListObjectsV2Output>> {
    let max = page_size(input.max_keys)?.min(store.config.list_page);
    let encode = input
        .encoding_type
        .as_ref()
        .is_some_and(|kind| kind.as_str() == EncodingType::URL);
    let repeats = store.faults.plays(Trick::Repeat, "ListObjectsV2");
    let mut index = store.index();
    let bucket = index.bucket(&input.bucket)?;
    let page = if is_bent(&store.dialects) {
        bent::page(bucket, &store.dialects, &input, max, repeats)?
    } else {
        page(bucket, &input, max, repeats)?
    };
    let Entries { contents, prefixes } = page.entries;
    let forms = Forms::of(&store.dialects);
    let contents: Vec<Entry> = contents
        .into_iter()
        .map(|(key, object)| entry(forms, key, object, encode))
        .collect();
    let (next, truncated) = (page.next, page.truncated);
    drop(index);
    Ok(S3Response::new(ListObjectsV2Output {
        key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
        contents: Some(contents),
        common_prefixes: Some(
            prefixes
                .into_iter()
                .map(|prefix| CommonPrefix {
                    prefix: Some(shown(&prefix, encode)),
                })
                .collect(),
        ),
        is_truncated: Some(truncated),
        next_continuation_token: next,
        max_keys: i32::try_from(max).ok(),
        encoding_type: input.encoding_type,
        name: Some(input.bucket),
        prefix: input.prefix.map(|prefix| shown(&prefix, encode)),
        delimiter: input.delimiter.map(|delimiter| shown(&delimiter, encode)),
        continuation_token: input.continuation_token,
        start_after: input.start_after.map(|key| shown(&key, encode)),
        ..ListObjectsV2Output::default()
    }))
}

/// The versions of all keys with a prefix, those of one key from the newest on; one page, which says whether it is all.
pub(crate) fn versions(
    store: &Store,
    input: ListObjectVersionsInput,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let max = page_size(input.max_keys)?;
    let encode = input
        .encoding_type
        .as_ref()
        .is_some_and(|kind| kind.as_str() == EncodingType::URL);
    let prefix = input.prefix.clone().unwrap_or_default();
    let forms = Forms::of(&store.dialects);
    let mut index = store.index();
    let bucket = index.bucket(&input.bucket)?;
    let (mut versions, mut markers, mut truncated) = (Vec::new(), Vec::new(), false);
    let below = bucket
        .keys
        .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(&prefix));
    for (key, kept) in below {
        for (age, version) in kept.iter().rev().enumerate() {
            if versions.len() + markers.len() == max {
                truncated = true;
                break;
            }
            let (named, id) = (
                Some(shown(key, encode)),
                Some(version.id.clone().unwrap_or_else(|| "null".to_owned())),
            );
            match &version.object {
                None => markers.push(DeleteMarkerEntry {
                    key: named,
                    version_id: id,
                    is_latest: Some(age == 0),
                    ..DeleteMarkerEntry::default()
                }),
                Some(object) => versions.push(ObjectVersion {
                    key: named,
                    version_id: id,
                    is_latest: Some(age == 0),
                    e_tag: Some(forms.show(&object.etag)),
                    size: Some(length(object.size)),
                    last_modified: Some(object.modified.into()),
                    ..ObjectVersion::default()
                }),
            }
        }
    }
    drop(index);
    Ok(S3Response::new(ListObjectVersionsOutput {
        versions: Some(versions),
        delete_markers: Some(markers),
        is_truncated: Some(truncated),
        max_keys: i32::try_from(max).ok(),
        encoding_type: input.encoding_type,
        name: Some(input.bucket),
        prefix: Some(shown(&prefix, encode)),
        ..ListObjectVersionsOutput::default()
    }))
}

/// A page as S3 gives it: in the order of bytes.
fn page<'a>(bucket: &'a Bucket, input: &ListObjectsV2Input, max: usize, repeats: bool) -> S3Result<Page<'a>> {
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    // A token is the key, or the common prefix, that the page before ended with.
    let after = match &input.continuation_token {
        Some(token) if !repeats => Some(decode(token)?),
        _ => input.start_after.clone(),
    };
    let (mut contents, mut prefixes) = (Vec::new(), Vec::<String>::new());
    let (mut last, mut truncated) = (None, false);
    let start = match &after {
        Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
        _ => Bound::Included(prefix),
    };
    for (key, versions) in bucket.keys.range::<str, _>((start, Bound::Unbounded)) {
        let Some(rest) = key.strip_prefix(prefix) else {
            break;
        };
        let Some(object) = versions.last().and_then(|version| version.object.as_ref()) else {
            continue;
        };
        let common = delimiter
            .and_then(|it| Some(prefix.len() + rest.find(it)? + it.len()))
            .map(|end| &key[..end]);
        if common.is_some_and(|common| prefixes.last().map(String::as_str).or(after.as_deref()) == Some(common)) {
            continue;
        }
        if contents.len() + prefixes.len() == max {
            truncated = max > 0;
            break;
        }
        match common {
            Some(common) => prefixes.push(common.to_owned()),
            None => contents.push((key.as_str(), &**object)),
        }
        last = Some(common.unwrap_or(key).to_owned());
    }
    truncated |= repeats && last.is_some();
    Ok(Page {
        entries: Entries { contents, prefixes },
        next: last.filter(|_| truncated).map(|last| encode(&last)),
        truncated,
    })
}

pub(crate) fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

pub(crate) fn decode(token: &str) -> S3Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
        refuse(
            S3ErrorCode::InvalidArgument,
            "The continuation token provided is incorrect",
        )
    })
}

/// As S3 writes it when asked to: a space as `+`, what is not plain as `%XX`, slashes as they are.
fn shown(key: &str, encode: bool) -> String {
    if !encode {
        return key.to_owned();
    }
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'*')
        .remove(b'/')
        .remove(b' ');
    utf8_percent_encode(key, PLAIN).to_string().replace(' ', "+")
}

fn entry(forms: Forms, key: &str, object: &Object, encode: bool) -> Entry {
    let class = object.attributes.storage_class.as_ref();
    Entry {
        key: Some(shown(key, encode)),
        size: Some(length(object.size)),
        e_tag: Some(forms.show(&object.etag)),
        last_modified: Some(object.modified.into()),
        storage_class: Some(class.map_or_else(
            || ObjectStorageClass::from_static(ObjectStorageClass::STANDARD),
            |class| ObjectStorageClass::from(class.as_str().to_owned()),
        )),
        ..Entry::default()
    }
}
