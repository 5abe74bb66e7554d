use super::made::{DIMENSION, Made, WORDS, good_weights, rows, single, tokenizer, weights};
use super::*;
use crate::metrics::Outcome;
use crate::observation::{End, Extraction, Panes, Question, Record, Recording};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use perennial_crds::serving::PanesPage;
use perennial_drift::pane::Pane;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

fn load(made: &Made) -> Result<StaticEncoder, EncoderError> {
    StaticEncoder::load(made.path(), None)
}

fn encoder() -> StaticEncoder {
    load(&Made::new()).expect("an encoder")
}

fn refusal(weights: &[u8], tokenizer: &Value) -> String {
    load(&Made::of(weights, tokenizer)).expect_err("no encoder").to_string()
}

/// One tensor of the right shape.
fn only(name: &str, dtype: Dtype, bytes: Vec<u8>) -> Vec<u8> {
    weights(&[(name, dtype, vec![WORDS.len(), DIMENSION], bytes)])
}

fn row(word: usize) -> Vec<f32> {
    let rows = rows();
    let row = &rows[word * DIMENSION..][..DIMENSION];
    let length = row.iter().map(|number| number * number).sum::<f32>().sqrt();
    row.iter().map(|number| number / length).collect()
}

fn near(one: Option<Vec<f32>>, other: &[f32]) -> bool {
    one.is_some_and(|one| one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-6))
}

#[test]
fn a_prompt_is_the_mean_of_the_words_that_are_known() {
    let encoder = encoder();
    assert_eq!((encoder.rows(), encoder.dimension()), (WORDS.len(), DIMENSION));
    assert!(near(encoder.embed("Bread"), &row(6)));
    assert!(
        near(encoder.embed("what bread? xyzzy!"), &row(6)),
        "unknown words are passed over"
    );
    assert_eq!(encoder.embed("sky blue"), encoder.embed("blue  SKY"));
    assert_ne!(encoder.embed("sky blue"), encoder.embed("sky"));
    for nothing in ["", " \n", "xyzzy", "天为什么是蓝的？"] {
        assert_eq!(encoder.embed(nothing), None, "{nothing:?}");
    }
}

#[test]
fn only_the_beginning_of_a_prompt_is_read() {
    let encoder = encoder();
    let of_tokens = format!("{}{}", "is ".repeat(TOKENS), "bread ".repeat(10));
    assert!(of_tokens.len() < READ);
    assert_eq!(encoder.embed(&of_tokens), encoder.embed("is"));
    assert_ne!(encoder.embed(&of_tokens[3..]), encoder.embed("is"));
    let of_bytes = format!("sky {}bread", "中".repeat(READ));
    assert_eq!(encoder.embed(&of_bytes), encoder.embed("sky"));
    let unknown = format!("{}bread", "x ".repeat(1000));
    assert_eq!(
        encoder.embed(&unknown),
        encoder.embed("bread"),
        "unknown words are not among the 512"
    );
}

#[test]
fn vectors_are_read_in_every_precision_and_by_both_names() {
    let rows = rows();
    // All numbers of this encoder are exact in every precision.
    let half: Vec<u8> = rows
        .iter()
        .flat_map(|x| half::f16::from_f32(*x).to_le_bytes())
        .collect();
    let brain: Vec<u8> = rows
        .iter()
        .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
        .collect();
    let double: Vec<u8> = rows.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    let expected = encoder().embed("why is the sky blue");
    assert!(expected.is_some());
    for (name, dtype, bytes) in [
        ("embedding.weight", Dtype::F32, single(&rows)),
        ("embeddings", Dtype::F16, half),
        ("embeddings", Dtype::BF16, brain),
        ("embeddings", Dtype::F64, double),
    ] {
        let encoder = load(&Made::of(&only(name, dtype, bytes), &tokenizer())).expect("an encoder");
        assert_eq!(encoder.embed("why is the sky blue"), expected, "{name} {dtype:?}");
    }
}

