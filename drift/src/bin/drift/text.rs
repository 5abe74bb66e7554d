//! The report on a terminal.

use std::fmt::Write as _;

use perennial_drift::baseline::{Baseline, Model};
use perennial_drift::decision::Phase;
use perennial_drift::envelope;
use perennial_drift::explain::{SignalReport, Unarmed};
use perennial_drift::policy::{Policy, Season};
use perennial_drift::signal::Signal;

use crate::input::Summary;
use crate::replay::{Outcome, Skipped};
use crate::terminal::{Style, line, table, wrapped};
use crate::words::{self, Clock, thousands};

/// The whole report.
pub fn report(outcome: &Outcome, style: Style) -> String {
    let mut text = String::new();
    input(&mut text, &outcome.summary, style);
    traffic(&mut text, outcome, style);
    baseline(&mut text, outcome, style);
    verdict(&mut text, outcome, style);
    signals(&mut text, outcome, style);
    text
}

/// What was read, as `compare` shows it, too.
pub fn input(text: &mut String, summary: &Summary, style: Style) {
    let _ = writeln!(text, "{}", style.heading("Input"));
    for (file, format) in summary.files.iter().zip(&summary.formats) {
        line(text, "file", &format!("{file} ({format})"), style);
    }
    line(
        text,
        "lines",
        &format!(
            "{}, of which {} requests were used",
            thousands(summary.lines),
            thousands(summary.requests)
        ),
        style,
    );
    if summary.bad_lines > 0 {
        line(
            text,
            "bad lines",
            &style.paint("33", &thousands(summary.bad_lines)),
            style,
        );
        for bad in &summary.bad {
            line(text, "", &format!("{}:{}: {}", bad.file, bad.line, bad.reason), style);
        }
        let more = summary.bad_lines - summary.bad.len() as u64;
        if more > 0 {
            line(text, "", &format!("and {} more", thousands(more)), style);
        }
    }
    for (count, what) in [
        (summary.blank_lines, "blank lines"),
        (summary.outside, "requests outside of --from and --until"),
        (
            summary.out_of_order,
            "requests later in the input than in time; they were put in order",
        ),
    ] {
        if count > 0 {
            line(text, "", &format!("{} {what}", thousands(count)), style);
        }
    }
    if !summary.ignored_fields.is_empty() {
        let fields: Vec<String> = summary
            .ignored_fields
            .iter()
            .map(|(name, count)| format!("{name} ({})", thousands(*count)))
            .collect();
        line(text, "not used", &fields.join(", "), style);
    }
}

fn traffic(text: &mut String, outcome: &Outcome, style: Style) {
    let (from, to) = outcome.span;
    match outcome.clock {
        Clock::Time => {
            let value = format!(
                "{} to {}, {}",
                words::time(from),
                words::time(to),
                words::duration(to - from)
            );
            line(text, "time", &value, style);
        }
        Clock::Count(count, _) => line(
            text,
            "time",
            &format!("not looked at: {count} requests are one pane"),
            style,
        ),
    }
    let panes = format!(
        "{} of {} s, and {} without a request",
        thousands(outcome.panes),
        outcome.policy.pane_seconds,
        thousands(outcome.gaps)
    );
    line(text, "panes", &panes, style);
}

/// What the budget allows, in words.
pub fn budget(policy: &Policy, clock: Clock) -> String {
    let percent = f64::from(policy.max_per_mille) / 10.0;
    let share = if policy.probe_interval_seconds.is_some() {
        ", a tenth of it for probes"
    } else {
        ""
    };
    let panes = policy.capacity() * f64::from(policy.max_per_mille) / 1_000.0;
    let time = match clock {
        Clock::Time => format!("{} days", policy.per_days),
        Clock::Count(..) => format!("{} panes", thousands(panes.round() as u64)),
    };
    format!(
        "at most {percent} % chance of any false alarm in {time}, all signals together{share}: evidence of {} to 1",
        thousands(policy.capacity().round() as u64)
    )
}

/// The rhythm in words.
pub fn season(season: Season) -> &'static str {
    match season {
        Season::None => "all hours together",
        Season::HourOfDay => "by hour of the day (UTC)",
        Season::HourOfWeek => "by hour of the week (UTC)",
    }
}

/// Signals whose requests depend on each other, with by how much evidence is divided.
pub fn design_effects(baseline: &Baseline) -> Vec<(Signal, f64)> {
    baseline
        .signals
        .iter()
        .filter_map(|signal| {
            let phi = match &signal.model {
                Model::Numeric(model) => model.phi.max(model.table.phi),
                Model::Rate(model) => model.phi,
                Model::Categories(table) => table.phi,
                Model::Embedding(_) => 1.0,
            };
            (phi > 1.0).then_some((signal.signal, phi))
        })
        .collect()
}

