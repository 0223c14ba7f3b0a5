//! A listing is not believed: each page is held against those before it.
//!
//! What makes a listing wrong is an error: pages that go in a circle, and no end of pages with nothing new. An order that
//! is not the bytes' is told and no error, for a listing by the store's own tokens is complete in any order; who cut the
//! keys into ranges must know it. What one page can show alone is looked at where it comes in ([`Store::list`]).
//!
//! [`Store::list`]: super::Store::list

use std::hash::{DefaultHasher, Hash, Hasher as _};

use super::{ListFrom, Page, Query, StoreError};

pub(super) const OPERATION: &str = "ListObjectsV2";
/// Pages in a row with nothing new.
const MOST_IDLE: u32 = 1000;

/// One listing, from its first page to its last.
#[derive(Debug)]
pub struct Listing {
    /// Names and common prefixes are in no common order.
    by_directory: bool,
    /// Where it begins, if that is behind a key.
    after: Option<String>,
    last: Option<Vec<u8>>,
    pages: u64,
    idle: u32,
    /// The page before, of those with something on them.
    former: Option<u64>,
    tokens: CycleDetector,
    contents: CycleDetector,
    disorder: Option<String>,
}

impl Listing {
    /// Nothing of it is there yet.
    #[must_use]
    pub fn new(query: &Query<'_>) -> Self {
        let after = match query.from {
            ListFrom::After(key) => Some(key.clone()),
            ListFrom::Start | ListFrom::Token(_) => None,
        };
        Self {
            by_directory: query.by_directory,
            after,
            last: None,
            pages: 0,
            idle: 0,
            former: None,
            tokens: CycleDetector::default(),
            contents: CycleDetector::default(),
            disorder: None,
        }
    }

    /// Takes the next page: empties one that is the page before once more, and says on it whether keys have come in
    /// another order than that of their bytes so far.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]: the listing would never end, or not show all.
    pub fn take(&mut self, page: &mut Page) -> Result<(), StoreError> {
        self.pages += 1;
        let more = page.next.is_some();
        let content = content(page);
        let is_new = content.is_some() && content != self.former;
        if is_new {
            self.idle = 0;
            self.former = content;
        } else {
            self.idle += 1;
            page.entries.clear();
            page.prefixes.clear();
        }
        let shown = self.pages;
        if more && self.idle >= MOST_IDLE {
            return Err(corrupt(format!(
                "the listing does not end: {MOST_IDLE} pages in a row up to page {shown} have nothing new, and more are promised"
            )));
        }
        let leads_back = page.next.as_ref().is_some_and(|next| self.tokens.closes(hash(next)));
        let comes_again = is_new && more && content.is_some_and(|content| self.contents.closes(content));
        if leads_back || comes_again {
            return Err(corrupt(format!(
                "the listing goes in a circle: page {shown} {} an earlier one",
                if leads_back { "leads to the same place as" } else { "is" }
            )));
        }
        self.look_at_order(page);
        page.disorder.clone_from(&self.disorder);
        Ok(())
    }

    fn look_at_order(&mut self, page: &Page) {
        if self.by_directory || self.disorder.is_some() {
            return;
        }
        let shown = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let number = self.pages;
        for entry in &page.entries {
            match (&self.last, &self.after) {
                (Some(last), _) if entry.key <= *last => {
                    self.disorder = Some(format!(
                        "the listing is not in the order of its keys ('{}' after '{}', page {number})",
                        shown(&entry.key),
                        shown(last)
                    ));
                    return;
                }
                (None, Some(after)) if entry.key.as_slice() <= after.as_bytes() => {
                    self.disorder = Some(format!(
                        "the listing from behind the key '{after}' has '{}'",
                        shown(&entry.key)
                    ));
                    return;
                }
                _ => {}
            }
            match &mut self.last {
                Some(last) => last.clone_from(&entry.key),
                None => self.last = Some(entry.key.clone()),
            }
        }
    }
}

/// Finds that a walk goes in a circle, however long it is, and keeps one place of it: the one that is kept is moved on
/// after 1, 2, 4, 8 … steps, so that some day it lies on the circle and the circle fits before the next move.
#[derive(Debug, Default)]
pub struct CycleDetector {
    kept: Option<u64>,
    steps: u64,
    limit: u64,
}

impl CycleDetector {
    /// Goes on to a place; whether it is one that was there before.
    pub fn closes(&mut self, place: u64) -> bool {
        if self.kept == Some(place) {
            return true;
        }
        self.steps += 1;
        if self.steps >= self.limit {
            self.kept = Some(place);
            self.steps = 0;
            self.limit = (self.limit * 2).max(1);
        }
        false
    }
}

/// A place as [`CycleDetector`] knows it.
#[must_use]
pub fn hash(place: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    place.hash(&mut hasher);
    hasher.finish()
}

