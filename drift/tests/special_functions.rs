//! The special functions against values computed with 60 digits, and the distribution of `D` of a finite sample, where a
//! choice of approximations is copied, against scipy (`drift/reference/special_functions.py`).

use std::collections::BTreeMap;

use perennial_drift::math;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    arguments: Vec<String>,
    value: String,
}

/// The function of this name, and how far its values may be from the true ones, relatively.
#[expect(clippy::panic, reason = "a helper of the test")]
fn function(name: &str) -> (f64, fn(&[f64]) -> f64) {
    match name {
        "ln_gamma" => (1e-13, |a| math::ln_gamma(a[0])),
        "gamma_p" => (1e-12, |a| math::gamma_p(a[0], a[1])),
        "gamma_q" => (1e-12, |a| math::gamma_q(a[0], a[1])),
        "ln_gamma_q" => (1e-12, |a| math::ln_gamma_q(a[0], a[1])),
        "chi_squared_isf" => (1e-12, |a| math::chi_squared_isf(a[0], a[1])),
        "noncentral_chi_squared_sf" => (1e-12, |a| math::noncentral_chi_squared_sf(a[0], a[1], a[2])),
        "noncentral_lower_bound" => (1e-12, |a| math::noncentral_lower_bound(a[0], a[1], a[2])),
        "beta_cdf" => (1e-12, |a| math::beta_cdf(a[0], a[1], a[2])),
        "beta_sf" => (1e-12, |a| math::beta_sf(a[0], a[1], a[2])),
        "beta_quantile" => (1e-12, |a| math::beta_quantile(a[0], a[1], a[2])),
        "student_t_two_sided" => (1e-12, |a| math::student_t_two_sided(a[0], a[1])),
        "normal_sf" => (1e-12, |a| math::normal_sf(a[0])),
        "normal_quantile" => (1e-12, |a| math::normal_quantile(a[0])),
        "kolmogorov_sf" => (1e-12, |a| math::kolmogorov_sf(a[0])),
        "kolmogorov_isf" => (1e-12, |a| math::kolmogorov_isf(a[0])),
        "one_sample_kolmogorov_sf" => (1e-9, |a| math::one_sample_kolmogorov_sf(a[0], a[1] as u32)),
        "mixture_calibrator" => (1e-12, |a| math::mixture_calibrator(a[0])),
        other => panic!("no function for the table {other}"),
    }
}

#[test]
fn special_functions_agree_with_the_reference() {
    let tables: BTreeMap<String, Vec<Case>> =
        serde_json::from_str(include_str!("data/special-functions.json")).expect("the reference is JSON");
    let mut wrong = Vec::new();
    for (name, cases) in &tables {
        let (tolerance, compute) = function(name);
        let mut worst = 0.0f64;
        for Case { arguments, value } in cases {
            let arguments: Vec<f64> = arguments.iter().map(|text| text.parse().expect("a number")).collect();
            let value: f64 = value.parse().expect("a number");
            let found = compute(&arguments);
            let error = if value == 0.0 {
                found.abs()
            } else {
                (found / value - 1.0).abs()
            };
            worst = worst.max(error);
            if error.is_nan() || error > tolerance {
                wrong.push(format!(
                    "{name}{arguments:?} = {found:e}, not {value:e}: off by {error:e}"
                ));
            }
        }
        println!("{name}: {} values, worst relative error {worst:.1e}", cases.len());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
