#!/usr/bin/env bash
# Runs the tests, the cheap ones first, and ends with a table. All tiers run even when one fails.
#
#   hack/test.sh            all tiers
#   hack/test.sh TIER...    some of: T0 go charts T2 T3 T4 lint
#
# T0 is what needs no cluster (T0 and T1 of the design), T2 real API servers, T3 the same with faults, T4 a
# whole cluster, which needs root; lint is hack/lint.sh, beside the tests, which wait for others most of the
# time. The Rust parts are built once, by one cargo command, and the test programs are then run as they are.
# Logs are in target/test. TEST_LONG=1 adds the tests that are ignored because they take long, and lets
# others take longer.
source "$(dirname "$0")/lib.sh"
source hack/demo/lib.sh

tiers=("$@")
[ $# -gt 0 ] || tiers=(T0 go charts T2 T3 T4)
for tier in "${tiers[@]}"; do
	case $tier in T0 | go | charts | T2 | T3 | T4 | lint) ;; *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "$0"; exit 2 ;; esac
done
wanted() { [[ " ${tiers[*]} " == *" $1 "* ]]; }

hack/setup.sh
logs=$root/target/test
rm -rf "$logs"
mkdir -p "$logs"
rows=() broken=""
declare -A running
if [ -n "${TEST_LONG:-}" ]; then export E2E_QUIET_SECONDS=${E2E_QUIET_SECONDS:-600}; fi

# record NAME RESULT PASSED FAILED SKIPPED SECONDS [REASON]
record() {
	rows+=("$(printf '%-22s %-8s %7s %7s %8s %7s s  %s' "$@")")
	[ "$2" != FAILED ] || broken=yes
	printf -- '--- %s: %s (%s s) %s\n' "$1" "$2" "$6" "${7:-}"
}

# run NAME COMMAND...: one line of the table.
run() {
	begin "$@"
	end "$1"
}

