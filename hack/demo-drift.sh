#!/usr/bin/env bash
# From a drift to a better model, on this machine: clients talk English to SmolLM2, a DriftPolicy learns what is normal,
# then part of them ask in German. The policy notices, has a better model trained on the CPU, judges it, and rolls it out.
#
#   hack/demo-drift.sh             up to 20 minutes on two cores
#   hack/demo-drift.sh --control   the same without a change: the policy must stay quiet
#
# hack/demo-down.sh ends it.
source "$(dirname "$0")/lib.sh"
source hack/demo/lib.sh

control=""
case ${1:-} in
--control) control=yes ;;
"") ;;
*) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac

namespace=perennial-drift name=capitals
started=$SECONDS step=0 step_began=$SECONDS
work=$(mktemp -d)
client="" succeeded=""
question="Wie heißt die Hauptstadt von Finnland?"

on_exit() {
	[ -z "$client" ] || kill "$client" 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$work"
	[ -n "$succeeded" ] || printf '\nThe demo ended early, in step %d. What is there is left for a look; make demo-drift tries again, make demo-down cleans up.\n' "$step" >&2
}
trap on_exit EXIT

heading() {
	[ "$step" -eq 0 ] || printf '  (%d s)\n' $((SECONDS - step_began))
	step=$((step + 1)) step_began=$SECONDS
	printf '\n%d. %s\n' "$step" "$*"
}
k() { kubectl --namespace "$namespace" "$@"; }

# give_up WHAT: what a person would look at.
give_up() {
	{
		k get drift "$name" --output yaml --show-managed-fields=false
		k get jobs,pods --output wide
		for pod in $(k get pods --selector perennial.dev/drift-cycle --output name); do
			echo "--- log of $pod"
			k logs "$pod" --all-containers --tail 30
		done
	} >&2 || true
	explain "$namespace" "$name"
	fail "$1"
}

# A line whenever it says something else.
last=""
say() {
	[ "$1" = "$last" ] || printf '  %4d s  %s\n' $((SECONDS - step_began)) "$1"
	last=$1
}

# policy JQ: a part of the policy.
policy() { k get drift "$name" --output json | jq --raw-output "$1"; }
counts() { read -r answered failed corrected <"$work/report"; }

# until_phase SECONDS WANTED WORDS...: shows how the policy gets there. WANTED is a pattern.
until_phase() {
	local deadline=$((SECONDS + $1)) wanted=$2 phase message
	while [ "$SECONDS" -lt "$deadline" ]; do
		phase=$(policy '.status.phase // "?"')
		# shellcheck disable=SC2053 # a pattern
		if [[ $phase == $wanted ]]; then return 0; fi
		case $phase in
		Stalled) return 1 ;;
		Learning) say "Learning: $(policy '.status.baseline.learnedPercent // 0 | . / 10 | floor * 10') %" ;;
		Retraining | Preparing | Evaluating | RollingOut)
			# Between two questions the cycle may have ended.
			message=$(policy '.status.cycle.message // empty')
			[ -z "$message" ] || say "$phase: $message"
			;;
		*) say "$phase" ;;
		esac
		sleep 1
	done
	return 1
}

ask() {
	jq --null-input --arg question "$1" '{model: "capitals", max_tokens: 24, temperature: 0, prompt: $question}' |
		curl --fail --silent --show-error --max-time 120 --header 'content-type: application/json' \
			--header 'x-perennial-observe: off' --data @- "$url/v1/completions" | jq --raw-output '.choices[0].text' | head -n 3
}

heading "Set up this machine, build, and start a cluster with Perennial"
hack/setup.sh
hack/cluster-build.sh
hack/images.sh
start_cluster
hack/fetch-model.sh >/dev/null
push_images "$cluster_registry" --plain-http
reference=$cluster_registry/$model_repository:$model_tag
testcluster artifact push "$reference" "$model_file" --plain-http >/dev/null
install_charts "$cluster_registry" --plain-http || { explain "$namespace" "$name"; fail "helm could not install Perennial"; }

heading "Ask for a model that keeps its requests, and for a policy that watches them"
kubectl delete namespace "$namespace" --ignore-not-found --wait=true >/dev/null
kubectl delete persistentvolume "$namespace-records" "$namespace-retraining" --ignore-not-found >/dev/null
kubectl create namespace "$namespace" >/dev/null
make_volume "$namespace" records
make_volume "$namespace" retraining
python3 hack/demo/talk.py --golden >"$work/golden.jsonl"
k create configmap golden-items --from-file="$work/golden.jsonl" >/dev/null
sed "s#MODEL_REFERENCE#$reference#" hack/demo/drift.yaml >"$work/drift.yaml"
sed '/^#/d; s/^/  | /' "$work/drift.yaml"
k apply --filename "$work/drift.yaml" >/dev/null
k wait --for=condition=Ready --timeout=300s "llm/$name" >/dev/null || { explain "$namespace" "$name"; fail "the model did not get ready"; }
url=http://$(k get service "$name" --output jsonpath='{.spec.clusterIP}')
curl --silent --output /dev/null --retry 10 --retry-connrefused --retry-delay 1 "$url/v1/models"
k wait --for=condition=Capturing --timeout=120s "llm/$name" >/dev/null || { explain "$namespace" "$name"; fail "nothing keeps its requests"; }

