//! Errnos by number: told apart at the border to Lustre, in the table of their classes and in that of the verdicts.
//! Everybody else decides by the class.

use std::path::Path;

use super::lexer::Word;

/// Below the library's folder: who may name them.
const TABLES: &[&str] = &["lustre", "types/errno.rs", "worker/verdict.rs"];

/// Where they are named: C's constants and nix's.
const OWNERS: &[&str] = &["libc", "Errno"];

/// Calls that give an errno for an I/O error, or an I/O error for an errno.
const CALLS: &[&str] = &["raw_os_error", "from_raw_os_error"];

/// An errno that is named where only a class should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bare {
    pub(super) name: String,
    pub(super) line: usize,
}

/// Whether a file is one of those that may name them.
pub(super) fn may_name(file: &Path) -> bool {
    TABLES.iter().any(|table| file.starts_with(table))
}

/// Those that the production words of a file name.
pub(super) fn bare(words: &[Word]) -> Vec<Bare> {
    let mut bare = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let rest = &words[at..];
        if CALLS.contains(&word.text.as_str()) {
            bare.push(named(word));
        } else if OWNERS.contains(&word.text.as_str()) && rest.get(1).is_some_and(|word| word.text == "::") {
            bare.extend(leaves(&rest[2..]).iter().filter(|word| is_errno(&word.text)).map(named));
        }
    }
    bare
}

/// The name behind `::`, or all words of the braces there.
fn leaves(words: &[Word]) -> &[Word] {
    let length = match words.first() {
        Some(word) if word.text == "{" => words.iter().position(|word| word.text == "}").unwrap_or(words.len()),
        Some(_) => 1,
        None => 0,
    };
    &words[..length]
}

/// `*` brings all of them along. What epoll(7) waits for begins with the same letter.
fn is_errno(name: &str) -> bool {
    let is_of_constant = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let has_form = name.len() > 1 && name.starts_with('E') && name.chars().all(is_of_constant);
    name == "*" || (has_form && !name.starts_with("EPOLL"))
}

fn named(word: &Word) -> Bare {
    Bare {
        name: word.text.clone(),
        line: word.line,
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::words;
    use super::*;

    fn found(text: &str) -> Vec<(String, usize)> {
        let bare = bare(&words(text)).into_iter();
        bare.map(|bare| (bare.name, bare.line)).collect()
    }

    #[test]
    fn an_errno_is_found_however_it_is_named() {
        let text = "match e {\n libc::EIO | libc::E2BIG => 1,\n Errno::ENOENT => 2 }\nnix::errno::Errno::EAGAIN;\n\
                    use libc::{EPERM, O_RDONLY};\nuse nix::errno::Errno::*;\nif e.raw_os_error() == Some(2) {}\n\
                    io::Error::from_raw_os_error(5);";
        let expected = [
            ("EIO", 2),
            ("E2BIG", 2),
            ("ENOENT", 3),
            ("EAGAIN", 4),
            ("EPERM", 5),
            ("*", 6),
            ("raw_os_error", 7),
            ("from_raw_os_error", 8),
        ];
        assert_eq!(found(text), expected.map(|(name, line)| (name.to_owned(), line)));
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        let text = "HsmErrno::EIO; Extent::EMPTY; libc::O_EXCL; libc::EPOLLIN; Errno::from_raw(5); use libc::c_int; \
                    use nix::errno::Errno; ErrorClass::Gone; // libc::EIO\n\"libc::EIO\"; libc::";
        assert!(found(text).is_empty(), "{:?}", found(text));
    }

    #[test]
    fn the_border_and_the_two_tables_may_name_them() {
        for (file, may) in [
            ("lustre/mount.rs", true),
            ("types/errno.rs", true),
            ("worker/verdict.rs", true),
            ("types/mod.rs", false),
            ("worker/remove.rs", false),
            ("lustre.rs", false),
        ] {
            assert_eq!(may_name(Path::new(file)), may, "{file}");
        }
    }
}
