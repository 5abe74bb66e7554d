"""Writes the streams of detector.py as files for other programs to read.

    drift/reference/run.sh streams.py OUT [--kind standard|clustered|daily|embeddings] [--runs N] [--with-alarms]

Of each run two files, RUN.ref and RUN.x: what the baseline is made of, and what came after it. Little-endian, without a
header: f64 token counts, or for embeddings f32 vectors one after the other. manifest.json lists them:

    {"kind": ..., "pane": 100, "parameters": {...}, "runs": [{"scenario": "+0.25 sigma", "seed": 5000, "run": 0,
      "ref": "plus-0.25-sigma-0.ref", "x": "...", "ref_count": 20000, "x_count": 50000, "dimensions": 1,
      "change_at": 10000, "alarms": [...]}]}

change_at is the number of requests of x before the change, null without one; "alarms" (with --with-alarms) are the
numbers of requests seen when detector.py alarmed, with the parameters that the manifest and the run name;
"alarms_without_phi" and "alarms_without_hours" show what these parameters are for. --runs: of each scenario.

standard    30 runs of the null and of five changes
clustered   sessions of ten requests with a common user effect; phi as the baseline shows it
daily       28 days of 144 panes, the mean swinging by 0.25 sigma; against a baseline by hour, of 7 days
embeddings  eight topics in 64 dimensions, and a ninth in 5, 10 and 20 % of the requests
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np

import detector

# 0.25 sigma in log units.
SHIFT = 0.2
SHIFT_DAY = 7


def standard(run, c):
    """(scenario, seed, baseline, stream, change, parameters of the run, how its alarms are found) of each."""
    seed = detector.NULL_SEED + run
    ref, x = detector.null_stream(seed)
    yield "null", seed, ref, x, None, {}, {"alarms": lambda: detector.detect(ref, x, c)}
    for name, parameters in detector.SCENARIOS.items():
        seed = detector.CHANGE_SEED + run
        ref, x = detector.change_stream(seed, parameters)
        yield name, seed, ref, x, detector.BEFORE, {}, {"alarms": lambda ref=ref, x=x: detector.detect(ref, x, c)}


def clustered(run, c):
    for name, first, shift in [("null", detector.NULL_SEED, 0.0), ("+0.25 sigma", detector.CHANGE_SEED, SHIFT)]:
        ref, x = detector.clustered_stream(first + run, shift, after=detector.AFTER if shift else detector.NULL)
        omnibus, directional = detector.design_effects(ref)
        phi = {"phi_omnibus": omnibus, "phi_directional": directional}
        change = detector.BEFORE if shift else None

        def corrected(ref=ref, x=x, phi=phi):
            return detector.detect(ref, x, c, **phi)

        def uncorrected(ref=ref, x=x):
            return detector.detect(ref, x, c)

        yield name, first + run, ref, x, change, phi, {"alarms": corrected, "alarms_without_phi": uncorrected}


def daily(run, c):
    for name, first, shift in [("null", detector.NULL_SEED, 0.0), ("+0.25 sigma", detector.CHANGE_SEED, SHIFT)]:
        day, days = (SHIFT_DAY, 2 * SHIFT_DAY) if shift else (None, 28)
        ref, x = detector.daily_stream(first + run, days=days, shift=shift, shift_day=day)
        hours = [detector.hour_of_pane(len(values) // detector.PANE) for values in (ref, x)]
        change = day * detector.PANES_A_DAY * detector.PANE if shift else None

        def seasonal(ref=ref, x=x, hours=hours):
            return detector.detect_seasonal(ref, hours[0], x, hours[1], c)

        def pooled(ref=ref, x=x):
            return detector.detect(ref, x, c)

        yield name, first + run, ref, x, change, {}, {"alarms": seasonal, "alarms_without_hours": pooled}


def embeddings(run, c):
    for name, first, share in [
        ("null", detector.NULL_SEED, 0.0),
        ("new topic 5 %", detector.CHANGE_SEED, 0.05),
        ("new topic 10 %", detector.CHANGE_SEED, 0.10),
        ("new topic 20 %", detector.CHANGE_SEED, 0.20),
    ]:
        ref, x = detector.embedding_stream(first + run, share, after=20_000 if share else 90_000)
        null = detector.EmbeddingNull(ref)
        change = detector.BEFORE if share else None
        parameters = {"bandwidth": null.bandwidth, "gamma_mean": null.a, "gamma_variance": null.b}

        def alarms(ref=ref, x=x, null=null):
            return detector.detect_embeddings(ref, x, c, null=null)

        yield name, first + run, ref, x, change, parameters, {"alarms": alarms}


# kind: (its runs, how many by default, what the manifest says of all of them)
KINDS = {
    "standard": (standard, 30, {"phi_omnibus": 1.0, "phi_directional": 1.0, "edges": "deciles", "scale": "ln(1 + x)"}),
    "clustered": (
        clustered,
        10,
        {"session": detector.SESSION, "icc": detector.ICC, "edges": "deciles", "scale": "ln(1 + x)"},
    ),
    "daily": (
        daily,
        6,
        {
            "panes_a_day": detector.PANES_A_DAY,
            "panes_an_hour": detector.PANES_AN_HOUR,
            "swing_log_units": detector.SWING,
            "edges": "deciles of all hours",
            "scale": "ln(1 + x)",
        },
    ),
    "embeddings": (
        embeddings,
        15,
        {"frequencies": 128, "frequencies_seed": 20_000, "kernel": "Gaussian, as wide as the median distance"},
    ),
}


def summary(runs):
    """What --with-alarms found, a line for each scenario and way of finding them."""
    for scenario in dict.fromkeys(run["scenario"] for run in runs):
        ours = [run for run in runs if run["scenario"] == scenario]
        for way in [key for key in ours[0] if key.startswith("alarms")]:
            label = scenario + way.removeprefix("alarms").replace("_", " ")
            if ours[0]["change_at"] is None:
                requests = sum(run["x_count"] for run in ours)
                yield f"{label}: {sum(len(run[way]) for run in ours)} alarms in {requests:,} requests"
                continue
            delays = []
            for run in ours:
                after = [alarm - run["change_at"] for alarm in run[way] if alarm > run["change_at"]]
                delays.append(after[0] if after else np.inf)
            false = sum(any(alarm <= run["change_at"] for alarm in run[way]) for run in ours)
            yield f"{label}: median {np.median(delays):,.0f} requests, {false} of {len(ours)} with a false alarm before"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="standard")
    parser.add_argument("--runs", type=int, help="of each scenario")
    parser.add_argument("--with-alarms", action="store_true", help="run detector.py on each")
    parser.add_argument("--c", type=float, default=detector.C_DEFAULT, help="threshold of --with-alarms (518,400)")
    options = parser.parse_args()
    make, runs, parameters = KINDS[options.kind]
    options.out.mkdir(parents=True, exist_ok=True)
    entries = []
    for run in range(runs if options.runs is None else options.runs):
        for scenario, seed, ref, x, change, own, ways in make(run, options.c):
            stem = re.sub(r"[^a-z0-9.]+", "-", scenario.replace("+", "plus ").replace("%", "percent")).strip("-")
            entry = {"scenario": scenario, "seed": seed, "run": run}
            for part, values in (("ref", ref), ("x", x)):
                entry[part] = f"{stem}-{run}.{part}"
                values.astype("<f4" if values.dtype == np.float32 else "<f8").tofile(options.out / entry[part])
            entry |= {"ref_count": len(ref), "x_count": len(x), "dimensions": 1 if ref.ndim == 1 else ref.shape[1]}
            entry |= {"change_at": change, "parameters": own}
            if options.with_alarms:
                entry |= {way: find() for way, find in ways.items()}
            entries.append(entry)
    manifest = {"kind": options.kind, "pane": detector.PANE, "c": options.c, "parameters": parameters, "runs": entries}
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    if options.with_alarms:
        print("\n".join(summary(entries)))
    print(f"{len(entries)} runs in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
