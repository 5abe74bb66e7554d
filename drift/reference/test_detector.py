"""Checks detector.py against the oracle values O11 to O13 (scipy 1.14.1) and against what makes an e-value one.

    drift/reference/run.sh test_detector.py

Runs in seconds. Ends with "N passed, N failed".
"""

import sys
import traceback

import numpy as np

import detector

REFERENCE = np.array([160, 180, 160, 140, 120, 120], float)


def close(value, expected, relative=1e-9):
    """expected: a number, or the digits of one; digits are compared as far as they go."""
    if isinstance(expected, str):
        number = float(expected)
        digits = len(expected.lstrip("-").split("e")[0].replace(".", "").lstrip("0"))
        half_unit = 0.5 * 10.0 ** (np.floor(np.log10(abs(number))) - digits + 1)
        tolerance = max(relative * abs(number), half_unit * (1 + 1e-6))
    else:
        number, tolerance = expected, relative * abs(expected)
    assert abs(value - number) <= tolerance, f"{value!r} is not {expected}"


def test_o11_dirichlet_multinomial():
    cases = {
        (16, 16, 16, 16, 16, 8): "-0.567179273290",
        (5, 5, 10, 20, 30, 18): "12.929869267527",
        (0, 0, 0, 0, 0, 88): "135.081078461742",
        (18, 20, 18, 16, 14, 14): "-0.636820448210",
    }
    for counts, expected in cases.items():
        close(float(detector.log_e_omnibus(np.array(counts, float), REFERENCE)), expected)


def test_o12_directional():
    sums = [2, -3, 8, 10, 25, 30]
    expected = ["0.19136441433", "0.295869051167", "0.473157460493", "0.967639176848", "13.9137478246", "515.217970754"]
    path = detector.shiryaev_roberts(detector.e_directional(sums, 100)).mean(0)
    for value, digits in zip(path, expected, strict=True):
        close(float(value), digits)


def test_o13_gamma_null():
    for statistic, expected in [(0.62, "0.459857392002"), (1.0, "0.0345592281901"), (1.9, "1.70261423631e-06")]:
        close(float(detector.gamma_null_sf(statistic, 0.62, 0.035)), expected)


def test_o13_bernoulli():
    close(detector.e_bernoulli(9, 100, 0.03), "9.02790744878")
    close(detector.e_bernoulli(3, 100, 0.03), "0.648537541362")


def test_o8_calibrator():
    cases = {1e-6: 5239.1361842507085, 1e-3: 20.791133540988064, 0.01: 4.45099226008582, 0.05: 1.783322181482338}
    cases |= {0.5: 0.6386739401166445, 1.0: 0.5}
    for p, expected in cases.items():
        close(float(detector.mixture_calibrator(p)), expected)
    # The series meets the formula where it takes over.
    close(
        float(detector.mixture_calibrator(np.exp(-0.99999e-3))),
        float(detector.mixture_calibrator(np.exp(-1.00001e-3))),
        1e-7,
    )


def test_o10_shiryaev_roberts():
    path = detector.shiryaev_roberts(np.array([0.5] * 10 + [4.0] * 10))
    close(float(path[9]), 0.9990234375)
    close(float(path[10]), 7.99609375)
    assert round(float(path[19])) == 2445652


def test_dirichlet_multinomial_sums_to_one():
    alpha, total = np.array([0.7, 2.0, 1.3]), 0.0
    # Of sequences of three, each of the 3^3 once.
    for sequence in np.ndindex(3, 3, 3):
        counts = np.bincount(sequence, minlength=3).astype(float)
        total += float(np.exp(detector.log_dirichlet_multinomial(counts, alpha)))
    close(total, 1.0)


def test_histograms_count_everything_and_put_edges_below():
    counts = detector.histograms(np.array([1.0, 2.0, 3.0, 4.0] * 25), np.array([2.0, 3.0]))
    assert counts.tolist() == [[50.0, 25.0, 25.0]]


def test_alarms_after_a_change_and_none_before():
    for name, least, most in [("+0.25 sigma", 300, 1500), ("+0.5 sigma", 100, 600), ("spread x1.25", 400, 3200)]:
        ref, x = detector.change_stream(5000, detector.SCENARIOS[name])
        first = detector.detect(ref, x)[0] - detector.BEFORE
        assert least <= first <= most, f"{name}: {first}"


def test_one_stream_of_the_null_is_silent():
    ref, x = detector.null_stream(detector.NULL_SEED)
    assert detector.detect(ref, x) == []


def test_explicit_options_are_the_defaults():
    ref, x = detector.change_stream(5001, detector.SCENARIOS["+0.5 sigma"], after=5000)
    explicit = detector.detect(ref, x, edges=detector.deciles(ref), kappa=detector.THETAS**2 / 2)
    assert explicit == detector.detect(ref, x) and explicit
    # More caution is never sooner.
    assert detector.detect(ref, x, phi_omnibus=3.0, phi_directional=3.0)[0] >= explicit[0]


def test_seasonal_with_one_hour_is_the_plain_one():
    ref, x = detector.change_stream(5002, detector.SCENARIOS["5 % mixture"], after=5000)
    plain = detector.detect(ref, x)
    hours = np.zeros(len(ref) // detector.PANE, int), np.zeros(len(x) // detector.PANE, int)
    assert detector.detect_seasonal(ref, hours[0], x, hours[1]) == plain


def test_design_effects():
    ref, _ = detector.null_stream(1)
    omnibus, directional = detector.design_effects(ref)
    assert 1.0 <= omnibus < 1.6 and 1.0 <= directional < 1.3
    sessions, _ = detector.clustered_stream(1, after=100)
    omnibus, directional = detector.design_effects(sessions)
    # 1 + (10 - 1) 0.25 of the sums.
    assert 2.9 < directional < 3.6 and 2.4 < omnibus < 4.0, (omnibus, directional)


def test_empirical_cumulants_of_gaussian_values():
    values = np.random.default_rng(3).normal(size=400_000)
    assert np.abs(detector.empirical_kappa(values) - detector.THETAS**2 / 2).max() < 0.01


def main() -> int:
    tests = [(name, function) for name, function in globals().items() if name.startswith("test_")]
    failed = 0
    for name, function in tests:
        try:
            function()
        except Exception:
            failed += 1
            print(f"{name} FAILED")
            traceback.print_exc()
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
