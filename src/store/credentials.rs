//! An archive's credentials, for all threads: fetched on the control runtime (the chain's connections live there), kept
//! until they are about to expire, replaced at a reload. The SDK's own cache is for each client and knows no reload.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as ProvideFuture;
use aws_sdk_s3::config::{ProvideCredentials, SharedCredentialsProvider};

/// New ones are fetched so long before the old ones expire.
const EARLY: Duration = Duration::from_secs(60);
/// Those that say nothing of their end are asked for again after so long: their source may have others by then.
const ENDLESS: Duration = Duration::from_secs(900);
/// For one question.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a question in vain, while the old ones hold.
const PAUSE: Duration = Duration::from_secs(30);

/// Asks a source, and not for ever.
pub(super) async fn ask(provider: &SharedCredentialsProvider) -> Result<Credentials, CredentialsError> {
    let asked = tokio::time::timeout(PATIENCE, provider.provide_credentials()).await;
    asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(PATIENCE)))
}

#[derive(Debug)]
pub(super) struct Keeper {
    runtime: tokio::runtime::Handle,
    kept: RwLock<Kept>,
    /// One asks, the others wait for what it gets.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Kept {
    provider: SharedCredentialsProvider,
    credentials: Credentials,
    since: Instant,
    /// The source has failed: it is not asked before then.
    pause: Option<Instant>,
}

impl Keeper {
    /// Must be made on the control runtime.
    pub(super) fn new(provider: SharedCredentialsProvider, credentials: Credentials) -> Arc<Self> {
        Arc::new(Self {
            runtime: tokio::runtime::Handle::current(),
            kept: RwLock::new(Kept::new(provider, credentials)),
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

    fn kept(&self) -> Kept {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, new: Kept) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    async fn fetch(&self) -> Result<Credentials, CredentialsError> {
        let _nobody_else = self.fetching.lock().await;
        let kept = self.kept();
        if kept.are_fresh() {
            return Ok(kept.credentials);
        }
        let provider = kept.provider.clone();
        let fetched = self
            .runtime
            .spawn(async move { ask(&provider).await })
            .await
            .map_err(CredentialsError::unhandled)?;
        match fetched {
            Ok(credentials) => {
                self.keep(Kept::new(kept.provider, credentials.clone()));
                Ok(credentials)
            }
            // They still hold for a moment, and their source may be back by then.
            Err(error) if kept.hold() => {
                tracing::warn!(%error, "no new credentials; using the ones before until they expire");
                let credentials = kept.credentials.clone();
                self.keep(Kept {
                    pause: Some(Instant::now() + PAUSE),
                    ..kept
                });
                Ok(credentials)
            }
            Err(error) => Err(error),
        }
    }
}

impl Kept {
    fn new(provider: SharedCredentialsProvider, credentials: Credentials) -> Self {
        Self {
            provider,
            credentials,
            since: Instant::now(),
            pause: None,
        }
    }

    fn are_fresh(&self) -> bool {
        if self.pause.is_some_and(|until| Instant::now() < until) {
            return self.hold();
        }
        match self.credentials.expiry() {
            Some(expiry) => expiry > SystemTime::now() + EARLY,
            None => self.since.elapsed() < ENDLESS,
        }
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

impl ProvideCredentials for Keeper {
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

    async fn keeper(life: Option<Duration>, last: u32) -> Arc<Keeper> {
        let provider = SharedCredentialsProvider::new(Source {
            life,
            given: AtomicU32::new(0),
            last,
        });
        let first = provider.provide_credentials().await.unwrap();
        Keeper::new(provider, first)
    }

    async fn key(keeper: &Keeper) -> Result<String, CredentialsError> {
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
}
