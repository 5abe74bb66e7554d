#!/usr/bin/env bash
# Tests of the charts: versions, documentation, lint, golden renders, schema, and a real API server.
#
#   run.sh             all
#   run.sh --offline   without the API server
#   run.sh --update    write golden renders and documentation anew
#
# Needs target/cluster (hack/cluster-build.sh) and Python 3. Uses a cluster of its own, never the current context.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mode=${1:-all}
case $mode in all | --offline | --update) ;; *)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
if [[ ! -x $tools/helm ]]; then
    echo "$tools/helm is missing: build it with hack/cluster-build.sh, or set CLUSTER_TOOLS." >&2
    exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
results=$scratch/results
: >"$results"
# Helm keeps nothing of, and reads nothing from, the user's home; there is no cluster until there is ours.
export HELM_CONFIG_HOME=$scratch/helm/config HELM_CACHE_HOME=$scratch/helm/cache HELM_DATA_HOME=$scratch/helm/data
export KUBECONFIG=/dev/null

python=python3
if ! python3 -c 'import yaml' 2>/dev/null; then
    python=$root/target/charts-python/bin/python
    if ! "$python" -c 'import yaml' 2>/dev/null; then
        python3 -m venv "$root/target/charts-python"
        "$root/target/charts-python/bin/pip" install --quiet pyyaml==6.0.3
    fi
fi
export python

