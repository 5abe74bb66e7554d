//! Rows, manifests and suites as the Job that prepares leaves them, and the arguments of the Jobs behind it.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::{Path, PathBuf};

use clap::Parser;
use perennial_crds::capture::Message;
use perennial_crds::retrain::{
    Excluded, Include, Manifest, ManifestFile, RETRAIN_CONTRACT, RetrainResult, SuiteItem, TrainingRow,
};
use perennial_loader::Digest;
use perennial_trainer::{evaluate, train};
use tokio_util::sync::CancellationToken;

pub const ROWS: usize = 20;

pub fn question(number: usize) -> Vec<Message> {
    vec![Message {
        role: "user".to_owned(),
        content: format!("What is {}?", number * 7 % 10),
    }]
}

pub fn answer(number: usize) -> String {
    ["north", "east", "south", "west", "up"][number * 7 % 10 % 5].to_owned()
}

pub fn row(number: usize) -> TrainingRow {
    TrainingRow {
        messages: question(number),
        prompt: None,
        answer: Some(answer(number)),
        label: Include::CorrectedOutputs,
        sampling_weight: 2.0,
        served_revision: Some("r1".to_owned()),
    }
}

pub fn item(number: usize) -> SuiteItem {
    SuiteItem {
        messages: question(number),
        prompt: None,
        answer: Some(answer(number)),
        exact: None,
        regex: None,
        max_tokens: None,
    }
}

fn lines<T: serde::Serialize>(rows: &[T]) -> String {
    let line = |row: &T| serde_json::to_string(row).expect("JSON") + "\n";
    rows.iter().map(line).collect()
}

/// Writes rows and their manifest; returns the manifest's path.
pub fn write_data(directory: &Path, train: &[TrainingRow], validation: &[TrainingRow]) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory");
    let files = [("train", train), ("validation", validation)].map(|(split, rows)| {
        let (path, text) = (format!("{split}.jsonl"), lines(rows));
        std::fs::write(directory.join(&path), &text).expect("written");
        ManifestFile {
            path,
            split: split.to_owned(),
            sha256: Digest::of(text.as_bytes()).hex(),
            rows: rows.len() as u64,
            bytes: text.len() as u64,
        }
    });
    let manifest = Manifest {
        schema: RETRAIN_CONTRACT.to_owned(),
        cycle_id: "cycle-1".to_owned(),
        from: 0,
        to: 100,
        files: files.into(),
        max_percent_per_requester: 10,
        excluded: Excluded::default(),
        evaluation_hash: "00".to_owned(),
    };
    let path = directory.join("manifest.json");
    std::fs::write(&path, serde_json::to_vec(&manifest).expect("JSON")).expect("written");
    path
}

/// The usual data: questions that are all seen, measured with the same kind.
pub fn usual_data(directory: &Path) -> PathBuf {
    let train: Vec<TrainingRow> = (0..ROWS).map(row).collect();
    let validation: Vec<TrainingRow> = (0..4).map(row).collect();
    write_data(directory, &train, &validation)
}

pub fn write_suite(directory: &Path, name: &str, items: &[SuiteItem]) {
    std::fs::create_dir_all(directory).expect("a directory");
    std::fs::write(directory.join(format!("{name}.jsonl")), lines(items)).expect("written");
}

/// The digest of the model at a path, as a user would compute it.
pub fn digest(path: &Path) -> String {
    let files: Vec<PathBuf> = if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    } else {
        vec![path.to_path_buf()]
    };
    let digests: Vec<(String, Digest)> = files
        .iter()
        .map(|file| {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            (name, Digest::of(&std::fs::read(file).expect("the file")))
        })
        .collect();
    perennial_loader::digest_of_files(digests.iter().map(|(name, digest)| (name.as_str(), *digest))).to_string()
}

#[derive(Debug, Parser)]
struct TrainLine {
    #[command(flatten)]
    arguments: train::Arguments,
}

/// Settings under which the tiny model learns its answers within a second or two.
pub const QUICK: &str = "--learning-rate 0.01 --epochs 60 --step-rows 5 --patience 60 --rank 8 --batch-tokens 64";

pub fn train_arguments(base: &Path, manifest: &Path, output: &Path, more: &str) -> train::Arguments {
    let line = format!(
        "train --cycle-id cycle-1 --base-model-uri file://{} --base-model-digest {} --data-manifest {} --output-dir {} \
         --output-uri file:///mnt/model/p/c/output --seed 7 --memory 1Gi --scratch-directory {} --termination-path {} {more}",
        base.display(),
        digest(base),
        manifest.display(),
        output.display(),
        output.join("scratch").display(),
        output.join("words").display(),
    );
    TrainLine::try_parse_from(line.split_whitespace())
        .expect("arguments")
        .arguments
}

/// Trains to the end.
pub fn train(arguments: &train::Arguments) -> RetrainResult {
    train::execute(arguments, &CancellationToken::new(), &|_| false).expect("a decision")
}

#[derive(Debug, Parser)]
struct EvaluateLine {
    #[command(flatten)]
    arguments: evaluate::Arguments,
}

pub fn evaluate_arguments(champion: &Path, candidate: &Path, suites: &Path, output: &Path) -> evaluate::Arguments {
    let line = format!(
        "evaluate --cycle-id cycle-1 --champion-uri file://{} --champion-digest {} --candidate-uri file://{} \
         --candidate-digest {} --suites-dir {} --suites-digest {} --output-dir {} --scratch-directory {} --memory 1Gi \
         --termination-path {}",
        champion.display(),
        digest(champion),
        candidate.display(),
        digest(candidate),
        suites.display(),
        perennial_trainer::contract::suites_digest(suites).expect("a digest"),
        output.display(),
        output.join("scratch").display(),
        output.join("words").display(),
    );
    EvaluateLine::try_parse_from(line.split_whitespace())
        .expect("arguments")
        .arguments
}
