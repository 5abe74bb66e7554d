//! Which segments have to go. Pure.
//!
//! **A clock that jumps ahead deletes at once no more than what was begun within one day.** While a collector runs and its clock
//! goes right, what is too old goes in time, also without records. Nothing is then too old for more than a day; where something
//! is, the clock has jumped, or nobody looked. The segments tell: it goes if they show no jump, or if they were begun on this side
//! of it for a day. The price: what became too old while there was no collector stays until there were records for a day.

use super::metrics::Surplus;
use super::segment::Name;

/// Seconds for which a clock that jumped has to go on before it is believed.
const DAY: i64 = 86_400;

/// A finished segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its name.
    pub name: Name,
    /// Its size, with that of the file with its hash.
    pub bytes: u64,
}

/// How much is kept for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Seconds.
    pub seconds: i64,
    /// Bytes of all segments together.
    pub bytes: u64,
}

/// The segments that have to go, of finished ones in their order and perhaps an open one of so many bytes.
///
/// The newest one goes for its age only: it says how far processes have been heard.
#[must_use]
pub fn surplus(closed: &[Closed], open: Option<u64>, keep: Keep, now: i64) -> Vec<(Name, Surplus)> {
    let mut bytes = open.unwrap_or(0) + closed.iter().map(|segment| segment.bytes).sum::<u64>();
    let newest = closed.last().filter(|_| open.is_none()).map(|segment| segment.name);
    let certain = certain(closed, now);
    let mut gone = Vec::new();
    for segment in closed {
        let too_old_for = |time: i64| time.saturating_sub(segment.name.opened).saturating_sub(keep.seconds);
        let old = too_old_for(certain) > 0 || (1..=DAY).contains(&too_old_for(now));
        if old || (bytes > keep.bytes && Some(segment.name) != newest) {
            bytes -= segment.bytes;
            gone.push((segment.name, if old { Surplus::Age } else { Surplus::Size }));
        }
    }
    gone
}

