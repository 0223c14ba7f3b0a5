//! A file's attributes as an object's metadata tells them: ours, FSx's and DataSync's, rclone's and s3fs's, Azure's.
//!
//! A bucket is anybody's text: what can't be true is left out and named, never guessed. Where writers use one name for
//! different things (`mode` is octal with rclone, decimal with s3fs) they are told apart by names that only one of them
//! uses, or by what can be true at all; a mode that is not understood gives access to nobody but the owner.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::Owner;
use crate::types::{Timestamp, Xattr};

pub(super) const PERMISSIONS: &str = "file-permissions";
pub(super) const UID: &str = "file-owner";
pub(super) const GID: &str = "file-group";
pub(super) const ATIME: &str = "file-atime";
pub(super) const MTIME: &str = "file-mtime";
pub(super) const XATTRS: &str = "lhsm-xattrs";
pub(super) const LAYOUT: &str = "lhsm-layout";
pub(super) const PATH: &str = "lhsm-path";
pub(super) const LINKS: &str = "lhsm-links";

/// rclone's and s3fs's.
const MODE: &str = "mode";
/// s3cmd's attributes, all in one: `atime:1595002920/gid:0/mode:33188/…`.
const S3CMD: &str = "s3cmd-attrs";
/// Modes of writers that are not understood here.
const FOREIGN_MODES: &[&str] = &[
    "file-mode",
    "goog-reserved-posix-mode",
    "hdi_permission",
    "posix-mode",
    "unix-mode",
];

/// ldiskfs keeps times from 1901 to 2446.
const TIMES: std::ops::RangeInclusive<i64> = -0x8000_0000..=0x3_7fff_ffff;
/// In text that metadata can carry: ASCII without what separates.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/');

/// What is told; `None` where nothing is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ParsedAttributes {
    /// Type and permissions as in `st_mode`; the type may be 0.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<Timestamp>,
    /// Last change of the data.
    pub mtime: Option<Timestamp>,
    /// Extended attributes, by full name.
    pub xattrs: Vec<Xattr>,
    /// `lustre.lov` of the file.
    pub layout: Option<Vec<u8>>,
    /// The file's path below the mount point, where its key is not that.
    pub path: Option<Vec<u8>>,
    /// Further names of the file.
    pub links: Vec<Vec<u8>>,
    /// The file that the object is the copy of.
    pub owner: Option<Owner>,
    /// It had a mode, which is not known: nobody but its owner may get what others perhaps never had.
    pub private: bool,
    /// There is more than could be read: its group's bits may be the mask of an ACL that is not known.
    pub partial: bool,
    /// Metadata that can't be true: the key, and why.
    pub bad: Vec<String>,
}

impl ParsedAttributes {
    /// From user metadata (`x-amz-meta-…`, without that).
    #[must_use]
    pub fn of(metadata: &HashMap<String, String>) -> Self {
        let unpacked = metadata.get(S3CMD).map(|text| unpack(text, metadata));
        let mut told = Self {
            owner: Owner::of(metadata),
            ..Self::default()
        };
        let mut reader = Reader {
            metadata: unpacked.as_ref().unwrap_or(metadata),
            bad: Vec::new(),
        };
        (told.mode, told.private) = reader.mode();
        told.uid = reader.first(&[UID, "owner", "uid"], id);
        told.gid = reader.first(&[GID, "group", "gid"], id);
        told.atime = reader
            .first(&[ATIME], datasync_time)
            .or_else(|| reader.first(&["atime"], any_time));
        told.mtime = reader
            .first(&[MTIME], datasync_time)
            .or_else(|| reader.first(&["mtime"], any_time));
        told.xattrs = reader.first(&[XATTRS], xattrs).unwrap_or_default();
        told.partial = metadata.contains_key(XATTRS) && told.xattrs.is_empty();
        told.layout = reader.first(&[LAYOUT], |text| BASE64_STANDARD.decode(text).ok());
        told.path = reader.first(&[PATH], |text| Some(percent_decode_str(text).collect()));
        told.links = reader
            .first(&[LINKS], |text| {
                Some(text.split(',').map(|path| percent_decode_str(path).collect()).collect())
            })
            .unwrap_or_default();
        if told.mode.is_none() && metadata.get("hdi_isfolder").is_some_and(|value| value == "true") {
            told.mode = Some(libc::S_IFDIR | if told.private { 0o700 } else { 0o755 });
        }
        told.bad = reader.bad;
        told
    }

