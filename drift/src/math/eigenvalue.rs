//! Eigenvalues of small symmetric matrices.

/// Sweeps after which even a matrix of extreme spread is diagonal to the last bit.
const MOST_SWEEPS: usize = 60;

/// The largest eigenvalue of a symmetric matrix of `n` rows, given row by row; only its upper triangle is read. `None` if
/// `n` is zero, the length is not `n * n`, or an entry is not finite.
///
/// Cyclic Jacobi rotations (Golub and Van Loan 8.5): slower than a power iteration, `O(n^3)` a sweep and some eight sweeps,
/// but as exact where the two largest eigenvalues are close, and without a starting vector to choose.
#[must_use]
pub fn largest_eigenvalue(matrix: &[f64], n: usize) -> Option<f64> {
    if n == 0 || matrix.len() != n * n || matrix.iter().any(|entry| !entry.is_finite()) {
        return None;
    }
    let mut rows: Vec<f64> = (0..n * n)
        .map(|index| {
            let (row, column) = (index / n, index % n);
            matrix[row.min(column) * n + row.max(column)]
        })
        .collect();
    for _ in 0..MOST_SWEEPS {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                rotated |= rotate(&mut rows, n, p, q);
            }
        }
        if !rotated {
            break;
        }
    }
    (0..n).map(|index| rows[index * n + index]).reduce(f64::max)
}

/// Turns the plane of `p` and `q` so that their entry vanishes. Whether there was anything to turn.
fn rotate(rows: &mut [f64], n: usize, p: usize, q: usize) -> bool {
    let off = rows[p * n + q];
    let (first, second) = (rows[p * n + p], rows[q * n + q]);
    // What no longer changes either diagonal entry is zero.
    if first.abs() + off.abs() * 1e-2 == first.abs() && second.abs() + off.abs() * 1e-2 == second.abs() {
        return false;
    }
    let theta = (second - first) / (2.0 * off);
    // For a large theta its square overflows and the tangent becomes zero, as it should.
    let tangent = 1.0f64.copysign(theta) / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    for k in 0..n {
        let (left, right) = (rows[k * n + p], rows[k * n + q]);
        rows[k * n + p] = cosine * left - sine * right;
        rows[k * n + q] = sine * left + cosine * right;
    }
    for k in 0..n {
        let (left, right) = (rows[p * n + k], rows[q * n + k]);
        rows[p * n + k] = cosine * left - sine * right;
        rows[q * n + k] = sine * left + cosine * right;
    }
    rows[p * n + q] = 0.0;
    rows[q * n + p] = 0.0;
    true
}
