//! A bucket as S3 keeps it: conditions, versions, delete markers, equal ETags for equal bytes.

use std::collections::BTreeMap;

use crc_fast::{CrcAlgorithm, checksum};
use md5::{Digest as _, Md5};

use crate::store::memory::{Answer, Asked};
use crate::store::{Checksum, ObjectInfo, ObjectKey, Origin};

/// One write.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// No other write has it.
    pub(super) serial: u64,
    pub(super) bytes: Vec<u8>,
    /// Quotes included.
    pub(super) etag: String,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Object {
    /// As the code that is tried would tell it at a key.
    pub(super) fn info(&self) -> ObjectInfo {
        ObjectInfo {
            size: self.bytes.len() as u64,
            metadata: self.metadata.clone().into_iter().collect(),
            ..ObjectInfo::default()
        }
    }

    /// Whose it is there.
    pub(super) fn origin(&self, key: &str) -> Origin {
        Origin::of(&self.info(), &ObjectKey::new(key).expect("a key"))
    }
}

#[derive(Debug)]
struct Version {
    id: String,
    /// `None`: a delete marker.
    object: Option<Object>,
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) versioned: bool,
    /// The last one is the current one.
    keys: BTreeMap<String, Vec<Version>>,
    written: u64,
}

pub(super) fn error(status: u16, code: &str) -> Answer {
    Answer {
        status,
        body: format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"),
        ..Answer::default()
    }
}

fn bare(etag: &str) -> &str {
    etag.trim_matches('"')
}

impl Bucket {
    pub(super) fn new(versioned: bool) -> Self {
        Self {
            versioned,
            keys: BTreeMap::new(),
            written: 0,
        }
    }

    /// What a key stands for.
    pub(super) fn current(&self, key: &str) -> Option<&Object> {
        self.keys.get(key)?.last()?.object.as_ref()
    }

    /// Current or not.
    pub(super) fn version(&self, key: &str, id: &str) -> Option<&Object> {
        let version = self.keys.get(key)?.iter().find(|version| version.id == id)?;
        version.object.as_ref()
    }

    /// All that is kept of a key, the newest first.
    pub(super) fn kept(&self, key: &str) -> impl Iterator<Item = &Object> {
        let kept = self.keys.get(key).into_iter().flatten().rev();
        kept.filter_map(|version| version.object.as_ref())
    }

    /// Keys with an object, in order.
    pub(super) fn listed(&self) -> Vec<String> {
        let there = self.keys.keys().filter(|key| self.current(key).is_some());
        there.cloned().collect()
    }

    /// Writes an object, whatever is there; its number.
    pub(super) fn put(&mut self, key: &str, bytes: Vec<u8>, metadata: BTreeMap<String, String>) -> u64 {
        self.written += 1;
        let serial = self.written;
        let sum: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let object = Object {
            serial,
            bytes,
            etag: format!("\"{sum}\""),
            metadata,
        };
        self.push(key, Some(object));
        serial
    }

    fn push(&mut self, key: &str, object: Option<Object>) {
        let versions = self.keys.entry(key.to_owned()).or_default();
        if !self.versioned {
            versions.clear();
        }
        self.written += 1;
        let id = format!("v{}", self.written);
        versions.push(Version { id, object });
    }

    /// Serves a request.
    pub(super) fn serve(&mut self, asked: Asked) -> Answer {
        match asked.method.as_str() {
            "PUT" => self.serve_put(asked),
            "GET" if asked.query.contains_key("versions") => self.serve_versions(&asked),
            "GET" => self.serve_get(&asked),
            "HEAD" => self.told(&asked.key, asked.query.get("versionId").map(String::as_str)),
            "DELETE" => self.serve_delete(&asked),
            _ => error(501, "NotImplemented"),
        }
    }

