//! What is drawn over time: the evidence, and each signal against its baseline.

use perennial_drift::decision::Phase;
use perennial_drift::signal::Signal;

use super::svg::{Axis, Svg, moments, short_time, ticks};
use crate::replay::{Moment, Outcome};
use crate::series::{Drawn, Level};
use crate::words::{self, Clock};

/// Points of a line of evidence.
const POINTS: usize = 500;
/// Signals that are named beside all of them together.
const NAMED: usize = 3;

/// A moment as it is written in a chart.
pub fn at(clock: Clock, seconds: i64) -> String {
    match clock {
        Clock::Time => short_time(seconds, false),
        Clock::Count(..) => clock.at(seconds),
    }
}

/// The evidence over time, for a wide or a narrow page.
pub fn evidence(outcome: &Outcome, wide: bool) -> String {
    let (width, height) = if wide { (1_000.0, 300.0) } else { (350.0, 260.0) };
    let (left, right, top, bottom) = (46.0, width - if wide { 188.0 } else { 96.0 }, 22.0, height - 26.0);
    let mut svg = Svg::new(width, height);
    let (Some(first), Some(last)) = (outcome.timeline.first(), outcome.timeline.last()) else {
        return String::new();
    };
    let pane = i64::from(outcome.policy.pane_seconds);
    let x = Axis {
        low: first.time as f64,
        high: (last.time + pane) as f64,
        from: left,
        to: right,
    };
    let threshold = outcome.verdict.log_threshold;
    let highest = outcome
        .timeline
        .iter()
        .map(|moment| moment.log_evidence)
        .fold(0.0, f64::max);
    // Beyond an alarm it may grow to e^1000 and say no more.
    let y = Axis {
        low: 0.0,
        high: (1.06 * highest).clamp(1.25 * threshold, 2.4 * threshold),
        from: bottom,
        to: top,
    };
    phases(&mut svg, outcome, &x, (top, bottom));
    for tick in ticks(0.0, y.high / std::f64::consts::LN_10, 5.0) {
        let place = y.place(tick * std::f64::consts::LN_10);
        svg.line("grid", (left, place), (right, place));
        svg.text("tick", (left - 8.0, place + 4.0), "end", &power_of_ten(tick));
    }
    for (time, name) in moments(first.time, last.time + pane, outcome.clock, if wide { 7 } else { 3 }) {
        let place = x.place(time as f64);
        svg.line("grid", (place, bottom), (place, bottom + 4.0));
        svg.text("tick", (place, bottom + 19.0), "middle", &name);
    }
    let place = y.place(threshold);
    svg.line("threshold", (left, place), (right, place));
    let alarm = format!(
        "alarm at {} : 1",
        words::thousands(outcome.policy.capacity().round() as u64)
    );
    svg.text("threshold-name", (left + 6.0, place - 6.0), "start", &alarm);
    svg.clip(
        if wide { "evidence-wide" } else { "evidence-narrow" },
        (left, top),
        (right, bottom),
    );
    let mut ends = Vec::new();
    for (position, signal) in leaders(outcome) {
        let of = |moment: &Moment| f64::from(moment.log_evidence_by_signal.get(position).copied().unwrap_or(0.0));
        curve(&mut svg, "evidence-signal", outcome, &of, &x, &y);
        ends.push((of(last), outcome.policy.name(signal), "name"));
    }
    curve(&mut svg, "evidence-all", outcome, &|moment| moment.log_evidence, &x, &y);
    ends.push((last.log_evidence, "all together".to_owned(), "name strong"));
    svg.unclip();
    if let Some(since) = change(outcome) {
        change_line(
            &mut svg,
            &x,
            since,
            (top, bottom),
            &format!("change {}", at(outcome.clock, since)),
        );
    }
    names(&mut svg, ends, &y, right);
    let description = format!(
        "Evidence of all signals together, highest e^{highest:.1}, against the alarm at e^{threshold:.1}, from {} to {}.",
        outcome.clock.at(first.time),
        outcome.clock.at(last.time + pane)
    );
    svg.finish(if wide { "wide" } else { "narrow" }, "Evidence over time", &description)
}

