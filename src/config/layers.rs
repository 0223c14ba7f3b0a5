//! Where a configuration comes from: a file, the files in the directory beside it, the environment.

use std::io;
use std::path::{Path, PathBuf};

use super::document::Layer;

/// `LHSMTOOL_S3__WORKERS__THREADS=64` is `threads = 64` in section `[workers]`.
const VARIABLE: &str = "LHSMTOOL_S3__";

/// The file, then `FILE.d/*.toml` in the order of their names, then the environment: a later word goes before an
/// earlier one; `[[archive]]` sections add up.
///
/// # Errors
/// A file that can't be read, and why.
pub(super) fn read(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Layer>, (PathBuf, io::Error)> {
    let one = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(Layer {
            origin: path.to_owned(),
            text,
        }),
        Err(error) => Err((path.to_owned(), error)),
    };
    let mut layers = vec![one(path)?];
    let mut beside = path.as_os_str().to_owned();
    beside.push(".d");
    let beside = PathBuf::from(beside);
    let mut files = match std::fs::read_dir(&beside) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| (beside.clone(), error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err((beside, error)),
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    for file in files {
        layers.push(one(&file)?);
    }
    layers.extend(environment.into_iter().filter_map(variable));
    Ok(layers)
}

fn variable((name, value): (String, String)) -> Option<Layer> {
    let (section, key) = name.strip_prefix(VARIABLE)?.split_once("__")?;
    let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
    let is_bare = value == "true" || value == "false" || value.parse::<i64>().is_ok() || value.starts_with('[');
    let value = if is_bare {
        value
    } else {
        toml::Value::String(value).to_string()
    };
    Some(Layer {
        origin: format!("${name}").into(),
        text: format!("{section}.{key} = {value}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_order_and_the_environment_last() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.toml");
        std::fs::create_dir(dir.path().join("x.toml.d")).unwrap();
        for (name, text) in [
            ("x.toml", "1"),
            ("x.toml.d/20-b.toml", "3"),
            ("x.toml.d/10-a.toml", "2"),
            ("x.toml.d/no", "4"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let variables = [
            ("LHSMTOOL_S3__WORKERS__THREADS", "64"),
            ("LHSMTOOL_S3__LOG__LEVEL", "debug \"x\""),
            ("PATH", "/bin"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let layers = read(&file, variables).unwrap();
        let texts: Vec<_> = layers.iter().map(|layer| layer.text.as_str()).collect();
        assert_eq!(texts[..4], ["1", "2", "3", "workers.threads = 64"]);
        assert!(texts[4].parse::<toml::Table>().is_ok(), "{}", texts[4]);
        assert_eq!(
            read(&dir.path().join("none"), []).unwrap_err().1.kind(),
            io::ErrorKind::NotFound
        );
    }
}
