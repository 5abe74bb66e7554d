//! What is drawn of one signal since its change: its distribution beside the baseline's, and its effect beside what matters.

use std::fmt::Write as _;

use perennial_drift::classical::rates::{Rate, wilson_interval};
use perennial_drift::effect::Effect;
use perennial_drift::policy::MinEffect;
use perennial_drift::signal::{Kind, Scale, Transform};

use super::svg::{Axis, Svg, escape, ticks};
use crate::series::{Drawn, Share};
use crate::words;

const WIDTH: f64 = 350.0;

/// The distribution, or nothing where there is none to see.
pub fn distribution(drawn: &Drawn) -> String {
    match (drawn.signal.kind(), drawn.shares.is_empty()) {
        (_, true) | (Kind::Embedding, _) => String::new(),
        (Kind::Numeric(scale), _) => density(drawn, &scale),
        (Kind::Rate, _) => rate(drawn),
        (Kind::Categories(_), _) => bars(drawn),
    }
}

fn density(drawn: &Drawn, scale: &Scale) -> String {
    let (left, right, top, bottom) = (6.0, WIDTH - 6.0, 24.0, 132.0);
    let mut svg = Svg::new(WIDTH, 156.0);
    let ends = |share: &Share| share.ends.unwrap_or((0.0, 1.0));
    let (Some(first), Some(last)) = (drawn.shares.first(), drawn.shares.last()) else {
        return String::new();
    };
    let x = Axis {
        low: ends(first).0,
        high: ends(last).1,
        from: left,
        to: right,
    };
    let height = |share: &Share, part: f64| part / (ends(share).1 - ends(share).0).max(1e-9);
    let most = drawn
        .shares
        .iter()
        .map(|share| height(share, share.before.max(share.now)))
        .fold(1e-9, f64::max);
    let y = Axis {
        low: 0.0,
        high: most,
        from: bottom,
        to: top,
    };
    let outline = |of: &dyn Fn(&Share) -> f64| -> Vec<(f64, f64)> {
        let mut points = vec![(x.place(ends(first).0), bottom)];
        for share in &drawn.shares {
            let place = y.place(height(share, of(share)));
            points.extend([(x.place(ends(share).0), place), (x.place(ends(share).1), place)]);
        }
        points.push((x.place(ends(last).1), bottom));
        points
    };
    svg.path("before", &outline(&|share| share.before), true);
    svg.path("now", &outline(&|share| share.now), false);
    svg.line("axis", (left, bottom), (right, bottom));
    for (value, place) in marks(scale, &x) {
        svg.line("grid", (place, bottom), (place, bottom + 4.0));
        svg.text(
            "tick",
            (place, bottom + 18.0),
            "middle",
            &words::round(&words::number(value)),
        );
    }
    svg.text("tick", (left, 12.0), "start", "baseline, same hours");
    svg.text("change-name", (right, 12.0), "end", "since the change");
    svg.finish(
        "shape",
        "Distribution since the change and in the baseline",
        &table_in_words(drawn),
    )
}

/// Round values on a transformed scale, not too near to each other.
fn marks(scale: &Scale, x: &Axis) -> Vec<(f64, f64)> {
    let raw = (scale.raw(x.low), scale.raw(x.high));
    let candidates: Vec<f64> = match scale.transform {
        // Within one power of ten even steps fit better.
        Transform::Log | Transform::Log1p if raw.1 / raw.0.max(1e-9) > 6.0 => (-5..7)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)))
            .collect(),
        _ => ticks(raw.0, raw.1, 6.0),
    };
    let mut marks: Vec<(f64, f64)> = Vec::new();
    for value in candidates {
        let Some(place) = scale.transformed(value).map(|value| x.place(value)) else {
            continue;
        };
        let inside = place >= x.from + 8.0 && place <= x.to - 8.0;
        if inside && marks.last().is_none_or(|(_, last)| place - last > 42.0) {
            marks.push((value, place));
        }
    }
    marks
}

