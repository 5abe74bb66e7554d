//! Precision and recall of the lists of refusals on `data/refusals/evaluation.jsonl`, and what they get wrong.
//!
//! ```sh
//! cargo run -p perennial-drift --example refusals
//! ```

#![expect(clippy::expect_used, reason = "a measurement, not a program")]

use perennial_drift::features::refusal::Refusals;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Labelled {
    split: String,
    language: String,
    refusal: bool,
    text: String,
}

fn main() {
    let refusals = Refusals::new().expect("the lists are well formed");
    // Caught, missed, false alarms, rightly left alone.
    let mut table: BTreeMap<String, [u32; 4]> = BTreeMap::new();
    for line in include_str!("../data/refusals/evaluation.jsonl").lines() {
        let labelled: Labelled = serde_json::from_str(line).expect("a labelled text a line");
        let found = refusals.refuses(&labelled.text);
        let cell = match (labelled.refusal, found) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        if cell == 1 || cell == 2 {
            println!(
                "{} {} {}",
                labelled.language,
                ["missed", "false alarm"][cell - 1],
                labelled.text
            );
        }
        for key in [&labelled.language, "all"] {
            table.entry(format!("{} | {key}", labelled.split)).or_default()[cell] += 1;
        }
    }
    println!(
        "\n| set | language | refusals | others | precision | recall | false positive rate |\n|---|---|---|---|---|---|"
    );
    for (language, [caught, missed, alarms, left]) in table {
        let percent = |part: u32, whole: u32| 100.0 * f64::from(part) / f64::from(whole.max(1));
        println!(
            "| {language} | {} | {} | {:.1} % | {:.1} % | {:.1} % |",
            caught + missed,
            alarms + left,
            percent(caught, caught + alarms),
            percent(caught, caught + missed),
            percent(alarms, alarms + left),
        );
    }
}
