//! `cargo xtask bindings [--write]` (feature `bindgen`): compares the committed bindings with what bindgen
//! makes of wrapper.h, or writes them.
//!
//! `cargo xtask crash`: kills the daemon again and again, or several and their nodes beside a ledger, and looks for what was
//! lost (`--takeover N`: how long a take-over takes).
//!
//! `cargo xtask soak --minutes N`: the daemon at work with a store that misbehaves; does it grow?
//!
//! `cargo xtask jobs`: many files through the bulk commands, everybody's counts compared.
//!
//! `cargo xtask rolling`: movers restarted, upgraded and drained in turn under load; who notices?
//!
//! `cargo xtask layers`: the rooms of `src/` from the ground to the roof; whether one uses another that is above it.
//!
//! `cargo xtask lustre-suite --mount DIR --s3 URL`: the copytool's promises on a mounted Lustre (`--sandbox`: on the
//! stand-in).
//!
//! `cargo xtask stores --dialects`: all verbs over all dialects of stores (`--write`: and their table in docs/stores.md).
//!
//! `cargo xtask features`: is any dependency compiled twice, with other features?
//!
//! `cargo xtask lustre-vm`: that suite, and Lustre's own tests of HSM, on a real Lustre in an emulated guest (`--nodes 2`:
//! what becomes of two movers when one's node dies, is cut off or stands still).
//!
//! `cargo xtask stores-table REPORT…`: docs/stores.md's table, from what the tests of stores found.
//!
//! `cargo xtask packages`: a .deb and a .rpm in target/dist, by cargo-deb and cargo-generate-rpm.
//!
//! `cargo demo`: builds the daemon, the sandbox and its library together (one build, one set of
//! features), then runs the demo. No dependencies: it is there at once.

mod features;
mod layers;
mod lustre_vm;
mod stores;

use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    // `cargo demo --json` and `cargo demo -- --json` are the same.
    let arguments: Vec<String> = arguments.skip_while(|argument| argument == "--").collect();
    match command.as_deref() {
        Some("demo") => run("demo", arguments),
        #[cfg(feature = "bindgen")]
        Some("bindings") => check_bindings(arguments.iter().any(|argument| argument == "--write")),
        Some("sandbox") => run("sandbox", arguments),
        Some("crash") => run("crash", arguments),
        Some("soak") if !arguments.iter().any(|argument| argument.starts_with("--minutes")) => run(
            "crash",
            [vec!["--minutes".to_owned(), "60".to_owned()], arguments].concat(),
        ),
        Some("soak") => run("crash", arguments),
        Some("jobs") => run("jobs", arguments),
        Some("layers") => layers::run(&root(), &arguments),
        Some("rolling") => run("rolling", arguments),
        Some("lustre-suite") => run("suite", arguments),
        Some("lustre-vm") => lustre_vm::run(&root(), &arguments, build),
        Some("features") => features::check(&root()),
        Some("packages") => packages(),
        Some("stores") if arguments.iter().any(|argument| argument == "--dialects") => {
            run("dialects", stores::of_dialects(&root(), arguments))
        }
        Some("stores-table") => stores::write(&root(), &arguments),
        other => {
            eprintln!(
                "usage: cargo demo [OPTIONS] | cargo sandbox COMMAND | cargo xtask crash [OPTIONS] | cargo xtask soak --minutes N | cargo xtask jobs [OPTIONS] | cargo xtask rolling [OPTIONS] | cargo xtask layers [--json | --circles] | cargo xtask lustre-suite [OPTIONS] | cargo xtask lustre-vm [OPTIONS] | cargo xtask features | cargo xtask packages | cargo xtask stores --dialects [--write] [OPTIONS] | cargo xtask stores-table REPORT…{}",
                other
                    .map(|word| format!("\nunknown command '{word}'"))
                    .unwrap_or_default()
            );
            ExitCode::from(2)
        }
    }
}

#[cfg(feature = "bindgen")]
#[path = "../../build/bindings.rs"]
mod bindings;

#[cfg(feature = "bindgen")]
fn check_bindings(write: bool) -> ExitCode {
    let root = root();
    let fresh = bindings::generate(&root.join("wrapper.h").display().to_string());
    let committed = root.join("src/lustre/bindings.rs");
    if write {
        if let Err(error) = std::fs::write(&committed, fresh) {
            eprintln!("can't write {}: {error}", committed.display());
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    if std::fs::read_to_string(&committed).is_ok_and(|text| text == fresh) {
        println!("the committed bindings are what bindgen makes of wrapper.h");
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "{} is not what bindgen makes of wrapper.h: run cargo run -p xtask --features bindgen -- bindings --write",
        committed.display()
    );
    ExitCode::FAILURE
}

/// Builds what a run of that binary needs, and runs it: the daemon, the stand-in's library, and nothing of the tests or of
/// other runs. It is what somebody who tries the demo waits for.
fn run(binary: &str, arguments: Vec<String>) -> ExitCode {
    let packages = ["lhsmtool-s3", "lhsm-sandbox", "lhsm-sandbox-lustreapi"].map(|name| ["--package", name]);
    let wanted = ["--lib", "--bin", "lhsmtool-s3", "--bin", "sandbox", "--bin", binary];
    let Some(directory) = build_of(&[packages.as_flattened(), &wanted].concat()) else {
        return ExitCode::FAILURE;
    };
    if succeeded(binary, Command::new(directory.join(binary)).args(arguments).status()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The workspace's binaries; where they are.
fn build() -> Option<PathBuf> {
    build_of(&["--workspace", "--bins", "--lib"])
}

fn build_of(what: &[&str]) -> Option<PathBuf> {
    eprintln!("building (the first time takes some minutes) …");
    let built = cargo()
        .current_dir(root())
        .args(["build", "--quiet"])
        .args(what)
        .status();
    if !succeeded("cargo build", built) {
        return None;
    }
    let directory = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(PathBuf::from));
    if directory.is_none() {
        eprintln!("can't find the build directory");
    }
    directory
}

/// Cargo as a shell would call it. What `cargo run` says to this program of its own package is not passed on: ring's build
/// script looks at it, and with it ring, TLS, the SDK and all of ours would be compiled anew at each change of the caller.
fn cargo() -> Command {
    const OF_A_PACKAGE: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if OF_A_PACKAGE.iter().any(|of| name.to_string_lossy().starts_with(of)) {
            command.env_remove(name);
        }
    }
    command
}

/// Of the workspace.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
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

/// Binary, man pages and completions first; then the two tools, which must be installed.
fn packages() -> ExitCode {
    const DIST: &str = "target/dist";
    let root = root();
    let steps: [(&str, &[&str]); 4] = [
        ("cargo", &["build", "--release", "--locked", "--package", "lhsmtool-s3"]),
        ("target/release/lhsmtool-s3", &["generate", DIST]),
        (
            "cargo",
            &["deb", "--no-build", "--package", "lhsmtool-s3", "--output", DIST],
        ),
        ("cargo", &["generate-rpm", "--output", DIST]),
    ];
    for (program, arguments) in steps {
        let program = if program.contains('/') {
            root.join(program)
        } else {
            program.into()
        };
        match Command::new(&program).args(arguments).current_dir(&root).status() {
            Ok(status) if status.success() => {}
            Ok(_) => {
                eprintln!(
                    "failed: {} {}\n(the tools: cargo install cargo-deb cargo-generate-rpm)",
                    program.display(),
                    arguments.join(" ")
                );
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("can't run {}: {error}", program.display());
                return ExitCode::FAILURE;
            }
        }
    }
    println!("target/dist has the packages");
    ExitCode::SUCCESS
}
