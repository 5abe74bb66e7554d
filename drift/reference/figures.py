"""Puts what the bench of the drift detector measured into one file of figures, and the peers into a table of their own.

    drift/reference/figures.py FOLDER --criterion target/criterion --texts STREAMS

FOLDER is where hack/bench-drift.sh keeps detector.json, agreement.txt, peers.json and replays/*.json; STREAMS the folder of
texts.py. Writes FOLDER/drift.json (the format of docs/generate-tables.py) and FOLDER/drift-peers.json. Needs nothing but
Python 3.10.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

SCENARIOS = {
    "+0.1 sigma": 2450,
    "+0.25 sigma": 600,
    "+0.5 sigma": 200,
    "5 % mixture": 1000,
    "spread x1.25": 1200,
}
MISSED = float("inf")


def machine() -> str:
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), flags=re.M)
    return f"{len(names)} cores, {names[0].strip()}" if names else "unknown"


def of_kind(detector, kind):
    runs = {}
    for run in detector["runs"]:
        if run["kind"] == kind:
            runs.setdefault(run["scenario"], []).append(run)
    return runs


def delays(runs):
    found = []
    for run in runs:
        after = [alarm - run["change_at"] for alarm in run["alarms"] if alarm > run["change_at"]]
        found.append(after[0] if after else MISSED)
    return found


def median(values):
    value = statistics.median(values)
    return "missed" if value == MISSED else value


def figure(id, what, value, unit, **more):
    return {"id": id, "what": what, "value": value, "unit": unit} | {key: item for key, item in more.items() if item is not None}


def synthetic(detector, peers):
    null = detector["null"]
    yield figure(
        "null.all",
        f"alarms in {null['requests'] // 1_000_000} million requests without a change, {null['signals']} signals armed",
        null["alarms"], "alarms", better="lower", goal=0,
    )
    for kind, what in [
        ("standard", "prompt lengths alone"),
        ("clustered", "sessions of ten requests, ICC 0.25"),
        ("daily", "28 days with a swing of 0.25 sigma, baseline by hour"),
        ("embeddings", "subjects alone, 64 dimensions"),
    ]:
        runs = of_kind(detector, kind)["null"]
        requests = sum(run["x_count"] for run in runs)
        alarms = sum(len(run["alarms"]) for run in runs)
        yield figure(f"null.{kind}", f"the same in {requests / 1e6:.1f} million: {what}", alarms, "alarms", better="lower", goal=0)
    adwin = next(row for row in peers["rows"] if row["name"] == "adwin-range")
    for scenario, goal in SCENARIOS.items():
        value = median(delays(of_kind(detector, "standard")[scenario]))
        peer = adwin["change"][scenario]
        found = peer["missed"] * 2 < peer["streams"]
        more = {"baseline": {"name": "river ADWIN", "value": peer["median"] if found else "missed"}}
        if found and value != "missed":
            more["ratio"] = peer["median"] / value
        yield figure(f"delay.{scenario}", f"delay at {scenario}, median of 30 streams", value, "requests", better="lower", goal=goal, **more)
    for kind, scenario, goal in [
        ("clustered", "+0.25 sigma", None),
        ("daily", "+0.25 sigma", None),
        ("embeddings", "new topic 5 %", None),
        ("embeddings", "new topic 10 %", 800),
        ("embeddings", "new topic 20 %", None),
    ]:
        value = median(delays(of_kind(detector, kind)[scenario]))
        yield figure(f"delay.{kind}.{scenario}", f"delay at {scenario}, {kind}", value, "requests", better="lower", goal=goal)


def texts(folder, streams):
    manifest = json.loads((streams / "manifest.json").read_text())
    controls = alarms = 0
    rows = []
    for stream in manifest["streams"]:
        replay = json.loads((folder / "replays" / stream["file"].replace(".jsonl", ".json")).read_text())
        episodes = replay["episodes"]
        if stream["shift"] is None:
            controls += 1
            alarms += len(episodes)
            continue
        times = [json.loads(line)["created"] for line in (streams / stream["file"]).open()]
        change = stream["change_at"]

        def requests_until(time):
            return sum(made < time for made in times) - change

        suspected = next((requests_until(episode["suspected"]) for episode in episodes), None)
        drifted = next((requests_until(episode["drifted"]) for episode in episodes if episode["drifted"]), None)
        name = f"{stream['shift']} {100 * stream['share']:.0f} %"
        yes = ", confirmed after " + f"{drifted:,}" if drifted is not None else ", not confirmed as material"
        rows.append(figure(
            f"text.{name}", f"real text, {name} mixed into English{yes if suspected is not None else ''}: suspected after",
            "not found in 8,000" if suspected is None else suspected, "" if suspected is None else "requests", better="lower",
        ))
    yield figure("text.controls", f"real text, {controls} controls of 10,000 requests: suspicions", alarms, "", better="lower", goal=0)
    yield from rows


def costs(detector, criterion):
    def mean(name):
        estimates = json.loads((criterion / name / "new" / "estimates.json").read_text())
        return estimates["median"]["point_estimate"]

    yield figure("cost.features", "features of a request of 1,000 tokens, one core", mean("features/exchange") / 1e3, "µs", better="lower", goal=200)
    yield figure("cost.add", "a request into a pane", mean("pane_add") / 1e3, "µs", better="lower", goal=2)
    decision = mean("decision_64 replicas, 12 signals") / 1e6
    yield figure("cost.decision", "merge of 64 replicas and decision on 12 signals", decision, "ms", better="lower", goal=5)
    memory = detector["memory"]
    yield figure("memory.pane", "an open pane in memory", memory["pane"] / 1024, "KiB", better="lower")
    yield figure("memory.encoded", "a closed pane of 100,000 requests", memory["encoded"] / 1024, "KiB", better="lower")
    yield figure("memory.ring", "an open pane and a ring of 64", memory["pane_and_ring"] / 2**20, "MiB", better="lower", goal=3)


def peer_rows(detector, peers):
    """A table: false alarms for 100,000 requests and the median delay of each scenario."""
    null = of_kind(detector, "standard")["null"]
    requests = sum(run["x_count"] for run in null)
    ours = {"detector": "Perennial, 5 % in 90 days", "false alarms in 100,000": 1e5 * sum(len(run["alarms"]) for run in null) / requests}
    for scenario in SCENARIOS:
        ours[scenario] = median(delays(of_kind(detector, "standard")[scenario]))
    yield ours
    for row in peers["rows"]:
        if row["name"] == "perennial":
            row = row | {"what": "the same method as first designed, in numpy"}
        source = "" if row["source"] == "run" else f" ({row['source']})"
        cells = {"detector": row["what"] + source, "false alarms in 100,000": row["null"]["per_100k"]}
        for scenario in SCENARIOS:
            peer = row["change"][scenario]
            missed = peer.get("missed", 0) * 2 >= peer.get("streams", 1) if peer.get("missed") else False
            text = "missed" if missed else f"{peer['median']:,.0f}"
            if peer.get("false_before"):
                text += f" ({peer['false_before']} of {peer['streams']} alarmed before)"
            cells[scenario] = text
        yield cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--criterion", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    options = parser.parse_args()
    detector = json.loads((options.folder / "detector.json").read_text())
    peers = json.loads((options.folder / "peers.json").read_text())
    agreement = (options.folder / "agreement.txt").read_text()
    agreed, differing = (sum(int(n) for n in re.findall(rf"(\d+) {word}", agreement)) for word in ("passed", "failed"))
    figures = list(synthetic(detector, peers))
    figures.append(figure("agreement", f"streams of {agreed + differing} on which the reference in numpy alarms at other requests", differing, "streams", better="lower", goal=0))
    figures += texts(options.folder, options.texts)
    figures += costs(detector, options.criterion)
    name = machine()
    (options.folder / "drift.json").write_text(json.dumps([row | {"machine": name} for row in figures], indent=1, ensure_ascii=False) + "\n")
    table = list(peer_rows(detector, peers))
    (options.folder / "drift-peers.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    for row in figures:
        print(f"{row['what']}: {row['value']} {row['unit']}" + (f" (goal {row['goal']})" if "goal" in row else ""))
    print()
    for row in table:
        print(" | ".join(str(cell) for cell in row.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
