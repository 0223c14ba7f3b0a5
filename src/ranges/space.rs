//! The space of keys, cut into ranges that are listed in parallel.

/// Where a range ends that has no end: nothing follows the last character.
const LAST: u32 = 0x10_ffff;
/// Keys are mostly plain text: the middle is looked for there first.
const PLAIN: (u32, u32) = (0x20, 0x7e);

/// A key between two others in the order of S3 (of UTF-8), both left out; `before` of `None` is the end of all keys
/// with the prefix. `None`: there is none, or none that would help.
#[must_use]
pub(super) fn between(after: &str, before: Option<&str>, prefix: &str) -> Option<String> {
    let after = after.strip_prefix(prefix).unwrap_or_default();
    let before = match before {
        Some(before) => Some(before.strip_prefix(prefix)?),
        None => None,
    };
    let (mut low, mut high) = (after.chars(), before.map(str::chars));
    let mut middle = prefix.to_owned();
    loop {
        let a = low.next();
        let b = high.as_mut().map(Iterator::next);
        match (a, b) {
            // Not in order, or equal.
            (_, Some(None)) => return None,
            (a, Some(Some(b))) if a == Some(b) => middle.push(b),
            (a, Some(Some(b))) => {
                let floor = a.map_or(PLAIN.0.min(u32::from(b)), u32::from);
                if let Some(c) = half(floor, u32::from(b)) {
                    middle.push(c);
                    return Some(middle);
                }
                let Some(a) = a else {
                    // Only what begins with `b`'s predecessor fits, and that is one character for all.
                    return None;
                };
                middle.push(a);
                return open_end(low, middle);
            }
            (Some(a), None) => {
                // No end: above the plain characters there is hardly anything.
                let ceiling = if u32::from(a) < PLAIN.1 { PLAIN.1 + 1 } else { LAST };
                if let Some(c) = half(u32::from(a), ceiling) {
                    middle.push(c);
                    return Some(middle);
                }
                middle.push(a);
            }
            (None, None) => {
                middle.push(half(PLAIN.0, PLAIN.1 + 1)?);
                return Some(middle);
            }
        }
    }
}

/// The rest of a key that may be followed by anything.
fn open_end(mut low: std::str::Chars<'_>, mut middle: String) -> Option<String> {
    loop {
        match low.next() {
            None => {
                middle.push(half(PLAIN.0, PLAIN.1 + 1)?);
                return Some(middle);
            }
            Some(a) => {
                let ceiling = if u32::from(a) < PLAIN.1 { PLAIN.1 + 1 } else { LAST };
                match half(u32::from(a), ceiling) {
                    Some(c) => {
                        middle.push(c);
                        return Some(middle);
                    }
                    None => middle.push(a),
                }
            }
        }
    }
}

/// A character strictly between two code points.
fn half(low: u32, high: u32) -> Option<char> {
    let middle = low + high.checked_sub(low)? / 2;
    // The middle can be no character (a surrogate): the one above is.
    let middle = if (0xd800..0xe000).contains(&middle) {
        0xe000
    } else {
        middle
    };
    (middle > low && middle < high)
        .then(|| char::from_u32(middle))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flat_prefix_is_halved_again_and_again() {
        let (mut end, mut probes) = (None::<String>, 0);
        // All keys are k/img-0000000 to k/img-0999999; the listing is at the first page's end.
        while let Some(middle) = between("k/img-0000999", end.as_deref(), "k/") {
            probes += 1;
            if middle.as_str() < "k/img-0999999" {
                break;
            }
            end = Some(middle);
            assert!(probes < 40, "{end:?}");
        }
        assert!(probes < 40);
    }

    proptest! {
        #[test]
        fn the_middle_is_between(a in "[ -~é\u{10ffff}]{0,6}", b in "[ -~é\u{10ffff}]{0,6}") {
            let (a, b) = (format!("p/{a}"), format!("p/{b}"));
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            if let Some(middle) = between(&low, Some(&high), "p/") {
                prop_assert!(low < middle && middle < high, "{low:?} {middle:?} {high:?}");
            }
            if let Some(middle) = between(&low, None, "p/") {
                prop_assert!(low < middle && middle.starts_with("p/"), "{low:?} {middle:?}");
            }
        }
    }
}
