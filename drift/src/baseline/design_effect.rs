//! By how much panes vary more than independent requests would have them vary.
//!
//! Sessions, retries and slow wandering make requests alike; evidence that took each for an independent one would raise
//! false alarms. Dividing log-evidence by the largest such factor keeps it valid (Rao and Scott, 1981, 1984).

/// Lengths of blocks, in units, at which the factor is looked for: wandering shows only in long ones.
const SCALES: [usize; 3] = [1, 4, 16];
/// Blocks that an estimate needs.
const LEAST: usize = 20;
/// The 99 % quantile of the Tracy-Widom distribution of real covariance matrices.
const TRACY_WIDOM: f64 = 2.023;
/// The same of the normal distribution.
const NORMAL: f64 = 2.326;

/// The largest factor over all scales. `rows` gives, for a number of units that make a block, one row of standardised
/// sums for each block: with variance one if requests were independent. `freedom` is how many rows' worth of freedom the
/// estimation of the expected values took.
pub(crate) fn largest(rows: impl Fn(usize) -> Vec<Vec<f64>>, freedom: f64) -> f64 {
    SCALES
        .iter()
        .map(|scale| {
            let rows = rows(*scale);
            if rows.len() < LEAST || (rows.len() as f64) < 2.0 * freedom {
                return 1.0;
            }
            let degrees = rows.len() as f64 - freedom;
            match rows[0].len() {
                0 => 1.0,
                1 => of_variance(&rows, degrees),
                _ => of_eigenvalue(top(&rows) / degrees, rows[0].len() as f64 - 1.0, degrees),
            }
        })
        .fold(1.0, f64::max)
}

/// The factor in one dimension; one when chance explains what was seen.
fn of_variance(rows: &[Vec<f64>], degrees: f64) -> f64 {
    let variance = rows.iter().map(|row| row[0] * row[0]).sum::<f64>() / degrees;
    if variance - 1.0 < NORMAL * libm::sqrt(2.0 / degrees) {
        1.0
    } else {
        variance
    }
}

/// The true largest eigenvalue behind a sample's, when the others are one (Baik and Silverstein, 2006; Paul, 2007).
/// Without this, independent requests would seem dependent the more groups there are and the fewer panes.
fn of_eigenvalue(sample: f64, dimensions: f64, degrees: f64) -> f64 {
    let (rows, columns) = (libm::sqrt(degrees), libm::sqrt(dimensions));
    let edge = (rows + columns) * (rows + columns) / degrees;
    let spread = (rows + columns) * libm::cbrt(1.0 / rows + 1.0 / columns) / degrees;
    if sample <= edge + TRACY_WIDOM * spread {
        return 1.0;
    }
    let ratio = dimensions / degrees;
    let shifted = sample + 1.0 - ratio;
    (shifted + libm::sqrt((shifted * shifted - 4.0 * sample).max(0.0))) / 2.0
}

/// Largest eigenvalue of `rows' rows`, by power iteration. Near ties are no harm: their eigenvalues are alike.
pub(crate) fn top(rows: &[Vec<f64>]) -> f64 {
    let columns = rows[0].len();
    // Any start that is not orthogonal to the answer will do; this one is uneven on purpose.
    let mut vector: Vec<f64> = (0..columns)
        .map(|index| 1.0 + 0.37 * ((index * 7 + 3) % 11) as f64)
        .collect();
    let mut value = 0.0;
    for _ in 0..300 {
        let length = libm::sqrt(vector.iter().map(|x| x * x).sum::<f64>());
        if length == 0.0 {
            return 0.0;
        }
        vector.iter_mut().for_each(|x| *x /= length);
        let mut next = vec![0.0; columns];
        for row in rows {
            let along: f64 = row.iter().zip(&vector).map(|(a, b)| a * b).sum();
            next.iter_mut().zip(row).for_each(|(sum, x)| *sum += along * x);
        }
        let grown = next.iter().zip(&vector).map(|(a, b)| a * b).sum::<f64>();
        let done = (grown - value).abs() <= 1e-9 * grown.abs();
        value = grown;
        if done {
            break;
        }
        vector = next;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_eigenvalue_is_found_near_a_tie_too() {
        assert!((top(&[vec![1.0, 1.0], vec![1.0, -1.0]]) - 2.0).abs() < 1e-6);
        assert!((top(&[vec![3.0, 0.0, 0.0], vec![0.0, 2.999, 0.0]]) - 9.0).abs() < 0.01);
        assert!(top(&[vec![0.0, 0.0]]).abs() < 1e-12);
    }

    #[test]
    fn what_chance_explains_is_one_and_a_spike_is_given_back() {
        assert!((of_eigenvalue(1.4, 9.0, 200.0) - 1.0).abs() < 1e-12);
        // Of a true eigenvalue l a sample shows l (1 + g / (l - 1)), with g columns for each row.
        let (spike, ratio) = (3.2, 9.0 / 200.0);
        let shown = spike * (1.0 + ratio / (spike - 1.0));
        assert!((of_eigenvalue(shown, 9.0, 200.0) - spike).abs() < 1e-9);
    }
}
