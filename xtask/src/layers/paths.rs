//! The paths that the production code of a file names: in `use` lines and wherever else one begins with `crate`, `super`
//! or `self`. And the errnos, wherever.

use std::collections::BTreeSet;

use super::errnos::{Bare, bare};
use super::lexer::{Word, words};

/// Words with which an item begins that ends with `;` or `}`, and not with a comma.
const ITEMS: &[&str] = &[
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "macro_rules",
    "mod",
    "static",
    "struct",
    "trait",
    "type",
    "union",
    "unsafe",
    "use",
];

/// A path from the crate's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    /// From the crate's root, too: what it can be called where a `use` names it.
    pub(super) known_as: Option<Vec<String>>,
    /// It is only shown to others: by `pub use`.
    pub(super) is_shown: bool,
}

#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Content {
    pub(super) named: Vec<Named>,
    /// Modules that are there for tests only, in files of their own.
    pub(super) tests: Vec<String>,
    pub(super) errnos: Vec<Bare>,
}

/// What the text of that module names.
pub(super) fn read(text: &str, module: &[String]) -> Content {
    let (words, tests) = production(&words(text));
    let mut reader = Reader {
        words: &words,
        at: 0,
        inside: module.to_vec(),
        children: children(&words),
        blocks: Vec::new(),
        named: Vec::new(),
    };
    reader.read();
    Content {
        named: reader.named,
        tests,
        errnos: bare(&words),
    }
}

fn begins(words: &[Word], with: &[&str]) -> bool {
    words.len() >= with.len() && words.iter().zip(with).all(|(word, with)| word.text == *with)
}

/// What is compiled without tests, and the modules that are not.
fn production(words: &[Word]) -> (Vec<Word>, Vec<String>) {
    let (mut kept, mut tests) = (Vec::new(), Vec::new());
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        let is_of_tests = begins(rest, &["#", "[", "cfg", "(", "test", ")"])
            || begins(rest, &["#", "[", "cfg", "(", "all", "(", "test"]);
        if !is_of_tests {
            kept.push(word.clone());
            rest = after;
            continue;
        }
        let (item, after) = rest.split_at(item(rest));
        if let [.., module, name, end] = item
            && module.text == "mod"
            && end.text == ";"
        {
            tests.push(name.text.clone());
        }
        rest = after;
    }
    (kept, tests)
}

/// How many words the item has that begins here, its attributes with it.
fn item(words: &[Word]) -> usize {
    let mut at = 0;
    while begins(&words[at..], &["#", "["]) {
        at += 1 + group(&words[at + 1..]);
    }
    if begins(&words[at..], &["pub"]) {
        at += 1;
        if begins(&words[at..], &["("]) {
            at += group(&words[at..]);
        }
    }
    let has_commas = words.get(at).is_some_and(|word| ITEMS.contains(&word.text.as_str()));
    while let Some(word) = words.get(at) {
        match word.text.as_str() {
            ";" => return at + 1,
            "," if !has_commas => return at + 1,
            "{" => return at + group(&words[at..]),
            "(" | "[" => at += group(&words[at..]),
            // The last one of what is around it.
            "}" | ")" | "]" => return at,
            _ => at += 1,
        }
    }
    words.len()
}

/// How many words there are from a bracket to its counterpart, both with them.
fn group(words: &[Word]) -> usize {
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate() {
        match word.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    words.len()
}

/// Modules that are declared here and have files of their own.
fn children(words: &[Word]) -> BTreeSet<String> {
    let declared = words
        .windows(3)
        .filter(|three| three[0].text == "mod" && three[2].text == ";");
    declared.map(|three| three[1].text.clone()).collect()
}

struct Reader<'a> {
    words: &'a [Word],
    at: usize,
    /// The module that the words are of.
    inside: Vec<String>,
    children: BTreeSet<String>,
    /// Of each open brace: whether a module began with it.
    blocks: Vec<bool>,
    named: Vec<Named>,
}