/// Names at the right end of their lines, pushed apart.
fn names(svg: &mut Svg, mut ends: Vec<(f64, String, &'static str)>, y: &Axis, right: f64) {
    ends.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut free = f64::NEG_INFINITY;
    let mut places: Vec<f64> = ends
        .iter()
        .map(|(value, _, _)| {
            let place = y.place(value.min(y.high)).max(free);
            free = place + 15.0;
            place
        })
        .collect();
    // What was pushed below the axis is pushed up again.
    let mut most = y.from;
    for place in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - 15.0;
    }
    for ((value, name, class), place) in ends.iter().zip(places) {
        let beyond = if *value > y.high {
            format!(" ↑ e^{value:.0}")
        } else {
            String::new()
        };
        let shown: String = name.chars().take(18).collect();
        let text = if right > 500.0 {
            format!("{shown}{beyond}")
        } else {
            shown.chars().take(14).collect()
        };
        svg.text(class, (right + 8.0, place + 4.0), "start", &text);
    }
}

/// The signals with the most evidence at the end, with their places.
fn leaders(outcome: &Outcome) -> Vec<(usize, Signal)> {
    let Some(last) = outcome.timeline.last() else {
        return Vec::new();
    };
    let mut signals: Vec<(usize, Signal)> = outcome.armed.iter().copied().enumerate().collect();
    let value = |position: usize| last.log_evidence_by_signal.get(position).copied().unwrap_or(0.0);
    signals.sort_by(|a, b| value(b.0).total_cmp(&value(a.0)));
    signals.truncate(NAMED);
    signals
}

/// The likely beginning of the change that the page is about.
pub fn change(outcome: &Outcome) -> Option<i64> {
    outcome.verdict.change_since.or_else(|| {
        outcome
            .episodes
            .iter()
            .rev()
            .find(|episode| episode.drifted.is_some())
            .map(|episode| episode.since)
    })
}

fn change_line(svg: &mut Svg, x: &Axis, since: i64, (top, bottom): (f64, f64), name: &str) {
    let place = x.place((since as f64).max(x.low));
    svg.line("change", (place, top - 4.0), (place, bottom));
    let (anchor, shift) = if place > x.to - 130.0 {
        ("end", -5.0)
    } else {
        ("start", 5.0)
    };
    svg.text("change-name", (place + shift, top - 8.0), anchor, name);
}

fn phases(svg: &mut Svg, outcome: &Outcome, x: &Axis, (top, bottom): (f64, f64)) {
    for episode in &outcome.episodes {
        let end = episode.ended.map_or(x.high, |end| end as f64);
        let drifted = episode.drifted.map_or(end, |drifted| drifted as f64);
        svg.rect(
            "suspected",
            (x.place(episode.suspected as f64), top),
            (x.place(drifted), bottom),
        );
        if drifted < end {
            svg.rect("drifted", (x.place(drifted), top), (x.place(end), bottom));
            svg.text("phase-name", (x.place(drifted) + 6.0, bottom - 8.0), "start", "drifted");
        } else if outcome.verdict.phase == Phase::Suspected {
            svg.text(
                "phase-name",
                (x.place(episode.suspected as f64) + 6.0, bottom - 8.0),
                "start",
                "suspected",
            );
        }
    }
}

fn curve(svg: &mut Svg, class: &str, outcome: &Outcome, of: &dyn Fn(&Moment) -> f64, x: &Axis, y: &Axis) {
    let size = outcome.timeline.len().div_ceil(POINTS).max(1);
    let points: Vec<(f64, f64)> = outcome
        .timeline
        .chunks(size)
        .filter_map(|chunk| {
            let highest = chunk.iter().map(of).fold(0.0, f64::max);
            let end = chunk.last()?.time + i64::from(outcome.policy.pane_seconds);
            Some((x.place(end as f64), y.clipped(highest)))
        })
        .collect();
    svg.path(class, &points, false);
}

fn power_of_ten(exponent: f64) -> String {
    let whole = exponent.round() as i64;
    if whole == 0 {
        return "1".to_owned();
    }
    let digits: String = whole
        .to_string()
        .chars()
        .map(|digit| match digit {
            '0' => '⁰',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '4' => '⁴',
            '5' => '⁵',
            '6' => '⁶',
            '7' => '⁷',
            '8' => '⁸',
            '9' => '⁹',
            other => other,
        })
        .collect();
    format!("10{digits}")
}

