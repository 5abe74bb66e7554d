//! What somebody asks of the autoscaler.

/// A value that the replicas shall keep to; the one that needs most replicas decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Requests that wait, per replica.
    WaitingRequests(f64),
    /// Requests that run, or would run if there were room, per replica.
    RunningRequests(f64),
    /// Used part of the key-value cache, in (0, 1].
    KvCacheUtilization(f64),
    /// 95th percentile of the time from arrival to the first token, in seconds.
    TimeToFirstToken(f64),
    /// Tokens generated per second and replica.
    TokensPerSecond(f64),
}

impl Target {
    /// The name of the metric in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WaitingRequests(_) => "WaitingRequests",
            Self::RunningRequests(_) => "RunningRequests",
            Self::KvCacheUtilization(_) => "KVCacheUtilization",
            Self::TimeToFirstToken(_) => "TimeToFirstToken",
            Self::TokensPerSecond(_) => "TokensPerSecond",
        }
    }
}

/// What to do while no pod can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// Keep what is there.
    #[default]
    Hold,
    /// Go to the maximum after [`crate::decide::PATIENCE`].
    ScaleToMax,
}

/// What somebody asks of the autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Fewest replicas; at least 1.
    pub min: u32,
    /// Most replicas; at least `min`.
    pub max: u32,
    /// At least one.
    pub targets: Vec<Target>,
    /// Seconds for which more replicas must have been needed all the time before any are added.
    pub up_window: f64,
    /// Growth in 60 seconds, in percent of the replicas at their beginning; always at least [`crate::decide::FREE_STEP`].
    pub up_percent_per_minute: f64,
    /// Seconds for which fewer replicas must have sufficed all the time before one is removed. Without it, as long as a cold
    /// start, within [`SHORTEST_WINDOW`] and [`LONGEST_WINDOW`]: what starts quickly may go quickly.
    pub down_window: Option<f64>,
    /// Most replicas removed in 60 seconds.
    pub down_per_minute: u32,
    /// While no pod can be asked.
    pub missing: Missing,
}

/// Seconds of the shortest window that is chosen by itself.
pub const SHORTEST_WINDOW: f64 = 60.0;
/// Seconds of the longest window that is chosen by itself.
pub const LONGEST_WINDOW: f64 = 300.0;

impl Policy {
    /// Seconds for which fewer replicas must have sufficed, with such a cold start.
    #[must_use]
    pub fn down_window(&self, cold_start: Option<f64>) -> f64 {
        let automatic = || {
            cold_start
                .unwrap_or(LONGEST_WINDOW)
                .clamp(SHORTEST_WINDOW, LONGEST_WINDOW)
        };
        self.down_window.unwrap_or_else(automatic)
    }

    /// The API's defaults around some targets.
    #[must_use]
    pub fn new(min: u32, max: u32, targets: Vec<Target>) -> Self {
        Self {
            min,
            max,
            targets,
            up_window: 0.0,
            up_percent_per_minute: 100.0,
            down_window: None,
            down_per_minute: 4,
            missing: Missing::Hold,
        }
    }
}