impl Reader<'_> {
    fn word(&self, ahead: usize) -> &str {
        self.words.get(self.at + ahead).map_or("", |word| word.text.as_str())
    }

    fn before(&self) -> &str {
        let before = self.at.checked_sub(1).and_then(|at| self.words.get(at));
        before.map_or("", |word| word.text.as_str())
    }

    fn read(&mut self) {
        while let Some(word) = self.words.get(self.at) {
            match word.text.as_str() {
                // `use<…>` names lifetimes.
                "use" if self.word(1) != "<" => {
                    let is_shown = matches!(self.before(), "pub" | ")");
                    self.at += 1;
                    self.tree(&[], is_shown);
                }
                "mod" if self.word(2) == "{" => {
                    self.inside.push(self.word(1).to_owned());
                    self.blocks.push(true);
                    self.at += 3;
                }
                // A visibility: who may use it, not what is used.
                "in" if self.before() == "(" => {
                    self.at += 1;
                    while !matches!(self.word(0), ")" | "") {
                        self.at += 1;
                    }
                }
                "crate" | "super" | "self" if self.word(1) == "::" => self.path(),
                child if self.word(1) == "::" && self.before() != "::" && self.children.contains(child) => self.path(),
                "{" => {
                    self.blocks.push(false);
                    self.at += 1;
                }
                "}" => {
                    if self.blocks.pop() == Some(true) {
                        self.inside.pop();
                    }
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
    }

    /// What stands behind `use`, or in its braces.
    fn tree(&mut self, before: &[String], is_shown: bool) {
        let mut path = before.to_vec();
        let mut line = 0;
        let mut renamed = None;
        while let Some(word) = self.words.get(self.at) {
            match word.text.as_str() {
                "," | "}" | ";" => break,
                "::" => self.at += 1,
                // The name that it has here.
                "as" => {
                    renamed = Some(self.word(1).to_owned());
                    self.at += 2;
                }
                "{" => {
                    self.at += 1;
                    loop {
                        match self.word(0) {
                            "}" => {
                                self.at += 1;
                                return;
                            }
                            "," => self.at += 1,
                            ";" | "" => return,
                            _ => self.tree(&path, is_shown),
                        }
                    }
                }
                name => {
                    path.push(name.to_owned());
                    line = word.line;
                    self.at += 1;
                }
            }
        }
        let last = path.iter().rev().find(|segment| *segment != "self");
        let known_as = renamed.or_else(|| last.cloned()).map(|name| {
            let mut known_as = self.inside.clone();
            known_as.push(name);
            known_as
        });
        self.name(&path, line, known_as, is_shown);
    }

    fn path(&mut self) {
        let line = self.words[self.at].line;
        let mut path = vec![self.word(0).to_owned()];
        self.at += 1;
        while self.word(0) == "::" && self.word(1).starts_with(|c: char| c.is_alphabetic() || c == '_') {
            path.push(self.word(1).to_owned());
            self.at += 2;
        }
        self.name(&path, line, None, false);
    }

    /// Notes it where it is of this crate.
    fn name(&mut self, path: &[String], line: usize, known_as: Option<Vec<String>>, is_shown: bool) {
        let (mut from_root, rest) = match path.split_first() {
            Some((first, rest)) if first == "crate" => (Vec::new(), rest),
            Some((first, _)) if first == "self" || first == "super" || self.children.contains(first) => {
                (self.inside.clone(), path)
            }
            _ => return,
        };
        for segment in rest {
            match segment.as_str() {
                "self" => {}
                "super" => {
                    from_root.pop();
                }
                name => from_root.push(name.to_owned()),
            }
        }
        self.named.push(Named {
            path: from_root,
            line,
            known_as,
            is_shown,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<(String, usize)> {
        let module = ["room", "door"].map(str::to_owned);
        let named = read(text, &module).named.into_iter();
        named.map(|named| (named.path.join("::"), named.line)).collect()
    }

    fn paths(text: &str) -> Vec<String> {
        named(text).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn a_use_names_each_of_its_leaves_on_its_own_line() {
        let text = "use std::fmt;\npub use crate::{\n    a::{self, B as C, d::*},\n    e,\n};\nuse crate::f::G;";
        assert_eq!(
            named(text),
            [("a", 3), ("a::B", 3), ("a::d::*", 3), ("e", 4), ("f::G", 6)].map(|(path, line)| (path.to_owned(), line))
        );
    }

    #[test]
    fn a_path_in_the_middle_of_code_is_named_too() {
        assert_eq!(
            paths("fn f(x: &crate::a::B<crate::c::D>) -> u8 { crate::e::f::<u8>(x); g::h(self.x) }"),
            ["a::B", "c::D", "e::f"]
        );
    }

    #[test]
    fn super_leaves_the_module_that_it_stands_in() {
        assert_eq!(
            paths("use super::a; use super::super::b::C; use self::d; mod inner { use super::e; } use super::f;"),
            ["room::a", "b::C", "room::door::d", "room::door::e", "room::f"]
        );
    }

    #[test]
    fn a_child_is_named_without_a_word_before_it() {
        assert_eq!(
            paths("mod a; use a::B; fn f() { a::g(); x::a::h(); c::i() }"),
            ["room::door::a::B", "room::door::a::g"]
        );
    }

    #[test]
    fn what_a_use_names_is_known_by_its_last_name_or_its_new_one() {
        let module = ["room", "door"].map(str::to_owned);
        let named = read(
            "pub use crate::a::B; use crate::c::{self, d as e}; fn f() { crate::g() }",
            &module,
        )
        .named;
        let known = named
            .into_iter()
            .map(|named| (named.known_as.map(|path| path.join("::")), named.is_shown));
        assert_eq!(
            known.collect::<Vec<_>>(),
            [
                (Some("room::door::B".to_owned()), true),
                (Some("room::door::c".to_owned()), false),
                (Some("room::door::e".to_owned()), false),
                (None, false),
            ]
        );
    }

    #[test]
    fn who_may_use_it_is_not_what_it_uses() {
        assert_eq!(
            paths("pub(in crate::other) fn f() {} pub(crate) use super::g; pub(super) struct S;"),
            ["room::g"]
        );
        assert_eq!(
            paths("fn f() -> impl Iterator<Item = u8> + use<'_> { crate::a::b() }"),
            ["a::b"]
        );
    }

    #[test]
    fn what_is_there_for_tests_is_left_out() {
        let text = "use crate::a;\n#[cfg(test)]\n#[path = \"x\"]\nmod tests { use crate::b; fn f() { let x = {}; } }\n\
                    #[cfg(test)]\nuse crate::{c, d};\nstruct S { #[cfg(test)] pub x: crate::e::F, y: crate::g::H }\n\
                    #[cfg(test)]\npub(crate) fn f<A, B>(x: [crate::i::A; 2]) { crate::j::k() }\n\
                    #[cfg(all(test, feature = \"l\"))] fn m() { crate::n::o() }\n#[cfg(not(test))] use crate::p;";
        assert_eq!(paths(text), ["a", "g::H", "p"]);
    }

    #[test]
    fn a_file_that_is_there_for_tests_is_told_of() {
        let content = read("mod a;\n#[cfg(test)]\nmod tests;\nmod b;", &[]);
        assert_eq!(content.tests, ["tests"]);
    }

    #[test]
    fn a_text_that_is_cut_off_ends() {
        let text =
            "use crate::{a::{b, c as d}, e}; #[cfg(test)] fn f() { crate::g::h(&[1]); } pub(in crate::i) mod j { }";
        for (at, _) in text.char_indices() {
            read(&text[..at], &[]);
        }
    }
}