    /// The object stands for a directory, its key says so: the mode of anything else is not its own.
    pub fn is_of_directory(&mut self) {
        let kind = self.mode.map_or(0, |mode| mode & libc::S_IFMT);
        if !matches!(kind, 0 | libc::S_IFDIR) {
            self.bad.push(format!(
                "its mode is {:o}, which is no directory's: only its owner gets access",
                self.mode.unwrap_or_default()
            ));
            (self.mode, self.private) = (None, true);
        }
    }
}

struct Reader<'a> {
    metadata: &'a HashMap<String, String>,
    bad: Vec<String>,
}

/// Who writes `mode`, as far as its other names tell that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ModeWriter {
    Rclone,
    S3fs,
}

impl Reader<'_> {
    fn first<T>(&mut self, keys: &[&str], read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (key, text) = keys.iter().find_map(|key| Some((*key, self.metadata.get(*key)?)))?;
        let value = read(text.trim());
        if value.is_none() {
            self.bad.push(format!("{key} = {}", shown(text)));
        }
        value
    }

    /// And whether there is one that is not understood.
    fn mode(&mut self) -> (Option<u32>, bool) {
        let has = |key: &&&str| self.metadata.contains_key(**key);
        let writer = self.writer();
        let (key, mode) = if let Some(key) = [PERMISSIONS, "permissions"].iter().find(has) {
            (*key, self.read(key, octal))
        } else if self.metadata.contains_key(MODE) {
            (MODE, self.read(MODE, |text| typed_mode(text, writer)))
        } else if let Some(key) = FOREIGN_MODES.iter().find(has) {
            (*key, None)
        } else {
            return (None, false);
        };
        if mode.is_none() {
            let text = self.metadata.get(key).map_or("", String::as_str);
            self.bad.push(format!(
                "{key} = {}, which is not understood: only its owner gets access",
                shown(text)
            ));
        }
        (mode, mode.is_none())
    }

    fn read<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        read(self.metadata.get(key)?.trim())
    }

    /// rclone keeps times of files in RFC 3339 (`mtime` it writes in seconds to S3, as s3fs does); a `ctime` is s3fs's alone.
    fn writer(&self) -> Option<ModeWriter> {
        let rclone = ["atime", "btime", "mtime"]
            .iter()
            .any(|key| self.read(key, rfc3339).is_some());
        let s3fs = self.read("ctime", decimal_time).is_some();
        match (rclone, s3fs) {
            (true, false) => Some(ModeWriter::Rclone),
            (false, true) => Some(ModeWriter::S3fs),
            _ => None,
        }
    }
}

fn shown(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    format!("{shown:?}")
}

/// As if each of them had a name of its own beside the others.
fn unpack(text: &str, others: &HashMap<String, String>) -> HashMap<String, String> {
    let mut all = others.clone();
    for (name, value) in text.split('/').filter_map(|pair| pair.split_once(':')) {
        all.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    all
}

/// Digits alone: the standard library takes a sign as well.
fn number(text: &str, radix: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| u32::from_str_radix(text, radix).ok())?;
    number.filter(|mode| mode & !(libc::S_IFMT | 0o7777) == 0)
}

