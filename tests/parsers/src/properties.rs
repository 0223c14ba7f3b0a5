//! What must hold, whatever the bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::ops::ControlFlow;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::inventory::{self, Manifest};
use crate::store::{FileMetadata, ListFrom, Listing, Location, ParsedAttributes, Query, RawPage};
use crate::types::ExtraMetadata;
use crate::wire::{Framer, Message, WireError};

/// The kernel's messages: cut anywhere they are the same ones as whole. The first byte says where to cut.
pub fn kernel_messages(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let whole = messages(&[stream]);
    let (head, tail) = stream.split_at(usize::from(*cut).min(stream.len()));
    assert_eq!(messages(&[head, tail]), whole);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(messages(&bytes), whole);
}

fn messages(pieces: &[&[u8]]) -> (Vec<Message>, Option<WireError>) {
    let mut framer = Framer::default();
    let mut messages = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// A file's record: what is read is written as it is read.
pub fn location(data: &[u8]) {
    if let Ok(location) = Location::from_bytes(data) {
        let again = Location::from_bytes(&location.to_bytes());
        assert_eq!(again.ok().as_ref(), Some(&location));
    }
}

/// An object's metadata, a line each, `name: value`: what it tells of a file an object of ours tells again.
pub fn metadata(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    let map: HashMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut told = ParsedAttributes::of(&map);
    if let (Some(mode), Some(uid), Some(gid), Some(atime), Some(mtime)) =
        (told.mode, told.uid, told.gid, told.atime, told.mtime)
    {
        let file = FileMetadata {
            mode,
            uid,
            gid,
            atime,
            mtime,
            owner: told.owner.clone(),
            more: ExtraMetadata {
                xattrs: told.xattrs.clone(),
                layout: told.layout.clone(),
                path: told.path.clone(),
                links: told.links.clone(),
            },
        };
        let (ours, left_out) = file.to_map();
        if left_out.is_empty() {
            let again = ParsedAttributes::of(&ours);
            assert_eq!(again.bad, Vec::<String>::new());
            let all = |told: &ParsedAttributes| {
                let times = (told.atime, told.mtime);
                let more = (
                    told.xattrs.clone(),
                    told.layout.clone(),
                    told.path.clone(),
                    told.links.clone(),
                );
                (told.mode, told.uid, told.gid, times, told.owner.clone(), more)
            };
            assert_eq!(all(&again), all(&told));
        }
    }
    told.is_of_directory();
    assert!(
        told.mode
            .is_none_or(|mode| matches!(mode & libc::S_IFMT, 0 | libc::S_IFDIR))
    );
}

/// A listing, page by page, as the client has them.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    #[serde(default)]
    by_directory: bool,
    pages: Vec<RawPage>,
}

/// A listing, in JSON: no key without the prefix is believed, and one that is out of order is not called in order.
pub fn listing(data: &[u8]) {
    let Ok(listed) = serde_json::from_slice::<Listed>(data) else {
        return;
    };
    let from = listed.after.map_or(ListFrom::Start, ListFrom::After);
    let query = Query {
        prefix: &listed.prefix,
        from: &from,
        by_directory: listed.by_directory,
        limit: 1000,
    };
    let mut listing = Listing::new(&query);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for raw in listed.pages {
        let Ok(mut page) = raw.page(&query) else {
            return;
        };
        if listing.take(&mut page).is_err() {
            return;
        }
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
        assert!(keys.iter().all(|key| key.starts_with(query.prefix.as_bytes())));
        if !query.by_directory && page.disorder.is_none() {
            assert!(keys.is_sorted_by(|one, next| one < next));
        }
        if page.next.is_none() {
            return;
        }
    }
}

/// An inventory's manifest.
pub fn inventory_manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data) {
        // With a file that has nothing in it.
        let _rows = rows(&manifest, b"");
    }
}

/// An inventory's rows as CSV, packed or not: each that is given has a key.
pub fn inventory_csv(data: &[u8]) {
    let manifest = br#"{"sourceBucket":"lab","destinationBucket":"lab-inventory","fileFormat":"CSV","fileSchema":
        "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass","files":[]}"#;
    let packed = data.starts_with(&[0x1f, 0x8b]);
    let data = if packed { data.to_vec() } else { pack(data) };
    let manifest = Manifest::parse(manifest);
    let rows = manifest.map(|manifest| rows(&manifest, &data));
    assert!(rows.is_ok_and(|rows| rows.iter().all(|key| !key.is_empty())));
}

fn pack(data: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = packer.write_all(data).and_then(|()| packer.finish());
    packed.unwrap_or_default()
}

/// An inventory's rows as Parquet.
pub fn inventory_parquet(data: &[u8]) {
    let manifest = br#"{"sourceBucket":"lab","destinationBucket":"lab-inventory","fileFormat":"Parquet","files":[]}"#;
    let rows = Manifest::parse(manifest).map(|manifest| rows(&manifest, data));
    assert!(rows.is_ok_and(|rows| rows.iter().all(|key| !key.is_empty())));
}

/// The keys, up to the first thing that is wrong; not more than a few bytes can tell.
fn rows(manifest: &Manifest, data: &[u8]) -> Vec<Vec<u8>> {
    const MOST: usize = 10_000;
    let mut keys = Vec::new();
    let Ok(file) = file(data) else {
        return keys;
    };
    let read = inventory::read(manifest, "data/1", file, &mut |entry| {
        keys.push(entry.key);
        if keys.len() < MOST {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    // What is wrong is said in words, whatever the bytes.
    assert!(read.err().is_none_or(|error| !error.to_string().is_empty()));
    keys
}

fn file(data: &[u8]) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(data)?;
    file.rewind()?;
    Ok(file)
}
