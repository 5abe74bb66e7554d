//! Lays out what a pod that trains would find.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use perennial_crds::capture::Message;
use perennial_crds::retrain::{
    DATA_DIRECTORY, Excluded, Include, MANIFEST_FILE, Manifest, ManifestFile, OUTPUT_DIRECTORY, REPORT_DIRECTORY,
    RETRAIN_CONTRACT, TrainingRow,
};
use perennial_crds::serving::{CLAIM_DIRECTORY, TERMINATION_PATH};
use tokio_util::sync::CancellationToken;

use super::CheckError;
use super::said::{ENVIRONMENT, LOCAL_ENVIRONMENT, TERMINATION};
use crate::contract::{Sha256Sum, write_bytes};
use crate::verify::resolve;

const TRAIN_ROWS: usize = 16;
const VALIDATION_ROWS: usize = 4;
const CYCLE: &str = "0123456789abcdef";
const REPORT: &str = r#"{"policy":"check-contract","cause":"InputDrift","signals":[]}"#;
const COLOURS: [&str; 5] = [
    "a deep crimson",
    "pale turquoise",
    "bright saffron",
    "dark olive",
    "plain white",
];

/// JSON leaves these as they are within a line, and readers of text may take some of them for the end of one.
const SPACES: [char; 4] = [' ', '\u{85}', '\u{2028}', '\u{2029}'];

/// Makes a run directory; tells how an image is run on it.
///
/// # Errors
/// When it is there already, or the model is none.
pub async fn make(directory: &Path, model: Option<&Path>, stop: &CancellationToken) -> Result<String, CheckError> {
    if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        let shown = directory.display();
        return Err(CheckError::Directory(format!(
            "{shown} is not empty; a run needs a directory of its own"
        )));
    }
    fs::create_dir_all(directory).map_err(CheckError::io(directory))?;
    let directory = fs::canonicalize(directory).map_err(CheckError::io(directory))?;
    for (name, mode) in [("data", 0o755), ("drift", 0o755), ("output", 0o777), ("model", 0o755)] {
        let path = directory.join(name);
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(CheckError::io(&path))?;
    }
    let write = |path: &Path, bytes: &[u8]| write_bytes(path, bytes).map_err(CheckError::io(path));
    write_data(&directory.join("data"))?;
    write(&directory.join("drift/report.json"), REPORT.as_bytes())?;
    let termination = directory.join(TERMINATION);
    write(&termination, b"")?;
    // The image may run as anybody.
    fs::set_permissions(&termination, fs::Permissions::from_mode(0o666)).map_err(CheckError::io(&termination))?;
    let model = match model {
        Some(model) => fs::canonicalize(model).map_err(CheckError::io(model))?,
        None => {
            let path = directory.join("model/model.safetensors");
            write(&path, &placeholder())?;
            path
        }
    };
    let digest = resolve(&format!("file://{}", model.display()), &directory, stop)
        .await?
        .digest;
    let (mounted, inside) = mounted(&model);
    let pod = Places {
        base: format!("file://{CLAIM_DIRECTORY}{inside}"),
        manifest: format!("{DATA_DIRECTORY}/{MANIFEST_FILE}"),
        output: OUTPUT_DIRECTORY.to_owned(),
        termination: TERMINATION_PATH.to_owned(),
    };
    let here = Places {
        base: format!("file://{}", model.display()),
        manifest: directory.join("data").join(MANIFEST_FILE).display().to_string(),
        output: directory.join("output").display().to_string(),
        termination: termination.display().to_string(),
    };
    for (name, places) in [(ENVIRONMENT, &pod), (LOCAL_ENVIRONMENT, &here)] {
        write(&directory.join(name), places.environment(&digest).as_bytes())?;
    }
    Ok(how(&directory, &mounted))
}

/// Where things are for the program that trains.
struct Places {
    base: String,
    manifest: String,
    output: String,
    termination: String,
}

impl Places {
    fn environment(&self, digest: &str) -> String {
        let variables = [
            ("CONTRACT", RETRAIN_CONTRACT),
            ("CYCLE_ID", CYCLE),
            ("CAUSE", "InputDrift"),
            ("BASE_MODEL_URI", &self.base),
            ("BASE_MODEL_DIGEST", digest),
            ("CHAMPION_URI", &self.base),
            ("DATA_MANIFEST", &self.manifest),
            ("OUTPUT_DIR", &self.output),
            ("OUTPUT_URI", &format!("file://{CLAIM_DIRECTORY}")),
            ("DEADLINE_SECONDS", "600"),
            ("SEED", "7"),
            ("TERMINATION_PATH", &self.termination),
        ];
        variables
            .iter()
            .map(|(name, value)| format!("RETRAIN_{name}={value}\n"))
            .collect()
    }
}

