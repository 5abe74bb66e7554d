//! Each signal over time and against its baseline, small enough to be drawn however long the input is.

use perennial_drift::baseline::{Baseline, Model, SignalBaseline};
use perennial_drift::features::{ONE, language};
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::BINS;
use perennial_drift::signal::{Kind, Scale, Signal};
use perennial_drift::tally::Tally;
use serde::Serialize;

/// Points that are drawn at most.
const POINTS: i64 = 320;
/// Two-sided 95 % of the normal distribution.
const QUANTILE: f64 = 1.96;

/// One signal in one stretch of time, and what was expected of the same hours.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Level {
    pub time: i64,
    pub count: u64,
    pub value: f64,
    pub expected: f64,
    /// Where 95 of 100 such values are if nothing changed.
    pub low: f64,
    pub high: f64,
}

/// A part of a distribution, before and now.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    pub label: String,
    /// Ends on the transformed scale, for numbers.
    #[serde(skip)]
    pub ends: Option<(f64, f64)>,
    pub before: f64,
    pub now: f64,
}

/// What a signal's values mean, and how they moved.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drawn {
    pub signal: Signal,
    /// What `value` is.
    pub what: String,
    pub levels: Vec<Level>,
    /// Since the change against the baseline of the same hours; empty where there is none.
    pub shares: Vec<Share>,
    /// Requests since the change.
    pub seen: u64,
}

/// Tallies by stretch of time.
pub struct Series {
    width: i64,
    from: i64,
    buckets: Vec<Vec<Tally>>,
}

impl Series {
    /// For the stretch of time from `from` to `until`, in panes of so many seconds.
    pub fn new(from: i64, until: i64, pane: i64) -> Self {
        let nice = [
            1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1_440, 2_880, 10_080, 43_200,
        ];
        let least = (until - from).div_euclid(POINTS) + 1;
        let width = nice
            .into_iter()
            .map(|minutes| minutes * 60)
            .find(|width| *width >= least && *width % pane == 0)
            .unwrap_or_else(|| (least + pane - 1) / pane * pane)
            .max(pane);
        let from = from - from.rem_euclid(width);
        let count = usize::try_from((until - from + width - 1) / width).unwrap_or(0);
        Self {
            width,
            from,
            buckets: vec![Vec::new(); count],
        }
    }

    /// Length of a stretch of time that is drawn as one point.
    pub fn width(&self) -> i64 {
        self.width
    }

    pub fn add(&mut self, pane: &Pane, baseline: &Baseline) {
        let place = usize::try_from((pane.start() - self.from) / self.width).unwrap_or(usize::MAX);
        let Some(bucket) = self.buckets.get_mut(place) else {
            return;
        };
        bucket.resize(baseline.signals.len(), Tally::default());
        let cell = baseline.season.cell(pane.start());
        for (into, signal) in bucket.iter_mut().zip(&baseline.signals) {
            if let Some(tally) = signal.tally(pane, cell) {
                into.merge(&tally);
            }
        }
    }

    /// A signal as it is drawn; `since` is what was seen since its change.
    pub fn drawn(&self, baseline: &Baseline, signal: Signal, since: Option<&Tally>) -> Option<Drawn> {
        let position = baseline.signals.iter().position(|other| other.signal == signal)?;
        let model = &baseline.signals[position];
        let focus = focus(model, since);
        let levels = self.buckets.iter().zip(0..).filter_map(|(bucket, place)| {
            let tally = bucket.get(position).filter(|tally| tally.count > 0)?;
            let time = self.from + place * self.width;
            level(model, tally, focus).map(|(value, expected, half)| Level {
                time,
                count: tally.count,
                value: raw(signal, value),
                expected: raw(signal, expected),
                low: raw(signal, floor(model, expected - half)),
                high: raw(signal, ceiling(model, expected + half)),
            })
        });
        Some(Drawn {
            signal,
            what: what(model, focus),
            levels: levels.collect(),
            shares: since
                .filter(|since| since.count > 0)
                .map_or_else(Vec::new, |since| shares(model, since)),
            seen: since.map_or(0, |since| since.count),
        })
    }
}

/// No part is larger than all.
fn ceiling(model: &SignalBaseline, value: f64) -> f64 {
    if matches!(model.model, Model::Rate(_)) || model.signal == Signal::Language {
        value.min(1.0)
    } else {
        value
    }
}

