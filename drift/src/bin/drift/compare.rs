//! Two files compared once, by the figures that other tools decide by, beside the effect with its bounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use perennial_drift::baseline::Baseline;
use perennial_drift::classical::counts::{Smoothing, jensen_shannon_distance, psi};
use perennial_drift::classical::distances::wasserstein_normed;
use perennial_drift::classical::independence::chi_squared_two_sample;
use perennial_drift::classical::kolmogorov_smirnov::kolmogorov_smirnov;
use perennial_drift::effect::{self, Effect};
use perennial_drift::explain::noun;
use perennial_drift::features::{Features, LANGUAGES, TOKEN_BUCKETS};
use perennial_drift::pane::Pane;
use perennial_drift::policy::{Policy, Season};
use perennial_drift::signal::{Class, Kind, Signal};
use perennial_drift::tally::Tally;
use serde::Serialize;

use crate::arguments::{Compare, Input};
use crate::input::{Reader, Summary};
use crate::panes::Panes;
use crate::policy_file;
use crate::terminal::{self, Style};
use crate::text;
use crate::words;

/// Groups into which the baseline's values are put for PSI and the like: deciles, as Evidently and NannyML do.
const GROUPS: usize = 10;

/// One file.
struct Side {
    summary: Summary,
    values: BTreeMap<Signal, Vec<f64>>,
    counts: BTreeMap<Signal, Vec<u64>>,
    panes: Vec<Pane>,
}

/// Figures of one signal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    signal: Signal,
    class: Class,
    /// Requests for which it is known, before and now.
    known: [u64; 2],
    psi: Option<f64>,
    jensen_shannon: Option<f64>,
    kolmogorov_smirnov: Option<f64>,
    kolmogorov_smirnov_p: Option<f64>,
    wasserstein_normed: Option<f64>,
    chi_squared: Option<f64>,
    chi_squared_p: Option<f64>,
    effects: Vec<Effect>,
    matters: bool,
}

/// Compares, and gives what to print.
pub fn compare(arguments: &Compare) -> Result<String> {
    let loaded = policy_file::load(arguments.input.policy.as_deref())?;
    let policy = Policy {
        season: Season::None,
        baseline_seconds: 0,
        baseline_min_samples: 0,
        ..loaded.policy
    };
    let before = side(&arguments.baseline_file, &arguments.input, &policy)?;
    let now = side(&arguments.current_file, &arguments.input, &policy)?;
    let baseline = Baseline::learn(&before.panes, &policy)?;
    let figures: Vec<Figures> = Signal::ALL
        .into_iter()
        .filter_map(|signal| figures(signal, &before, &now, &baseline, &policy))
        .collect();
    if arguments.json {
        let object = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "baseline": before.summary,
            "current": now.summary,
            "signals": figures,
        });
        return Ok(format!("{object}\n"));
    }
    Ok(print(&before, &now, &figures, &policy))
}

fn side(file: &PathBuf, input: &Input, policy: &Policy) -> Result<Side> {
    let mut reader = Reader::new(input)?;
    let mut panes = Panes::new(&reader.layout, policy.pane_seconds);
    let (mut values, mut counts) = (BTreeMap::new(), BTreeMap::new());
    let mut position = 0_i64;
    reader.read(std::slice::from_ref(file), |request| {
        let time = match input.panes_of {
            Some(count) => position / i64::from(count) * i64::from(policy.pane_seconds),
            None => request.time.floor() as i64,
        };
        position += 1;
        count(&request.features, &mut values, &mut counts);
        panes.add(time, &request.features)
    })?;
    let panes: Vec<Pane> = panes
        .intervals(None)?
        .filter_map(|interval| interval.map(|interval| interval.pane).transpose())
        .collect::<Result<_>>()?;
    Ok(Side {
        summary: reader.summary,
        values,
        counts,
        panes,
    })
}

fn count(features: &Features, values: &mut BTreeMap<Signal, Vec<f64>>, counts: &mut BTreeMap<Signal, Vec<u64>>) {
    let mut add = |signal: Signal, width: usize, place: Option<usize>| {
        if let Some(place) = place
            && let Some(cell) = counts.entry(signal).or_insert_with(|| vec![0; width]).get_mut(place)
        {
            *cell += 1;
        }
    };
    for signal in Signal::ALL {
        match signal.kind() {
            Kind::Numeric(_) => values.entry(signal).or_default().extend(features.number(signal)),
            Kind::Rate => add(signal, 2, features.event(signal).map(usize::from)),
            Kind::Categories(_) if signal == Signal::Language => {
                add(signal, LANGUAGES, features.language.map(usize::from))
            }
            Kind::Categories(_) => add(signal, TOKEN_BUCKETS, features.token_bucket.map(usize::from)),
            Kind::Embedding => {}
        }
    }
}

