//! An archive's credentials, for all threads: fetched on the control runtime (the chain's connections live there), kept
//! until they are about to expire or the store does not take them, replaced at a reload. The SDK's own cache is for each
//! client, and knows neither a reload nor a store's refusal.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as ProvideFuture;
use aws_sdk_s3::config::{ProvideCredentials, SharedCredentialsProvider};

use super::error::chain;

/// New ones are fetched so long before the old ones expire.
const EARLY: Duration = Duration::from_secs(60);
/// Those that say nothing of their end are asked for again after so long: their source may have others by then.
const ENDLESS: Duration = Duration::from_secs(900);
/// For one question.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a question in vain, while the old ones hold.
const PAUSE: Duration = Duration::from_secs(30);
/// After a question in vain when none hold: whoever waited for it has its answer, too.
const SHORT_PAUSE: Duration = Duration::from_secs(2);
/// The store says that they are expired: their source is not asked more often than this.
const AGAIN: Duration = Duration::from_secs(2);
/// The store refuses them, and the source gave the same ones at the last such question.
const RARELY: Duration = Duration::from_secs(20);

/// Asks a source, and not for ever.
pub(super) async fn ask(provider: &SharedCredentialsProvider) -> Result<Credentials, CredentialsError> {
    let asked = tokio::time::timeout(PATIENCE, provider.provide_credentials()).await;
    asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(PATIENCE)))
}

/// Makes the chain of sources anew: one that was asked keeps what it read of the shared files for ever. `None`: the one
/// that is there will do.
pub(super) type Chain = Box<dyn Fn() -> ChainFuture + Send + Sync>;
/// What comes of it.
pub(super) type ChainFuture = Pin<Box<dyn Future<Output = Option<SharedCredentialsProvider>> + Send>>;

pub(super) struct CredentialCache {
    runtime: tokio::runtime::Handle,
    chain: Chain,
    kept: RwLock<CachedCredentials>,
    /// One asks, the others wait for what it gets.
    fetching: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keeper").field(&self.kept).finish()
    }
}

/// How sure it is that the store does not take credentials for what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CredentialDoubt {
    /// It says that they are expired.
    Expired,
    /// It does not know them, or refuses without a word.
    Refused,
}

/// Tells credentials apart without showing them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CredentialId(u64);

