//! Autoscalers side by side (`make bench-autoscaling`).

mod compare;
mod ours;
mod peers;
mod random;
mod scaler;
mod trace;
mod world;

use compare::{BUDGETS, COLD_STARTS, Kind, Scenario, at_cost, curve, play};
use trace::Family;

fn main() {
    let seeds: Vec<u64> = std::env::var("SEEDS").unwrap_or("1,2".into()).split(',').map(|s| s.parse().unwrap_or(1)).collect();
    let kinds: Vec<Kind> = if std::env::var("OURS").is_ok() { vec![Kind::Perennial] } else { Kind::ALL.to_vec() };
    let mut scenarios = Vec::new();
    for family in Family::ALL {
        for &seed in &seeds {
            scenarios.push(Scenario::synthetic(family, seed));
        }
    }
    let runs = play(&scenarios, &kinds, &COLD_STARTS);
    for family in Family::ALL {
        let of: Vec<usize> = (0..scenarios.len()).filter(|i| scenarios[*i].name == family.name()).collect();
        let ideal: f64 = of.iter().map(|i| scenarios[*i].ideal()).sum();
        let seconds: f64 = of.iter().map(|i| scenarios[*i].trace.last().map_or(0.0, |r| r.at)).sum();
        for cold in COLD_STARTS {
            print!("{:7} {cold:3}:", family.name());
            for budget in BUDGETS {
                print!(" | x{budget}");
                for &kind in &kinds {
                    let curve = curve(&runs, kind, cold, &of);
                    match at_cost(&curve, budget * ideal) {
                        Some(over) => print!(" {:6.2}", 100.0 * over / seconds),
                        None => print!("      -"),
                    }
                }
            }
            println!();
        }
    }
}