#[test]
fn weights_of_tokens_are_used_where_there_are_some() {
    let embeddings = ("embeddings", Dtype::F32, vec![WORDS.len(), DIMENSION], single(&rows()));
    let mut of_tokens = [1.0_f64; WORDS.len()];
    of_tokens[3] = 0.0;
    let bytes: Vec<u8> = of_tokens.iter().flat_map(|x| x.to_le_bytes()).collect();
    let weighted = weights(&[embeddings.clone(), ("weights", Dtype::F64, vec![WORDS.len()], bytes)]);
    let weighted = load(&Made::of(&weighted, &tokenizer())).expect("an encoder");
    assert_eq!(weighted.embed("the sky"), weighted.embed("sky"));
    assert_eq!(weighted.embed("the"), None);
    for (shape, part) in [
        (vec![3], "3 weights for 8 rows"),
        (vec![1, 3], "a number for each token"),
    ] {
        let weights = weights(&[embeddings.clone(), ("weights", Dtype::F32, shape, single(&[1.0; 3]))]);
        let refused = refusal(&weights, &tokenizer());
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn what_is_no_encoder_is_refused_and_said() {
    let of_shape =
        |shape: Vec<usize>, numbers: usize| weights(&[("embeddings", Dtype::F32, shape, single(&vec![1.0; numbers]))]);
    let mut nan = rows();
    nan[9] = f32::NAN;
    let mapped = weights(&[
        ("embeddings", Dtype::F32, vec![WORDS.len(), DIMENSION], single(&rows())),
        ("mapping", Dtype::I64, vec![1], vec![0; 8]),
    ]);
    let bytes = WORDS.len() * DIMENSION;
    for (weights, part) in [
        (Vec::new(), "no safetensors file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1".to_vec(),
            "no safetensors file",
        ),
        (
            only("wte.weight", Dtype::F32, single(&rows())),
            "no tensor embeddings or embedding.weight, but wte.weight",
        ),
        (of_shape(vec![32], 32), "shape [32]"),
        (of_shape(vec![2, 4, 4], 32), "shape [2, 4, 4]"),
        (of_shape(vec![8, 0], 0), "which is empty"),
        (of_shape(vec![0, 4], 0), "which is empty"),
        (only("embeddings", Dtype::I8, vec![0; bytes]), "of the type I8"),
        (
            only("embeddings", Dtype::F32, single(&nan)),
            "row 2 has a number that is not finite",
        ),
        (mapped, "quantised vocabulary"),
        (
            of_shape(vec![7, 4], 28),
            "tokens up to 7, but model.safetensors only 7 rows",
        ),
    ] {
        let refused = refusal(&weights, &tokenizer());
        assert!(refused.contains(part), "{refused}");
    }
    let good = good_weights();
    for cut in [0, 7, 8, 60, good.len() / 2, good.len() - 1] {
        let refused = refusal(&good[..cut], &tokenizer());
        assert!(refused.contains("only a part of one"), "cut at {cut}: {refused}");
    }
}

#[test]
fn what_is_no_tokenizer_is_refused_and_said() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut tokenizer = tokenizer();
        change(&mut tokenizer);
        refusal(&good_weights(), &tokenizer)
    };
    for (refused, part) in [
        (refusal(&good_weights(), &json!({})), "describes no tokenizer"),
        (
            changed(&|t| t["model"]["type"] = json!("Abacus")),
            "describes no tokenizer",
        ),
        (changed(&|t| t["model"]["vocab"] = json!({})), "no tokens"),
        (changed(&|t| t["model"]["vocab"]["late"] = json!(8)), "tokens up to 8"),
        (
            changed(&|t| t["model"]["unk_token"] = json!("[?]")),
            "give its model an unk_token",
        ),
        (
            changed(&|t| t["model"] = json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1})),
            "dropout",
        ),
    ] {
        assert!(refused.contains(part), "{refused}");
        assert!(refused.contains("tokenizer.json"), "{refused}");
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let made = Made::new();
    let absent = made.file("absent");
    let refused = StaticEncoder::load(&absent, None)
        .expect_err("no directory")
        .to_string();
    assert!(
        refused.contains("there is no directory") && refused.contains("absent"),
        "{refused}"
    );
    let file = StaticEncoder::load(&made.file(WEIGHTS_FILE), None).expect_err("no directory");
    assert!(matches!(file, EncoderError::Directory { .. }), "{file}");
    for name in [WEIGHTS_FILE, TOKENIZER_FILE] {
        let made = Made::new();
        std::fs::remove_file(made.file(name)).expect("removed");
        let refused = load(&made).expect_err("no file").to_string();
        assert!(
            refused.contains(name) && refused.contains("cannot be read"),
            "{refused}"
        );
        std::fs::create_dir(made.file(name)).expect("made");
        let refused = load(&made).expect_err("no file").to_string();
        assert!(refused.contains("it is no file"), "{refused}");
    }
}