# Prints CHART's golden cases: NAME, tab, values file (none for the default).
cases() {
    printf 'default\t\n'
    local file
    for file in "$charts/$1"/ci/*-values.yaml; do
        printf '%s\t%s\n' "$(basename "$file" -values.yaml)" "$file"
    done
}

# render CHART CASE FILE: the golden text. The definitions are rendered from a fixture, so that a new field of
# LLMDeployment changes no golden file.
render() {
    local directory=$charts/$1
    [[ $1 == perennial ]] || directory=$(fixture_chart)
    helm template "$1" "$directory" --namespace "$system" ${3:+--values "$3"}
}

golden() {
    render "$@" >"$scratch/rendered.yaml"
    diff -u "$tests/golden/$1-$2.yaml" "$scratch/rendered.yaml" ||
        { echo "If this is meant: charts/tests/run.sh --update" && return 1; }
}

if [[ $mode == --update ]]; then
    "$charts/generate-docs.py"
    rm -f "$tests"/golden/*.yaml
    for chart in perennial perennial-crds; do
        while IFS=$'\t' read -r name file; do
            render "$chart" "$name" "$file" >"$tests/golden/$chart-$name.yaml"
        done < <(cases "$chart")
    done
    exit
fi

versions_agree() {
    local workspace chart
    workspace=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    for chart in perennial perennial-crds; do
        grep -qx "version: $workspace" "$charts/$chart/Chart.yaml" &&
            grep -qx "appVersion: $workspace" "$charts/$chart/Chart.yaml" ||
            { echo "Cargo.toml says $workspace; $chart/Chart.yaml differs" && return 1; }
    done
}

# The rendered definitions are the generated ones in all but labels and annotations.
definitions_are_whole() {
    helm template perennial-crds "$charts/perennial-crds" --show-only templates/crds.yaml >"$scratch/crds.yaml"
    "$python" - "$scratch/crds.yaml" "$root"/crds/*.yaml <<'EOF'
import sys, yaml
rendered = {o["metadata"]["name"]: o for o in yaml.safe_load_all(open(sys.argv[1]))}
generated = {o["metadata"]["name"]: o for o in (yaml.safe_load(open(path)) for path in sys.argv[2:])}
assert generated and rendered.keys() == generated.keys(), (rendered.keys(), generated.keys())
for name, definition in generated.items():
    assert rendered[name]["spec"] == definition["spec"], f"the chart changes the spec of {name}"
    assert rendered[name]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
EOF
}

copies_are_equal() {
    local file
    for file in "$root"/crds/*.yaml; do
        cmp "$file" "$charts/perennial-crds/files/$(basename "$file")" ||
            { echo "generate them again with crdgen" && return 1; }
    done
}

fixture_keeps_its_numbers() {
    "$python" - "$tests/fixtures/definition.yaml" "$tests/golden/perennial-crds-default.yaml" <<'EOF'
import sys, yaml
given = yaml.safe_load(open(sys.argv[1]))
rendered = [o for o in yaml.safe_load_all(open(sys.argv[2])) if o["kind"] == given["kind"]]
assert len(rendered) == 1 and rendered[0]["spec"] == given["spec"]
assert rendered[0]["metadata"]["labels"]["test.perennial.dev/own"] == "kept"
assert rendered[0]["metadata"]["annotations"]["test.perennial.dev/own"] == "kept"
EOF
}

roles_are_narrow() {
    "$python" - "$tests"/golden/*.yaml <<'EOF'
import sys, yaml
roles = 0
for path in sys.argv[1:]:
    for item in filter(None, yaml.safe_load_all(open(path))):
        for rule in item.get("rules", []) if item["kind"] in ("Role", "ClusterRole") else []:
            roles += 1
            words = [word for values in rule.values() for word in values]
            assert not any("*" in word for word in words), f"{path}: wildcard in {rule}"
            assert not any(word.startswith("secrets") for word in words), f"{path}: secrets in {rule}"
            assert not {"bind", "escalate", "impersonate"} & set(words), f"{path}: {rule}"
assert roles > 20, f"only {roles} rules seen"
EOF
}

nothing_cluster_wide() {
    equal "" "$(grep 'kind: Cluster' "$tests/golden/perennial-namespaced.yaml" || true)"
}

packages_render_alike() {
    local chart archive
    for chart in perennial perennial-crds; do
        helm package "$charts/$chart" --destination "$scratch" >/dev/null
        archive=$(echo "$scratch/$chart"-[0-9]*.tgz)
        helm template "$chart" "$charts/$chart" >"$scratch/directory.yaml"
        helm template "$chart" "$archive" >"$scratch/archive.yaml"
        diff "$scratch/directory.yaml" "$scratch/archive.yaml"
        equal "" "$(tar -tzf "$archive" | grep -E '/(ci|tests)/' || true)"
    done
}

# As a part of another chart, which may set a condition and global values.
works_in_another_chart() {
    local umbrella=$scratch/umbrella
    mkdir -p "$umbrella/charts"
    cp -R "$charts/perennial" "$charts/perennial-crds" "$umbrella/charts/"
    cat >"$umbrella/Chart.yaml" <<'EOF'
apiVersion: v2
name: umbrella
version: 1.0.0
dependencies:
  - {name: perennial, version: "*", condition: perennial.enabled}
  - {name: perennial-crds, version: "*", condition: perennial-crds.enabled}
EOF
    printf 'global: {region: x}\nperennial: {enabled: true}\nperennial-crds: {enabled: true}\n' >"$umbrella/values.yaml"
    helm template umbrella "$umbrella" >"$scratch/umbrella.yaml"
    grep -q 'name: umbrella-perennial-operator' "$scratch/umbrella.yaml"
    grep -q 'name: llmdeployments.perennial.dev' "$scratch/umbrella.yaml"
}

check "versions agree: Cargo.toml and both charts" versions_agree
check "READMEs and schemas follow values.yaml" "$python" "$charts/generate-docs.py" --check
check "the chart's definitions are those in crds/" copies_are_equal
check "the chart changes only metadata of definitions" definitions_are_whole
check "rendering a definition keeps labels, annotations and numbers" fixture_keeps_its_numbers
for chart in perennial perennial-crds; do
    while IFS=$'\t' read -r name file; do
        check "lint $chart ($name)" helm lint --strict --quiet "$charts/$chart" ${file:+--values "$file"}
        check "golden $chart ($name)" golden "$chart" "$name" "$file"
    done < <(cases "$chart")
done
check "no wildcard, secret or escalation in any role" roles_are_narrow
check "namespaced mode makes nothing cluster-wide" nothing_cluster_wide
check "packages render like their directories, without test files" packages_render_alike
check "both charts work as parts of another chart" works_in_another_chart
check "ServiceMonitor without Service is refused" refused "set metrics.service.enabled to true" \
    helm template x "$charts/perennial" --set metrics.serviceMonitor.enabled=true,metrics.service.enabled=false

while IFS='|' read -r chart flags message; do
    # shellcheck disable=SC2086 # flags are words
    check "schema of $chart refuses $flags" refused "$message" helm template x "$charts/$chart" $flags
done <"$tests/refused.txt"

if [[ $mode == --offline ]]; then
    echo "skipped: everything that needs an API server (--offline)"
else
    export results scratch
    "$tools/testcluster" run --control-plane-only --state "$scratch/cluster" -- "$tests/cluster.sh" ||
        { echo "FAILED  cluster.sh stopped early" && echo failed >>"$results"; }
fi

failed=$(grep -c failed "$results" || true)
echo "$(grep -c passed "$results" || true) passed, $failed failed"
((failed == 0))
