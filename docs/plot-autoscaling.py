#!/usr/bin/env python3
"""Turns what `make bench-autoscaling` measured into figures, a table beside peers, and a plot.

    docs/plot-autoscaling.py             write target/bench/autoscaling.json, autoscaling-peers.json and autoscaling.svg
    docs/plot-autoscaling.py --publish   and copy them to docs/benchmarks/, docs/benchmarks/peers/ and docs/images/

The plot has one field per family and cold start: hours of replicas to the right, seconds over the objective upwards, both
relative. Needs nothing but Python 3.10.
"""

import json
import os
import platform
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "target" / "bench"
PEERS = ["HPA", "Knative KPA", "KEDA", "KubeAI"]
ALL = ["Perennial", *PEERS]
COLORS = {"Perennial": "#1a7f4b", "HPA": "#3b6fd4", "Knative KPA": "#b0651d", "KEDA": "#8a8f98", "KubeAI": "#a04bb5"}
MACHINE = f"{os.cpu_count()} cores, {platform.machine()}"
# Below this part of the seconds nothing is compared: a handful of seconds is chance.
NOISE = 0.0002
WORDS = {
    "day": "a day with two peaks",
    "bursts": "bursts of three to six times the load",
    "ramps": "ever new levels, reached slowly",
    "wander": "a rate that wanders",
    "blind": "ramps, with replicas that cannot be asked",
}


def best(row: dict) -> tuple[str, float] | None:
    peers = [(name, row[name]) for name in PEERS if name in row]
    return min(peers, key=lambda peer: peer[1]) if peers else None


def compare(row: dict, at: dict) -> tuple[str, float | None]:
    """What became of one budget, and the ratio to the best peer where there is one."""
    ours, peer, seconds = at.get("Perennial"), best(at), row["seconds"]
    if ours is None and peer is None:
        return "none", None
    if peer is None:
        return "only ours", None
    if ours is None:
        return "not reached", None
    if max(ours, peer[1]) < NOISE * seconds:
        return "both good", None
    floor = NOISE * seconds
    return "compared", max(ours, floor) / max(peer[1], floor)


def share(value: float | None, seconds: float) -> str:
    return "cannot" if value is None else f"{100 * value / seconds:.2f} %"


def tables(rows: list[dict], scrape: dict | None) -> tuple[list[dict], list[dict]]:
    peers, ratios, outcomes = [], [], {}
    for row in rows:
        for at in row["atCost"]:
            outcome, ratio = compare(row, at)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if ratio is not None:
                ratios.append((ratio, row, at))
            if outcome in ("none", "both good"):
                continue
            entry = {"load": WORDS.get(row["family"], row["family"]), "cold start": f"{row['coldStart']} s", "hours": f"{at['budget']}x"}
            entry |= {name: share(at.get(name), row["seconds"]) for name in ALL}
            entry["ratio to the best peer"] = "-" if ratio is None else f"{ratio:.2f}"
            peers.append(entry)
    held = sum(ratio <= 0.5 for ratio, _, _ in ratios) + outcomes.get("only ours", 0)
    lost = sum(ratio > 1.0 for ratio, _, _ in ratios) + outcomes.get("not reached", 0)
    judged = len(ratios) + outcomes.get("only ours", 0) + outcomes.get("not reached", 0)
    product = 1.0
    for ratio, _, _ in ratios:
        product *= ratio
    mean = product ** (1 / len(ratios)) if ratios else 1.0
    figures = [
        figure("A1.half", "Autoscaling: cells with at most half of the best peer's seconds over the objective, of " f"{judged}", held, "cells", "higher", judged),
        figure("A1.worse", f"Autoscaling: cells in which a peer is better, of {judged}", lost, "cells", "lower", 0),
        figure("A1.mean", "Autoscaling: seconds over the objective beside the best peer's at equal hours, geometric mean", round(mean, 3), "x", "lower", 0.5),
    ]
    if scrape:
        ask = scrape["ask"] + scrape["decide"]
        figures.append(figure("A2.scrape", "Asking 10,000 pods and deciding, processor time of one round on one core", round(ask, 3), "s", "lower", 2))
    return figures, peers


def figure(name: str, what: str, value, unit: str, better: str, goal) -> dict:
    return {"id": name, "what": what, "value": value, "unit": unit, "better": better, "goal": goal, "machine": MACHINE}


