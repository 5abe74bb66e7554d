#!/usr/bin/env bash
# Brings a Debian machine to where everything here can be built and run. Changes nothing that is
# there already; the second run only looks.
source "$(dirname "$0")/lib.sh"

# Program or file, and the Debian package that has it. The second group is for a cluster with a node; its tests have a
# trainer in shell.
build_needs="cc:gcc curl:curl jq:jq git:git make:make /etc/ssl/certs/ca-certificates.crt:ca-certificates"
node_needs="containerd:containerd runc:runc /usr/lib/cni/ptp:containernetworking-plugins ip:iproute2 nft:nftables mount:mount /bin/busybox:busybox-static"

missing_packages() {
	local need
	for need in $1; do
		[ -e "${need%%:*}" ] || have "${need%%:*}" || printf '%s ' "${need#*:}"
	done
}

python_works() {
	python3 - <<-'PYTHON' 2>/dev/null
		import importlib.util, sys
		modules = all(importlib.util.find_spec(name) for name in ("pip", "venv", "ensurepip"))
		sys.exit(0 if sys.version_info >= (3, 10) and modules else 1)
	PYTHON
}

for_build=$(missing_packages "$build_needs")
python_works || for_build="${for_build}python3 python3-pip python3-venv "
for_node=$(missing_packages "$node_needs")
if [ -n "$for_build$for_node" ]; then
	if [ "$(id -u)" -eq 0 ] && have apt-get; then
		echo "Installing $for_build$for_node"
		export DEBIAN_FRONTEND=noninteractive
		quietly target/setup.log apt-get update
		# shellcheck disable=SC2086 # one word for each package
		quietly target/setup.log apt-get install -y --no-install-recommends $for_build $for_node
	elif [ -n "$for_build" ]; then
		fail "missing: $for_build- install these packages, or run this as root on Debian"
	else
		echo "Without $for_node(and root) no cluster with a node can run here; control planes can."
	fi
fi

# at_least WANTED GOT
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

rust_wanted=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
have cargo || fail "cargo is missing: install Rust $rust_wanted or rustup (https://rustup.rs), which takes the version from rust-toolchain.toml"
rust_got=$(cargo --version | cut -d' ' -f2) || fail "cargo does not run: is Rust $rust_wanted installed?"
at_least "$rust_wanted" "$rust_got" || fail "Rust $rust_got is too old: $rust_wanted is needed (rustup update)"

go_wanted=$(sed -n 's/^go //p' tests/cluster/go.mod)
have go || fail "go is missing: install Go $go_wanted or newer; it builds the test cluster"
go_got=$(go env GOVERSION | sed 's/^go//; s/[- ].*//')
at_least "$go_wanted" "$go_got" || fail "Go $go_got is too old: $go_wanted is needed"

python_works || fail "Python 3.10 or newer with pip and venv is needed"
