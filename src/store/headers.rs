//! What the SDK's requests lack: headers that one archive, or one operation, always has.

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_types::config_bag::ConfigBag;

/// Adds them for a client.
#[derive(Debug)]
pub(super) struct Headers {
    /// We pay for what we ask for.
    pub(super) requester_pays: bool,
}

#[dyn_dispatch_hint]
impl Intercept for Headers {
    fn name(&self) -> &'static str {
        "Headers"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.requester_pays {
            context
                .request_mut()
                .headers_mut()
                .insert("x-amz-request-payer", "requester");
        }
        Ok(())
    }

    /// Not signed: proxies are known to write this one anew.
    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // The bytes as they are stored: some stores unpack what says that it is packed, unless this is said.
        if cfg
            .load::<Metadata>()
            .is_some_and(|metadata| metadata.name() == "GetObject")
        {
            context
                .request_mut()
                .headers_mut()
                .insert("accept-encoding", "identity");
        }
        Ok(())
    }
}