/// Why a signal is not armed, in words.
pub fn why_unarmed(why: Unarmed) -> &'static str {
    match why {
        Unarmed::InsufficientData => "seen too rarely in the baseline",
        Unarmed::BaselineUnstable => "its baseline's halves differ",
    }
}

fn baseline(text: &mut String, outcome: &Outcome, style: Style) {
    let (baseline, clock) = (&outcome.baseline, outcome.clock);
    let origin = if outcome.baseline_learned {
        "learned from this input"
    } else {
        "from a file"
    };
    let _ = writeln!(text, "\n{}", style.heading("Baseline"));
    let value = format!(
        "{} to {}, {}: {} requests in {} panes, {origin}",
        clock.at(baseline.from),
        clock.at(baseline.to),
        clock.span(baseline.to - baseline.from),
        thousands(baseline.requests),
        thousands(baseline.panes)
    );
    line(text, "span", &value, style);
    line(text, "compared", season(baseline.season), style);
    let unknown = baseline.known.iter().filter(|known| !**known).count();
    if unknown > 0 {
        line(
            text,
            "",
            &format!(
                "{unknown} of {} hours are too little known and left out",
                baseline.known.len()
            ),
            style,
        );
    }
    let armed = if outcome.armed.is_empty() {
        style.paint("33", "none: nothing is watched")
    } else {
        words::names(&outcome.armed)
    };
    line(text, "armed", &armed, style);
    for reason in [Unarmed::InsufficientData, Unarmed::BaselineUnstable] {
        let signals: Vec<Signal> = outcome
            .report
            .unarmed
            .iter()
            .filter(|(_, why)| *why == reason)
            .map(|(signal, _)| *signal)
            .collect();
        if !signals.is_empty() {
            line(
                text,
                "not armed",
                &format!("{}: {}", why_unarmed(reason), words::names(&signals)),
                style,
            );
        }
    }
    let effects: Vec<String> = design_effects(baseline)
        .iter()
        .map(|(signal, phi)| format!("{signal:?} {phi:.1}"))
        .collect();
    if !effects.is_empty() {
        let value = format!("requests are alike, evidence is divided by: {}", effects.join(", "));
        line(text, "dependence", &value, style);
    }
    line(text, "budget", &budget(&outcome.policy, clock), style);
}

/// The verdict in one sentence.
pub fn headline(outcome: &Outcome) -> String {
    let verdict = &outcome.verdict;
    let at = |seconds| outcome.clock.at(seconds);
    match verdict.phase {
        Phase::Drifted => format!("Drifted, confirmed {}", at(verdict.phase_since)),
        Phase::Suspected => format!(
            "Suspected since {}: the traffic is not the baseline's; whether it matters was not certain for long enough",
            at(verdict.phase_since)
        ),
        Phase::Watching | Phase::Learning if outcome.timeline.is_empty() => {
            "Nothing was watched: all of the input went into the baseline".to_owned()
        }
        Phase::Watching | Phase::Learning => {
            let drifts = outcome
                .episodes
                .iter()
                .filter(|episode| episode.drifted.is_some())
                .count();
            match drifts {
                0 => "No drift".to_owned(),
                1 => "No drift at the end; one came and went".to_owned(),
                count => format!("No drift at the end; {count} came and went"),
            }
        }
    }
}

