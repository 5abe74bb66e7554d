#!/usr/bin/env bash
# Feeds the decoders of the drift core with mangled panes, baselines and states.
#
#   hack/fuzz-drift.sh [SECONDS]     600 without
#
# libFuzzer's coverage is asked of the stable compiler, so that no nightly toolchain is needed. The corpus grows in
# target/fuzz/corpus; what was found lies in target/fuzz/artifacts.
source "$(dirname "$0")/lib.sh"

seconds=${1:-600}
# Naming the target keeps the coverage out of build scripts and macros.
host=$(rustc --version --verbose | sed -n 's/^host: //p')
fuzz=$root/target/fuzz
mkdir -p "$fuzz/corpus" "$fuzz/artifacts"
FUZZ_CORPUS=$fuzz/corpus cargo test --locked --quiet --profile ci -p perennial-drift --test fuzz_corpus
RUSTFLAGS="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table -C llvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
	cargo build --quiet --release --manifest-path drift/fuzz/Cargo.toml --target-dir "$fuzz/target" --target "$host"
# A pane is 4 kB, a baseline some 100 kB.
"$fuzz/target/$host/release/decode" "$fuzz/corpus" -max_total_time="$seconds" -max_len=200000 -timeout=10 -rss_limit_mb=2048 \
	-artifact_prefix="$fuzz/artifacts/" -print_final_stats=1
