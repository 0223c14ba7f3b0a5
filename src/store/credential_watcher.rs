//! Whether the store takes our credentials, seen in its answers: where it does not, their source is asked before the
//! next request, not when they were to be fetched anyway.

use std::sync::Arc;

use aws_sdk_s3::config::interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextMut};
use aws_sdk_s3::config::{Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};

use super::credentials::{CredentialCache, CredentialDoubt, CredentialId};

/// Of an error's body: what comes after it is for people.
const LOOKED_AT: usize = 4096;

/// Looks at the answers of a client.
#[derive(Debug)]
pub(super) struct CredentialWatcher(pub(super) Arc<CredentialCache>);

/// Beside an answer: the next request goes with credentials that were asked for anew, so it is worth a try.
#[derive(Clone, Copy, Debug)]
pub(super) struct CredentialsRenewed;

/// With which credentials the request was signed.
#[derive(Debug)]
struct SignedWith(CredentialId);

impl Storable for SignedWith {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for CredentialWatcher {
    fn name(&self) -> &'static str {
        "CredentialWatcher"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request().headers();
        // AWS4-HMAC-SHA256 Credential=KEY/DATE/…
        let signed = headers
            .get("authorization")
            .and_then(|text| text.split_once("Credential="));
        if let Some((key, _)) = signed.and_then(|(_, rest)| rest.split_once('/')) {
            let mark = CredentialId::new(key, headers.get("x-amz-security-token"));
            cfg.interceptor_state().store_put(SignedWith(mark));
        }
        Ok(())
    }

    fn modify_before_attempt_completion(
        &self,
        context: &mut FinalizerInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let used = cfg.load::<SignedWith>().map(|used| used.0);
        let operation = cfg.load::<Metadata>().map_or("", Metadata::name);
        if let Some(used) = used
            && let Some(response) = context.response_mut()
            && let Some(doubt) = doubt_of(response, operation)
            && self.0.doubt(used, doubt)
        {
            response.add_extension(CredentialsRenewed);
        }
        Ok(())
    }
}

/// What an answer says of the credentials; nothing of most.
fn doubt_of(response: &HttpResponse, operation: &str) -> Option<CredentialDoubt> {
    let status = response.status().as_u16();
    if !(400..500).contains(&status) {
        return None;
    }
    let body = response.body().bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(body.get(..LOOKED_AT).unwrap_or(body));
    let code = body
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map(|(code, _)| code.trim());
    match code {
        Some("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => Some(CredentialDoubt::Expired),
        Some("InvalidToken" | "InvalidAccessKeyId" | "InvalidClientTokenId" | "SignatureDoesNotMatch") => {
            Some(CredentialDoubt::Refused)
        }
        // A HEAD's answer has no body to say why.
        None if operation == "HeadObject" && matches!(status, 400 | 401 | 403) => Some(CredentialDoubt::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::primitives::SdkBody;

    fn doubt(status: u16, operation: &str, body: &'static str) -> Option<CredentialDoubt> {
        let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        doubt_of(&response, operation)
    }

    #[test]
    fn an_answer_tells_whether_the_credentials_are_to_blame() {
        let expired = "<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>m</Message></Error>";
        assert_eq!(doubt(400, "PutObject", expired), Some(CredentialDoubt::Expired));
        let unknown = "<Error><Code>InvalidAccessKeyId</Code></Error>";
        assert_eq!(doubt(403, "GetObject", unknown), Some(CredentialDoubt::Refused));
        assert_eq!(doubt(400, "HeadObject", ""), Some(CredentialDoubt::Refused));
        assert_eq!(doubt(404, "HeadObject", ""), None);
        assert_eq!(
            doubt(403, "GetObject", "<Error><Code>AccessDenied</Code></Error>"),
            None
        );
        assert_eq!(doubt(400, "PutObject", "an error page"), None);
        assert_eq!(doubt(200, "GetObject", expired), None, "an object's content");
    }
}