def plot(rows: list[dict]) -> str:
    families = list(dict.fromkeys(row["family"] for row in rows))
    colds = sorted({row["coldStart"] for row in rows})
    width, height, left, top = 250, 150, 70, 70
    total_width, total_height = left + len(colds) * (width + 20) + 10, top + len(families) * (height + 34) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}" font-family="system-ui, sans-serif" font-size="11" role="img">',
        "<title>Seconds over the time-to-first-token objective against hours of replicas</title>",
        "<style>.t{fill:#24292f}.m{fill:#57606a}.g{stroke:#d0d7de;fill:none}.b{fill:#ffffff}"
        "@media(prefers-color-scheme:dark){.t{fill:#e6edf3}.m{fill:#9198a1}.g{stroke:#3d444d}.b{fill:#0d1117}}</style>",
        f'<rect class="b" width="{total_width}" height="{total_height}"/>',
        f'<text class="t" x="{left}" y="20" font-size="14">Seconds over the objective against hours of replicas (1x: all of them full), each with its best settings</text>',
    ]
    for index, name in enumerate(ALL):
        x = left + index * 130
        parts.append(f'<line x1="{x}" y1="38" x2="{x + 22}" y2="38" stroke="{COLORS[name]}" stroke-width="{3 if name == "Perennial" else 2}"/>')
        parts.append(f'<text class="t" x="{x + 28}" y="42">{name}</text>')
    for row in rows:
        column, line = colds.index(row["coldStart"]), families.index(row["family"])
        x0, y0 = left + column * (width + 20), top + line * (height + 34)
        parts.append(field(row, x0, y0, width, height, column == 0))
    parts.append("</svg>\n")
    return "\n".join(parts)


def frontier(curve: list) -> list[tuple[float, float]]:
    """The best setting for each cost: settings that cost more and give less are nobody's choice."""
    best: list[tuple[float, float]] = []
    for cost, over, _ in curve:
        if not best or over < best[-1][1]:
            best.append((cost, over))
    return best


def field(row: dict, x0: float, y0: float, width: float, height: float, first: bool) -> str:
    def place(cost: float, over: float) -> tuple[float, float]:
        right = (cost / row["idealHours"] - 1) / 4
        # A square root, so that the small differences that matter can be seen.
        up = (min(100 * over / row["seconds"], 20) / 20) ** 0.5
        return x0 + width * right, y0 + height * (1 - up)

    parts = [f'<rect class="g" x="{x0}" y="{y0}" width="{width}" height="{height}"/>']
    parts.append(f'<text class="m" x="{x0}" y="{y0 - 5}">{row["family"]}, cold start {row["coldStart"]} s</text>')
    for percent in (1, 5, 20):
        _, y = place(0, percent / 100 * row["seconds"])
        parts.append(f'<line class="g" x1="{x0}" x2="{x0 + width}" y1="{y:.1f}" y2="{y:.1f}" stroke-dasharray="2 3"/>')
        if first:
            parts.append(f'<text class="m" x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    for times in (1, 2, 3, 4, 5):
        x, _ = place(times * row["idealHours"], 0)
        parts.append(f'<text class="m" x="{x:.1f}" y="{y0 + height + 13}" text-anchor="middle">{times}x</text>')
    for name in reversed(ALL):
        points = [place(cost, over) for cost, over in frontier(row["curves"][name]) if 1 <= cost / row["idealHours"] <= 5]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{COLORS[name]}" stroke-width="{2.6 if name == "Perennial" else 1.4}" points="{path}"/>')
    return "\n".join(parts)


def main() -> int:
    measured = json.loads((BENCH / "autoscaling-runs.json").read_text())
    scrape_file = BENCH / "autoscaling-scrape.json"
    scrape = json.loads(scrape_file.read_text()) if scrape_file.exists() else None
    figures, peers = tables(measured["rows"], scrape)
    outputs = {
        "autoscaling.json": (json.dumps(figures, indent=1) + "\n", "docs/benchmarks/autoscaling.json"),
        "autoscaling-peers.json": (json.dumps(peers, indent=1) + "\n", "docs/benchmarks/peers/autoscaling.json"),
        "autoscaling.svg": (plot(measured["rows"]), "docs/images/autoscaling.svg"),
    }
    for name, (text, published) in outputs.items():
        (BENCH / name).write_text(text)
        print(f"target/bench/{name}")
        if "--publish" in sys.argv[1:]:
            shutil.copy(BENCH / name, ROOT / published)
            print(published)
    for one in figures:
        print(f"{one['what']}: {one['value']} {one['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
