//! The evidence of all armed signals, and what it comes to together.

use serde::{Deserialize, Serialize};

use crate::baseline::embedding::Embedding;
use crate::baseline::means::{dot, mean_of};
use crate::baseline::{Baseline, Model, SignalBaseline};
use crate::evidence::recursion::Line;
use crate::evidence::{bennett, bernoulli, directional, dirichlet, fourier, log_sum};
use crate::pane::Pane;
use crate::policy::Policy;
use crate::signal::Signal;
use crate::tally::Tally;

/// Lengths of blocks, in panes, on which shapes are compared: long ones see small changes, short ones see soon.
pub const SCALES: [u32; 4] = [1, 4, 16, 64];

/// Standard errors that the judging half of a baseline may be off along a direction: 99.95 %.
const MARGIN: f64 = 3.29;

/// Prior weights of a number's lines: the shifts', then the tails'.
const NUMERIC_WEIGHTS: [f64; 10] = {
    let (shifts, tails) = (directional::WEIGHTS, bernoulli::TAIL_WEIGHTS);
    let mut weights = [0.0; 10];
    let mut position = 0;
    while position < weights.len() {
        weights[position] = if position < shifts.len() {
            shifts[position]
        } else {
            tails[position - shifts.len()]
        };
        position += 1;
    }
    weights
};

/// Blocks of one length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Block {
    pub(crate) panes: u32,
    pub(crate) start: i64,
    pub(crate) open: Tally,
    pub(crate) line: Line,
}

/// Where an embedding's mean seems to go, by the panes so far; older ones fade.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    pub(crate) sum: Vec<f64>,
}

/// Evidence of one signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalEvidence {
    pub(crate) signal: Signal,
    /// One for each shift, ratio or tail; none where a signal has no direction.
    pub(crate) directional: Vec<Line>,
    /// One for each horizon; only of embeddings.
    pub(crate) directions: Vec<Direction>,
    /// One for each of [`SCALES`]; none for rates.
    pub(crate) omnibus: Vec<Block>,
}

/// Evidence of all armed signals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    pub(crate) signals: Vec<SignalEvidence>,
}

/// The signals of a baseline that are armed: stable, and with a weight.
pub fn armed<'a>(baseline: &'a Baseline, policy: &'a Policy) -> impl Iterator<Item = &'a SignalBaseline> + 'a {
    baseline
        .signals
        .iter()
        .filter(|signal| signal.stable && policy.weight(signal.signal) > 0.0)
}

impl SignalEvidence {
    fn new(baseline: &SignalBaseline) -> Self {
        let learned = bennett::HORIZONS.len() * bennett::BETS.len();
        let (directional, omnibus) = match &baseline.model {
            Model::Numeric(model) if model.sigma > 0.0 => (NUMERIC_WEIGHTS.len(), SCALES.len()),
            Model::Numeric(_) | Model::Categories(_) => (0, SCALES.len()),
            Model::Embedding(_) => (learned, SCALES.len()),
            Model::Rate(_) => (bernoulli::RATIOS.len(), 0),
        };
        Self {
            signal: baseline.signal,
            directional: vec![Line::default(); directional],
            directions: match &baseline.model {
                Model::Embedding(_) => vec![Direction::default(); bennett::HORIZONS.len()],
                _ => Vec::new(),
            },
            omnibus: vec![Block::default(); omnibus],
        }
    }

