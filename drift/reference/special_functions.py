"""Writes drift/tests/data/special-functions.json: what the special functions of `math` must give.

Needs mpmath and scipy. Values are computed with 60 digits; where scipy has the function, too, it must agree, so that a
slip in a formula here is seen. Run it from anywhere: python3 drift/reference/special_functions.py
"""

import json
import pathlib

import mpmath as mp
import scipy
from scipy import special, stats

mp.mp.dps = 60
OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "special-functions.json"
SMALLEST = mp.mpf("1e-300")


def case(arguments, value, known=None, tolerance=1e-8):
    """One line of the table. Scipy's own tails carry fewer digits than 60.

    Numbers are strings, because serde_json reads floats only to the last digit but one.
    """
    value = mp.mpf(value)
    if known is not None and abs(value) > SMALLEST:
        assert abs(mp.mpf(float(known)) / value - 1) < tolerance, (arguments, value, known)
    return {"arguments": [repr(float(a)) for a in arguments], "value": repr(float(value))}


def gamma_q(a, x):
    return mp.gammainc(mp.mpf(a), mp.mpf(x), mp.inf, regularized=True)


def gamma_p(a, x):
    return mp.gammainc(mp.mpf(a), 0, mp.mpf(x), regularized=True)


SHAPES = [0.05, 0.5, 1, 1.5, 2.5, 4.5, 10.98, 64, 500, 10000]
FACTORS = [0.01, 0.3, 0.7, 0.95, 1, 1.05, 1.5, 3, 10]


def ln_gammas():
    points = [1e-8, 0.01, 0.3, 0.5, 0.999, 1.001, 1.3, 1.999, 2.001, 2.7, 5, 7.5, 9.99, 12, 35.5, 171, 1e3, 123456.5, 1e9]
    return [case([x], mp.loggamma(mp.mpf(x)), special.gammaln(x)) for x in points]


def incomplete_gammas():
    lower, upper, ln_upper = [], [], []
    for a in SHAPES:
        for factor in FACTORS:
            x = float(a * factor)
            p, q = gamma_p(a, x), gamma_q(a, x)
            if p > SMALLEST:
                lower.append(case([a, x], p, special.gammainc(a, x)))
            if q > SMALLEST:
                upper.append(case([a, x], q, special.gammaincc(a, x)))
            ln_upper.append(case([a, x], mp.log(q)))
    for a in (0.5, 4.5, 64):
        for x in (300.0, 690.0):
            upper.append(case([a, x], gamma_q(a, x), special.gammaincc(a, x)))
        ln_upper.append(case([a, 5000.0], mp.log(gamma_q(a, 5000))))
    return lower, upper, ln_upper


def chi_squared_isf():
    lines = []
    for degrees in (1, 2, 5, 9, 63, 1000):
        for p in (0.999, 0.5, 0.05, 0.001, 1e-6, 1e-12, 1e-50, 1e-200):
            start = special.chdtri(degrees, p)
            root = mp.findroot(lambda x: mp.log(gamma_q(mp.mpf(degrees) / 2, x / 2)) - mp.log(mp.mpf(p)), start)
            lines.append(case([p, degrees], root, start))
    return lines


def noncentral(x, degrees, noncentrality):
    x, mean = mp.mpf(x), mp.mpf(noncentrality) / 2
    shape = mp.mpf(degrees) / 2
    weight = mp.exp(-mean)
    tail = gamma_q(shape, x / 2)
    density = (x / 2) ** shape * mp.exp(-x / 2) / mp.gamma(shape + 1)
    total, j = mp.mpf(0), 0
    while True:
        total += weight * tail
        if j > mean and weight < total * mp.mpf(10) ** -40:
            return total
        tail += density
        j += 1
        density *= x / 2 / (shape + j)
        weight *= mean / j


def noncentrals():
    tails, bounds = [], []
    for degrees in (1, 5, 9, 63):
        for noncentrality in (0, 0.3, 4, 20, 200, 3000):
            for factor in (0.5, 1, 1.5, 4, 12):
                x = (degrees + noncentrality) * factor
                value = noncentral(x, degrees, noncentrality)
                if value > SMALLEST:
                    # Scipy's far tails of this one are one minus something.
                    known = stats.ncx2.sf(x, degrees, noncentrality) if noncentrality and value > 1e-6 else None
                    tails.append(case([x, degrees, noncentrality], value, known))
    for x, degrees, confidence in [(30, 5, 0.95), (30, 5, 0.999), (60, 9, 0.99), (400, 9, 0.999999), (2000, 63, 0.95), (9, 9, 0.95)]:
        target = 1 - mp.mpf(confidence)
        if noncentral(x, degrees, 0) > target:
            bounds.append(case([x, degrees, confidence], 0))
            continue
        root = mp.findroot(
            lambda noncentrality: mp.log(noncentral(x, degrees, noncentrality)) - mp.log(target),
            (mp.mpf(0.01), mp.mpf(x)),
            solver="illinois",
            maxsteps=400,
        )
        bounds.append(case([x, degrees, confidence], root))
    return tails, bounds


PARAMETERS = [(0.5, 0.5), (1, 1), (2, 7), (0.5, 40), (9, 92), (31, 970), (4.5, 0.5), (500, 500), (3, 9998), (40000.5, 60000)]


def beta_lower(a, b, x):
    a, b, x = mp.mpf(a), mp.mpf(b), mp.mpf(x)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_lower(b, a, 1 - x)
    # mpmath's own takes minutes for large parameters: the series x^a (1-x)^b / (a B(a, b)) sum (a+b)_n / (a+1)_n x^n.
    term = x**a * (1 - x) ** b / a / mp.exp(mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b))
    total, n = mp.mpf(0), 0
    while term > total * mp.mpf(10) ** -45:
        total += term
        term *= x * (a + b + n) / (a + 1 + n)
        n += 1
    return total


