//! From segments of the collector to frozen data, and again.
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails is a failed test")]

mod ended;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use perennial_crds::capture::{BATCH_VERSION, Batch, ExchangeRecord, FeedbackRecord, Finish, Message, Record};
use perennial_crds::retrain::{
    Include, Manifest, Outcome, PrepareResult, PrepareSettings, RETRAIN_CONTRACT, SuiteItem, TrainingRow,
};
use perennial_trainer::collect::segment::State;
use perennial_trainer::collect::store::{Limits, Store};
use perennial_trainer::collect::{Keep, Metrics, list};
use perennial_trainer::contract::{Sha256Sum, suites_digest};
use perennial_trainer::prepare::{self, PrepareError};
use tempfile::TempDir;

/// Long enough that nothing is finished unless it is asked for.
const LIMITS: Limits = Limits {
    segment_seconds: 1_000_000,
    segment_bytes: 1 << 30,
    keep: Keep {
        seconds: 1_000_000,
        bytes: 1 << 30,
    },
    spool: None,
};
const NOW: i64 = 1_796_000_000;

fn settings() -> PrepareSettings {
    PrepareSettings {
        cycle_id: "c1".to_owned(),
        from: NOW - 1000,
        to: NOW + 1000,
        drifted_since: NOW,
        max_records: 100,
        max_percent_per_requester: 100,
        include: vec![Include::CorrectedOutputs],
        hold_out: 5,
        recent_suites: vec!["recent".to_owned(), "recent-floor".to_owned()],
        own_suites: vec!["golden".to_owned()],
        excluded_sets: Vec::new(),
        min_records: 10,
        min_items: 0,
        seed: 3,
        ended: Vec::new(),
    }
}

fn exchange(number: i64) -> Record {
    Record::Exchange(ExchangeRecord {
        request_id: format!("req-{number}"),
        time: NOW + number,
        revision: Some("r1".to_owned()),
        requester: Some(format!("user {number}")),
        messages: vec![Message {
            role: "user".to_owned(),
            content: format!("secret question {number}"),
        }],
        prompt: None,
        answer: "own answer".to_owned(),
        finish: Finish::Stop,
        prompt_tokens: 1,
        output_tokens: 1,
        sampling_weight: 1.0,
        redactions: BTreeMap::new(),
        truncated: false,
    })
}

fn feedback(number: i64) -> Record {
    Record::Feedback(FeedbackRecord {
        request_id: format!("req-{number}"),
        time: NOW + number + 1,
        score: None,
        corrected_output: Some(format!("secret correction {number}")),
    })
}

struct Site {
    directory: TempDir,
    store: Store,
    next: u64,
}

impl Site {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let golden = directory.path().join("golden/golden");
        fs::create_dir_all(&golden).expect("a directory");
        let items = "{\"prompt\":\"secret question 7\",\"exact\":\"secret\"}\n";
        fs::write(golden.join("items"), items).expect("written");
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let capture = directory.path().join("capture");
        let store = Store::open(&capture, LIMITS, Box::new(|_| Ok(u64::MAX)), metrics).expect("a store");
        Self {
            directory,
            store,
            next: 0,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn collect(&mut self, records: Vec<Record>) {
        let first = self.next;
        self.next += records.len() as u64;
        let batch = Batch {
            version: BATCH_VERSION,
            boot_id: "a".to_owned(),
            first,
            dropped: 0,
            records,
        };
        self.store.take(batch, NOW).expect("taken");
    }

    /// Corrected exchanges of these numbers, feedback in segments of its own.
    fn filled(numbers: std::ops::Range<i64>) -> Self {
        let mut site = Self::new();
        site.collect(numbers.clone().map(exchange).collect());
        site.store.close().expect("closed");
        site.collect(numbers.map(feedback).collect());
        site
    }

    fn arguments(&self, settings: &PrepareSettings) -> prepare::Arguments {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            arguments: prepare::Arguments,
        }
        let line = [
            "prepare".to_owned(),
            format!("--settings={}", serde_json::to_string(settings).expect("JSON")),
            "--report={\"cause\":\"InputDrift\"}".to_owned(),
            format!("--capture={}", self.path("capture").display()),
            format!("--golden={}", self.path("golden").display()),
            format!("--output={}", self.path("output").display()),
            format!("--termination={}", self.path("words").display()),
        ];
        Cli::parse_from(line).arguments
    }

