//! A page of a listing: what is asked, and what is believed of the answer.

use super::listing::corrupt;
use super::{StoreError, etag};

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

/// A page as the store tells it, before anything of it is believed.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// Whether keys and prefixes are URL-encoded.
    pub(super) encoded: bool,
    pub(super) objects: Vec<ObjectReply>,
    /// Common prefixes.
    pub(super) common: Vec<Option<String>>,
    /// The number of keys that it says it has.
    pub(super) promised: Option<i32>,
    pub(super) truncated: Option<bool>,
    /// Where to go on.
    pub(super) token: Option<String>,
}

/// An object on it.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectReply {
    pub(super) key: Option<String>,
    pub(super) size: Option<i64>,
    pub(super) etag: Option<String>,
    /// Seconds since 1970.
    pub(super) modified: Option<i64>,
    pub(super) class: Option<String>,
}

impl Reply {
    /// The page, held against what was asked.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for one that can't be the answer: keys without the prefix, fewer than it says, a promise
    /// of more without a way there.
    pub(super) fn page(self, query: &Query<'_>) -> Result<Page, StoreError> {
        let given = self.objects.len() + self.common.len();
        // Some count the objects alone: only what is promised and not there is wrong.
        let promised = self.promised.and_then(|count| usize::try_from(count).ok());
        if let Some(promised) = promised.filter(|promised| *promised > given) {
            return Err(corrupt(format!(
                "a page of the listing says that it has {promised} keys and has {given}"
            )));
        }
        let token = self.token.filter(|token| !token.is_empty());
        let next = match (self.truncated, token) {
            (Some(true), None) => {
                return Err(corrupt(
                    "a page of the listing says that there is more and gives no token to go on with".into(),
                ));
            }
            (Some(false), _) => None,
            (_, token) => token,
        };
        let mut entries = Vec::with_capacity(self.objects.len());
        for object in self.objects {
            let key = object
                .key
                .ok_or_else(|| corrupt("an entry of the listing has no key".into()))?;
            let key = decode(key, self.encoded);
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
                etag: object.etag.as_deref().map(etag::canonical),
                modified: object.modified,
                class: object.class,
            });
        }
        let prefixes = self
            .common
            .into_iter()
            .filter_map(|common| String::from_utf8(decode(common?, self.encoded)).ok())
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
pub(super) fn decode(text: String, encoded: bool) -> Vec<u8> {
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
