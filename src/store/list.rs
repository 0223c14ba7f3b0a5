//! Listings of a bucket, a page at a time.

use aws_sdk_s3::types::EncodingType;

use super::listing::{OPERATION, corrupt};
use super::{Store, StoreError, etag};

/// One object, as a listing or an inventory tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its key; bytes, because not every store keeps to UTF-8.
    pub key: Vec<u8>,
    /// Bytes of the object.
    pub size: u64,
    /// Quotes included; `None`: not told.
    pub etag: Option<String>,
    /// Last write, seconds since 1970; `None`: not told.
    pub modified: Option<i64>,
    /// Storage class as told.
    pub class: Option<String>,
}

/// Where a page begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// At the first key with the prefix.
    Start,
    /// Behind this key, which need not exist.
    After(String),
    /// Where the page before ended, as the store said.
    Token(String),
}

/// What one request lists.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// All keys begin with it.
    pub prefix: &'a str,
    /// Where the page begins: at the first key, behind one, or where another page ended.
    pub from: &'a From,
    /// Whether what lies below a further `/` is told as one common prefix.
    pub by_directory: bool,
    /// At most so many; the store's own limit is 1,000.
    pub limit: i32,
}

impl<'a> Query<'a> {
    /// All keys with the prefix from there on, as many a page as the store gives.
    #[must_use]
    pub const fn below(prefix: &'a str, from: &'a From) -> Self {
        Self {
            prefix,
            from,
            by_directory: false,
            limit: 1000,
        }
    }
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// As the store has them in order, which need not be that of their keys.
    pub entries: Vec<Entry>,
    /// Common prefixes, in order; ones that are no UTF-8 are left out.
    pub prefixes: Vec<String>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
    /// How the listing up to here is not in the order of its keys' bytes, where that was looked at (by
    /// [`Listing`](super::Listing)).
    pub disorder: Option<String>,
}

impl Store {
    /// One page of a listing, held against what was asked.
    ///
    /// # Errors
    /// The store's refusal; [`StoreError::Corrupt`] for a page that can't be the answer: keys without the prefix, fewer
    /// than it says, a promise of more without a way there.
    pub async fn list(&self, query: Query<'_>) -> Result<Page, StoreError> {
        let (after, token) = match query.from {
            From::Start => (None, None),
            From::After(key) => (Some(key.clone()), None),
            From::Token(token) => (None, Some(token.clone())),
        };
        let answer = self
            .client()
            .list_objects_v2()
            .bucket(&self.target().bucket)
            .prefix(query.prefix)
            .set_delimiter(query.by_directory.then(|| "/".to_owned()))
            .set_start_after(after)
            .set_continuation_token(token)
            .max_keys(query.limit)
            // XML can't carry every character that a key can.
            .encoding_type(EncodingType::Url)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(OPERATION, &error))?;
        let encoded = answer.encoding_type.is_some();
        let contents = answer.contents.unwrap_or_default();
        let common = answer.common_prefixes.unwrap_or_default();
        let given = contents.len() + common.len();
        // Some count the objects alone: only what is promised and not there is wrong.
        let promised = answer.key_count.and_then(|count| usize::try_from(count).ok());
        if let Some(promised) = promised.filter(|promised| *promised > given) {
            return Err(corrupt(format!(
                "a page of the listing says that it has {promised} keys and has {given}"
            )));
        }
        let token = answer.next_continuation_token.filter(|token| !token.is_empty());
        let next = match (answer.is_truncated, token) {
            (Some(true), None) => {
                return Err(corrupt(
                    "a page of the listing says that there is more and gives no token to go on with".into(),
                ));
            }
            (Some(false), _) => None,
            (_, token) => token,
        };
        let mut entries = Vec::with_capacity(contents.len());
        for object in contents {
            let key = object
                .key
                .ok_or_else(|| corrupt("an entry of the listing has no key".into()))?;
            let key = decode(key, encoded);
            if !key.starts_with(query.prefix.as_bytes()) {
                let key = String::from_utf8_lossy(&key);
                return Err(corrupt(format!(
                    "the listing of what begins with '{}' has '{key}'",
                    query.prefix
                )));
            }
            let size = object.size.and_then(|size| u64::try_from(size).ok()).ok_or_else(|| {
                let key = String::from_utf8_lossy(&key);
                corrupt(format!("the listing does not tell the size of '{key}'"))
            })?;
            entries.push(Entry {
                key,
                size,
                etag: object.e_tag.as_deref().map(etag::canonical),
                modified: object.last_modified.map(|time| time.secs()),
                class: object.storage_class.map(|class| class.as_str().to_owned()),
            });
        }
        let prefixes = common
            .into_iter()
            .filter_map(|common| String::from_utf8(decode(common.prefix?, encoded)).ok())
            .collect();
        Ok(Page {
            entries,
            prefixes,
            next,
            disorder: None,
        })
    }
}

/// S3 writes a space as `+`, and everything that is not plain as `%XX`.
fn decode(text: String, encoded: bool) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    if !encoded || !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return bytes;
    }
    for byte in &mut bytes {
        if *byte == b'+' {
            *byte = b' ';
        }
    }
    percent_encoding::percent_decode(&bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was_written() {
        assert_eq!(decode("a+b%2Bc%25%0A%FF".into(), true), b"a b+c%\n\xff");
        assert_eq!(decode("a+b%2B".into(), false), b"a+b%2B");
    }
}
