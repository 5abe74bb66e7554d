//! The program `drift`, run as people run it.
#![cfg(feature = "cli")]
#![expect(clippy::expect_used, reason = "a test that cannot prepare its input has failed")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A baseline of 1,500 requests, twenty to a pane.
const POLICY: &str = "
observation: {paneSeconds: 60, minSamples: 60, maxPaneSeconds: 3600}
baseline: {learned: {seconds: 3600, minSamples: 1500, season: None}}
confirmSeconds: 300
";
/// Every three seconds from Monday, 2026-11-02T00:00:00Z.
const START: u64 = 1_793_577_600;
const BEFORE: usize = 1_600;
const ALL: usize = 3_200;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

fn text(random: &mut Random, german: bool) -> String {
    let words: [&str; 24] = if german {
        [
            "wie",
            "kann",
            "ich",
            "meine",
            "Rechnung",
            "bezahlen",
            "und",
            "wann",
            "kommt",
            "das",
            "Paket",
            "mit",
            "der",
            "bestellten",
            "Ware",
            "nach",
            "Hause",
            "weil",
            "heute",
            "niemand",
            "da",
            "ist",
            "außer",
            "mir",
        ]
    } else {
        [
            "how", "can", "I", "pay", "the", "invoice", "and", "when", "does", "my", "parcel", "arrive", "with", "all",
            "goods", "that", "were", "ordered", "because", "nobody", "is", "at", "home", "today",
        ]
    };
    let count = 8 + random.below(24);
    let chosen: Vec<&str> = (0..count).map(|_| words[random.below(words.len())]).collect();
    chosen.join(" ")
}

/// Prompt, tokens of it, tokens of the answer.
fn requests(seed: u64, shifted: bool) -> Vec<(u64, String, usize, usize)> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..ALL)
        .map(|position| {
            let german = shifted && position >= BEFORE && random.below(2) == 0;
            let prompt = text(&mut random, german);
            let tokens = prompt.split(' ').count() + random.below(6);
            (START + 3 * position as u64, prompt, tokens, 20 + random.below(60))
        })
        .collect()
}

fn perennial(seed: u64, shifted: bool) -> String {
    let mut lines = String::new();
    for (position, (time, prompt, tokens, answer)) in requests(seed, shifted).into_iter().enumerate() {
        let line = serde_json::json!({
            "id": format!("r{position}"), "time": time, "requester": format!("u{}", position % 97), "prompt": prompt,
            "promptTokens": tokens, "output": "Certainly, here it is.", "outputTokens": answer, "finishReason": "stop",
        });
        let _ = writeln!(lines, "{line}");
    }
    lines
}

fn open_ai(seed: u64, flat: bool) -> String {
    let mut lines = String::new();
    for (position, (time, prompt, tokens, answer)) in requests(seed, true).into_iter().enumerate() {
        let messages = serde_json::json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": prompt}]}]);
        let choices = serde_json::json!([{"message": {"content": "Certainly."}, "finish_reason": "stop",
            "logprobs": {"content": [{"token": "C", "logprob": -0.5}, {"token": "y", "logprob": -0.1}]}}]);
        let usage = serde_json::json!({"prompt_tokens": tokens, "completion_tokens": answer});
        let line = if flat {
            serde_json::json!({"id": position, "timestamp": time, "messages": messages, "choices": choices, "usage": usage})
        } else {
            serde_json::json!({"id": position, "created": time, "request": {"model": "m", "messages": messages, "user": "u"},
                "response": {"choices": choices, "usage": usage}})
        };
        let _ = writeln!(lines, "{line}");
    }
    lines
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder for the test"));
        folder.write("policy.yaml", POLICY);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a file of the test");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file that the program wrote")
    }
}

