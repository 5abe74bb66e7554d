//! One page that says what was found, shows why, and works offline. Quiet where nothing happened.

mod charts;
mod shapes;
mod svg;

use std::fmt::Write as _;

use perennial_drift::decision::Phase;
use perennial_drift::explain::{SignalReport, noun};

use crate::replay::Outcome;
use crate::series::Drawn;
use crate::text::{self, budget, digests, headline, left_out, why_unarmed};
use crate::words::{self, thousands};
use svg::escape;

const STYLE: &str = include_str!("../assets/report.css");
/// Rows of a table below a chart.
const ROWS: usize = 36;

/// The page. `command` is what it was made with.
pub fn page(outcome: &Outcome, command: &str) -> String {
    let mut html = String::new();
    let title = headline(outcome);
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>Drift: {}</title><style>{STYLE}</style></head><body><main>",
        escape(&title)
    );
    verdict(&mut html, outcome);
    evidence(&mut html, outcome);
    signals(&mut html, outcome);
    details(&mut html, outcome);
    foot(&mut html, outcome, command);
    html.push_str("</main></body></html>\n");
    html
}

fn fact(html: &mut String, name: &str, value: &str, note: &str) {
    let _ = write!(
        html,
        "<div><dt>{}</dt><dd>{}{}</dd></div>",
        escape(name),
        escape(value),
        if note.is_empty() {
            String::new()
        } else {
            format!("<small>{}</small>", escape(note))
        }
    );
}

fn verdict(html: &mut String, outcome: &Outcome) {
    let (verdict, clock) = (&outcome.verdict, outcome.clock);
    let class = match verdict.phase {
        Phase::Drifted => "is-drifted",
        Phase::Suspected => "is-suspected",
        Phase::Watching | Phase::Learning => "is-quiet",
    };
    let title = match (verdict.cause, verdict.change_since) {
        (Some(cause), Some(since)) => format!("{} since {}", cause_name(cause), clock.at(since)),
        _ => headline(outcome),
    };
    let _ = write!(
        html,
        "<header class=\"{class}\"><p class=\"kicker\">Drift report</p><h1>{}</h1>",
        escape(&title)
    );
    if let Some(cause) = verdict.cause {
        let _ = write!(html, "<p class=\"lead\">{}</p>", escape(cause.sentence()));
    }
    html.push_str("<dl class=\"facts\">");
    let note = format!("e^{:.1} is an alarm", verdict.log_threshold);
    match (verdict.phase, text::highest(outcome)) {
        (Phase::Watching, Some((highest, _))) => fact(html, "Highest evidence", &format!("e^{highest:.1}"), &note),
        _ => fact(html, "Evidence", &format!("e^{:.1}", verdict.log_evidence), &note),
    }
    if let Some(episode) = outcome.episodes.last() {
        let note = episode.drifted.map_or_else(String::new, |drifted| {
            format!("confirmed {}", charts::at(clock, drifted))
        });
        fact(html, "Suspected", &charts::at(clock, episode.suspected), &note);
    }
    if let Some(response) = verdict.response {
        fact(
            html,
            "By default",
            &format!("{response:?}"),
            "what a policy does unless told otherwise",
        );
    }
    let span = clock.span(outcome.span.1 - outcome.span.0);
    fact(
        html,
        "Traffic",
        &format!("{} requests", thousands(outcome.summary.requests)),
        &span,
    );
    let baseline = &outcome.baseline;
    let note = format!(
        "{}, {}",
        clock.span(baseline.to - baseline.from),
        text::season(baseline.season)
    );
    fact(
        html,
        "Baseline",
        &format!("{} requests", thousands(baseline.requests)),
        &note,
    );
    html.push_str("</dl></header>");
}

fn cause_name(cause: perennial_drift::cause::Cause) -> &'static str {
    use perennial_drift::cause::Cause;
    match cause {
        Cause::InputDrift => "Input drift",
        Cause::ServingRegression => "Serving regression",
        Cause::OutputShift => "Output shift",
        Cause::QualityDrop => "Quality drop",
        Cause::SingleSource => "A single requester changed",
        Cause::Masked => "Not judged",
        Cause::Undetermined => "Answers have changed",
        Cause::Nothing => "Traffic has changed",
    }
}

