//! How long what is tried again takes, to the second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::retry::{Activity, RetryOptions, retry};
use super::{Control, Stop, TransferError};
use crate::store::{Limits, StoreError};

/// As the configuration has them where nothing is said.
const OPTIONS: RetryOptions = RetryOptions {
    stall: seconds(60),
    give_up_after: seconds(3600),
    first_pause: seconds(1),
    longest_pause: seconds(64),
    afterwards: seconds(5),
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn unavailable() -> TransferError {
    StoreError::Unavailable {
        operation: "PutObject",
        what: "500".into(),
    }
    .into()
}

async fn tried<T>(attempt: impl AsyncFnMut(Arc<Activity>) -> Result<T, TransferError>) -> Result<T, TransferError> {
    retry(&OPTIONS, &Control::default(), &Limits::default(), attempt).await
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_from_the_first_to_the_longest_and_each_is_at_least_half_of_it() {
    let start = Instant::now();
    let mut begins = Vec::new();
    let result = tried(async |_| {
        begins.push(start.elapsed());
        if begins.len() < 12 { Err(unavailable()) } else { Ok(()) }
    })
    .await;
    assert_eq!(result, Ok(()));
    let mut pause = OPTIONS.first_pause;
    for pair in begins.windows(2) {
        let waited = pair[1] - pair[0];
        // The clock has milliseconds.
        assert!(
            waited >= pause / 2 && waited <= pause + Duration::from_millis(1),
            "{waited:?} of {pause:?}"
        );
        pause = (pause * 2).min(OPTIONS.longest_pause);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_is_given_up_within_the_hour_and_not_much_before() {
    let start = Instant::now();
    let result: Result<(), _> = tried(async |_| Err(unavailable())).await;
    let Err(TransferError::GaveUp { seconds: told, .. }) = result else {
        panic!("{result:?}");
    };
    let took = start.elapsed();
    assert!(
        took <= OPTIONS.give_up_after && took >= OPTIONS.give_up_after - OPTIONS.longest_pause,
        "{took:?}"
    );
    assert_eq!(told, took.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_try_in_which_nothing_moves_is_cut_after_its_time_and_one_that_moves_is_not() {
    let start = Instant::now();
    let mut tries = 0;
    let result = tried(async |activity| {
        tries += 1;
        if tries == 1 {
            // Slow, for a day, but it moves.
            for _ in 0..24 * 60 {
                sleep(seconds(59)).await;
                activity.note();
            }
            let moved = start.elapsed();
            std::future::pending::<()>().await;
            unreachable!("{moved:?}");
        }
        Ok(start.elapsed())
    })
    .await;
    let day = seconds(24 * 60 * 59);
    let cut = result.unwrap();
    // The watch looks eight times in that time, and a pause follows.
    let latest = day + OPTIONS.stall + OPTIONS.stall / 8 * 2 + OPTIONS.first_pause;
    assert!(
        cut >= day + OPTIONS.stall - OPTIONS.stall / 8 && cut <= latest,
        "{cut:?} is not in {day:?}..{latest:?}"
    );
    assert_eq!(tries, 2);
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_without_a_byte_is_busy_for_its_time_and_no_longer() {
    for (takes, is_cut) in [(seconds(300), false), (seconds(1000), true)] {
        let mut tries = 0;
        let result = tried(async |activity| {
            tries += 1;
            if tries == 1 {
                activity.busy(seconds(310), sleep(takes)).await;
            }
            Ok(())
        })
        .await;
        assert_eq!((result, tries), (Ok(()), if is_cut { 2 } else { 1 }), "{takes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn to_wait_for_bandwidth_is_no_stall() {
    let limits = Limits::default();
    limits.upload.set(Some(1000));
    let start = Instant::now();
    let mut tries = 0;
    let result = retry(&OPTIONS, &Control::default(), &limits, async |activity| {
        tries += 1;
        // Each of them is ten minutes' worth.
        for _ in 0..3 {
            activity.wait_for(&limits.upload, 600_000).await;
        }
        Ok(())
    })
    .await;
    assert_eq!((result, tries), (Ok(()), 1));
    let took = start.elapsed();
    assert!(took >= seconds(1199) && took <= seconds(1801), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_try_and_a_pause_at_once() {
    for hangs in [true, false] {
        let (control, limits) = (Control::default(), Limits::default());
        let start = Instant::now();
        let trying = retry(&OPTIONS, &control, &limits, async |_| {
            if hangs {
                std::future::pending::<()>().await;
            }
            Err::<(), _>(unavailable())
        });
        let stop = async {
            sleep(seconds(30)).await;
            control.stop(Stop::Cancelled);
        };
        let (result, ()) = tokio::join!(trying, stop);
        assert_eq!(result, Err(TransferError::Stopped(Stop::Cancelled)));
        assert_eq!(start.elapsed().as_secs(), 30);
    }
}

#[tokio::test(start_paused = true)]
async fn damage_that_stays_is_reported_after_three_tries_and_a_lesson_is_tried_at_once() {
    let mut tries = 0;
    let result: Result<(), _> = tried(async |_| {
        tries += 1;
        Err(TransferError::Store(StoreError::Corrupt {
            operation: "PutObject",
            what: "BadDigest".into(),
        }))
    })
    .await;
    assert!(matches!(result, Err(TransferError::Store(StoreError::Corrupt { .. }))));
    assert_eq!(tries, 3);

    let start = Instant::now();
    let mut tries = 0;
    let result = tried(async |_| {
        tries += 1;
        if tries <= 4 {
            return Err(TransferError::Store(StoreError::Learned {
                operation: "PutObject",
                what: "another form".into(),
            }));
        }
        Ok(start.elapsed())
    })
    .await;
    assert_eq!(result, Ok(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_asks_for_less_gets_less_and_a_refusal_is_final() {
    let limits = Limits::default();
    let mut tries = 0;
    let result = retry(&OPTIONS, &Control::default(), &limits, async |_| {
        tries += 1;
        if tries < 4 {
            return Err(TransferError::Store(StoreError::Throttled {
                operation: "PutObject",
                code: "SlowDown".into(),
            }));
        }
        Err::<(), _>(StoreError::Refused.into())
    })
    .await;
    assert_eq!(result, Err(StoreError::Refused.into()));
    assert_eq!(tries, 4);
    assert!(!limits.pace.interval().is_zero());
    assert_eq!(limits.trouble.throttled.load(std::sync::atomic::Ordering::Relaxed), 3);
}
