#!/usr/bin/env bash
# Builds the operator, the server and the trainer and packs them into images: no container engine, no base image, no
# shell; non-root; the program, the shared libraries it needs and the certificate authorities of
# this machine. The same sources, compiler and libraries give the same bytes.
#
#   hack/images.sh                    OCI archives in target/images, which docker load takes, too
#   hack/images.sh --load             also into the node of the test cluster
#   hack/images.sh --push REGISTRY    also to REGISTRY/perennial-{operator,server,trainer}:VERSION
#                                     (credentials: those of docker login; --plain-http: without TLS)
#   hack/images.sh --no-build ...     packs the binaries as they are
source "$(dirname "$0")/lib.sh"

usage() { sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "$0"; }
load=() push="" plain_http=() build=yes
# The tests have built all programs already, with the features of the tests.
[ -z "${PERENNIAL_PREBUILT:-}" ] || build=""
while [ $# -gt 0 ]; do
	case $1 in
	--load) load=(--load) ;;
	--push) push=${2:?--push needs a registry, such as registry.example.com/team}; shift ;;
	--plain-http) plain_http=(--plain-http) ;;
	--no-build) build="" ;;
	--help | -h) usage; exit 0 ;;
	*) usage >&2; fail "unknown argument: $1" ;;
	esac
	shift
done

[ -x target/cluster/testcluster ] || hack/cluster-build.sh
# The whole workspace, so that features are resolved alike for all who build here and nothing is compiled twice.
if [ -n "$build" ]; then
	# On a terminal cargo shows how far it is.
	quiet=(--quiet)
	if [ -t 2 ]; then quiet=(); else echo "  compiling (some six minutes the first time, on two cores) ..." >&2; fi
	cargo build "${quiet[@]}" --locked --profile ci --workspace --bins
fi
binaries=${CARGO_TARGET_DIR:-target}/ci
certificates=/etc/ssl/certs/ca-certificates.crt
[ -f "$certificates" ] || fail "$certificates is missing: install the package ca-certificates"
mkdir -p target/images

# pack NAME TITLE PORT...
pack() {
	local name=$1 title=$2 port arguments=()
	shift 2
	[ -x "$binaries/$name" ] || fail "$binaries/$name is missing"
	for port in "$@"; do arguments+=(--port "$port/tcp"); done
	arguments+=(
		--file "$binaries/$name:/usr/bin/$name" --entrypoint "/usr/bin/$name"
		--file "$certificates:$certificates" --env "SSL_CERT_FILE=$certificates"
		--label "org.opencontainers.image.title=$name"
		--label "org.opencontainers.image.description=$title"
		--label "org.opencontainers.image.version=$version"
		--label "org.opencontainers.image.source=https://github.com/perennial-dev/perennial"
		--label "org.opencontainers.image.licenses=Apache-2.0"
	)
	local archive="target/images/$name-$version.tar" digest
	digest=$(testcluster image build "$image_prefix/$name:$version" "${arguments[@]}" \
		--output "$archive" "${load[@]}")
	echo "$digest" >"${archive%.tar}.digest"
	printf '  %s  %s/%s:%s  %s\n' "$(du -h "$archive" | cut -f1)" "$image_prefix" "$name" "$version" "$archive"
	if [ -n "$push" ]; then
		testcluster image build "$push/$name:$version" "${arguments[@]}" --push "${plain_http[@]}" >/dev/null
		printf 'pushed %s/%s:%s\n' "$push" "$name" "$version"
	fi
}

pack perennial-operator "Kubernetes operator for language models" 8081
pack perennial-server "Inference server with the OpenAI API" 8080 9090
pack perennial-trainer "Collector of requests, and the default Jobs of a retraining cycle" 9091
