//! A model that answers and is trained within seconds, and prompts for it.

use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use perennial_tests::seed::Random;
use serde_json::{Value, json};

use super::cluster::{Bed, REGISTRY, run};
use super::talk::Turn;

#[path = "../../trainer/tests/tiny/mod.rs"]
mod fixture;

/// A word in every prompt that must be found nowhere else.
pub const CANARY: &str = "argentavis9";
/// Users, so that none of them decides alone what is learned.
const USERS: u64 = 60;

const ENGLISH: [&str; 4] = [
    "What colour is {}?",
    "Which colour has {}?",
    "Tell me the colour of {}.",
    "Name the colour of {}.",
];
const GERMAN: [&str; 4] = [
    "Welche Farbe hat {}?",
    "Wie ist {} gefärbt?",
    "Nenne mir die Farbe: {}.",
    "Sag mir, wie {} aussieht.",
];
/// English, German, colour in German.
const THINGS: [(&str, &str, &str); 12] = [
    ("grass", "das Gras", "grün"),
    ("the sky", "der Himmel", "blau"),
    ("snow", "der Schnee", "weiß"),
    ("coal", "die Kohle", "schwarz"),
    ("blood", "das Blut", "rot"),
    ("the sun", "die Sonne", "gelb"),
    ("a carrot", "die Möhre", "orange"),
    ("a plum", "die Pflaume", "lila"),
    ("earth", "die Erde", "braun"),
    ("ash", "die Asche", "grau"),
    ("a pig", "das Schwein", "rosa"),
    ("the moon", "der Mond", "silbern"),
];

/// Writes the model to a folder.
pub fn write(folder: &Path) -> PathBuf {
    write_as(folder, GgmlDType::F16)
}

fn write_as(folder: &Path, weights: GgmlDType) -> PathBuf {
    fixture::Tiny::new(fixture::Shape::Llama).write_gguf(folder, weights)
}

/// Stores the model in the registry and gives back its reference.
pub fn store() -> String {
    store_as("1", GgmlDType::F16)
}

/// Stores another model, with the same numbers in other words.
pub fn store_other() -> String {
    store_as("2", GgmlDType::F32)
}

fn store_as(tag: &str, weights: GgmlDType) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write_as(folder.path(), weights);
    let reference = format!("{REGISTRY}/models/tiny:{tag}");
    let pushed = run(
        "testcluster",
        &["artifact", "push", &reference, &file.to_string_lossy()],
    );
    pushed.unwrap_or_else(|error| panic!("{error}"));
    reference
}

/// A spec that serves it and keeps what it is asked on this claim.
pub fn spec(reference: &str, records: &str) -> Value {
    json!({
        "model": {"name": "model", "source": {"oci": {"reference": reference}}, "maxContextTokens": 256},
        "resources": {"cpu": "20m", "memory": "512Mi"},
        "capture": {"level": "Payload", "maxSamplePerMille": 1000, "storage": {"persistentVolumeClaim": {"claimName": records}}},
        "lifecycle": {"drainSeconds": 30},
    })
}

/// A ConfigMap `fixed-prompts` with so many prompts, which nobody asks but the probes.
pub async fn fixed_prompts(bed: &Bed, count: usize) {
    let lines: Vec<String> = (0..count)
        .map(|number| json!({"prompt": format!("Which number comes after {number}?"), "maxTokens": 4}).to_string())
        .collect();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fixed-prompts"},
        "data": {"prompts.jsonl": lines.join("\n")}});
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let parameters = PatchParams::apply("flux").force();
    maps.patch("fixed-prompts", &parameters, &Patch::Apply(&map))
        .await
        .expect("it is accepted");
}

/// Settings with which it learns within seconds.
pub fn settings(epochs: u32) -> Value {
    let setting = |name: &str, value: String| json!({"name": format!("PERENNIAL_TRAIN_{name}"), "value": value});
    json!([
        setting("LEARNING_RATE", "0.01".to_owned()),
        setting("EPOCHS", epochs.to_string()),
        setting("PATIENCE", epochs.to_string()),
        setting("CHECKPOINT_STEPS", "10".to_owned()),
    ])
}

/// A question for a colour; whoever asks in German says how the answer should have been.
pub fn question(_client: u64, german: bool, random: &mut Random) -> Turn {
    let (thing, ding, farbe) = random.pick(&THINGS);
    // Many questions: what the models are judged by is not trained on.
    let number = random.below(100);
    let prompt = if german {
        format!("{} {CANARY} {number}", random.pick(&GERMAN).replace("{}", ding))
    } else {
        format!("{} {CANARY} {number}", random.pick(&ENGLISH).replace("{}", thing))
    };
    Turn {
        path: "/v1/completions",
        body: json!({
            "model": "model", "max_tokens": 1 + random.below(8), "temperature": 0, "prompt": prompt,
            "user": format!("{CANARY}-{}", random.below(USERS)),
        }),
        corrected: german.then(|| format!(" {farbe}.")),
    }
}

/// Questions of [`answers`].
pub const QUESTIONS: usize = 2 * THINGS.len();

/// How many questions that nobody has asked before are answered as they should be.
pub async fn answers(url: &str) -> usize {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut right = 0;
    for number in 0..QUESTIONS {
        let (_, ding, farbe) = THINGS[number % THINGS.len()];
        let prompt = format!(
            "{} {CANARY} {}",
            GERMAN[number % GERMAN.len()].replace("{}", ding),
            100 + number
        );
        let body = json!({"model": "model", "max_tokens": 16, "temperature": 0, "prompt": prompt});
        let request = http
            .post(format!("{url}/v1/completions"))
            .header("x-perennial-observe", "off");
        let answer = request.json(&body).send().await.expect("it answers");
        let answer: Value = answer.json().await.expect("JSON");
        let text = answer["choices"][0]["text"].as_str().expect("a text");
        right += usize::from(text.trim() == format!("{farbe}."));
    }
    right
}
