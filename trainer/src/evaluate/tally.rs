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

/// What became of one suite.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// The items that count.
    pub lines: Vec<Line>,
    /// Their means.
    pub scores: SuiteScores,
    /// Items that are left out, because the model that serves cannot be judged on them.
    pub left_out: usize,
    /// Items that count 0 for the candidate, because it alone cannot be judged on them.
    pub failed: usize,
}

/// The scores of one suite. What the model that serves cannot be judged on is no measure. What only the candidate cannot be judged
/// on users would miss, so it must not vanish from what is compared.
#[must_use]
pub fn tally(name: &str, champion: &[Option<f64>], candidate: &[Option<f64>]) -> Tally {
    let number = |score: &Option<f64>| score.filter(|score| score.is_finite());
    let mut failed = 0;
    let mut lines = Vec::new();
    for (item, (champion, candidate)) in champion.iter().zip(candidate).enumerate() {
        let Some(champion) = number(champion) else {
            continue;
        };
        let candidate = number(candidate);
        failed += usize::from(candidate.is_none());
        lines.push(Line {
            suite: name.to_owned(),
            item,
            champion,
            candidate: candidate.unwrap_or(0.0),
        });
    }
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
    Tally {
        left_out: champion.len() - lines.len(),
        lines,
        scores,
        failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_those_of_the_items() {
        let found = tally("a", &[Some(0.5), Some(0.0)], &[Some(0.7), Some(1.0)]);
        assert_eq!((found.scores.items, found.left_out, found.failed), (2, 0, 0));
        let scores = found.scores;
        assert!((scores.champion_mean - 0.25).abs() < 1e-12 && (scores.candidate_mean - 0.85).abs() < 1e-12);
        assert!((scores.difference_mean - 0.6).abs() < 1e-12);
        assert!((scores.difference_squares_mean - 0.52).abs() < 1e-12);
    }

    #[test]
    fn what_only_the_candidate_cannot_do_counts_nothing_for_it_and_what_the_champion_cannot_do_does_not_count() {
        let champion = [Some(0.5), None, Some(0.2), None, Some(0.4), Some(f64::NAN)];
        let candidate = [Some(0.7), Some(1.0), None, None, Some(f64::NAN), Some(1.0)];
        let found = tally("a", &champion, &candidate);
        let lines: Vec<(usize, f64, f64)> = found
            .lines
            .iter()
            .map(|line| (line.item, line.champion, line.candidate))
            .collect();
        assert_eq!(lines, [(0, 0.5, 0.7), (2, 0.2, 0.0), (4, 0.4, 0.0)]);
        assert_eq!((found.scores.items, found.left_out, found.failed), (3, 3, 2));
        assert!(found.scores.difference_mean < 0.0, "{found:?}");
    }

    #[test]
    fn a_suite_without_items_has_no_numbers_that_are_none() {
        let found = tally("a", &[None], &[None]);
        assert!(found.lines.is_empty() && found.left_out == 1 && found.scores.items == 0);
        assert!(found.scores.difference_mean == 0.0 && found.scores.champion_mean == 0.0);
    }
}
