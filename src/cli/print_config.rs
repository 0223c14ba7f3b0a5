//! `lhsmtool-s3 print-config`: what the configuration comes to, and where each word of it is from.

use std::collections::HashMap;
use std::path::Path;

use clap::Args;

use crate::config::{self, Lookup};

/// Every key with its default.
const EXAMPLE: &str = include_str!("../../config/lhsmtool-s3.toml");

/// How to print it.
#[derive(Debug, Args)]
pub struct PrintConfigArgs {
    /// Where each value is from: file and line, variable, or default
    #[arg(long)]
    origin: bool,
}

type Failure = Box<dyn std::error::Error>;

impl PrintConfigArgs {
    /// Prints it as TOML that would load.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn run(&self, config: &Path) -> Result<(), Failure> {
        let (_, lookups) = config::load_with_origins(config, Some(Path::new("/")))?;
        super::output::print(&text(&lookups, self.origin)?);
        Ok(())
    }
}

fn text(lookups: &[Lookup], origin: bool) -> Result<String, Failure> {
    let example: toml::Table = EXAMPLE.parse()?;
    let default = |lookup: &Lookup| -> Option<String> {
        let section = example.get(lookup.section.0.trim_matches(['[', ']']))?;
        let table = match section {
            toml::Value::Array(sections) => sections.first()?.as_table()?,
            section => section.as_table()?,
        };
        // What has no default is written as an example, and one follows from another key.
        let is_example = lookup.section.0.starts_with("[[") && matches!(lookup.key, "id" | "bucket");
        let is_example = is_example || lookup.key == "restore_threads";
        let value = table.get(lookup.key).filter(|_| !is_example)?;
        Some(value.to_string())
    };
    let mut sections: Vec<(&(String, usize), Vec<&Lookup>)> = Vec::new();
    let mut at: HashMap<&(String, usize), usize> = HashMap::new();
    for lookup in lookups {
        let n = *at.entry(&lookup.section).or_insert_with(|| {
            sections.push((&lookup.section, Vec::new()));
            sections.len() - 1
        });
        if let Some((_, known)) = sections.get_mut(n)
            && !known.iter().any(|known| known.key == lookup.key)
        {
            known.push(lookup);
        }
    }
    let mut text = String::new();
    for ((name, _), lookups) in sections {
        text.push_str(name);
        text.push('\n');
        for lookup in lookups {
            let (line, from) = match (&lookup.found, default(lookup)) {
                (Some((value, origin, line)), _) => {
                    let origin = origin.display().to_string();
                    // A variable is one line, and so is what the surroundings say.
                    let from = if origin.starts_with('$') || *line == 0 {
                        origin
                    } else {
                        format!("{origin}:{line}")
                    };
                    (format!("{} = {value}", lookup.key), from)
                }
                (None, Some(value)) => (format!("{} = {value}", lookup.key), "default".to_owned()),
                (None, None) => (format!("# {} is not set", lookup.key), String::new()),
            };
            text.push_str(&line);
            if origin && !from.is_empty() {
                text.push_str(&format!("  # {from}"));
            }
            text.push('\n');
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_origin_and_the_print_loads_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.toml");
        std::fs::create_dir(dir.path().join("x.toml.d")).unwrap();
        std::fs::write(
            &file,
            "[lustre]\nmount = '/m'\n[workers]\nthreads = 4\n[[archive]]\nid = 1\nbucket = 'a'\n",
        )
        .unwrap();
        let beside = dir.path().join("x.toml.d/10.toml");
        std::fs::write(&beside, "[workers]\nthreads = 64\n[[archive]]\nid = 2\nbucket = 'b'\n").unwrap();
        let (settings, lookups) = config::load_with_origins(&file, None).unwrap();
        assert_eq!((settings.threads, settings.targets.len()), (64, 2));
        let printed = text(&lookups, true).unwrap();
        let has = |line: String| assert!(printed.contains(&line), "no '{line}' in\n{printed}");
        has(format!("threads = 64  # {}:2", beside.display()));
        has(format!("mount = '/m'  # {}:2", file.display()));
        has("keepalive = \"30s\"  # default".into());
        has("# listen is not set".into());
        assert_eq!(config::parse(&printed, None).unwrap(), settings);
    }
}
