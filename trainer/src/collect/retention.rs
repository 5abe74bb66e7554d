//! Which segments have to go. Pure.

use super::metrics::Surplus;
use super::segment::Name;

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
    let mut gone = Vec::new();
    for segment in closed {
        let old = now.saturating_sub(segment.name.opened) > keep.seconds;
        if old || (bytes > keep.bytes && Some(segment.name) != newest) {
            bytes -= segment.bytes;
            gone.push((segment.name, if old { Surplus::Age } else { Surplus::Size }));
        }
    }
    gone
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
