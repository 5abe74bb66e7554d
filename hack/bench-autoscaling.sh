#!/usr/bin/env bash
# The autoscaler beside HPA, Knative, KEDA and KubeAI in one simulated world, and what asking 10,000 pods costs.
#
#   hack/bench-autoscaling.sh                        some ten minutes on two cores
#   hack/bench-autoscaling.sh --trace FILE.csv...    only the comparison, on traces in Azure's format
#
# Writes target/bench/autoscaling-runs.json, autoscaling.json and autoscaling-peers.json. To publish:
# hack/bench-autoscaling.sh && python3 docs/plot-autoscaling.py --publish, make docs.
source "$(dirname "$0")/lib.sh"

hack/setup.sh
mkdir -p target/bench
if [ $# -gt 0 ]; then
	exec cargo bench --locked --quiet --profile ci -p perennial-autoscaler --bench autoscaling -- "$@"
fi
# Ten thousand connections.
ulimit -n "$(ulimit -Hn)"
# Built with everything else, so that no dependency is compiled once more with other features.
cargo bench --locked --quiet --profile ci --workspace --features perennial-drift/cli --bench scrape -- --out "$root/target/bench/autoscaling-scrape.json"
cargo bench --locked --quiet --profile ci -p perennial-autoscaler --bench autoscaling -- --out "$root/target/bench/autoscaling-runs.json"
python3 docs/plot-autoscaling.py
