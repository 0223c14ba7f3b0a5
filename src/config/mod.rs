//! Configuration: the file as written (`document`) becomes [`Settings`], which are valid or do not
//! exist. Everything that is wrong is said at once, each with file, line and key.

mod document;
mod fleet;
mod layers;
mod ledger;
mod reach;
mod settings;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use document::{Layer, Lookup};

pub use settings::{OnStop, Settings, is_host_and_port};

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file; `None` for what is missing.
    pub origin: Option<PathBuf>,
    /// Line of the file, from 1; `None` for what is missing.
    pub line: Option<usize>,
    /// What, and what to do.
    pub what: String,
}

impl Problem {
    /// File and line; `file`: where the configuration begins.
    pub(crate) fn place(&self, file: &Path) -> String {
        let origin = self.origin.as_deref().unwrap_or(file).display();
        match self.line {
            Some(line) => format!("{origin}:{line}"),
            None => origin.to_string(),
        }
    }
}

/// The configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration '{}': {source}. Give the file with --config FILE (a complete example is config/lhsmtool-s3.toml)", path.display())]
    Read {
        /// The configuration file that could not be read.
        path: PathBuf,
        /// The system's error.
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
        /// The configuration file with the problems.
        path: PathBuf,
        /// All of it.
        problems: Vec<Problem>,
    },
}

fn list(path: &Path, problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {}: {}", problem.place(path), problem.what))
        .collect()
}

/// Reads a configuration: a file, what is in the directory `FILE.d` beside it, and the environment
/// (`LHSMTOOL_S3__SECTION__KEY`). `mount`, from the command line, goes before theirs.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path, mount: Option<&Path>) -> Result<Settings, ConfigError> {
    load_with_origins(path, mount).map(|(settings, _)| settings)
}

/// The same with each key that exists, where it was set.
///
/// # Errors
/// All that is wrong with it.
pub fn load_with_origins(path: &Path, mount: Option<&Path>) -> Result<(Settings, Vec<Lookup>), ConfigError> {
    let layers = layers::read(path, variables()).map_err(|(path, source)| ConfigError::Read { path, source })?;
    parse_layers(&layers, mount, &variables().collect()).map_err(|problems| ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    })
}

/// Of the environment, as far as it is text.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The same from a text alone: nothing of the environment or the AWS files.
///
/// # Errors
/// All that is wrong with it, in the order of its lines.
pub fn parse(text: &str, mount: Option<&Path>) -> Result<Settings, Vec<Problem>> {
    let layer = Layer {
        origin: PathBuf::new(),
        text: text.to_owned(),
    };
    parse_layers(&[layer], mount, &HashMap::new()).map(|(settings, _)| settings)
}

fn parse_layers(
    layers: &[Layer],
    mount: Option<&Path>,
    variables: &HashMap<String, String>,
) -> Result<(Settings, Vec<Lookup>), Vec<Problem>> {
    let document = document::Document::new(layers);
    let settings = Settings::from_document(&document, mount, variables);
    let mut problems = document.problems();
    let order = |origin: &Option<PathBuf>| {
        let of = layers.iter().position(|layer| Some(&layer.origin) == origin.as_ref());
        of.unwrap_or(usize::MAX)
    };
    problems.sort_by_key(|problem| (order(&problem.origin), problem.line.unwrap_or(usize::MAX)));
    match settings {
        Some(settings) if problems.is_empty() => Ok((settings, document.lookups())),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests;
