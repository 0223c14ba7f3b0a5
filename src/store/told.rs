//! A file's attributes as an object's metadata tells them: ours, FSx's and DataSync's, rclone's and s3fs's, Azure's.
//!
//! A bucket is anybody's text: what can't be true is left out and named, never guessed.

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

/// ldiskfs keeps times from 1901 to 2446.
const TIMES: std::ops::RangeInclusive<i64> = -0x8000_0000..=0x3_7fff_ffff;
/// In text that metadata can carry: ASCII without what separates.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/');

/// What is told; `None` where nothing is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
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
    /// Metadata that can't be true: the key, and why.
    pub bad: Vec<String>,
}

impl Told {
    /// From user metadata (`x-amz-meta-…`, without that).
    #[must_use]
    pub fn of(metadata: &HashMap<String, String>) -> Self {
        let mut told = Self {
            owner: Owner::of(metadata),
            ..Self::default()
        };
        let mut reader = Reader {
            metadata,
            bad: Vec::new(),
        };
        // s3fs has `mode` in decimal; Azure and DataSync in octal.
        told.mode = reader
            .first(&[PERMISSIONS, "permissions"], |text| {
                mode(u32::from_str_radix(text, 8).ok()?)
            })
            .or_else(|| reader.first(&["mode"], |text| mode(text.parse().ok()?)));
        told.uid = reader.first(&[UID, "owner", "uid"], id);
        told.gid = reader.first(&[GID, "group", "gid"], id);
        told.atime = reader
            .first(&[ATIME], datasync_time)
            .or_else(|| reader.first(&["atime"], decimal_time));
        told.mtime = reader
            .first(&[MTIME], datasync_time)
            .or_else(|| reader.first(&["mtime"], decimal_time));
        told.xattrs = reader.first(&[XATTRS], xattrs).unwrap_or_default();
        told.layout = reader.first(&[LAYOUT], |text| BASE64_STANDARD.decode(text).ok());
        told.path = reader.first(&[PATH], |text| Some(percent_decode_str(text).collect()));
        told.links = reader
            .first(&[LINKS], |text| {
                Some(text.split(',').map(|path| percent_decode_str(path).collect()).collect())
            })
            .unwrap_or_default();
        if told.mode.is_none() && metadata.get("hdi_isfolder").is_some_and(|value| value == "true") {
            told.mode = Some(libc::S_IFDIR | 0o755);
        }
        told.bad = reader.bad;
        told
    }
}

struct Reader<'a> {
    metadata: &'a HashMap<String, String>,
    bad: Vec<String>,
}

impl Reader<'_> {
    fn first<T>(&mut self, keys: &[&str], read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (key, text) = keys.iter().find_map(|key| Some((*key, self.metadata.get(*key)?)))?;
        let value = read(text.trim());
        if value.is_none() {
            let shown: String = text.chars().take(40).collect();
            self.bad.push(format!("{key} = {shown:?}"));
        }
        value
    }
}

fn mode(mode: u32) -> Option<u32> {
    (mode & !(libc::S_IFMT | 0o7777) == 0).then_some(mode)
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

/// As [`Told`] reads it.
pub(super) fn xattrs_text(xattrs: &[Xattr]) -> String {
    let pairs: Vec<_> = xattrs
        .iter()
        .map(|(name, value)| format!("{}={}", plain(name), BASE64_STANDARD.encode(value)))
        .collect();
    pairs.join(",")
}

/// As [`Told`] reads it.
pub(super) fn plain(path: &[u8]) -> String {
    percent_encode(path, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(pairs: &[(&str, &str)]) -> Told {
        Told::of(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
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
        assert_eq!(told(&[("mode", "33188"), ("uid", "7")]).mode, Some(0o100_644));
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
            assert_eq!(
                Told {
                    bad: Vec::new(),
                    ..told
                },
                Told::default(),
                "{key} {value}"
            );
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
            for key in [PERMISSIONS, UID, ATIME, "mtime", "mode", XATTRS, LAYOUT, PATH, LINKS] {
                drop(told(&[(key, &value)]));
            }
        }
    }
}
