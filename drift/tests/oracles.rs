//! The figures of scipy, Evidently and the papers, each to nine digits.

mod oracles {
    mod combination;
    mod counts;
    mod samples;
    mod sequential;

    /// Whether two numbers agree to nine digits.
    #[track_caller]
    pub fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-9 * expected.abs(),
            "{found:e}, not {expected:e}"
        );
    }
}
