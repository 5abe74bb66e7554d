#!/usr/bin/env bash
# From nothing to a language model that answers, on this machine:
#
#   hack/demo.sh                                              a cluster of its own, on this machine
#   DEMO_CLUSTER=current DEMO_REGISTRY=registry.example.com/team hack/demo.sh
#                                                             the cluster of your kubeconfig, which
#                                                             can pull from that registry
#                                                             (DEMO_PLAIN_HTTP=1: without TLS)
#
# hack/demo-down.sh ends it.
source "$(dirname "$0")/lib.sh"
source hack/demo/lib.sh

namespace=perennial-demo name=smollm2
plain_http=()
started=$SECONDS step=0 step_began=$SECONDS
work=$(mktemp -d)
client="" forward="" succeeded=""

on_exit() {
	local process
	for process in $client $forward; do kill "$process" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$work"
	[ -n "$succeeded" ] || printf '\nThe demo ended early, in step %d. What is there is left for a look; make demo tries again, make demo-down cleans up.\n' "$step" >&2
}
trap on_exit EXIT

heading() {
	[ "$step" -eq 0 ] || printf '  (%d s)\n' $((SECONDS - step_began))
	step=$((step + 1)) step_began=$SECONDS
	printf '\n%d. %s\n' "$step" "$*"
}

# line STATE [MORE]: on a terminal in place of the last line, elsewhere a line for each state.
last_state=""
line() {
	if [ -t 1 ]; then
		printf '\r\033[K  %s%s' "$1" "${2:-}"
	elif [ "$1" != "$last_state" ]; then
		printf '  %s%s\n' "$1" "${2:-}"
	fi
	last_state=$1
}
end_line() { if [ -t 1 ]; then echo; fi; }

current() { [ "${DEMO_CLUSTER:-}" = current ]; }
k() { kubectl --namespace "$namespace" "$@"; }

heading "Set up this machine"
hack/setup.sh
if current && [ -z "${DEMO_REGISTRY:-}" ]; then
	fail "DEMO_CLUSTER=current needs DEMO_REGISTRY=HOST/PATH, where images and the model can be pushed to and your cluster can pull them from"
fi
hack/cluster-build.sh

heading "Build the operator, the server and the trainer, and pack them into images"
hack/images.sh

heading "Start a Kubernetes cluster"
if current; then
	echo "  the current one: $(kubectl config current-context)"
	registry=$DEMO_REGISTRY
	[ -z "${DEMO_PLAIN_HTTP:-}" ] || plain_http=(--plain-http)
else
	start_cluster
	registry=$cluster_registry plain_http=(--plain-http)
fi
kubectl get nodes | sed 's/^/  /'

heading "Put the images and a model (SmolLM2-135M-Instruct, 98 MB) into the registry"
hack/fetch-model.sh >/dev/null
push_images "$registry" "${plain_http[@]}"
reference=$registry/$model_repository:$model_tag
printf '  model  %s@%s\n' "$reference" "$(testcluster artifact push "$reference" "$model_file" "${plain_http[@]}")"

heading "Install Perennial with helm"
install_charts "$registry" "${plain_http[@]}" || { explain "$namespace" "$name"; fail "helm could not install Perennial"; }
kubectl --namespace "$system_namespace" get pods --field-selector status.phase=Running | sed 's/^/  /'

heading "Ask for a model"
kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace" >/dev/null
k delete llmdeployment "$name" --ignore-not-found >/dev/null
k wait pods --selector "perennial.dev/name=$name" --for=delete --timeout=120s >/dev/null
sed "s#MODEL_REFERENCE#$reference#; /^#/d" hack/demo/smollm2.yaml >"$work/smollm2.yaml"
sed 's/^/  | /' "$work/smollm2.yaml"
k apply --filename "$work/smollm2.yaml" >/dev/null

