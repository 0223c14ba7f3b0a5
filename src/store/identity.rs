//! Whose an object is: the file system, the file and the key that its metadata names, and the attempt that wrote it.
//!
//! Metadata goes along with whoever copies an object (`aws s3 cp` within the bucket), a file's record with whoever
//! copies the file (`cp -a`, `rsync -X` as root). So an object is a file's own only where it lies at the key that it
//! names, and a record counts only on the file that it was written for. Nothing is deleted or replaced by what is
//! remembered alone: an [`Origin`] is made from what a look at the object has just found.

use std::collections::HashMap;
use std::fmt;

use crc_fast::{CrcAlgorithm, checksum};

use super::{Checksum, KeyAt, Location, ObjectInfo, ObjectKey};
use crate::types::{Cookie, Fid};

/// The action that wrote an object, as metadata.
pub const COOKIE: &str = "lhsm-cookie";
const FID: &str = "lhsm-fid";
const FS: &str = "lhsm-fs";
const KEY: &str = "lhsm-key";
const WRITER: &str = "lhsm-writer";
const DATA_VERSION: &str = "lhsm-dv";

/// The file that an object is the copy of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Name of its file system, with its incarnation.
    pub fs: String,
    /// Its FID there.
    pub fid: Fid,
}

impl Owner {
    /// As an object's metadata says, wherever it lies; `None` for one that we did not write. [`Origin`] tells whether
    /// that still counts.
    #[must_use]
    pub fn of(metadata: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            fs: metadata.get(FS)?.clone(),
            fid: metadata.get(FID)?.parse().ok()?,
        })
    }

    /// As [`Owner::of`] reads it.
    #[must_use]
    pub fn to_map(&self) -> HashMap<String, String> {
        HashMap::from([(FID.to_owned(), self.fid.bare()), (FS.to_owned(), self.fs.clone())])
    }
}

/// The random number of one attempt at writing an object: cookies repeat, and two movers may write for one file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WriterId(pub u64);

impl WriterId {
    /// One that nobody else has.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }

    /// From its text form; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 16 && text.bytes().all(is_digit))
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who writes an object: for which file, in which action, in which attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteAttempt {
    /// The file.
    pub owner: Owner,
    /// The action.
    pub cookie: Cookie,
    /// The attempt.
    pub writer: WriterId,
}

impl WriteAttempt {
    /// Has an object's metadata say so, but for its key.
    pub fn sign(&self, metadata: &mut HashMap<String, String>) {
        metadata.extend(self.owner.to_map());
        metadata.insert(COOKIE.to_owned(), self.cookie.to_string());
        metadata.insert(WRITER.to_owned(), self.writer.to_string());
    }
}

/// Has an object's metadata name the key that it is written to.
pub fn name_key(metadata: &mut HashMap<String, String>, key: &ObjectKey) {
    metadata.insert(KEY.to_owned(), mark_of(key));
}

/// Has an object's metadata say of which data version of its file it has the bytes, where that is known.
pub fn note_data_version(metadata: &mut HashMap<String, String>, version: Option<u64>) {
    if let Some(version) = version {
        metadata.insert(DATA_VERSION.to_owned(), format!("{version:x}"));
    }
}

/// As [`note_data_version`] has written it.
#[must_use]
pub fn data_version_of(metadata: &HashMap<String, String>) -> Option<u64> {
    u64::from_str_radix(metadata.get(DATA_VERSION)?, 16).ok()
}

/// A key has up to 1,024 bytes and all metadata 2,048: a sum of it serves.
fn mark_of(key: &ObjectKey) -> String {
    format!("{:016x}", checksum(CrcAlgorithm::Crc64Nvme, key.as_str().as_bytes()))
}

/// What an object says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The file that it was written for.
    pub owner: Owner,
    /// The action, in its text form.
    pub cookie: Option<String>,
    /// The attempt; `None`: by an older release.
    pub writer: Option<WriterId>,
    /// It names its key; objects of older releases do not.
    pub names_key: bool,
}

/// Where an object comes from, by what a look at it has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Others wrote it.
    Strangers,
    /// Others copied it here from another key of ours: theirs, whatever file it names.
    Carried(Owner),
    /// It was written here for a file.
    Written(Identity),
}

