//! A TOML text, read key by key. The keys that are asked for are the ones that exist: any other is
//! reported with its line and the nearest one that was asked for.

use std::cell::RefCell;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// The whole text, and what has been found wrong with it so far.
#[derive(Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    root: DeTable<'a>,
    problems: RefCell<Vec<Problem>>,
}

/// One table of it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    name: String,
    /// `None`: not written; every key has its default.
    table: Option<&'a DeTable<'a>>,
    line: Option<usize>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self {
            text,
            root: root.into_inner(),
            problems: RefCell::default(),
        };
        for error in errors {
            let line = error.span().map(|span| document.line(span.start));
            document.report(line, error.message().trim().to_owned());
        }
        document
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.problems.borrow().clone()
    }

    pub(super) fn report(&self, line: Option<usize>, what: String) {
        self.problems.borrow_mut().push(Problem { line, what });
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// The top level; its keys are the sections.
    pub(super) fn root(&'a self) -> Section<'a> {
        Section {
            document: self,
            name: String::new(),
            table: Some(&self.root),
            line: None,
            asked: RefCell::default(),
        }
    }
}

impl<'a> Section<'a> {
    /// A table in this one.
    pub(super) fn section(&self, name: &'static str) -> Section<'a> {
        let found = self.get(name);
        let table = found.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.wrong(value, &format!("'{name}' must be a section: [{name}]"));
            }
            table
        });
        Section {
            document: self.document,
            name: format!("[{name}]"),
            table,
            line: found.map(|value| self.document.line(value.span().start)),
            asked: RefCell::default(),
        }
    }

    /// The tables of an array (`[[name]]`).
    pub(super) fn sections(&self, name: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(name) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(value, &format!("'{name}' must be a list of sections: [[{name}]]"));
            return Vec::new();
        };
        array
            .iter()
            .filter_map(|value| {
                let Some(table) = value.get_ref().as_table() else {
                    self.wrong(value, &format!("'{name}' must be a list of sections: [[{name}]]"));
                    return None;
                };
                Some(Section {
                    document: self.document,
                    name: format!("[[{name}]]"),
                    table: Some(table),
                    line: Some(self.document.line(value.span().start)),
                    asked: RefCell::default(),
                })
            })
            .collect()
    }

    pub(super) fn string(&self, key: &'static str) -> Option<String> {
        self.value(key, "a text in quotes", |value| value.as_str().map(str::to_owned))
    }

    /// A list of texts.
    pub(super) fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        self.value(key, "a list of texts in quotes", |value| {
            let texts = value.as_array()?.iter();
            texts.map(|text| text.get_ref().as_str().map(str::to_owned)).collect()
        })
    }

    pub(super) fn bool(&self, key: &'static str) -> Option<bool> {
        self.value(key, "true or false", DeValue::as_bool)
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, key: &'static str, bounds: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.value(key, &expected, |value| {
            let integer = value.as_integer()?;
            let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            bounds.contains(&number).then_some(number)
        })
    }

    /// A time such as `"30s"`, within bounds.
    pub(super) fn duration(&self, key: &'static str, bounds: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        let expected = format!(
            "a time from \"{}\" to \"{}\", such as \"90s\" or \"5m\"",
            humantime::format_duration(*bounds.start()),
            humantime::format_duration(*bounds.end())
        );
        self.value(key, &expected, |value| {
            let time = humantime::parse_duration(value.as_str()?).ok()?;
            bounds.contains(&time).then_some(time)
        })
    }

    /// A size such as `"16MiB"`, within bounds.
    pub(super) fn size(&self, key: &'static str, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let show = |bytes: u64| bytesize::ByteSize::b(bytes).display().iec().to_string();
        let expected = format!(
            "a size from \"{}\" to \"{}\", such as \"16MiB\"",
            show(*bounds.start()),
            show(*bounds.end())
        );
        self.value(key, &expected, |value| {
            let size = value.as_str()?.parse::<bytesize::ByteSize>().ok()?.as_u64();
            bounds.contains(&size).then_some(size)
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let list: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.value(key, &format!("one of {}", list.join(", ")), |value| {
            let text = value.as_str()?;
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    /// Reports a problem of this section's `key`.
    pub(super) fn complain(&self, key: &str, what: &str) {
        let line = self
            .table
            .and_then(|table| table.get(key))
            .map(|value| self.document.line(value.span().start))
            .or(self.line);
        self.document.report(line, format!("{}: {what}", self.name));
    }

    /// Reports every key that nobody asked for. Call it last.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let nearest = asked
                .iter()
                .map(|known| (strsim::damerau_levenshtein(name, known), known))
                .min()
                .filter(|(distance, known)| *distance <= 1 + known.len() / 4);
            let place = if self.name.is_empty() {
                String::new()
            } else {
                format!(" in {}", self.name)
            };
            let advice = match nearest {
                Some((_, known)) => format!("did you mean '{known}'?"),
                None => format!("known are {}", asked.join(", ")),
            };
            self.document.report(
                Some(self.document.line(key.span().start)),
                format!("unknown key '{name}'{place}; {advice}"),
            );
        }
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.table?.get(key)
    }

    fn value<T>(
        &self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            let shown = self.document.text.get(value.span()).unwrap_or("this");
            self.wrong(value, &format!("{key} = {shown} in {}: expected {expected}", self.name));
        }
        converted
    }

    fn wrong(&self, value: &Spanned<DeValue<'a>>, what: &str) {
        self.document
            .report(Some(self.document.line(value.span().start)), what.to_owned());
    }
}
