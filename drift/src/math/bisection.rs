//! Inverting monotone functions.

/// The largest number in `[low, high]` for which `holds`, given that it holds up to some point and not beyond.
///
/// `0 <= low <= high`, and `holds(low)` is taken for granted. Halves the interval of bit patterns, not of values, so that
/// 64 evaluations give the last bit whatever the magnitude.
pub(super) fn last_where(low: f64, high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(high) {
        return high;
    }
    let (mut inside, mut outside) = (low.to_bits(), high.to_bits());
    while outside - inside > 1 {
        let middle = inside + (outside - inside) / 2;
        if holds(f64::from_bits(middle)) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    f64::from_bits(inside)
}
