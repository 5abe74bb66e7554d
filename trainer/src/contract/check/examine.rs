//! Was each promise kept?

use std::collections::BTreeSet;
use std::path::Path;

use perennial_crds::retrain::{
    EXIT_RETRY, MAX_MESSAGE_BYTES, ModelKind, Outcome, RETRAIN_CONTRACT, RetrainResult, TrainedModel,
};
use perennial_loader::Digest;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::CheckError;
use super::said::Run;
use crate::contract::clean_path;
use crate::verify::{Found, VerifyError, covered, inspect, resolve};

/// As much as the operator allows, bytes.
const MOST_MODEL_BYTES: u64 = 2 << 40;
/// Files that are named, at most.
const MOST_NAMES: usize = 8;
const FILES: &str = "its files are whole, and none could run code";
const DIGEST: &str = "its digest is that of its bytes";
/// What a Job that trains may say.
const OUTCOMES: [(&str, Outcome); 4] = [
    ("Succeeded", Outcome::Succeeded),
    ("NoImprovement", Outcome::NoImprovement),
    ("DataRejected", Outcome::DataRejected),
    ("Retryable", Outcome::Retryable),
];

/// What became of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was kept.
    Passed,
    /// It was not.
    Failed,
    /// It could not be looked at.
    Skipped,
    /// It was, and there is something to know.
    Note,
}

impl State {
    /// As it is told.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "FAIL",
            Self::Skipped => "-",
            Self::Note => "note",
        }
    }
}

/// A promise and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The promise.
    pub promise: &'static str,
    /// What became of it.
    pub state: State,
    /// Why, and what to do.
    pub said: String,
}

struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, promise: &'static str, state: State, said: impl Into<String>) {
        self.0.push(Check {
            promise,
            state,
            said: said.into(),
        });
    }

    /// Adds a promise that was kept, unless there is a problem.
    fn hold(&mut self, promise: &'static str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.add(promise, State::Passed, ""),
            Err(problem) => self.add(promise, State::Failed, problem),
        }
    }
}

/// Looks at everything that a run left.
///
/// # Errors
/// When the directory is none of a run.
pub async fn examine(
    directory: &Path,
    exit_code: Option<i32>,
    stop: &CancellationToken,
) -> Result<Vec<Check>, CheckError> {
    let run = Run::read(directory)?;
    let mut checks = Checks(Vec::new());
    let unchanged = match run.changed.as_slice() {
        [] => Ok(()),
        changed => Err(format!(
            "{} differ from the manifest; data is read-only",
            changed.join(", ")
        )),
    };
    checks.hold("the data is as it was", unchanged);
    checks.hold("there are last words", there(&run));
    checks.hold("they are not too long", short(&run));
    let leak = match run.tells_texts() {
        false => Ok(()),
        true => Err("they hold a prompt or an answer; last words end in etcd: say figures only".to_owned()),
    };
    checks.hold("they hold no text of a row", leak);
    let value: Value = serde_json::from_slice(&run.words).unwrap_or_default();
    let outcome = said_outcome(&value);
    checks.hold("they say which contract they keep to", schema(&value));
    checks.hold("their outcome is known", outcome.clone().map(|_| ()));
    match exit_code {
        Some(code) => checks.hold(
            "the exit code fits the outcome",
            fits(code, outcome.as_ref().ok().copied()),
        ),
        None => checks.add("the exit code fits the outcome", State::Skipped, "give --exit-code"),
    }
    let result: Option<RetrainResult> = serde_json::from_value(value).ok();
    let readable = match &result {
        Some(_) => Ok(()),
        None => Err(
            "a field is missing or of a wrong type; see docs/reference/schemas/retrain-result.schema.json".to_owned(),
        ),
    };
    checks.hold("their fields are those of the contract", readable);
    match result {
        Some(result) => examine_result(&run, &result, stop, &mut checks).await,
        None => checks.add(
            "the model is what was said",
            State::Skipped,
            "the last words cannot be read",
        ),
    }
    Ok(checks.0)
}

