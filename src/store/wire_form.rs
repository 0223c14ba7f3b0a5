//! What a store's objections teach: how it wants its ETags spelled, and its bodies framed.

use super::client::missing;
use super::{ChecksumKind, Condition, ObjectKey, Payload, Quirk, Store, StoreError, etag};

impl Store {
    /// An answer's ETag, in the one form that is kept.
    pub(super) fn etag(&self, operation: &'static str, told: Option<String>) -> Result<String, StoreError> {
        let told = told.ok_or_else(|| missing(operation, "an ETag"))?;
        if etag::is_upper(&told) {
            self.quirks().learn(Quirk::UpperETags);
        }
        Ok(etag::canonical(&told))
    }

    /// As the store wants it.
    pub(super) fn spelled(&self, etag: &str) -> String {
        let etag = self.spelled_in_body(etag);
        match self.quirks().has(Quirk::BareETags) {
            true => etag::bare(&etag).to_owned(),
            false => etag,
        }
    }

    /// As the list of parts has it: there the quotes belong to it for all stores.
    pub(super) fn spelled_in_body(&self, etag: &str) -> String {
        // What is no MD5 stays as it was told.
        match self.quirks().has(Quirk::UpperETags) && etag::is_md5(etag::bare(etag)) {
            true => etag.to_ascii_uppercase(),
            false => etag.to_owned(),
        }
    }

    /// As If-Match and If-None-Match.
    pub(super) fn demands(&self, condition: &Condition) -> (Option<String>, Option<String>) {
        match condition {
            Condition::None => (None, None),
            Condition::Absent => (None, Some("*".to_owned())),
            Condition::Match(etag) => (Some(self.spelled(etag)), None),
        }
    }

    /// After a 412 to an ETag that was sent with or without its quotes: whether the object is the expected one all the
    /// same, so that another spelling is worth a try.
    pub(super) async fn respell(&self, key: &ObjectKey, version: Option<&str>, etag: &str, was_bare: bool) -> bool {
        let Ok(found) = self.head_part(key, version, None).await else {
            return false;
        };
        let Some(told) = found.e_tag.filter(|told| etag::canonical(told) == etag) else {
            return false;
        };
        // As this object has it: not all of a store's need be alike, where some came from another store.
        let before = self.spelled(etag);
        if etag::is_upper(&told) {
            self.quirks().learn(Quirk::UpperETags);
        } else {
            self.quirks().unlearn(Quirk::UpperETags);
        }
        if self.spelled(etag) != before {
            return true;
        }
        if was_bare {
            // That was not it, or it is not so for all operations: with its quotes again.
            self.quirks().unlearn(Quirk::BareETags);
            return true;
        }
        // Another thread may have learned it since this one asked.
        if self.quirks().learn(Quirk::BareETags) {
            tracing::info!(
                bucket = self.target().bucket,
                "the store refuses a quoted ETag in If-Match; trying it without quotes"
            );
        }
        true
    }

    /// Whether ETags go without their quotes now.
    pub(super) fn spells_bare(&self) -> bool {
        self.quirks().has(Quirk::BareETags)
    }

    /// How a write with this payload goes.
    pub(super) fn manner<B>(&self, payload: &Payload<B>) -> WireForm {
        WireForm {
            framing: self.framing(payload),
            bare: self.spells_bare(),
        }
    }

    /// How this payload will go.
    fn framing<B>(&self, payload: &Payload<B>) -> Framing {
        match payload {
            Payload::Stream { .. } if !self.target().sign_payload && self.target().checksum != ChecksumKind::None => {
                Framing::Chunked
            }
            Payload::Proven { .. } => Framing::Plain,
            Payload::Stream { .. } | Payload::Whole(..) => Framing::None,
        }
    }

    /// Whether bodies may go in chunks, with their checksum behind them.
    #[must_use]
    pub fn takes_chunked(&self) -> bool {
        !self.quirks().has(Quirk::Unchunked)
    }