/// `None` where nothing is known on one of the sides.
fn figures(signal: Signal, before: &Side, now: &Side, baseline: &Baseline, policy: &Policy) -> Option<Figures> {
    let model = baseline.signal(signal);
    let effects = model.map_or_else(Vec::new, |model| {
        let mut seen = Tally::default();
        for pane in &now.panes {
            if let Some(tally) = model.tally(pane, 0) {
                seen.merge(&tally);
            }
        }
        effect::effects(model, &seen)
    });
    let mut figures = Figures {
        signal,
        class: signal.class(),
        known: [0, 0],
        psi: None,
        jensen_shannon: None,
        kolmogorov_smirnov: None,
        kolmogorov_smirnov_p: None,
        wasserstein_normed: None,
        chi_squared: None,
        chi_squared_p: None,
        matters: effect::matters(&effects, &policy.min_effect(signal)),
        effects,
    };
    let cells = match signal.kind() {
        Kind::Numeric(_) => {
            let (m, n) = (before.values.get(&signal)?, now.values.get(&signal)?);
            figures.known = [m.len() as u64, n.len() as u64];
            if let Ok(test) = kolmogorov_smirnov(m, n) {
                figures.kolmogorov_smirnov = Some(test.statistic);
                figures.kolmogorov_smirnov_p = Some(test.p_value());
            }
            figures.wasserstein_normed = wasserstein_normed(m, n).ok();
            in_groups(m, n)
        }
        Kind::Rate | Kind::Categories(_) => {
            let whole = |counts: &Vec<u64>| counts.iter().map(|count| *count as f64).collect::<Vec<f64>>();
            let (m, n) = (before.counts.get(&signal)?, now.counts.get(&signal)?);
            figures.known = [m.iter().sum(), n.iter().sum()];
            Some((whole(m), whole(n)))
        }
        Kind::Embedding => (!figures.effects.is_empty()).then_some((Vec::new(), Vec::new())),
    };
    let (m, n) = cells?;
    if let (false, Ok(test)) = (m.is_empty(), chi_squared_two_sample(&m, &n)) {
        figures.chi_squared = Some(test.statistic);
        figures.chi_squared_p = Some(test.p_value);
    }
    // Evidently's floor for what is empty on one side.
    figures.psi = psi(&m, &n, Smoothing::Floor(0.000_1)).ok();
    figures.jensen_shannon = jensen_shannon_distance(&m, &n).ok();
    Some(figures)
}

/// Counts in the deciles of the first sample.
fn in_groups(before: &[f64], now: &[f64]) -> Option<(Vec<f64>, Vec<f64>)> {
    if before.is_empty() || now.is_empty() {
        return None;
    }
    let mut sorted = before.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut ends: Vec<f64> = (1..GROUPS).map(|group| sorted[sorted.len() * group / GROUPS]).collect();
    ends.dedup();
    let counts = |values: &[f64]| {
        let mut counts = vec![0.0; ends.len() + 1];
        for value in values {
            counts[ends.partition_point(|end| end <= value)] += 1.0;
        }
        counts
    };
    Some((counts(before), counts(now)))
}

fn print(before: &Side, now: &Side, figures: &[Figures], policy: &Policy) -> String {
    let style = Style::of_terminal();
    let mut text = String::new();
    for side in [before, now] {
        text::input(&mut text, &side.summary, style);
    }
    let _ = writeln!(text);
    let header = [
        "signal",
        "PSI",
        "JS",
        "KS D",
        "KS p",
        "Wasserstein/sd",
        "χ² p",
        "effect [99 % bounds]",
        "matters",
    ];
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    let chance = |value: Option<f64>| match value {
        None => "–".to_owned(),
        Some(value) if value < 0.000_1 => "< 0.0001".to_owned(),
        Some(value) => format!("{value:.4}"),
    };
    let rows: Vec<[String; 9]> = figures
        .iter()
        .map(|figures| {
            let min = policy.min_effect(figures.signal);
            let measured = figures
                .effects
                .iter()
                .filter_map(|effect| Some((effect, effect.least(&min)?)));
            let strongest = measured.max_by(|a, b| (a.0.lower / a.1).total_cmp(&(b.0.lower / b.1)));
            [
                format!("{:?}", figures.signal),
                shown(figures.psi),
                shown(figures.jensen_shannon),
                shown(figures.kolmogorov_smirnov),
                chance(figures.kolmogorov_smirnov_p),
                shown(figures.wasserstein_normed),
                chance(figures.chi_squared_p),
                strongest.map_or_else(|| "too rarely seen".to_owned(), |(effect, _)| words::effect(effect)),
                if figures.matters {
                    "yes".to_owned()
                } else {
                    String::new()
                },
            ]
        })
        .collect();
    terminal::table(&mut text, &header, &rows, &[2, 5, 3, 6, 4], style, |position| {
        figures[position].matters.then_some("31")
    });
    let moved: Vec<&str> = figures
        .iter()
        .filter(|figures| figures.matters)
        .map(|figures| noun(figures.signal))
        .collect();
    let _ = writeln!(
        text,
        "\n{}",
        if moved.is_empty() {
            "Nothing differs by as much as the policy says matters.".to_owned()
        } else {
            format!("Differs by more than the policy says matters: {}.", moved.join("; "))
        }
    );
    for part in terminal::wrapped(
        "PSI and JS (in nats) of the baseline's deciles or categories; Wasserstein's distance over the baseline's standard deviation; the two-sample χ² test. With many requests every p-value becomes small: look at the effect.",
        style.width,
    ) {
        let _ = writeln!(text, "{part}");
    }
    text
}
