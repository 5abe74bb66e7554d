//! The statistics that other tools decide by, so that people who come from them find the figures they know.
//!
//! Each is a pure function of counts or of samples: two-sample distances and tests, ways to combine p-values, and the
//! recursions of sequential tests. None of them decides anything here: with enough requests every one of these p-values
//! is small, and none keeps its promise when it is looked at again and again.
//! An answer is never NaN: where there is none, the [`ClassicalError`] says what to change.

pub mod combination;
pub mod counts;
pub mod cramer_von_mises;
pub mod distances;
pub mod independence;
pub mod kernels;
pub mod kolmogorov_smirnov;
pub mod mann_whitney;
pub mod means;
pub mod rates;
pub mod sequential;

use std::fmt;

use thiserror::Error;

/// Which of the two inputs an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is compared with.
    Reference,
    /// What is compared.
    Current,
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Reference => "reference",
            Self::Current => "current",
        })
    }
}

/// Why a statistic has no value.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ClassicalError {
    /// The two histograms do not have the same cells.
    #[error(
        "the reference has {reference} cells and the current counts have {current}: count both over the same cells"
    )]
    CellsDiffer {
        /// Cells of the reference.
        reference: usize,
        /// Cells of the current counts.
        current: usize,
    },
    /// There is nothing to compare cell by cell.
    #[error("only {found} cells hold counts, and the test needs at least 2: use finer cells")]
    TooFewCells {
        /// Cells with counts.
        found: usize,
    },
    /// A count is negative or not finite.
    #[error("cell {index} of the {side} counts is {value}: counts must be finite and not negative")]
    NotACount {
        /// Whose counts.
        side: Side,
        /// Which cell, from 0.
        index: usize,
        /// What was found.
        value: f64,
    },
    /// A histogram is empty.
    #[error("the {side} counts add up to nothing: wait for requests, or choose a longer window")]
    NoCounts {
        /// Whose counts.
        side: Side,
    },
    /// A cell is empty on one side only, and the statistic divides by it.
    #[error("cell {index} is empty in the {side} counts only: smooth the counts, or join the cell with its neighbour")]
    EmptyCell {
        /// Where it is empty.
        side: Side,
        /// Which cell, from 0.
        index: usize,
    },
    /// A sample is too small.
    #[error(
        "the {side} sample has {found} values and needs at least {needed}: wait for requests, or choose a longer window"
    )]
    TooFewSamples {
        /// Whose sample.
        side: Side,
        /// The fewest that the statistic is defined for.
        needed: usize,
        /// What was given.
        found: usize,
    },
    /// A sample holds NaN or an infinity.
    #[error("value {index} of the {side} sample is {value}: leave out values that are not finite")]
    NotFinite {
        /// Whose sample.
        side: Side,
        /// Which value, from 0; of a point, the point.
        index: usize,
        /// What was found.
        value: f64,
    },
    /// The statistic divides by a spread that is zero.
    #[error("the values do not vary, so there is no scale to measure the change by: compare the values themselves")]
    NoSpread,
    /// Points do not all have the same dimension.
    #[error(
        "point {index} of the {side} sample has {found} coordinates instead of {expected}: use one embedding for all"
    )]
    DimensionsDiffer {
        /// Whose sample.
        side: Side,
        /// Which point, from 0.
        index: usize,
        /// What was given.
        found: usize,
        /// What the first point of the reference has.
        expected: usize,
    },
    /// A rate has more events than trials.
    #[error("{events} events in {trials} trials: there must be at least one trial, and no more events than trials")]
    NotARate {
        /// Events.
        events: u64,
        /// Trials.
        trials: u64,
    },
    /// A list of p-values is empty.
    #[error("there is no p-value to combine: give at least one")]
    NoProbabilities,
    /// Something that is no probability.
    #[error("p-value {index} is {value}: a p-value lies between 0 and 1")]
    NotAProbability {
        /// Which of them, from 0.
        index: usize,
        /// What was found.
        value: f64,
    },
    /// A setting is out of range.
    #[error("{name} is {value}: it must be {expected}")]
    OutOfRange {
        /// Which setting.
        name: &'static str,
        /// What was given.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The arithmetic left the range of floats.
    #[error("the values are too large to compute with: divide them by a common scale")]
    Overflow,
}

/// A statistic and how likely one at least as large is if nothing changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    /// The statistic.
    pub statistic: f64,
    /// Its p-value.
    pub p_value: f64,
}

/// A sample without anything that is not finite, ascending.
fn sorted(values: &[f64], side: Side, needed: usize) -> Result<Vec<f64>, ClassicalError> {
    check(values, side, needed)?;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(sorted)
}

fn check(values: &[f64], side: Side, needed: usize) -> Result<(), ClassicalError> {
    if values.len() < needed {
        return Err(ClassicalError::TooFewSamples {
            side,
            needed,
            found: values.len(),
        });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(ClassicalError::NotFinite {
            side,
            index,
            value: values[index],
        }),
        None => Ok(()),
    }
}

fn finite(value: f64) -> Result<f64, ClassicalError> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(ClassicalError::Overflow)
    }
}

fn within(
    name: &'static str,
    value: f64,
    holds: impl Fn(f64) -> bool,
    expected: &'static str,
) -> Result<(), ClassicalError> {
    if value.is_finite() && holds(value) {
        Ok(())
    } else {
        Err(ClassicalError::OutOfRange { name, value, expected })
    }
}

fn positive(name: &'static str, value: f64) -> Result<(), ClassicalError> {
    within(name, value, |value| value > 0.0, "positive")
}
