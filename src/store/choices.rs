//! What an archive asks of the store for its objects.

use aws_sdk_s3::types::{
    GlacierJobParameters, ObjectCannedAcl, RestoreRequest, ServerSideEncryption, StorageClass, Tier,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

use super::ObjectInfo;

/// As configured; the default leaves all to the bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectOptions {
    /// Encryption at rest.
    pub encryption: Encryption,
    /// Of files' data, such as `STANDARD_IA` or `DEEP_ARCHIVE`.
    pub storage_class: Option<String>,
    /// Names and values.
    pub tags: Vec<(String, String)>,
    /// A canned ACL; buckets of today refuse any.
    pub acl: Option<String>,
    /// What to ask for when an object must be thawed.
    pub thaw: Thaw,
}

/// Who has the key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Encryption {
    /// The bucket's default.
    #[default]
    Bucket,
    /// The store.
    S3,
    /// KMS, with this key or the account's own.
    Kms(Option<String>),
    /// We: it goes with each request, and without it the object is lost.
    Customer(CustomerKey),
}

/// 32 bytes that never show in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct CustomerKey([u8; 32]);

impl CustomerKey {
    /// From the content of a key file: 32 bytes as they are, or in base64.
    #[must_use]
    pub fn from_file(content: &[u8]) -> Option<Self> {
        if let Ok(key) = content.try_into() {
            return Some(Self(key));
        }
        let decoded = STANDARD.decode(content.trim_ascii()).ok()?;
        decoded.try_into().ok().map(Self)
    }
}

impl std::fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CustomerKey(…)")
    }
}

/// How an object in an archive class is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thaw {
    /// How fast, at what price.
    pub tier: ThawTier,
    /// For how long the copy stays.
    pub days: u32,
}

impl Default for Thaw {
    fn default() -> Self {
        Self {
            tier: ThawTier::Standard,
            days: 3,
        }
    }
}

/// S3's retrieval tiers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThawTier {
    /// Minutes.
    Expedited,
    /// Hours.
    Standard,
    /// Up to two days, cheapest.
    Bulk,
}

impl ThawTier {
    pub(super) const fn sdk(self) -> Tier {
        match self {
            Self::Expedited => Tier::Expedited,
            Self::Standard => Tier::Standard,
            Self::Bulk => Tier::Bulk,
        }
    }
}

/// A thaw as one object's class wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ThawRequest {
    tier: ThawTier,
    /// `None`: it comes back for good.
    days: Option<u32>,
}

impl ThawRequest {
    /// What INTELLIGENT_TIERING has put away comes back for good, and a request that names days is refused. From the
    /// deepest class nothing comes in minutes.
    pub(super) fn new(thaw: Thaw, found: &ObjectInfo) -> Self {
        let class = found.class.as_deref().unwrap_or_default();
        let is_tiered = class == "INTELLIGENT_TIERING" || found.archive_tier.is_some();
        let is_deepest = class == "DEEP_ARCHIVE"
            || found
                .archive_tier
                .as_deref()
                .is_some_and(|tier| tier.starts_with("DEEP"));
        Self {
            tier: match thaw.tier {
                ThawTier::Expedited if is_deepest => ThawTier::Standard,
                tier => tier,
            },
            days: (!is_tiered).then_some(thaw.days),
        }
    }

    pub(super) fn request(self) -> RestoreRequest {
        let days = self.days.map(|days| i32::try_from(days).unwrap_or(i32::MAX));
        let job = GlacierJobParameters::builder().tier(self.tier.sdk()).build();
        RestoreRequest::builder()
            .set_days(days)
            .set_glacier_job_parameters(job.ok())
            .build()
    }

    /// What to ask for where the store refused this with that code; `None`: there is nothing else.
    pub(super) fn instead(self, code: &str) -> Option<Self> {
        match (code, self.tier, self.days) {
            // Nobody has room for minutes at this moment.
            ("GlacierExpeditedRetrievalNotAvailable", ThawTier::Expedited, _) => Some(Self {
                tier: ThawTier::Standard,
                ..self
            }),
            // A class that wants no days, and a store that does not tell which class it is.
            ("InvalidArgument" | "InvalidRequest" | "MalformedXML", _, Some(_)) => Some(Self { days: None, ..self }),
            _ => None,
        }
    }
}

/// What is done about writes that demand something of their key (`If-Match`, `If-None-Match`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Conditions {
    /// The store must heed them; one that ignores them is refused.
    Require,
    /// They are not relied on: keys are looked at before they are written.
    Look,
    /// As the store was found to be.
    #[default]
    Auto,
}

