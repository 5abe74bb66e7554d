"""The detector of perennial-drift in numpy: the oracle of the Rust code, and the streams that both are measured on.

Plain and batchwise where the Rust code is careful and incremental: it sees a whole stream at once and says where alarms
were raised. Traffic comes in panes of 100 requests. Two families of evidence are added up by a Shiryaev-Roberts
recursion, M <- (M + 1) e:

- directional: exp((theta z - n kappa(theta)) / phi) of a pane's sum z of n standardised values, for theta on both sides
  of zero, averaged over theta. An alarm at 2c.
- omnibus: an e-value of the histogram (Dirichlet-multinomial) or of the embedding (random Fourier features) of blocks
  of 1, 4, 16 and 64 panes. An alarm at 8c / panes of the block.

The chance of any alarm within t panes without a change is at most t / c.

phi is a design effect: 1 for independent requests, more when requests come in sessions. It divides the log-evidence.
"""

import numpy as np
from scipy.special import gammaincc, gammaln

THETAS = np.array([-0.8, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4, 0.8])
CONCENTRATIONS = np.array([5.0, 20.0, 80.0, 320.0, 1280.0, 5120.0])
SCALES = (1, 4, 16, 64)
CELLS = 10
PANE = 100
# 90 days of panes of 5 minutes, and 5 % for any false alarm in them.
C_DEFAULT = 518_400
# Evidence stays within what a double can hold, on both sides.
LOG_LIMIT = 600.0
CEILING = 1e300


# Omnibus: histograms


def log_dirichlet_multinomial(counts, alpha):
    """Log-probability of a sequence of cells with these counts under a Dirichlet(alpha) prior; over the last axis."""
    total, n = alpha.sum(-1), counts.sum(-1)
    return gammaln(total) - gammaln(total + n) + (gammaln(counts + alpha) - gammaln(alpha)).sum(-1)


def log_e_omnibus(counts, reference):
    """Log of the e-value against "drawn from what the reference was drawn from".

    counts: (..., k). reference: (k,) or one row for each row of counts. The alternative is centred on the reference, at
    six concentrations of equal weight; the null is the posterior predictive of the reference, so what the reference
    does not know does not count as evidence.
    """
    smoothed = reference + 0.5
    centre = smoothed / smoothed.sum(-1, keepdims=True)
    logs = np.stack([log_dirichlet_multinomial(counts, rho * centre) for rho in CONCENTRATIONS])
    top = logs.max(0)
    mixture = top + np.log(np.exp(logs - top).mean(0))
    return mixture - log_dirichlet_multinomial(counts, smoothed)


def e_omnibus(counts, reference, phi=1.0):
    return np.exp(np.clip(log_e_omnibus(counts, reference) / phi, -LOG_LIMIT, LOG_LIMIT))


# Omnibus: embeddings


def fourier_features(vectors, frequencies):
    """cos and sin of the projections, so that a dot product of two is about the Gaussian kernel."""
    projected = vectors @ frequencies.T
    return np.concatenate([np.cos(projected), np.sin(projected)], axis=-1) / np.sqrt(len(frequencies))


def gamma_null_sf(statistic, a, b):
    """P(T >= statistic) for T with mean a and variance b, approximated by a gamma distribution."""
    return gammaincc(a * a / b, np.asarray(statistic) * a / b)


def mixture_calibrator(p):
    """An e-value from a p-value: (1 - p + p ln p) / (p ln^2 p), which is 1/2 at p = 1."""
    u = -np.log(np.clip(p, 1e-290, 1.0))
    safe = np.maximum(u, 1e-3)
    series = 0.5 + u / 6 + u**2 / 24 + u**3 / 120
    return np.where(u < 1e-3, series, (np.expm1(safe) - safe) / safe**2)


