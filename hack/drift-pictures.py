#!/usr/bin/env python3
"""Writes the pictures of docs/concepts/drift.md, for a light and for a dark page. Needs nothing but Python 3.10."""

import math
import random
from pathlib import Path

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
THEMES = {
    "light": {"ink": "#1f2328", "quiet": "#59636e", "line": "#d1d9e0", "fill": "#f6f8fa", "accent": "#0969da", "warm": "#bc4c00"},
    "dark": {"ink": "#f0f6fc", "quiet": "#9198a1", "line": "#3d444d", "fill": "#151b23", "accent": "#4493f8", "warm": "#db6d28"},
}
FONT = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"'


def text(x, y, words, colour, size=14, anchor="start", weight="400"):
    return f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">{words}</text>'


def page(width, height, title, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {FONT}>'
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>"]) + "\n"


def box(x, y, width, height, lines, theme, strong=False):
    edge = theme["accent"] if strong else theme["line"]
    parts = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{theme["fill"]}" stroke="{edge}" stroke-width="1.5"/>']
    middle = y + height / 2 + 5 - 10 * (len(lines) - 1)
    for place, line in enumerate(lines):
        colour = theme["ink"] if place == 0 else theme["quiet"]
        parts.append(text(x + width / 2, middle + 20 * place, line, colour, 14 if place == 0 else 12.5, "middle", "600" if place == 0 else "400"))
    return parts


def arrow(x1, y1, x2, y2, theme):
    angle = math.atan2(y2 - y1, x2 - x1)
    tip = [(x2 - 8 * math.cos(angle + turn), y2 - 8 * math.sin(angle + turn)) for turn in (0.45, -0.45)]
    points = f"{x2},{y2} " + " ".join(f"{x:.1f},{y:.1f}" for x, y in tip)
    return [
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{theme["quiet"]}" stroke-width="1.5"/>',
        f'<polygon points="{points}" fill="{theme["quiet"]}"/>',
    ]


def flow(theme):
    parts = []
    for replica in range(3):
        y = 30 + 70 * replica
        parts += box(20, y, 130, 50, ["replica", "counts requests"], theme)
        parts += box(190, y, 110, 50, ["pane", "5 min, 31 KiB"], theme)
        parts += arrow(150, y + 25, 188, y + 25, theme)
        parts += arrow(300, y + 25, 348, 125, theme)
    parts += box(350, 95, 120, 60, ["one pane", "added exactly"], theme)
    parts += box(350, 195, 120, 50, ["baseline", "same hour, frozen"], theme)
    parts += arrow(410, 195, 410, 157, theme)
    for place, (name, what) in enumerate([("evidence", "not the baseline?"), ("effect", "does it matter?"), ("cause", "why?")]):
        y = 30 + 70 * place
        parts += box(520, y, 140, 50, [name, what], theme)
        parts += arrow(470, 125, 518, y + 25, theme)
        parts += arrow(660, y + 25, 708, 125, theme)
    parts += box(710, 95, 130, 60, ["one verdict", "in words"], theme, strong=True)
    return page(860, 265, "From requests to a verdict", parts)


def evidence(theme):
    left, right, top, bottom, days = 70, 830, 40, 260, 10.0
    highest, threshold, change = 24.0, 13.16, 5.6
    x = lambda day: left + (right - left) * day / days
    y = lambda log: bottom - (bottom - top) * min(log, highest) / highest
    draw, log, points, crossed = random.Random(7), 0.0, [], None
    for step in range(481):
        day = days * step / 480
        log = min(math.log1p(math.exp(log)) + draw.gauss(-0.35, 0.75) + (0.75 if day > change else 0.0), 23.0 + draw.gauss(0, 0.3))
        points.append((day, max(0.0, log)))
        if crossed is None and log >= threshold:
            crossed = day
    confirmed = crossed + 0.7
    path = " ".join(f"{x(day):.1f},{y(log):.1f}" for day, log in points)
    parts = [
        f'<rect x="{x(crossed):.1f}" y="{top}" width="{x(confirmed) - x(crossed):.1f}" height="{bottom - top}" fill="{theme["warm"]}" opacity="0.14"/>',
        f'<rect x="{x(confirmed):.1f}" y="{top}" width="{right - x(confirmed):.1f}" height="{bottom - top}" fill="{theme["warm"]}" opacity="0.28"/>',
        f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="{theme["line"]}" stroke-width="1.5"/>',
        f'<line x1="{left}" y1="{y(threshold):.1f}" x2="{right}" y2="{y(threshold):.1f}" stroke="{theme["warm"]}" stroke-width="1.5" stroke-dasharray="6 4"/>',
        f'<line x1="{x(change):.1f}" y1="{top}" x2="{x(change):.1f}" y2="{bottom}" stroke="{theme["quiet"]}" stroke-width="1.5" stroke-dasharray="2 4"/>',
        f'<polyline points="{path}" fill="none" stroke="{theme["accent"]}" stroke-width="2" stroke-linejoin="round"/>',
        text(left, y(threshold) - 8, "the budget: e^13.2 = 518,400", theme["warm"], 13),
        text(x(change) - 8, top + 14, "the change", theme["quiet"], 13, "end"),
        text(x(confirmed) - 4, top - 10, "Suspected", theme["ink"], 13, "end", "600"),
        text(x(confirmed) + 10, top - 10, "Drifted: and it matters", theme["ink"], 13, "start", "600"),
        text(left, 24, "evidence", theme["quiet"], 13),
        text(left - 10, bottom + 4, "1", theme["quiet"], 12, "end"),
        text(left - 10, y(threshold) + 4, "e^13.2", theme["quiet"], 12, "end"),
        text(right, bottom + 22, "days", theme["quiet"], 13, "end"),
        text(left, bottom - 52, "fair odds: the fortune wanders near one", theme["quiet"], 13),
    ]
    return page(860, 290, "Evidence over time", parts)


for name, theme in THEMES.items():
    (IMAGES / f"drift-flow-{name}.svg").write_text(flow(theme))
    (IMAGES / f"drift-evidence-{name}.svg").write_text(evidence(theme))
