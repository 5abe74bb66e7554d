#!/usr/bin/env bash
# The part of run.sh that needs an API server; `testcluster run` gives it one in KUBECONFIG.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
: "${results:?run.sh starts this script}" "${scratch:?}" "${python:?}"

definition=llmdeployments.perennial.dev
operator=system:serviceaccount:$system:perennial-operator

install_definitions() { helm install "${1:-perennial-crds}" "$charts/perennial-crds" --namespace "$system" "${@:2}"; }
upgrade_definitions() { helm upgrade perennial-crds "${1:-$charts/perennial-crds}" --namespace "$system" "${@:2}"; }
remove_definitions() { helm uninstall "${1:-perennial-crds}" --namespace "$system" --wait; }

# The API server takes every object of a golden render, with no unknown or ill-typed field. Monitors are left out: their
# kinds are not there.
server_accepts() {
    "$python" - "$1" >"$scratch/objects.yaml" <<'EOF'
import sys, yaml
objects = [o for o in yaml.safe_load_all(open(sys.argv[1])) if o]
print(yaml.safe_dump_all([o for o in objects if not o["apiVersion"].startswith("monitoring.coreos.com/")]))
EOF
    kubectl create --dry-run=server --validate=strict --filename "$scratch/objects.yaml"
}

# The API server takes the example on Artifact Hub and the one in NOTES.txt.
examples_are_valid() {
    "$python" - "$charts" >"$scratch/examples.yaml" <<'EOF'
import re, sys, textwrap, yaml
for chart in ("perennial", "perennial-crds"):
    annotations = yaml.safe_load(open(f"{sys.argv[1]}/{chart}/Chart.yaml"))["annotations"]
    print(yaml.safe_dump_all(yaml.safe_load(annotations["artifacthub.io/crdsExamples"])))
    print("---")
notes = open(f"{sys.argv[1]}/perennial/templates/NOTES.txt").read()
print(textwrap.dedent(re.search(r"<<EOF\n(.*?)  EOF", notes, re.S)[1]))
EOF
    kubectl create --dry-run=server --validate=strict --filename "$scratch/examples.yaml"
    (($(grep -c '^kind: LLMDeployment' "$scratch/examples.yaml") == 3))
}

# may ACCOUNT NAMESPACE: everything the account may do there, beyond what every account may.
may() {
    local review='{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectRulesReview","spec":{"namespace":"'$2'"}}'
    review() { kubectl create --validate=false --filename - --output json --as "$1" <<<"$review"; }
    review "$1" >"$scratch/granted.json"
    review system:serviceaccount:default:nobody >"$scratch/all.json"
    "$python" "$tests/permissions.py" actual "$scratch/granted.json" "$scratch/all.json"
}

# permissions_are ACCOUNT NAMESPACE PLACE...: exactly those of permissions.txt.
permissions_are() {
    local expected actual
    expected=$("$python" "$tests/permissions.py" expected "$tests/permissions.txt" "${@:3}")
    actual=$(may "$1" "$2")
    equal "$expected" "$actual"
}

# can yes|no ACCOUNT NAMESPACE VERB RESOURCE [SUBRESOURCE]
can() {
    local namespace=(--namespace "$3")
    [[ $3 != all ]] || namespace=(--all-namespaces)
    equal "$1" "$(kubectl auth can-i "$4" "$5" --subresource "${6:-}" --as "$2" "${namespace[@]}" 2>/dev/null || true)"
}

has_pods() {
    equal "$2" "$(kubectl get pods --namespace "$1" --selector app.kubernetes.io/component=operator --output name | wc -l)"
}

gone() {
    equal "" "$(kubectl get "$@" --ignore-not-found --output name)"
}

echo "--- definitions"
kubectl create namespace "$system" >/dev/null
kubectl label namespace "$system" pod-security.kubernetes.io/enforce=restricted >/dev/null
for namespace in ml ml-staging other; do kubectl create namespace "$namespace" >/dev/null; done

