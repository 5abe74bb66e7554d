#!/usr/bin/env python3
"""Writes the values table of each chart's README, and the schema's descriptions, from the comments in values.yaml.

    generate-docs.py            write
    generate-docs.py --check    change nothing; exit 1 where something differs or a value is not documented

A value is documented by the line `# -- SENTENCE` above it. Needs PyYAML.
"""
import json
import re
import sys
from pathlib import Path

import yaml

CHARTS = Path(__file__).resolve().parent
BEGIN, END = "<!-- values: generated from values.yaml -->", "<!-- end of values -->"


def comments(text):
    """Yields (path, sentence) for each documented key, in the order of the file."""
    stack, sentence = [], None
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r" *# -- (.*)", line):
            sentence = match[1]
        elif match := re.match(r"( *)([A-Za-z][\w-]*):", line):
            depth = len(match[1]) // 2
            stack = stack[:depth] + [match[2]]
            if sentence:
                yield tuple(stack), sentence
            sentence = None
        elif sentence:
            sys.exit(f"values.yaml:{number}: a comment `# --` must stand right above its value")


def leaves(value, path, documented):
    """Yields every path that needs a row: a documented one, or the deepest below undocumented ones."""
    if path in documented or not isinstance(value, dict) or not value:
        yield path
        return
    for key, child in value.items():
        yield from leaves(child, path + (key,), documented)


def lookup(values, path):
    for key in path:
        values = values[key]
    return values


def describe(schema, path, sentence):
    """Puts the sentence first into the value's schema; false where there is none."""
    for key in path:
        parent, schema = schema.get("properties", {}), schema.get("properties", {}).get(key)
        if schema is None:
            return False
    parent[path[-1]] = {"description": sentence} | {k: v for k, v in schema.items() if k != "description"}
    return True


def generate(chart):
    """Returns the new texts by path, and what is wrong with the values."""
    text = (chart / "values.yaml").read_text()
    values = yaml.safe_load(text)
    documented = dict(comments(text))
    schema = json.loads((chart / "values.schema.json").read_text())
    errors, rows = [], []
    for path in leaves(values, (), documented):
        name = ".".join(path)
        if path not in documented:
            errors.append(f"{chart.name}: {name} has no comment `# --` in values.yaml")
            continue
        default = json.dumps(lookup(values, path)).replace("|", "\\|")
        rows.append(f"| `{name}` | `{default}` | {documented[path].replace('|', chr(92) + '|')} |")
        if not describe(schema, path, documented[path]):
            errors.append(f"{chart.name}: {name} is missing in values.schema.json")
    for path in declared(schema):
        try:
            lookup(values, path)
        except (KeyError, TypeError):
            errors.append(f"{chart.name}: {'.'.join(path)} of values.schema.json is missing in values.yaml")
    readme = chart / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join([BEGIN, "", "| value | default | meaning |", "| --- | --- | --- |", *rows, "", END])
    return {readme: before + table + after, chart / "values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"}, errors


def declared(schema, path=()):
    """Yields the values that the schema names, without those that Helm and Kubernetes define."""
    for key, child in schema.get("properties", {}).items():
        if path + (key,) not in {("global",), ("enabled",), ("resources", "claims")}:
            yield path + (key,)
            if "properties" in child and path + (key,) not in {("affinity",)}:
                yield from declared(child, path + (key,))


def main():
    check, failed = sys.argv[1:] == ["--check"], False
    for chart in (CHARTS / "perennial", CHARTS / "perennial-crds"):
        texts, errors = generate(chart)
        for path, text in texts.items():
            if check and path.read_text() != text:
                errors.append(f"{path.relative_to(CHARTS)} differs from values.yaml: run charts/generate-docs.py")
            elif not check:
                path.write_text(text)
        for error in errors:
            print(error, file=sys.stderr)
        failed |= bool(errors)
    sys.exit(failed)


if __name__ == "__main__":
    main()
