#!/usr/bin/env bash
# Starts the test cluster with Perennial installed and the demo's model in its registry; brings a running
# one up to date with the sources. Arguments go to testcluster up (--gpus 2, --audit-log) and begin anew.
source "$(dirname "$0")/lib.sh"
source hack/demo/lib.sh

hack/setup.sh
hack/cluster-build.sh
hack/images.sh
start_cluster "$@"
hack/fetch-model.sh >/dev/null
push_images "$cluster_registry"
testcluster artifact push "$cluster_registry/$model_repository:$model_tag" "$model_file" >/dev/null
install_charts "$cluster_registry" --plain-http
kubectl --namespace "$system_namespace" get pods
cat <<END

export KUBECONFIG=$KUBECONFIG PATH=$root/target/cluster:\$PATH
The model is at oci://$cluster_registry/$model_repository:$model_tag
END
