//! From panes to a baseline.

use crate::baseline::embedding::Embedding;
use crate::baseline::numeric::{Numeric, Table};
use crate::baseline::rate::Rate;
use crate::baseline::{Baseline, BaselineError, Model, SignalBaseline, groups};
use crate::pane::Pane;
use crate::pane::requesters::Requesters;
use crate::policy::{Policy, Season};
use crate::signal::{Kind, Signal};
use crate::tally::Tally;

/// Requests for which a signal has to be known before it is watched.
const LEAST: u64 = 1_000;
/// Joined panes that it takes to know how much they vary.
const LEAST_UNITS: usize = 20;
/// Requests that an hour needs before it is compared with.
const LEAST_IN_CELL: u64 = 50;

/// One pane's figures of one signal.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) cell: u16,
    /// Which of the joined panes it belongs to.
    pub(crate) unit: usize,
    pub(crate) tally: Tally,
}

/// Tallies of `scale` joined panes each; what does not fill one is left out.
pub(crate) fn blocks(samples: &[Sample], scale: usize) -> Vec<Tally> {
    let mut blocks: Vec<(usize, Tally)> = Vec::new();
    for sample in samples {
        let block = sample.unit / scale;
        match blocks.last_mut() {
            Some((last, tally)) if *last == block => tally.merge(&sample.tally),
            _ => blocks.push((block, sample.tally.clone())),
        }
    }
    // The last one may be a part only.
    if scale > 1 {
        blocks.pop();
    }
    blocks
        .into_iter()
        .map(|(_, tally)| tally)
        .filter(|tally| tally.count > 0)
        .collect()
}

/// Panes with their cell and the joined pane that they belong to.
struct Placed<'a> {
    cell: u16,
    unit: usize,
    pane: &'a Pane,
}

fn placed<'a>(panes: &[&'a Pane], season: Season, min_samples: u64) -> Vec<Placed<'a>> {
    let (mut unit, mut requests) = (0, 0);
    panes
        .iter()
        .map(|pane| {
            let placed = Placed {
                cell: season.cell(pane.start),
                unit,
                pane,
            };
            requests += pane.requests;
            if requests >= min_samples {
                unit += 1;
                requests = 0;
            }
            placed
        })
        .collect()
}

/// Learns without asking whether there is enough, or whether it holds together.
pub(crate) fn learn(panes: &[&Pane], policy: &Policy) -> Result<Baseline, BaselineError> {
    let (Some(first), Some(last)) = (panes.first(), panes.last()) else {
        return Err(BaselineError::Insufficient {
            have: 0,
            want: policy.baseline_min_samples,
        });
    };
    let placed = placed(panes, policy.season, policy.min_samples);
    let mut requesters = Requesters::default();
    let mut by_cell = vec![0_u64; usize::from(policy.season.cells())];
    for item in &placed {
        requesters.merge(&item.pane.requesters);
        by_cell[usize::from(item.cell)] += item.pane.requests;
    }
    let signals = Signal::ALL
        .into_iter()
        .filter_map(|signal| {
            let model = model(signal, &placed, by_cell.len())?;
            Some(SignalBaseline {
                signal,
                model,
                stable: true,
            })
        })
        .collect();
    Ok(Baseline {
        season: policy.season,
        pane_seconds: policy.pane_seconds,
        from: first.start,
        to: last.end(),
        requests: panes.iter().map(|pane| pane.requests).sum(),
        panes: panes.len() as u64,
        known: by_cell.iter().map(|requests| *requests >= LEAST_IN_CELL).collect(),
        signals,
        requesters,
        layout: first.layout,
    })
}

