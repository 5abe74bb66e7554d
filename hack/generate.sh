#!/usr/bin/env bash
# Writes the generated files anew: CRDs and their reference, the charts' documentation and golden renders.
# With --check it changes nothing and fails where something is out of date (the chart tests check the charts).
source "$(dirname "$0")/lib.sh"

cargo build --quiet --locked --profile ci --workspace --bin crdgen
crdgen=${CARGO_TARGET_DIR:-target}/ci/crdgen
case ${1:-} in
--check) "$crdgen" --check ;;
"")
	"$crdgen"
	hack/cluster-build.sh
	charts/tests/run.sh --update
	python3 docs/generate-tables.py
	;;
*) fail "usage: generate.sh [--check]" ;;
esac
