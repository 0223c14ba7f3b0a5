//! ETags in one form. Stores give them quoted, bare, weak, in capitals, and not always alike in two answers; inside they
//! are compared, so all are made alike where they come in, and spelled as the store wants them where they go out.

/// Strong and quoted, an MD5 in small letters.
pub(super) fn canonical(told: &str) -> String {
    let bare = bare(told);
    match is_md5(bare) {
        true => format!("\"{}\"", bare.to_ascii_lowercase()),
        false => format!("\"{bare}\""),
    }
}

/// Without quotes and what stands before them.
pub(super) fn bare(told: &str) -> &str {
    let told = told.trim();
    let strong = told
        .strip_prefix("W/")
        .or_else(|| told.strip_prefix("w/"))
        .unwrap_or(told);
    let text = strong.strip_prefix('"').unwrap_or(strong);
    text.strip_suffix('"').unwrap_or(text)
}

/// Whether it is written with capitals.
pub(super) fn is_upper(told: &str) -> bool {
    let bare = bare(told);
    is_md5(bare) && bare.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// 32 hexadecimal digits, with the number of parts behind where there were several.
pub(super) fn is_md5(bare: &str) -> bool {
    let (digits, parts) = bare.split_once('-').unwrap_or((bare, "1"));
    digits.len() == 32
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !parts.is_empty()
        && parts.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_the_same_in_all_the_forms_that_stores_give_it() {
        const PLAIN: &str = "\"0cc175b9c0f1b6a831c399e269772661-12\"";
        for told in [
            PLAIN,
            "0cc175b9c0f1b6a831c399e269772661-12",
            "W/\"0cc175b9c0f1b6a831c399e269772661-12\"",
            "\"0CC175B9C0F1B6A831C399E269772661-12\"",
            " 0CC175B9C0F1B6A831C399E269772661-12 ",
        ] {
            assert_eq!(canonical(told), PLAIN, "{told}");
            assert_eq!(canonical(&canonical(told)), PLAIN, "{told}");
        }
        // What is no MD5 may differ by its capitals alone.
        assert_eq!(canonical("AbC"), "\"AbC\"");
        assert_ne!(canonical("\"AbC\""), canonical("\"abc\""));
        assert!(is_upper("0CC175B9C0F1B6A831C399E269772661"));
        assert!(!is_upper("0cc175b9c0f1b6a831c399e269772661"));
        assert!(!is_upper("ABC"));
    }
}
