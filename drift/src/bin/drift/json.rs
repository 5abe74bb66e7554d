//! The report for programs. Field names are part of the interface: docs/reference/drift.md.

use serde::Serialize;
use serde_json::{Value, json};

use crate::replay::Outcome;
use crate::text::{design_effects, digests, headline};
use crate::words::Clock;

/// The whole report.
pub fn report(outcome: &Outcome) -> Result<Value, serde_json::Error> {
    let baseline = &outcome.baseline;
    let design: serde_json::Map<String, Value> = design_effects(baseline)
        .into_iter()
        .map(|(signal, phi)| (format!("{signal:?}"), json!(phi)))
        .collect();
    let unarmed: serde_json::Map<String, Value> = outcome
        .report
        .unarmed
        .iter()
        .map(|(signal, why)| (format!("{signal:?}"), json!(why)))
        .collect();
    let left = outcome.state.left;
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "input": with(&outcome.summary, json!({
            "from": outcome.span.0,
            "to": outcome.span.1,
            "panes": outcome.panes,
            "gaps": outcome.gaps,
            "panesBefore": outcome.before,
            "panesOf": match outcome.clock { Clock::Time => None, Clock::Count(count, _) => Some(count) },
        }))?,
        "policy": {
            "file": outcome.policy_name,
            "paneSeconds": outcome.policy.pane_seconds,
            "maxPerMille": outcome.policy.max_per_mille,
            "perDays": outcome.policy.per_days,
            "capacity": outcome.policy.capacity(),
            "confirmSeconds": outcome.policy.confirm_seconds,
        },
        "baseline": {
            "digest": outcome.baseline_digest,
            "learned": outcome.baseline_learned,
            "from": baseline.from,
            "to": baseline.to,
            "requests": baseline.requests,
            "panes": baseline.panes,
            "season": baseline.season,
            "armed": outcome.armed,
            "unarmed": unarmed,
            "designEffects": design,
        },
        "verdict": with(&outcome.verdict, json!({ "headline": headline(outcome) }))?,
        "leftOut": {
            "gaps": left.gaps,
            "hoursNotLearned": left.unlearned,
            "insufficient": left.insufficient,
            "cleared": left.cleared,
            "recovered": left.recovered,
        },
        "signalsOf": outcome.report_of,
        "signals": outcome.report.signals,
        "episodes": outcome.episodes,
        "digests": digests(outcome).into_iter().map(|(name, digest)| (name.to_owned(), json!(digest))).collect::<serde_json::Map<_, _>>(),
        "series": { "seconds": outcome.width, "signals": outcome.drawn },
        "timeline": outcome.timeline,
    }))
}

fn with(value: &impl Serialize, more: Value) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(value)?;
    if let (Value::Object(object), Value::Object(more)) = (&mut value, more) {
        object.extend(more);
    }
    Ok(value)
}
