//! By how much the load has lately exceeded its forecast: the reserve that is worth its price.
//!
//! A forecast is judged when its time has come. The root of the mean square of what came on top of it, over about an hour,
//! is how much more one has to reckon with. A steady load earns a small reserve, a capricious one a large one, and the
//! longer replicas take to start, the more can happen meanwhile.

use std::collections::VecDeque;

/// Seconds between two forecasts that are judged.
const EVERY: f64 = 10.0;
/// Half-life of a surprise in seconds.
const HALF_LIFE: f64 = 3600.0;
/// Forecasts that must have been judged before there is a reserve.
const FEWEST: f64 = 10.0;
/// A forecast for further ahead is not waited for.
const FURTHEST: f64 = 900.0;

/// By how much the load has lately exceeded its forecast.
#[derive(Clone, Debug, Default)]
pub struct Surprise {
    pending: VecDeque<(f64, f64)>,
    squares: f64,
    weight: f64,
    last: Option<f64>,
}

impl Surprise {
    /// Takes the load of this moment, and the one that is forecast for `ahead` seconds later.
    pub fn push(&mut self, now: f64, load: f64, ahead: f64, forecast: f64) {
        if self.last.is_some_and(|last| now - last < EVERY) {
            return;
        }
        // What fell due while nobody looked cannot be judged by the load of another moment.
        let gap = self.last.is_some_and(|last| now - last > 3.0 * EVERY);
        self.last = Some(now);
        while let Some((_, expected)) = self.pending.pop_front_if(|(due, _)| *due <= now) {
            if gap {
                continue;
            }
            let more = (load - expected).max(0.0);
            let faded = (-EVERY / HALF_LIFE).exp2();
            self.squares = self.squares * faded + more * more;
            self.weight = self.weight * faded + 1.0;
        }
        self.pending.push_back((now + ahead.clamp(EVERY, FURTHEST), forecast));
    }

    /// How much more than forecast one has to reckon with; 0 until enough forecasts have been judged.
    #[must_use]
    pub fn reserve(&self) -> f64 {
        if self.weight < FEWEST {
            return 0.0;
        }
        (self.squares / self.weight).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(loads: impl Iterator<Item = f64>) -> f64 {
        let mut surprise = Surprise::default();
        for (tick, load) in loads.enumerate() {
            // The forecast is that nothing changes.
            surprise.push(tick as f64 * 2.0, load, 60.0, load);
        }
        surprise.reserve()
    }

    #[test]
    fn a_steady_load_needs_no_reserve_and_a_capricious_one_a_large_one() {
        assert_eq!(after((0..3000).map(|_| 10.0)), 0.0);
        let square = after((0..3000).map(|tick| if tick / 100 % 2 == 0 { 10.0 } else { 30.0 }));
        assert!((5.0..20.0).contains(&square), "{square}");
    }

    #[test]
    fn what_fell_due_in_a_gap_is_not_judged() {
        let mut surprise = Surprise::default();
        for tick in 0..100 {
            surprise.push(f64::from(tick) * 10.0, 5.0, 60.0, 5.0);
        }
        surprise.push(5000.0, 500.0, 60.0, 500.0);
        assert_eq!(surprise.reserve(), 0.0);
    }
}
