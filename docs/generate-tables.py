#!/usr/bin/env python3
"""Writes the tables of figures in README.md, drift/README.md and docs/ from docs/benchmarks/*.json.

    docs/generate-tables.py            write them
    docs/generate-tables.py --check    fail when one is out of date

A table stands between `<!-- benchmarks:begin -->` (all files) or `<!-- benchmarks:begin NAME... -->` (these files) and
`<!-- benchmarks:end -->`. A file is a list of figures:

    {"id": "C2.decode.q4_k", "what": "...", "value": 29.1, "unit": "tok/s", "better": "higher", "goal": 29.4,
     "baseline": {"name": "llama.cpp", "value": 22.6}, "ratio": 1.29, "machine": "2 cores, Sapphire Rapids"}

`goal`, `baseline`, `ratio` and `machine` may be absent. Needs nothing but Python 3.10.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "benchmarks"
BLOCK = re.compile(r"(<!-- benchmarks:begin([^>]*) -->\n).*?(<!-- benchmarks:end -->)", flags=re.S)
REQUIRED = ("id", "what", "value", "unit")


def number(value) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"


def cell(text) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def with_unit(value, unit: str) -> str:
    return f"{number(value)} {unit}".strip()


def row(figure: dict) -> str:
    unit, goal, baseline = figure["unit"], figure.get("goal"), figure.get("baseline")
    bound = {"higher": "≥ ", "lower": "≤ "}.get(figure.get("better", ""), "")
    cells = [
        figure["what"],
        with_unit(figure["value"], unit),
        "" if goal is None else bound + with_unit(goal, unit),
        "" if not baseline else f"{baseline['name']}: {with_unit(baseline['value'], unit)}",
        "" if figure.get("ratio") is None else f"{number(figure['ratio'])}×",
    ]
    return "| " + " | ".join(cell(text) for text in cells) + " |"


def figures(path: Path) -> list[dict]:
    content = json.loads(path.read_text())
    for figure in content:
        missing = [name for name in REQUIRED if name not in figure]
        if missing:
            sys.exit(f"{path.relative_to(ROOT)}: a figure lacks {', '.join(missing)}")
    return content


def tables(names: list[str]) -> str:
    paths = [FIGURES / f"{name}.json" for name in names] if names else sorted(FIGURES.glob("*.json"))
    lines = []
    for path in paths:
        if not path.exists():
            sys.exit(f"{path.relative_to(ROOT)} is not there")
        content = figures(path)
        machines = list(dict.fromkeys(figure["machine"] for figure in content if figure.get("machine")))
        lines += [f"**{path.stem}**" + (f", on {'; '.join(machines)}" if machines else ""), ""]
        lines += ["| what | measured | goal | beside it, same run | ratio |", "| --- | --- | --- | --- | --- |"]
        lines += [row(figure) for figure in content] + [""]
    if not lines:
        lines = ["No figures are published yet. `docs/benchmarks/` is where they will lie.", ""]
    return "\n" + "\n".join(lines) + "\n"


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print(__doc__)
        return 2
    stale = []
    for path in [ROOT / "README.md", ROOT / "drift" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if not path.exists():
            continue
        old = path.read_text()
        new = BLOCK.sub(lambda match: match[1] + tables(match[2].split()) + match[3], old)
        if new != old:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new)
    for path in stale:
        print(f"{path}: {'out of date: run docs/generate-tables.py' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
