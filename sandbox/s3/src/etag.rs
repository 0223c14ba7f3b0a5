//! The forms in which a store shows its ETags, and wants them back.

use md5::{Digest as _, Md5};
use s3s::dto::ETag;

use crate::dialect::Dialect;
use crate::dialects::Dialects;

/// How the MD5 of the bytes, which is kept with an object, becomes the ETag that is shown. Its quotes are taken off
/// where answers are bent: the protocol layer always writes them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Forms {
    opaque: bool,
    upper: bool,
    weak: bool,
}

impl Forms {
    pub(crate) fn of(dialects: &Dialects) -> Self {
        Self {
            opaque: dialects.any(&[Dialect::ETagOpaque, Dialect::DirectoryBucket]),
            upper: dialects.has(Dialect::ETagUpper),
            weak: dialects.has(Dialect::ETagWeak),
        }
    }

    /// What stands between the quotes.
    pub(crate) fn value(self, etag: &str) -> String {
        let mut value = etag.to_owned();
        if self.opaque {
            let digest = Md5::digest(format!("no MD5 of the bytes: {etag}"));
            let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            // The number of an upload's parts stays.
            let parts = etag.find('-').map_or("", |at| &etag[at..]);
            value = digits + parts;
        }
        if self.upper {
            value.make_ascii_uppercase();
        }
        value
    }

    /// The ETag as it is answered.
    pub(crate) fn show(self, etag: &str) -> ETag {
        let value = self.value(etag);
        if self.weak {
            ETag::Weak(value)
        } else {
            ETag::Strong(value)
        }
    }
}
