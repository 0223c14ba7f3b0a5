//! Rust's text as words, each with its line. Comments (so documentation too), strings, characters and lifetimes are no
//! words: what they name is not used.

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    /// From 1.
    pub(super) line: usize,
}

/// Names, numbers, `::`, and every other sign by itself.
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, is_word) = piece(rest, first);
        let (piece, after) = rest.split_at(length);
        if is_word {
            words.push(Word {
                text: piece.to_owned(),
                line,
            });
        }
        line += piece.matches('\n').count();
        rest = after;
    }
    words
}

const fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// The bytes of what a text begins with, and whether that is a word.
fn piece(text: &str, first: char) -> (usize, bool) {
    if text.starts_with("//") {
        return (text.find('\n').unwrap_or(text.len()), false);
    }
    if text.starts_with("/*") {
        return (comment(text), false);
    }
    if let Some(length) = string(text) {
        return (length, false);
    }
    if first == '\'' {
        return (character_or_lifetime(text), false);
    }
    if is_of_name(first) {
        return (name(text), true);
    }
    if text.starts_with("::") {
        return (2, true);
    }
    (first.len_utf8(), !first.is_whitespace())
}

fn name(text: &str) -> usize {
    text.find(|c: char| !is_of_name(c)).unwrap_or(text.len())
}

/// They nest.
fn comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(rest) = text.get(at..) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            let Some(c) = rest.chars().next() else { break };
            at += c.len_utf8();
        }
    }
    at.min(text.len())
}

/// With its prefix; `None` where none begins.
fn string(text: &str) -> Option<usize> {
    ["", "b", "c", "r", "br", "cr"].into_iter().find_map(|prefix| {
        let rest = text.strip_prefix(prefix)?;
        let is_raw = prefix.ends_with('r');
        let hashes = if is_raw {
            rest.len() - rest.trim_start_matches('#').len()
        } else {
            0
        };
        let body = rest.get(hashes..)?.strip_prefix('"')?;
        let begun = text.len() - body.len();
        let length = if is_raw {
            let end = format!("\"{}", "#".repeat(hashes));
            body.find(&end).map_or(body.len(), |at| at + end.len())
        } else {
            to_quote(body, '"')
        };
        Some(begun + length)
    })
}

/// `'a'`, `'\''` or `'a`.
fn character_or_lifetime(text: &str) -> usize {
    let rest = text.get(1..).unwrap_or_default();
    let mut next = rest.chars();
    match (next.next(), next.next()) {
        (Some('\\'), _) | (_, Some('\'')) => 1 + to_quote(rest, '\''),
        _ => 1 + name(rest),
    }
}

/// The bytes to the quote that ends it, and that.
fn to_quote(body: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in body.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn what_comments_strings_and_characters_say_is_no_word() {
        assert_eq!(texts("a // crate::b\nc"), ["a", "c"]);
        assert_eq!(texts("a /* b /* c */ d */ e"), ["a", "e"]);
        assert_eq!(texts(r#"a "b \" c" d b"e" f"#), ["a", "d", "f"]);
        assert_eq!(texts(r###"a r#"b " c"# d br##"e"# f"## g"###), ["a", "d", "g"]);
        assert_eq!(texts(r#"a 'b' '"' '\'' '\\' '"' c"#), ["a", "c"]);
        assert_eq!(texts("a 'ä' b"), ["a", "b"]);
    }

    #[test]
    fn a_lifetime_begins_no_string() {
        assert_eq!(
            texts("fn f<'a>(x: &'a str, y: &'_ u8) {}").join(" "),
            "fn f < > ( x : & str , y : & u8 ) { }"
        );
    }

    #[test]
    fn each_word_has_its_line_behind_whatever_has_many() {
        let lines: Vec<_> = words("a\n/* \n */ b \"\n\n\" c::d")
            .into_iter()
            .map(|word| (word.text, word.line))
            .collect();
        let expected = [("a", 1), ("b", 3), ("c", 5), ("::", 5), ("d", 5)];
        assert_eq!(lines, expected.map(|(text, line)| (text.to_owned(), line)));
    }

    #[test]
    fn what_has_no_end_ends_with_the_text() {
        for text in ["/* a", "\"a", "r#\"a", "'\\", "'", "/*/", "// a", "b\"", "'a"] {
            assert_eq!(texts(text), Vec::<String>::new(), "{text}");
        }
    }
}
