//! Configuration: the file as written (`document`) becomes [`Settings`], which are valid or do not
//! exist. Everything that is wrong is said at once, each with file, line and key.

mod document;
mod settings;

use std::path::{Path, PathBuf};

pub use settings::{LogFormat, Settings, is_host_and_port};

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Line of the file, from 1; `None` for what is missing.
    pub line: Option<usize>,
    /// What, and what to do.
    pub what: String,
}

/// The configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration '{}': {source}. Give the file with --config FILE (a complete example is config/lhsmtool-s3.toml)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A flag of the command line.
    #[error("{what}")]
    Flag {
        /// Which, and what to do.
        what: String,
    },
    /// Its content.
    #[error("the configuration can't be used:{}", list(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of it.
        problems: Vec<Problem>,
    },
}

fn list(path: &Path, problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| match problem.line {
            Some(line) => format!("\n  {}:{line}: {}", path.display(), problem.what),
            None => format!("\n  {}: {}", path.display(), problem.what),
        })
        .collect()
}

/// Reads a configuration file. `mount`, from the command line, goes before the file's.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path, mount: Option<&Path>) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, mount).map_err(|problems| ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    })
}

/// The same from a text.
///
/// # Errors
/// All that is wrong with it, in the order of its lines.
pub fn parse(text: &str, mount: Option<&Path>) -> Result<Settings, Vec<Problem>> {
    let document = document::Document::new(text);
    let settings = Settings::from_document(&document, mount);
    let mut problems = document.problems();
    problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests;