class EmbeddingNull:
    """What the baseline's Fourier features look like: their mean, and the null of the statistic."""

    def __init__(self, reference, frequencies=128, seed=20_000):
        generator = np.random.default_rng(seed)
        sample = reference[:1000].astype(float)
        squared = ((sample[:, None, :] - sample[None, :, :]) ** 2).sum(-1)
        self.bandwidth = float(np.sqrt(np.median(squared[np.triu_indices(len(sample), 1)])))
        self.frequencies = generator.normal(0.0, 1.0 / self.bandwidth, (frequencies, reference.shape[1]))
        features = fourier_features(reference.astype(float), self.frequencies)
        covariance = np.cov(features, rowvar=False)
        self.m, self.mean = len(features), features.mean(0)
        self.a, self.b = float(np.trace(covariance)), float(2 * (covariance**2).sum())

    def statistic(self, sums, n):
        """n_eff |mean - baseline's mean|^2 of sums of features over n requests each."""
        distance = ((sums / n - self.mean) ** 2).sum(-1)
        return n * self.m / (n + self.m) * distance

    def e_values(self, sums, n, phi=1.0):
        return mixture_calibrator(gamma_null_sf(self.statistic(sums, n) / phi, self.a, self.b))


# Directional


def e_directional(z, n, kappa=None, phi=1.0):
    """One row for each theta; z: sums of n standardised values. kappa: cumulants at THETAS, theta^2/2 when absent."""
    cumulants = THETAS**2 / 2 if kappa is None else np.asarray(kappa, float)
    exponent = (np.multiply.outer(THETAS, np.asarray(z, float)) - n * cumulants[:, None]) / phi
    return np.exp(np.clip(exponent, -LOG_LIMIT, LOG_LIMIT))


def empirical_kappa(standardised):
    """The cumulants of a baseline's own values, for signals that are far from Gaussian."""
    return np.array([np.log(np.exp(theta * standardised).mean()) for theta in THETAS])


def shiryaev_roberts(evidence):
    """The path of M <- (M + 1) e along the last axis."""
    state, path = np.zeros(evidence.shape[:-1]), np.empty_like(evidence)
    for step in range(evidence.shape[-1]):
        state = np.minimum((state + 1) * evidence[..., step], CEILING)
        path[..., step] = state
    return path


def e_bernoulli(successes, n, rate, ratios=(0.5, 0.7, 1.4, 2.0)):
    """Mixture of likelihood ratios against a rate, each alternative a multiple of it."""
    alternatives = np.minimum(np.asarray(ratios) * rate, 1 - 1e-12)
    logs = successes * np.log(alternatives / rate) + (n - successes) * np.log((1 - alternatives) / (1 - rate))
    return float(np.exp(logs).mean())


# Design effects


def phi_max(panes):
    """Largest eigenvalue of the covariance of the standardised counts of the baseline's panes (J, k); at least 1.

    Of independent requests it is above 1 as well: about 1.36 for 200 panes, 1.17 for 1,000.
    """
    proportions = panes.sum(0) / panes.sum()
    n = panes.sum(1, keepdims=True)
    standardised = (panes - n * proportions) / np.sqrt(n * proportions)
    return max(1.0, float(np.linalg.eigvalsh(standardised.T @ standardised / len(panes))[-1]))


def phi_of_sums(sums, n):
    """The same of the directional family: variance of the standardised pane sums in units of n; at least 1."""
    return max(1.0, float(np.mean(np.square(sums)) / n))


# Detection


FAMILIES = ("omnibus", "directional")


def deciles(reference):
    return np.unique(np.quantile(reference, np.linspace(0, 1, CELLS + 1)[1:-1]))


def histograms(values, edges, pane=PANE):
    """Counts of each whole pane. A value on an edge belongs to the cell below it."""
    panes, cells = len(values) // pane, len(edges) + 1
    cell = np.searchsorted(edges, values[: panes * pane], side="left").reshape(panes, pane)
    flat = (cell + np.arange(panes)[:, None] * cells).ravel()
    return np.bincount(flat, minlength=panes * cells).reshape(panes, cells).astype(float)


def blocks(panes, width):
    """Sums over blocks of panes."""
    whole = len(panes) // width * width
    return panes[:whole].reshape(-1, width, *panes.shape[1:]).sum(1)


