//! The frozen groups into which fine bins and categories are put for comparison.

use crate::pane::layout::BINS;

/// Quantiles at which groups of a number end: deciles, and tails in which mixtures and wider spreads show first.
const QUANTILES: [f64; 15] = [
    0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995,
];
/// An outermost group is a tail when no more than this part of the baseline lies in it.
const TAIL: f64 = 0.02;
/// Baseline values that a group has at least, unless there is no other group.
const LEAST: u64 = 20;
/// Groups of categories, the one for all rare ones included.
const MOST: usize = 256;

/// Group of each fine bin (below, [`BINS`], above), from the pooled counts. Values that are missing are the last group.
pub(crate) fn of_bins(bins: &[u64]) -> Vec<u16> {
    let total: u64 = bins.iter().sum();
    let mut groups = Vec::with_capacity(BINS + 2);
    let (mut group, mut within, mut before, mut next) = (0_u16, 0, 0, 0);
    for bin in bins {
        groups.push(group);
        within += bin;
        before += bin;
        let reached = before as f64 / total.max(1) as f64;
        let mut ends = false;
        while next < QUANTILES.len() && reached >= QUANTILES[next] {
            ends = true;
            next += 1;
        }
        if ends && within >= LEAST && total - before >= LEAST {
            group += 1;
            within = 0;
        }
    }
    groups
}

/// Group of each category: the common ones have one each, by falling count; group 0 is for the rest.
pub(crate) fn of_categories(counts: &[u64]) -> Vec<u16> {
    let mut common: Vec<usize> = (0..counts.len()).filter(|index| counts[*index] >= LEAST).collect();
    common.sort_by_key(|index| (std::cmp::Reverse(counts[*index]), *index));
    common.truncate(MOST - 1);
    let mut groups = vec![0; counts.len()];
    for (group, index) in (1..).zip(common) {
        groups[index] = group;
    }
    groups
}

/// Which groups of a number, of `counts` without the missing ones, are tails.
pub(crate) fn tails(counts: &[f64]) -> Vec<u16> {
    let total: f64 = counts.iter().sum();
    let last = counts.len().saturating_sub(1);
    let mut ends = vec![0, last];
    ends.dedup();
    ends.retain(|group| counts.get(*group).is_some_and(|count| *count <= TAIL * total));
    // There are as many groups as quantiles and one more at most.
    ends.into_iter().map(|group| group as u16).collect()
}

/// Number of groups.
pub(crate) fn count(groups: &[u16]) -> usize {
    groups.iter().max().map_or(1, |last| usize::from(*last) + 1)
}

/// Counts by group.
pub(crate) fn fold(groups: &[u16], counts: &[u64], into: &mut [u64]) {
    for (group, count) in groups.iter().zip(counts) {
        into[usize::from(*group)] += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_end_at_quantiles_and_hold_enough() {
        let bins: Vec<u64> = (0..130)
            .map(|bin: i64| (2_000 - (bin - 65).pow(2)).max(0) as u64)
            .collect();
        let groups = of_bins(&bins);
        let mut counts = vec![0; count(&groups)];
        fold(&groups, &bins, &mut counts);
        assert!(counts.len() >= 12, "{counts:?}");
        assert!(counts.iter().all(|count| *count >= LEAST), "{counts:?}");
        assert_eq!(counts.iter().sum::<u64>(), bins.iter().sum::<u64>());
    }

    #[test]
    fn a_constant_is_one_group() {
        let mut bins = vec![0; 130];
        bins[40] = 1_000;
        assert_eq!(count(&of_bins(&bins)), 1);
    }

    #[test]
    fn common_categories_stand_alone_and_rare_ones_together() {
        assert_eq!(of_categories(&[5, 100, 0, 300, 19]), vec![0, 2, 0, 1, 0]);
    }
}