    fn prepare(&self, settings: &PrepareSettings) -> Result<PrepareResult, PrepareError> {
        prepare::execute(&self.arguments(settings))
    }

    fn rejected(&self, settings: &PrepareSettings) -> String {
        let result = self.prepare(settings).expect("a decision");
        assert_eq!(
            (result.outcome, &result.manifest_digest),
            (Outcome::DataRejected, &None)
        );
        assert!(!result.message.contains("secret"), "{}", result.message);
        assert!(!self.path("output/data").exists());
        result.message
    }

    fn segments(&self) -> Vec<(PathBuf, State)> {
        let capture = self.path("capture");
        let mut segments = list(&capture).expect("a listing");
        segments.sort_unstable_by_key(|(name, _)| *name);
        let path = |(name, state): (_, State)| -> (PathBuf, State) {
            let name: perennial_trainer::collect::segment::Name = name;
            (capture.join(name.day()).join(name.file(state)), state)
        };
        segments.into_iter().map(path).collect()
    }
}

#[test]
fn a_bucket_that_cannot_be_reached_asks_for_another_try() {
    let site = Site::new();
    let mut arguments = site.arguments(&settings());
    arguments.s3.bucket = Some("archive".to_owned());
    // Without credentials another try goes no better.
    assert_eq!(prepare::run(&arguments), ExitCode::FAILURE);
    let words = fs::read_to_string(site.path("words")).expect("words");
    assert!(words.contains("AWS_ACCESS_KEY_ID"), "{words}");
    arguments.s3.credentials.access_key_id = "AKIA-ID".parse().ok();
    arguments.s3.credentials.secret_access_key = "hush".parse().ok();
    // Nobody listens there.
    arguments.s3.endpoint = Some("http://127.0.0.1:1".to_owned());
    arguments.s3.scratch = site.path("scratch");
    assert_eq!(prepare::run(&arguments), ExitCode::from(75));
    let words = fs::read_to_string(site.path("words")).expect("words");
    assert!(words.contains("\"Retryable\"") && words.contains("archive"), "{words}");
    assert!(!words.contains("AKIA-ID") && !words.contains("hush"), "{words}");
    assert!(!site.path("output/data").exists());
}

fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).expect("a file");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Every file of a directory and its bytes.
fn everything(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn what_is_frozen_is_what_the_words_say() {
    let site = Site::filled(0..40);
    let states: Vec<State> = site.segments().into_iter().map(|(_, state)| state).collect();
    assert_eq!(
        states,
        [State::Closed, State::Open],
        "the newest segment is still being written"
    );
    let result = site.prepare(&settings()).expect("prepared");
    assert_eq!(result.outcome, Outcome::Succeeded, "{}", result.message);
    let output = site.path("output");
    let manifest = fs::read(output.join("data/manifest.json")).expect("a manifest");
    assert_eq!(
        result.manifest_digest,
        Some(format!("sha256:{}", Sha256Sum::of(&manifest)))
    );
    let manifest: Manifest = serde_json::from_slice(&manifest).expect("a manifest");
    assert_eq!(
        (manifest.schema.as_str(), manifest.cycle_id.as_str()),
        (RETRAIN_CONTRACT, "c1")
    );
    let mut rows = 0;
    for file in &manifest.files {
        let bytes = fs::read(output.join("data").join(&file.path)).expect("a file");
        assert_eq!(
            (Sha256Sum::of(&bytes), bytes.len() as u64),
            (file.sha256.clone(), file.bytes)
        );
        let read: Vec<TrainingRow> = lines(&output.join("data").join(&file.path));
        assert_eq!(read.len() as u64, file.rows);
        rows += file.rows;
    }
    // One prompt is in a suite of the user, five are held out.
    assert_eq!((rows, result.records), (34, 34));
    let items = [("golden", 1), ("recent", 5), ("recent-floor", 5)];
    assert_eq!(result.items, items.map(|(name, count)| (name.to_owned(), count)).into());
    let held: Vec<SuiteItem> = lines(&output.join("suites/recent.jsonl"));
    assert!(held.iter().all(|item| {
        item.answer
            .as_deref()
            .is_some_and(|answer| answer.starts_with("secret correction"))
    }));
    assert_eq!(
        result.suites_digest,
        Some(suites_digest(&output.join("suites")).expect("a digest"))
    );
    assert_eq!(
        fs::read_to_string(output.join("drift/report.json")).expect("a report"),
        r#"{"cause":"InputDrift"}"#
    );
    assert!(output.join("output").is_dir() && output.join("gate").is_dir());
}

#[test]
fn the_last_words_hold_no_text() {
    let site = Site::filled(0..40);
    assert_eq!(prepare::run(&site.arguments(&settings())), ExitCode::SUCCESS);
    let words = fs::read_to_string(site.path("words")).expect("words");
    assert!(
        words.contains(r#""outcome":"Succeeded""#) && !words.contains("secret"),
        "{words}"
    );
}

#[test]
fn the_same_records_give_the_same_bytes_on_any_machine() {
    let (one, other) = (Site::filled(0..40), Site::filled(0..40));
    let results = [&one, &other].map(|site| site.prepare(&settings()).expect("prepared"));
    assert_eq!(results[0], results[1]);
    let bytes = [&one, &other].map(|site| everything(&site.path("output")).into_values().collect::<Vec<_>>());
    assert_eq!(bytes[0], bytes[1]);
    let another = PrepareSettings { seed: 4, ..settings() };
    let third = Site::filled(0..40).prepare(&another).expect("prepared");
    assert_ne!(third.manifest_digest, results[0].manifest_digest);
}

#[test]
fn what_is_frozen_stays_whatever_comes_later() {
    let mut site = Site::filled(0..40);
    let first = site.prepare(&settings()).expect("prepared");
    let before = everything(&site.path("output"));
    site.collect(
        (50..80)
            .flat_map(|number| [exchange(number), feedback(number)])
            .collect(),
    );
    let again = site.prepare(&settings()).expect("prepared");
    assert_eq!(
        PrepareResult {
            message: String::new(),
            ..again
        },
        PrepareResult {
            message: String::new(),
            ..first
        }
    );
    assert_eq!(everything(&site.path("output")), before);
    // Killed before it came to its end.
    fs::remove_file(site.path("output/data/manifest.json")).expect("removed");
    fs::write(site.path("output/suites/old.jsonl"), "{}\n").expect("written");
    let later = site.prepare(&settings()).expect("prepared");
    assert_eq!(later.records, 64);
    assert!(!site.path("output/suites/old.jsonl").exists());
}

#[test]
fn data_that_was_changed_or_is_of_another_cycle_is_no_result() {
    let site = Site::filled(0..40);
    site.prepare(&settings()).expect("prepared");
    let other = PrepareSettings {
        cycle_id: "c2".to_owned(),
        ..settings()
    };
    let error = site.prepare(&other).expect_err("another cycle");
    assert!(
        matches!(&error, PrepareError::Changed(why) if why.contains("cycle c1")),
        "{error}"
    );
    fs::write(site.path("output/data/train.jsonl"), "").expect("written");
    let error = site.prepare(&settings()).expect_err("changed");
    assert!(
        matches!(&error, PrepareError::Changed(why) if why.contains("train.jsonl was changed")),
        "{error}"
    );
    assert_eq!(prepare::run(&site.arguments(&settings())), ExitCode::FAILURE);
}

#[test]
fn a_segment_that_was_changed_is_left_out_and_told() {
    let mut site = Site::filled(0..40);
    site.collect(
        (50..60)
            .flat_map(|number| [exchange(number), feedback(number)])
            .collect(),
    );
    site.store.close().expect("closed");
    let path = &site.segments()[1].0;
    let text = fs::read_to_string(path).expect("a segment");
    fs::write(path, text.replace("secret correction 50", "forged correction 50")).expect("written");
    // Without the segment nothing is left of the others' feedback either.
    let why = site.rejected(&settings());
    assert!(
        why.contains("1 segments are left out because they were changed"),
        "{why}"
    );
    fs::write(path, text).expect("written");
    assert_eq!(site.prepare(&settings()).expect("prepared").records, 44);
}

#[test]
fn a_torn_line_at_the_end_of_the_open_segment_is_left_alone() {
    let site = Site::filled(0..40);
    let (path, state) = &site.segments()[1];
    assert_eq!(*state, State::Open);
    let bytes = fs::read(path).expect("a segment");
    let torn = [&bytes[..], b"{\"kind\":\"Batch\",\"bootId\":\"a\",\"fir"].concat();
    fs::write(path, &torn).expect("written");
    assert_eq!(site.prepare(&settings()).expect("prepared").records, 34);
    assert_eq!(fs::read(path).expect("a segment"), torn, "nothing of it is written to");
}

#[test]
fn too_little_is_a_decision_with_words() {
    let empty = Site::new();
    fs::remove_dir_all(empty.path("capture")).expect("removed");
    assert!(empty.rejected(&settings()).contains("nothing can be held out"));
    let few = Site::filled(0..12);
    let why = few.rejected(&settings());
    assert!(
        why.starts_with("6 records may be trained on and 10 are needed"),
        "{why}"
    );
    assert!(
        why.contains("5 held out") && why.contains("1 in suites of yours"),
        "{why}"
    );
    assert_eq!(prepare::run(&few.arguments(&settings())), ExitCode::SUCCESS);
}

#[test]
fn feedback_from_behind_the_window_is_for_the_next_cycle() {
    let site = Site::filled(0..40);
    let earlier = PrepareSettings {
        to: NOW + 30,
        ..settings()
    };
    // Exchange 29 is in the window, the feedback about it came at its end.
    assert_eq!(site.prepare(&earlier).expect("prepared").records, 29 - 6);
}

#[test]
fn a_suite_that_is_none_is_told_before_anything_is_written() {
    let site = Site::filled(0..40);
    fs::write(site.path("golden/golden/more"), "{\"prompt\":\"secret\"}\n").expect("written");
    let why = site.rejected(&settings());
    assert!(why.starts_with("line 1 of more of the suite golden"), "{why}");
}

#[test]
fn prompts_of_probes_are_left_out_and_make_no_suite() {
    let site = Site::filled(0..40);
    let folder = site.path("golden/_probes");
    fs::create_dir(&folder).expect("a directory");
    let prompts = "{\"prompt\":\"Secret  question 8\"}\n{\"prompt\":\"secret question 9\"}\n";
    fs::write(folder.join("prompts"), prompts).expect("written");
    let told = PrepareSettings {
        excluded_sets: vec!["_probes".to_owned()],
        ..settings()
    };
    let result = site.prepare(&told).expect("prepared");
    assert_eq!(result.records, 32);
    let names: Vec<&str> = result.items.keys().map(String::as_str).collect();
    assert_eq!(names, ["golden", "recent", "recent-floor"]);
    assert!(!site.path("output/suites/_probes.jsonl").exists());
    let manifest = fs::read(site.path("output/data/manifest.json")).expect("a manifest");
    let manifest: Manifest = serde_json::from_slice(&manifest).expect("a manifest");
    assert_eq!(manifest.excluded.own_suites, 3);
    // As it is frozen, so it is found again.
    assert_eq!(
        site.prepare(&told).expect("prepared").suites_digest,
        result.suites_digest
    );
    let other = Site::filled(0..40);
    assert_eq!(other.rejected(&told), "the set of prompts _probes is not there");
}

#[test]
fn settings_that_make_no_sense_are_told() {
    let site = Site::filled(0..40);
    for wrong in [
        PrepareSettings {
            own_suites: vec!["../x".to_owned()],
            ..settings()
        },
        PrepareSettings {
            excluded_sets: vec!["../x".to_owned()],
            ..settings()
        },
        PrepareSettings {
            own_suites: vec!["recent".to_owned()],
            ..settings()
        },
        PrepareSettings {
            include: Vec::new(),
            ..settings()
        },
        PrepareSettings {
            to: NOW - 1000,
            ..settings()
        },
        PrepareSettings {
            cycle_id: String::new(),
            ..settings()
        },
    ] {
        let error = site.prepare(&wrong).expect_err("wrong");
        assert!(matches!(error, PrepareError::Arguments(_)), "{error}");
    }
    let mut arguments = site.arguments(&settings());
    arguments.settings = "{}".to_owned();
    assert!(
        prepare::execute(&arguments)
            .expect_err("wrong")
            .to_string()
            .contains("PREPARE_SETTINGS")
    );
}

#[test]
fn what_cannot_be_read_is_tried_again() {
    let site = Site::filled(0..40);
    let path = &site.segments()[0].0;
    fs::remove_file(path).expect("removed");
    fs::create_dir(path).expect("a directory");
    assert_eq!(prepare::run(&site.arguments(&settings())), ExitCode::from(75));
    let words = fs::read_to_string(site.path("words")).expect("words");
    assert!(words.contains("\"Retryable\""), "{words}");
}
