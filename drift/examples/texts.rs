//! What the features make of real text: false alarms of refusals and loops, languages told, and how far apart windows of
//! other texts are from English prose. `reference/texts.py FOLDER` fetches the text; then
//!
//! ```sh
//! cargo run --release -p perennial-drift --example texts -- FOLDER
//! ```

#![expect(clippy::expect_used, reason = "a measurement, not a program")]

use perennial_drift::features::{FOURIER, ONE, embedding, fourier, language, refusal, repetition};
use std::collections::BTreeMap;

type Corpora = BTreeMap<String, Vec<String>>;

fn main() {
    let folder = std::env::args().nth(1).expect("the folder of reference/texts.py");
    let corpora = read(&folder);
    false_alarms(&corpora);
    languages(&corpora);
    let bandwidths: Vec<f64> = std::env::args()
        .skip(2)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    for bandwidth in if bandwidths.is_empty() {
        vec![embedding::BANDWIDTH]
    } else {
        bandwidths
    } {
        separation(&corpora, bandwidth);
    }
}

fn read(folder: &str) -> Corpora {
    let mut corpora = Corpora::new();
    for entry in std::fs::read_dir(format!("{folder}/corpora"))
        .expect("corpora")
        .flatten()
    {
        let text = std::fs::read_to_string(entry.path()).expect("readable");
        let texts = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON string a line"))
            .collect();
        corpora.insert(
            entry
                .path()
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            texts,
        );
    }
    corpora
}

/// Pieces of 20 to 200 words, none across two texts; characters count as words in Chinese.
fn requests(name: &str, texts: &[String]) -> Vec<String> {
    let chinese = name.ends_with("zh");
    let mut random = Random(7);
    let mut pieces = Vec::new();
    for text in texts {
        let words: Vec<&str> = if chinese {
            text.split("").filter(|c| !c.trim().is_empty()).collect()
        } else {
            text.split_whitespace().collect()
        };
        let mut rest = &words[..];
        while rest.len() >= 20 {
            let (piece, after) = rest.split_at(rest.len().min(20 + random.below(181)));
            pieces.push(piece.join(if chinese { "" } else { " " }));
            rest = after;
        }
    }
    for index in (1..pieces.len()).rev() {
        pieces.swap(index, random.below(index + 1));
    }
    pieces
}

fn false_alarms(corpora: &Corpora) {
    let refusals = refusal::Refusals::new().expect("well formed");
    println!(
        "| corpus | texts | refusals | loops in texts | answers of 100 to 4,000 characters | loops in them |\n|---|---|---|---|---|---|"
    );
    for (name, texts) in corpora {
        let refused: Vec<&String> = texts.iter().filter(|text| refusals.refuses(text)).collect();
        let looped = texts.iter().filter(|text| repetition::is_loop(text)).count();
        let mut random = Random(11);
        let mut answers: Vec<&str> = Vec::new();
        for text in texts {
            let mut rest = text.as_str();
            while rest.len() >= 100 {
                let end = rest.ceil_char_boundary(100 + random.below(3900)).min(rest.len());
                answers.push(&rest[..end]);
                rest = &rest[end..];
            }
        }
        let looped_answers: Vec<&&str> = answers.iter().filter(|answer| repetition::is_loop(answer)).collect();
        println!(
            "| {name} | {} | {} | {looped} | {} | {} |",
            texts.len(),
            refused.len(),
            answers.len(),
            looped_answers.len()
        );
        for text in refused.iter().take(3) {
            eprintln!("refusal? {name}: {:?}", text.chars().take(160).collect::<String>());
        }
        for text in looped_answers.iter().take(2) {
            let end: String = text
                .chars()
                .rev()
                .take(200)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect();
            eprintln!("loop? {name}: {end:?}");
        }
    }
}