impl Origin {
    /// Of what was found at a key.
    #[must_use]
    pub fn of(found: &ObjectInfo, key: &ObjectKey) -> Self {
        let metadata = &found.metadata;
        let Some(owner) = Owner::of(metadata) else {
            return Self::Strangers;
        };
        match metadata.get(KEY) {
            Some(named) if *named != mark_of(key) => Self::Carried(owner),
            named => Self::Written(Identity {
                owner,
                cookie: metadata.get(COOKIE).cloned(),
                writer: metadata.get(WRITER).and_then(|text| WriterId::parse(text)),
                names_key: named.is_some(),
            }),
        }
    }

    /// The attempt that wrote what was found at a key; `None` for others' and for older releases'.
    #[must_use]
    pub fn writer_of(found: &ObjectInfo, key: &ObjectKey) -> Option<WriterId> {
        match Self::of(found, key) {
            Self::Written(identity) => identity.writer,
            Self::Strangers | Self::Carried(_) => None,
        }
    }

    /// The action of that attempt.
    #[must_use]
    pub fn cookie_of(found: &ObjectInfo, key: &ObjectKey) -> Option<Cookie> {
        match Self::of(found, key) {
            Self::Written(identity) => identity.cookie.as_deref().and_then(Cookie::parse),
            Self::Strangers | Self::Carried(_) => None,
        }
    }

    /// The file that it was written here for.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Written(identity) => Some(&identity.owner),
            Self::Strangers | Self::Carried(_) => None,
        }
    }

    /// Whether it was written here for that file.
    #[must_use]
    pub fn is_of(&self, owner: &Owner) -> bool {
        self.owner() == Some(owner)
    }

    /// Whether just that attempt wrote it. An object of an older release names the action alone.
    #[must_use]
    pub fn is_by(&self, author: &WriteAttempt) -> bool {
        let Self::Written(identity) = self else {
            return false;
        };
        identity.owner == author.owner
            && match identity.writer {
                Some(writer) => writer == author.writer,
                None => identity.cookie.as_ref() == Some(&author.cookie.to_string()),
            }
    }

    /// Whether a file may delete it, or put its new copy in its place, by its own record: its own object, or one of
    /// others that an import has given to just this file.
    #[must_use]
    pub fn yields_to(&self, owner: &Owner, record: &Location) -> bool {
        match self {
            Self::Written(identity) => identity.owner == *owner,
            Self::Strangers => record.claim(owner) == Claim::Own,
            Self::Carried(_) => false,
        }
    }
}

/// What a record says to the file on which it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It was written for this file.
    Own,
    /// An older release wrote it: the object has to say whose it is.
    Unsaid,
    /// It was written for another file and copied along with that one's content, or this file has got another FID
    /// (`lfs migrate -m`). What it names may be read, and nothing of it is replaced or deleted.
    Anothers,
}

impl Location {
    /// What it says to a file on which it lies.
    #[must_use]
    pub fn claim(&self, file: &Owner) -> Claim {
        match &self.written_for {
            Some(owner) if owner == file => Claim::Own,
            Some(_) => Claim::Anothers,
            None => Claim::Unsaid,
        }
    }

    /// Whether the object tells all that it says, where the store keeps that checksum of it: the file needs no record then.
    #[must_use]
    pub fn is_told(&self, prefix: &str, by_store: Option<Checksum>) -> bool {
        let is_key_of = |owner: &Owner| {
            self.key.may_be_from(owner.fid) && ObjectKey::from_fid(prefix, owner.fid).is_ok_and(|key| key == self.key)
        };
        self.written_for.as_ref().is_some_and(is_key_of)
            && self.writer.is_some()
            && self.checksum.is_some()
            && self.checksum == by_store
            && self.version.is_none()
            && self.sidecar.is_none()
            && self.layout.is_none()
            && !self.pinned
    }

    /// Whether what was found at its key was written by the attempt that it names; where it names none, anything may.
    #[must_use]
    pub fn is_written_as(&self, found: &ObjectInfo) -> bool {
        self.writer.is_none() || Origin::writer_of(found, &self.key) == self.writer
    }

