#!/usr/bin/env bash
# What counting a request for drift costs, on the request's own path and on the observer's thread. Half a minute.
# Writes target/bench/observe.json. To publish: cp target/bench/observe.json docs/benchmarks/observe.json, make docs.
source "$(dirname "$0")/lib.sh"

mkdir -p target/bench
cargo bench --locked --quiet --profile ci --workspace --features perennial-drift/cli --bench observe -- --out "$root/target/bench/observe.json"
