//! The page: works offline, and says first how it ended. Pure.

use std::fmt::Write as _;

use perennial_drift::explain::time;

use super::super::ledger::{Kind, Model, Outcome};
use super::{Report, curve};

const STYLE: &str = include_str!("style.css");

/// The page of one cycle.
#[must_use]
pub fn page(report: &Report, policy: &str, target: &str) -> String {
    let mut html = String::new();
    let title = title(report, target);
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>",
        escape(&title)
    );
    head(&mut html, report, policy, &title);
    signals(&mut html, report);
    training(&mut html, report);
    gate(&mut html, report);
    lineage(&mut html, report);
    html.push_str("</main></body></html>\n");
    html
}

fn title(report: &Report, target: &str) -> String {
    match report.outcome {
        Outcome::Promoted => format!("{target} has learned: a better model serves"),
        Outcome::Rejected => format!("{target} stays as it is: what was trained is not better"),
        Outcome::RolledBack => format!("{target} stays as it is: the better model did not come up"),
        Outcome::Failed => format!("{target} stays as it is: the cycle failed"),
        Outcome::Superseded => format!("{target} went another way meanwhile"),
        Outcome::Withdrawn => format!("{target} stays as it is: there was no reason any more"),
    }
}

fn head(html: &mut String, report: &Report, policy: &str, title: &str) {
    let class = match report.outcome {
        Outcome::Promoted => "good",
        Outcome::Failed | Outcome::RolledBack => "bad",
        Outcome::Rejected | Outcome::Superseded | Outcome::Withdrawn => "even",
    };
    let _ = write!(
        html,
        "<header class=\"{class}\"><p class=\"kicker\">DriftPolicy {}, cycle {}</p><h1>{}</h1><p class=\"lead\">{}</p><dl class=\"facts\">",
        escape(policy),
        escape(&report.id),
        escape(title),
        escape(&sentence(&report.message))
    );
    let mut fact = |name: &str, value: &str| {
        let _ = write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    };
    fact("Outcome", &format!("{:?}, {}", report.outcome, report.reason));
    fact("Cause", &format!("{:?}", report.cause));
    fact("Drifting since", &time(report.drifted_since));
    fact("Began", &time(report.started));
    fact("Took", &duration(report.ended - report.started));
    if report.gpu_seconds > 0 {
        fact("GPU time", &duration(report.gpu_seconds));
    }
    html.push_str("</dl></header>");
}

fn signals(html: &mut String, report: &Report) {
    if report.signals.is_empty() {
        return;
    }
    html.push_str("<section><h2>What drifted</h2><div class=\"scroll\"><table><tr><th>signal</th><th class=\"n\">share of the evidence</th><th>since</th><th>how</th></tr>");
    for signal in &report.signals {
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"n\">{:.0} %</td><td>{}</td><td>{}</td></tr>",
            escape(&signal.name),
            signal.share_of_evidence_percent,
            escape(&time(signal.since)),
            escape(&signal.sentence)
        );
    }
    html.push_str("</table></div></section>");
}

fn training(html: &mut String, report: &Report) {
    let Some(training) = &report.training else { return };
    let _ = write!(
        html,
        "<section><h2>Training</h2><p class=\"note\">{} records. The bold line is the loss on rows that are not trained on.</p>",
        report.records
    );
    html.push_str(&curve::draw(&training.curve).unwrap_or_default());
    if !training.figures.is_empty() {
        html.push_str("<dl class=\"facts\">");
        for (name, value) in &training.figures {
            let _ = write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
        html.push_str("</dl>");
    }
    html.push_str("</section>");
}

fn gate(html: &mut String, report: &Report) {
    if report.verdicts.is_empty() {
        return;
    }
    html.push_str(
        "<section><h2>Gate</h2><p class=\"note\">Both models on the same items, in thousandths of the score. What is certain is \
         the least difference that the items leave open; it must be more than what is needed.</p><div class=\"scroll\"><table>\
         <tr><th>suite</th><th class=\"n\">items</th><th class=\"n\">champion</th><th class=\"n\">candidate</th>\
         <th class=\"n\">certain</th><th class=\"n\">needed</th><th>verdict</th></tr>",
    );
    for verdict in &report.verdicts {
        let (class, said) = if verdict.passed {
            ("good", "passed")
        } else {
            ("bad", "not passed")
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.0}</td><td class=\"n\">{:.0}</td><td class=\"n\">{:+.1}</td>\
             <td class=\"n\">{:+.1}</td><td class=\"{class}\">{said}</td></tr>",
            escape(&verdict.suite),
            verdict.items,
            verdict.champion * 1000.0,
            verdict.candidate * 1000.0,
            verdict.lower * 1000.0,
            verdict.needed * 1000.0
        );
    }
    html.push_str("</table></div></section>");
}

fn lineage(html: &mut String, report: &Report) {
    html.push_str("<section><h2>Where it comes from</h2><div class=\"scroll\"><table>");
    let mut row = |name: &str, value: &str| {
        let _ = write!(
            html,
            "<tr><td>{}</td><td><code>{}</code></td></tr>",
            escape(name),
            escape(value)
        );
    };
    row("base, as Git asks for it", &model(&report.base));
    row("champion, which served", &model(&report.champion));
    if let Some(candidate) = &report.candidate {
        row("candidate", &model(candidate));
    }
    if let Some(manifest) = &report.manifest {
        row("manifest of the data", manifest);
    }
    if let Some(suites) = &report.suites {
        row("items of the suites", suites);
    }
    for (kind, ended) in &report.jobs {
        let name = match kind {
            Kind::Prepare => "data frozen",
            Kind::Retrain => "trained",
            Kind::Gate => "judged",
            Kind::Publish => "published",
        };
        row(name, &time(*ended));
    }
    row("ended", &time(report.ended));
    html.push_str("</table></div></section>");
}

fn model(model: &Model) -> String {
    match (&model.claim, &model.claim_path) {
        (Some(claim), Some(path)) => format!("{} on the claim {claim}, {path}", model.digest),
        (Some(claim), None) => format!("{} on the claim {claim}", model.digest),
        _ => format!("{} {}", model.digest, model.uri),
    }
}

/// Two units at most.
fn duration(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter if letter.is_control() => safe.push(' '),
            letter => safe.push(letter),
        }
    }
    safe
}
