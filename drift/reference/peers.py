"""Runs other projects' drift detectors on the streams that perennial-drift is measured on: same numbers, same seeds.

    drift/reference/run.sh peers.py                     all but alibi-detect, in about a quarter of an hour
    drift/reference/run.sh peers.py --quick             fewer requests and runs: whether it works, not a figure
    drift/reference/run.sh peers.py --only NAME,NAME    some (--list names them)
    drift/reference/run.sh peers.py --alibi             alibi-detect is run too, not quoted: 20 minutes more

Prints a table and writes target/drift-peers/peers.json (peers-quick.json), or --out FILE. What was measured is kept
there by the digest of this program and of what it calls; --fresh measures again.

No change: 10 streams of 200,000 requests; alarms per 100,000. Change: 10,000 requests, then the change; requests until
the first alarm after it (median of 30 streams), whatever was raised before. How many streams had a false alarm before
the change stands beside it: a detector that always alarms is always quick. The slow ones get fewer streams.

Exits 1 when river's detectors do not alarm where their oracle says (O10): then they are not what was measured before.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import detector

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "target" / "drift-peers"
WINDOW = 500
# Largest prompt of a model with a context of 32k: a scale that is known before any traffic is.
CONTEXT = 32_768
ALIBI_REFERENCES = 3
MISSED = float("inf")

# research: of one signal, other seeds, 12 runs; alibi-detect 0.13.0 (BSL 1.1).
QUOTED_ALIBI = {
    "name": "alibi-cvm",
    "what": "alibi-detect CVMDriftOnline, ERT 2000, windows 50 and 200",
    "source": "quoted: measured once with 0.13.0, 12 streams, not run here",
    "null": {"per_100k": 73.8},
    "change": {
        name: {"median": median} for name, median in zip(detector.SCENARIOS, (465, 113, 41, 512, 213), strict=True)
    },
}


# Each takes the baseline and a stream and yields the number of requests seen at each of its alarms.


def ours(ref, x):
    yield from detector.detect(ref, x)


def online(make, values):
    peer = make()
    for index, value in enumerate(values.tolist()):
        peer.update(value)
        if peer.drift_detected:
            yield index + 1


def adwin_context(ref, x):
    from river import drift

    yield from online(drift.ADWIN, np.log1p(x) / np.log1p(CONTEXT))


def adwin_range(ref, x):
    from river import drift

    low, high = np.log1p(ref.min()), np.log1p(ref.max())
    yield from online(drift.ADWIN, np.clip((np.log1p(x) - low) / (high - low), 0, 1))


def page_hinkley(ref, x):
    from river import drift

    yield from online(drift.PageHinkley, np.log1p(x))


def kswin(ref, x):
    from river import drift

    yield from online(lambda: drift.KSWIN(seed=1), np.log1p(x))


def evidently(test):
    """A decision each 500 requests by Evidently's own function. test: its name, or None for its choice."""

    def positions(ref, x):
        import pandas as pd
        from evidently.legacy.calculations.stattests import get_stattest
        from evidently.legacy.core import ColumnType

        reference = pd.Series(ref)
        function = get_stattest(reference, pd.Series(x[:WINDOW]), ColumnType.Numerical, test)
        for end in range(WINDOW, len(x) + 1, WINDOW):
            if function(reference, pd.Series(x[end - WINDOW : end]), ColumnType.Numerical, None).drifted:
                yield end

    return positions


_alibi_configured = {}


def alibi_cvm(ref, x):
    """Configured for a few baselines only, as it takes minutes each: ref is the number of one here."""
    from alibi_detect.cd import CVMDriftOnline

    if ref not in _alibi_configured:
        np.random.seed(ref)
        sample = np.log1p(detector.null_stream(detector.CHANGE_SEED + ref, 0)[0][:1000])
        _alibi_configured[ref] = CVMDriftOnline(
            sample, ert=2000, window_sizes=[50, 200], n_bootstraps=10_000, verbose=False
        )
    peer = _alibi_configured[ref]
    peer.reset_state()
    for index, value in enumerate(np.log1p(x).tolist()):
        if peer.predict(value)["data"]["is_drift"]:
            yield index + 1
            peer.reset_state()


# name: (what, function, packages, streams without a change, streams with one)
PEERS = {
    "perennial": ("perennial-drift (numpy reference), c = 518,400", ours, ("numpy", "scipy"), 10, 30),
    "adwin": ("river ADWIN, ln(1 + tokens) / ln(1 + 32,768)", adwin_context, ("river",), 10, 30),
    "adwin-range": ("river ADWIN, ln(1 + tokens) over the baseline's range", adwin_range, ("river",), 10, 30),
    "page-hinkley": ("river PageHinkley, ln(1 + tokens)", page_hinkley, ("river",), 10, 30),
    "kswin": ("river KSWIN, ln(1 + tokens)", kswin, ("river", "scipy"), 3, 8),
    "evidently": (
        "Evidently's choice: Wasserstein/sd >= 0.1 each 500",
        evidently(None),
        ("evidently", "pandas", "scipy"),
        10,
        30,
    ),
    "evidently-ks": ("Evidently KS p <= 0.05 each 500", evidently("ks"), ("evidently", "pandas", "scipy"), 10, 30),
    "alibi-cvm": (QUOTED_ALIBI["what"], alibi_cvm, ("alibi-detect", "numba", "numpy", "scipy"), 3, 12),
}


def sizes(name, quick):
    """(streams without a change, their length, streams with one, requests after it)"""
    null, change = PEERS[name][3:]
    if not quick:
        return null, detector.NULL, change, detector.AFTER
    return (1, 30_000, 2, 10_000) if name in ("kswin", "alibi-cvm") else (2, 100_000, 6, 20_000)