    /// What a store keeps of the framing, or refuses of it: from now on bodies go plain, and this one is sent again.
    #[must_use]
    pub fn chunked_is_spoiled(&self, operation: &'static str) -> StoreError {
        let what = "the store takes no aws-chunked bodies; files are read twice, and their checksums go in headers";
        if self.quirks().learn(Quirk::Unchunked) {
            tracing::warn!(bucket = self.target().bucket, operation, "{what}");
        }
        StoreError::Learned {
            operation,
            what: what.into(),
        }
    }

    /// The same after a refusal. One without a word may be of anybody on the way: the form is tried once more.
    fn chunked_is_refused(&self, operation: &'static str, worded: bool) -> StoreError {
        if !worded && self.quirks().learn(Quirk::ChunkedDoubted) {
            return StoreError::Learned {
                operation,
                what: "an aws-chunked body was refused without a word; it is sent once more".into(),
            };
        }
        self.chunked_is_spoiled(operation)
    }

    /// A body was taken.
    pub(super) fn took(&self, manner: WireForm) {
        match manner.framing {
            Framing::Plain => {
                self.quirks().learn(Quirk::PlainIsTaken);
            }
            Framing::Chunked if self.quirks().has(Quirk::ChunkedDoubted) => {
                self.quirks().unlearn(Quirk::ChunkedDoubted);
            }
            Framing::Chunked | Framing::None => {}
        }
    }

    /// What a refused write teaches: the error as it is, or that the next try will be another.
    pub(super) async fn objection(
        &self,
        error: StoreError,
        manner: WireForm,
        key: &ObjectKey,
        condition: &Condition,
    ) -> StoreError {
        if let (StoreError::Precondition { operation }, Condition::Match(etag)) = (&error, condition) {
            let operation = *operation;
            let respelled = self.respell(key, None, etag, manner.bare).await;
            // Whoever writes looks at the key before the next try, and that one goes in the other spelling.
            return match respelled && !manner.bare {
                true => StoreError::Learned {
                    operation,
                    what: "If-Match wants its ETag in another spelling".into(),
                },
                false => error,
            };
        }
        let Some((operation, worded)) = error.may_be_framing() else {
            return error;
        };
        match manner.framing {
            Framing::Chunked => self.chunked_is_refused(operation, worded),
            // Plain bodies are refused as well: it was something else, and the next one may go in chunks again.
            Framing::Plain if !self.quirks().has(Quirk::PlainIsTaken) => {
                self.quirks().unlearn(Quirk::Unchunked);
                error
            }
            Framing::Plain | Framing::None => error,
        }
    }
}

/// How a write went over the wire: what was learned of the store may have changed since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WireForm {
    framing: Framing,
    /// ETags without their quotes.
    bare: bool,
}

impl WireForm {
    /// Of a write without a body of ours.
    pub(super) const fn bodiless(bare: bool) -> Self {
        Self {
            framing: Framing::None,
            bare,
        }
    }
}

/// How a body goes over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// In `aws-chunked` form.
    Chunked,
    /// As it is, where it would go in chunks else.
    Plain,
    /// As it always would.
    None,
}

impl StoreError {
    /// The operation, where the form of the body may be what was refused, and whether the refusal has a word.
    fn may_be_framing(&self) -> Option<(&'static str, bool)> {
        match self {
            Self::Unsupported { operation, code } => Some((*operation, code != "501")),
            Self::Refused {
                operation,
                status: 400,
                code,
                ..
            } => matches!(
                code.as_str(),
                "" | "InvalidRequest"
                    | "InvalidArgument"
                    | "InvalidChunkSizeError"
                    | "MalformedTrailerError"
                    | "XAmzContentSHA256Mismatch"
                    | "MissingContentLength"
                    | "UnsupportedArgument"
                    | "NotImplemented"
            )
            .then_some((*operation, !code.is_empty())),
            Self::Denied { operation, code, .. } if code == "SignatureDoesNotMatch" => Some((*operation, true)),
            _ => None,
        }
    }
}