async fn examine_result(run: &Run, result: &RetrainResult, stop: &CancellationToken, checks: &mut Checks) {
    let made = result.outcome == Outcome::Succeeded;
    let used = result.data.as_ref().map(|data| data.manifest_digest.as_str());
    let used = match used {
        Some(digest) if digest == run.manifest_digest => Ok(()),
        Some(_) => Err(format!(
            "data.manifestDigest is not {}, the sha256 of the manifest",
            run.manifest_digest
        )),
        None if made => Err("data.manifestDigest is missing: the sha256 of the manifest".to_owned()),
        None => Ok(()),
    };
    checks.hold("the data that was used is the data that was given", used);
    if let Some(path) = &result.result_path {
        checks.hold("the full record is there", record(run, path));
    }
    match &result.model {
        Some(model) if made => examine_model(run, model, stop, checks).await,
        None if made => checks.add("a model was made", State::Failed, "Succeeded without a model"),
        Some(_) => checks.add("a model was made", State::Note, "it is not looked at without Succeeded"),
        None => {}
    }
}

async fn examine_model(run: &Run, model: &TrainedModel, stop: &CancellationToken, checks: &mut Checks) {
    let base = run.variable("RETRAIN_BASE_MODEL_DIGEST");
    let began = match model.base_digest == base {
        true => Ok(()),
        false => Err(format!(
            "model.baseDigest is not {base}, which is RETRAIN_BASE_MODEL_DIGEST"
        )),
    };
    checks.hold("it was trained from the model that was given", began);
    let merged = match model.kind {
        ModelKind::Merged => Ok(()),
        ModelKind::Adapter => Err("only Merged models can be served: merge the adapter into the base".to_owned()),
    };
    checks.hold("it can be served", merged);
    let uri = run.variable("RETRAIN_OUTPUT_URI");
    if uri.starts_with("oci://") {
        checks.hold("it is pinned in RETRAIN_OUTPUT_URI", pinned(uri, model));
        checks.add(
            DIGEST,
            State::Skipped,
            "registries are not asked here; in the cluster, verify pulls it before the gate",
        );
        note_unchanged(model, base, checks);
        return;
    }
    let below = model.uri.strip_prefix(uri).and_then(|rest| rest.strip_prefix('/'));
    let Some(below) = below.filter(|below| clean_path(below) && !below.split('/').any(|part| matches!(part, "" | ".")))
    else {
        checks.add(
            "it lies below RETRAIN_OUTPUT_URI",
            State::Failed,
            format!("model.uri does not begin with {uri}/, or leads upwards"),
        );
        return;
    };
    checks.hold("it lies below RETRAIN_OUTPUT_URI", Ok(()));
    let output = run.directory.join("output");
    let path = output.join(below);
    let files = match inspect(&path, &output, MOST_MODEL_BYTES) {
        Ok(files) => files,
        Err(error) => {
            checks.add(FILES, State::Failed, error.to_string());
            checks.add(DIGEST, State::Skipped, "its files cannot be used");
            return;
        }
    };
    checks.add(FILES, State::Passed, "");
    match measure(&path, &output, &files, stop).await {
        Ok((digest, outside)) => {
            let same = match digest == model.digest {
                true => Ok(()),
                false => Err(format!("its bytes have {digest}")),
            };
            checks.hold(DIGEST, same);
            note_outside(&outside, checks);
        }
        Err(problem) => checks.add(DIGEST, State::Failed, problem),
    }
    note_unchanged(model, base, checks);
}

/// The digest of a model's bytes, and those of its files that it is not about.
async fn measure(
    model: &Path,
    scratch: &Path,
    files: &[Found],
    stop: &CancellationToken,
) -> Result<(String, Vec<String>), String> {
    let real = std::fs::canonicalize(model).map_err(|error| error.to_string())?;
    let uri = format!("file://{}", real.display());
    let said = |error: VerifyError| error.to_string();
    let digest = resolve(&uri, scratch, stop).await.map_err(said)?.digest;
    let covered = covered(&uri, scratch, stop).await.map_err(said)?;
    let covered: BTreeSet<&Path> = covered
        .iter()
        .filter_map(|file| file.strip_prefix(&real).ok())
        .collect();
    let below = files.iter().filter_map(|file| file.path.strip_prefix(model).ok());
    let outside = below.filter(|file| !covered.contains(file));
    Ok((digest, outside.map(|file| file.display().to_string()).collect()))
}

fn note_outside(outside: &[String], checks: &mut Checks) {
    if outside.is_empty() {
        return;
    }
    let more = match outside.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = outside[..outside.len().min(MOST_NAMES)].join(", ");
    checks.add(
        "its digest is about all of its files",
        State::Note,
        format!(
            "it is not about {names}{more}: they are not served; let them lie beside the model's directory, not in it"
        ),
    );
}

fn note_unchanged(model: &TrainedModel, base: &str, checks: &mut Checks) {
    if model.digest == base {
        checks.add(
            "it is another model",
            State::Note,
            "it is the model that was given: a cycle would end with NoImprovement",
        );
    }
}

