# shellcheck shell=bash
# shellcheck disable=SC2034 # those who source this use them
# What the scripts here share. To be sourced; leaves the shell in the repository's root directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
# kubectl and helm of the test cluster go before others, whose versions may not fit it.
export PATH="$root/target/cluster:$PATH:/usr/sbin:/sbin"

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
# Names of the images, as the chart has them by default.
image_prefix=${IMAGE_PREFIX:-ghcr.io/perennial-dev}
# The registry of the test cluster.
cluster_registry=198.18.0.1:5000
# The model of the demo and of the end-to-end tests.
model_file=$root/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf
model_repository=models/smollm2
model_tag=135m-instruct-q4

fail() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# quietly LOG COMMAND...: shows what a command said only when it fails.
quietly() {
	local log=$1
	shift
	mkdir -p "$(dirname "$log")"
	"$@" >"$log" 2>&1 || {
		printf '%s failed; the end of %s:\n' "$1" "$log" >&2
		tail -n 40 "$log" >&2
		return 1
	}
}

# node_obstacle prints why this machine cannot run a cluster with a node; nothing when it can.
node_obstacle() {
	if [ "$(id -u)" -ne 0 ]; then
		echo "a node needs root"
	elif ! have containerd || ! have runc || ! have ip || ! have nft || [ ! -x /usr/lib/cni/ptp ]; then
		echo "containerd, runc, containernetworking-plugins, iproute2 or nftables is missing: make setup"
	elif ! testcluster --help >/dev/null 2>&1; then
		echo "the test cluster is not built: hack/cluster-build.sh"
	fi
}
