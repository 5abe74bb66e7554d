//! Which files a model consists of, and that none of them can run anything.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{VerifyError, name};

/// Most files of a model.
const MOST_FILES: usize = 10_000;
/// Formats that only hold numbers and texts.
const SAFE: &[&str] = &["safetensors", "gguf", "json", "jinja", "model"];
/// Formats that run code when they are read.
const PICKLES: &[&str] = &[
    "bin", "pt", "pth", "pkl", "pickle", "ckpt", "npy", "npz", "h5", "keras", "joblib", "msgpack",
];
/// Texts of tokenizers.
const TEXTS: &[&str] = &[
    "merges.txt",
    "vocab.txt",
    "added_tokens.txt",
    "special_tokens.txt",
    "tokenizer.txt",
];

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// All files of a model, sorted. `root` is the directory that none of them may leave.
///
/// # Errors
/// When one of them is of a format that is not known to be harmless, or leads out of the directory.
pub fn files(model: &Path, root: &Path) -> Result<Vec<Found>, VerifyError> {
    let root = fs::canonicalize(root).map_err(VerifyError::io(root))?;
    let mut found = Vec::new();
    let mut waiting = vec![model.to_path_buf()];
    while let Some(path) = waiting.pop() {
        // Follows links, so a loop of them is an error.
        let real = match fs::canonicalize(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(VerifyError::untrusted(format_args!(
                    "there is no {}: let the trainer name what it wrote below RETRAIN_OUTPUT_DIR",
                    name(&path)
                )));
            }
            real => real.map_err(VerifyError::io(&path))?,
        };
        if !real.starts_with(&root) {
            return Err(VerifyError::untrusted(format_args!(
                "{} is a link that leads out of the model's directory: copy the file",
                name(&path)
            )));
        }
        let metadata = fs::metadata(&real).map_err(VerifyError::io(&path))?;
        if metadata.is_dir() {
            if fs::symlink_metadata(&path)
                .map_err(VerifyError::io(&path))?
                .is_symlink()
                && path != model
            {
                return Err(VerifyError::untrusted(format_args!(
                    "{} is a link to a directory: copy its files",
                    name(&path)
                )));
            }
            for entry in fs::read_dir(&path).map_err(VerifyError::io(&path))? {
                waiting.push(entry.map_err(VerifyError::io(&path))?.path());
            }
        } else if metadata.is_file() {
            // The name under which it is read, and the one of what is read.
            for named in [&path, &real] {
                is_safe(named).map_err(VerifyError::Untrusted)?;
            }
            found.push(Found {
                path,
                bytes: metadata.len(),
            });
        } else {
            return Err(VerifyError::untrusted(format_args!("{} is no file", name(&path))));
        }
        if found.len() + waiting.len() > MOST_FILES {
            return Err(VerifyError::untrusted(format_args!(
                "the model has more than {MOST_FILES} files"
            )));
        }
    }
    found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Whether a file of this name only holds numbers and texts.
///
/// # Errors
/// What to do about it.
pub fn is_safe(path: &Path) -> Result<(), String> {
    let name = name(path);
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if SAFE.contains(&extension.as_str()) || TEXTS.contains(&name.as_str()) {
        return Ok(());
    }
    if PICKLES.contains(&extension.as_str()) {
        return Err(format!(
            "{name} may run code when it is read: write the weights as safetensors or GGUF"
        ));
    }
    Err(format!(
        "{name} is no file of a model: beside the weights (.safetensors, .gguf) only .json, .jinja, .model and the texts of the \
         tokenizer may lie; keep everything else outside the model's directory"
    ))
}

/// Whether a file holds weights in a format that is checked further.
pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_formats_without_code_are_safe() {
        for safe in [
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "m.GGUF",
            "config.json",
            "chat_template.jinja",
            "tokenizer.model",
            "merges.txt",
            "vocab.txt",
        ] {
            assert_eq!(is_safe(Path::new(safe)), Ok(()));
        }
        for pickle in ["pytorch_model.bin", "a.pt", "a.PTH", "a.pkl", "a.ckpt", "optimizer.pt"] {
            assert!(is_safe(Path::new(pickle)).expect_err("refused").contains("run code"));
        }
        for other in [
            "modeling_llama.py",
            "README.md",
            "a.sh",
            "safetensors",
            "notes.txt",
            ".gitattributes",
        ] {
            assert!(
                is_safe(Path::new(other))
                    .expect_err("refused")
                    .contains("no file of a model")
            );
        }
    }
}