fn rate(drawn: &Drawn) -> String {
    let Some(share) = drawn.shares.first() else {
        return String::new();
    };
    let rate = Rate {
        events: (share.now * drawn.seen as f64).round() as u64,
        trials: drawn.seen,
    };
    let (low, high) = wilson_interval(rate, 0.95).unwrap_or((share.now, share.now));
    let mut svg = Svg::new(WIDTH, 70.0);
    let x = Axis {
        low: 0.0,
        high: (high.max(share.before) * 1.15).clamp(1e-6, 1.0),
        from: 8.0,
        to: WIDTH - 12.0,
    };
    svg.line("axis", (x.from, 36.0), (x.to, 36.0));
    for tick in ticks(0.0, x.high, 4.0) {
        svg.text(
            "tick",
            (x.place(tick), 58.0),
            "middle",
            &words::round(&words::percent(tick)),
        );
    }
    svg.line("mark", (x.place(share.before), 26.0), (x.place(share.before), 44.0));
    svg.text(
        "tick",
        (x.place(share.before).min(x.to - 40.0), 16.0),
        "start",
        &format!("baseline {}", words::percent(share.before)),
    );
    svg.line("interval", (x.place(low), 36.0), (x.place(high), 36.0));
    svg.dot("point", (x.place(share.now), 36.0), 4.5);
    svg.finish(
        "shape",
        "Rate since the change and in the baseline",
        &table_in_words(drawn),
    )
}

fn bars(drawn: &Drawn) -> String {
    let row = 30.0;
    let mut svg = Svg::new(WIDTH, 22.0 + row * drawn.shares.len() as f64);
    let most = drawn
        .shares
        .iter()
        .map(|share| share.before.max(share.now))
        .fold(1e-9, f64::max);
    let x = Axis {
        low: 0.0,
        high: most,
        from: 124.0,
        to: WIDTH - 58.0,
    };
    svg.text("tick", (6.0, 12.0), "start", "baseline, same hours");
    svg.text("change-name", (WIDTH - 6.0, 12.0), "end", "since the change");
    for (position, share) in drawn.shares.iter().enumerate() {
        let top = 22.0 + row * position as f64;
        let name: String = share.label.chars().take(15).collect();
        svg.text("row", (116.0, top + 16.0), "end", &name);
        svg.rect("before", (x.from, top + 3.0), (x.place(share.before), top + 11.0));
        svg.rect("bar", (x.from, top + 12.0), (x.place(share.now), top + 20.0));
        svg.text("tick", (WIDTH - 6.0, top + 16.0), "end", &words::percent(share.now));
    }
    svg.finish(
        "shape",
        "Languages since the change and in the baseline",
        &table_in_words(drawn),
    )
}

fn table_in_words(drawn: &Drawn) -> String {
    let rows: Vec<String> = drawn
        .shares
        .iter()
        .map(|share| {
            format!(
                "{}: {} instead of {}",
                share.label,
                words::percent(share.now),
                words::percent(share.before)
            )
        })
        .collect();
    rows.join("; ")
}

/// Each effect that counts, with its bounds, beside the size from which it matters.
pub fn gauges(effects: &[Effect], min: &MinEffect) -> String {
    let mut html = String::new();
    for effect in effects {
        let Some(least) = effect.least(min) else { continue };
        let far = (1.25 * least).max(1.08 * effect.upper.min(8.0 * least.max(1e-9)));
        let mut svg = Svg::new(WIDTH, 46.0);
        let x = Axis {
            low: 0.0,
            high: far.max(1e-9),
            from: 8.0,
            to: WIDTH - 12.0,
        };
        let inside = |value: f64| x.place(value.clamp(0.0, x.high));
        svg.line("axis", (x.from, 14.0), (x.to, 14.0));
        svg.rect("enough", (x.place(least), 9.0), (x.to, 19.0));
        svg.line("mark", (x.place(least), 5.0), (x.place(least), 23.0));
        svg.line("interval", (inside(effect.lower), 14.0), (inside(effect.upper), 14.0));
        svg.dot("point", (inside(effect.estimate.abs()), 14.0), 4.5);
        let name = format!("matters from {}", words::least(effect, least));
        let (place, anchor) = if x.place(least) > WIDTH / 2.0 {
            (x.place(least) + 2.0, "end")
        } else {
            (x.place(least) - 2.0, "start")
        };
        svg.text("tick", (place, 40.0), anchor, &name);
        let value = words::effect(effect);
        let _ = write!(
            html,
            "<div class=\"gauge\"><p><span>{}</span> <strong>{}</strong></p>{}</div>",
            measure(effect),
            escape(&value),
            svg.finish("shape", &format!("Effect {value}"), &name)
        );
    }
    html
}

fn measure(effect: &Effect) -> &'static str {
    use perennial_drift::effect::Measure;
    match effect.measure {
        Measure::Shift => "shift of the mean",
        Measure::Psi => "change of shape",
        Measure::Increase => "rise of the rate",
        Measure::Mmd => "change of subjects",
    }
}