fn model(signal: Signal, placed: &[Placed<'_>], cells: usize) -> Option<Model> {
    let samples = |tally: &dyn Fn(&Pane, u16) -> Option<Tally>| -> Vec<Sample> {
        placed
            .iter()
            .filter_map(|item| {
                let tally = tally(item.pane, item.cell)?;
                Some(Sample {
                    cell: item.cell,
                    unit: item.unit,
                    tally,
                })
            })
            .collect()
    };
    let enough = |samples: &[Sample]| {
        samples.iter().map(|sample| sample.tally.count).sum::<u64>() >= LEAST && blocks(samples, 1).len() >= LEAST_UNITS
    };
    match signal.kind() {
        Kind::Numeric(scale) => {
            let histograms: Vec<_> = placed
                .iter()
                .filter_map(|item| Some((item.cell, item.pane.number(signal)?)))
                .collect();
            let in_groups = |groups: &[u16], width: usize| {
                samples(&|pane, cell| Some(Numeric::tally(groups, width, pane.number(signal)?, cell)))
            };
            enough(&in_groups(&[], 1))
                .then(|| Model::Numeric(Box::new(Numeric::learn(&scale, &histograms, &in_groups, cells))))
        }
        Kind::Rate => {
            let samples = samples(&|pane, cell| Some(rate_tally(pane.rate(signal)?, cell)));
            enough(&samples).then(|| Model::Rate(Rate::learn(&samples, cells)))
        }
        Kind::Categories(count) => {
            let mut pooled = vec![0; count];
            for item in placed {
                crate::pane::histogram::add(&mut pooled, item.pane.categories(signal)?);
            }
            let groups = groups::of_categories(&pooled);
            let width = groups::count(&groups);
            let samples = samples(&|pane, cell| Some(category_tally(&groups, width, pane.categories(signal)?, cell)));
            enough(&samples).then(|| Model::Categories(Table::learn(groups.clone(), width, &samples, cells)))
        }
        Kind::Embedding => {
            let samples = samples(&|pane, cell| Some(embedding_tally(pane, cell)));
            enough(&samples)
                .then(|| Embedding::learn(&samples, cells))
                // Prompts that are all the same have no spread to measure a change by.
                .filter(|model| model.trace > 0.0)
                .map(Model::Embedding)
        }
    }
}

fn in_cell(cell: u16, count: u64) -> Vec<(u16, u64)> {
    if count > 0 { vec![(cell, count)] } else { Vec::new() }
}

fn rate_tally(rate: crate::pane::Rate, cell: u16) -> Tally {
    Tally {
        count: rate.trials,
        groups: vec![rate.events],
        sums: Vec::new(),
        cells: in_cell(cell, rate.trials),
    }
}

fn category_tally(groups: &[u16], width: usize, counts: &[u64], cell: u16) -> Tally {
    let mut grouped = vec![0; width];
    groups::fold(groups, counts, &mut grouped);
    let count = grouped.iter().sum();
    Tally {
        count,
        groups: grouped,
        sums: Vec::new(),
        cells: in_cell(cell, count),
    }
}

fn embedding_tally(pane: &Pane, cell: u16) -> Tally {
    Tally {
        count: pane.embedding.count,
        groups: Vec::new(),
        sums: pane.embedding.sums.iter().map(|sum| i128::from(*sum)).collect(),
        cells: in_cell(cell, pane.embedding.count),
    }
}

impl SignalBaseline {
    /// What a pane says of this signal, in the baseline's groups. `cell` is [`Season::cell`] of the pane's beginning.
    #[must_use]
    pub fn tally(&self, pane: &Pane, cell: u16) -> Option<Tally> {
        match &self.model {
            Model::Numeric(model) => {
                let histogram = pane.number(self.signal)?;
                Some(Numeric::tally(
                    &model.table.groups,
                    model.table.width(),
                    histogram,
                    cell,
                ))
            }
            Model::Rate(_) => Some(rate_tally(pane.rate(self.signal)?, cell)),
            Model::Categories(table) => Some(category_tally(
                &table.groups,
                table.width(),
                pane.categories(self.signal)?,
                cell,
            )),
            Model::Embedding(_) => Some(embedding_tally(pane, cell)),
        }
    }
}
