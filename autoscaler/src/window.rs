//! The largest, or the smallest, value of the last while.

use std::collections::VecDeque;

/// Seconds of the longest window that the API allows. As equal and smaller values go, hardly more is kept than there are numbers.
const LONGEST: f64 = 3600.0;

/// The largest of the values of the last while. Keeps only what can still become the largest.
#[derive(Clone, Debug, Default)]
pub struct Largest {
    /// Falling values with the times at which they came.
    kept: VecDeque<(f64, i64)>,
    /// Since when values have come.
    since: Option<f64>,
}

impl Largest {
    /// Takes a value and forgets what no window can reach.
    pub fn push(&mut self, now: f64, value: i64) {
        self.since.get_or_insert(now);
        while self.kept.back().is_some_and(|(_, kept)| *kept <= value) {
            self.kept.pop_back();
        }
        self.kept.push_back((now, value));
        while self.kept.len() > 1 && self.kept.front().is_some_and(|(at, _)| now - at > LONGEST) {
            self.kept.pop_front();
        }
    }

    /// The largest value of the last `window` seconds; `None` while there are not values for so long yet.
    #[must_use]
    pub fn largest(&self, now: f64, window: f64) -> Option<i64> {
        if now - self.since? < window {
            return None;
        }
        self.kept
            .iter()
            .find(|(at, _)| now - at <= window)
            .or(self.kept.back())
            .map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_the_window_and_nothing_before_it_is_full() {
        let mut window = Largest::default();
        window.push(0.0, 5);
        window.push(4.0, 2);
        assert_eq!(window.largest(4.0, 10.0), None);
        window.push(10.0, 3);
        assert_eq!(window.largest(10.0, 10.0), Some(5));
        window.push(12.0, 1);
        assert_eq!(window.largest(12.0, 10.0), Some(3));
        window.push(30.0, 1);
        assert_eq!(window.largest(30.0, 10.0), Some(1));
        // A window that was made longer reaches back to what was known before.
        assert_eq!(window.largest(30.0, 25.0), Some(3));
        // Without a window the last value counts.
        assert_eq!(window.largest(30.0, 0.0), Some(1));
    }
}
