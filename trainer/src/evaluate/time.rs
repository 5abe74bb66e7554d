//! When judging ends before it is done. Pure.

use std::time::Duration;

use crate::train::reserve_seconds;

/// Share of the deadline behind which being told to stop is the deadline itself: that of the pod counts from its start, and what
/// was fetched and verified before this process began took a part of it. A node that goes away is told apart by the Job.
const LATE_SHARE: f64 = 0.75;

/// Why there is no more time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is too little, and would be in another try.
    Deadline,
    /// The pod is being stopped.
    Stopped,
}

/// Whether to end after `spent`, with the seconds of the deadline, if there is one.
///
/// Some of them are kept, so that the process says itself what to do, before it is killed and tried again in vain.
#[must_use]
pub fn end(spent: Duration, deadline: Option<u64>, told_to_stop: bool) -> Option<End> {
    let spent = spent.as_secs_f64();
    if let Some(deadline) = deadline.map(|seconds| seconds as f64)
        && (spent + reserve_seconds(deadline) >= deadline || (told_to_stop && spent >= LATE_SHARE * deadline))
    {
        return Some(End::Deadline);
    }
    told_to_stop.then_some(End::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_met_before_the_pod_is_killed() {
        let after = |seconds: u64, told_to_stop| end(Duration::from_secs(seconds), Some(1000), told_to_stop);
        assert_eq!(after(949, false), None);
        assert_eq!(after(950, false), Some(End::Deadline));
        // Short ones keep ten seconds.
        assert_eq!(end(Duration::from_secs(49), Some(60), false), None);
        assert_eq!(end(Duration::from_secs(50), Some(60), false), Some(End::Deadline));
        assert_eq!(end(Duration::from_secs(1_000_000), None, false), None);
    }

    #[test]
    fn being_told_to_stop_late_is_the_deadline_and_early_asks_for_another_try() {
        let stopped = |seconds: u64| end(Duration::from_secs(seconds), Some(1000), true);
        assert_eq!(stopped(0), Some(End::Stopped));
        assert_eq!(stopped(749), Some(End::Stopped));
        assert_eq!(stopped(750), Some(End::Deadline));
        assert_eq!(end(Duration::from_secs(1_000_000), None, true), Some(End::Stopped));
    }
}