/// When an object that others wrote is proved by what the store knows of it, before its file is restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VerifyImported {
    /// Wherever there is any proof, also one that costs a request or a sum over the bytes.
    #[default]
    Always,
    /// By what comes with the answers that are needed anyway.
    IfFree,
    /// By size and ETag alone.
    Never,
}

/// The three headers of a customer's key: algorithm, key, MD5 of the key.
pub(super) type CustomerHeaders = (Option<String>, Option<String>, Option<String>);

impl ObjectOptions {
    pub(super) fn server_side(&self) -> Option<ServerSideEncryption> {
        match self.encryption {
            Encryption::S3 => Some(ServerSideEncryption::Aes256),
            Encryption::Kms(_) => Some(ServerSideEncryption::AwsKms),
            Encryption::Bucket | Encryption::Customer(_) => None,
        }
    }

    pub(super) fn kms_key(&self) -> Option<String> {
        match &self.encryption {
            Encryption::Kms(key) => key.clone(),
            _ => None,
        }
    }

    pub(super) fn customer(&self) -> CustomerHeaders {
        match &self.encryption {
            Encryption::Customer(CustomerKey(key)) => (
                Some("AES256".into()),
                Some(STANDARD.encode(key)),
                Some(STANDARD.encode(Md5::digest(key))),
            ),
            _ => (None, None, None),
        }
    }

    pub(super) fn class(&self) -> Option<StorageClass> {
        self.storage_class.as_deref().map(StorageClass::from)
    }

    pub(super) fn canned_acl(&self) -> Option<ObjectCannedAcl> {
        self.acl.as_deref().map(ObjectCannedAcl::from)
    }

    /// As a query string, which is the header's form.
    pub(super) fn tagging(&self) -> Option<String> {
        let pairs: Vec<_> = self
            .tags
            .iter()
            .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("&"))
    }
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(class: Option<&str>, tier: Option<&str>) -> ObjectInfo {
        ObjectInfo {
            class: class.map(str::to_owned),
            archive_tier: tier.map(str::to_owned),
            ..ObjectInfo::default()
        }
    }

    #[test]
    fn a_thaw_names_days_only_where_the_class_wants_them() {
        let thaw = Thaw {
            tier: ThawTier::Expedited,
            days: 3,
        };
        let asked = |class, tier| {
            let request = ThawRequest::new(thaw, &found(class, tier)).request();
            let job = request.glacier_job_parameters().map(|job| job.tier().clone());
            (request.days(), job.unwrap())
        };
        assert_eq!(asked(Some("GLACIER"), None), (Some(3), Tier::Expedited));
        assert_eq!(asked(None, None), (Some(3), Tier::Expedited));
        assert_eq!(asked(Some("DEEP_ARCHIVE"), None), (Some(3), Tier::Standard));
        let tiering = Some("INTELLIGENT_TIERING");
        assert_eq!(asked(tiering, Some("ARCHIVE_ACCESS")), (None, Tier::Expedited));
        assert_eq!(asked(tiering, Some("DEEP_ARCHIVE_ACCESS")), (None, Tier::Standard));
    }

    #[test]
    fn a_thaw_that_is_refused_is_asked_for_in_the_other_way_and_then_given_up() {
        let thaw = Thaw {
            tier: ThawTier::Expedited,
            days: 3,
        };
        let first = ThawRequest::new(thaw, &found(None, None));
        let slower = first.instead("GlacierExpeditedRetrievalNotAvailable").unwrap();
        assert_eq!((slower.tier, slower.days), (ThawTier::Standard, Some(3)));
        assert_eq!(slower.instead("GlacierExpeditedRetrievalNotAvailable"), None);
        let for_good = slower.instead("InvalidArgument").unwrap();
        assert_eq!(for_good.days, None);
        assert_eq!(for_good.instead("InvalidArgument"), None);
        assert_eq!(first.instead("AccessDenied"), None);
    }

    #[test]
    fn tags_are_a_query_string() {
        let choices = ObjectOptions {
            tags: vec![("project".into(), "a b/ü".into()), ("x".into(), String::new())],
            ..ObjectOptions::default()
        };
        assert_eq!(choices.tagging().as_deref(), Some("project=a%20b%2F%C3%BC&x="));
        assert_eq!(ObjectOptions::default().tagging(), None);
    }

    #[test]
    fn a_customers_key_is_32_bytes_and_never_shown() {
        let raw = [7u8; 32];
        let key = CustomerKey::from_file(&raw).unwrap();
        assert_eq!(
            CustomerKey::from_file(format!("{}\n", STANDARD.encode(raw)).as_bytes()),
            Some(key.clone())
        );
        assert_eq!(CustomerKey::from_file(b"short"), None);
        let shown = format!("{:?}", Encryption::Customer(key));
        assert!(!shown.contains('7'), "{shown}");
    }
}
