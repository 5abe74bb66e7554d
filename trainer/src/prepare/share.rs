//! How many one requester may give, so that nobody decides alone what a model learns or is judged by. Pure.

use std::collections::BTreeMap;

/// What became of things that were chosen from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Positions of the chosen ones, in order.
    pub taken: Vec<usize>,
    /// How many were left out because their owner had its share.
    pub capped: u64,
    /// How many were left out because there were enough.
    pub surplus: u64,
}

/// Chooses at most `most` of things in their order, of which no owner has more than `percent` of all that are chosen; one of each
/// owner may always be chosen.
#[must_use]
pub fn choose<'a>(owners: &[&'a str], most: usize, percent: u32) -> Chosen {
    let mut counts: BTreeMap<&'a str, usize> = BTreeMap::new();
    for owner in owners {
        *counts.entry(owner).or_default() += 1;
    }
    let counts: Vec<usize> = counts.into_values().collect();
    let cap = largest(&counts, most, percent);
    let mut chosen = Chosen::default();
    let mut had: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, owner) in owners.iter().enumerate() {
        let had = had.entry(owner).or_default();
        if *had >= cap {
            chosen.capped += 1;
        } else if chosen.taken.len() >= most {
            chosen.surplus += 1;
        } else {
            *had += 1;
            chosen.taken.push(position);
        }
    }
    chosen
}

/// The largest share with which it is still no more than `percent` of all that can be chosen.
fn largest(counts: &[usize], most: usize, percent: u32) -> usize {
    let fits = |cap: usize| {
        let all: usize = counts.iter().map(|count| *count.min(&cap)).sum();
        cap as u128 * 100 <= all.min(most) as u128 * u128::from(percent)
    };
    // The larger the share, the fewer times it goes into all: once it does not fit, no larger one does.
    let (mut low, mut high) = (1, counts.iter().copied().max().unwrap_or(1));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_is_one_of_what_is_chosen_not_of_what_is_there() {
        let mut owners = vec!["a"; 1000];
        owners.extend(["b", "c", "d"]);
        // One of each: with two of `a` it would have 40 %.
        let chosen = choose(&owners, 2000, 30);
        assert_eq!((chosen.taken.len(), chosen.capped), (4, 999));
        // Two of five are 40 %.
        let chosen = choose(&owners, 2000, 40);
        assert_eq!((chosen.taken.len(), chosen.capped), (5, 998));
        assert_eq!(choose(&owners, 2000, 100).taken.len(), 1003);
        assert_eq!(choose(&["a", "a"], 2000, 5).taken, [0]);
        assert_eq!(choose(&[], 10, 5), Chosen::default());
    }

    #[test]
    fn the_first_ones_are_taken_and_the_rest_counted() {
        let owners: Vec<String> = (0..100).map(|number| format!("{}", number % 50)).collect();
        let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
        let chosen = choose(&owners, 20, 5);
        assert_eq!(chosen.taken, (0..20).collect::<Vec<_>>());
        // A share is one; the second half has none left for the first twenty.
        assert_eq!((chosen.capped, chosen.surplus), (20, 60));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nobody_has_more_than_its_share(
            owners in proptest::collection::vec(0_u8..12, 0..200), most in 0_usize..250, percent in 1_u32..=100,
        ) {
            let names: Vec<String> = owners.iter().map(u8::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let chosen = choose(&names, most, percent);
            let total = chosen.taken.len();
            prop_assert!(total <= most);
            prop_assert_eq!(total as u64 + chosen.capped + chosen.surplus, owners.len() as u64);
            for owner in 0..12 {
                let share = chosen.taken.iter().filter(|position| owners[**position] == owner).count();
                prop_assert!(share <= 1 || share * 100 <= total * percent as usize, "{} of {}", share, total);
            }
        }
    }
}
