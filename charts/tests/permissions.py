#!/usr/bin/env python3
"""What an account may really do, as lines `GROUP/RESOURCE VERB`, sorted.

    permissions.py expected FILE [PLACE...]   from permissions.txt, for a namespace that is all of PLACE
    permissions.py actual GRANTED BASELINE    from two SelfSubjectRulesReviews (JSON): what the first has beyond the second
"""
import json
import sys


def expected(path, places):
    for line in open(path):
        if line.strip() and not line.startswith("#"):
            resource, verbs, place = line.split()
            if place in places:
                yield from (f"{resource} {verb}" for verb in verbs.split(","))


def rules(path):
    status = json.load(open(path))["status"]
    assert not status.get("incomplete"), f"{path} is incomplete: {status.get('evaluationError')}"
    for rule in status["resourceRules"]:
        for group in rule.get("apiGroups", []):
            for resource in rule.get("resources", []):
                name = ",".join(rule.get("resourceNames", []))
                for verb in rule["verbs"]:
                    yield f"{group or 'core'}/{resource} {verb}{' of ' + name if name else ''}"
    for rule in status["nonResourceRules"]:
        yield from (f"{url} {verb}" for url in rule["nonResourceURLs"] for verb in rule["verbs"])


if sys.argv[1] == "expected":
    lines = set(expected(sys.argv[2], sys.argv[3:]))
else:
    lines = set(rules(sys.argv[2])) - set(rules(sys.argv[3]))
print("\n".join(sorted(lines)))
