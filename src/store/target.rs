//! One archive's bucket, and connections to it.
//!
//! Each worker thread has its own runtime and therefore its own connections: an HTTP connection lives on
//! the runtime that opened it.

use std::sync::Arc;
use std::time::Duration;

use super::answer::AnswerCheck;
use super::connection::{Security, to_credentials};
use super::credential_watcher::CredentialWatcher;
use super::credentials::{Chain, ChainFuture, CredentialCache, ask};
use super::error::chain;
use super::headers::Headers;
use super::requests::RequestCounter;
use super::{
    BandwidthLimit, CaBundle, ChecksumKind, Conditions, Connections, KeyLayout, Limits, ObjectOptions, Quirk, Quirks,
    Records, Requests, StartError, Store, StoreError, VerifyImported,
};
use crate::types::ArchiveId;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    IdentityCache, ProvideCredentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// How an archive is stored, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetOptions {
    /// The archive id whose files go there.
    pub archive_id: ArchiveId,
    /// The bucket.
    pub bucket: String,
    /// Before each key; used as it is, so end it in `/` for a folder.
    pub prefix: String,
    /// How keys are made.
    pub layout: KeyLayout,
    /// When files get records.
    pub records: Records,
    /// Another store than AWS.
    pub endpoint_url: Option<String>,
    /// Where the bucket is.
    pub region: Option<String>,
    /// The bucket in the path instead of the host name.
    pub path_style: bool,
    /// A profile of the shared AWS files.
    pub profile: Option<String>,
    /// What proves the bytes.
    pub checksum: ChecksumKind,
    /// Sign the payload, too: a SHA-256 of every byte, for stores that insist on it.
    pub sign_payload: bool,
    /// For one TCP and TLS handshake.
    pub connect_timeout: Duration,
    /// Certificates that are trusted instead of the system's.
    pub ca_bundle: Option<CaBundle>,
    /// `http://…` of a proxy; `None`: as the environment says (`HTTPS_PROXY`, `NO_PROXY`).
    pub proxy: Option<String>,
    /// What is asked for each object.
    pub choices: ObjectOptions,
    /// Say with each request that its price is ours, as buckets want whose owner does not pay.
    pub requester_pays: bool,
    /// What is done about conditional writes.
    pub conditions: Conditions,
    /// When an imported object is proved.
    pub verify_imported: VerifyImported,
    /// AWS's endpoints with FIPS 140 modules.
    pub use_fips_endpoint: bool,
    /// AWS's endpoints with IPv6 and IPv4.
    pub use_dualstack_endpoint: bool,
    /// AWS's accelerated endpoints.
    pub use_accelerate_endpoint: bool,
    /// Bytes a second to the store.
    pub upload_bandwidth: Option<BandwidthLimit>,
    /// Bytes a second from the store.
    pub download_bandwidth: Option<BandwidthLimit>,
}

impl TargetOptions {
    /// Whether a file that is archived now may have no record of its copy.
    #[must_use]
    pub fn goes_without_records(&self) -> bool {
        self.layout == KeyLayout::Fid && self.records == Records::WhenNeeded
    }

    fn security(&self) -> Security {
        match (&self.endpoint_url, &self.ca_bundle) {
            (Some(url), _) if url.starts_with("http://") => Security::Plain,
            (_, Some(ca)) => Security::Private(ca.clone()),
            (_, None) => Security::System,
        }
    }

    /// Of whoever gives credentials: AWS as a rule, also where the store has a certificate of its own.
    fn security_of_credentials(&self) -> Security {
        match &self.ca_bundle {
            Some(ca) => Security::Both(ca.clone()),
            None => Security::System,
        }
    }
}

/// A target with its credentials found, ready to connect from any thread.
#[derive(Clone, Debug)]
pub struct Target {
    options: Arc<TargetOptions>,
    credentials: Arc<CredentialCache>,
    region: Region,
    quirks: Arc<Quirks>,
    limits: Arc<Limits>,
    requests: Arc<Requests>,
    /// Instead of the network.
    #[cfg(test)]
    client: Option<SharedHttpClient>,
}