/// What was left out, and why.
pub fn left_out(outcome: &Outcome) -> Vec<String> {
    let count = |why| {
        outcome
            .timeline
            .iter()
            .filter(|moment| moment.skipped == Some(why))
            .count() as u64
    };
    let left = outcome.state.left;
    [
        (
            outcome.before,
            "panes from before the end of the given baseline or state",
        ),
        (count(Skipped::Gap), "panes without a request"),
        (
            count(Skipped::HourNotLearned),
            "panes of hours of which too little is known",
        ),
        (left.insufficient, "joined panes that never got enough requests"),
        (left.cleared, "suspicions that came to nothing"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", thousands(count)))
    .collect()
}

/// The highest evidence of the run.
pub fn highest(outcome: &Outcome) -> Option<(f64, i64)> {
    outcome
        .timeline
        .iter()
        .map(|moment| (moment.log_evidence, moment.time))
        .max_by(|a, b| a.0.total_cmp(&b.0))
}

fn verdict(text: &mut String, outcome: &Outcome, style: Style) {
    let (verdict, clock) = (&outcome.verdict, outcome.clock);
    let colour = match verdict.phase {
        Phase::Drifted => "1;31",
        Phase::Suspected => "1;33",
        Phase::Watching | Phase::Learning => "1;32",
    };
    let _ = writeln!(
        text,
        "\n{}  {}",
        style.heading("Verdict"),
        style.paint(colour, &headline(outcome))
    );
    let evidence = format!(
        "e^{:.1}, where e^{:.1} is an alarm",
        verdict.log_evidence.max(0.0),
        verdict.log_threshold
    );
    line(text, "evidence", &evidence, style);
    if let Some((highest, at)) = highest(outcome)
        && verdict.phase == Phase::Watching
        && highest > 0.0
    {
        line(text, "highest", &format!("e^{highest:.1} at {}", clock.at(at)), style);
    }
    line(
        text,
        "weighed",
        &format!("{} joined panes", thousands(outcome.state.updates)),
        style,
    );
    let left = left_out(outcome);
    if !left.is_empty() {
        line(text, "left out", &left.join(", "), style);
    }
    if let Some(cause) = verdict.cause {
        line(text, "cause", &format!("{cause:?}: {}", cause.sentence()), style);
        line(text, "by default", &format!("{:?}", cause.response()), style);
    }
    for (position, episode) in outcome.episodes.iter().enumerate() {
        let mut value = format!(
            "change since {}, suspected {}",
            clock.at(episode.since),
            clock.at(episode.suspected)
        );
        if let Some(drifted) = episode.drifted {
            let _ = write!(value, ", drifted {}", clock.at(drifted));
        }
        if let Some(ended) = episode.ended {
            let _ = write!(value, ", over {}", clock.at(ended));
        }
        if let Some(cause) = episode.cause {
            let _ = write!(value, " ({cause:?}: {})", words::names(&episode.moved));
        }
        line(text, if position == 0 { "history" } else { "" }, &value, style);
    }
}

fn signals(text: &mut String, outcome: &Outcome, style: Style) {
    if outcome.report.signals.is_empty() {
        return;
    }
    let at = outcome.report_of.map_or_else(String::new, |at| {
        format!(" when the last drift was confirmed, {}", outcome.clock.at(at))
    });
    let _ = writeln!(text, "\n{}{at}", style.heading("Signals"));
    let header = [
        "signal",
        "class",
        "evidence",
        "share",
        "effect [bounds]",
        "matters from",
        "since",
    ];
    let rows: Vec<[String; 7]> = outcome
        .report
        .signals
        .iter()
        .map(|signal| row(signal, outcome))
        .collect();
    table(text, &header, &rows, &[1, 3, 6, 5], style, |position| {
        let signal = &outcome.report.signals[position];
        if signal.matters {
            Some("31")
        } else if signal.moved {
            Some("33")
        } else {
            None
        }
    });
    let moved: Vec<&SignalReport> = outcome.report.signals.iter().filter(|signal| signal.moved).collect();
    if !moved.is_empty() {
        let _ = writeln!(text);
    }
    for signal in moved {
        for (position, part) in wrapped(&outcome.clock.sentence(&signal.sentence, signal.since), style.width - 4)
            .iter()
            .enumerate()
        {
            let _ = writeln!(text, "  {} {part}", if position == 0 { "·" } else { " " });
        }
    }
}

fn row(signal: &SignalReport, outcome: &Outcome) -> [String; 7] {
    let min = outcome.policy.min_effect(signal.signal);
    // The effect that decides is the one that is the most of what matters.
    let measured = signal
        .effects
        .iter()
        .filter_map(|effect| Some((effect, effect.least(&min)?)));
    let strongest = measured.max_by(|a, b| (a.0.lower / a.1.max(1e-9)).total_cmp(&(b.0.lower / b.1.max(1e-9))));
    let (effect, least) = match strongest {
        Some((effect, least)) if signal.moved => (words::effect(effect), words::least(effect, least)),
        Some((effect, least)) => ("–".to_owned(), words::least(effect, least)),
        None => ("–".to_owned(), "–".to_owned()),
    };
    [
        signal.name.clone(),
        words::class(signal.class).to_owned(),
        format!("e^{:.1}", signal.log_evidence),
        format!("{:.0} %", signal.share_of_evidence_percent),
        effect,
        least,
        if signal.moved {
            outcome.clock.at(signal.since)
        } else {
            "–".to_owned()
        },
    ]
}

/// Names the bytes that a run rests on.
pub fn digests(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let policy = envelope::digest(format!("{:?}", outcome.policy).as_bytes());
    vec![("baseline", outcome.baseline_digest.clone()), ("policy", policy)]
}