fn drift(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drift"))
        .args(arguments)
        .current_dir(folder)
        .env("COLUMNS", "120")
        .output()
        .expect("the program runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(folder: &Folder, file: &str) -> Value {
    let output = drift(folder.0.path(), &["replay", file, "--policy", "policy.yaml", "--json"]);
    assert!(output.status.success(), "{}", complained(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_shift_is_found_and_said_why() {
    let folder = Folder::new();
    folder.write("in.jsonl", perennial(1, true));
    let report = json(&folder, "in.jsonl");
    assert_eq!(report["verdict"]["phase"], "Drifted");
    assert_eq!(report["verdict"]["cause"], "InputDrift");
    assert_eq!(report["input"]["requests"], ALL);
    let change = report["verdict"]["changeSince"].as_u64().expect("a time");
    let truth = START + 3 * BEFORE as u64;
    assert!(change.abs_diff(truth) <= 600, "{change} for {truth}");
    assert_eq!(report["signals"][0]["moved"], true);
    let timeline = report["timeline"].as_array().expect("a timeline");
    assert!(timeline.iter().any(|moment| moment["phase"] == "Watching"));
    let text = said(&drift(
        folder.0.path(),
        &["replay", "in.jsonl", "--policy", "policy.yaml"],
    ));
    for part in [
        "Drifted, confirmed 2026-11-02",
        "InputDrift",
        "Languages of prompts",
        "at most 5 % chance",
        "Retrain",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn nothing_is_found_where_nothing_changed() {
    let folder = Folder::new();
    for seed in 10..13 {
        folder.write("in.jsonl", perennial(seed, false));
        let report = json(&folder, "in.jsonl");
        assert_eq!(report["verdict"]["phase"], "Watching", "seed {seed}");
        assert_eq!(report["episodes"].as_array().map(Vec::len), Some(0), "seed {seed}");
    }
}

#[test]
fn every_form_of_input_is_taken() {
    let folder = Folder::new();
    folder.write("nested.jsonl", open_ai(2, false));
    folder.write("flat.jsonl", open_ai(2, true));
    let mut azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    let mut windows = "\u{feff}Extra,TIMESTAMP,ContextTokens,GeneratedTokens\r\n".to_owned();
    for (position, (time, _, tokens, answer)) in requests(3, false).into_iter().enumerate() {
        let seconds = time - START;
        let at = format!(
            "2026-11-02 {:02}:{:02}:{:02}.1234567",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        );
        let tokens = if position >= BEFORE { 3 * tokens } else { tokens };
        let _ = writeln!(azure, "{at},{tokens},{answer}");
        let _ = writeln!(windows, "\"a,b\",{at},{tokens},{answer}\r");
    }
    folder.write("azure.csv", azure);
    folder.write("windows.csv", windows);
    for (file, format) in [
        ("nested.jsonl", "openai"),
        ("flat.jsonl", "openai"),
        ("azure.csv", "azure"),
        ("windows.csv", "azure"),
    ] {
        let report = json(&folder, file);
        assert_eq!(report["input"]["formats"][0], format, "{file}");
        assert_eq!(report["input"]["requests"], ALL, "{file}");
        assert_eq!(report["input"]["badLines"], 0, "{file}");
        assert_eq!(report["verdict"]["phase"], "Drifted", "{file}");
    }
    let report = json(&folder, "nested.jsonl");
    assert!(
        report["baseline"]["armed"]
            .as_array()
            .expect("signals")
            .contains(&"OutputTokens".into())
    );
}

#[test]
fn bad_lines_are_named_when_too_little_is_left_of_the_input() {
    let folder = Folder::new();
    folder.write("in.jsonl", "{\"time\": 1793577600}\nnot json\n");
    let output = drift(folder.0.path(), &["replay", "in.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr);
    for part in ["in.jsonl:2:", "there never was enough for a baseline"] {
        assert!(words.contains(part), "{words}");
    }
}

#[test]
fn bad_lines_are_counted_and_named() {
    let folder = Folder::new();
    let mut lines: Vec<Vec<u8>> = perennial(4, false)
        .lines()
        .map(|line| line.as_bytes().to_vec())
        .collect();
    lines[2] = b"not json".to_vec();
    lines[6] = b"{\"prompt\": \"no time\", \"surprise\": 1}".to_vec();
    lines[8] = b"{\"time\": \"yesterday\"}".to_vec();
    lines[10] = b"\xff\xfe{}".to_vec();
    lines[12] = b"{\"time\": 1793577600, \"promptTokens\": \"secret words\"}".to_vec();
    lines[14] = b"   ".to_vec();
    lines[16] = b"{\"time\": 1793577600, \"surprise\": 1}".to_vec();
    let last = lines.len() - 1;
    lines[last].truncate(40);
    folder.write("in.jsonl", lines.join(&b'\n'));
    let report = json(&folder, "in.jsonl");
    assert_eq!(report["input"]["badLines"], 6);
    assert_eq!(report["input"]["blankLines"], 1);
    assert_eq!(report["input"]["ignoredFields"]["surprise"], 1);
    let numbers: Vec<u64> = report["input"]["bad"]
        .as_array()
        .expect("lines")
        .iter()
        .filter_map(|bad| bad["line"].as_u64())
        .collect();
    assert_eq!(numbers, [3, 7, 9, 11, 13, ALL as u64]);
    let text = said(&drift(
        folder.0.path(),
        &["replay", "in.jsonl", "--policy", "policy.yaml"],
    ));
    for part in [
        "in.jsonl:7: it has no time",
        "in.jsonl:11: it is no UTF-8",
        "it ends in the middle",
        "not used",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains("secret words"), "{text}");
}

#[test]
fn standard_input_gzip_and_any_order_give_the_same() {
    let folder = Folder::new();
    let lines = perennial(5, true);
    folder.write("in.jsonl", &lines);
    let mut turned: Vec<&str> = lines.lines().collect();
    turned.reverse();
    folder.write("turned.jsonl", turned.join("\n"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(lines.as_bytes()).expect("packed");
    folder.write("in.jsonl.gz", packed.finish().expect("packed"));
    let straight = json(&folder, "in.jsonl");
    assert_eq!(json(&folder, "in.jsonl.gz")["timeline"], straight["timeline"]);
    let other = json(&folder, "turned.jsonl");
    assert_eq!(other["timeline"], straight["timeline"]);
    assert_eq!(other["input"]["outOfOrder"], ALL - 1);
    let mut child = Command::new(env!("CARGO_BIN_EXE_drift"))
        .args(["replay", "-", "--policy", "policy.yaml", "--json"])
        .current_dir(folder.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut input = child.stdin.take().expect("its input");
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("all was read");
    let piped: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(piped["timeline"], straight["timeline"]);
}

#[test]
fn the_page_holds_all_it_needs_and_nothing_of_a_prompt() {
    let folder = Folder::new();
    folder.write("<b>&.jsonl", perennial(6, true));
    let output = drift(
        folder.0.path(),
        &["report", "<b>&.jsonl", "--policy", "policy.yaml", "--html", "out.html"],
    );
    assert!(output.status.success(), "{}", complained(&output));
    let page = folder.read("out.html");
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for part in [
        "<svg",
        "<title>Evidence over time</title>",
        "prefers-color-scheme:dark",
        "width=device-width",
        "Input drift since",
        "&lt;b&gt;&amp;.jsonl",
        "sha256:",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    for part in [
        "http:", "https:", "<script", "<link", "@import", "src=", "<b>&", "Rechnung", "invoice", "NaN", "inf\"",
    ] {
        assert!(!page.contains(part), "{part} is there");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

#[test]
fn a_run_can_go_on_from_what_an_earlier_one_kept() {
    let folder = Folder::new();
    let lines = perennial(7, true);
    let lines: Vec<&str> = lines.lines().collect();
    // A whole number of panes: 20 requests each.
    folder.write("first.jsonl", lines[..2_000].join("\n"));
    folder.write("second.jsonl", lines[2_000..].join("\n"));
    folder.write("both.jsonl", lines.join("\n"));
    let kept = ["--policy", "policy.yaml", "--json"];
    let run = |arguments: &[&str]| {
        let output = drift(folder.0.path(), &[arguments, &kept].concat());
        assert!(output.status.success(), "{}", complained(&output));
        serde_json::from_slice::<Value>(&output.stdout).expect("one JSON object")
    };
    run(&["replay", "first.jsonl", "--baseline-out", "b", "--state-out", "s"]);
    let second = run(&[
        "replay",
        "second.jsonl",
        "--baseline",
        "b",
        "--state",
        "s",
        "--state-out",
        "s2",
    ]);
    let both = run(&["replay", "both.jsonl", "--state-out", "s3"]);
    assert_eq!(second["verdict"], both["verdict"]);
    let again = run(&["replay", "both.jsonl", "--baseline", "b"]);
    assert_eq!(again["verdict"], both["verdict"]);
    assert_eq!(again["input"]["panesBefore"], both["baseline"]["panes"]);
    assert_eq!(
        std::fs::read(folder.path("s2")).expect("a state"),
        std::fs::read(folder.path("s3")).expect("a state")
    );
    folder.write("b", "damaged");
    let output = drift(
        folder.0.path(),
        &["replay", "second.jsonl", "--baseline", "b", "--policy", "policy.yaml"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        complained(&output).contains("the baseline b cannot be used"),
        "{}",
        complained(&output)
    );
}

#[test]
fn without_times_panes_are_made_by_count() {
    let folder = Folder::new();
    let mut lines = String::new();
    for line in perennial(8, true).lines() {
        let mut value: Value = serde_json::from_str(line).expect("a line");
        value.as_object_mut().expect("an object").remove("time");
        let _ = writeln!(lines, "{value}");
    }
    folder.write("in.jsonl", lines);
    let output = drift(folder.0.path(), &["replay", "in.jsonl", "--policy", "policy.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(complained(&output).contains("--panes-of N"), "{}", complained(&output));
    let output = drift(
        folder.0.path(),
        &["replay", "in.jsonl", "--policy", "policy.yaml", "--panes-of", "60"],
    );
    let text = said(&output);
    assert!(text.contains("Drifted, confirmed request"), "{text}");
    assert!(!text.contains("1970"), "{text}");
}

#[test]
fn exit_statuses_tell_what_happened() {
    let folder = Folder::new();
    folder.write("drift.jsonl", perennial(9, true));
    folder.write("still.jsonl", perennial(10, false));
    folder.write("empty.jsonl", "");
    folder.write("bad.jsonl", "{\n}\nnothing\n");
    folder.write(
        "few.jsonl",
        perennial(11, false).lines().take(100).collect::<Vec<_>>().join("\n"),
    );
    folder.write("wrong.yaml", "observation: {paneSecond: 60}");
    let policy = ["--policy", "policy.yaml"];
    for (arguments, code, message) in [
        (vec!["replay", "drift.jsonl"], 0, ""),
        (vec!["replay", "drift.jsonl", "--fail-on-drift"], 3, ""),
        (vec!["replay", "still.jsonl", "--fail-on-drift"], 0, ""),
        (vec!["replay", "empty.jsonl"], 2, "empty.jsonl is empty"),
        (vec!["replay", "bad.jsonl"], 2, "none of 3 lines can be used"),
        (
            vec!["replay", "few.jsonl"],
            2,
            "there never was enough for a baseline: 100 requests",
        ),
        (vec!["replay", "missing.jsonl"], 2, "cannot open missing.jsonl"),
        (vec!["replay"], 2, "FILE"),
    ] {
        let output = drift(folder.0.path(), &[&arguments[..], &policy].concat());
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            complained(&output)
        );
        assert!(
            complained(&output).contains(message),
            "{arguments:?}: {}",
            complained(&output)
        );
    }
    let output = drift(folder.0.path(), &["replay", "drift.jsonl", "--policy", "wrong.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        complained(&output).contains("did you mean paneSeconds?"),
        "{}",
        complained(&output)
    );
}

#[test]
fn two_files_are_compared_by_known_figures() {
    let folder = Folder::new();
    folder.write("a.jsonl", perennial(12, false));
    folder.write("b.jsonl", perennial(13, true));
    let output = drift(
        folder.0.path(),
        &["compare", "a.jsonl", "b.jsonl", "--policy", "policy.yaml", "--json"],
    );
    assert!(output.status.success(), "{}", complained(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let signal = |name: &str| {
        let signals = report["signals"].as_array().expect("signals");
        signals
            .iter()
            .find(|signal| signal["signal"] == name)
            .expect("the signal")
            .clone()
    };
    assert!(signal("Language")["psi"].as_f64().expect("a number") > 0.1);
    assert_eq!(signal("Language")["matters"], true);
    assert!(signal("OutputTokens")["psi"].as_f64().expect("a number") < 0.05);
    assert!(signal("OutputTokens")["kolmogorovSmirnovP"].as_f64().expect("a number") > 0.001);
    let text = said(&drift(
        folder.0.path(),
        &["compare", "a.jsonl", "b.jsonl", "--policy", "policy.yaml"],
    ));
    assert!(
        text.contains("Differs by more than the policy says matters: "),
        "{text}"
    );
}

#[test]
fn the_printed_policy_is_well_formed_and_help_is_complete() {
    let folder = Folder::new();
    let printed = drift(folder.0.path(), &["policy"]);
    folder.write("default.yaml", &printed.stdout);
    let output = drift(folder.0.path(), &["policy", "default.yaml"]);
    assert!(
        said(&output).contains("16 signals, at most 5 % chance of any false alarm in 90 days"),
        "{}",
        said(&output)
    );
    folder.write(
        "operator.yaml",
        "kind: DriftPolicy\nspec: {targetRef: {name: a}, gate: {}}",
    );
    assert!(
        said(&drift(folder.0.path(), &["policy", "operator.yaml"]))
            .contains("Only the operator acts on these: targetRef, gate")
    );
    let help = said(&drift(folder.0.path(), &["replay", "--help"]));
    for part in [
        "TIMESTAMP",
        "promptTokens",
        "Examples:",
        "--panes-of",
        "--fail-on-drift",
        "docs/reference/drift.md",
    ] {
        assert!(help.contains(part), "{part} is missing in\n{help}");
    }
}
