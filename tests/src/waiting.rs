//! Waiting for a condition with a deadline. Nothing else waits in the tests.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

const PERIOD: Duration = Duration::from_millis(100);

/// Looks until the look succeeds; what it said last becomes the error when the time is over.
///
/// # Errors
/// If it did not succeed in time.
pub async fn until<T>(seconds: u64, what: &str, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let outcome = look().await;
        match outcome {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("not within {seconds} s: {what}"));
            }
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}

/// Looks again and again for a time; all looks must succeed.
///
/// # Errors
/// The first look that failed.
pub async fn throughout(time: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let (began, mut last) = (Instant::now(), false);
    loop {
        look()
            .await
            .with_context(|| format!("not any more after {:?}: {what}", began.elapsed()))?;
        if last {
            return Ok(());
        }
        tokio::time::sleep(PERIOD.min(time)).await;
        last = began.elapsed() >= time;
    }
}
