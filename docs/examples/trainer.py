#!/usr/bin/env python3
"""A trainer that keeps to retrain/v1 and learns nothing: put your training where it says so. Python 3.9, no packages."""
import hashlib, json, os, pathlib, shutil, sys

told = {name[8:]: value for name, value in os.environ.items() if name.startswith("RETRAIN_")}
output = pathlib.Path(told["OUTPUT_DIR"])


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def end(outcome, message, code=0, **more):
    """Last words are read by everybody who may see pods: figures, never a prompt or an answer."""
    words = {"schema": "retrain/v1", "outcome": outcome, "message": message, **more}
    pathlib.Path(told["TERMINATION_PATH"]).write_text(json.dumps(words))
    sys.exit(code)


try:
    # 1. The data is what was frozen: the manifest names the sha256 of each file.
    manifest_path = pathlib.Path(told["DATA_MANIFEST"])
    manifest = json.loads(manifest_path.read_text())
    rows = {"train": [], "validation": []}
    for file in manifest["files"]:
        path = manifest_path.parent / file["path"]
        if sha256(path) != file["sha256"]:
            end("DataRejected", f"{file['path']} is not what the manifest says")
        # A line ends at \n and nowhere else: splitlines() of a text would cut a row at U+2028, too.
        rows[file["split"]] += [json.loads(line) for line in path.read_bytes().split(b"\n") if line]

    # 2. The model to begin with: here only one on a volume. hf://, oci:// and https:// are yours to fetch.
    scheme, _, place = told["BASE_MODEL_URI"].partition("://")
    base = pathlib.Path(place)
    if scheme != "file" or not base.is_file() or "sha256:" + sha256(base) != told["BASE_MODEL_DIGEST"]:
        sys.exit("this example begins with one file on a volume, whose digest is RETRAIN_BASE_MODEL_DIGEST")

    # 3. Train here: learn each row's "answer", or the whole of it where there is none; measure on rows["validation"]; be
    #    done before RETRAIN_DEADLINE_SECONDS are over; keep checkpoints in `output`, where the next try finds them. This
    #    example copies the model instead. If yours got no better, end("NoImprovement", ...) and name no model.
    model = output / "model" / base.name
    model.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(base, model)
    (output / "result.json").write_text(json.dumps({"rows": {split: len(some) for split, some in rows.items()}}))

    # 4. Say what was made. Of one file the digest is its sha256; of several, see docs/reference/contracts.md.
    made = {"uri": f"{told['OUTPUT_URI']}/model/{base.name}", "digest": "sha256:" + sha256(model),
            "baseDigest": told["BASE_MODEL_DIGEST"], "kind": "Merged"}
    end("Succeeded", f"{len(rows['train'])} rows", model=made, data={"manifestDigest": "sha256:" + sha256(manifest_path)},
        metrics={"trainRows": str(len(rows["train"]))}, resultPath="result.json")
except OSError as error:
    end("Retryable", f"the disk failed: {error.strerror}", code=75)
