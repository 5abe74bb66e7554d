//! Tokenizers from `tokenizer.json` and `tokenizer_config.json`.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::{ModelTokenizer, SpecialTokens};
use crate::error::ModelError;

/// What lies beside safetensors for the text side.
pub(crate) struct HubText {
    pub(crate) tokenizer: ModelTokenizer,
    pub(crate) chat_template: Option<String>,
    /// The end of an answer, as the tokenizer names it.
    pub(crate) end: Option<u32>,
}

/// Reads the text side of a model directory.
pub(crate) fn read(directory: &Path) -> Result<HubText, ModelError> {
    let path = directory.join("tokenizer.json");
    if !path.is_file() {
        return Err(ModelError::Unsupported(format!(
            "there is no tokenizer.json in {}; choose a model that has one, or a GGUF file",
            directory.display()
        )));
    }
    let inner = Tokenizer::from_file(&path).map_err(|error| ModelError::invalid(&path, error.to_string()))?;
    let config = optional_json(&directory.join("tokenizer_config.json"))?.unwrap_or(Value::Null);
    let special = SpecialTokens {
        begin: token_text(&config["bos_token"]),
        end: token_text(&config["eos_token"]),
    };
    let end = special.end.as_deref().and_then(|text| inner.token_to_id(text));
    Ok(HubText {
        tokenizer: ModelTokenizer::new(inner, None, special),
        chat_template: chat_template(directory, &config)?,
        end,
    })
}

/// Reads JSON; `None` if the file does not exist.
pub(crate) fn optional_json(path: &Path) -> Result<Option<Value>, ModelError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ModelError::Read {
                path: path.to_path_buf(),
                source,
            });
        }
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| ModelError::invalid(path, error.to_string()))
}

/// A token is written as text or as an object with its text in `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

fn chat_template(directory: &Path, config: &Value) -> Result<Option<String>, ModelError> {
    let path = directory.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(ModelError::Read { path, source }),
    }
    let named = |entry: &Value| {
        (entry["name"] == "default")
            .then(|| entry["template"].as_str())
            .flatten()
            .map(str::to_owned)
    };
    let template = &config["chat_template"];
    let listed = || template.as_array().and_then(|entries| entries.iter().find_map(named));
    Ok(template.as_str().map(str::to_owned).or_else(listed))
}
