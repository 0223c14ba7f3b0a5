//! A TOML text, read key by key. The keys that are asked for are the ones that exist: any other is
//! reported with its line and the nearest one that was asked for.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;
use crate::store::SourcedValue;

/// A text and where it is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// A file, or what stands for one in an error.
    pub origin: PathBuf,
    /// TOML.
    pub text: String,
}

/// All texts, a later one over an earlier one, and what has been found wrong with them so far.
#[derive(Debug)]
pub(super) struct Document<'a> {
    layers: Vec<(&'a Layer, DeTable<'a>)>,
    problems: RefCell<Vec<Problem>>,
    lookups: RefCell<Vec<Lookup>>,
}

/// A key that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// With its brackets; several of the same name are apart by their ordinal.
    pub section: (String, usize),
    /// The key.
    pub key: &'static str,
    /// As written, and where; `None`: it is not written. Line 0: it is from the process's surroundings, which its
    /// "file" names.
    pub found: Option<(String, PathBuf, usize)>,
}

/// One table, in as many layers as have it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    name: String,
    ordinal: usize,
    /// None: not written; every key has its default.
    tables: Vec<(usize, &'a DeTable<'a>)>,
    place: Option<(usize, usize)>,
    asked: RefCell<Vec<&'static str>>,
}

/// A value and its layer.
type LocatedValue<'a> = (usize, &'a Spanned<DeValue<'a>>);

impl<'a> Document<'a> {
    pub(super) fn new(layers: &'a [Layer]) -> Self {
        let mut document = Self {
            layers: Vec::new(),
            problems: RefCell::default(),
            lookups: RefCell::default(),
        };
        for layer in layers {
            let (root, errors) = DeTable::parse_recoverable(&layer.text);
            document.layers.push((layer, root.into_inner()));
            let this = document.layers.len() - 1;
            for error in errors {
                let place = error.span().map(|span| (this, document.line(this, span.start)));
                document.report(place, error.message().trim().to_owned());
            }
        }
        document
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.problems.borrow().clone()
    }

    pub(super) fn lookups(&self) -> Vec<Lookup> {
        self.lookups.borrow().clone()
    }

    /// `place`: the layer and the line.
    pub(super) fn report(&self, place: Option<(usize, usize)>, what: String) {
        let origin = place.and_then(|(layer, _)| Some(self.layers.get(layer)?.0.origin.clone()));
        self.problems.borrow_mut().push(Problem {
            origin,
            line: place.map(|(_, line)| line),
            what,
        });
    }