impl CredentialId {
    pub(super) fn new(key: &str, token: Option<&str>) -> Self {
        let mut hasher = DefaultHasher::new();
        (key, token).hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[derive(Clone, Debug)]
struct CachedCredentials {
    provider: SharedCredentialsProvider,
    credentials: Credentials,
    since: Instant,
    /// The source has failed: it is not asked before then.
    pause: Option<Instant>,
    /// Why it failed, where none hold.
    failure: Option<String>,
    /// The store did not take them: the source is asked before they are used again.
    doubted: bool,
    /// When the source was last asked for such a reason, and gave the same or none.
    examined: Option<Instant>,
}

impl CredentialCache {
    /// Must be made on the control runtime.
    pub(super) fn new(chain: Chain, provider: SharedCredentialsProvider, credentials: Credentials) -> Arc<Self> {
        Arc::new(Self {
            runtime: tokio::runtime::Handle::current(),
            chain,
            kept: RwLock::new(CachedCredentials::new(provider, credentials)),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// Takes over what another one has found. `false`: the same credentials as before.
    pub(super) async fn take_over(&self, other: &Self) -> bool {
        let _nobody_else = self.fetching.lock().await;
        let new = other.kept();
        let differ = key_of(&self.kept().credentials) != key_of(&new.credentials);
        self.keep(new);
        differ
    }

    /// The store did not take credentials. `true`: the next request may go with other ones, since the source is asked
    /// before it, or has given others meanwhile; so the same request is worth another try. `false`: the source was asked
    /// just now and has nothing else.
    pub(super) fn doubt(&self, used: CredentialId, doubt: CredentialDoubt) -> bool {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.doubted || kept.mark() != used {
            return true;
        }
        let pause = match doubt {
            CredentialDoubt::Expired => AGAIN,
            CredentialDoubt::Refused => RARELY,
        };
        if kept.examined.is_some_and(|at| at.elapsed() < pause) {
            return false;
        }
        kept.doubted = true;
        true
    }

    fn kept(&self) -> CachedCredentials {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, new: CachedCredentials) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    async fn fetch(&self) -> Result<Credentials, CredentialsError> {
        let _nobody_else = self.fetching.lock().await;
        let kept = self.kept();
        if kept.are_fresh() {
            return Ok(kept.credentials);
        }
        if let Some(failure) = kept.failed_just_now() {
            return Err(CredentialsError::provider_error(failure));
        }
        // Of a file, it would give the same again.
        let anew = (kept.doubted || kept.credentials.expiry().is_none()).then(|| (self.chain)());
        let former = kept.provider.clone();
        let fetched = self
            .runtime
            .spawn(async move {
                let provider = match anew {
                    Some(chain) => chain.await.unwrap_or(former),
                    None => former,
                };
                let credentials = ask(&provider).await?;
                Ok::<_, CredentialsError>((provider, credentials))
            })
            .await
            .map_err(CredentialsError::unhandled)?;
        match fetched {
            Ok((provider, credentials)) => {
                let mut new = CachedCredentials::new(provider, credentials.clone());
                if kept.doubted {
                    if new.mark() == kept.mark() {
                        new.examined = Some(Instant::now());
                    } else {
                        tracing::info!("the store did not take the credentials; their source has new ones");
                    }
                }
                self.keep(new);
                Ok(credentials)
            }
            // They still hold for a moment, and their source may be back by then.
            Err(error) if kept.hold() => {
                tracing::warn!(
                    error = chain(&error),
                    "no new credentials; using the ones before until they expire"
                );
                let credentials = kept.credentials.clone();
                self.keep(CachedCredentials {
                    pause: Some(Instant::now() + PAUSE),
                    examined: kept.doubted.then(Instant::now),
                    doubted: false,
                    ..kept
                });
                Ok(credentials)
            }
            Err(error) => {
                let failure = chain(&error);
                // Once, not at each of many questions.
                if kept.failure.as_ref() != Some(&failure) {
                    tracing::warn!(error = failure, "no credentials; requests wait for them");
                }
                self.keep(CachedCredentials {
                    pause: Some(Instant::now() + SHORT_PAUSE),
                    failure: Some(failure),
                    ..kept
                });
                Err(error)
            }
        }
    }
}

impl CachedCredentials {
    fn new(provider: SharedCredentialsProvider, credentials: Credentials) -> Self {
        Self {
            provider,
            credentials,
            since: Instant::now(),
            pause: None,
            failure: None,
            doubted: false,
            examined: None,
        }
    }

    fn mark(&self) -> CredentialId {
        CredentialId::new(self.credentials.access_key_id(), self.credentials.session_token())
    }

    fn are_fresh(&self) -> bool {
        if self.doubted {
            return false;
        }
        if self.pauses() {
            return self.hold();
        }
        match self.credentials.expiry() {
            Some(expiry) => expiry > SystemTime::now() + EARLY,
            None => self.since.elapsed() < ENDLESS,
        }
    }

    fn failed_just_now(&self) -> Option<String> {
        self.failure.clone().filter(|_| self.pauses())
    }

    fn pauses(&self) -> bool {
        self.pause.is_some_and(|until| Instant::now() < until)
    }

    fn hold(&self) -> bool {
        self.credentials
            .expiry()
            .is_none_or(|expiry| expiry > SystemTime::now())
    }
}

fn key_of(credentials: &Credentials) -> (&str, &str, Option<&str>) {
    (
        credentials.access_key_id(),
        credentials.secret_access_key(),
        credentials.session_token(),
    )
}

impl ProvideCredentials for CredentialCache {
    fn provide_credentials<'a>(&'a self) -> ProvideFuture<'a>
    where
        Self: 'a,
    {
        let kept = self.kept();
        if kept.are_fresh() {
            return ProvideFuture::ready(Ok(kept.credentials));
        }
        ProvideFuture::new(self.fetch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Gives keys "1", "2", … that expire after `life`; none after the `last`.
    #[derive(Debug)]
    struct Source {
        life: Option<Duration>,
        given: AtomicU32,
        last: u32,
    }

    impl ProvideCredentials for Source {
        fn provide_credentials<'a>(&'a self) -> ProvideFuture<'a>
        where
            Self: 'a,
        {
            let n = self.given.fetch_add(1, Ordering::SeqCst) + 1;
            if n > self.last {
                return ProvideFuture::ready(Err(CredentialsError::not_loaded("no more")));
            }
            let expiry = self.life.map(|life| SystemTime::now() + life);
            ProvideFuture::ready(Ok(Credentials::new(n.to_string(), "secret", None, expiry, "test")))
        }
    }

    async fn keeper(life: Option<Duration>, last: u32) -> Arc<CredentialCache> {
        let provider = SharedCredentialsProvider::new(Source {
            life,
            given: AtomicU32::new(0),
            last,
        });
        of(provider).await
    }

    async fn of(provider: SharedCredentialsProvider) -> Arc<CredentialCache> {
        let first = provider.provide_credentials().await.unwrap();
        CredentialCache::new(
            Box::new(|| -> ChainFuture { Box::pin(async { None }) }),
            provider,
            first,
        )
    }

    fn fixed(key: &str) -> Credentials {
        Credentials::new(key, "secret", None, None, "test")
    }

    fn mark(key: &str) -> CredentialId {
        CredentialId::new(key, None)
    }

    async fn key(keeper: &CredentialCache) -> Result<String, CredentialsError> {
        let credentials = keeper.provide_credentials().await?;
        Ok(credentials.access_key_id().to_owned())
    }

    #[tokio::test]
    async fn they_are_fetched_anew_before_they_expire_and_not_sooner() {
        let long = keeper(Some(EARLY * 2), 9).await;
        let endless = keeper(None, 9).await;
        let short = keeper(Some(EARLY / 2), 9).await;
        for n in 2..4 {
            assert_eq!(key(&long).await.unwrap(), "1");
            assert_eq!(key(&endless).await.unwrap(), "1");
            assert_eq!(key(&short).await.unwrap(), n.to_string());
        }
    }

    #[tokio::test]
    async fn a_source_that_fails_is_bridged_until_they_expire() {
        let held = keeper(Some(EARLY / 2), 1).await;
        assert_eq!(key(&held).await.unwrap(), "1");
        assert!(held.kept().are_fresh(), "and is not asked by each request");
        let over = keeper(Some(Duration::ZERO), 1).await;
        assert!(key(&over).await.is_err());
    }

    #[tokio::test]
    async fn what_another_one_has_found_holds_at_once() {
        let (keeper, other) = (keeper(None, 9).await, keeper(Some(EARLY / 2), 9).await);
        assert!(!keeper.take_over(&other).await, "the same keys");
        assert_eq!(key(&keeper).await.unwrap(), "2", "by the new source");
        assert!(keeper.take_over(&other).await);
    }

    #[tokio::test]
    async fn what_the_store_does_not_take_is_asked_for_at_once() {
        let keeper = keeper(None, 9).await;
        assert!(keeper.doubt(mark("1"), CredentialDoubt::Expired));
        assert!(
            keeper.doubt(mark("1"), CredentialDoubt::Expired),
            "by all who used them"
        );
        assert_eq!(key(&keeper).await.unwrap(), "2");
        assert!(
            keeper.doubt(mark("1"), CredentialDoubt::Refused),
            "there are others already"
        );
        assert_eq!(key(&keeper).await.unwrap(), "2", "which nobody has doubted");
    }

    #[tokio::test]
    async fn a_refusal_is_final_once_the_source_has_nothing_else() {
        let keeper = of(SharedCredentialsProvider::new(fixed("1"))).await;
        assert!(keeper.doubt(mark("1"), CredentialDoubt::Refused));
        assert_eq!(key(&keeper).await.unwrap(), "1");
        assert!(!keeper.doubt(mark("1"), CredentialDoubt::Refused));
    }

    #[tokio::test]
    async fn a_chain_that_remembers_its_files_is_made_anew() {
        let chain =
            || -> ChainFuture { Box::pin(async { Some(SharedCredentialsProvider::new(fixed("of the new file"))) }) };
        let old = SharedCredentialsProvider::new(fixed("of the old file"));
        let keeper = CredentialCache::new(Box::new(chain), old, fixed("of the old file"));
        assert_eq!(key(&keeper).await.unwrap(), "of the old file");
        assert!(keeper.doubt(mark("of the old file"), CredentialDoubt::Expired));
        assert_eq!(key(&keeper).await.unwrap(), "of the new file");
    }

    #[tokio::test]
    async fn a_source_that_is_away_is_asked_by_one_for_all() {
        let keeper = keeper(Some(Duration::ZERO), 1).await;
        assert!(key(&keeper).await.is_err());
        assert!(keeper.kept().failed_just_now().is_some());
    }
}
