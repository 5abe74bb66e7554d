//! How far an hour's own figures are trusted against those of all hours.

/// What a cell of the season counts for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// Weight of the cell's own figure; the pooled figure has the rest.
    pub(crate) own: f64,
    /// Requests that the mixture is worth.
    pub(crate) size: f64,
}

/// Shares by cell, from the cells' requests and how much more they differ than chance would have them (1 when not at all).
///
/// By the method of moments: when cells differ by chance alone the pooled figure is taken; the more they really differ,
/// the less of it is mixed in.
pub(crate) fn shares(counts: &[f64], excess: f64) -> Vec<Share> {
    let total: f64 = counts.iter().sum();
    let used = counts.iter().filter(|count| **count > 0.0).count() as f64;
    let typical = if used > 1.0 {
        (total - counts.iter().map(|count| count * count).sum::<f64>() / total) / (used - 1.0)
    } else {
        total
    };
    let prior = if excess > 1.0 {
        typical / (excess - 1.0)
    } else {
        f64::INFINITY
    };
    counts
        .iter()
        .map(|count| {
            // Never worth more than all requests together.
            let borrowed = prior.min(total - count);
            let size = count + borrowed;
            Share {
                own: if size > 0.0 { count / size } else { 0.0 },
                size,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_differ_by_chance_are_pooled() {
        for share in shares(&[800.0, 900.0, 1_000.0], 0.9) {
            assert!((share.size - 2_700.0).abs() < 1e-9);
            assert!(share.own < 0.4);
        }
    }

    #[test]
    fn cells_that_differ_much_stand_for_themselves() {
        let shares = shares(&[800.0, 0.0, 1_000.0], 50.0);
        assert!(shares[0].own > 0.95 && shares[0].size < 850.0);
        assert!(shares[1].own == 0.0 && shares[1].size < 30.0);
    }
}