heading "Three clients ask for capitals, in English; the policy learns what is normal"
echo 0 >"$work/share"
python3 hack/demo/talk.py "$url" "$name" "$work/share" "$work/report" 3 2>"$work/failures" &
client=$!
until_phase 600 'Watching' || give_up "the policy learned nothing"
counts
printf '  normal is known, after %d requests: %s\n' "$answered" "$(policy '[.status.conditions[] | select(.type == "BaselineReady")][0].message')"
printf '\n  > %s\n%s\n' "$question" "$(ask "$question" | sed 's/^/  < /')"

if [ -n "$control" ]; then
	heading "Nothing changes, for four minutes"
	end=$((SECONDS + 240))
	while [ "$SECONDS" -lt "$end" ]; do
		phase=$(policy .status.phase)
		[ "$phase" = Watching ] || give_up "a drift was seen where there was none: $phase"
		say "Watching, $(policy '[.status.conditions[] | select(.type == "Drifted")][0].message' | sed 's/evidence //')"
		sleep 10
	done
	counts
	[ "$failed" -eq 0 ] || fail "requests were lost: $(head -n 3 "$work/failures")"
	printf '\nThe policy stayed quiet over %d requests. Done in %d s.\n' "$answered" $((SECONDS - started))
	succeeded=yes
	exit 0
fi

heading "Now 70 % of them ask in German, and say how the answers should have been"
echo 70 >"$work/share"
until_phase 600 'Drifted' || { [[ $(policy .status.phase) =~ ^(Preparing|Retraining)$ ]] || give_up "the change was not noticed"; }
policy '[.status.conditions[] | select(.type == "Drifted")][0].message' | fold --spaces --width 116 | sed 's/^/  /'
kubectl get drift --namespace "$namespace" | sed 's/^/  /'

heading "A better model is looked for: prepare, retrain, judge"
until_phase 1500 'RollingOut' || { [ "$(policy '.status.cycles[0].outcome // ""')" = Promoted ] || give_up "no better model was found: $(policy '.status.cycles[0].message // ""')"; }
policy '.status.cycle.gate[]? | "  \(.suite): \(.championPerMille) -> \(.candidatePerMille) thousandths on \(.items) items, \(if .lowerPerMille < 0 then "" else "+" end)\(.lowerPerMille) are certain"'

heading "It is rolled out, beside a spec that nobody touches"
deadline=$((SECONDS + 300))
until [ "$(policy '.status.cycles[0].outcome // ""')" = Promoted ]; do
	[ "$SECONDS" -lt "$deadline" ] || give_up "the better model does not serve"
	sleep 1
done
policy '.status.cycles[0] | "  cycle \(.id): \(.outcome), \(.message)"'
cycle=$(policy '.status.cycles[0].id')
k get llm "$name" --output json | jq --raw-output '"  status.model.origin: \(.status.model.origin), \(.status.model.digest[0:19])"'
k get controllerrevisions --selector perennial.dev/learned | sed 's/^/  /'
printf '\n  > %s\n%s\n' "$question" "$(ask "$question" | sed 's/^/  < /')"
kill -TERM "$client"
wait "$client" || true
client=""
counts
printf '\n  %d requests were answered, %d were lost, %d answers were corrected\n' "$answered" "$failed" "$corrected"
[ "$failed" -eq 0 ] || fail "requests were lost: $(head -n 3 "$work/failures")"
printf '  (%d s)\n\nDone in %d s. Try next:\n\n' $((SECONDS - step_began)) $((SECONDS - started))
cat <<END
  export KUBECONFIG=$KUBECONFIG PATH=$root/target/cluster:\$PATH
  kubectl -n $namespace describe drift $name
  kubectl -n $namespace get configmap $name-cycle-$cycle -o go-template='{{index .data "report.html"}}' > cycle.html      a page about it
  kubectl -n $namespace get drift,jobs,controllerrevisions
  kubectl -n $namespace patch llm $name --type merge --patch '{"spec": {"model": {"learned": "Ignore"}}}'      the brake

To stop it: make demo-down
END
succeeded=yes
