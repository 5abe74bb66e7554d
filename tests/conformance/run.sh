#!/usr/bin/env bash
# Runs the conformance checks against a server: run.sh URL MODEL, such as run.sh http://198.19.3.4 smollm2
set -euo pipefail
cd "$(dirname "$0")"
[ $# -eq 2 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
export CONFORMANCE_URL=${1%/} CONFORMANCE_MODEL=$2
seconds=${SCHEMATHESIS_SECONDS:-90}
seed=${SCHEMATHESIS_SEED:-$RANDOM}

venv=$(cd ../.. && pwd)/.cache/venv
if ! cmp -s requirements.txt "$venv/requirements.txt"; then
	echo "Installing the clients into .cache/venv ..."
	python3 -m venv --clear "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement requirements.txt
	cp requirements.txt "$venv/requirements.txt"
fi
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
passed=0 failed=0

# count PASSED FAILED
count() {
	passed=$((passed + $1))
	failed=$((failed + $2))
}

echo "== OpenAI's Python client"
"$venv/bin/python" -m pytest -q -p no:cacheprovider --tb=short --junit-xml="$reports/openai.xml" test_openai_client.py || true
# shellcheck disable=SC2046 # two numbers
count $("$venv/bin/python" - "$reports/openai.xml" <<'PYTHON'
import sys, xml.etree.ElementTree as tree
try:
    suite = tree.parse(sys.argv[1]).getroot().find("testsuite").attrib
    failed = int(suite["failures"]) + int(suite["errors"])
    passed = int(suite["tests"]) - failed - int(suite["skipped"])
    print(passed, failed or (0 if passed else 1))
except OSError:
    print(0, 1)
PYTHON
)

echo "== curl"
./curl_checks.sh | tee "$reports/curl" || true
count "$(grep -c '^ok ' "$reports/curl" || true)" "$(grep -c '^FAILED ' "$reports/curl" || true)"

echo "== schemathesis, seed $seed, at most $seconds s"
# The document, with requests that are answered soon: for the model that is there, and short.
curl --fail --silent --show-error "$CONFORMANCE_URL/openapi.json" | jq --arg model "$CONFORMANCE_MODEL" '
	walk(if type == "object" and (.properties | type == "object") and .properties.model and .properties.max_tokens then
		.properties |= with_entries(
			if .key == "model" then .value = {type: "string", enum: [$model]}
			elif .key == "max_tokens" or .key == "max_completion_tokens" then .value = {type: "integer", minimum: 1, maximum: 8}
			else . end)
		| .required = ((.required // []) + ["model", "max_tokens"] | unique)
	else . end)' >"$reports/openapi.json" || true
if (cd "$reports" && "$venv/bin/st" --no-color run openapi.json --url "$CONFORMANCE_URL" --seed "$seed" \
	--max-time "$seconds" --request-timeout 120 --phases examples,coverage,fuzzing --max-examples 50 --warnings off \
	--checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance); then
	count 1 0
else
	count 0 1
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
