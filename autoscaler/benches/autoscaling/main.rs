//! Perennial's autoscaler beside its peers in one simulated world (`make bench-autoscaling`).
//!
//!     cargo bench -p perennial-autoscaler --bench autoscaling -- [--seeds 101,102,103] [--out FILE]
//!         [--trace AZURE.csv]... [--write-trace FILE]
//!
//! Every autoscaler is tried with many values of its knob. What it costs is hours of replicas, starting and draining ones
//! too; what it gives is seconds in which more than one of twenty requests waited longer for its first token than the
//! objective. Compared is at equal cost. The constants of the autoscaler were chosen on the seeds 1 and 2.

mod compare;
mod ours;
mod peers;
mod random;
mod scaler;
mod trace;
mod world;

use std::fmt::Write as _;

use compare::{BUDGETS, COLD_STARTS, Kind, OBJECTIVE, Run, Scenario, at_cost, curve, play};
use trace::Family;

/// Seeds on which nothing was tuned.
const REPORTED: &[u64] = &[101, 102, 103];
/// Minutes of the trace that the repository ships.
const SHIPPED_MINUTES: f64 = 10.0;

#[derive(Default)]
struct Arguments {
    seeds: Vec<u64>,
    out: Option<String>,
    traces: Vec<String>,
    write_trace: Option<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--seeds" => {
                let seeds = value()?;
                let parsed: Result<Vec<u64>, _> = seeds.split(',').map(str::parse).collect();
                arguments.seeds = parsed.map_err(|error| format!("--seeds {seeds}: {error}"))?;
            }
            "--out" => arguments.out = Some(value()?),
            "--trace" => arguments.traces.push(value()?),
            "--write-trace" => arguments.write_trace = Some(value()?),
            other => return Err(format!("{other} is not known: --seeds, --out, --trace, --write-trace")),
        }
    }
    if arguments.seeds.is_empty() {
        arguments.seeds = REPORTED.to_vec();
    }
    Ok(arguments)
}

fn scenarios(arguments: &Arguments) -> Result<Vec<Scenario>, String> {
    if arguments.traces.is_empty() {
        let families = Family::ALL.iter();
        let of_family = |family: &Family| {
            arguments
                .seeds
                .iter()
                .map(move |seed| (*family, *seed))
                .collect::<Vec<_>>()
        };
        return Ok(families
            .flat_map(of_family)
            .map(|(family, seed)| Scenario::synthetic(family, seed))
            .collect());
    }
    let read = |path: &String| {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Scenario {
            name: path.clone(),
            trace: trace::read(&text).map_err(|error| format!("{path}: {error}"))?,
            blackouts: Vec::new(),
        })
    };
    arguments.traces.iter().map(read).collect()
}

fn main() -> Result<(), String> {
    let arguments = arguments()?;
    if let Some(path) = &arguments.write_trace {
        let text = trace::write(&trace::synthetic(Family::Wander, 1), SHIPPED_MINUTES * 60.0);
        return std::fs::write(path, text).map_err(|error| format!("{path}: {error}"));
    }
    println!("{} examples of the peers' own tests hold", peers::check());
    let scenarios = scenarios(&arguments)?;
    let runs = play(&scenarios, &Kind::ALL, &COLD_STARTS);
    let mut names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    names.dedup();
    let mut rows = Vec::new();
    for name in names {
        for cold_start in COLD_STARTS {
            rows.push(row(name, cold_start, &scenarios, &runs));
        }
    }
    if let Some(path) = &arguments.out {
        let head = format!("\"objectiveSeconds\": {OBJECTIVE}, \"seeds\": {:?}", arguments.seeds);
        let text = format!("{{{head}, \"rows\": [\n{}\n]}}\n", rows.join(",\n"));
        std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// One family at one cold start: a line for people, and JSON.
fn row(name: &str, cold_start: f64, scenarios: &[Scenario], runs: &[Run]) -> String {
    let of: Vec<usize> = (0..scenarios.len())
        .filter(|index| scenarios[*index].name == name)
        .collect();
    let ideal: f64 = of.iter().map(|index| scenarios[*index].ideal()).sum();
    let seconds: f64 = of
        .iter()
        .map(|index| scenarios[*index].trace.last().map_or(0.0, |last| last.at))
        .sum();
    let mut json = format!(
        "{{\"family\": \"{name}\", \"coldStart\": {cold_start}, \"idealHours\": {ideal:.3}, \"seconds\": {seconds:.0}, \"curves\": {{"
    );
    let curves: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| (kind, curve(runs, *kind, cold_start, &of)))
        .collect();
    for (index, (kind, curve)) in curves.iter().enumerate() {
        let points: Vec<String> = curve
            .iter()
            .map(|(cost, over, target)| format!("[{cost:.3}, {over:.0}, {target}]"))
            .collect();
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(json, "{comma}\"{}\": [{}]", kind.name(), points.join(", "));
    }
    json.push_str("}, \"atCost\": [");
    print!("{name:7} {cold_start:4} s");
    for (index, budget) in BUDGETS.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(json, "{comma}{{\"budget\": {budget}");
        print!(" | x{budget}");
        for (kind, curve) in &curves {
            match at_cost(curve, budget * ideal) {
                Some(over) => {
                    let _ = write!(json, ", \"{}\": {over:.1}", kind.name());
                    print!(" {:6.2}", 100.0 * over / seconds);
                }
                None => print!("      -"),
            }
        }
        json.push('}');
    }
    println!();
    json.push_str("]}");
    json
}
