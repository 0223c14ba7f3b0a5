//! `cargo demo`: builds the daemon, the sandbox and its library together (one build, one set of
//! features), then runs the demo. No dependencies: it is there at once.

use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("demo") => run("demo", arguments.collect()),
        Some("sandbox") => run("sandbox", arguments.collect()),
        other => {
            eprintln!(
                "usage: cargo demo [OPTIONS] | cargo sandbox COMMAND{}",
                other
                    .map(|word| format!("\nunknown command '{word}'"))
                    .unwrap_or_default()
            );
            ExitCode::from(2)
        }
    }
}

fn run(binary: &str, arguments: Vec<String>) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    eprintln!("building (the first time takes some minutes) …");
    let built = Command::new(cargo)
        .current_dir(&root)
        .args(["build", "--workspace", "--bins", "--lib", "--quiet"])
        .status();
    if !succeeded("cargo build", built) {
        return ExitCode::FAILURE;
    }
    let Some(directory) = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(PathBuf::from))
    else {
        eprintln!("can't find the build directory");
        return ExitCode::FAILURE;
    };
    if succeeded(binary, Command::new(directory.join(binary)).args(arguments).status()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn succeeded(what: &str, status: std::io::Result<ExitStatus>) -> bool {
    match status {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("can't run {what}: {error}");
            false
        }
    }
}
