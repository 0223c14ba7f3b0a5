//! What the copytool promises, tried on a mounted Lustre (or on the stand-in): each case says what it proves.
//!
//! It works in one directory that it makes on the mount and below one prefix of the bucket, and takes both away at the
//! end. It formats nothing, changes no tunable unless told to, puts it back then, and refuses a mount that is no Lustre.

mod cases;
mod copies;
mod imports;
mod kills;
mod leaves;
mod mds;
mod refusals;
mod registration;
mod trouble;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use self::world::{Skip, World};

/// Tries the copytool on a mounted Lustre
#[derive(Debug, Parser)]
#[command(name = "cargo xtask lustre-suite")]
pub(crate) struct Cli {
    /// The mount point of a Lustre client
    #[arg(long, required_unless_present = "sandbox")]
    mount: Option<PathBuf>,
    /// The store: http://KEY:SECRET@HOST:PORT/BUCKET
    #[arg(long, required_unless_present = "sandbox")]
    s3: Option<String>,
    /// On the stand-in, with an embedded store
    #[arg(long, conflicts_with_all = ["mount", "s3"])]
    sandbox: bool,
    /// liblustreapi of this node
    #[arg(long, default_value = "liblustreapi.so.1")]
    library: PathBuf,
    /// On an MDS without other users: also cases that stop, purge or hurry the coordinator for all of them
    #[arg(long)]
    whole_file_system: bool,
    /// With --whole-file-system: what unmounts an MDT and mounts it again, such as 'umount /mnt/mdt && mount -t lustre DEVICE /mnt/mdt';
    /// where there are several, $MDT is the number of the one that is meant
    #[arg(long, value_name = "COMMAND", conflicts_with = "sandbox")]
    restart_mdt: Option<String>,
    /// Cases whose names have one of these in them
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    only: Vec<String>,
    /// How many files the cases of many files have, in per cent of what they would have: less for a slow machine
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    scale: u64,
    /// One line of JSON at the end instead of TAP alone
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let chosen: Vec<_> = cases::ALL
        .iter()
        .filter(|case| cli.only.is_empty() || cli.only.iter().any(|only| case.name.contains(only.as_str())))
        .collect();
    println!("TAP version 13\n1..{}", chosen.len());
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (n, case) in chosen.iter().enumerate() {
        let n = n + 1;
        let result = World::new(&cli, case.name).and_then(|mut world| {
            let result = (case.run)(&mut world);
            let cleaned = world.clean_up();
            if result.as_ref().is_err_and(|error| !error.is::<Skip>()) {
                eprintln!("# the daemon's log of {}:\n{}", case.name, world.log());
            }
            if let Err(error) = &cleaned {
                eprintln!("# {} left something behind: {error}", case.name);
            }
            result.and(cleaned)
        });
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok {n} - {}: {}", case.name, case.proves);
            }
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(Skip(why)) => {
                    skipped += 1;
                    println!("ok {n} - {} # SKIP {why}", case.name);
                }
                None => {
                    failed += 1;
                    println!(
                        "not ok {n} - {}: {}\n  ---\n  message: {error}\n  ...",
                        case.name, case.proves
                    );
                }
            },
        }
    }
    if cli.json {
        let version = env!("CARGO_PKG_VERSION");
        println!(
            "{{\"passed\":{passed},\"failed\":{failed},\"skipped\":{skipped},\"version\":\"{version}\",\"sandbox\":{}}}",
            cli.sandbox
        );
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