    fn update(&mut self, baseline: &SignalBaseline, tally: &Tally, start: i64) {
        // Without a single value there is nothing to say: silence is no evidence either way.
        if tally.count == 0 {
            return;
        }
        match &baseline.model {
            Model::Numeric(model) if model.sigma > 0.0 => {
                let sum = model.standardised(tally);
                let size = model.size(tally);
                let kappa = directional::with_margin(&model.kappa, size, model.phi);
                let mut logs = directional::log_e(sum, tally.count as f64, &kappa, model.phi);
                for ((log, line), shift) in logs.iter_mut().zip(&self.directional).zip(directional::SHIFTS) {
                    *log -= directional::price_of_reference(shift, line.run(), tally.count, size, model.phi);
                }
                self.lines(&logs, start, tally);
                if !model.tails.is_empty() {
                    let (events, bounds) = model.tail(tally, &model.table.reference(tally));
                    let ratios = &bernoulli::TAIL_RATIOS;
                    let logs = bernoulli::log_e(events, tally.count as f64, bounds, ratios, model.table.phi);
                    for (line, log_e) in self.directional[directional::SHIFTS.len()..].iter_mut().zip(logs) {
                        line.update(log_e, start, tally);
                    }
                }
            }
            Model::Rate(model) => {
                let (_, bounds, _) = model.reference(tally);
                let events = tally.groups.first().copied().unwrap_or(0) as f64;
                let logs = bernoulli::log_e(events, tally.count as f64, bounds, &bernoulli::RATIOS, model.phi);
                self.lines(&logs, start, tally);
            }
            Model::Embedding(model) => self.along_learned_directions(model, tally, start),
            Model::Numeric(_) | Model::Categories(_) => {}
        }
        for (block, length) in self.omnibus.iter_mut().zip(SCALES) {
            if block.panes == 0 {
                block.start = start;
            }
            block.panes += 1;
            block.open.merge(tally);
            if block.panes == length {
                let open = std::mem::take(&mut block.open);
                block.panes = 0;
                block.line.update(shape(&baseline.model, &open), block.start, &open);
            }
        }
    }

    /// Bets on the directions of the panes before, then learns from this one.
    fn along_learned_directions(&mut self, model: &Embedding, tally: &Tally, start: i64) {
        let [(first, size), (second, other_size)] =
            [&model.halves[0], &model.halves[1]].map(|half| half.reference(tally));
        if size <= 0.0 || other_size <= 0.0 {
            return;
        }
        let mean = mean_of(tally);
        let apart = |from: &[f64]| -> Vec<f64> { mean.iter().zip(from).map(|(mean, from)| mean - from).collect() };
        let (to_learn, to_judge) = (apart(&first), apart(&second));
        let count = tally.count as f64;
        let lines = self.directional.chunks_mut(bennett::BETS.len());
        for ((direction, lines), horizon) in self.directions.iter_mut().zip(lines).zip(bennett::HORIZONS) {
            let length = libm::sqrt(dot(&direction.sum, &direction.sum));
            if length > 0.0 {
                let along: Vec<f64> = direction.sum.iter().map(|value| value / length).collect();
                let variance = model.variance(&along);
                let margin = MARGIN * libm::sqrt(variance / other_size);
                // Features have length one: none reaches further along a direction of length one.
                let bound = model.phi * (1.0 - dot(&along, &second) + margin);
                let logs = bennett::log_e(dot(&along, &to_judge), count, variance, bound, margin);
                for (line, log_e) in lines.iter_mut().zip(logs) {
                    line.update(log_e, start, tally);
                }
            }
            direction.sum.resize(mean.len(), 0.0);
            for (sum, value) in direction.sum.iter_mut().zip(&to_learn) {
                *sum = *sum * (1.0 - 1.0 / horizon) + count * value;
            }
        }
    }

    fn lines(&mut self, logs: &[f64], start: i64, tally: &Tally) {
        for (line, log_e) in self.directional.iter_mut().zip(logs) {
            line.update(*log_e, start, tally);
        }
    }

    /// Directional lines with the logarithms of their prior weights.
    fn weighted(&self) -> impl Iterator<Item = (f64, &Line)> + Clone {
        let even = 1.0 / self.directional.len().max(1) as f64;
        self.directional.iter().enumerate().map(move |(position, line)| {
            let numeric = self.directional.len() == NUMERIC_WEIGHTS.len();
            (libm::log(if numeric { NUMERIC_WEIGHTS[position] } else { even }), line)
        })
    }

    fn log_directional(&self) -> f64 {
        log_sum(self.weighted().map(|(weight, line)| weight + line.log_m))
    }