# begin NAME COMMAND...: the same beside what follows, until end NAME.
begin() {
	local name=$1 log=$logs/${1// /-}.log
	shift
	printf '\n=== %s\n' "$name"
	(
		began=$SECONDS result=passed
		"$@" >"$log" 2>&1 || result=FAILED
		echo "$result $((SECONDS - began))" >"$log.end"
	) &
	running[$name]=$!
}

# end NAME: counts what libtest, go test and our scripts printed.
end() {
	local name=$1 log=$logs/${1// /-}.log result seconds passed failed skipped
	wait "${running[$name]}" || true
	read -r result seconds <"$log.end" || result=FAILED seconds=0
	if [ "$result" = FAILED ]; then
		echo "--- $name"
		tail -n 60 "$log"
		echo "--- the whole log: $log"
	fi
	# libtest; our scripts; go test; the last two count by line.
	read -r passed failed skipped < <(awk '
		/^test result: / { gsub(/[;.]/, ""); passed += $4; failed += $6; skipped += $8 }
		/^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
		/^ *--- PASS/ { passed++ }
		/^ *--- FAIL/ { failed++ }
		/^ *--- SKIP/ { skipped++ }
		END { print passed + 0, failed + 0, skipped + 0 }' "$log")
	[ "$((passed + failed + skipped))" -gt 0 ] || passed=- failed=- skipped=-
	record "$name" "$result" "$passed" "$failed" "$skipped" "$seconds"
}

skip() {
	printf '\n=== %s\n' "$1"
	record "$1" skipped - - - 0 "$2"
}

# The test programs: TARGET, tab, package directory, tab, program.
build_tests() {
	cargo test --locked --profile ci --workspace --features perennial-drift/cli --no-run --message-format json-render-diagnostics |
		jq --raw-output 'select(.reason == "compiler-artifact" and .profile.test and .executable)
			| [.target.name, (.manifest_path | sub("/Cargo.toml$"; "")), .executable] | @tsv' >"$logs/programs"
}

# run_programs PATTERN [ARGUMENT...]: those whose "PACKAGE-DIRECTORY TARGET" matches.
run_programs() {
	local pattern=$1 target directory program status=0
	shift
	while IFS=$'\t' read -r target directory program; do
		[[ "${directory##*/} $target" =~ $pattern ]] || continue
		echo "Running $target of ${directory##*/}"
		# As cargo test does it.
		(cd "$directory" && CARGO_MANIFEST_DIR=$directory "$program" "$@") || status=1
	done <"$logs/programs"
	return $status
}
any_program() { awk -F '\t' '{n = split($2, path, "/"); print path[n], $1}' "$logs/programs" | grep -Eq "$1"; }

go_tests() (
	cd tests/cluster
	export CGO_ENABLED=0
	# It looks through all of Kubernetes for a minute and a half before it looks at us.
	[ -z "${TEST_LONG:-}" ] || go vet -trimpath ./...
	go test -trimpath -vet=off -v ./internal/...
)

# A model as the demo has it, and clients that know nothing of us.
conformance() {
	local namespace=conformance address
	hack/cluster-up.sh
	KUBECONFIG=$(testcluster kubeconfig)
	export KUBECONFIG
	kubectl create namespace "$namespace" --dry-run=client --output yaml | kubectl apply --filename -
	sed "s#MODEL_REFERENCE#$cluster_registry/$model_repository:$model_tag#" hack/demo/smollm2.yaml |
		kubectl --namespace "$namespace" apply --filename -
	kstatus-wait --timeout 5m "$KUBECONFIG" "$namespace" smollm2 || { explain "$namespace" smollm2; return 1; }
	kubectl --namespace "$namespace" wait --for=condition=Ready --timeout=60s llm/smollm2
	address=$(kubectl --namespace "$namespace" get service smollm2 --output jsonpath='{.spec.clusterIP}')
	curl --silent --output /dev/null --retry 10 --retry-connrefused --retry-delay 1 "http://$address/v1/models"
	tests/conformance/run.sh "http://$address" smollm2 || { explain "$namespace" smollm2; return 1; }
}

needs_rust() { wanted T0 || wanted T2 || wanted T3 || wanted T4; }
needs_cluster() { wanted go || wanted charts || wanted T2 || wanted T3 || wanted T4; }
# Each of the two builds waits for single large pieces, in which the other goes on.
if needs_cluster; then begin "build of the cluster" hack/cluster-build.sh; fi
built=yes
if needs_rust; then
	run "build of the tests" build_tests
	[ -z "$broken" ] || built=""
	# Images are packed from these: a second build without the features of the tests would take as long again.
	export PERENNIAL_PREBUILT=1
fi
if needs_cluster; then end "build of the cluster"; fi

# rust_tier HOW NAME PATTERN [ARGUMENT...]; HOW is run or begin.
rust_tier() {
	local how=$1 name=$2 pattern=$3
	shift 3
	[ -z "${TEST_LONG:-}" ] || set -- "$@" --include-ignored
	if [ -z "$built" ]; then
		skip "$name" "the build failed"
	elif ! any_program "$pattern"; then
		skip "$name" "there is no such test"
	else
		"$how" "$name" run_programs "$pattern" "$@"
	fi
}

# It takes what processors nobody else wants, and compiles with what the build has left.
if wanted lint; then begin "lints" nice -n 19 hack/lint.sh; fi
if wanted T0; then
	rust_tier run "T0 T1 without cluster" '^(autoscaler|crds|drift|engine|loader|operator|server|trainer) |^tests perennial_tests$'
fi
if wanted go; then run "test cluster" go_tests; fi
if wanted charts; then
	if [ -x charts/tests/run.sh ]; then run "charts" charts/tests/run.sh; else skip "charts" "charts/tests/run.sh is not there"; fi
fi
# They wait for controllers most of the time, those of T3 for one object after the other.
if wanted T3; then rust_tier begin "T3 faults" '^tests faults$'; fi
if wanted T2; then rust_tier run "T2 API server" '^tests controlplane$' --test-threads=8; fi
if [ -n "${running["T3 faults"]:-}" ]; then end "T3 faults"; fi
if wanted T4; then
	obstacle=$(node_obstacle)
	if [ -n "$obstacle" ]; then
		skip "T4 cluster" "$obstacle"
		skip "T4 conformance" "$obstacle"
	elif [ -z "$built" ]; then
		skip "T4 cluster" "the build failed"
		skip "T4 conformance" "the build failed"
	else
		run "images" hack/images.sh
		run "model" hack/fetch-model.sh
		rust_tier run "T4 cluster" '^tests e2e$' --test-threads=3 --skip alone::
		rust_tier run "T4 alone" '^tests e2e$' --test-threads=1 alone::
		run "T4 conformance" conformance
		testcluster down
	fi
fi
if wanted lint; then end "lints"; fi

printf '\n%-22s %-8s %7s %7s %8s %9s\n' tier result passed failed skipped time
printf '%s\n' "${rows[@]}"
printf 'in all %d s\n' "$SECONDS"
[ -z "$broken" ]