/// The latest time that has certainly come: now, unless the clock went ahead by more than a day between two segments, or since the
/// last one, and less than a day ago; then the time before that.
fn certain(closed: &[Closed], now: i64) -> i64 {
    let opened = closed.iter().map(|segment| segment.name.opened);
    let mut times: Vec<i64> = opened.filter(|opened| *opened <= now).collect();
    times.sort_unstable();
    times.push(now);
    let jump = times.windows(2).rfind(|pair| pair[1].saturating_sub(pair[0]) > DAY);
    match jump {
        Some(&[before, after]) if now.saturating_sub(after) < DAY => before,
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep {
        seconds: 100,
        bytes: 30,
    };

    fn closed(opened: &[i64]) -> Vec<Closed> {
        let segments = opened.iter().zip(0..);
        let segment = |(opened, sequence): (&i64, u64)| Closed {
            name: Name {
                sequence,
                opened: *opened,
            },
            bytes: 10,
        };
        segments.map(segment).collect()
    }

    fn gone(opened: &[i64], open: Option<u64>, now: i64) -> Vec<(u64, Surplus)> {
        let gone = surplus(&closed(opened), open, KEEP, now).into_iter();
        gone.map(|(name, why)| (name.sequence, why)).collect()
    }

    const MONTH: Keep = Keep {
        seconds: 30 * DAY,
        bytes: u64::MAX,
    };
    /// Segments are begun every hour.
    const HOUR: i64 = 3600;

    fn every_hour(days: std::ops::Range<i64>) -> Vec<i64> {
        (days.start * 24..days.end * 24).map(|hour| hour * HOUR).collect()
    }

    /// What is left of these segments when they are looked at at these times.
    fn left(mut opened: Vec<i64>, times: impl IntoIterator<Item = i64>) -> Vec<i64> {
        for now in times {
            let gone = surplus(&closed(&opened), Some(1), MONTH, now);
            opened.retain(|opened| gone.iter().all(|(name, _)| name.opened != *opened));
        }
        opened
    }

    #[test]
    fn a_clock_that_jumps_ahead_deletes_at_most_the_oldest() {
        let kept = every_hour(0..30);
        let now = 30 * DAY;
        for (days, lost) in [(1, 1), (10, 1), (29, 1), (30, 1), (31, 0), (365, 0), (10_000, 0)] {
            let left = left(kept.clone(), [now + days * DAY]);
            assert!(left.len() + 24 * lost >= kept.len(), "{days}: {} are left", left.len());
        }
        assert_eq!(left(kept.clone(), [i64::MAX]), kept);
        // Segments that were begun by it change nothing for a day.
        let year = now + 365 * DAY;
        let wrong: Vec<i64> = (0..24).map(|hour| year + hour * HOUR).collect();
        let both = [kept, wrong.clone()].concat();
        assert_eq!(left(both.clone(), [year + DAY - 1]), both);
        // Set right, it is as if there had been no jump.
        assert_eq!(left(both.clone(), [now]), both);
        assert_eq!(left(both.clone(), [now + DAY])[0], DAY);
        // After a day it is believed.
        assert_eq!(left(both, [year + DAY]), wrong);
    }

    #[test]
    fn without_records_the_old_go_in_time() {
        let kept = every_hour(0..30);
        for days in [31, 45, 59] {
            let left = left(kept.clone(), every_hour(30..days));
            assert_eq!(left[0], (days - 30) * DAY - HOUR, "after {days} days");
        }
        assert_eq!(left(kept, every_hour(30..61)), [0_i64; 0]);
    }

    #[test]
    fn what_became_too_old_without_a_collector_goes_after_a_day_with_records() {
        let kept = every_hour(0..30);
        let away_until = 50 * DAY;
        assert_eq!(left(kept.clone(), [away_until])[0], 0);
        let since: Vec<i64> = (0..24).map(|hour| away_until + hour * HOUR).collect();
        let both = [kept, since].concat();
        assert_eq!(left(both.clone(), [away_until + DAY - 1])[0], 0);
        assert_eq!(left(both, [away_until + DAY])[0], 21 * DAY);
    }

    #[test]
    fn those_that_are_too_old_since_less_is_kept_go_at_once() {
        let opened = every_hour(0..60);
        assert_eq!(left(opened, [60 * DAY])[0], 30 * DAY);
    }

    #[test]
    fn the_old_go_wherever_they_are() {
        assert_eq!(gone(&[0, 50, 60], None, 100), []);
        assert_eq!(gone(&[0, 50, 60], None, 101), [(0, Surplus::Age)]);
        // A clock that was wrong once keeps nothing longer than it may be kept.
        assert_eq!(gone(&[90, 0, 60], None, 101), [(1, Surplus::Age)]);
        assert_eq!(gone(&[0], None, 1000), [(0, Surplus::Age)]);
    }

    #[test]
    fn when_there_is_too_much_the_oldest_go_first() {
        assert_eq!(gone(&[1, 2, 3], None, 4), []);
        assert_eq!(
            gone(&[1, 2, 3, 4, 5], None, 6),
            [(0, Surplus::Size), (1, Surplus::Size)]
        );
        assert_eq!(gone(&[1, 2, 3], Some(1), 4), [(0, Surplus::Size)]);
        assert_eq!(
            gone(&[0, 50, 60, 70, 80], None, 110),
            [(0, Surplus::Age), (1, Surplus::Size)]
        );
    }

    #[test]
    fn the_newest_stays_because_it_tells_what_was_taken() {
        let mut large = closed(&[1]);
        large[0].bytes = 1000;
        assert_eq!(surplus(&large, None, KEEP, 2), []);
        assert_eq!(surplus(&large, Some(1), KEEP, 2), [(large[0].name, Surplus::Size)]);
    }
}