/// Whether a model in a registry is named by the digest of its manifest.
fn pinned(repository: &str, model: &TrainedModel) -> Result<(), String> {
    let repository = repository.trim_end_matches('/');
    let digest: Digest = model
        .digest
        .parse()
        .map_err(|_| "model.digest is not sha256: and 64 hex digits".to_owned())?;
    if model.digest != digest.to_string() || model.uri != format!("{repository}@{digest}") {
        return Err(format!(
            "model.uri must be {repository}@ and model.digest, the digest of the manifest that was pushed"
        ));
    }
    Ok(())
}

fn there(run: &Run) -> Result<(), String> {
    if run.words.is_empty() {
        return Err("write them to RETRAIN_TERMINATION_PATH before exiting".to_owned());
    }
    Ok(())
}

fn short(run: &Run) -> Result<(), String> {
    let bytes = run.words.len();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(format!(
            "they have {bytes} bytes; Kubernetes cuts them off at {MAX_MESSAGE_BYTES}"
        ));
    }
    Ok(())
}

fn schema(value: &Value) -> Result<(), String> {
    match value.get("schema").and_then(Value::as_str) {
        Some(RETRAIN_CONTRACT) => Ok(()),
        _ => Err(format!(
            "they are no JSON object with \"schema\": \"{RETRAIN_CONTRACT}\""
        )),
    }
}

fn said_outcome(value: &Value) -> Result<Outcome, String> {
    let said = value.get("outcome").and_then(Value::as_str);
    let known = OUTCOMES.iter().find(|(word, _)| Some(*word) == said);
    known.map(|(_, outcome)| *outcome).ok_or_else(|| {
        let words: Vec<&str> = OUTCOMES.iter().map(|(word, _)| *word).collect();
        format!("it must be one of {}", words.join(", "))
    })
}

fn fits(code: i32, outcome: Option<Outcome>) -> Result<(), String> {
    match outcome {
        None => Err(format!("{code}, but nothing was said that it could fit")),
        Some(Outcome::Retryable) if code != EXIT_RETRY => Err(format!(
            "{code}; Retryable goes with {EXIT_RETRY}, or the Job is not tried again"
        )),
        Some(Outcome::Retryable) => Ok(()),
        Some(_) if code != 0 => Err(format!("{code}; a decision goes with 0, or the Job counts as failed")),
        Some(_) => Ok(()),
    }
}

fn record(run: &Run, path: &str) -> Result<(), String> {
    if !clean_path(path) {
        return Err("resultPath is no path below RETRAIN_OUTPUT_DIR".to_owned());
    }
    if !run.directory.join("output").join(path).is_file() {
        return Err("there is no file of resultPath below RETRAIN_OUTPUT_DIR".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::make::placeholder;
    use super::*;
    use crate::contract::Sha256Sum;

    #[tokio::test]
    async fn files_that_the_digest_is_not_about_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let model = directory.path().join("model");
        fs::create_dir_all(model.join("older")).expect("directories");
        let weights = placeholder();
        for (name, bytes) in [
            ("model.safetensors", weights.as_slice()),
            ("config.json", &b"{}"[..]),
            ("training.json", &b"{}"[..]),
            ("vocab.txt", &b""[..]),
            ("older/model.safetensors", weights.as_slice()),
        ] {
            fs::write(model.join(name), bytes).expect("written");
        }
        let stop = CancellationToken::new();
        let measured = async |path: &Path| {
            let files = inspect(path, directory.path(), MOST_MODEL_BYTES).expect("files");
            measure(path, directory.path(), &files, &stop).await.expect("a digest")
        };
        let (digest, outside) = measured(&model).await;
        let (config, weights) = (Sha256Sum::of(b"{}"), Sha256Sum::of(&weights));
        let listing = format!("{config}  config.json\n{weights}  model.safetensors\n");
        assert_eq!(digest, format!("sha256:{}", Sha256Sum::of(listing.as_bytes())));
        assert_eq!(outside, ["older/model.safetensors", "training.json", "vocab.txt"]);
        let mut checks = Checks(Vec::new());
        note_outside(&outside, &mut checks);
        assert!(
            matches!(&checks.0[..], [Check { state: State::Note, said, .. }] if said.contains("older/model.safetensors, training.json")),
            "{:?}",
            checks.0
        );
        // Of one file it is about that.
        let (digest, outside) = measured(&model.join("model.safetensors")).await;
        assert_eq!((digest, outside.len()), (format!("sha256:{weights}"), 0));
    }
}