def quantile(delays, share):
    """None when it lies among the streams in which the change was missed."""
    ordered = sorted(delays)
    place = share * (len(ordered) - 1)
    below, above = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
    return None if above == MISSED else below + (above - below) * (place % 1)


def versions(packages):
    return {package: importlib.metadata.version(package) for package in packages}


def measure(name, quick):
    positions = PEERS[name][1]
    null_runs, null_length, change_runs, after = sizes(name, quick)
    began = time.process_time()

    def baseline(ref, run):
        if name != "alibi-cvm":
            return ref
        return 0 if quick else run % ALIBI_REFERENCES

    alarms = 0
    for run in range(null_runs):
        ref, x = detector.null_stream(detector.PEER_NULL_SEED + run, null_length)
        alarms += sum(1 for _ in positions(baseline(ref, run), x))
    requests = null_runs * null_length
    null = {"streams": null_runs, "requests": requests, "alarms": alarms, "per_100k": alarms * 1e5 / requests}
    change = {}
    for scenario, parameters in detector.SCENARIOS.items():
        delays, false = [], 0
        for run in range(change_runs):
            ref, x = detector.change_stream(detector.CHANGE_SEED + run, parameters, after=after)
            early, delay = False, MISSED
            for position in positions(baseline(ref, run), x):
                if position > detector.BEFORE:
                    delay = position - detector.BEFORE
                    break
                early = True
            delays.append(delay)
            false += early
        change[scenario] = {
            "streams": change_runs,
            "median": quantile(delays, 0.5),
            "p90": quantile(delays, 0.9),
            "missed": sum(delay == MISSED for delay in delays),
            "false_before": false,
            "delays": [None if delay == MISSED else delay for delay in delays],
        }
    return {
        "name": name,
        "what": PEERS[name][0],
        "source": "run",
        "versions": versions(PEERS[name][2]),
        "after": after,
        "null": null,
        "change": change,
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def digest(name, quick):
    """Of the two programs as they are parsed (how they are laid out is nothing), the sizes and the versions."""
    parts = [name, quick, versions(PEERS[name][2]), platform.python_version()]
    for script in (__file__, detector.__file__):
        program = ast.parse(Path(script).read_text())
        program.body = program.body[1:]  # what it says of itself
        parts.append(ast.dump(program))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def kept(name, quick, fresh):
    """The measurement of this name, from the disk when nothing that makes it has changed."""
    if name == "alibi-cvm" and "DRIFT_ALIBI_PYTHON" in os.environ:
        # Its numpy and scipy are older than ours: an interpreter of its own.
        command = [os.environ["DRIFT_ALIBI_PYTHON"], __file__, "--worker", *["--quick"] * quick, *["--fresh"] * fresh]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    path = KEPT / f"{name}-{digest(name, quick)}.json"
    if path.exists() and not fresh:
        return json.loads(path.read_text())
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    row = measure(name, quick)
    KEPT.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row))
    return row


def oracle():
    """O10: 1,000 zeros, then ones. Prints what differs."""
    from river import drift

    values = np.repeat([0.0, 1.0], 1000)
    expected = {"ADWIN": 1023, "PageHinkley": 1051, "KSWIN(seed=1)": 1013}
    makers = {"ADWIN": drift.ADWIN, "PageHinkley": drift.PageHinkley, "KSWIN(seed=1)": lambda: drift.KSWIN(seed=1)}
    found = {name: next(online(make, values), 0) - 1 for name, make in makers.items()}
    for name in expected:
        if found[name] != expected[name]:
            print(f"O10: river {name} alarms at index {found[name]}, not {expected[name]}", file=sys.stderr)
    return found, found == expected


def cell(change):
    if change["median"] is None:
        missed = change["missed"]
        return f"missed {missed}/{change['streams']}"
    false = change.get("false_before")
    return f"{change['median']:,.0f}" + (f" ({false}/{change['streams']} false)" if false else "")


def table(rows):
    heads = ["detector", "null alarms per 100k", *detector.SCENARIOS]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        what = row["what"] + ("" if row["source"] == "run" else " (quoted)")
        cells = [what, f"{row['null']['per_100k']:.3g}", *(cell(row["change"][name]) for name in detector.SCENARIOS)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"1 core of {names[0]}" if names else platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests and streams")
    parser.add_argument("--only", help="names, with commas between")
    parser.add_argument("--alibi", action="store_true", help="run alibi-detect too")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:14} {peer[0]}" for name, peer in PEERS.items()))
        return 0
    if options.worker:
        os.environ.pop("DRIFT_ALIBI_PYTHON", None)
        print(json.dumps(kept("alibi-cvm", options.quick, options.fresh)))
        return 0
    names = options.only.split(",") if options.only else list(PEERS)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}: --list names them")
    if options.alibi and "DRIFT_ALIBI_PYTHON" not in os.environ:
        parser.error("--alibi needs an environment of its own: use drift/reference/run.sh")

    began = time.monotonic()
    found, holds = oracle()
    rows = []
    for name in names:
        if name == "alibi-cvm" and not options.alibi:
            rows.append(QUOTED_ALIBI)
        else:
            rows.append(kept(name, options.quick, options.fresh))
    report = {
        "quick": options.quick,
        "o10": {"found": found, "holds": holds},
        "seeds": {"null": detector.PEER_NULL_SEED, "change": detector.CHANGE_SEED},
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions(("numpy", "scipy", "pandas", "river", "evidently")),
        "rows": rows,
    }
    out = options.out or KEPT / ("peers-quick.json" if options.quick else "peers.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows))
    print(f"\nO10 {'holds' if holds else 'DOES NOT HOLD'}: {found}; {time.monotonic() - began:.0f} s; {out}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
