//! From p-values to e-values.

/// `(1 - p + p ln p) / (p ln^2 p)`: the e-value `integral of kappa p^(kappa - 1) over kappa in [0, 1]` that belongs to a
/// p-value in `[0, 1]` (Vovk and Wang, "E-values", Annals of Statistics 2021). Its mean is at most 1 if there is no change.
///
/// Infinite for 0, and 1/2 for 1.
#[must_use]
pub fn mixture_calibrator(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 {
        f64::INFINITY
    } else {
        libm::exp(ln_mixture_calibrator(libm::log(p)))
    }
}

/// The logarithm of the [`mixture_calibrator`], from the logarithm of the p-value, which is at most 0: for p-values that
/// are too small for a float.
#[must_use]
pub fn ln_mixture_calibrator(ln_p: f64) -> f64 {
    if ln_p.is_nan() || ln_p > 0.0 {
        return f64::NAN;
    }
    if ln_p == f64::NEG_INFINITY {
        return f64::INFINITY;
    }
    // With v = -ln p the e-value is (e^v - 1 - v) / v^2 = sum_k v^k / (k + 2)!.
    let v = -ln_p;
    if v >= 1.0 {
        return v + libm::log1p(-(1.0 + v) * libm::exp(-v)) - 2.0 * libm::log(v);
    }
    // Near p = 1 the closed form cancels.
    let series = (3..=20).rev().fold(1.0, |sum, k| 1.0 + sum * v / f64::from(k));
    libm::log(series / 2.0)
}