#[test]
fn only_pinned_files_are_taken_and_the_digest_is_that_of_a_listing() {
    let made = Made::new();
    let encoder = load(&made).expect("an encoder");
    let listing: String = [WEIGHTS_FILE, TOKENIZER_FILE]
        .iter()
        .map(|name| {
            let bytes = std::fs::read(made.file(name)).expect("read");
            format!("{}  {name}\n", Digest::of(&bytes).hex())
        })
        .collect();
    assert_eq!(encoder.digest(), Digest::of(listing.as_bytes()));
    assert!(StaticEncoder::load(made.path(), Some(encoder.digest())).is_ok());
    let other = load(&Made::other()).expect("an encoder");
    let refused = StaticEncoder::load(made.path(), Some(other.digest())).expect_err("another");
    let text = refused.to_string();
    assert!(
        text.contains(&encoder.digest().hex()) && text.contains(&other.digest().hex()),
        "{text}"
    );
    // A pin is compared before anything is looked into.
    std::fs::write(made.file(WEIGHTS_FILE), "x").expect("written");
    let refused = StaticEncoder::load(made.path(), Some(encoder.digest())).expect_err("another");
    assert!(matches!(refused, EncoderError::Pinned { .. }), "{refused}");
}

/// A Monday, midnight.
const MONDAY: i64 = 1_764_547_200;

fn record(number: usize) -> Record {
    let prompts = ["Why is the sky blue?", "bread and flour", "xyzzy"];
    let question = Question::new(
        number.to_string(),
        None,
        Some(prompts[number % prompts.len()]),
        Some(20),
    );
    Recording::new(question, &[1, 2, 3]).end(End {
        outcome: Outcome::Stop,
        output_tokens: number,
        first_token: None,
        between_tokens: None,
        logprob: None,
        entropy: None,
    })
}

/// A server's only pane of these requests.
fn counted(extraction: &Extraction, requests: impl Iterator<Item = usize>) -> (PanesPage, Pane) {
    let mut panes = Panes::new(extraction.layout(), 1);
    for number in requests {
        panes.record(MONDAY + number as i64, &extraction.features(&record(number)));
    }
    let page = panes.page(None, MONDAY + 300);
    let bytes = STANDARD.decode(&page.panes[0].bytes).expect("base64");
    let pane = Pane::decode(&extraction.layout(), &bytes).expect("a pane");
    (page, pane)
}

#[test]
fn replicas_with_the_same_encoder_add_up_to_one_server_and_others_do_not_add() {
    let extraction = |made: &Made| Extraction::new(Some(load(made).expect("an encoder"))).expect("lists");
    // Two directories of the same files.
    let (one, two) = (extraction(&Made::new()), extraction(&Made::new()));
    let (_, whole) = counted(&one, 0..60);
    assert_eq!(
        (whole.requests(), whole.embedded()),
        (60, 40),
        "prompts of unknown words are missing"
    );
    let (_, mut sum) = counted(&one, (0..60).filter(|number| number % 7 < 3));
    let (_, rest) = counted(&two, (0..60).filter(|number| number % 7 >= 3));
    sum.merge(&rest).expect("they add");
    assert_eq!(sum.encode().expect("bytes"), whole.encode().expect("bytes"));
    let n_grams = Extraction::new(None).expect("lists");
    for other in [extraction(&Made::other()), n_grams] {
        let (page, pane) = counted(&other, 0..60);
        assert_ne!(page.layout, format!("{:016x}", one.layout().fingerprint()));
        assert!(sum.merge(&pane).is_err());
    }
    assert_eq!(one.encoder_bytes(), two.encoder_bytes());
    assert!(one.encoder_bytes() >= (WORDS.len() * DIMENSION * 4) as u64);
}
