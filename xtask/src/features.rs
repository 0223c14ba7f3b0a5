//! `cargo xtask features`: whether every package by itself takes its dependencies with the features that the whole
//! workspace takes them with. Where not, cargo compiles them once more; `workspace-hack` is where the rest is declared.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

/// Those without `workspace-hack`, and without a dependency that another package has too.
const APART: [&str; 1] = ["xtask"];

pub(super) fn check(root: &Path) -> ExitCode {
    match differences(root) {
        Ok(differences) if differences.is_empty() => {
            println!("each package takes its dependencies as the whole workspace does");
            ExitCode::SUCCESS
        }
        Ok(differences) => {
            for (package, dependency) in differences {
                eprintln!(
                    "{package} by itself takes '{dependency}': other features than the whole workspace's, so that it is \
                     compiled twice; declare what is missing in workspace-hack/Cargo.toml"
                );
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn differences(root: &Path) -> Result<Vec<(String, String)>, String> {
    let whole = tree(root, &["--workspace", "--edges", "normal,build,dev"])?;
    let members = tree(root, &["--workspace", "--depth", "0"])?;
    let members = members.iter().filter_map(|line| line.split(' ').next());
    let mut differences = Vec::new();
    for package in members.filter(|package| !APART.contains(package)) {
        let alone = tree(root, &["--package", package, "--edges", "normal,build"])?;
        let other = alone.difference(&whole).cloned();
        differences.extend(other.map(|dependency| (package.to_owned(), dependency)));
    }
    Ok(differences)
}

/// Lines of `name version [features]`.
fn tree(root: &Path, arguments: &[&str]) -> Result<BTreeSet<String>, String> {
    let output = super::cargo()
        .current_dir(root)
        .args(["tree", "--prefix", "none", "--format", "{p} [{f}]", "--locked"])
        .args(arguments)
        .output()
        .map_err(|error| format!("can't run cargo tree: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // What was shown before is marked by a star.
    let lines = text.lines().map(|line| line.trim_end_matches(" (*)").to_owned());
    Ok(lines.filter(|line| !line.is_empty()).collect())
}