fn evidence(html: &mut String, outcome: &Outcome) {
    html.push_str("<section><h2>Evidence over time</h2>");
    if outcome.timeline.is_empty() {
        html.push_str(
            "<p class=\"note\">All of the input went into the baseline; there is nothing to weigh yet.</p></section>",
        );
        return;
    }
    let _ = write!(
        html,
        "<p class=\"note\">How many times better “it has changed” explains the traffic than the baseline does. The budget is {}.</p><figure>{}{}",
        escape(&budget(&outcome.policy, outcome.clock)),
        charts::evidence(outcome, true),
        charts::evidence(outcome, false)
    );
    let step = outcome.timeline.len().div_ceil(ROWS).max(1);
    let rows: Vec<Vec<String>> = outcome
        .timeline
        .chunks(step)
        .filter_map(|chunk| {
            let (first, last) = (chunk.first()?, chunk.last()?);
            let requests: u64 = chunk.iter().map(|moment| moment.requests).sum();
            let highest = chunk.iter().map(|moment| moment.log_evidence).fold(0.0, f64::max);
            Some(vec![
                outcome.clock.at(first.time),
                thousands(requests),
                format!("e^{highest:.1}"),
                format!("{:?}", last.phase),
            ])
        })
        .collect();
    table(html, &["from", "requests", "highest evidence", "phase"], &rows);
    html.push_str("</figure></section>");
}