impl Target {
    /// Finds region and credentials by the standard chain. Must run on the control runtime.
    ///
    /// # Errors
    /// What is missing, and where to put it.
    pub async fn resolve(options: TargetOptions) -> Result<Self, StartError> {
        let (region, credentials) = find(&options).await?;
        let limits = Limits::default();
        BandwidthLimit::set(options.upload_bandwidth, &limits.upload);
        BandwidthLimit::set(options.download_bandwidth, &limits.download);
        Ok(Self {
            options: Arc::new(options),
            credentials,
            region,
            quirks: Arc::default(),
            limits: Arc::new(limits),
            requests: Arc::default(),
            #[cfg(test)]
            client: None,
        })
    }

    /// A store behind a client that is no network, which heeds conditions. Must be made within a runtime.
    #[cfg(test)]
    pub(super) fn behind(options: TargetOptions, client: SharedHttpClient) -> Self {
        let credentials = aws_credential_types::Credentials::new("key", "secret", None, None, "test");
        let provider = SharedCredentialsProvider::new(credentials.clone());
        let quirks = Quirks::default();
        quirks.learn(Quirk::Conditions);
        let chain: Chain = Box::new(|| -> ChainFuture { Box::pin(async { None }) });
        Self {
            options: Arc::new(options),
            credentials: CredentialCache::new(chain, provider, credentials),
            region: Region::from_static("us-east-1"),
            quirks: Arc::new(quirks),
            limits: Arc::default(),
            requests: Arc::default(),
            client: Some(client),
        }
    }

    /// Finds credentials anew, and takes them where the store does not refuse them. `false`: they are the same. Must run
    /// on the control runtime.
    ///
    /// # Errors
    /// There are none, or the store refuses them: those before are still used.
    pub async fn reload_credentials(&self, deadline: Duration) -> Result<bool, StartError> {
        let (_, credentials) = find(&self.options).await?;
        let trial = Self {
            credentials,
            ..self.clone()
        };
        if !trial.answers(deadline).await? {
            return Err(StartError::Untried {
                archive: self.options.archive_id.get(),
            });
        }
        Ok(self.credentials.take_over(&trial.credentials).await)
    }

    /// The archive section that it was made from.
    #[must_use]
    pub fn options(&self) -> &TargetOptions {
        &self.options
    }

    /// How fast it may be used; the bandwidths can be changed.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the store does otherwise than S3.
    #[must_use]
    pub fn quirks(&self) -> &Quirks {
        &self.quirks
    }

