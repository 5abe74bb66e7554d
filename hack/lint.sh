#!/usr/bin/env bash
# Formats, lints, scripts, licences; all of them, even when one fails. --fix formats the sources instead.
source "$(dirname "$0")/lib.sh"

if [ "${1:-}" = --fix ]; then
	cargo fmt --all
	gofmt -w tests/cluster tests/conformance/kstatus
	exit 0
fi

broken=""
# attempt WHAT COMMAND...
attempt() {
	local what=$1
	shift
	printf -- '--- %s\n' "$what"
	"$@" || { printf '%s FAILED\n' "$what"; broken=yes; }
}
skipped() { printf -- '--- %s: skipped: %s\n' "$1" "$2"; }

gofmt_check() {
	local unformatted
	unformatted=$(gofmt -l tests/cluster tests/conformance/kstatus)
	[ -z "$unformatted" ] || { printf 'gofmt -w %s\n' "$unformatted" && return 1; }
}

# Libraries are read with those who source them.
scripts() {
	find . \( -path ./target -o -path ./.cache -o -path ./.git \) -prune -o -type f ! -name lib.sh \( -name '*.sh' -o -path './.ci/*' \) -print0 |
		xargs -0 shellcheck --external-sources --severity=warning
}

attempt "rustfmt" cargo fmt --all --check
attempt "clippy" cargo clippy --quiet --locked --profile ci --workspace --features perennial-drift/cli --all-targets -- -D warnings
attempt "gofmt" gofmt_check
# That the CRDs and their reference are up to date is a test of the crate crds; the charts' goldens have their own.
attempt "documentation" python3 docs/check.py
attempt "tables" python3 docs/generate-tables.py --check
if ! have shellcheck && [ "$(id -u)" -eq 0 ] && have apt-get; then
	quietly target/setup.log apt-get install -y --no-install-recommends shellcheck || true
fi
if have shellcheck; then attempt "shellcheck" scripts; else skipped "shellcheck" "not installed"; fi

if ! have cargo-deny && [ -n "${CI_INSTALL_DENY:-}" ]; then
	cargo install --quiet --locked cargo-deny
fi
if have cargo-deny; then
	attempt "cargo-deny: bans, licenses, sources" cargo deny --workspace --all-features check bans licenses sources
	# The advisories are a Git repository elsewhere; a copy is used where there is one.
	if [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" ]; then
		attempt "cargo-deny: advisories" cargo deny --workspace --all-features check --disable-fetch advisories
	else
		skipped "cargo-deny: advisories" "no copy of the advisory database here (cargo deny fetch)"
	fi
else
	skipped "cargo-deny" "not installed; CI_INSTALL_DENY=1 compiles it, in about five minutes"
fi
[ -z "$broken" ]