fn floor(model: &SignalBaseline, value: f64) -> f64 {
    match &model.model {
        Model::Rate(_) => value.max(0.0),
        Model::Categories(_) if model.signal == Signal::Language => value.max(0.0),
        _ => value,
    }
}

fn raw(signal: Signal, value: f64) -> f64 {
    match signal.kind() {
        Kind::Numeric(scale) => scale.raw(value),
        _ => value,
    }
}

/// The group of languages that a line is drawn of: that which grew or fell most, or else the most common.
fn focus(model: &SignalBaseline, since: Option<&Tally>) -> usize {
    let (Model::Categories(table), Signal::Language) = (&model.model, model.signal) else {
        return 0;
    };
    let none = Tally {
        count: 0,
        ..Tally::default()
    };
    let since = since.unwrap_or(&none);
    let reference = table.reference(if since.count > 0 { since } else { &none });
    let expected: f64 = reference.iter().sum();
    let pooled: Vec<f64> = (0..table.width())
        .map(|group| table.cells.iter().map(|cell| cell[group]).sum())
        .collect();
    let weight = |group: &usize| {
        if since.count > 0 && expected > 0.0 {
            let now = since.groups.get(*group).copied().unwrap_or(0) as f64 / since.count as f64;
            (now - reference[*group] / expected).abs()
        } else {
            pooled[*group]
        }
    };
    (0..table.width())
        .max_by(|a, b| weight(a).total_cmp(&weight(b)))
        .unwrap_or(0)
}

fn what(model: &SignalBaseline, focus: usize) -> String {
    match (&model.model, model.signal) {
        (Model::Numeric(_), signal) => match signal {
            Signal::PromptTokens | Signal::OutputTokens => "tokens, in the middle".to_owned(),
            Signal::TokensPerCharacter => "tokens per character, in the middle".to_owned(),
            Signal::TimeToFirstToken | Signal::InterTokenLatency => "seconds, in the middle".to_owned(),
            _ => "nats per token, mean".to_owned(),
        },
        (Model::Rate(_), _) => "part of the answers".to_owned(),
        (Model::Categories(table), Signal::Language) => {
            format!("part of the prompts in {}", language_of(&table.groups, focus))
        }
        (Model::Categories(_), _) => "distance from the baseline's words (χ² per request)".to_owned(),
        (Model::Embedding(_), _) => "distance from the baseline's subjects (MMD²)".to_owned(),
    }
}

fn language_of(groups: &[u16], group: usize) -> String {
    if group == 0 {
        return "other languages".to_owned();
    }
    groups
        .iter()
        .position(|own| usize::from(*own) == group)
        .and_then(|category| u8::try_from(category).ok())
        .map_or_else(String::new, |category| language::name(category).to_owned())
}

/// Value, expected value, and half the width of the band, on the transformed scale.
fn level(model: &SignalBaseline, tally: &Tally, focus: usize) -> Option<(f64, f64, f64)> {
    let count = tally.count as f64;
    let binomial = |expected: f64, phi: f64| QUANTILE * (phi * expected * (1.0 - expected) / count).max(0.0).sqrt();
    match &model.model {
        Model::Numeric(numeric) => {
            let value = *tally.sums.first()? as f64 / ONE / count;
            if numeric.sigma <= 0.0 {
                return Some((value, value, 0.0));
            }
            let expected = value - numeric.standardised(tally) * numeric.sigma / count;
            Some((value, expected, QUANTILE * numeric.sigma * (numeric.phi / count).sqrt()))
        }
        Model::Rate(rate) => {
            let (expected, _, _) = rate.reference(tally);
            Some((
                *tally.groups.first()? as f64 / count,
                expected,
                binomial(expected, rate.phi),
            ))
        }
        Model::Categories(table) => {
            let reference = table.reference(tally);
            let size: f64 = reference.iter().sum();
            if size <= 0.0 {
                return None;
            }
            if model.signal == Signal::Language {
                let expected = reference.get(focus)? / size;
                return Some((
                    *tally.groups.get(focus)? as f64 / count,
                    expected,
                    binomial(expected, table.phi),
                ));
            }
            let (distance, deviation) = pearson(&tally.groups, &reference, table.phi);
            Some((distance, 0.0, QUANTILE * deviation))
        }
        Model::Embedding(embedding) => {
            let (squared, size) = embedding.distance(tally);
            let scale = count * size / (count + size).max(f64::MIN_POSITIVE);
            let half = QUANTILE * (2.0 * embedding.trace_of_square).sqrt() / scale;
            Some((squared - embedding.trace / scale, 0.0, half))
        }
    }
}

