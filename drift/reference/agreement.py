"""Checks that the Rust detector and the one in numpy alarm at the same requests.

    drift/reference/run.sh agreement.py STREAMS DETECTOR.json

STREAMS is a folder of streams.py, DETECTOR.json what `cargo bench -p perennial-drift --bench detector` wrote for it. For
each run of prompt lengths without hours the frozen parameters of the Rust baseline (edges, cumulants, moments, design
effects, tails) are taken, and all evidence is computed anew from the raw stream. Exits with 1 when an alarm differs.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

import detector

SHIFT_WEIGHTS = np.array([0.02, 0.05, 0.10, 0.28, 0.28, 0.10, 0.05, 0.02])
# Thresholds over c: two thirds of the budget for directional evidence, a twelfth for each length of blocks.
DIRECTIONAL, OMNIBUS = 1.5, 12.0
TAIL_RATIOS, TAIL_WEIGHTS = np.array([2.0, 4.0]), np.array([0.05, 0.05])


def tail_evidence(events, n, upper, phi):
    """One row for each ratio: likelihood ratios of the part of values in the tails, against its upper bound."""
    alternative = np.minimum(TAIL_RATIOS * upper, 0.5 + upper / 2)[:, None]
    logs = events * np.log(alternative / upper) + (n - events) * np.log((1 - alternative) / (1 - upper))
    return np.exp(np.clip(logs / phi, -detector.LOG_LIMIT, detector.LOG_LIMIT))


def with_missing(counts):
    """The Rust histograms have a group for values that are missing; here there are none."""
    return np.concatenate([counts, np.zeros(counts.shape[:-1] + (1,))], axis=-1)


def alarms(ref, x, frozen, c):
    edges = np.array(frozen["edges"])
    reference = with_missing(detector.histograms(ref, edges, pane=1).sum(0))
    counts = with_missing(detector.histograms(x, edges))
    sums = detector.standardised_sums(x, frozen["mean"], frozen["sigma"])
    off = 3 * np.sqrt(frozen["phi_directional"] / reference.sum())
    kappa = np.maximum(frozen["kappa"], np.abs(detector.THETAS) * off)
    evidence = detector.e_directional(sums, detector.PANE, kappa, frozen["phi_directional"])
    weights = SHIFT_WEIGHTS
    if frozen["tails"]:
        events = counts[:, frozen["tails"]].sum(1)
        tails = tail_evidence(events, detector.PANE, frozen["tail_upper"], frozen["phi_omnibus"])
        evidence, weights = np.concatenate([evidence, tails]), np.concatenate([weights, TAIL_WEIGHTS])
    # What a run pays for the error of the baseline's mean; tails have bounds instead.
    price = np.zeros(len(evidence))
    price[: len(detector.THETAS)] = detector.THETAS**2 / (4 * reference.sum() * frozen["phi_directional"])
    found, since = [], 0
    scores, lines = dict.fromkeys(detector.SCALES, 0.0), np.zeros(len(evidence))
    gains, lengths = np.zeros(len(evidence)), np.zeros(len(evidence))
    for pane in range(len(counts)):
        lengths[gains <= 0], gains[gains <= 0] = 0, 0
        logs = np.log(evidence[:, pane]) - price * ((lengths + detector.PANE) ** 2 - lengths**2)
        gains, lengths = gains + logs, lengths + detector.PANE
        lines = np.minimum((lines + 1) * np.exp(logs), detector.CEILING)
        alarm = weights @ lines >= DIRECTIONAL * c
        for width in detector.SCALES:
            # Blocks begin anew after an alarm.
            if (pane + 1 - since) % width == 0:
                block = counts[pane + 1 - width : pane + 1].sum(0)
                e = float(detector.e_omnibus(block, reference, frozen["phi_omnibus"]))
                scores[width] = min((scores[width] + 1) * e, detector.CEILING)
                alarm |= scores[width] >= OMNIBUS * c / width
        if alarm:
            found.append((pane + 1) * detector.PANE)
            since, scores, lines = pane + 1, dict.fromkeys(detector.SCALES, 0.0), np.zeros(len(evidence))
            gains, lengths = np.zeros(len(evidence)), np.zeros(len(evidence))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", type=Path)
    parser.add_argument("detector", type=Path)
    options = parser.parse_args()
    result = json.loads(options.detector.read_text())
    kind = json.loads((options.streams / "manifest.json").read_text())["kind"]
    compared = differing = 0
    for run in result["runs"]:
        if run["kind"] != kind or kind not in ("standard", "clustered"):
            continue
        values = [np.fromfile(options.streams / run[part], "<f8") for part in ("ref", "x")]
        expected = alarms(*values, run["frozen"], result["capacity"])
        compared += 1
        if expected != run["alarms"]:
            differing += 1
            print(f"{run['scenario']}, run {run['run']}: numpy {expected[:5]}, Rust {run['alarms'][:5]}")
    print(f"{compared - differing} passed, {differing} failed")
    return 1 if differing or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
