//! What the owner of a model wants watched, and how often being wrong is allowed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::signal::{Class, Kind, Signal};

/// The rhythm of the traffic that is no drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Season {
    /// None: all hours are compared with the same baseline.
    None,
    /// Hours of the day, UTC.
    #[default]
    HourOfDay,
    /// Hours of the week, UTC.
    HourOfWeek,
}

impl Season {
    /// Cells of the cycle.
    #[must_use]
    pub fn cells(self) -> u16 {
        match self {
            Self::None => 1,
            Self::HourOfDay => 24,
            Self::HourOfWeek => 168,
        }
    }

    /// The cell of a time, seconds since 1970.
    #[must_use]
    pub fn cell(self, time: i64) -> u16 {
        // The first of January 1970 was a Thursday: 72 hours after Monday.
        let hour = time.div_euclid(3_600) + 72;
        // The remainder is below 168.
        hour.rem_euclid(i64::from(self.cells())) as u16
    }

    /// Seconds of one full cycle.
    #[must_use]
    pub fn cycle(self) -> i64 {
        i64::from(self.cells()) * 3_600
    }
}

/// From what size on a change matters. A signal's change matters when one of the given measures says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MinEffect {
    /// Shift of the mean, in thousandths of the baseline's standard deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift_milli_sigma: Option<u32>,
    /// Population stability index without its bias, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi_milli: Option<u32>,
    /// Rise of a rate, in percent of the baseline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub increase_percent: Option<u32>,
    /// Maximum mean discrepancy without its bias, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmd_milli: Option<u32>,
}

impl MinEffect {
    /// What matters when nothing is said.
    #[must_use]
    pub fn of(signal: Signal) -> Self {
        match signal.kind() {
            Kind::Numeric(_) => Self {
                shift_milli_sigma: Some(200),
                psi_milli: Some(100),
                ..Self::default()
            },
            Kind::Categories(_) => Self {
                psi_milli: Some(100),
                ..Self::default()
            },
            Kind::Embedding => Self {
                mmd_milli: Some(20),
                ..Self::default()
            },
            Kind::Rate => Self {
                increase_percent: Some(match signal {
                    Signal::InvalidJSONRate => 100,
                    Signal::NegativeFeedback => 30,
                    _ => 50,
                }),
                ..Self::default()
            },
        }
    }

    fn fits(&self, kind: Kind) -> bool {
        let (numeric, categories) = (matches!(kind, Kind::Numeric(_)), matches!(kind, Kind::Categories(_)));
        (self.shift_milli_sigma.is_none() || numeric)
            && (self.psi_milli.is_none() || numeric || categories)
            && (self.increase_percent.is_none() || kind == Kind::Rate)
            && (self.mmd_milli.is_none() || kind == Kind::Embedding)
    }
}

/// One signal that is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// The owner's name for it.
    pub name: String,
    /// What it is.
    pub signal: Signal,
    /// Its share of the evidence, against the others' weights.
    pub weight: u32,
    /// From what size on its change matters.
    pub min_effect: MinEffect,
}

impl Watched {
    /// With the defaults, named as the signal.
    #[must_use]
    pub fn new(signal: Signal) -> Self {
        Self {
            name: format!("{signal:?}"),
            signal,
            weight: 1,
            min_effect: MinEffect::of(signal),
        }
    }
}

/// A policy of watching. [`Policy::default`] watches all signals but the operational ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Length of a pane.
    pub pane_seconds: u32,
    /// Requests below which a pane is joined with the next.
    pub min_samples: u64,
    /// Time after which a joined pane that still has too few requests is dropped.
    pub max_pane_seconds: u32,
    /// Time from which the baseline is learned.
    pub baseline_seconds: u32,
    /// Requests that the baseline needs.
    pub baseline_min_samples: u64,
    /// The rhythm that is no drift.
    pub season: Season,
    /// Allowed probability of any false alarm, of all signals together, in `per_days`; thousandths.
    pub max_per_mille: u32,
    /// The time that this probability speaks of.
    pub per_days: u32,
    /// Time for which evidence and effect must hold together.
    pub confirm_seconds: u32,
    /// Time between runs of the probes; without probes there is none.
    pub probe_interval_seconds: Option<u32>,
    /// What is watched.
    pub signals: Vec<Watched>,
}

/// Part of the allowed probability that the probes get, where there are any.
const PROBES_SHARE: f64 = 0.1;

impl Default for Policy {
    fn default() -> Self {
        Self {
            pane_seconds: 300,
            min_samples: 100,
            max_pane_seconds: 21_600,
            baseline_seconds: 604_800,
            baseline_min_samples: 20_000,
            season: Season::HourOfDay,
            max_per_mille: 50,
            per_days: 90,
            confirm_seconds: 1_800,
            probe_interval_seconds: None,
            signals: Signal::ALL
                .into_iter()
                .filter(|signal| signal.class() != Class::Operational)
                .map(Watched::new)
                .collect(),
        }
    }
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A number outside its bounds.
    #[error("{field} is {value}; it must be between {low} and {high}")]
    Bounds {
        /// Which.
        field: &'static str,
        /// Given.
        value: u64,
        /// Least.
        low: u64,
        /// Most.
        high: u64,
    },
    /// Nothing to watch.
    #[error("no signal has a weight above 0, or only operational ones, which never weigh: nothing would be watched")]
    Empty,
    /// Twice the same.
    #[error("the signal {0} is there twice")]
    Twice(String),
    /// A measure of another kind of signal.
    #[error("minEffect of {name} has a measure that {signal:?} does not have: it takes {takes}")]
    Measure {
        /// The owner's name.
        name: String,
        /// The signal.
        signal: Signal,
        /// What can be given.
        takes: &'static str,
    },
}

