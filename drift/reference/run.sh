#!/usr/bin/env bash
# Runs a script of this folder in a virtual environment under target/, made and filled on first use.
#
#   drift/reference/run.sh SCRIPT.py [ARGUMENT...]
#
# DRIFT_VENV: another folder for the environment. PYTHON: the interpreter to make it with (3.10 to 3.12).
source "$(dirname "$0")/../../hack/lib.sh"

folder=$root/drift/reference
if [ $# -eq 0 ] || [ ! -f "$folder/$1" ]; then
	fail "usage: drift/reference/run.sh SCRIPT.py [ARGUMENT...], with a script of $folder"
fi
script=$folder/$1
shift

# make_environment FOLDER REQUIREMENTS: unless it has them already.
make_environment() {
	local environment=$1 requirements=$2
	cmp --silent "$requirements" "$environment/requirements" && return
	echo "Making $environment ..." >&2
	quietly "$environment.log" "${PYTHON:-python3}" -m venv --clear "$environment"
	quietly "$environment.log" "$environment/bin/python" -m pip install --disable-pip-version-check --only-binary :all: --requirement "$requirements" ||
		fail "pip could not install $requirements: is the package index reachable, and is Python 3.10 to 3.12 used? See $environment.log"
	cp "$requirements" "$environment/requirements"
}

environment=${DRIFT_VENV:-$root/target/drift-venv}
make_environment "$environment" "$folder/requirements.txt"
# alibi-detect needs older numpy and scipy than the rest: an environment of its own, of which peers.py is told.
if [ "$(basename "$script")" = peers.py ] && [[ " $* " == *" --alibi "* ]]; then
	make_environment "$environment-alibi" "$folder/requirements-alibi.txt"
	export DRIFT_ALIBI_PYTHON=$environment-alibi/bin/python
fi
# Nothing is written beside the sources.
export PYTHONDONTWRITEBYTECODE=1
exec "$environment/bin/python" "$script" "$@"
