# shellcheck shell=bash
# Steps that the demo, the end-to-end tests and make cluster-up share. To be sourced after ../lib.sh.
# shellcheck disable=SC2154 # which sets what is not set here
system_namespace=perennial-system

# start_cluster [FLAG...]: the test cluster, unless it is there already.
start_cluster() {
	local obstacle
	obstacle=$(node_obstacle)
	[ -z "$obstacle" ] || fail "no cluster can run here: $obstacle. Or use your own: DEMO_CLUSTER=current DEMO_REGISTRY=... make demo"
	if [ $# -gt 0 ] || ! testcluster status >/dev/null 2>&1; then
		testcluster up "$@" >/dev/null || fail "the test cluster did not start; see $(dirname "$(testcluster kubeconfig)")/logs"
	fi
	KUBECONFIG=$(testcluster kubeconfig)
	export KUBECONFIG
}

# push_images REGISTRY [--plain-http]: packs and pushes what was built, and sets operator_digest, server_digest and trainer_digest.
push_images() {
	hack/images.sh --no-build --push "$@" >/dev/null
	operator_digest=$(cat "target/images/perennial-operator-$version.digest")
	server_digest=$(cat "target/images/perennial-server-$version.digest")
	trainer_digest=$(cat "target/images/perennial-trainer-$version.digest")
}

# install_charts REGISTRY [--plain-http]: both charts, with the images that were pushed there, by digest: what
# runs is what was built.
install_charts() {
	local registry=$1 more=()
	[ -z "${2:-}" ] || more=(--set "server.plainHttpRegistries={${registry%%/*}}")
	helm upgrade --install perennial-crds charts/perennial-crds --namespace "$system_namespace" --create-namespace --wait >/dev/null
	helm upgrade --install perennial charts/perennial --namespace "$system_namespace" --wait --timeout 3m \
		--set-string "image.repository=$registry/perennial-operator,image.digest=$operator_digest" \
		--set-string "server.image.repository=$registry/perennial-server,server.image.digest=$server_digest" \
		--set-string "trainer.image.repository=$registry/perennial-trainer,trainer.image.digest=$trainer_digest" \
		"${more[@]}" >/dev/null
}

# make_volume NAMESPACE CLAIM: a claim with a folder of this machine behind it, which is the cluster's one node.
make_volume() {
	local folder=${TMPDIR:-/tmp}/perennial-volumes/$1-$2
	rm -rf "$folder"
	mkdir -p "$folder"
	chown 65532:65532 "$folder"
	kubectl apply --filename - >/dev/null <<-END
		apiVersion: v1
		kind: PersistentVolume
		metadata: {name: $1-$2}
		spec:
		  capacity: {storage: 10Gi}
		  accessModes: [ReadWriteMany]
		  storageClassName: ""
		  claimRef: {namespace: $1, name: $2}
		  hostPath: {path: "$folder", type: Directory}
		---
		apiVersion: v1
		kind: PersistentVolumeClaim
		metadata: {name: $2, namespace: $1}
		spec:
		  accessModes: [ReadWriteMany]
		  storageClassName: ""
		  volumeName: $1-$2
		  resources: {requests: {storage: 10Gi}}
	END
}

# explain NAMESPACE NAME: what a person would look at when an LLMDeployment does not get ready.
explain() {
	local pod
	echo
	echo "--- the object"
	kubectl --namespace "$1" get llmdeployment "$2" --output yaml --show-managed-fields=false || true
	echo "--- events"
	kubectl --namespace "$1" get events --sort-by=.lastTimestamp | tail -n 25 || true
	echo "--- pods"
	kubectl --namespace "$1" get pods --output wide || true
	for pod in $(kubectl --namespace "$1" get pods --output name --selector "perennial.dev/name=$2" 2>/dev/null); do
		echo "--- log of $pod"
		kubectl --namespace "$1" logs "$pod" --tail 25 || true
	done
	echo "--- log of the operator"
	kubectl --namespace "$system_namespace" logs --selector app.kubernetes.io/name=perennial --tail 25 || true
} >&2