    /// What was asked of the store so far.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// A store over this thread's connections.
    #[must_use]
    pub fn connect(&self, connections: &mut Connections) -> Store {
        let client = connections.to(&self.options.security(), self.options.proxy.as_deref());
        #[cfg(test)]
        let client = self.client.clone().unwrap_or(client);
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(self.region.clone())
            .credentials_provider(SharedCredentialsProvider::from(
                Arc::clone(&self.credentials) as Arc<dyn ProvideCredentials>
            ))
            // The cache of credentials is one, for all threads.
            .identity_cache(IdentityCache::no_cache())
            .force_path_style(self.options.path_style)
            .interceptor(Headers {
                requester_pays: self.options.requester_pays,
            })
            .interceptor(CredentialWatcher(Arc::clone(&self.credentials)))
            .interceptor(RequestCounter(Arc::clone(&self.requests)))
            .interceptor(AnswerCheck)
            .use_fips(self.options.use_fips_endpoint)
            .use_dual_stack(self.options.use_dualstack_endpoint)
            .accelerate(self.options.use_accelerate_endpoint)
            .http_client(client)
            // One retry loop, ours: it re-reads the file, keeps the action alive and watches for cancel.
            .retry_config(RetryConfig::disabled())
            // Ours watches uploads and downloads alike, per byte moved.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(self.options.connect_timeout)
                    .build(),
            )
            // We sum up what is sent ourselves, once, while it is read.
            .request_checksum_calculation(
                if self.options.sign_payload && self.options.checksum != ChecksumKind::None {
                    RequestChecksumCalculation::WhenSupported
                } else {
                    RequestChecksumCalculation::WhenRequired
                },
            )
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = &self.options.endpoint_url {
            config = config.endpoint_url(endpoint);
        }
        Store::new(
            Client::from_conf(config.build()),
            Arc::clone(&self.options),
            Arc::clone(&self.quirks),
            Arc::clone(&self.limits),
        )
    }

    /// Asks for one key of the bucket, to know at the start what no waiting will mend.
    ///
    /// # Errors
    /// A missing bucket or refused credentials, with the fix. A store that can't be reached is no error:
    /// actions wait for it.
    pub async fn check(&self, deadline: Duration) -> Result<(), StartError> {
        self.answers(deadline).await.map(drop)
    }

    /// Tries whether the store keeps its word on conditional writes, with an object of our own. One that can't be tried
    /// now is tried before the first write.
    ///
    /// # Errors
    /// It does not, and `conditions = "require"`.
    pub async fn try_conditions(&self, deadline: Duration) -> Result<(), StartError> {
        let (archive, bucket) = (self.options.archive_id.get(), &self.options.bucket);
        if self.options.conditions == Conditions::Look {
            self.quirks.learn(Quirk::NoConditions);
            return Ok(());
        }
        let store = self.connect(&mut Connections::default());
        match tokio::time::timeout(deadline, Box::pin(store.try_conditions())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error @ StoreError::Denied { .. })) => {
                tracing::warn!(
                    archive, bucket, %error,
                    "whether the store heeds conditional writes can't be tried: each archive looks at its key first, which is \
                     one request more. Allow PutObject, GetObject, DeleteObject and AbortMultipartUpload below \
                     PREFIX.lhsm-s3-metadata/, and start the daemon anew"
                );
            }
            Ok(Err(error)) => {
                tracing::warn!(archive, bucket, %error, "whether the store heeds conditional writes can't be tried now");
            }
            Err(_) => {
                self.quirks.unlearn(Quirk::ConditionsTried);
                tracing::warn!(
                    archive,
                    bucket,
                    "the store does not answer; whether it heeds conditional writes is tried before the first one"
                );
            }
        }
        match store.may_write() {
            Ok(()) => Ok(()),
            Err(_) => Err(StartError::NoConditions {
                archive,
                bucket: bucket.clone(),
            }),
        }
    }

    /// Asks for one key of the bucket, to know whether the store is there: [`Limits::reach`] says so then.
    pub async fn look(&self, deadline: Duration) {
        let store = self.connect(&mut Connections::default());
        match tokio::time::timeout(deadline, Box::pin(store.list_one())).await {
            Ok(Err((StoreError::Unavailable { .. } | StoreError::Stalled { .. }, _))) | Err(_) => {
                self.limits.reach.missed();
            }
            Ok(_) => self.limits.reach.answered(),
        }
    }

    /// `false`: nothing was heard of the store.
    async fn answers(&self, deadline: Duration) -> Result<bool, StartError> {
        let archive = self.options.archive_id.get();
        let bucket = self.options.bucket.clone();
        let asked = self.region.to_string();
        let store = self.connect(&mut Connections::default());
        let result = match tokio::time::timeout(deadline, store.list_one()).await {
            Ok(result) => result,
            Err(_) => Err((
                StoreError::Unavailable {
                    operation: "ListObjectsV2",
                    what: format!("no answer in {} s", deadline.as_secs()),
                },
                None,
            )),
        };
        let error = match result {
            Ok(()) => return Ok(true),
            Err((_, Some(region))) if region != asked => {
                return Err(StartError::OtherRegion {
                    archive,
                    bucket,
                    asked,
                    region,
                });
            }
            Err((error, _)) => error,
        };
        match error {
            StoreError::NoSuchBucket { .. } | StoreError::NotFound { .. } => {
                let at = self.options.endpoint_url.as_ref();
                Err(StartError::NoSuchBucket {
                    archive,
                    bucket,
                    at: at.map(|url| format!(" at {url}")).unwrap_or_default(),
                })
            }
            StoreError::Denied { code, message, .. } if code != "AccessDenied" => Err(StartError::Credentials {
                archive,
                bucket,
                code,
                message,
            }),
            error @ StoreError::Denied { .. } => {
                tracing::warn!(archive, bucket, %error, "may not list the bucket; going on, archive and restore don't need it");
                Ok(true)
            }
            error if error.is_transient() => {
                tracing::warn!(archive, bucket, %error, "the store does not answer; going on, actions will wait for it");
                Ok(false)
            }
            source => Err(StartError::Unusable {
                archive,
                bucket,
                source,
            }),
        }
    }
}

