//! How many replicas a target asks for, as a number with decimals.

use crate::decide::Replicas;
use crate::history::History;
use crate::policy::Target;
use crate::totals::Totals;

/// Seconds in which a queue shall be worked off once the replicas for it are there.
const DRAIN: f64 = 60.0;
/// A time to first token under this part of its target leaves the number of replicas to the other measures.
const COMFORTABLE: f64 = 0.7;
/// The reserve for what the forecast does not see, in root mean squares of what it has not seen lately.
const CAUTION: f64 = 1.5;
/// Seconds after which measurements show what new replicas have changed.
const SHOWN: f64 = 30.0;
/// So full a replica may be when one is taken away from beside it.
pub const FULL: f64 = 0.85;

/// What all targets are measured against.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The pods' sums.
    pub totals: Totals,
    /// Requests in computation in the long run, at the end of the lead time, with a reserve.
    pub steady: f64,
    /// Requests in computation on top of it to work off the queues in time.
    pub backlog: f64,
    /// By which factor the load grows within the lead time.
    pub growth: f64,
}

impl Load {
    /// The load that `history` shows.
    #[must_use]
    pub fn of(history: &History, now: f64) -> Self {
        let totals = history.totals(now);
        let growth = history.growth(&totals);
        let backlog = history
            .service()
            .map_or(0.0, |service| totals.waiting * service / DRAIN)
            // How many more would ask if there were room is not known; as many again as run are a careful step.
            .max(totals.standing.min(totals.running_mean));
        Self {
            steady: history.offered(&totals) * growth + CAUTION * history.reserve(),
            backlog,
            growth,
            totals,
        }
    }

    /// Requests at a time that have to be computed.
    #[must_use]
    pub fn requests(&self) -> f64 {
        self.steady + self.backlog
    }

    /// Replicas that have room for the requests without any target's help.
    #[must_use]
    pub fn room(&self) -> f64 {
        self.requests() / (self.totals.slots * FULL).max(1.0)
    }
}

/// What one target asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// Replicas with which the target would just be met.
    pub replicas: f64,
    /// The target.
    pub target: Target,
    /// What is held against it: per replica that answers now.
    pub value: f64,
}

/// What one target asks for. `settled`: no replica is starting and the last ones have had time to show an effect.
#[must_use]
pub fn need(target: Target, load: &Load, wanted: u32, settled: bool) -> Need {
    let totals = &load.totals;
    let seen = f64::from(totals.seen.max(1));
    let all = f64::from(wanted);
    let (replicas, value) = match target {
        Target::WaitingRequests(most) => {
            let waiting = totals.waiting / seen;
            // A replica at its target computes what it can and has so many waiting.
            let by_room = load.requests() / (totals.slots + most);
            // If more wait than should, one more, whatever the figures of requests say.
            let by_queue = if waiting > most && settled { seen + 1.0 } else { 0.0 };
            (by_room.max(by_queue), waiting)
        }
        Target::RunningRequests(most) => (load.requests() / most, load.requests() / seen),
        Target::KvCacheUtilization(most) => {
            let running = totals.running.max(1.0);
            let wanted = totals.cache_used * (load.steady / running).max(1.0) + totals.queued_tokens;
            let total = totals.cache_total.max(1.0);
            (wanted / (total * most), wanted / (total * seen))
        }
        Target::TokensPerSecond(most) => {
            let wanted = totals.generating * (load.requests() / totals.running_mean.max(1.0)).max(1.0);
            (wanted / most, wanted / seen)
        }
        Target::TimeToFirstToken(most) => match totals.first_token_p95 {
            None => (0.0, 0.0),
            Some(p95) if p95 > most && settled => (seen * (p95 / most).min(2.0), p95),
            Some(p95) if p95 > most * COMFORTABLE => (all, p95),
            Some(p95) => (0.0, p95),
        },
    };
    Need {
        replicas,
        target,
        value,
    }
}

/// Whether the replicas added last have had the time to start and to fill the window of measurements.
#[must_use]
pub fn settled(history: &History, replicas: &Replicas, now: f64) -> bool {
    let lead = history.cold_start().unwrap_or(0.0);
    replicas.ready >= replicas.wanted && history.last_growth().is_none_or(|at| now - at > lead + SHOWN)
}

impl Need {
    /// The target in words: `WaitingRequests 9.1 per replica > 4`.
    #[must_use]
    pub fn words(&self, growing: bool) -> String {
        let sign = if growing { '>' } else { '<' };
        let name = self.target.name();
        match self.target {
            Target::TimeToFirstToken(_) if self.value <= 0.0 => format!("{name}: there are hardly any requests"),
            Target::TimeToFirstToken(most) => {
                format!("{name} p95 {:.0} ms {sign} {:.0} ms", self.value * 1e3, most * 1e3)
            }
            Target::KvCacheUtilization(most) => {
                format!("{name} {:.0} % {sign} {:.0} %", self.value * 1e2, most * 1e2)
            }
            Target::WaitingRequests(most) if growing && self.value <= most => {
                format!(
                    "{name} {:.1} per replica, and more requests arrive than replicas have room for",
                    self.value
                )
            }
            Target::WaitingRequests(most) | Target::RunningRequests(most) | Target::TokensPerSecond(most) => {
                format!("{name} {:.1} per replica {sign} {most}", self.value)
            }
        }
    }
}
