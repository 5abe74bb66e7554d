# What one does here. Each target calls a script that says more about itself.
.DEFAULT_GOAL := help
.PHONY: help setup build images cluster-up cluster-down demo demo-drift demo-down \
	test test-fast test-e2e test-long fmt lint generate check-generated bench-operator bench-drift bench-autoscaling bench-observe fuzz-drift docs

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing on a Debian machine, check Rust, Go and Python
	@hack/setup.sh
build: ## build the operator and the server
	cargo build --locked --profile ci --workspace --bins
images: ## pack them into OCI images in target/images; ARGS="--push REGISTRY" pushes
	@hack/images.sh $(ARGS)

demo: ## from nothing to a model that answers, on this machine
	@hack/demo.sh
demo-drift: ## a model that gets better by itself when what users ask changes; ARGS=--control without a change
	@hack/demo-drift.sh $(ARGS)
demo-down: ## end the demo
	@hack/demo-down.sh
cluster-up: ## start the test cluster with Perennial in it
	@hack/cluster-up.sh $(ARGS)
cluster-down: ## stop the test cluster and remove all traces
	@hack/demo-down.sh

test: ## all tiers, up to a whole cluster (needs root)
	@hack/test.sh
test-fast: ## what needs no cluster
	@hack/test.sh T0
test-e2e: ## the whole cluster only
	@hack/test.sh T4
test-long: ## the long runs
	@TEST_LONG=1 hack/test.sh T0 T2 T3 T4
bench-operator: ## 1,000 LLMDeployments against the API server alone
	@hack/bench-operator.sh
bench-drift: ## the drift detector beside its peers, on synthetic streams and real texts
	@hack/bench-drift.sh $(ARGS)
bench-observe: ## what counting a request for drift costs the server
	@hack/bench-observe.sh
bench-autoscaling: ## the autoscaler beside its peers in a simulated world; ARGS="--trace FILE"
	@hack/bench-autoscaling.sh $(ARGS)
fuzz-drift: ## mangled panes, baselines and states, for ten minutes
	@hack/fuzz-drift.sh

fmt: ## format the sources
	@hack/lint.sh --fix
lint: ## formats, lints, scripts, licences
	@hack/lint.sh
generate: ## write the generated files anew
	@hack/generate.sh
check-generated: ## fail when a generated file is out of date
	@hack/generate.sh --check
docs: generate ## the generated parts of the documentation