/// What is on a page; `None`: nothing.
fn content(page: &Page) -> Option<u64> {
    if page.entries.is_empty() && page.prefixes.is_empty() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    for entry in &page.entries {
        entry.key.hash(&mut hasher);
    }
    page.prefixes.hash(&mut hasher);
    Some(hasher.finish())
}

pub(super) fn corrupt(what: String) -> StoreError {
    StoreError::Corrupt {
        operation: OPERATION,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;
    use proptest::prelude::*;

    fn page(keys: &[&str], next: Option<&str>) -> Page {
        let entries = keys.iter().map(|key| Entry {
            key: (*key).into(),
            size: 1,
            etag: None,
            modified: None,
            class: None,
        });
        Page {
            entries: entries.collect(),
            next: next.map(str::to_owned),
            ..Page::default()
        }
    }

    /// What is said of the order at the end; an error is text as well.
    fn told(from: &ListFrom, pages: &[(&[&str], Option<&str>)]) -> Result<Option<String>, String> {
        let mut listing = Listing::new(&Query::below("", from));
        let mut disorder = None;
        for (keys, next) in pages {
            let mut page = page(keys, *next);
            listing.take(&mut page).map_err(|error| error.to_string())?;
            disorder = page.disorder;
        }
        Ok(disorder)
    }

    #[test]
    fn keys_in_order_over_empty_pages_are_as_they_should_be() {
        let pages: [(&[&str], _); 4] = [
            (&["a", "b"], Some("1")),
            (&[], Some("2")),
            (&[], Some("3")),
            (&["c", "ca"], None),
        ];
        assert_eq!(told(&ListFrom::Start, &pages), Ok(None));
    }

    #[test]
    fn another_order_is_told_with_its_keys_within_a_page_and_across() {
        let pages: [(&[&str], _); 2] = [(&["obj/1", "obj/2"], Some("1")), (&["obj+"], None)];
        let said = told(&ListFrom::Start, &pages).unwrap().unwrap();
        assert!(said.contains("'obj+' after 'obj/2', page 2"), "{said}");
        assert!(told(&ListFrom::Start, &[(&["b", "a"][..], None)]).unwrap().is_some());
        assert!(told(&ListFrom::Start, &[(&["a", "a"][..], None)]).unwrap().is_some());
        let behind = ListFrom::After("m".into());
        let said = told(&behind, &[(&["a", "n"][..], None)]).unwrap().unwrap();
        assert!(said.contains("behind the key 'm' has 'a'"), "{said}");
        assert_eq!(told(&behind, &[(&["n"][..], None)]), Ok(None));
    }

    #[test]
    fn a_page_that_comes_twice_in_a_row_is_taken_once() {
        let mut listing = Listing::new(&Query::below("", &ListFrom::Start));
        let mut taken = Vec::new();
        for (keys, next) in [(&["a", "b"], Some("1")), (&["a", "b"], Some("2")), (&["c", "d"], None)] {
            let mut page = page(keys, next);
            listing.take(&mut page).unwrap();
            assert_eq!(page.disorder, None);
            taken.extend(page.entries.into_iter().map(|entry| entry.key));
        }
        assert_eq!(taken, [b"a", b"b", b"c", b"d"]);
    }

    #[test]
    fn a_listing_that_never_ends_is_an_error() {
        let mut listing = Listing::new(&Query::below("", &ListFrom::Start));
        let ended = (0..5000).find_map(|n| listing.take(&mut page(&[], Some(&n.to_string()))).err());
        assert!(ended.unwrap().to_string().contains("does not end"));
    }

    proptest! {
        /// Tokens or pages that come round again, with any lead and any length of the circle.
        #[test]
        fn a_circle_is_found_whatever_its_length(lead in 0u64..40, length in 1u64..40, tokens in any::<bool>()) {
            let mut listing = Listing::new(&Query::below("", &ListFrom::Start));
            let ended = (0..1000u64).find_map(|n| {
                let place = if n < lead { n } else { lead + (n - lead) % length };
                let (key, next) = if tokens { (n, place) } else { (place, n) };
                listing.take(&mut page(&[format!("k{key:05}").as_str()], Some(&next.to_string()))).err()
            });
            // One page that is all of the circle counts as nothing new, and as such it has its own end.
            if tokens || length > 1 {
                prop_assert!(ended.unwrap().to_string().contains("circle"));
            }
        }

        #[test]
        fn what_is_in_order_never_looks_like_a_circle(size in 1usize..9, count in 0usize..300) {
            let mut listing = Listing::new(&Query::below("", &ListFrom::Start));
            let keys: Vec<String> = (0..count).map(|n| format!("k{n:05}")).collect();
            let mut at = 0;
            loop {
                let end = (at + size).min(count);
                let shown: Vec<&str> = keys[at..end].iter().map(String::as_str).collect();
                let next = (end < count).then(|| end.to_string());
                let mut page = page(&shown, next.as_deref());
                prop_assert!(listing.take(&mut page).is_ok());
                prop_assert_eq!(page.disorder, None);
                at = end;
                if next.is_none() {
                    break;
                }
            }
        }
    }
}