    fn line(&self, layer: usize, at: usize) -> usize {
        let text = self.layers.get(layer).map_or("", |(layer, _)| layer.text.as_str());
        let before = text.as_bytes().get(..at).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn place(&self, (layer, value): LocatedValue<'a>) -> (usize, usize) {
        (layer, self.line(layer, value.span().start))
    }

    fn written(&self, (layer, value): LocatedValue<'a>) -> &'a str {
        let text = self
            .layers
            .get(layer)
            .and_then(|(layer, _)| layer.text.get(value.span()));
        text.unwrap_or("this")
    }

    /// The top level; its keys are the sections.
    pub(super) fn root(&'a self) -> Section<'a> {
        Section {
            document: self,
            name: String::new(),
            ordinal: 0,
            tables: self.layers.iter().map(|(_, root)| root).enumerate().collect(),
            place: None,
            asked: RefCell::default(),
        }
    }
}

impl<'a> Section<'a> {
    /// A table in this one.
    pub(super) fn section(&self, name: &'static str) -> Section<'a> {
        let mut tables = Vec::new();
        let mut place = None;
        for found in self.get_all(name) {
            place = Some(self.document.place(found));
            match found.1.get_ref().as_table() {
                Some(table) => tables.push((found.0, table)),
                None => self.wrong(found, &format!("'{name}' must be a section: [{name}]")),
            }
        }
        Section {
            document: self.document,
            name: format!("[{name}]"),
            ordinal: 0,
            tables,
            place,
            asked: RefCell::default(),
        }
    }

    /// The tables of an array (`[[name]]`), those of all layers one after the other.
    pub(super) fn sections(&self, name: &'static str) -> Vec<Section<'a>> {
        let mut sections = Vec::new();
        for found in self.get_all(name) {
            let Some(array) = found.1.get_ref().as_array() else {
                self.wrong(found, &format!("'{name}' must be a list of sections: [[{name}]]"));
                continue;
            };
            for value in array {
                let value = (found.0, value);
                let Some(table) = value.1.get_ref().as_table() else {
                    self.wrong(value, &format!("'{name}' must be a list of sections: [[{name}]]"));
                    continue;
                };
                sections.push(Section {
                    document: self.document,
                    name: format!("[[{name}]]"),
                    ordinal: sections.len(),
                    tables: vec![(found.0, table)],
                    place: Some(self.document.place(value)),
                    asked: RefCell::default(),
                });
            }
        }
        sections
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

    /// A text, or where none is written what the surroundings say.
    pub(super) fn string_or(&self, key: &'static str, around: Option<SourcedValue>) -> Option<String> {
        match around {
            Some((value, origin)) if self.find(key).is_none() => {
                self.take(key, toml::Value::String(value.clone()).to_string(), origin);
                Some(value)
            }
            _ => self.string(key),
        }
    }

    /// The same for what is true or false.
    pub(super) fn bool_or(&self, key: &'static str, around: Option<SourcedValue>) -> Option<bool> {
        match around {
            Some((value, origin)) if self.find(key).is_none() => {
                let parsed = value.to_ascii_lowercase().parse::<bool>().ok();
                match parsed {
                    Some(parsed) => self.take(key, bool::to_string(&parsed), origin),
                    None => {
                        self.asked.borrow_mut().push(key);
                        self.complain(key, &format!("{origin} = \"{value}\": expected true or false"));
                    }
                }
                parsed
            }
            _ => self.bool(key),
        }
    }

    /// Where a key's value is from, in words. `around`: what the surroundings say of it.
    pub(super) fn origin_of(&self, key: &str, around: Option<&SourcedValue>) -> String {
        match (self.find(key), around) {
            (None, Some((_, origin))) => format!("{key}, from {origin}"),
            _ => key.to_owned(),
        }
    }

    fn take(&self, key: &'static str, written: String, origin: String) {
        self.asked.borrow_mut().push(key);
        self.document.lookups.borrow_mut().push(Lookup {
            section: (self.name.clone(), self.ordinal),
            key,
            found: Some((written, PathBuf::from(origin), 0)),
        });
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
        self.value(key, &a_size(&bounds), |value| size(value, &bounds))
    }

    /// A size, or `{ limit = SIZE, scope = WORD }` with one of a few words.
    pub(super) fn scoped_size<T: Copy + Default>(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u64>,
        words: &[(&str, T)],
    ) -> Option<(u64, T)> {
        let list: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let list = list.join(" or ");
        let expected = format!("{}, or {{ limit = \"16MiB\", scope = {list} }}", a_size(&bounds));
        self.value(key, &expected, |value| {
            let Some(table) = value.as_table() else {
                return Some((size(value, &bounds)?, T::default()));
            };
            let is_known = table.keys().all(|key| {
                let key: &str = key.get_ref().as_ref();
                ["limit", "scope"].contains(&key)
            });
            let scope = match table.get("scope") {
                None => T::default(),
                Some(word) => {
                    let word = word.get_ref().as_str()?;
                    words.iter().find(|(known, _)| *known == word)?.1
                }
            };
            let limit = size(table.get("limit")?.get_ref(), &bounds)?;
            is_known.then_some((limit, scope))
        })
    }

    /// Whether a section of this one has a key. That is no question for it.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        let mut tables = self.tables.iter();
        tables.any(|(_, table)| {
            let section = table.get(section).and_then(|section| section.get_ref().as_table());
            section.is_some_and(|section| section.get(key).is_some())
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
        let place = self.find(key).map(|found| self.document.place(found)).or(self.place);
        self.document.report(place, format!("{}: {what}", self.name));
    }

    /// Reports every key that nobody asked for. Call it last.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (layer, key) in self.tables.iter().flat_map(|(layer, table)| {
            let keys = table.keys();
            keys.map(move |key| (*layer, key))
        }) {
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
                Some((layer, self.document.line(layer, key.span().start))),
                format!("unknown key '{name}'{place}; {advice}"),
            );
        }
    }

    fn find(&self, key: &str) -> Option<LocatedValue<'a>> {
        let mut tables = self.tables.iter().rev();
        tables.find_map(|(layer, table)| Some((*layer, table.get(key)?)))
    }

    fn get_all(&self, key: &'static str) -> Vec<LocatedValue<'a>> {
        self.asked.borrow_mut().push(key);
        let tables = self.tables.iter();
        tables
            .filter_map(|(layer, table)| Some((*layer, table.get(key)?)))
            .collect()
    }

    fn get(&self, key: &'static str) -> Option<LocatedValue<'a>> {
        self.asked.borrow_mut().push(key);
        let found = self.find(key);
        self.document.lookups.borrow_mut().push(Lookup {
            section: (self.name.clone(), self.ordinal),
            key,
            found: found.map(|found| {
                let (layer, line) = self.document.place(found);
                let origin = self.document.layers.get(layer).map(|(layer, _)| layer.origin.clone());
                (
                    self.document.written(found).to_owned(),
                    origin.unwrap_or_default(),
                    line,
                )
            }),
        });
        found
    }

    fn value<T>(
        &self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let found = self.get(key)?;
        let converted = convert(found.1.get_ref());
        if converted.is_none() {
            let shown = self.document.written(found);
            self.wrong(found, &format!("{key} = {shown} in {}: expected {expected}", self.name));
        }
        converted
    }

    fn wrong(&self, found: LocatedValue<'a>, what: &str) {
        self.document.report(Some(self.document.place(found)), what.to_owned());
    }
}

fn a_size(bounds: &std::ops::RangeInclusive<u64>) -> String {
    let show = |bytes: u64| bytesize::ByteSize::b(bytes).display().iec().to_string();
    format!(
        "a size from \"{}\" to \"{}\", such as \"16MiB\"",
        show(*bounds.start()),
        show(*bounds.end())
    )
}

fn size(value: &DeValue<'_>, bounds: &std::ops::RangeInclusive<u64>) -> Option<u64> {
    let size = value.as_str()?.parse::<bytesize::ByteSize>().ok()?.as_u64();
    bounds.contains(&size).then_some(size)
}
