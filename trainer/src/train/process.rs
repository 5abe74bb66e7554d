//! The shell around a Job's work: signals and threads.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs `work` on `threads` threads, with a token that SIGTERM and SIGINT cancel.
///
/// # Errors
/// When the system gives no threads or signals.
pub fn on_threads<T: Send>(
    threads: Option<u16>,
    work: impl FnOnce(&CancellationToken) -> T + Send,
) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let cancel = CancellationToken::new();
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let stop = cancel.clone();
    runtime.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop");
        stop.cancel();
    });
    let threads = threads.map_or_else(perennial_engine::threads::available, usize::from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let outcome = pool.map_err(std::io::Error::other)?.install(|| work(&cancel));
    runtime.shutdown_background();
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_on_as_many_threads_as_are_asked_for() {
        let threads = on_threads(Some(3), |cancel| {
            assert!(!cancel.is_cancelled());
            rayon::current_num_threads()
        });
        assert_eq!(threads.expect("threads"), 3);
    }
}
