//! The arrows between rooms, read from the files of the library.

use std::collections::BTreeSet;
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

/// The rooms that there are, and all arrows between them, by file and line.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Errnos where none should be named, by their file below the library's folder.
    pub(super) errnos: Vec<(PathBuf, Bare)>,
    pub(super) rooms: BTreeSet<String>,
    pub(super) arrows: Vec<Arrow>,
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
    let mut source = Source::default();
    for (file, module, named) in all {
        if tests.iter().any(|test| module.starts_with(test)) {
            continue;
        }
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