check "install definitions" install_definitions
check "the definition is established" kubectl wait --for=condition=Established "crd/$definition" --timeout=30s
check "the examples of both charts are valid" eventually examples_are_valid

for file in "$tests"/golden/perennial-*.yaml; do
    # Those of the definitions hold roles that are installed already: the server would say so.
    [[ $(basename "$file") == perennial-crds-* ]] || check "the API server takes $(basename "$file")" server_accepts "$file"
done

kubectl create rolebinding reader --clusterrole view --user reader --namespace ml >/dev/null
kubectl create rolebinding editor --clusterrole edit --user editor --namespace ml >/dev/null
check "who may edit a namespace may create LLMDeployments there" eventually can yes editor ml create "$definition"
check "who may edit a namespace may scale them" eventually can yes editor ml update "$definition" scale
check "who may edit a namespace may not write their status" can no editor ml update "$definition" status
check "who may edit a namespace may do nothing in another" can no editor other get "$definition"
check "who may view a namespace may read them" eventually can yes reader ml list "$definition"
check "who may view a namespace may not create them" can no reader ml create "$definition"

echo "--- operator, all namespaces"
check "install the operator" helm install perennial "$charts/perennial" --namespace "$system"
check "its pods comply with the Pod Security Standard restricted" eventually has_pods "$system" 2
check "a privileged operator does not (the check can fail)" bash -c "
    '$tools/helm' install bad '$charts/perennial' --namespace $system --set securityContext.allowPrivilegeEscalation=true &&
    '$tools/kubectl' wait --namespace $system deployment/bad-perennial-operator --for=condition=ReplicaFailure --timeout=30s"
helm uninstall bad --namespace "$system" --wait >/dev/null
check "its permissions in its own namespace are the listed ones" eventually permissions_are "$operator" "$system" managed release
check "its permissions in any other namespace are the listed ones" eventually permissions_are "$operator" other managed
check "it may watch LLMDeployments of all namespaces" can yes "$operator" all watch "$definition"
check "it may not read secrets" can no "$operator" "$system" get secrets
check "it may not hold a lease elsewhere" can no "$operator" other create leases.coordination.k8s.io
check "a second release of that name for all namespaces is refused" refused "exists and cannot be imported" \
    helm install perennial "$charts/perennial" --namespace other

check "upgrade with other values" helm upgrade perennial "$charts/perennial" --namespace "$system" \
    --set 'replicas=3,server.plainHttpRegistries={registry.example.com:5000}'
check "the upgrade changes the Deployment" equal "3 --plain-http-registries=registry.example.com:5000" \
    "$(field '{.spec.replicas} {.spec.template.spec.containers[0].args[2]}' deployment perennial-operator --namespace "$system")"
check "roll back" helm rollback perennial 1 --namespace "$system"
check "the rollback changes the Deployment" equal 2 \
    "$(field '{.spec.replicas}' deployment perennial-operator --namespace "$system")"

echo "--- upgrade, uninstall and return of the definitions"
kubectl create --namespace ml --filename - >/dev/null <<'EOF'
apiVersion: perennial.dev/v1alpha1
kind: LLMDeployment
metadata: {name: survivor}
spec: {model: {source: {huggingFace: {repository: example/model}}}}
EOF
survivor=$(field '{.metadata.uid}' llm survivor --namespace ml)

survives() {
    equal "$survivor" "$(field '{.metadata.uid}' llm survivor --namespace ml)"
}

# A next release of the chart, whose definition has one more short name.
next=$scratch/next
cp -R "$charts/perennial-crds" "$next"
sed -i 's/^\( *\)- llm$/&\n\1- nextllm/' "$next/files/$definition.yaml"

check "upgrade the definitions to a changed one" upgrade_definitions "$next" --set commonLabels.release=next
check "the upgrade changes the definition" equal "llm nextllm" \
    "$(field '{.spec.names.shortNames[*]}' crd "$definition")"
