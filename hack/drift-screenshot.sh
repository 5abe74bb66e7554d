#!/usr/bin/env bash
# Makes docs/images/drift-report-light.png and -dark.png again: the page of `drift report` on English requests into which
# a fifth of German is mixed.
#
#   hack/drift-screenshot.sh BASELINE.jsonl LATER.jsonl
#
# The files: drift/reference/run.sh texts.py CACHE OUT writes OUT/baseline-0.jsonl and OUT/german-20-0.jsonl.
# DRIFT: the program, if it is built already. Needs chromium and pngquant.
source "$(dirname "$0")/lib.sh"

[ $# -eq 2 ] || fail "usage: hack/drift-screenshot.sh BASELINE.jsonl LATER.jsonl (drift/reference/run.sh texts.py CACHE OUT makes such files)"
for file in "$1" "$2"; do
	[ -f "$file" ] || fail "$file is not there: drift/reference/run.sh texts.py CACHE OUT makes such files"
done
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
	fail "no Chromium is installed: apt-get install chromium"
have pngquant || fail "pngquant is not installed: apt-get install pngquant"

drift=${DRIFT:-}
if [ -z "$drift" ]; then
	cargo build --release --package perennial-drift --features cli --bin drift
	drift=${CARGO_TARGET_DIR:-$root/target}/release/drift
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The names of the files are part of the page.
cp "$1" "$work/baseline.jsonl"
cp "$2" "$work/later.jsonl"
(cd "$work" && "$drift" report baseline.jsonl later.jsonl --html drift.html)

mkdir -p docs/images
# Chromium's setting: 0 is dark, 1 is light.
for theme in light:1 dark:0; do
	name=drift-report-${theme%:*}.png
	quietly "$work/chromium.log" "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars \
		--blink-settings=preferredColorScheme="${theme#*:}" --window-size=1160,1270 \
		--screenshot="$work/$name" "file://$work/drift.html"
	pngquant --force --strip --quality 80-100 --output "docs/images/$name" "$work/$name"
	echo "docs/images/$name"
done
