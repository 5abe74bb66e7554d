#!/usr/bin/env python3
"""Checks that the documentation fits the code.

Relative links and their anchors lead somewhere; every Reason of crds/src/conditions.rs is named in docs/, and those that
need somebody have a section in docs/troubleshooting.md; LLMDeployments and DriftPolicies in code blocks use only fields of
their CRDs. The last needs PyYAML and is left out, with a message, where that is missing, and for a CRD that was not generated
yet. Needs nothing else than Python 3.10.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUP = "perennial.dev"
# Kinds whose objects in code blocks are checked, and their plurals.
KINDS = {"LLMDeployment": "llmdeployments", "DriftPolicy": "driftpolicies"}
# Reasons that are stages and states of a normal life: nobody has to act.
NEEDS_NOBODY = {
    "AlertOnly", "AllReplicasReady", "CollectorReady", "CoolingDown", "CycleRunning", "DesiredWithinRange", "Downloading", "DrainingOldRevision", "Learned", "Learning", "LoadingWeights",
    "NoCandidate", "NoDrift", "NoReplicaReady", "PanesRead", "Paused", "PolicyActive", "ProbesAwaited", "ProbesSame", "Resolved", "Resolving", "Restoring", "RevisionServes", "RollingOut", "Routable", "ScaledToZero",
    "Scaling", "Scheduled", "StartingPods", "Suspended", "SwitchingTraffic", "ValidMetricFound", "Verifying", "WarmingUp",
    "WithinBudget",
}  # fmt: skip

passed = 0
failures: list[str] = []


def check(holds: bool, failure: str) -> None:
    global passed
    if holds:
        passed += 1
    else:
        failures.append(failure)


def documents() -> list[Path]:
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "drift/README.md")]
    return [path for path in top if path.exists()] + sorted((ROOT / "docs").rglob("*.md"))


def without_code(text: str) -> str:
    """The text without fenced and indented blocks and without code spans, whose brackets are no links."""
    text = re.sub(r"^( *)(```|~~~).*?^\1\2 *$", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(path: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    found: dict[str, int] = {}
    text = re.sub(r"^( *)(```|~~~).*?^\1\2 *$", "", path.read_text(), flags=re.S | re.M)
    for title in re.findall(r"^#{1,6} +(.+?) *#*$", text, flags=re.M):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = found.get(slug, -1) + 1
        found[slug] = count
        if count:
            found[f"{slug}-{count}"] = 0
    return set(found)


def check_links() -> None:
    for path in documents():
        for target in re.findall(r"\[[^]]*\]\(([^)\s]+)\)", without_code(path.read_text())):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            shown = f"{path.relative_to(ROOT)}: the link {target}"
            if not file.exists():
                check(False, f"{shown} leads nowhere")
            elif anchor and file.suffix == ".md":
                check(anchor in anchors(file), f"{shown} names a heading that is not there")
            else:
                check(True, "")


def reasons() -> list[str]:
    source = (ROOT / "crds/src/conditions.rs").read_text()
    block = re.search(r"^reasons! \{(.*?)^\}", source, flags=re.S | re.M)
    return re.findall(r"^    ([A-Z]\w+),$", block.group(1), flags=re.M) if block else []


def check_reasons() -> None:
    names = reasons()
    check(bool(names), "crds/src/conditions.rs: no reasons were found")
    check(NEEDS_NOBODY <= set(names), f"docs/check.py: no reasons any more: {sorted(NEEDS_NOBODY - set(names))}")
    everything = "\n".join(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))
    page = ROOT / "docs/troubleshooting.md"
    sections = set(re.findall(r"^### (\w+)$", page.read_text(), flags=re.M))
    for name in names:
        check(re.search(rf"\b{name}\b", everything) is not None, f"docs: the reason {name} is named nowhere")
        if name not in NEEDS_NOBODY:
            check(name in sections, f"docs/troubleshooting.md: no section '### {name}'")
    for section in sorted(sections):
        check(section in names, f"docs/troubleshooting.md: {section} is no reason of crds/src/conditions.rs")


def unknown_fields(value, schema: dict, path: str) -> list[str]:
    """Paths in `value` that the schema does not know."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if isinstance(value, list):
        found = (unknown_fields(item, schema.get("items", {}), f"{path}[{index}]") for index, item in enumerate(value))
        return [name for names in found for name in names]
    if not isinstance(value, dict):
        return []
    if "additionalProperties" in schema:
        return []
    properties, found = schema.get("properties", {}), []
    for name, item in value.items():
        if name in properties:
            found += unknown_fields(item, properties[name], f"{path}.{name}")
        else:
            found.append(f"{path}.{name}")
    return found


def blocks(text: str) -> list[str]:
    fenced = re.findall(r"^( *)```ya?ml\n(.*?)^\1```", text, flags=re.S | re.M)
    return [re.sub(rf"^{indent}", "", block, flags=re.M) for indent, block in fenced]


def check_examples() -> None:
    try:
        import yaml
    except ImportError:
        print("skipped: fields of objects in code blocks: PyYAML is not installed")
        return
    schemas = {}
    for kind, plural in KINDS.items():
        file = ROOT / f"crds/{plural}.{GROUP}.yaml"
        if file.exists():
            crd = yaml.safe_load(file.read_text())
            schemas[kind] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        else:
            print(f"skipped: fields of {kind} in code blocks: {file.relative_to(ROOT)} is not there; run make generate")
    for path in documents():
        for number, block in enumerate(blocks(path.read_text()), start=1):
            shown = f"{path.relative_to(ROOT)}: YAML block {number}"
            try:
                objects = list(yaml.safe_load_all(block))
            except yaml.YAMLError as error:
                check(False, f"{shown}: {' '.join(str(error).split())}")
                continue
            check(True, "")
            for item in objects:
                if not isinstance(item, dict) or item.get("kind") not in KINDS or "spec" not in item:
                    continue
                kind, spec = item["kind"], item["spec"]
                check(item.get("apiVersion") == f"{GROUP}/v1alpha1", f"{shown}: wrong apiVersion")
                if kind in schemas:
                    unknown = unknown_fields(spec, schemas[kind], "spec")
                    check(not unknown, f"{shown}: not in the CRD of {kind}: {', '.join(unknown)}")
                if kind == "LLMDeployment":
                    sources = spec.get("model", {}).get("source", {})
                    check(len(sources) == 1, f"{shown}: exactly one source is wanted, not {len(sources)}")


def main() -> int:
    check_links()
    check_reasons()
    check_examples()
    for failure in failures:
        print(failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