    fn serve_put(&mut self, asked: Asked) -> Answer {
        let now = self.current(&asked.key);
        if asked.headers.contains_key("if-none-match") && now.is_some() {
            return error(412, "PreconditionFailed");
        }
        if let Some(etag) = asked.headers.get("if-match") {
            match now {
                None => return error(404, "NoSuchKey"),
                Some(now) if bare(&now.etag) != bare(etag) => return error(412, "PreconditionFailed"),
                Some(_) => {}
            }
        }
        let metadata = asked
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("x-amz-meta-")?.to_owned(), value.clone())))
            .collect();
        self.put(&asked.key, asked.body, metadata);
        let mut answer = self.told(&asked.key, None);
        answer.headers.retain(|(name, _)| name != "content-length");
        answer
    }

    /// Small ones, which are asked for as a whole.
    fn serve_get(&self, asked: &Asked) -> Answer {
        let id = asked.query.get("versionId").map(String::as_str);
        let found = match id {
            Some(id) => self.version(&asked.key, id),
            None => self.current(&asked.key),
        };
        let Some(object) = found else {
            return error(404, "NoSuchKey");
        };
        let etag = asked.headers.get("if-match");
        if etag.is_some_and(|etag| bare(etag) != bare(&object.etag)) {
            return error(412, "PreconditionFailed");
        }
        Answer {
            body: String::from_utf8_lossy(&object.bytes).into_owned(),
            ..self.told(&asked.key, id)
        }
    }

    /// Of one key, from the newest on; keys here have nothing that would have to be escaped.
    fn serve_versions(&self, asked: &Asked) -> Answer {
        let key = asked.query.get("prefix").map(String::as_str).unwrap_or_default();
        let kept = self.keys.get(key).into_iter().flatten().rev();
        let listed: String = kept
            .filter_map(|version| Some((&version.id, version.object.as_ref()?)))
            .map(|(id, object)| {
                let size = object.bytes.len();
                let id = if self.versioned { id.as_str() } else { "null" };
                format!("<Version><Key>{key}</Key><VersionId>{id}</VersionId><Size>{size}</Size></Version>")
            })
            .collect();
        Answer {
            status: 200,
            headers: Vec::new(),
            body: format!("<ListVersionsResult>{listed}</ListVersionsResult>"),
        }
    }

    fn told(&self, key: &str, id: Option<&str>) -> Answer {
        let nothing = Answer {
            status: 404,
            ..Answer::default()
        };
        let Some(versions) = self.keys.get(key) else {
            return nothing;
        };
        let version = match id {
            Some(id) => versions.iter().find(|version| version.id == id),
            None => versions.last(),
        };
        let Some(Version {
            id,
            object: Some(object),
        }) = version
        else {
            return nothing;
        };
        let sum = Checksum(checksum(CrcAlgorithm::Crc64Nvme, &object.bytes));
        let mut headers = vec![
            ("etag".to_owned(), object.etag.clone()),
            ("content-length".to_owned(), object.bytes.len().to_string()),
            ("x-amz-checksum-crc64nvme".to_owned(), sum.to_base64()),
            ("x-amz-checksum-type".to_owned(), "FULL_OBJECT".to_owned()),
        ];
        if self.versioned {
            headers.push(("x-amz-version-id".to_owned(), id.clone()));
        }
        let metadata = object.metadata.iter();
        headers.extend(metadata.map(|(name, value)| (format!("x-amz-meta-{name}"), value.clone())));
        Answer {
            status: 200,
            headers,
            body: String::new(),
        }
    }

    fn serve_delete(&mut self, asked: &Asked) -> Answer {
        let done = Answer {
            status: 204,
            ..Answer::default()
        };
        if let Some(id) = asked.query.get("versionId") {
            if let Some(versions) = self.keys.get_mut(&asked.key) {
                versions.retain(|version| version.id != *id);
            }
            return done;
        }
        let Some(now) = self.current(&asked.key) else {
            return done;
        };
        let etag = asked.headers.get("if-match");
        if etag.is_some_and(|etag| bare(etag) != bare(&now.etag)) {
            return error(412, "PreconditionFailed");
        }
        if self.versioned {
            self.push(&asked.key, None);
        } else {
            self.keys.remove(&asked.key);
        }
        done
    }
}
