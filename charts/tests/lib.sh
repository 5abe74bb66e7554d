# What the chart tests share. Sourced by run.sh and cluster.sh.

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
charts=$(dirname "$tests")
root=$(dirname "$charts")
tools=${CLUSTER_TOOLS:-$root/target/cluster}
system=perennial-system

helm() { "$tools/helm" "$@"; }
kubectl() { "$tools/kubectl" "$@"; }

# attempt COMMAND...: its output in $output, its exit status in $status. Unlike in `if COMMAND`, a function stops at its
# first error.
attempt() {
    set +e
    output=$(
        set -e
        "$@" 2>&1
    )
    status=$?
    set -e
}

# check NAME COMMAND...: one test. Its output is shown only when it fails.
check() {
    local name=$1 output status
    shift
    attempt "$@"
    if ((status == 0)); then
        echo "ok      $name"
        echo passed >>"$results"
    else
        echo "FAILED  $name"
        printf '$ %s\n%s\n' "$*" "$output" | sed 's/^/        /'
        echo failed >>"$results"
    fi
}

# refused TEXT COMMAND...: the command fails and says TEXT.
refused() {
    local text=$1 output status
    shift
    attempt "$@"
    if ((status == 0)) || [[ $output != *"$text"* ]]; then
        printf 'expected a refusal with: %s\ngot status %s: %s\n' "$text" "$status" "$output"
        return 1
    fi
}

# eventually COMMAND...: the command succeeds within 30 seconds.
eventually() {
    local deadline=$((SECONDS + 30)) output status
    attempt "$@"
    while ((status != 0)); do
        if ((SECONDS > deadline)); then
            printf 'not within 30 s: %s\n%s\n' "$*" "$output"
            return 1
        fi
        sleep 0.2
        attempt "$@"
    done
}

# equal EXPECTED ACTUAL
equal() {
    [[ $1 == "$2" ]] || diff <(echo "$1") <(echo "$2")
}

# The chart of the definitions with a small definition in place of the generated one, in a new directory.
fixture_chart() {
    local copy
    copy=$(mktemp -d "$scratch/crds.XXXXXX")
    cp -R "$charts/perennial-crds/." "$copy"
    rm "$copy"/files/*
    cp "$tests/fixtures/definition.yaml" "$copy/files/"
    echo "$copy"
}

# Reads an object's field as JSON path.
field() {
    kubectl get "${@:2}" --output "jsonpath=$1"
}
