//! Whether a candidate is good enough, from what both models reached on the same items. Pure.
//!
//! For differences d of n paired items, with confidence 1 - alpha on one side, the least difference that is certain is
//! `mean(d) - t * s / sqrt(n)` with Student's quantile t of n - 1 degrees of freedom: comparing means alone would pass a model
//! that is one point worse a quarter of the time.

use perennial_crds::retrain::{GateResult, SuiteScores};
use perennial_crds::retraining::{GateSpec, Purpose, SuiteSpec};
use serde::{Deserialize, Serialize};

/// Thousandths that a candidate may be worse, unless the suite says otherwise.
const MARGIN: u32 = 10;
/// Thousandths by which it must be better.
const GAIN: u32 = 10;
/// Thousandths that it must reach.
const SCORE: u32 = 990;

/// What the gate says of one suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Name of the suite.
    pub suite: String,
    /// Items that count: on which the champion could be judged.
    pub items: u64,
    /// Mean score of the model that serves.
    pub champion: f64,
    /// Mean score of the candidate.
    pub candidate: f64,
    /// Least difference that is certain; for `Absolute` the candidate's score itself.
    pub lower: f64,
    /// What it is held against.
    pub needed: f64,
    /// Whether it is enough.
    pub passed: bool,
}

/// Why a result cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unjudged {
    /// A suite is missing.
    #[error("the gate Job has no scores of the suite {0}")]
    Missing(String),
    /// Too few items.
    #[error(
        "the suite {suite} has {items} items on which the model that serves could be judged, fewer than gate.minItems {least}"
    )]
    Few {
        /// Its name.
        suite: String,
        /// How many it has.
        items: u64,
        /// How many it needs.
        least: u32,
    },
    /// Impossible figures.
    #[error("the gate Job's figures of the suite {0} are impossible: scores lie between 0 and 1")]
    Impossible(String),
}

/// Judges every suite of the spec.
///
/// # Errors
/// [`Unjudged`] for results that say too little: they never pass.
pub fn judge(spec: &GateSpec, result: &GateResult) -> Result<Vec<Verdict>, Unjudged> {
    spec.suites
        .iter()
        .map(|suite| {
            let scores = result.suites.iter().find(|scores| scores.name == suite.name);
            let scores = scores.ok_or_else(|| Unjudged::Missing(suite.name.clone()))?;
            verdict(spec, suite, scores)
        })
        .collect()
}

fn verdict(spec: &GateSpec, suite: &SuiteSpec, scores: &SuiteScores) -> Result<Verdict, Unjudged> {
    let SuiteScores {
        items,
        champion_mean,
        candidate_mean,
        difference_mean,
        difference_squares_mean,
        ..
    } = scores;
    if *items < u64::from(spec.min_items.max(2)) {
        return Err(Unjudged::Few {
            suite: suite.name.clone(),
            items: *items,
            least: spec.min_items,
        });
    }
    let unit = |value: &f64| (0.0..=1.0).contains(value);
    let consistent = (candidate_mean - champion_mean - difference_mean).abs() < 1e-6
        && *difference_squares_mean >= difference_mean * difference_mean - 1e-9;
    if !unit(champion_mean) || !unit(candidate_mean) || !unit(difference_squares_mean) || !consistent {
        return Err(Unjudged::Impossible(suite.name.clone()));
    }
    let n = *items as f64;
    let variance = (difference_squares_mean - difference_mean * difference_mean).max(0.0) * n / (n - 1.0);
    let lower = difference_mean - quantile(spec.confidence_percent, n - 1.0) * (variance / n).sqrt();
    let milli = |given: Option<u32>, default: u32| f64::from(given.unwrap_or(default)) / 1000.0;
    let (lower, needed) = match suite.purpose {
        Purpose::NoRegression => (lower, -milli(suite.margin_per_mille, MARGIN)),
        Purpose::Improvement => (lower, milli(suite.min_gain_per_mille, GAIN)),
        Purpose::Absolute => (*candidate_mean, milli(suite.min_score_per_mille, SCORE)),
    };
    Ok(Verdict {
        suite: suite.name.clone(),
        items: *items,
        champion: *champion_mean,
        candidate: *candidate_mean,
        lower,
        needed,
        passed: match suite.purpose {
            Purpose::Absolute => lower >= needed,
            Purpose::NoRegression | Purpose::Improvement => lower > needed,
        },
    })
}

/// Student's one-sided quantile, by the expansion in 1/df of Fisher and Cornish (Abramowitz and Stegun 26.7.5), whose
/// error is below 1 % from 5 degrees of freedom on; with fewer the exact values of 1 to 4 are close enough to be replaced by
/// a wider bound.
fn quantile(confidence_percent: u32, df: f64) -> f64 {
    let z = normal_quantile(f64::from(confidence_percent) / 100.0);
    let (z2, z3) = (z * z, z * z * z);
    let (z5, z7, z9) = (z3 * z2, z3 * z2 * z2, z3 * z2 * z2 * z2);
    let df = df.max(1.0);
    let expansion = z
        + (z3 + z) / (4.0 * df)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * df.powi(2))
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * df.powi(3))
        + (79.0 * z9 + 776.0 * z7 + 1482.0 * z5 - 1920.0 * z3 - 945.0 * z) / (92_160.0 * df.powi(4));
    if df < 5.0 { expansion * 2.0 } else { expansion }
}