/// Pearson's distance for each request without the part that chance gives it, and the deviation that chance has. Groups
/// of which less than one is expected are taken together.
fn pearson(seen: &[u64], reference: &[f64], phi: f64) -> (f64, f64) {
    let (count, size) = (seen.iter().sum::<u64>() as f64, reference.iter().sum::<f64>());
    let (mut rare, mut statistic, mut groups) = ((0.0, 0.0), 0.0, 0.0);
    for (seen, reference) in seen.iter().zip(reference) {
        let (seen, expected) = (*seen as f64, count * reference / size);
        if expected < 1.0 {
            rare = (rare.0 + seen, rare.1 + expected);
        } else {
            statistic += (seen - expected) * (seen - expected) / expected;
            groups += 1.0;
        }
    }
    if rare.1 > 0.0 {
        statistic += (rare.0 - rare.1) * (rare.0 - rare.1) / rare.1;
        groups += 1.0;
    }
    let freedom: f64 = (groups - 1.0_f64).max(1.0);
    let noise = 1.0 / count + 1.0 / size;
    (
        statistic / count - freedom * noise,
        phi * (2.0 * freedom).sqrt() * noise,
    )
}

/// The distribution since the change, and that of the baseline in the same hours.
fn shares(model: &SignalBaseline, since: &Tally) -> Vec<Share> {
    match &model.model {
        Model::Numeric(numeric) => {
            let reference = numeric.table.reference(since);
            let Kind::Numeric(scale) = model.signal.kind() else {
                return Vec::new();
            };
            // What is missing is the last group.
            let present = numeric.table.width().saturating_sub(1);
            let all: f64 = reference.iter().take(present).sum();
            ends(&numeric.table.groups, &scale, present)
                .into_iter()
                .enumerate()
                .map(|(group, (low, high))| Share {
                    label: format!(
                        "{} to {}",
                        crate::words::number(scale.raw(low)),
                        crate::words::number(scale.raw(high))
                    ),
                    ends: Some((low, high)),
                    before: reference[group] / all.max(f64::MIN_POSITIVE),
                    now: since.groups.get(group).copied().unwrap_or(0) as f64 / since.count as f64,
                })
                .collect()
        }
        Model::Rate(rate) => {
            let (before, _, _) = rate.reference(since);
            let now = since.groups.first().copied().unwrap_or(0) as f64 / since.count as f64;
            vec![Share {
                label: "rate".to_owned(),
                ends: None,
                before,
                now,
            }]
        }
        Model::Categories(table) if model.signal == Signal::Language => {
            let reference = table.reference(since);
            let all: f64 = reference.iter().sum();
            let mut shares: Vec<Share> = reference
                .iter()
                .enumerate()
                .map(|(group, before)| Share {
                    label: language_of(&table.groups, group),
                    ends: None,
                    before: before / all.max(f64::MIN_POSITIVE),
                    now: since.groups.get(group).copied().unwrap_or(0) as f64 / since.count as f64,
                })
                .filter(|share| share.before.max(share.now) >= 0.001)
                .collect();
            shares.sort_by(|a, b| b.before.max(b.now).total_cmp(&a.before.max(a.now)));
            shares.truncate(8);
            shares
        }
        Model::Categories(_) | Model::Embedding(_) => Vec::new(),
    }
}

/// Ends of each group on the transformed scale. The outermost ones are drawn no wider than their neighbours.
fn ends(groups: &[u16], scale: &Scale, count: usize) -> Vec<(f64, f64)> {
    let edge = |bin: usize| scale.low + (bin.clamp(1, BINS + 1) - 1) as f64 * scale.width();
    let mut ends: Vec<(f64, f64)> = (0..count)
        .map(|group| {
            let bins: Vec<usize> = (0..groups.len())
                .filter(|bin| usize::from(groups[*bin]) == group)
                .collect();
            (
                bins.first().map_or(scale.low, |bin| edge(*bin)),
                bins.last().map_or(scale.high, |bin| edge(bin + 1)),
            )
        })
        .collect();
    let last = ends.len().saturating_sub(1);
    if last >= 2 {
        let (second, before_last) = (ends[1].1 - ends[1].0, ends[last - 1].1 - ends[last - 1].0);
        ends[0].0 = ends[0].0.max(ends[0].1 - 1.5 * second);
        ends[last].1 = ends[last].1.min(ends[last].0 + 1.5 * before_last);
    }
    ends
}