/// A signal over time against the band of its baseline.
pub fn signal(outcome: &Outcome, drawn: &Drawn, moved: Option<i64>, wide: bool) -> String {
    let (width, height) = if wide { (620.0, 190.0) } else { (350.0, 180.0) };
    let (left, right, top, bottom) = (50.0, width - 8.0, 22.0, height - 24.0);
    let mut svg = Svg::new(width, height);
    let (from, to) = outcome.span;
    let x = Axis {
        low: from as f64,
        high: to as f64,
        from: left,
        to: right,
    };
    let (low, high) = range(&drawn.levels);
    let y = Axis {
        low,
        high,
        from: bottom,
        to: top,
    };
    for tick in ticks(low, high, 3.0) {
        svg.line("grid", (left, y.place(tick)), (right, y.place(tick)));
        svg.text(
            "tick",
            (left - 8.0, y.place(tick) + 4.0),
            "end",
            &words::round(&label(drawn, tick)),
        );
    }
    for (time, name) in moments(from, to, outcome.clock, if wide { 6 } else { 4 }) {
        svg.line(
            "grid",
            (x.place(time as f64), bottom),
            (x.place(time as f64), bottom + 4.0),
        );
        svg.text("tick", (x.place(time as f64), bottom + 18.0), "middle", &name);
    }
    let name = format!("{:?}-{}", drawn.signal, if wide { "wide" } else { "narrow" });
    svg.clip(&name, (left, top), (right, bottom));
    let half = outcome.width as f64 / 2.0;
    for run in runs(&drawn.levels, outcome.width) {
        let point = |level: &Level, value: f64| (x.place(level.time as f64 + half), y.clipped(value));
        let mut band: Vec<(f64, f64)> = run.iter().map(|level| point(level, level.high)).collect();
        band.extend(run.iter().rev().map(|level| point(level, level.low)));
        svg.path("band", &band, true);
        svg.path(
            "expected",
            &run.iter().map(|level| point(level, level.expected)).collect::<Vec<_>>(),
            false,
        );
    }
    for run in runs(&drawn.levels, outcome.width) {
        let points: Vec<(f64, f64)> = run
            .iter()
            .map(|level| (x.place(level.time as f64 + half), y.clipped(level.value)))
            .collect();
        let split = moved.map_or(run.len(), |since| {
            run.iter()
                .take_while(|level| level.time + outcome.width <= since)
                .count()
        });
        svg.path("value", &points[..(split + 1).min(points.len())], false);
        svg.path("value after", &points[split..], false);
    }
    svg.unclip();
    if outcome.baseline.to > from && outcome.baseline.to < to {
        let place = x.place(outcome.baseline.to as f64);
        svg.line("divider", (place, top - 4.0), (place, bottom));
        svg.text("tick", (left, top - 8.0), "start", "baseline");
    }
    if let Some(since) = moved {
        change_line(
            &mut svg,
            &x,
            since,
            (top, bottom),
            &format!("change {}", at(outcome.clock, since)),
        );
    }
    let description = format!(
        "{}, each point {}, with the band of the baseline.",
        drawn.what,
        outcome.clock.span(outcome.width)
    );
    svg.finish(
        if wide { "wide" } else { "narrow" },
        &format!("{:?} over time", drawn.signal),
        &description,
    )
}

/// A value of a signal as people write it.
pub fn label(drawn: &Drawn, value: f64) -> String {
    let part = matches!(drawn.signal.kind(), perennial_drift::signal::Kind::Rate) || drawn.signal == Signal::Language;
    if part {
        words::percent(value)
    } else {
        words::number(value)
    }
}

/// Points without a break between them.
fn runs(levels: &[Level], width: i64) -> Vec<&[Level]> {
    levels.chunk_by(|a, b| b.time - a.time <= 3 * width).collect()
}

/// What of an axis holds all but the wildest values; the band of a quiet hour may be very wide.
fn range(levels: &[Level]) -> (f64, f64) {
    let quantile = |of: &dyn Fn(&Level) -> f64, part: f64| {
        let mut values: Vec<f64> = levels.iter().map(of).filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let place = (part * values.len().saturating_sub(1) as f64).round() as usize;
        values.get(place).copied().unwrap_or(0.0)
    };
    let low = quantile(&|level| level.low, 0.1).min(quantile(&|level| level.value, 0.01));
    let high = quantile(&|level| level.high, 0.9).max(quantile(&|level| level.value, 0.99));
    let margin = (high - low) * 0.06;
    if margin > 0.0 {
        let bottom = if low >= 0.0 {
            (low - margin).max(0.0)
        } else {
            low - margin
        };
        (bottom, high + margin)
    } else if low == 0.0 {
        // Nothing ever happened: no part of the axis is below that.
        (0.0, 0.01)
    } else {
        (low - 0.5 * low.abs(), low + 0.5 * low.abs())
    }
}
