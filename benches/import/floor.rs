//! What making files costs without us.

use std::path::Path;
use std::time::{Duration, Instant};

use lhsmtool_s3::lustre::{Identify, Imported, Library, Mount};
use lhsmtool_s3::types::{ArchiveId, Timestamp};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};

use super::listing::key;

/// mknod, chown and utimes of each file, in threads that take a directory each.
pub(crate) fn create(dir: &Path, files: u64, threads: u64) -> Duration {
    directories(dir, files);
    let start = Instant::now();
    each(files, threads, |n| {
        let path = dir.join(key(n));
        nix::sys::stat::mknod(&path, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0).unwrap();
        nix::unistd::chown(&path, Some(Uid::effective()), Some(Gid::effective())).unwrap();
        let time = TimeSpec::new(1_767_225_600, 0);
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, UtimensatFlags::FollowSymlink).unwrap();
    });
    start.elapsed()
}

/// `llapi_hsm_import` and the record of the copy, through the library that is loaded.
pub(crate) fn stand_in(dir: &Path, files: u64, threads: u64) {
    directories(dir, files);
    let library = std::env::var_os("LD_PRELOAD").unwrap();
    let mount = Mount::around(Library::open(Path::new(&library)).unwrap(), dir, Identify::Make).unwrap();
    let time = Timestamp {
        seconds: 1_767_225_600,
        nanos: 0,
    };
    each(files, threads, |n| {
        let path = dir.join(key(n));
        let parent = std::fs::File::open(path.parent().unwrap()).unwrap();
        let at = lhsmtool_s3::lustre::EntryAt {
            dir: std::os::fd::AsFd::as_fd(&parent),
            name: path.file_name().unwrap(),
        };
        let file = Imported {
            archive_id: ArchiveId::new(1).unwrap(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: n % 100_000 + 1,
            atime: time,
            mtime: time,
            stripes: None,
        };
        mount.import(at, &file).unwrap();
        Mount::set_map_at(&at.path(), &[b'x'; 160]).unwrap();
    });
}

fn directories(dir: &Path, files: u64) {
    for n in (0..files).step_by(1000) {
        std::fs::create_dir_all(dir.join(key(n)).parent().unwrap()).unwrap();
    }
}

fn each(files: u64, threads: u64, work: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || {
                for directory in (thread..files.div_ceil(1000)).step_by(usize::try_from(threads).unwrap()) {
                    for n in directory * 1000..files.min((directory + 1) * 1000) {
                        work(n);
                    }
                }
            });
        }
    });
}