# One line for each state that matters: "ready" or what it does at the moment.
cat >"$work/state.jq" <<'JQ'
.metadata.generation as $generation | (.status // {}) as $status
| [$status.conditions[]? | select(.type == "Ready" and .status == "True" and .observedGeneration == $generation)] as $ready
| [$status.conditions[]? | select(.type == "Stalled" and .status == "True")] as $stalled
| if $stalled != [] then "stalled \($stalled[0].message)"
  elif $ready != [] and $status.updateRevision == $status.stableRevision then "ready"
  elif $status.coldStart then $status.coldStart
    | .stage + (if .stage == "Downloading" and .downloadedPercent != null then " \(.downloadedPercent) %" else "" end)
    + (if (.remainingSeconds // 0) > 0 then ", about \(.remainingSeconds) s left" else "" end)
  else $status.summary // "waiting for the operator" end
JQ

# follow SECONDS: shows how the object gets ready.
follow() {
	local deadline=$((SECONDS + $1)) began=$SECONDS state=""
	while [ "$SECONDS" -lt "$deadline" ]; do
		state=$(k get llmdeployment "$name" --output json | jq --raw-output --from-file "$work/state.jq")
		case $state in
		ready) line "ready"; end_line; return 0 ;;
		stalled*) line "$state"; end_line; return 1 ;;
		esac
		line "$state" "  ($((SECONDS - began)) s)$(progress)"
		sleep 0.3
	done
	end_line
	echo "  not ready after $1 s: $state"
	return 1
}
progress() { :; }
follow 300 || { explain "$namespace" "$name"; fail "the model did not get ready: see above"; }

address=$(k get service "$name" --output jsonpath='{.spec.clusterIP}:{.spec.ports[?(@.name=="http")].port}')
url=http://${address%:80}
if ! curl --silent --output /dev/null --retry 5 --retry-connrefused --retry-delay 1 --max-time 15 "$url/v1/models"; then
	k port-forward "service/$name" 18080:http >"$work/forward.log" 2>&1 &
	forward=$! url=http://127.0.0.1:18080
	curl --silent --output /dev/null --retry 20 --retry-connrefused --retry-delay 1 "$url/v1/models" ||
		fail "the Service $address cannot be reached from here, neither itself nor by kubectl port-forward"
fi

heading "Talk to it: What is the capital of France? Answer in one sentence."
request='{"model": "smollm2", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 60, "temperature": 0,
 "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]}'
printf '  curl -N %s/v1/chat/completions -d '\''{"model": "smollm2", "stream": true, "messages": [...]}'\''\n\n  > ' "$url"
asked=$(date +%s%N)
curl --fail --silent --show-error --no-buffer --max-time 120 --header 'content-type: application/json' --data "$request" \
	"$url/v1/chat/completions" | tee "$work/answer" | sed --unbuffered --quiet 's/^data: {/{/p' |
	jq --unbuffered --join-output '.choices[0].delta.content // empty' || { explain "$namespace" "$name"; fail "the model did not answer"; }
took=$(($(date +%s%N) - asked))
sed --quiet 's/^data: {/{/p' "$work/answer" | jq --raw-output --argjson took "$took" 'select(.usage) |
	"\n\n  \(.usage.completion_tokens) tokens in \($took / 1e8 | round / 10) s"'
grep -q '^data: \[DONE\]' "$work/answer" || fail "the answer broke off"

heading "What Kubernetes says of it"
k get llm "$name" --output wide | sed 's/^/  /'
echo
k get deployments,services,poddisruptionbudgets,controllerrevisions --selector "perennial.dev/name=$name" | sed 's/^\(.\)/  \1/'

heading "Change its revision while four clients stream"
if [ -n "$forward" ]; then
	echo "  left out: kubectl port-forward holds on to one pod, and would break with it"
else
	before=$(k get llmdeployment "$name" --output jsonpath='{.status.stableRevision}')
	python3 hack/demo/client.py "$url" "$name" "$work/report" 4 2>"$work/failures" &
	client=$!
	# shellcheck disable=SC2317 # follow calls it
	progress() { read -r ok lost <"$work/report" && printf '  |  %d answers complete, %d lost' "$ok" "$lost"; }
	until [ -s "$work/report" ] && read -r ok lost <"$work/report" && [ "$ok" -ge 4 ]; do
		kill -0 "$client" 2>/dev/null || fail "the clients ended: $(cat "$work/failures")"
		sleep 0.2
	done
	echo "  kubectl patch llm smollm2 --type merge --patch '{\"spec\": {\"model\": {\"maxContextTokens\": 4096}}}'"
	k patch llmdeployment "$name" --type merge --patch '{"spec": {"model": {"maxContextTokens": 4096}}}' >/dev/null
	follow 300 || { explain "$namespace" "$name"; fail "the new revision did not get ready: see above"; }
	# The old revision's pods finish what they answer; then they are gone.
	while [ "$(k get pods --selector "perennial.dev/name=$name,perennial.dev/revision=$before" --output name | wc -l)" -gt 0 ]; do
		line "the old revision finishes what it answers" "$(progress)"
		sleep 0.3
	done
	end_line
	kill -TERM "$client"
	wait "$client" || true
	client=""
	read -r ok lost <"$work/report"
	after=$(k get llmdeployment "$name" --output jsonpath='{.status.stableRevision}')
	printf '  revision %s -> %s: %d answers complete, %d lost\n' "$before" "$after" "$ok" "$lost"
	[ "$before" != "$after" ] || fail "the revision did not change"
	[ "$lost" -eq 0 ] || fail "requests were lost: $(head -n 3 "$work/failures")"
fi

printf '  (%d s)\n\nDone in %d s. Try next:\n\n' $((SECONDS - step_began)) $((SECONDS - started))
# shellcheck disable=SC2016 # for the reader's shell
current || printf '  export KUBECONFIG=%s PATH=%s/target/cluster:$PATH\n' "$KUBECONFIG" "$root"
cat <<END
  kubectl get llm -A
  kubectl -n $namespace describe llm $name
  kubectl -n $namespace scale llm/$name --replicas 2
  kubectl -n $namespace edit llm $name              a wrong digest or reference: the old revision goes on, the status says why
  curl $url/v1/models
  tests/conformance/run.sh $url $name   OpenAI's client, curl, schemathesis

To stop it: make demo-down
END
succeeded=yes
