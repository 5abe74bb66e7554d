//! Where the load will be when a pod that is started now is ready.
//!
//! Means of ten seconds, a robust slope (Theil, 1950; Sen, 1968) over as long a past as the cold start is long, carried as
//! far ahead, and never beyond twice the present.

use std::collections::VecDeque;

/// Seconds of a mean.
const BUCKET: f64 = 10.0;
/// Means that are looked at, at most: their pairs are compared.
const POINTS: usize = 30;
/// The slope is taken over at least this many means.
const FEWEST: usize = 6;
/// No forecast goes beyond this many times the present.
pub const LARGEST_GROWTH: f64 = 2.0;

/// The load of the last minutes.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    means: VecDeque<f64>,
    sum: f64,
    count: u32,
    began: Option<f64>,
}

impl Trend {
    /// Takes a value. After a gap the past is forgotten: a slope across it would be an invention.
    pub fn push(&mut self, now: f64, value: f64) {
        let began = *self.began.get_or_insert(now);
        let passed = now - began;
        if !(0.0..3.0 * BUCKET).contains(&passed) {
            *self = Self::default();
            self.began = Some(now);
        } else if passed >= BUCKET {
            self.means.push_back(self.sum / f64::from(self.count.max(1)));
            if self.means.len() > POINTS {
                self.means.pop_front();
            }
            (self.sum, self.count) = (0.0, 0);
            self.began = Some(began + BUCKET);
        }
        self.sum += value;
        self.count += 1;
    }

    /// By which factor the load will have grown in `ahead` seconds, from 1 to [`LARGEST_GROWTH`].
    #[must_use]
    pub fn growth(&self, ahead: f64, present: f64) -> f64 {
        let wanted = ((ahead / BUCKET) as usize).clamp(FEWEST, POINTS).min(self.means.len());
        if wanted < FEWEST || present <= 0.0 {
            return 1.0;
        }
        let recent: Vec<f64> = self.means.range(self.means.len() - wanted..).copied().collect();
        let slope = slope(&recent) / BUCKET;
        (1.0 + slope.max(0.0) * ahead / present).min(LARGEST_GROWTH)
    }
}

/// The median slope between all pairs of points one apart.
fn slope(points: &[f64]) -> f64 {
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    for (index, later) in points.iter().enumerate() {
        for (other, earlier) in points[..index].iter().enumerate() {
            slopes.push((later - earlier) / (index - other) as f64);
        }
    }
    let middle = slopes.len() / 2;
    let (_, median, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    *median
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(values: impl Iterator<Item = f64>) -> Trend {
        let mut trend = Trend::default();
        for (tick, value) in values.enumerate() {
            trend.push(tick as f64 * 2.0, value);
        }
        trend
    }

    #[test]
    fn a_steady_rise_is_carried_ahead_and_a_fall_is_not() {
        let rising = trend((0..150).map(|tick| 10.0 + f64::from(tick) * 0.02));
        // 0.01 a second from 13: after 120 s it is 14.2.
        assert!((rising.growth(120.0, 13.0) - 14.2 / 13.0).abs() < 1e-9);
        assert_eq!(rising.growth(300.0, 1.0), LARGEST_GROWTH);
        let falling = trend((0..150).map(|tick| 100.0 - f64::from(tick) * 0.02));
        assert_eq!(falling.growth(120.0, 97.0), 1.0);
    }

    #[test]
    fn a_single_outlier_is_no_trend() {
        let spiked = trend((0..150).map(|tick| if tick == 140 { 1000.0 } else { 10.0 }));
        assert_eq!(spiked.growth(300.0, 10.0), 1.0);
    }

    #[test]
    fn after_a_gap_the_past_is_forgotten() {
        let mut gap = trend((0..150).map(f64::from));
        gap.push(1000.0, 500.0);
        assert_eq!(gap.growth(120.0, 500.0), 1.0);
    }
}