fn table(html: &mut String, header: &[&str], rows: &[Vec<String>]) {
    html.push_str("<details><summary>Table</summary><div class=\"scroll\"><table><thead><tr>");
    for name in header {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(name));
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escape(cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div></details>");
}

fn signals(html: &mut String, outcome: &Outcome) {
    let report = |drawn: &Drawn| {
        outcome
            .report
            .signals
            .iter()
            .find(|report| report.signal == drawn.signal)
    };
    let (moved, still): (Vec<&Drawn>, Vec<&Drawn>) = outcome
        .drawn
        .iter()
        .partition(|drawn| report(drawn).is_some_and(|report| report.moved));
    if !moved.is_empty() {
        let at = outcome.report_of.map_or_else(String::new, |at| {
            format!(", when it was confirmed ({})", outcome.clock.at(at))
        });
        let _ = write!(html, "<section><h2>What moved{}</h2>", escape(&at));
        for drawn in moved {
            if let Some(report) = report(drawn) {
                moved_signal(html, outcome, drawn, report);
            }
        }
        html.push_str("</section>");
    }
    if !still.is_empty() {
        html.push_str("<section><h2>As in the baseline</h2><div class=\"grid-of-signals\">");
        for drawn in still {
            still_signal(html, outcome, drawn, report(drawn));
        }
        html.push_str("</div></section>");
    }
}

fn heading(html: &mut String, outcome: &Outcome, drawn: &Drawn, note: &str) {
    let name = outcome.policy.name(drawn.signal);
    let shown = noun(drawn.signal);
    let _ = write!(
        html,
        "<h3>{}<span class=\"tag\">{} · {}</span></h3><p class=\"note\">{}</p>",
        escape(shown),
        escape(&name),
        words::class(drawn.signal.class()),
        escape(note)
    );
}

fn moved_signal(html: &mut String, outcome: &Outcome, drawn: &Drawn, report: &SignalReport) {
    let class = if report.matters { "signal matters" } else { "signal" };
    let _ = write!(html, "<article class=\"{class}\">");
    let note = format!(
        "evidence e^{:.1}, {:.0} % of all; {}",
        report.log_evidence,
        report.share_of_evidence_percent,
        if report.matters {
            "larger than what matters"
        } else {
            "not certainly as large as what matters"
        }
    );
    heading(html, outcome, drawn, &note);
    let sentence = outcome.clock.sentence(&report.sentence, report.since);
    let _ = write!(
        html,
        "<p class=\"sentence\">{}</p><div class=\"pair\"><figure>",
        escape(&sentence)
    );
    over_time(html, outcome, drawn, Some(report.since));
    let _ = write!(
        html,
        "</figure><div class=\"side\">{}{}</div></div></article>",
        shapes::distribution(drawn),
        shapes::gauges(&report.effects, &outcome.policy.min_effect(drawn.signal))
    );
}

fn still_signal(html: &mut String, outcome: &Outcome, drawn: &Drawn, report: Option<&SignalReport>) {
    html.push_str("<article class=\"signal still\">");
    let unarmed = outcome
        .report
        .unarmed
        .iter()
        .find(|(signal, _)| *signal == drawn.signal);
    let note = match (report, unarmed) {
        (Some(report), _) => format!("evidence e^{:.1}", report.log_evidence),
        (None, Some((_, why))) => format!("not armed: {}", why_unarmed(*why)),
        (None, None) => "not weighed by this policy".to_owned(),
    };
    heading(html, outcome, drawn, &note);
    html.push_str("<figure class=\"only-narrow\">");
    over_time(html, outcome, drawn, None);
    html.push_str("</figure></article>");
}

fn over_time(html: &mut String, outcome: &Outcome, drawn: &Drawn, since: Option<i64>) {
    let _ = write!(html, "<figcaption>{}</figcaption>", escape(&drawn.what));
    if since.is_some() {
        html.push_str(&charts::signal(outcome, drawn, since, true));
    }
    html.push_str(&charts::signal(outcome, drawn, since, false));
    let step = drawn.levels.len().div_ceil(ROWS).max(1);
    let rows: Vec<Vec<String>> = drawn
        .levels
        .iter()
        .step_by(step)
        .map(|level| {
            let shown = |value| charts::label(drawn, value);
            vec![
                outcome.clock.at(level.time),
                thousands(level.count),
                shown(level.value),
                shown(level.expected),
                format!("{} to {}", shown(level.low), shown(level.high)),
            ]
        })
        .collect();
    table(html, &["from", "requests", "value", "expected", "95 of 100"], &rows);
}

fn details(html: &mut String, outcome: &Outcome) {
    let summary = &outcome.summary;
    html.push_str("<section><h2>What this rests on</h2><dl class=\"list\">");
    let mut item = |name: &str, value: String| {
        let _ = write!(html, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(&value));
    };
    item("Input", summary.files.join(", "));
    item(
        "Lines",
        format!(
            "{}, {} of them bad",
            thousands(summary.lines),
            thousands(summary.bad_lines)
        ),
    );
    for bad in &summary.bad {
        item("Bad line", format!("{}:{}: {}", bad.file, bad.line, bad.reason));
    }
    item(
        "Panes",
        format!(
            "{} of {} s, and {} without a request",
            thousands(outcome.panes),
            outcome.policy.pane_seconds,
            thousands(outcome.gaps)
        ),
    );
    let left = left_out(outcome);
    if !left.is_empty() {
        item("Left out", left.join(", "));
    }
    let (clock, baseline) = (outcome.clock, &outcome.baseline);
    item(
        "Baseline",
        format!("{} to {}", clock.at(baseline.from), clock.at(baseline.to)),
    );
    for (signal, why) in &outcome.report.unarmed {
        item("Not armed", format!("{}: {}", noun(*signal), why_unarmed(*why)));
    }
    for (signal, phi) in text::design_effects(baseline) {
        item(
            "Dependence",
            format!("{}: requests are alike, evidence is divided by {phi:.1}", noun(signal)),
        );
    }
    for episode in &outcome.episodes {
        let part = |name: &str, at: Option<i64>| at.map_or_else(String::new, |at| format!(", {name} {}", clock.at(at)));
        item(
            "History",
            format!(
                "change since {}, suspected {}{}{}",
                clock.at(episode.since),
                clock.at(episode.suspected),
                part("drifted", episode.drifted),
                part("over", episode.ended)
            ),
        );
    }
    html.push_str("</dl></section>");
}

fn foot(html: &mut String, outcome: &Outcome, command: &str) {
    let _ = write!(
        html,
        "<footer><p>drift {} · policy {}</p><p><code>{}</code></p>",
        env!("CARGO_PKG_VERSION"),
        escape(&outcome.policy_name),
        escape(command)
    );
    for (name, digest) in digests(outcome) {
        let _ = write!(html, "<p>{name} <code>{}</code></p>", escape(&digest));
    }
    html.push_str("</footer>");
}
