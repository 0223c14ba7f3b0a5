//! Each file of `fuzz/corpus/TARGET/` is given to its target, so that what once was found, or thought of, stays right.
//! A name that begins with `valid-` says that it must be read; all others may be refused, and none may be a panic.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its setup too")]

use std::path::{Path, PathBuf};

use lhsm_parsers as parsers;

fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(dir);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "{}", dir.display());
    files
}

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}

fn replay(target: &str, run: fn(&[u8])) {
    for file in files(&format!("fuzz/corpus/{target}")) {
        println!("{}", file.display());
        let bytes = std::fs::read(&file).unwrap();
        run(&bytes);
        // Nor where it ends early.
        for end in [0, bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            run(&bytes[..end]);
        }
    }
}

#[test]
fn kernel_messages_are_the_same_however_they_are_cut() {
    replay("wire", parsers::kernel_messages);
    for file in files("tests/data/captures") {
        if file.extension().is_some_and(|extension| extension == "bin") {
            println!("{}", file.display());
            let capture = std::fs::read(&file).unwrap();
            for cut in [0, 1, 7, 40, 255] {
                parsers::kernel_messages(&[&[cut], capture.as_slice()].concat());
            }
        }
    }
}

#[test]
fn a_record_that_is_read_is_written_as_it_is_read() {
    replay("location", parsers::location);
    for file in files("fuzz/corpus/location") {
        let is_valid = name(&file).starts_with("valid-");
        let read = parsers::store::Location::from_bytes(&std::fs::read(&file).unwrap());
        assert_eq!(read.is_ok(), is_valid, "{}: {read:?}", file.display());
    }
}

#[test]
fn what_metadata_tells_of_a_file_is_told_again() {
    replay("metadata", parsers::metadata);
}

#[test]
fn no_page_of_a_listing_is_believed_too_much() {
    replay("listing", parsers::listing);
}

#[test]
fn inventories_give_objects_or_errors() {
    replay("inventory_manifest", parsers::inventory_manifest);
    replay("inventory_csv", parsers::inventory_csv);
    replay("inventory_parquet", parsers::inventory_parquet);
    for file in files("fuzz/corpus/inventory_manifest") {
        let is_valid = name(&file).starts_with("valid-");
        let read = parsers::inventory::Manifest::parse(&std::fs::read(&file).unwrap());
        assert_eq!(read.is_ok(), is_valid, "{}: {read:?}", file.display());
    }
}
