//! Which requests are kept. The id alone decides, so that all replicas agree, and feedback knows whether there is an answer
//! that it can be joined with.

/// The rate that keeps all.
pub const ALL: u32 = 1000;

/// Whether the request of this id is among `per_mille` of 1000. Whoever is at some rate is so at every higher one.
#[must_use]
pub fn is_sampled(id: &str, per_mille: u32) -> bool {
    let place = (u128::from(hash(id.as_bytes())) * u128::from(ALL)) >> 64;
    place < u128::from(per_mille)
}

/// For how many requests one of the sample stands.
#[must_use]
pub fn weight(per_mille: u32) -> f64 {
    f64::from(ALL) / f64::from(per_mille.clamp(1, ALL))
}

/// FNV-1a, then SplitMix64's output function, because the high bits decide. Written out, so that no release of a library makes
/// an old replica and a new one disagree.
fn hash(bytes: &[u8]) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids as the server makes them.
    fn ids() -> impl Iterator<Item = String> {
        (0..100_000_u64).map(|number| {
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            format!("req-{mixed:016x}{:016x}", !mixed)
        })
    }

    #[test]
    fn the_rate_is_what_was_asked_for() {
        for per_mille in [1, 10, 50, 250, 900] {
            let kept = ids().filter(|id| is_sampled(id, per_mille)).count() as f64;
            let (mean, share) = (100.0 * f64::from(per_mille), f64::from(per_mille) / 1000.0);
            let deviation = (mean * (1.0 - share)).sqrt();
            assert!((kept - mean).abs() < 5.0 * deviation, "{kept} of {mean} at {per_mille}");
            assert!((weight(per_mille) * share - 1.0).abs() < 1e-12);
        }
        assert!(ids().all(|id| is_sampled(&id, ALL) && !is_sampled(&id, 0)));
    }

    #[test]
    fn counters_as_ids_are_sampled_evenly_too() {
        let kept = (0..100_000)
            .filter(|number| is_sampled(&number.to_string(), 100))
            .count();
        assert!((9_500..10_500).contains(&kept), "{kept}");
    }

    #[test]
    fn a_higher_rate_keeps_what_a_lower_one_kept() {
        for id in ids().take(2_000) {
            let first = (0..=ALL)
                .find(|per_mille| is_sampled(&id, *per_mille))
                .expect("all are in 1000");
            assert!((first..=ALL).step_by(37).all(|per_mille| is_sampled(&id, per_mille)));
        }
    }

    #[test]
    fn choices_are_pinned_because_replicas_of_two_versions_must_agree() {
        let chosen: Vec<u64> = (0..200)
            .filter(|number| is_sampled(&format!("req-{number}"), 50))
            .collect();
        assert_eq!((hash(b""), hash(b"req-1")), PINNED);
        assert_eq!(chosen, CHOSEN);
    }

    const PINNED: (u64, u64) = (17_665_956_581_633_026_203, 731_977_614_612_919_186);
    const CHOSEN: &[u64] = &[1, 12, 50, 53, 84, 99, 119, 127, 134, 162, 185];
}
