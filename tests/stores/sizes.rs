//! Files of every size at which something is done in another way, by us or by a store, with nothing set that has a
//! default.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use lhsm_sandbox::protocol::{Action, Fid, states};

use crate::store::Store;
use crate::world::{PATIENCE, World, noise};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

/// Each is tried with one byte less and one more, too.
const BORDERS: [usize; 11] = [
    4 * KIB,
    // The smallest chunk of a body in chunks that is not the last, at AWS.
    8 * KIB,
    64 * KIB,
    // What is read at a time: up to here a file goes in one piece, with its checksum before it.
    128 * KIB,
    256 * KIB,
    // Read at a time where bytes are proved.
    MIB,
    // The smallest part.
    5 * MIB,
    // A chunk of a body in chunks.
    8 * MIB,
    // A part; and the largest chunk that MinIO takes.
    16 * MIB,
    // The largest file that is one request; two parts.
    32 * MIB,
    // Three parts.
    48 * MIB,
];

fn sizes() -> Vec<usize> {
    let around = BORDERS.into_iter().flat_map(|border| [border - 1, border, border + 1]);
    [0, 1].into_iter().chain(around).collect()
}

fn name(size: usize) -> String {
    format!("f{size}")
}

/// Not the beginning of that of another size.
fn content(size: usize) -> Vec<u8> {
    noise(size, size as u64)
}

impl World {
    #[track_caller]
    fn assert_all(&mut self, fids: &[Fid], expected: u32) {
        for fid in fids {
            let state = self.client.state(*fid).unwrap().states;
            assert_eq!(state, expected, "{fid}; the log:\n{}", self.log());
        }
    }

    fn archive_all(&mut self, fids: &[Fid]) {
        self.act_on(Action::Archive, fids);
        self.assert_all(fids, states::EXISTS | states::ARCHIVED);
    }

    /// Gives all data up and gets it back.
    fn bring_back(&mut self, fids: &[Fid]) {
        for fid in fids {
            self.client.release_closed(*fid, PATIENCE).unwrap();
        }
        self.act_on(Action::Restore, fids);
        self.assert_all(fids, states::EXISTS | states::ARCHIVED);
    }
}

#[test]
fn files_of_all_sizes_are_archived_restored_replaced_and_removed_with_default_settings() {
    let mut world = World::with_defaults(Store::start());
    let sizes = sizes();
    let fids: Vec<_> = sizes
        .iter()
        .map(|size| world.file(&name(*size), &content(*size)))
        .collect();
    world.archive_all(&fids);
    let objects = world.store.objects();
    assert_eq!(objects.len(), sizes.len());
    for size in &sizes {
        assert_eq!(objects[&name(*size)], i64::try_from(*size).unwrap(), "{size}");
    }
    world.bring_back(&fids);
    for size in &sizes {
        let path = world.mount().join(name(*size));
        assert!(fs::read(&path).unwrap() == content(*size), "{size} after a restore");
        // The same size with another last byte; what is empty gets its first one.
        let last = content(*size).last().map_or(b'+', |byte| !byte);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[last], size.saturating_sub(1) as u64).unwrap();
    }
    world.archive_all(&fids);
    assert_eq!(world.store.objects().len(), sizes.len(), "each in its place");
    world.bring_back(&fids);
    for size in &sizes {
        let mut changed = content(*size);
        let last = changed.pop().map_or(b'+', |byte| !byte);
        changed.push(last);
        let found = fs::read(world.mount().join(name(*size))).unwrap();
        assert!(found == changed, "{size} after it was changed");
    }
    world.act_on(Action::Remove, &fids);
    world.assert_all(&fids, 0);
    assert_eq!((world.store.objects().len(), world.store.uploads()), (0, 0));
    world.store.kept("sizes at every border, default settings");
}

/// Data in a hole, also across borders of parts.
fn islands(size: u64) -> Vec<(u64, Vec<u8>)> {
    let part = 16 * MIB as u64;
    let at = [0, part - 700, 2 * part, size / 2 + 12_345, size - 4096];
    at.iter().zip(1..).map(|(at, seed)| (*at, noise(4096, seed))).collect()
}

/// Whether the file has just these islands, and zeros besides.
fn is_sparse_file(file: &File, size: u64, islands: &[(u64, Vec<u8>)]) -> bool {
    let mut found = vec![0; MIB];
    for begin in (0..size).step_by(MIB) {
        let length = usize::try_from(size - begin).unwrap().min(MIB);
        file.read_exact_at(&mut found[..length], begin).unwrap();
        let mut expected = vec![0; length];
        for (at, bytes) in islands {
            for (at, byte) in (*at..).zip(bytes) {
                let within = at.checked_sub(begin).and_then(|at| usize::try_from(at).ok());
                if let Some(place) = within.and_then(|at| expected.get_mut(at)) {
                    *place = *byte;
                }
            }
        }
        if found[..length] != expected {
            return false;
        }
    }
    file.metadata().unwrap().len() == size
}

#[test]
fn a_sparse_file_of_a_gibibyte_comes_back_with_its_holes() {
    let mut world = World::with_defaults(Store::start());
    let path = world.mount().join("sparse");
    let islands = islands(GIB);
    let file = File::create_new(&path).unwrap();
    for (at, bytes) in &islands {
        file.write_all_at(bytes, *at).unwrap();
    }
    drop(file);
    let fid = world.client.fid(&path).unwrap();
    // One byte more is a hole, too.
    for size in [GIB, GIB + 1] {
        File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        world.archive(fid);
        assert_eq!(world.store.objects()["sparse"], i64::try_from(size).unwrap());
        world.bring_back(&[fid]);
        let file = File::open(&path).unwrap();
        assert!(is_sparse_file(&file, size, &islands), "{size}");
        let room = file.metadata().unwrap().blocks() * 512;
        assert!(room < 16 * MIB as u64, "holes are holes: {room}");
    }
    assert_eq!(world.act(Action::Remove, fid), 0);
    assert_eq!((world.store.objects().len(), world.store.uploads()), (0, 0));
    world.store.kept("a sparse file of 1 GiB");
}
