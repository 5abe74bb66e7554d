//! What a run was told, and what it said.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use perennial_crds::retrain::{MANIFEST_FILE, Manifest, TrainingRow};
use serde_json::Value;

use super::CheckError;
use crate::contract::{Sha256Sum, clean_path, sha256_of_file};

/// File with the environment of a pod.
pub const ENVIRONMENT: &str = "env";
/// File with the environment of a program on this machine.
pub const LOCAL_ENVIRONMENT: &str = "env.local";
/// File of the last words.
pub const TERMINATION: &str = "termination";
/// Shorter texts are in anything by chance.
const SHORTEST_TEXT: usize = 16;

/// A run.
pub struct Run {
    /// Its directory.
    pub directory: PathBuf,
    /// What was told, by name.
    pub told: BTreeMap<String, String>,
    /// Digest of the manifest.
    pub manifest_digest: String,
    /// Files of the manifest that are not what it says.
    pub changed: Vec<String>,
    /// Texts of rows.
    texts: Vec<String>,
    /// The last words.
    pub words: Vec<u8>,
}

impl Run {
    /// Reads a run.
    ///
    /// # Errors
    /// When the directory is none of a run.
    pub fn read(directory: &Path) -> Result<Self, CheckError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => CheckError::Directory(format!(
                    "{} is not there: make a run with `perennial-trainer check-contract --make DIRECTORY`",
                    path.display()
                )),
                _ => CheckError::io(&path)(error),
            })
        };
        let environment = String::from_utf8_lossy(&read(ENVIRONMENT)?).into_owned();
        let told = environment
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let data = directory.join("data");
        let bytes = read(&format!("data/{MANIFEST_FILE}"))?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|_| CheckError::Directory(format!("{} holds no manifest", data.display())))?;
        let (mut changed, mut texts) = (Vec::new(), Vec::new());
        for file in manifest.files {
            let path = data.join(&file.path);
            let found = sha256_of_file(&path).ok();
            if !clean_path(&file.path) || found != Some((file.sha256, file.bytes)) {
                changed.push(file.path);
                continue;
            }
            let lines = fs::read_to_string(&path).map_err(CheckError::io(&path))?;
            for line in lines.lines() {
                if let Ok(row) = serde_json::from_str(line) {
                    add_texts(&row, &mut texts);
                }
            }
        }
        Ok(Self {
            directory: directory.to_path_buf(),
            told,
            manifest_digest: format!("sha256:{}", Sha256Sum::of(&bytes)),
            changed,
            texts,
            words: read(TERMINATION).unwrap_or_default(),
        })
    }

    /// What was told by this name.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.told.get(name).map_or("", String::as_str)
    }

    /// Whether the last words hold a text of a row, written as it is or as JSON writes it.
    #[must_use]
    pub fn tells_texts(&self) -> bool {
        let words = String::from_utf8_lossy(&self.words);
        let mut said = plain(&words);
        if let Ok(value) = serde_json::from_slice::<Value>(&self.words) {
            add_strings(&value, &mut said);
        }
        self.texts.iter().any(|text| said.contains(text.as_str()))
    }
}

fn add_texts(row: &TrainingRow, texts: &mut Vec<String>) {
    let messages = row.messages.iter().map(|message| &message.content);
    let all = messages.chain(&row.prompt).chain(&row.answer);
    texts.extend(all.map(|text| plain(text)).filter(|text| text.len() >= SHORTEST_TEXT));
}

fn add_strings(value: &Value, said: &mut String) {
    match value {
        Value::String(text) => {
            said.push('\n');
            said.push_str(&plain(text));
        }
        Value::Array(values) => values.iter().for_each(|value| add_strings(value, said)),
        Value::Object(fields) => {
            for (name, value) in fields {
                said.push('\n');
                said.push_str(&plain(name));
                add_strings(value, said);
            }
        }
        _ => {}
    }
}

fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}