/// The directory that a pod would mount, and the model's place in it.
fn mounted(model: &Path) -> (PathBuf, String) {
    match (model.is_dir(), model.parent(), model.file_name()) {
        (false, Some(parent), Some(name)) => (parent.to_path_buf(), format!("/{}", name.to_string_lossy())),
        _ => (model.to_path_buf(), String::new()),
    }
}

fn how(directory: &Path, model: &Path) -> String {
    let (run, model) = (directory.display(), model.display());
    format!(
        "{run} is what a pod would find. Run the image on it, for example:

  docker run --rm --env-file {run}/{ENVIRONMENT} \\
    -v {run}/data:{DATA_DIRECTORY}:ro -v {run}/drift:{REPORT_DIRECTORY}:ro -v {run}/output:{OUTPUT_DIRECTORY} \\
    -v {model}:{CLAIM_DIRECTORY}:ro -v {run}/{TERMINATION}:{TERMINATION_PATH} IMAGE

or a program on this machine:

  env $(cat {run}/{LOCAL_ENVIRONMENT}) PROGRAM

and then see what it left:

  perennial-trainer check-contract {run} --exit-code $?
"
    )
}

/// One tensor of two numbers: a file that is whole, for trainers that are only tried out.
pub(super) fn placeholder() -> Vec<u8> {
    let header = r#"{"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([1.0_f32, -1.0].iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

fn row(number: usize) -> TrainingRow {
    let space = SPACES[number % SPACES.len()];
    let question = format!("What colour is the flag on pier number {number}{space}of the old harbour?");
    let (messages, prompt) = if number.is_multiple_of(4) {
        (Vec::new(), Some(question))
    } else {
        let message = Message {
            role: "user".to_owned(),
            content: question,
        };
        (vec![message], None)
    };
    TrainingRow {
        messages,
        prompt,
        answer: Some(format!("The flag on pier number {number} is {}.", COLOURS[number % 5])),
        label: Include::CorrectedOutputs,
        sampling_weight: 1.0,
        served_revision: None,
    }
}

fn write_data(directory: &Path) -> Result<(), CheckError> {
    let splits = [
        ("train", 0..TRAIN_ROWS),
        ("validation", TRAIN_ROWS..TRAIN_ROWS + VALIDATION_ROWS),
    ];
    let mut files = Vec::new();
    for (split, numbers) in splits {
        let name = format!("{split}.jsonl");
        let mut bytes = Vec::new();
        for number in numbers.clone() {
            serde_json::to_writer(&mut bytes, &row(number))
                .map_err(|error| CheckError::Directory(error.to_string()))?;
            bytes.push(b'\n');
        }
        let path = directory.join(&name);
        write_bytes(&path, &bytes).map_err(CheckError::io(&path))?;
        files.push(ManifestFile {
            path: name,
            split: split.to_owned(),
            sha256: Sha256Sum::of(&bytes),
            rows: numbers.len() as u64,
            bytes: bytes.len() as u64,
        });
    }
    let manifest = Manifest {
        schema: RETRAIN_CONTRACT.to_owned(),
        cycle_id: CYCLE.to_owned(),
        from: 1_700_000_000,
        to: 1_701_000_000,
        files,
        max_percent_per_requester: 5,
        excluded: Excluded::default(),
        evaluation_hash: format!("sha256:{}", Sha256Sum::of(b"")),
    };
    let path = directory.join(MANIFEST_FILE);
    let json = serde_json::to_vec_pretty(&manifest).map_err(|error| CheckError::Directory(error.to_string()))?;
    write_bytes(&path, &json).map_err(CheckError::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_ends_lines_at_other_characters_cannot_read_the_rows() {
        let directory = tempfile::tempdir().expect("a directory");
        write_data(directory.path()).expect("rows");
        for (split, rows) in [("train", TRAIN_ROWS), ("validation", VALIDATION_ROWS)] {
            let path = directory.path().join(format!("{split}.jsonl"));
            let text = fs::read_to_string(path).expect("rows");
            assert_eq!(text.lines().count(), rows);
            for end in &SPACES[1..] {
                let torn = text.split(['\n', *end]).filter(|line| !line.is_empty());
                let unreadable = torn.filter(|line| serde_json::from_str::<TrainingRow>(line).is_err());
                assert!(unreadable.count() > 0, "{end:?} in {split}");
            }
        }
    }
}