def betas():
    lower, upper, quantiles = [], [], []
    for a, b in PARAMETERS:
        for p in (1e-30, 1e-9, 0.001, 0.05, 0.5, 0.975, 0.999999):
            start = special.betaincinv(a, b, p)
            x = float(start)
            p_value, q_value = beta_lower(a, b, x), beta_lower(b, a, 1 - mp.mpf(x))
            lower.append(case([x, a, b], p_value, special.betainc(a, b, x)))
            upper.append(case([x, a, b], q_value, special.betaincc(a, b, x)))
            root = mp.mpf(x)
            for _ in range(3):
                density = root ** (a - 1) * (1 - root) ** (b - 1) / mp.beta(a, b)
                root -= (beta_lower(a, b, root) - mp.mpf(p)) / density
            quantiles.append(case([a, b, p], root, start))
    return lower, upper, quantiles


def students():
    lines = []
    for degrees in (1, 4.7, 13.2, 200, 50000):
        for t in (1e-6, 0.3, 1, 2.2, 8, 40, 1e4):
            ratio = mp.mpf(degrees) / (mp.mpf(degrees) + mp.mpf(t) ** 2)
            value = beta_lower(mp.mpf(degrees) / 2, mp.mpf(1) / 2, ratio)
            if value > SMALLEST:
                lines.append(case([t, degrees], value, 2 * stats.t.sf(t, degrees)))
    return lines


def normals():
    tails = [case([z], mp.erfc(mp.mpf(z) / mp.sqrt(2)) / 2, special.ndtr(-z)) for z in (-8, -1, 0, 0.3, 1.96, 3, 6, 12, 25, 37)]
    quantiles = []
    for p in (1e-300, 1e-100, 1e-20, 1e-6, 0.001, 0.025, 0.3, 0.49, 0.51, 0.975, 0.999999, 1 - 2.0**-50):
        start = special.ndtri(p)
        root = mp.findroot(lambda z: mp.log(mp.erfc(-z / mp.sqrt(2)) / 2) - mp.log(mp.mpf(p)), mp.mpf(float(start)))
        quantiles.append(case([p], root, start))
    return tails, quantiles


def kolmogorov(x):
    return 2 * mp.nsum(lambda k: (-1) ** (k - 1) * mp.exp(-2 * k**2 * mp.mpf(x) ** 2), [1, mp.inf], method="d") if x > 0.7 else (
        1 - mp.sqrt(2 * mp.pi) / x * sum(mp.exp(-((2 * k - 1) ** 2) * mp.pi**2 / (8 * mp.mpf(x) ** 2)) for k in range(1, 60))
    )


def kolmogorovs():
    tails = [case([x], kolmogorov(x), special.kolmogorov(x)) for x in (0.05, 0.2, 0.4, 0.6, 0.79, 0.81, 1, 1.36, 2, 4, 10, 18)]
    quantiles = []
    for p in (0.999999, 0.9, 0.5, 0.05, 0.001, 1e-6, 1e-30, 1e-200):
        start = special.kolmogi(p)
        root = mp.findroot(lambda x: mp.log(kolmogorov(x)) - mp.log(mp.mpf(p)), mp.mpf(float(start)))
        quantiles.append(case([p], root, start))
    return tails, quantiles


def one_sample():
    """Scipy is the reference here, because it is the choice of formulas that is copied."""
    lines = []
    for n in (1, 4, 20, 80, 140, 150, 1000, 5000, 30000, 200000):
        for z in (0.3, 0.55, 0.8, 1.0, 1.4, 1.6, 2.5, 5.0):
            d = z / n**0.5
            value = stats.kstwo.sf(d, n)
            if d < 1 and value > 1e-280:
                lines.append(case([d, n], value))
    return lines


def calibrators():
    lines = []
    for p in (1e-300, 1e-30, 1e-6, 0.001, 0.01, 0.05, 0.3, 0.36, 0.37, 0.5, 0.9, 0.999, 1 - 1e-9, 1):
        v = -mp.log(mp.mpf(p))
        lines.append(case([p], (mp.exp(v) - 1 - v) / v**2 if v else mp.mpf(1) / 2))
    return lines


def main():
    gamma_lower, gamma_upper, ln_gamma_upper = incomplete_gammas()
    noncentral_tails, noncentral_bounds = noncentrals()
    beta_lowers, beta_uppers, beta_quantiles = betas()
    normal_tails, normal_quantiles = normals()
    kolmogorov_tails, kolmogorov_quantiles = kolmogorovs()
    tables = {
        "ln_gamma": ln_gammas(),
        "gamma_p": gamma_lower,
        "gamma_q": gamma_upper,
        "ln_gamma_q": ln_gamma_upper,
        "chi_squared_isf": chi_squared_isf(),
        "noncentral_chi_squared_sf": noncentral_tails,
        "noncentral_lower_bound": noncentral_bounds,
        "beta_cdf": beta_lowers,
        "beta_sf": beta_uppers,
        "beta_quantile": beta_quantiles,
        "student_t_two_sided": students(),
        "normal_sf": normal_tails,
        "normal_quantile": normal_quantiles,
        "kolmogorov_sf": kolmogorov_tails,
        "kolmogorov_isf": kolmogorov_quantiles,
        "one_sample_kolmogorov_sf": one_sample(),
        "mixture_calibrator": calibrators(),
    }
    lines = [f'"{name}": [\n' + ",\n".join(json.dumps(line) for line in table) + "\n]" for name, table in tables.items()]
    OUTPUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{sum(map(len, tables.values()))} values, scipy {scipy.__version__}, mpmath {mp.__version__}")


if __name__ == "__main__":
    main()