check "the upgrade changes its labels" equal next "$(field '{.metadata.labels.release}' crd "$definition")"
check "upgrade back" upgrade_definitions
check "the definition is the old one again" equal "llm" "$(field '{.spec.names.shortNames[*]}' crd "$definition")"

check "uninstall the operator" helm uninstall perennial --namespace "$system" --wait
check "it leaves no object of its own" gone \
    all,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies,clusterroles,clusterrolebindings \
    --all-namespaces --selector app.kubernetes.io/instance=perennial
check "LLMDeployments stay when the operator goes" survives
check "uninstall the definitions" remove_definitions
check "LLMDeployments stay when the definitions are uninstalled" survives
check "the roles of users go" gone clusterroles --selector app.kubernetes.io/part-of=perennial
check "a release of the same name takes the definitions over" install_definitions
check "uninstall again" remove_definitions
check "a release of another name is refused" refused "invalid ownership metadata" install_definitions another
check "it takes them over when told so" install_definitions another --take-ownership
check "the definition is its own now" equal another \
    "$(field '{.metadata.annotations.meta\.helm\.sh/release-name}' crd "$definition")"
check "LLMDeployments stay through all of it" survives
check "uninstall another" remove_definitions another

kubectl delete crd "$definition" --wait >/dev/null
kubectl apply --filename "$next/files/$definition.yaml" >/dev/null
check "definitions by kubectl apply are taken over, other fields included" \
    install_definitions perennial-crds --take-ownership --force-conflicts
check "the definition is the chart's" equal "llm" "$(field '{.spec.names.shortNames[*]}' crd "$definition")"
check "keep: false is taken by an upgrade" upgrade_definitions "$charts/perennial-crds" --set keep=false
check "uninstall without keep" remove_definitions
check "the definition goes when it is not to be kept" eventually gone crd "$definition"

echo "--- operator, some namespaces"
install_definitions >/dev/null
operator=system:serviceaccount:ml:perennial-operator
check "install for ml and ml-staging" helm install perennial "$charts/perennial" --namespace ml --set 'watchNamespaces={ml,ml-staging}'
check "its permissions in ml, where it runs" eventually permissions_are "$operator" ml managed release
check "its permissions in ml-staging" eventually permissions_are "$operator" ml-staging managed
check "no permission in another namespace" eventually permissions_are "$operator" other
check "it may write in ml-staging" can yes "$operator" ml-staging patch deployments.apps
check "it may not read pods of another namespace" can no "$operator" other list pods
check "it may not watch all namespaces" can no "$operator" all watch "$definition"
check "it is told which namespaces" equal "--watch-namespaces=ml,ml-staging" \
    "$(field '{.spec.template.spec.containers[0].args[2]}' deployment perennial-operator --namespace ml)"
check "a second release for other namespaces" helm install perennial "$charts/perennial" --namespace other --set 'watchNamespaces={other}'
check "a namespace is managed by one of two releases" refused "exists and cannot be imported" \
    helm upgrade perennial "$charts/perennial" --namespace other --set 'watchNamespaces={other,ml}'
check "upgrade to one namespace less" helm upgrade perennial "$charts/perennial" --namespace ml --set 'watchNamespaces={ml}'
check "its permissions there are gone" eventually permissions_are "$operator" ml-staging
check "a namespace that is not there is refused" refused 'namespaces "absent" not found' \
    helm upgrade perennial "$charts/perennial" --namespace ml --set 'watchNamespaces={ml,absent}'

echo "--- a cluster without the definitions"
helm uninstall perennial --namespace ml --wait >/dev/null
kubectl delete crd "$definition" --wait >/dev/null
notes=$(helm install perennial "$charts/perennial" --namespace ml --set 'watchNamespaces={ml}')
check "the notes say that they are missing" grep -q "ONE STEP IS MISSING" <<<"$notes"
