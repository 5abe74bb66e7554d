//! How many threads compute.
#![expect(unsafe_code, reason = "candle takes its thread count from the environment only")]

/// The processors that this process may use: its affinity and its cgroup's quota (rounded down), never the machine's
/// count. At least 1.
#[must_use]
pub fn available() -> usize {
    // The standard library reads the affinity mask and the quotas of both cgroup versions.
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Makes every pool of this process compute on `threads` threads, unless the environment says otherwise. Must be
/// called before any model is loaded.
///
/// # Safety
/// No other thread may run: the environment is changed.
pub unsafe fn limit(threads: usize) {
    for name in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        if std::env::var_os(name).is_none() {
            // SAFETY: the caller promises that no other thread runs, so none reads the environment meanwhile.
            unsafe { std::env::set_var(name, threads.to_string()) };
        }
    }
}
