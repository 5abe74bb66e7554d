//! The adapter as PEFT keeps it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::error::TrainError;
use super::files::{move_to, partial};
use super::model::{Adapter, Layout};
use super::tensors::write_floats;
use crate::contract::{write_atomically, write_bytes};

/// Writes the two files of an adapter into `directory`. Rows are in the hub's order, whatever the base is stored as.
///
/// # Errors
/// What the disk says.
pub fn store_adapter(adapter: Adapter, base_uri: &str, alpha: f64, directory: &Path) -> Result<(), TrainError> {
    let unfinished = partial(directory);
    fs::create_dir_all(&unfinished).map_err(TrainError::io("create", &unfinished))?;
    let Adapter { layout, values } = adapter;
    let mut tensors = BTreeMap::new();
    for slot in layout.slots() {
        let pair = layout.pair(values, slot);
        let name = format!(
            "base_model.model.model.layers.{}.{}",
            slot.layer,
            slot.projection.hub_part()
        );
        tensors.insert(format!("{name}.lora_A.weight"), (vec![pair.rank, slot.inputs], pair.a));
        tensors.insert(format!("{name}.lora_B.weight"), (vec![slot.outputs, pair.rank], pair.b));
    }
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let path = unfinished.join("adapter_model.safetensors");
    let written = write_atomically(&path, |file| write_floats(file, &metadata, &tensors));
    written.map_err(TrainError::io("write", &path))?;
    let path = unfinished.join("adapter_config.json");
    let config = adapter_config(layout, base_uri, alpha).to_string();
    write_bytes(&path, config.as_bytes()).map_err(TrainError::io("write", &path))?;
    move_to(&unfinished, directory).map_err(TrainError::io("move", directory))
}

fn adapter_config(layout: &Layout, base_uri: &str, alpha: f64) -> serde_json::Value {
    let first = layout.slots().iter().filter(|slot| slot.layer == 0);
    let targets: Vec<&str> = first
        .map(|slot| slot.projection.hub_part())
        .map(|part| part.rsplit_once('.').map_or(part, |(_, name)| name))
        .collect();
    serde_json::json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_uri,
        "r": layout.rank(),
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "target_modules": targets,
    })
}
