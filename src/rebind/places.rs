//! Where a copied object is to be looked for.

use crate::store::{InvalidKey, ObjectKey};

/// Keys that began with the one begin with the other now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prefixes {
    /// What keys began with before the copy.
    pub from: String,
    /// What they begin with now.
    pub to: String,
}

impl Prefixes {
    fn moved(&self, key: &ObjectKey) -> Option<Result<ObjectKey, InvalidKey>> {
        let rest = key.as_str().strip_prefix(&self.from)?;
        Some(ObjectKey::new(format!("{}{rest}", self.to)))
    }
}

/// The keys to look at, in that order. A key that has the new prefix may be one that an earlier run has written; where
/// the new prefix begins with the old one, it may as well be one that is still to be moved.
pub(super) fn places(prefixes: Option<&Prefixes>, key: &ObjectKey) -> Result<Vec<ObjectKey>, InvalidKey> {
    let mut places = Vec::new();
    let moved = prefixes.and_then(|prefixes| prefixes.moved(key)).transpose()?;
    let may_stay = prefixes.is_none_or(|prefixes| moved.is_none() || key.as_str().starts_with(&prefixes.to));
    places.extend(moved);
    if may_stay && !places.contains(key) {
        places.push(key.clone());
    }
    Ok(places)
}

/// Where the sidecar of an object is that went to `place`.
pub(super) fn sidecar_at(
    prefixes: Option<&Prefixes>,
    (key, place): (&ObjectKey, &ObjectKey),
    sidecar: &ObjectKey,
) -> Result<ObjectKey, InvalidKey> {
    let moved = prefixes.filter(|_| key != place);
    let moved = moved.and_then(|prefixes| prefixes.moved(sidecar)).transpose()?;
    Ok(moved.unwrap_or_else(|| sidecar.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).unwrap()
    }

    fn prefixes(from: &str, to: &str) -> Prefixes {
        Prefixes {
            from: from.into(),
            to: to.into(),
        }
    }

    fn looked_for(from: &str, to: &str, at: &str) -> Vec<String> {
        let places = places(Some(&prefixes(from, to)), &key(at)).unwrap();
        places.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_key_is_looked_for_where_it_went_and_where_an_earlier_run_has_put_it() {
        assert_eq!(places(None, &key("a/b")).unwrap(), [key("a/b")]);
        assert_eq!(looked_for("old/", "new/", "old/a"), ["new/a"]);
        assert_eq!(looked_for("old/", "new/", "new/a"), ["new/a"]);
        // Another's, which has not moved.
        assert_eq!(looked_for("old/", "new/", "else/a"), ["else/a"]);
        assert_eq!(looked_for("", "new/", "a"), ["new/a"]);
        assert_eq!(looked_for("", "new/", "new/a"), ["new/new/a", "new/a"]);
        assert_eq!(looked_for("old/", "", "old/a"), ["a", "old/a"]);
        assert_eq!(looked_for("old/", "", "a"), ["a"]);
        assert_eq!(looked_for("x/", "x/", "x/a"), ["x/a"]);
        let long = key(&"k".repeat(1020));
        assert!(places(Some(&prefixes("", "prefix/")), &long).is_err());
    }

    #[test]
    fn a_sidecar_goes_where_its_object_goes() {
        let sidecar = key("old/.lhsm-s3-metadata/0x1:0x2:0x0.f");
        let moved = prefixes("old/", "new/");
        let at = |place: &str| sidecar_at(Some(&moved), (&key("old/a"), &key(place)), &sidecar).unwrap();
        assert_eq!(at("new/a"), key("new/.lhsm-s3-metadata/0x1:0x2:0x0.f"));
        assert_eq!(at("old/a"), sidecar);
    }
}
