//! Sequential tests.

use perennial_drift::classical::sequential::{MixtureTest, cusum, e_cusum, e_shiryaev_roberts};

use super::close;

#[test]
fn mixture_sequential_probability_ratio() {
    let test = MixtureTest::new(1.0, 1.0).unwrap();
    let known = [
        (10.0, 20, 2.36006972263534),
        (30.0, 100, 8.566723060368808),
        (45.0, 100, 2246.642631031076),
        (0.0, 100, 0.09950371902099892),
    ];
    for (sum, count, e_value) in known {
        close(test.ln_e_value(sum, count).unwrap().exp(), e_value);
    }
    let radius = test.radius(100, 0.05).unwrap();
    close(radius, 0.3273018624234933);
    // The confidence sequence leaves out just the means at which the e-value is 1 / alpha.
    close(test.ln_e_value(radius * 100.0, 100).unwrap(), 20f64.ln());
    assert_eq!(test.ln_e_value(0.0, 0).unwrap(), 0.0);
    assert!(test.radius(0, 0.05).is_err());
    assert!(test.radius(100, 0.0).is_err());
    assert!(test.ln_e_value(f64::NAN, 1).is_err());
    assert!(MixtureTest::new(0.0, 1.0).is_err());
}

#[test]
fn cusum_finds_the_shift() {
    let mut sum = 0.0;
    let alarm = (0..100).find(|&index| {
        sum = cusum(sum, if index < 50 { 0.0 } else { 1.0 }, 0.5).unwrap();
        sum >= 5.0
    });
    assert_eq!(alarm, Some(59));
    assert!(cusum(-1.0, 0.0, 0.5).is_err());
    assert!(cusum(0.0, f64::NAN, 0.5).is_err());
}

#[test]
fn e_detectors() {
    let (mut roberts, mut page) = (vec![0.0], vec![0.0]);
    for time in 0..20 {
        let e_value = if time < 10 { 0.5 } else { 4.0 };
        roberts.push(e_shiryaev_roberts(roberts[time], e_value).unwrap());
        page.push(e_cusum(page[time], e_value).unwrap());
    }
    for (time, wealth) in [(9, 0.9990234375), (10, 7.99609375), (19, 2445652.0)] {
        close(roberts[time + 1], wealth);
    }
    for (time, wealth) in [(9, 0.5), (10, 4.0), (19, 1048576.0)] {
        close(page[time + 1], wealth);
    }
}

#[test]
fn wealth_stays_a_number() {
    let infinite = e_shiryaev_roberts(1e300, f64::INFINITY).unwrap();
    assert!(infinite.is_finite());
    assert_eq!(e_shiryaev_roberts(infinite, 0.0).unwrap(), 0.0);
    assert_eq!(e_cusum(infinite, 0.0).unwrap(), 0.0);
    assert!(e_cusum(0.0, f64::NAN).is_err());
    assert!(e_shiryaev_roberts(0.0, -1.0).is_err());
}