fn octal(text: &str) -> Option<u32> {
    const TYPES: [u32; 8] = [
        0,
        libc::S_IFREG,
        libc::S_IFDIR,
        libc::S_IFLNK,
        libc::S_IFIFO,
        libc::S_IFSOCK,
        libc::S_IFCHR,
        libc::S_IFBLK,
    ];
    number(text, 8).filter(|mode| TYPES.contains(&(mode & libc::S_IFMT)))
}

/// `mode`, as whoever wrote it: it says what the object is, and what can be true both ways is neither.
fn typed_mode(text: &str, writer: Option<ModeWriter>) -> Option<u32> {
    let is_object = |mode: &u32| matches!(mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR | libc::S_IFLNK);
    let read = |radix, other| {
        let asked = writer != Some(other);
        asked.then(|| number(text, radix)).flatten().filter(is_object)
    };
    read(8, ModeWriter::S3fs).xor(read(10, ModeWriter::Rclone))
}

fn id(text: &str) -> Option<u32> {
    // All ones means "leave it" to chown.
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn in_range(time: Timestamp) -> Option<Timestamp> {
    TIMES.contains(&time.seconds).then_some(time)
}

/// Nanoseconds with the suffix `ns`, else milliseconds.
fn datasync_time(text: &str) -> Option<Timestamp> {
    let nanos = match text.strip_suffix("ns") {
        Some(nanos) => nanos.parse::<i128>().ok()?,
        None => i128::from(text.parse::<i64>().ok()?) * 1_000_000,
    };
    in_range(Timestamp::from_nanos(nanos)?)
}

/// RFC 3339, as rclone writes what it knows of a file, or decimal seconds: neither can be taken for the other.
fn any_time(text: &str) -> Option<Timestamp> {
    rfc3339(text).or_else(|| decimal_time(text))
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.contains(['T', 't']).then(|| text.parse().ok())??;
    in_range(Timestamp::from_nanos(time.as_nanosecond())?)
}

/// Decimal seconds, as rclone and s3fs write them.
fn decimal_time(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let nanos = if whole.starts_with('-') { -nanos } else { nanos };
    in_range(Timestamp::from_nanos(i128::from(seconds) * 1_000_000_000 + nanos)?)
}

fn xattrs(text: &str) -> Option<Vec<Xattr>> {
    text.split(',')
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((percent_decode_str(name).collect(), BASE64_STANDARD.decode(value).ok()?))
        })
        .collect()
}

/// As [`ParsedAttributes`] reads it.
pub(super) fn xattrs_text(xattrs: &[Xattr]) -> String {
    let pairs: Vec<_> = xattrs
        .iter()
        .map(|(name, value)| format!("{}={}", plain(name), BASE64_STANDARD.encode(value)))
        .collect();
    pairs.join(",")
}