/// The standard normal quantile above 1/2, by the rational approximation of Abramowitz and Stegun 26.2.23 (error below
/// 4.5e-4) and three steps of Newton's method on a series of the distribution.
fn normal_quantile(p: f64) -> f64 {
    let t = (-2.0 * (1.0 - p).ln()).sqrt();
    let mut x = t
        - (2.515_517 + 0.802_853 * t + 0.010_328 * t * t)
            / (1.0 + 1.432_788 * t + 0.189_269 * t * t + 0.001_308 * t * t * t);
    for _ in 0..3 {
        let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        // Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...)
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-15 {
            k += 2.0;
            term *= x * x / k;
            sum += term;
        }
        x -= (0.5 + density * sum - p) / density;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(n: u64, champion: f64, candidate: f64, squares: f64) -> SuiteScores {
        SuiteScores {
            name: "recent".to_owned(),
            items: n,
            champion_mean: champion,
            candidate_mean: candidate,
            difference_mean: candidate - champion,
            difference_squares_mean: squares,
        }
    }

    fn spec(purpose: &str, figures: serde_json::Value) -> GateSpec {
        let mut suite = serde_json::json!({"name": "recent", "purpose": purpose});
        for (key, value) in figures.as_object().expect("an object") {
            suite[key] = value.clone();
        }
        serde_json::from_value(serde_json::json!({"suites": [suite], "minItems": 20})).expect("a gate")
    }

    fn judged(spec: &GateSpec, scores: SuiteScores) -> Result<Verdict, Unjudged> {
        let result: GateResult =
            serde_json::from_value(serde_json::json!({"schema": "gate/v1", "outcome": "Succeeded"})).expect("a result");
        let result = GateResult {
            suites: vec![scores],
            ..result
        };
        Ok(judge(spec, &result)?.remove(0))
    }

    #[test]
    fn quantiles_are_students() {
        // scipy.stats.t.ppf
        for (percent, df, expected) in [
            (95, 9.0, 1.833_112_93),
            (95, 19.0, 1.729_132_81),
            (95, 499.0, 1.647_912_7),
            (99, 30.0, 2.457_261_54),
            (80, 50.0, 0.848_869_34),
        ] {
            let found = quantile(percent, df);
            assert!((found - expected).abs() < 2e-3 * expected, "{percent} {df}: {found}");
        }
        assert!((normal_quantile(0.95) - 1.644_853_627).abs() < 1e-7);
    }

    #[test]
    fn a_difference_must_be_certain_not_only_there() {
        let improvement = spec("Improvement", serde_json::json!({}));
        let clear = judged(&improvement, scores(100, 0.5, 0.6, 0.02)).expect("judged");
        assert!(clear.passed && clear.lower < 0.1 && clear.lower > 0.08, "{clear:?}");
        // The same gain, with differences so wide that chance may have made it.
        assert!(!judged(&improvement, scores(30, 0.5, 0.6, 0.4)).expect("judged").passed);
        // Better, but by less than asked for.
        assert!(
            !judged(&improvement, scores(100_000, 0.5, 0.509, 0.001))
                .expect("judged")
                .passed
        );
    }

    #[test]
    fn a_regression_within_the_margin_passes_and_one_that_may_be_larger_does_not() {
        let margin = spec("NoRegression", serde_json::json!({"marginPerMille": 20}));
        assert!(judged(&margin, scores(100, 0.5, 0.5, 0.0)).expect("judged").passed);
        assert!(judged(&margin, scores(1000, 0.5, 0.49, 0.001)).expect("judged").passed);
        assert!(!judged(&margin, scores(20, 0.5, 0.49, 0.01)).expect("judged").passed);
    }

    #[test]
    fn an_absolute_score_is_reached_or_not() {
        let absolute = spec("Absolute", serde_json::json!({"minScorePerMille": 900}));
        assert!(judged(&absolute, scores(50, 0.2, 0.9, 0.5)).expect("judged").passed);
        assert!(!judged(&absolute, scores(50, 0.99, 0.89, 0.02)).expect("judged").passed);
    }

    #[test]
    fn what_says_too_little_or_cannot_be_never_passes() {
        let improvement = spec("Improvement", serde_json::json!({}));
        assert!(matches!(
            judged(&improvement, scores(19, 0.1, 0.9, 0.64)),
            Err(Unjudged::Few { .. })
        ));
        assert!(matches!(
            judged(&improvement, scores(50, 0.1, 1.9, 3.3)),
            Err(Unjudged::Impossible(_))
        ));
        assert!(matches!(
            judged(&improvement, scores(50, 0.1, f64::NAN, 0.1)),
            Err(Unjudged::Impossible(_))
        ));
        // Squares below the square of the mean: nobody measured that.
        assert!(matches!(
            judged(&improvement, scores(50, 0.1, 0.9, 0.1)),
            Err(Unjudged::Impossible(_))
        ));
        let other = SuiteScores {
            name: "other".to_owned(),
            ..scores(50, 0.1, 0.9, 0.64)
        };
        assert_eq!(judged(&improvement, other), Err(Unjudged::Missing("recent".to_owned())));
    }
}