impl Policy {
    /// Whether it can be held to.
    ///
    /// # Errors
    /// [`PolicyError`], the first one.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let bounds = |field, value: u64, low, high| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(PolicyError::Bounds {
                    field,
                    value,
                    low,
                    high,
                })
            }
        };
        bounds("observation.paneSeconds", self.pane_seconds.into(), 1, 3_600)?;
        bounds("observation.minSamples", self.min_samples, 1, 1_000_000)?;
        let pane = u64::from(self.pane_seconds);
        bounds("observation.maxPaneSeconds", self.max_pane_seconds.into(), pane, 86_400)?;
        bounds("baseline.learned.minSamples", self.baseline_min_samples, 1_000, 1 << 40)?;
        bounds("baseline.learned.seconds", self.baseline_seconds.into(), 60, 31_622_400)?;
        bounds("falseAlarms.maxPerMille", self.max_per_mille.into(), 1, 1_000)?;
        bounds("falseAlarms.perDays", self.per_days.into(), 1, 3_650)?;
        bounds("confirmSeconds", self.confirm_seconds.into(), 0, 2_592_000)?;
        if self.signals.iter().all(|watched| self.weight(watched.signal) == 0.0) {
            return Err(PolicyError::Empty);
        }
        for (position, watched) in self.signals.iter().enumerate() {
            bounds("signals.weight", watched.weight.into(), 0, 1_000)?;
            if self.signals[..position]
                .iter()
                .any(|other| other.name == watched.name || other.signal == watched.signal)
            {
                return Err(PolicyError::Twice(watched.name.clone()));
            }
            let kind = watched.signal.kind();
            if !watched.min_effect.fits(kind) {
                let takes = match kind {
                    Kind::Numeric(_) => "shiftMilliSigma and psiMilli",
                    Kind::Categories(_) => "psiMilli",
                    Kind::Rate => "increasePercent",
                    Kind::Embedding => "mmdMilli",
                };
                return Err(PolicyError::Measure {
                    name: watched.name.clone(),
                    signal: watched.signal,
                    takes,
                });
            }
        }
        Ok(())
    }

    /// What evidence is held against: panes of the period over the allowed probability. 518,400 by default.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        let share = if self.probe_interval_seconds.is_some() {
            1.0 - PROBES_SHARE
        } else {
            1.0
        };
        self.times(self.pane_seconds) / (self.allowed() * share)
    }

    /// The same for probes: their runs of the period over their share of the allowed probability.
    #[must_use]
    pub fn probe_capacity(&self) -> f64 {
        self.times(self.probe_interval_seconds.unwrap_or(21_600).max(1)) / (self.allowed() * PROBES_SHARE)
    }

    /// How often something of this length happens in the period of the budget.
    fn times(&self, seconds: u32) -> f64 {
        f64::from(self.per_days) * 86_400.0 / f64::from(seconds)
    }

    fn allowed(&self) -> f64 {
        f64::from(self.max_per_mille) / 1_000.0
    }

    /// Weight of a signal in the evidence; operational signals have none.
    #[must_use]
    pub fn weight(&self, signal: Signal) -> f64 {
        self.signals
            .iter()
            .find(|watched| watched.signal == signal && signal.class() != Class::Operational)
            .map_or(0.0, |watched| f64::from(watched.weight))
    }

    /// From what size on a change of the signal matters.
    #[must_use]
    pub fn min_effect(&self, signal: Signal) -> MinEffect {
        self.signals
            .iter()
            .find(|watched| watched.signal == signal)
            .map_or_else(|| MinEffect::of(signal), |watched| watched.min_effect)
    }

    /// The owner's name of a signal.
    #[must_use]
    pub fn name(&self, signal: Signal) -> String {
        self.signals
            .iter()
            .find(|watched| watched.signal == signal)
            .map_or_else(|| format!("{signal:?}"), |watched| watched.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_days_of_five_minutes_at_five_percent() {
        assert!((Policy::default().capacity() - 518_400.0).abs() < 1e-6);
        assert_eq!(Policy::default().validate(), Ok(()));
    }

    #[test]
    fn hours_of_the_day_and_of_the_week() {
        // Monday, 2026-11-23T09:10:00Z.
        let monday = 1_795_425_000;
        assert_eq!(Season::HourOfDay.cell(monday), 9);
        assert_eq!(Season::HourOfWeek.cell(monday), 9);
        assert_eq!(Season::HourOfWeek.cell(monday + 86_400 * 6), 24 * 6 + 9);
        assert_eq!(Season::HourOfDay.cell(-1), 23);
        assert_eq!(Season::None.cell(monday), 0);
    }

    #[test]
    fn operational_signals_alone_watch_nothing() {
        let policy = Policy {
            signals: vec![Watched::new(Signal::ErrorRate)],
            ..Policy::default()
        };
        assert_eq!(policy.validate(), Err(PolicyError::Empty));
    }

    #[test]
    fn a_measure_of_another_kind_is_refused() {
        let mut policy = Policy::default();
        policy.signals[0].min_effect.mmd_milli = Some(1);
        let error = policy.validate().expect_err("is refused");
        assert!(
            error.to_string().contains("it takes shiftMilliSigma and psiMilli"),
            "{error}"
        );
    }
}
