//! Every request to a store, counted where the SDK sends it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_s3::config::interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef};
use aws_sdk_s3::config::{Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};

use crate::measure::Histogram;
use crate::types::Timestamp;

/// What was answered to the requests of one S3 operation.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Operation {
    /// By HTTP status; 0: no answer came.
    pub answers: BTreeMap<u16, u64>,
    /// Until the head of the answer, or until there was none.
    pub took: Histogram,
}

/// The requests to one archive's store, by S3 operation.
#[derive(Debug, Default)]
pub struct Requests {
    operations: Mutex<BTreeMap<String, Operation>>,
    clock: Mutex<Option<(Instant, i64)>>,
}

/// Between two looks at the store's clock.
const CLOCK: Duration = Duration::from_secs(60);

impl Requests {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `date`: as an answer has it.
    fn note_clock(&self, date: Option<&str>) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if clock.is_some_and(|(at, _)| at.elapsed() < CLOCK) {
            return;
        }
        let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        if let Some(theirs) = theirs {
            let ahead = theirs.timestamp().as_second() - Timestamp::now().seconds;
            *clock = Some((Instant::now(), ahead));
        }
    }

    /// Seconds by which the store's clock is ahead of this node's, as of its last answers.
    #[must_use]
    pub fn clock_offset(&self) -> Option<i64> {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.map(|(_, ahead)| ahead)
    }

    fn count(&self, operation: &str, status: u16, sent: Option<Instant>) {
        let mut all = self.lock();
        // No text is made for an operation that is known.
        if !all.contains_key(operation) {
            all.insert(operation.to_owned(), Operation::default());
        }
        if let Some(counted) = all.get_mut(operation) {
            *counted.answers.entry(status).or_default() += 1;
            if let Some(sent) = sent {
                counted.took.add(sent.elapsed());
            }
        }
    }

    /// All so far.
    #[must_use]
    pub fn so_far(&self) -> BTreeMap<String, Operation> {
        self.lock().clone()
    }
}

/// Counts for a client.
#[derive(Debug)]
pub(super) struct RequestCounter(pub(super) Arc<Requests>);

#[derive(Debug)]
struct Sent(Instant);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for RequestCounter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        cfg.interceptor_state().store_put(Sent(Instant::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let status = context.response().map_or(0, |response| response.status().as_u16());
        let sent = cfg.load::<Sent>().map(|sent| sent.0);
        let operation = cfg.load::<Metadata>().map_or("", Metadata::name);
        self.0.count(operation, status, sent);
        self.0
            .note_clock(context.response().and_then(|response| response.headers().get("date")));
        Ok(())
    }
}