fn languages(corpora: &Corpora) {
    println!("\n| corpus | requests | commonest languages |\n|---|---|---|");
    for (name, texts) in corpora {
        let pieces = requests(name, texts);
        let mut counts = BTreeMap::new();
        for piece in pieces.iter().take(2000) {
            *counts
                .entry(language::code(language::category(piece)))
                .or_insert(0usize) += 1;
        }
        let total: usize = counts.values().sum();
        let mut counts: Vec<_> = counts.into_iter().map(|(code, count)| (count, code)).collect();
        counts.sort_unstable_by(|one, two| two.cmp(one));
        let told: Vec<String> = counts
            .iter()
            .take(4)
            .map(|(n, code)| format!("{code} {:.1} %", 100.0 * *n as f64 / total as f64))
            .collect();
        println!("| {name} | {total} | {} |", told.join(", "));
    }
}

/// Unbiased MMD^2 of a window against the baseline, less its mean and over its standard deviation without a shift.
fn separation(corpora: &Corpora, bandwidth: f64) {
    let projection = fourier::Projection::new(embedding::DIMENSION, bandwidth, 42);
    let features = |name: &str, most: usize| -> Vec<[f64; FOURIER]> {
        requests(name, corpora.get(name).map_or(&[], Vec::as_slice))
            .iter()
            .take(most)
            .filter_map(|piece| projection.features(&embedding::embed(piece)))
            .map(|features| features.map(|number| f64::from(number) / ONE))
            .collect()
    };
    let all = features("fortunes-en", 12_000);
    let (known, fresh) = all.split_at(all.len() / 2);
    let mean = mean_of(known);
    println!(
        "\nbandwidth {bandwidth}, {} requests of English prose known, {} fresh\n",
        known.len(),
        fresh.len()
    );
    println!("| mixed in | share | 100 | 300 | 1000 |\n|---|---|---|---|---|");
    let shifts = [
        "manual-en",
        "book-en",
        "faq-en",
        "licences",
        "code",
        "fortunes-de",
        "fortunes-zh",
    ];
    for name in shifts {
        let shifted = features(name, 2000);
        for share in [0.05, 0.1, 0.2] {
            let row: Vec<String> = [100, 300, 1000]
                .iter()
                .map(|&size| format!("{:.1}", ratio(&mean, fresh, &shifted, share, size)))
                .collect();
            println!("| {name} | {share} | {} |", row.join(" | "));
        }
    }
}

fn ratio(mean: &[f64], fresh: &[[f64; FOURIER]], shifted: &[[f64; FOURIER]], share: f64, size: usize) -> f64 {
    let mut random = Random(5);
    let mut statistic = |share: f64| {
        let window: Vec<&[f64; FOURIER]> = (0..size)
            .map(|_| {
                let from = if random.uniform() < share { shifted } else { fresh };
                &from[random.below(from.len())]
            })
            .collect();
        let sums: Vec<f64> = (0..FOURIER)
            .map(|at| window.iter().map(|features| features[at]).sum())
            .collect();
        let n = size as f64;
        let own = (sums.iter().map(|sum| sum * sum).sum::<f64>() - n) / (n * (n - 1.0));
        let cross: f64 = sums.iter().zip(mean).map(|(sum, mean)| sum * mean / n).sum();
        own - 2.0 * cross
    };
    let null: Vec<f64> = (0..300).map(|_| statistic(0.0)).collect();
    let centre = null.iter().sum::<f64>() / 300.0;
    let spread = (null.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / 300.0).sqrt();
    let moved = (0..60).map(|_| statistic(share)).sum::<f64>() / 60.0;
    (moved - centre) / spread
}

fn mean_of(features: &[[f64; FOURIER]]) -> Vec<f64> {
    (0..FOURIER)
        .map(|at| features.iter().map(|one| one[at]).sum::<f64>() / features.len() as f64)
        .collect()
}

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / 9_007_199_254_740_992.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.uniform() * bound as f64) as usize
    }
}
