#!/usr/bin/env bash
# 1,000 LLMDeployments against the API server alone: time until they are settled, API calls for each, memory
# of the operator, writes at rest. Arguments go to the bench. Writes target/bench/operator.json.
source "$(dirname "$0")/lib.sh"

hack/setup.sh
hack/cluster-build.sh
cargo build --quiet --locked --profile ci --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/ci/bench-operator" "$@"
