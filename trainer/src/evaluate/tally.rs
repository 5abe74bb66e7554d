//! From the scores of items to those of suites. Pure.

use perennial_crds::retrain::SuiteScores;
use serde::{Deserialize, Serialize};

/// A line of `scores.jsonl`: numbers only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The suite.
    pub suite: String,
    /// The item, counted from 0.
    pub item: usize,
    /// What the model that serves reached.
    pub champion: f64,
    /// What the candidate reached.
    pub candidate: f64,
}

/// The scores of one suite, and how many items are left out because a model could not be judged on them.
#[must_use]
pub fn tally(name: &str, champion: &[Option<f64>], candidate: &[Option<f64>]) -> (Vec<Line>, SuiteScores, usize) {
    let pairs = champion.iter().zip(candidate).enumerate();
    let lines: Vec<Line> = pairs
        .filter_map(|(item, (champion, candidate))| {
            Some(Line {
                suite: name.to_owned(),
                item,
                champion: (*champion)?,
                candidate: (*candidate)?,
            })
        })
        .collect();
    let count = lines.len().max(1) as f64;
    let mean = |of: fn(&Line) -> f64| lines.iter().map(of).sum::<f64>() / count;
    let scores = SuiteScores {
        name: name.to_owned(),
        items: lines.len() as u64,
        champion_mean: mean(|line| line.champion),
        candidate_mean: mean(|line| line.candidate),
        difference_mean: mean(|line| line.candidate - line.champion),
        difference_squares_mean: mean(|line| (line.candidate - line.champion).powi(2)),
    };
    let left_out = champion.len() - lines.len();
    (lines, scores, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_items_of_both_models_count() {
        let champion = [Some(0.5), None, Some(0.2), Some(0.0)];
        let candidate = [Some(0.7), Some(1.0), None, Some(1.0)];
        let (lines, scores, left_out) = tally("a", &champion, &candidate);
        assert_eq!(lines.iter().map(|line| line.item).collect::<Vec<_>>(), [0, 3]);
        assert_eq!((scores.items, left_out), (2, 2));
        assert!((scores.champion_mean - 0.25).abs() < 1e-12 && (scores.candidate_mean - 0.85).abs() < 1e-12);
        assert!((scores.difference_mean - 0.6).abs() < 1e-12);
        assert!((scores.difference_squares_mean - 0.52).abs() < 1e-12);
    }

    #[test]
    fn a_suite_without_items_has_no_numbers_that_are_none() {
        let (lines, scores, left_out) = tally("a", &[None], &[None]);
        assert!(lines.is_empty() && left_out == 1 && scores.items == 0);
        assert!(scores.difference_mean == 0.0 && scores.champion_mean == 0.0);
    }
}
