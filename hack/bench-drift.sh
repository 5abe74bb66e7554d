#!/usr/bin/env bash
# The drift detector on streams whose change is known, beside its peers; on real texts; what it costs.
#
#   hack/bench-drift.sh           all of it, about half an hour on one core; the peers' part is kept for the next time
#   hack/bench-drift.sh --quick   fewer streams for the peers, two million requests instead of twenty without a change
#
# Writes target/bench/drift.json. To publish: cp target/bench/drift.json docs/benchmarks/drift.json,
# cp target/bench/drift-peers.json docs/benchmarks/peers/drift.json, make docs.
source "$(dirname "$0")/lib.sh"

hack/setup.sh
work=$root/target/bench/drift millions=20 quick=()
if [ "${1:-}" = --quick ]; then
	millions=2 quick=(--quick)
fi
mkdir -p "$work/replays"
run() { drift/reference/run.sh "$@"; }

echo "streams"
kinds=(standard clustered daily embeddings)
for kind in "${kinds[@]}"; do
	[ -e "$work/streams/$kind/manifest.json" ] || run streams.py "$work/streams/$kind" --kind "$kind"
done
[ -e "$work/texts/manifest.json" ] || run texts.py "$root/.cache/texts" "$work/texts"

echo "detector"
cargo bench --locked --quiet --profile ci -p perennial-drift --bench detector -- "${kinds[@]/#/$work/streams/}" \
	--null "$millions" --out "$work/detector.json"
for kind in standard clustered; do run agreement.py "$work/streams/$kind" "$work/detector.json"; done | tee "$work/agreement.txt"

echo "real texts"
cargo build --locked --quiet --profile ci -p perennial-drift --features cli
for stream in "$work"/texts/*.jsonl; do
	name=$(basename "$stream" .jsonl)
	case $name in baseline-*) continue ;; esac
	"${CARGO_TARGET_DIR:-target}/ci/drift" replay --quiet --json "$work/texts/baseline-${name##*-}.jsonl" "$stream" >"$work/replays/$name.json"
done

echo "costs"
cargo bench --locked --quiet --profile ci -p perennial-drift --bench features --bench cost

echo "peers"
run peers.py "${quick[@]}" --out "$work/peers.json"

python3 drift/reference/figures.py "$work" --criterion target/criterion --texts "$work/texts"
cp "$work/drift.json" "$work/drift-peers.json" target/bench/