    /// Its own evidence against its own share of the threshold: comparable with the logarithm of the capacity.
    pub(crate) fn log_evidence(&self) -> f64 {
        let directional = if self.directional.is_empty() {
            f64::NEG_INFINITY
        } else {
            self.log_directional() - libm::log(DIRECTIONAL)
        };
        let omnibus = self
            .omnibus
            .iter()
            .zip(SCALES)
            .map(|(block, length)| block.line.log_m - log_share(length));
        omnibus.fold(directional, f64::max)
    }

    /// The line that says most: its change, and what was seen since.
    pub(crate) fn winner(&self) -> Option<&Line> {
        let blocks = self
            .omnibus
            .iter()
            .zip(SCALES)
            .map(|(block, length)| (block.line.log_m - log_share(length), &block.line));
        let lines = self
            .weighted()
            .map(|(weight, line)| (line.log_m + weight - libm::log(DIRECTIONAL), line));
        lines
            .chain(blocks)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, line)| line)
    }
}

/// What directional evidence has to reach for each unit of capacity: two thirds of the budget are its own.
pub const DIRECTIONAL: f64 = 1.5;
/// The same of blocks of one pane; longer ones are fewer. A twelfth of the budget for each of the four lengths.
pub const OMNIBUS: f64 = 12.0;

/// Logarithm of what blocks of so many panes have to reach for each unit of capacity.
fn log_share(length: u32) -> f64 {
    libm::log(OMNIBUS / f64::from(length))
}

/// Logarithm of the e-value of a block's shape.
fn shape(model: &Model, tally: &Tally) -> f64 {
    match model {
        Model::Numeric(model) => table(&model.table, tally),
        Model::Categories(model) => table(model, tally),
        Model::Embedding(model) => {
            let (squared, size) = model.distance(tally);
            fourier::log_e(squared, tally.count as f64, size, &model.null)
        }
        Model::Rate(_) => 0.0,
    }
}

fn table(table: &crate::baseline::numeric::Table, tally: &Tally) -> f64 {
    dirichlet::log_e(&tally.group_counts(table.width()), &table.reference(tally), table.phi)
}

impl Watch {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(baseline: &Baseline, policy: &Policy) -> Self {
        Self {
            signals: armed(baseline, policy).map(SignalEvidence::new).collect(),
        }
    }

    /// What a pane says, for each armed signal.
    pub(crate) fn tallies(baseline: &Baseline, policy: &Policy, pane: &Pane) -> Vec<Tally> {
        let cell = baseline.season.cell(pane.start);
        armed(baseline, policy)
            .map(|signal| signal.tally(pane, cell).unwrap_or_default())
            .collect()
    }

    /// Weighs the tallies of a joined pane that begins at `start`.
    pub(crate) fn update(&mut self, baseline: &Baseline, policy: &Policy, tallies: &[Tally], start: i64) {
        let signals = armed(baseline, policy).zip(tallies);
        for (evidence, (signal, tally)) in self.signals.iter_mut().zip(signals) {
            evidence.update(signal, tally, start);
        }
    }

    /// The evidence of all signals together: an alarm when it reaches the logarithm of the capacity.
    #[must_use]
    pub fn log_evidence(&self, policy: &Policy) -> f64 {
        let average = |members: Vec<(f64, f64)>| {
            let weight: f64 = members.iter().map(|(weight, _)| weight).sum();
            log_sum(members.iter().map(|(weight, log)| libm::log(*weight) + log)) - libm::log(weight)
        };
        let directional = self
            .signals
            .iter()
            .filter(|signal| !signal.directional.is_empty())
            .map(|signal| (policy.weight(signal.signal), signal.log_directional()));
        let mut best = f64::NEG_INFINITY;
        let directional: Vec<_> = directional.collect();
        if !directional.is_empty() {
            best = average(directional) - libm::log(DIRECTIONAL);
        }
        for (position, length) in SCALES.into_iter().enumerate() {
            let blocks: Vec<_> = self
                .signals
                .iter()
                .filter_map(|signal| Some((policy.weight(signal.signal), signal.omnibus.get(position)?.line.log_m)))
                .collect();
            if !blocks.is_empty() {
                best = best.max(average(blocks) - log_share(length));
            }
        }
        best
    }
}
