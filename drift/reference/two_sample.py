"""Writes drift/tests/data/two-sample.json: what scipy says of pairs of samples, small, large and with ties.

Needs numpy and scipy. Run it from anywhere: python3 drift/reference/two_sample.py
"""

import json
import pathlib
import warnings

import numpy as np
import scipy
from scipy import stats

OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "two-sample.json"


def pairs():
    generator = np.random.default_rng(20240501)
    for m, n, shift in [(2, 2, 0.0), (3, 5, 0.4), (8, 13, 1.0), (19, 20, 0.5), (7, 300, -0.3), (60, 45, 0.2), (150, 400, 0.15)]:
        x, y = generator.normal(0, 1, m), generator.normal(shift, 1.2, n)
        yield np.round(x, 6), np.round(y, 6)
    # Whole numbers, so with many ties.
    for m, n in [(6, 9), (40, 70)]:
        yield generator.poisson(3, m).astype(float), generator.poisson(4, n).astype(float)


def case(x, y):
    exact_ranks = len(np.unique(np.concatenate([x, y]))) == len(x) + len(y) and min(len(x), len(y)) <= 8
    values = {
        "ks": stats.ks_2samp(x, y).statistic,
        "ks_exact": stats.ks_2samp(x, y, method="exact").pvalue,
        "ks_asymptotic": stats.ks_2samp(x, y, method="asymp").pvalue,
        "wasserstein": stats.wasserstein_distance(x, y),
        "energy": stats.energy_distance(x, y),
        "cvm": stats.cramervonmises_2samp(x, y).statistic,
        "cvm_exact": stats.cramervonmises_2samp(x, y, method="exact").pvalue if max(len(x), len(y)) <= 20 else None,
        "cvm_asymptotic": stats.cramervonmises_2samp(x, y, method="asymptotic").pvalue,
        "welch": stats.ttest_ind(x, y, equal_var=False).statistic,
        "welch_p": stats.ttest_ind(x, y, equal_var=False).pvalue,
        "mann_whitney": stats.mannwhitneyu(x, y).statistic,
        "mann_whitney_exact": stats.mannwhitneyu(x, y, method="exact").pvalue if exact_ranks else None,
        "mann_whitney_asymptotic": stats.mannwhitneyu(x, y, method="asymptotic").pvalue,
    }
    texts = {name: None if value is None else repr(float(value)) for name, value in values.items()}
    return {"x": [repr(float(v)) for v in x], "y": [repr(float(v)) for v in y], "values": texts}


def main():
    warnings.simplefilter("error")
    lines = [json.dumps(case(x, y)) for x, y in pairs()]
    OUTPUT.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} pairs, scipy {scipy.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