/// As [`ParsedAttributes`] reads it.
pub(super) fn plain(path: &[u8]) -> String {
    percent_encode(path, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(pairs: &[(&str, &str)]) -> ParsedAttributes {
        ParsedAttributes::of(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn each_writers_words_are_understood() {
        let fsx = told(&[
            ("file-permissions", "0104755"),
            ("file-owner", "500"),
            ("file-group", "501"),
            ("file-atime", "1595002920000000001ns"),
            ("file-mtime", "1595002920123"),
        ]);
        assert_eq!((fsx.mode, fsx.uid, fsx.gid), (Some(0o104_755), Some(500), Some(501)));
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        assert_eq!(fsx.atime, at(1_595_002_920, 1));
        assert_eq!(fsx.mtime, at(1_595_002_920, 123_000_000));
        assert_eq!(told(&[("mtime", "1595002920.5")]).mtime, at(1_595_002_920, 500_000_000));
        assert_eq!(told(&[("mtime", "-1.25")]).mtime, at(-2, 750_000_000));
        assert_eq!(told(&[("permissions", "0640"), ("owner", "8")]).uid, Some(8));
        assert_eq!(told(&[("hdi_isfolder", "true")]).mode, Some(0o040_755));
        assert!(fsx.bad.is_empty());
    }

    #[test]
    fn what_can_not_be_true_is_left_out_and_named() {
        for (key, value) in [
            ("file-permissions", "9"),
            ("file-permissions", "7777777777777"),
            ("file-permissions", "-1"),
            ("file-owner", "-1"),
            ("file-owner", "4294967295"),
            ("file-owner", "root"),
            ("file-mtime", "99999999999999999999999999999999999999999ns"),
            ("file-mtime", "99999999999999999ns9"),
            ("file-mtime", "9999999999999999"),
            ("file-mtime", ""),
            ("mtime", "1e9"),
            ("mtime", "1.-5"),
            ("lhsm-xattrs", "user.a"),
            ("lhsm-layout", "???"),
        ] {
            let told = told(&[(key, value)]);
            assert_eq!(told.bad.len(), 1, "{key} {value}");
            assert_eq!(told.private, key == PERMISSIONS, "{key} {value}");
            assert_eq!(told.partial, key == XATTRS, "{key} {value}");
            assert_eq!(
                ParsedAttributes {
                    private: false,
                    partial: false,
                    bad: Vec::new(),
                    ..told
                },
                ParsedAttributes::default(),
                "{key} {value}"
            );
        }
    }

    /// Names and values as each program writes them, and the mode that its file had.
    #[test]
    fn a_mode_is_understood_as_its_writer_meant_it() {
        const ATIME_RFC: (&str, &str) = ("atime", "2024-03-01T11:22:33.123456789+01:00");
        const BTIME_RFC: (&str, &str) = ("btime", "2024-03-01T10:22:33Z");
        const SECONDS: (&str, &str) = ("mtime", "1595002920.123456789");
        const CTIME: (&str, &str) = ("ctime", "1595002920");
        const ROWS: &[(&[(&str, &str)], u32)] = &[
            // rclone: octal with the file's type, and its own time in seconds.
            (&[("mode", "100600"), ATIME_RFC, SECONDS], 0o100_600),
            (&[("mode", "0100640"), BTIME_RFC], 0o100_640),
            (&[("mode", "40750"), ATIME_RFC], 0o040_750),
            (&[("mode", "120777"), ATIME_RFC], 0o120_777),
            (&[("mode", "41471"), ATIME_RFC], 0o041_471),
            // s3fs: decimal.
            (&[("mode", "33152"), SECONDS, CTIME], 0o100_600),
            (
                &[("mode", "33188"), ("ctime", "1595002920.5"), ("atime", "1595002920")],
                0o100_644,
            ),
            (&[("mode", "16877"), CTIME], 0o040_755),
            (&[("mode", "16744"), CTIME], 0o040_550),
            (&[("mode", "41471"), CTIME], 0o120_777),
            // Nothing else tells who wrote it, and it can be true in one way only.
            (&[("mode", "100600"), SECONDS], 0o100_600),
            (&[("mode", "33188"), ("uid", "7")], 0o100_644),
            (&[("mode", "33206")], 0o100_666),
            // DataSync, FSx, Azure and we: octal, with or without the type.
            (&[("file-permissions", "0100664"), ("mode", "33188"), CTIME], 0o100_664),
            (&[("file-permissions", "0640")], 0o640),
            (&[("permissions", "0640"), ("hdi_isfolder", "true")], 0o640),
            // s3cmd: decimal, in one text.
            (
                &[(
                    "s3cmd-attrs",
                    "atime:1595002920/ctime:1595002920/gid:5/mode:33152/mtime:1595002920/uid:6/uname:x",
                )],
                0o100_600,
            ),
        ];
        for (pairs, mode) in ROWS {
            let told = told(pairs);
            assert_eq!(told.mode, Some(*mode), "{pairs:?}: {:?}", told.bad);
            assert!(!told.private && told.bad.is_empty(), "{pairs:?}: {:?}", told.bad);
        }
    }

    #[test]
    fn a_mode_that_is_not_understood_is_nobody_elses_and_named() {
        const ATIME_RFC: (&str, &str) = ("atime", "2024-03-01T11:22:33Z");
        const CTIME: (&str, &str) = ("ctime", "1595002920");
        const ROWS: &[&[(&str, &str)]] = &[
            // Without a type it may be either.
            &[("mode", "644")],
            &[("mode", "420")],
            &[("mode", "0")],
            &[("mode", "600"), CTIME],
            // True both ways: a directory's in octal, a symlink's in decimal.
            &[("mode", "41471")],
            &[("mode", "41471"), ATIME_RFC, CTIME],
            // Not as its writer writes it.
            &[("mode", "33188"), ATIME_RFC],
            &[("mode", "100644"), CTIME],
            &[("mode", "-33188")],
            &[("mode", "+100644")],
            &[("mode", "0o100644")],
            &[("mode", "rw-r--r--")],
            &[("mode", "")],
            &[("mode", "4294967296")],
            &[("mode", "99999999999999999999")],
            &[("mode", "1100644")],
            &[("file-permissions", "33206")],
            &[("file-permissions", "+644")],
            &[("file-permissions", "x"), ("mode", "100644")],
            &[("goog-reserved-posix-mode", "644")],
            &[("s3cmd-attrs", "ctime:1/mode:644")],
        ];
        for pairs in ROWS {
            let told = told(pairs);
            assert_eq!(told.mode, None, "{pairs:?}");
            assert!(told.private, "{pairs:?}");
            assert_eq!(told.bad.len(), 1, "{pairs:?}: {:?}", told.bad);
        }
        assert!(!told(&[("mtime", "1")]).private, "nothing was said of a mode");
        let mut directory = told(&[("mode", "100644")]);
        directory.is_of_directory();
        assert_eq!(
            (directory.mode, directory.private, directory.bad.len()),
            (None, true, 1)
        );
        let mut directory = told(&[("mode", "40750")]);
        directory.is_of_directory();
        assert_eq!((directory.mode, directory.private), (Some(0o040_750), false));
    }

    #[test]
    fn times_are_read_in_seconds_and_in_rfc_3339_to_the_nanosecond() {
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        for (text, time) in [
            ("2024-03-01T11:22:33.123456789+01:00", at(1_709_288_553, 123_456_789)),
            ("2024-03-01T10:22:33Z", at(1_709_288_553, 0)),
            ("1969-12-31T23:59:59.5Z", at(-1, 500_000_000)),
            ("1709288553.000000001", at(1_709_288_553, 1)),
            ("1709288553", at(1_709_288_553, 0)),
            ("2024-03-01", None),
            ("2024-03-01T10:22:33", None),
            ("2024-02-30T10:22:33Z", None),
            ("9999-01-01T00:00:00Z", None),
            ("T", None),
        ] {
            let told = told(&[("mtime", text)]);
            assert_eq!(told.mtime, time, "{text}");
            assert_eq!(told.bad.is_empty(), time.is_some(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn xattrs_and_paths_survive_their_text(
            xattrs in prop::collection::vec((prop::collection::vec(1u8.., 1..20), prop::collection::vec(any::<u8>(), 0..20)), 1..5),
            path in prop::collection::vec(any::<u8>(), 1..30),
        ) {
            let text = xattrs_text(&xattrs);
            prop_assert!(text.is_ascii());
            let told = told(&[(XATTRS, &text), (PATH, &plain(&path))]);
            prop_assert_eq!(told.xattrs, xattrs);
            prop_assert_eq!(told.path, Some(path));
        }

        #[test]
        fn any_text_is_read_without_harm(value in "\\PC{0,30}") {
            for key in [PERMISSIONS, UID, ATIME, "mtime", "mode", S3CMD, XATTRS, LAYOUT, PATH, LINKS] {
                drop(told(&[(key, &value)]));
            }
        }
    }
}
