//! The arrows between rooms, read from the files of the library.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::errnos::{Bare, may_name};
use super::paths::{Named, read};

/// A room uses something of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Arrow {
    pub(super) from: String,
    pub(super) to: String,
    /// Below the library's folder.
    pub(super) file: PathBuf,
    pub(super) line: usize,
    /// What it uses, from the crate's root.
    pub(super) path: String,
}

/// A file uses something of another one of its room; both by their modules, from the crate's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Between {
    pub(super) from: String,
    pub(super) to: String,
}

/// The rooms that there are, and all arrows between them and inside them, by file and line.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Errnos where none should be named, by their file below the library's folder.
    pub(super) errnos: Vec<(PathBuf, Bare)>,
    pub(super) rooms: BTreeSet<String>,
    pub(super) arrows: Vec<Arrow>,
    pub(super) inside: Vec<Between>,
}

/// Reads the library in that folder. What is there for tests only is left out, and so is `main.rs`: it stands on all.
pub(super) fn source(folder: &Path) -> Result<Source, String> {
    let mut files = Vec::new();
    find(folder, &mut files)?;
    files.sort();
    let mut tests = Vec::new();
    let mut all = Vec::new();
    let mut errnos = Vec::new();
    for file in files {
        let below = file.strip_prefix(folder).unwrap_or(&file).to_owned();
        let module = module(&below);
        if module == ["main"] {
            continue;
        }
        let text = fs::read_to_string(&file).map_err(|error| format!("'{}': {error}", file.display()))?;
        let content = read(&text, &module);
        for test in content.tests {
            let mut of_tests = module.clone();
            of_tests.push(test);
            tests.push(of_tests);
        }
        if !may_name(&below) {
            errnos.push((below.clone(), module.clone(), content.errnos));
        }
        all.push((below, module, content.named));
    }
    all.retain(|(_, module, _)| !tests.iter().any(|test| module.starts_with(test)));
    let names = Names::new(&all);
    let mut source = Source {
        inside: inside(&all, &names),
        ..Source::default()
    };
    for (file, module, named) in all {
        // The crate's root is no room: it names them.
        if let Some(room) = module.first() {
            source.rooms.insert(room.clone());
            let leave = named.iter().filter_map(|named| arrow(room, &file, named));
            source.arrows.extend(leave);
        }
    }
    errnos.retain(|(_, module, _)| !tests.iter().any(|test| module.starts_with(test)));
    let each = errnos.into_iter();
    source.errnos = each
        .flat_map(|(file, _, bare)| bare.into_iter().map(move |bare| (file.clone(), bare)))
        .collect();
    Ok(source)
}

/// A file, its module, and what it names.
type Read = (PathBuf, Vec<String>, Vec<Named>);

/// Which file a path means.
struct Names<'a> {
    files: BTreeSet<&'a [String]>,
    /// What modules know others' things by.
    known_as: BTreeMap<&'a [String], &'a [String]>,
}

impl<'a> Names<'a> {
    /// No chain of names is longer.
    const LONGEST: usize = 8;

    fn new(all: &'a [Read]) -> Self {
        let named = all.iter().flat_map(|(_, _, named)| named);
        let known_as = named.filter_map(|named| Some((named.known_as.as_deref()?, named.path.as_slice())));
        Self {
            files: all.iter().map(|(_, module, _)| module.as_slice()).collect(),
            known_as: known_as.collect(),
        }
    }

    /// The module of the file that has it, through whatever names it has on the way.
    fn file(&self, path: &[String]) -> Option<&'a [String]> {
        let mut path = path.to_vec();
        let mut file = None;
        for _ in 0..Self::LONGEST {
            let length = (1..=path.len())
                .rev()
                .find(|length| self.files.contains(&path[..*length]))?;
            file = self.files.get(&path[..length]).copied();
            let known = path.get(..=length).and_then(|path| self.known_as.get(path));
            let Some(known) = known.filter(|known| **known != &path[..=length]) else {
                break;
            };
            path = [*known, &path[length + 1..]].concat();
        }
        file
    }
}

/// What a file only shows to others is not what it stands on.
fn inside(all: &[Read], names: &Names<'_>) -> Vec<Between> {
    let mut inside = Vec::new();
    for (_, module, named) in all {
        for named in named.iter().filter(|named| !named.is_shown) {
            let Some(to) = names.file(&named.path) else { continue };
            if to.first() == module.first() && to != module.as_slice() {
                let (from, to) = (module.join("::"), to.join("::"));
                inside.push(Between { from, to });
            }
        }
    }
    inside
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("'{}': {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The module that a file is, from the crate's root.
fn module(file: &Path) -> Vec<String> {
    let without = file.with_extension("");
    let mut module: Vec<_> = without.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module == ["lib"] || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// `None` where it stays in its room.
fn arrow(room: &str, file: &Path, named: &Named) -> Option<Arrow> {
    let to = named.path.first()?;
    (to != room).then(|| Arrow {
        from: room.to_owned(),
        to: to.clone(),
        file: file.to_owned(),
        line: named.line,
        path: named.path.join("::"),
    })
}