impl Store {
    /// With the error, the region that the store wants instead of ours.
    async fn list_one(&self) -> Result<(), (StoreError, Option<String>)> {
        const OPERATION: &str = "ListObjectsV2";
        self.client()
            .list_objects_v2()
            .bucket(&self.target().bucket)
            .prefix(&self.target().prefix)
            .max_keys(1)
            .send()
            .await
            .map(drop)
            .map_err(|error| {
                let region = error.raw_response().and_then(region_of);
                // A wrong key comes as 403 from AWS and as 400, 401 or 501 from others: the code tells.
                let class = match error.code() {
                    Some(
                        code @ ("InvalidAccessKeyId"
                        | "SignatureDoesNotMatch"
                        | "NotSignedUp"
                        | "InvalidToken"
                        | "InvalidClientTokenId"
                        | "AuthorizationHeaderMalformed"),
                    ) => StoreError::Denied {
                        operation: OPERATION,
                        code: code.to_owned(),
                        message: error.message().unwrap_or_default().to_owned(),
                    },
                    _ => StoreError::from_sdk(OPERATION, &error),
                };
                (class, region)
            })
    }

    /// What a refusal without a word was for, as far as a request tells whose answer has words: a HEAD with credentials
    /// that have expired is 400 and nothing else.
    pub(super) async fn explained(&self, refusal: StoreError) -> StoreError {
        match &refusal {
            StoreError::Refused { status: 400, code, .. } if code.is_empty() => {}
            _ => return refusal,
        }
        match self.list_one().await {
            Err((told, _)) if told.is_transient() => told,
            _ => refusal,
        }
    }
}

/// Where a bucket is, by an answer that says that it is not here.
fn region_of(answer: &HttpResponse) -> Option<String> {
    if let Some(region) = answer.headers().get("x-amz-bucket-region") {
        return Some(region.to_owned());
    }
    let body = String::from_utf8_lossy(answer.body().bytes()?);
    let (_, rest) = body.split_once("<Region>")?;
    Some(rest.split_once("</Region>")?.0.trim().to_owned())
}

/// Region and credentials by the standard chain.
async fn find(options: &TargetOptions) -> Result<(Region, Arc<CredentialCache>), StartError> {
    let archive = options.archive_id.get();
    let client = to_credentials(&options.security_of_credentials(), options.proxy.as_deref());
    let shared = load(options, client.clone()).await;
    let region = shared.region().cloned().ok_or(StartError::NoRegion { archive })?;
    let provider = shared.credentials_provider().ok_or_else(|| StartError::NoCredentials {
        archive,
        cause: "the provider chain is empty".into(),
    })?;
    let first = ask(&provider).await.map_err(|error| StartError::NoCredentials {
        archive,
        cause: chain(&error),
    })?;
    let options = options.clone();
    let anew: Chain = Box::new(move || -> ChainFuture {
        let (options, client) = (options.clone(), client.clone());
        Box::pin(async move { load(&options, client).await.credentials_provider() })
    });
    Ok((region, CredentialCache::new(anew, provider, first)))
}

/// What the standard chain finds for an archive.
async fn load(options: &TargetOptions, client: SharedHttpClient) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(client)
        .use_fips(options.use_fips_endpoint)
        .use_dual_stack(options.use_dualstack_endpoint);
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    // Stores beside AWS hardly ever care, but a signature needs a region, and the chain's last resort is to ask an
    // instance service that is not there.
    let beside_aws = options.endpoint_url.as_ref().map(|_| "us-east-1".to_owned());
    if let Some(region) = options.region.clone().or(beside_aws) {
        loader = loader.region(Region::new(region));
    }
    loader.load().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::primitives::SdkBody;

    #[test]
    fn the_region_of_a_bucket_is_told_by_a_header_or_by_the_body() {
        let answer = |body: &str| HttpResponse::new(301.try_into().unwrap(), SdkBody::from(body));
        let mut redirect = answer("");
        redirect.headers_mut().insert("x-amz-bucket-region", "eu-west-1");
        assert_eq!(region_of(&redirect).as_deref(), Some("eu-west-1"));
        let malformed = answer("<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-2</Region></Error>");
        assert_eq!(region_of(&malformed).as_deref(), Some("eu-west-2"));
        assert_eq!(region_of(&answer("<Error><Code>AccessDenied</Code></Error>")), None);
    }
}