    /// Whether it means what is at a key: in an unversioned bucket whatever is there took the place of its object.
    #[must_use]
    pub fn means(&self, at: KeyAt<'_>, found: &ObjectInfo) -> bool {
        let other_version = matches!((&self.version, &found.version), (Some(own), Some(other)) if own != other);
        self.at() == at && !other_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ArchiveId;

    fn fid(oid: u32) -> Fid {
        Fid {
            seq: 0x2_0000_0401,
            oid,
            ver: 0,
        }
    }

    fn author(oid: u32, writer: u64) -> WriteAttempt {
        WriteAttempt {
            owner: Owner {
                fs: "lustre:1".into(),
                fid: fid(oid),
            },
            cookie: Cookie(7),
            writer: WriterId(writer),
        }
    }

    fn found(metadata: HashMap<String, String>) -> ObjectInfo {
        ObjectInfo {
            size: 1,
            etag: "\"e\"".into(),
            metadata,
            ..ObjectInfo::default()
        }
    }

    #[test]
    fn an_object_counts_only_at_the_key_that_it_names() {
        let (here, there) = (ObjectKey::new("t/a").unwrap(), ObjectKey::new("backup/a").unwrap());
        let author = author(9, 1);
        let mut metadata = HashMap::new();
        author.sign(&mut metadata);
        // An older release's names none.
        let origin = Origin::of(&found(metadata.clone()), &there);
        assert!(matches!(&origin, Origin::Written(identity) if !identity.names_key));
        name_key(&mut metadata, &here);
        let object = found(metadata);
        assert!(Origin::of(&object, &here).is_by(&author));
        assert_eq!(Origin::of(&object, &there), Origin::Carried(author.owner.clone()));
        assert!(!Origin::of(&object, &there).is_of(&author.owner));
        assert_eq!(Origin::of(&found(HashMap::new()), &here), Origin::Strangers);
    }

    #[test]
    fn another_attempt_of_the_same_action_is_another_author() {
        let key = ObjectKey::new("k").unwrap();
        let (first, second) = (author(9, 1), author(9, 2));
        let mut metadata = HashMap::new();
        first.sign(&mut metadata);
        name_key(&mut metadata, &key);
        let origin = Origin::of(&found(metadata.clone()), &key);
        assert!(origin.is_by(&first) && origin.is_of(&second.owner) && !origin.is_by(&second));
        // Of an older release the action is all that is known.
        metadata.remove(WRITER);
        assert!(Origin::of(&found(metadata), &key).is_by(&second));
    }

    #[test]
    fn the_object_at_a_files_key_tells_its_record_and_no_other_does() {
        let (id, author) = (ArchiveId::new(1).unwrap(), author(9, 1));
        let key = ObjectKey::from_fid("p/", fid(9)).unwrap();
        let mut metadata = HashMap::new();
        author.sign(&mut metadata);
        // An older release's does not name its key: its file has a record.
        assert_eq!(
            Location::told_by(&found(metadata.clone()), key.at(id), &author.owner),
            None
        );
        name_key(&mut metadata, &key);
        let object = ObjectInfo {
            checksum: Some(Checksum(5)),
            ..found(metadata)
        };
        let told = Location::told_by(&object, key.at(id), &author.owner).unwrap();
        assert_eq!(
            (&told.writer, &told.written_for),
            (&Some(WriterId(1)), &Some(author.owner.clone()))
        );
        assert!(told.is_told("p/", object.checksum));
        let others = [
            Owner {
                fid: fid(8),
                ..author.owner.clone()
            },
            Owner {
                fs: "lustre:2".into(),
                ..author.owner.clone()
            },
        ];
        for other in others {
            assert_eq!(Location::told_by(&object, key.at(id), &other), None);
        }
        let elsewhere = ObjectKey::from_fid("q/", fid(9)).unwrap();
        assert_eq!(Location::told_by(&object, elsewhere.at(id), &author.owner), None);
        // What a HEAD would not tell, or not of this object alone.
        let needs: [fn(&mut Location); 5] = [
            |location| location.pinned = true,
            |location| location.version = Some("v".into()),
            |location| location.sidecar = ObjectKey::new("s").ok(),
            |location| location.checksum = None,
            |location| location.writer = None,
        ];
        for need in needs {
            let mut location = told.clone();
            need(&mut location);
            assert!(!location.is_told("p/", object.checksum));
        }
        assert!(!told.is_told("p/", None) && !told.is_told("", object.checksum));
    }

    #[test]
    fn a_writer_survives_its_text_and_nothing_else_is_one() {
        for number in [0, 1, u64::MAX] {
            assert_eq!(WriterId::parse(&WriterId(number).to_string()), Some(WriterId(number)));
        }
        for text in ["", "1", "+000000000000001", "00000000000000000", "000000000000000G"] {
            assert_eq!(WriterId::parse(text), None, "{text}");
        }
    }
}
