#!/usr/bin/env bash
# Ends the demo: removes the test cluster, or what the demo put into the current cluster.
source "$(dirname "$0")/lib.sh"

if [ "${DEMO_CLUSTER:-}" = current ]; then
	kubectl delete namespace perennial-demo --ignore-not-found
	helm uninstall perennial --namespace perennial-system --ignore-not-found
	echo "The definitions stay: helm uninstall leaves them, and deleting them would delete every LLMDeployment in the cluster."
elif [ -x target/cluster/testcluster ]; then
	testcluster down
	# What make demo-drift kept on its volumes: requests and models.
	rm -rf "${TMPDIR:-/tmp}/perennial-volumes"
fi