def run(omnibus, directional, c):
    """Requests seen at each alarm. omnibus: e-values of the blocks of each scale; directional: (theta, pane)."""
    scores, mean = dict.fromkeys(omnibus, 0.0), np.zeros(len(directional))
    alarms, since = [], 0
    panes = directional.shape[1] if len(directional) else len(omnibus[1])
    for pane in range(panes):
        alarm = False
        for width, evidence in omnibus.items():
            # A block that began before the last alarm is not used.
            if (pane + 1) % width == 0 and pane + 1 - width >= since:
                scores[width] = min((scores[width] + 1) * float(evidence[(pane + 1) // width - 1]), CEILING)
                alarm |= scores[width] >= 8 * c / width
        if len(directional):
            mean = np.minimum((mean + 1) * directional[:, pane], CEILING)
            alarm |= mean.mean() >= 2 * c
        if alarm:
            alarms.append((pane + 1) * PANE)
            since, scores, mean = pane + 1, dict.fromkeys(omnibus, 0.0), np.zeros(len(directional))
    return alarms


def detect(ref, x, c=C_DEFAULT, phi_omnibus=1.0, phi_directional=1.0, edges=None, kappa=None, families=FAMILIES):
    """Alarms of one signal of counts (tokens). ref: baseline; x: what came after it; edges: the deciles when absent."""
    edges = deciles(ref) if edges is None else np.asarray(edges, float)
    reference = histograms(ref, edges, pane=1).sum(0)
    counts = histograms(x, edges)
    omnibus, directional = {}, np.empty((0, 0))
    if "omnibus" in families:
        omnibus = {width: e_omnibus(blocks(counts, width), reference, phi_omnibus) for width in SCALES}
    if "directional" in families:
        logs = np.log1p(ref)
        sums = standardised_sums(x, logs.mean(), logs.std())
        directional = e_directional(sums, PANE, kappa, phi_directional)
    return run(omnibus, directional, c)


def standardised_sums(x, mean, deviation):
    """Of each whole pane, on the scale ln(1 + x). mean and deviation: numbers, or one of each pane."""
    panes = len(x) // PANE
    values = np.log1p(x[: panes * PANE]).reshape(panes, PANE)
    return ((values - np.reshape(mean, (-1, 1))) / np.reshape(deviation, (-1, 1))).sum(1)


def design_effects(ref, edges=None):
    """(omnibus, directional) as the baseline's panes show them."""
    edges = deciles(ref) if edges is None else np.asarray(edges, float)
    logs = np.log1p(ref)
    return phi_max(histograms(ref, edges)), phi_of_sums(standardised_sums(ref, logs.mean(), logs.std()), PANE)


def detect_seasonal(ref, ref_cells, x, x_cells, c=C_DEFAULT, phi_omnibus=1.0, phi_directional=1.0, edges=None):
    """As detect, against a baseline by hour of the day. *_cells: the hour of each pane of ref and of x.

    A block over several hours is compared with the mixture of their cells, each with its share of the block's panes;
    the mixture counts as many requests as one baseline of its precision: 1 / sum(share^2 / requests of the cell).
    """
    edges = deciles(ref) if edges is None else np.asarray(edges, float)
    ref_cells, x_cells = np.asarray(ref_cells), np.asarray(x_cells)
    hours = int(ref_cells.max()) + 1
    baseline = histograms(ref, edges)
    cells = np.stack([baseline[ref_cells == hour].sum(0) for hour in range(hours)])
    sizes = cells.sum(1)
    counts = histograms(x, edges)
    one_hot = np.eye(hours)[x_cells]
    omnibus = {}
    for width in SCALES:
        share = blocks(one_hot, width) / width
        size = 1 / (share**2 / sizes).sum(1, keepdims=True)
        reference = size * (share @ (cells / sizes[:, None]))
        omnibus[width] = e_omnibus(blocks(counts, width), reference, phi_omnibus)
    logs = np.log1p(ref[: len(ref_cells) * PANE]).reshape(-1, PANE)
    mean = np.array([logs[ref_cells == hour].mean() for hour in range(hours)])
    deviation = np.array([logs[ref_cells == hour].std() for hour in range(hours)])
    sums = standardised_sums(x, mean[x_cells], deviation[x_cells])
    return run(omnibus, e_directional(sums, PANE, None, phi_directional), c)


def detect_embeddings(ref, x, c=C_DEFAULT, phi=1.0, null=None):
    """Alarms of a stream of vectors; the omnibus family alone."""
    null = EmbeddingNull(ref) if null is None else null
    panes = len(x) // PANE
    features = fourier_features(x[: panes * PANE].astype(float), null.frequencies)
    sums = features.reshape(panes, PANE, -1).sum(1)
    omnibus = {width: null.e_values(blocks(sums, width), width * PANE, phi) for width in SCALES}
    return run(omnibus, np.empty((0, 0)), c)


# Streams

REFERENCE, BEFORE, AFTER, NULL = 20_000, 10_000, 40_000, 200_000
SCENARIOS = {
    "+0.1 sigma": {"mu": 5.08},
    "+0.25 sigma": {"mu": 5.2},
    "+0.5 sigma": {"mu": 5.4},
    "5 % mixture": {"eps": 0.05},
    "spread x1.25": {"sd": 1.0},
}
NULL_SEED, CHANGE_SEED, PEER_NULL_SEED = 77_000, 5_000, 1_000


def tok(logs):
    """Tokens of a prompt from their logarithm."""
    return np.maximum(1, np.round(np.exp(logs)))


def z(generator, n, mu=5.0, sd=0.8, eps=0.0):
    """Log-lengths; a share eps of them of another kind of request, long and alike."""
    values = generator.normal(mu, sd, n)
    if eps:
        other = generator.random(n) < eps
        values[other] = generator.normal(7.5, 0.4, other.sum())
    return values


def null_stream(seed, n=NULL):
    generator = np.random.default_rng(seed)
    return tok(z(generator, REFERENCE)), tok(z(generator, n))


def change_stream(seed, scenario, before=BEFORE, after=AFTER):
    generator = np.random.default_rng(seed)
    ref = tok(z(generator, REFERENCE))
    first = tok(z(generator, before))
    return ref, np.concatenate([first, tok(z(generator, after, **scenario))])


SESSION, ICC = 10, 0.25


def clustered(generator, n, mu=5.0, sd=0.8):
    """Log-lengths of sessions of ten requests each that share what their user does; same variance as z."""
    users = np.repeat(generator.normal(0.0, sd * np.sqrt(ICC), n // SESSION), SESSION)
    return mu + users + generator.normal(0.0, sd * np.sqrt(1 - ICC), n // SESSION * SESSION)


def clustered_stream(seed, shift=0.0, reference=100_000, before=BEFORE, after=NULL):
    """shift: in log units, after `before` requests; without one it is all null."""
    generator = np.random.default_rng(seed)
    ref = tok(clustered(generator, reference))
    first = tok(clustered(generator, before))
    return ref, np.concatenate([first, tok(clustered(generator, after, mu=5.0 + shift))])


PANES_A_DAY, PANES_AN_HOUR, SWING = 144, 6, 0.2


def hour_of_pane(panes):
    return np.arange(panes) % PANES_A_DAY // PANES_AN_HOUR


def daily(generator, panes, shift=0.0, shift_from=None):
    """Log-lengths whose mean swings by SWING over the day; shift in log units from a pane on."""
    mean = 5.0 + SWING * np.sin(2 * np.pi * (np.arange(panes) % PANES_A_DAY) / PANES_A_DAY)
    if shift_from is not None:
        mean[shift_from:] += shift
    return generator.normal(np.repeat(mean, PANE), 0.8)


def daily_stream(seed, days=28, reference_days=7, shift=0.0, shift_day=None):
    generator = np.random.default_rng(seed)
    ref = tok(daily(generator, reference_days * PANES_A_DAY))
    start = None if shift_day is None else shift_day * PANES_A_DAY
    return ref, tok(daily(generator, days * PANES_A_DAY, shift, start))


TOPICS, DIMENSIONS = 8, 64


def topic_centres(dimensions=DIMENSIONS, seed=424_242):
    """Eight topics, and a ninth that the baseline does not know: random directions of length 1."""
    centres = np.random.default_rng(seed).normal(size=(TOPICS + 1, dimensions))
    return centres / np.linalg.norm(centres, axis=1, keepdims=True)


def embeddings(generator, n, share=0.0, dimensions=DIMENSIONS):
    """A topic's centre and noise of the same length; a share of the requests is about the ninth topic."""
    topic = generator.integers(0, TOPICS, n)
    if share:
        topic[generator.random(n) < share] = TOPICS
    noise = generator.normal(0.0, 1 / np.sqrt(dimensions), (n, dimensions))
    return (topic_centres(dimensions)[topic] + noise).astype(np.float32)


def embedding_stream(seed, share=0.0, before=BEFORE, after=20_000, reference=10_000):
    generator = np.random.default_rng(seed)
    ref = embeddings(generator, reference)
    first = embeddings(generator, before)
    return ref, np.concatenate([first, embeddings(generator, after, share)])
