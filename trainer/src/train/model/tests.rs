//! The whole decoder against differences and against candle's recorded gradients.

use candle_core::{D, DType, Device, Tensor, Var};
use perennial_engine::model::Rope;

use super::*;
use crate::train::random::Random;

fn config(architecture: &str) -> ModelConfig {
    let width = 6;
    ModelConfig {
        architecture: architecture.to_owned(),
        hidden: 20,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_width: width,
        feed_forward: 28,
        vocabulary: 40,
        context: 128,
        norm_epsilon: 1e-5,
        rope: Rope {
            frequencies: (0..width / 2).map(|pair| 1.0 / 10_f32.powi(pair as i32)).collect(),
            interleaved: false,
        },
    }
}

fn random(random: &mut Random, count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|_| random.symmetric() * scale).collect()
}

fn norm(numbers: &mut Random, count: usize) -> Vec<f32> {
    random(numbers, count, 0.3).iter().map(|value| value + 1.0).collect()
}

/// A random model with everything that any of the architectures has.
fn decoder(architecture: &str) -> Decoder {
    let config = config(architecture);
    let numbers = &mut Random::new(11, 0);
    let head_norms = architecture == "qwen3";
    let layers = (0..config.layers).map(|_| Layer {
        attention_norm: norm(numbers, config.hidden),
        projections: Projection::ALL
            .iter()
            .map(|projection| {
                let (outputs, inputs) = projection.shape(&config);
                let turned = projection.turned_heads(&config).is_some();
                Linear {
                    weight: random(numbers, outputs * inputs, 1.7 / (inputs as f32).sqrt()),
                    bias: (turned && !head_norms).then(|| random(numbers, outputs, 0.2)),
                    outputs,
                    inputs,
                }
            })
            .collect(),
        query_norm: head_norms.then(|| norm(numbers, config.head_width)),
        key_norm: head_norms.then(|| norm(numbers, config.head_width)),
        feed_norm: norm(numbers, config.hidden),
    });
    let layers = layers.collect();
    let table = config.vocabulary * config.hidden;
    let weights = Weights {
        embedding: random(numbers, table, 1.0),
        layers,
        norm: norm(numbers, config.hidden),
        head: head_norms.then(|| random(numbers, table, 0.5)),
        head_bias: head_norms.then(|| random(numbers, config.vocabulary, 0.1)),
    };
    Decoder { config, weights }
}

const SEQUENCES: [usize; 2] = [5, 11];

fn batch() -> Batch {
    let mut batch = Batch::default();
    for (number, length) in SEQUENCES.into_iter().enumerate() {
        let tokens: Vec<u32> = (0..length).map(|at| ((at * 7 + number * 5) % 40) as u32).collect();
        let targets: Vec<Target> = (number + 1..length)
            .map(|row| Target {
                row,
                token: ((row * 3 + number) % 40) as u32,
                weight: 0.05 * (row + 1) as f32,
            })
            .collect();
        batch.push(&tokens, &targets);
    }
    batch
}

/// An adapter of which neither half is zero.
fn adapter(decoder: &Decoder, targets: &[Projection]) -> (Layout, Vec<f32>) {
    let layout = Layout::new(&decoder.config, targets, 3, 6.0);
    let values = random(&mut Random::new(4, 4), layout.length(), 0.2);
    (layout, values)
}

fn weighted(losses: &[f32]) -> f64 {
    let batch = batch();
    let pairs = batch.targets().iter().zip(losses);
    pairs
        .map(|(target, loss)| f64::from(target.weight) * f64::from(*loss))
        .sum()
}

fn gradient(decoder: &Decoder, layout: &Layout, values: &[f32], kept: Kept) -> (f64, Vec<f32>) {
    let mut gradient = vec![0.0; layout.length()];
    let adapter = Adapter { layout, values };
    let mut workspace = Workspace::default();
    let losses = decoder.gradients(adapter, &batch(), kept, &mut workspace, &mut gradient);
    (weighted(&losses), gradient)
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    const STEP: f32 = 1.0 / 128.0;
    for architecture in ["qwen2", "qwen3"] {
        let decoder = decoder(architecture);
        let (layout, values) = adapter(&decoder, &Projection::ALL);
        let (_, gradient) = gradient(&decoder, &layout, &values, Kept::Everything);
        let mut workspace = Workspace::default();
        for at in (0..layout.length()).step_by(layout.length() / 60) {
            let mut loss = |step: f32| {
                let mut moved = values.clone();
                moved[at] += step;
                let adapter = Adapter {
                    layout: &layout,
                    values: &moved,
                };
                weighted(&decoder.losses(Some(adapter), &batch(), &mut workspace))
            };
            let slope = (loss(STEP) - loss(-STEP)) / f64::from(2.0 * STEP);
            let found = f64::from(gradient[at]);
            let allowed = 2e-3 + 0.01 * slope.abs();
            assert!(
                (found - slope).abs() < allowed,
                "{architecture} {at}: {found}, not {slope}"
            );
        }
        assert!(gradient.iter().filter(|slope| slope.abs() > 1e-2).count() > layout.length() / 4);
    }
}

#[test]
fn computing_layers_again_changes_no_bit() {
    let decoder = decoder("qwen3");
    let (layout, values) = adapter(&decoder, &[Projection::Value, Projection::Down]);
    let kept = gradient(&decoder, &layout, &values, Kept::Everything);
    assert_eq!(gradient(&decoder, &layout, &values, Kept::Inputs), kept);
}

#[test]
fn gradients_are_added_and_memory_is_used_again() {
    let decoder = decoder("qwen2");
    let (layout, values) = adapter(&decoder, &Projection::ALL);
    let adapter = Adapter {
        layout: &layout,
        values: &values,
    };
    let (_, once) = gradient(&decoder, &layout, &values, Kept::Everything);
    let (mut twice, mut workspace) = (vec![0.0; layout.length()], Workspace::default());
    let mut longer = batch();
    longer.push(&[1; 70], &[]);
    let _ = decoder.losses(None, &longer, &mut workspace);
    for _ in 0..2 {
        let _ = decoder.gradients(adapter, &batch(), Kept::Everything, &mut workspace, &mut twice);
    }
    for (once, twice) in once.iter().zip(twice) {
        assert!(
            (once * 2.0 - twice).abs() <= 1e-5 * twice.abs().max(1.0),
            "{once} {twice}"
        );
    }
}

#[test]
fn an_adapter_merged_into_the_weights_computes_the_same() {
    let mut decoder = decoder("qwen3");
    let (layout, values) = adapter(&decoder, &Projection::ALL);
    let adapter = Adapter {
        layout: &layout,
        values: &values,
    };
    let mut workspace = Workspace::default();
    let beside = decoder.losses(Some(adapter), &batch(), &mut workspace);
    let without = decoder.losses(None, &batch(), &mut workspace);
    decoder.weights.merge(adapter);
    let inside = decoder.losses(None, &batch(), &mut workspace);
    assert!(beside.iter().zip(inside).all(|(one, other)| (one - other).abs() < 1e-3));
    assert!(beside.iter().zip(without).any(|(one, other)| (one - other).abs() > 0.1));
}

#[test]
fn the_plan_knows_what_is_kept() {
    for (architecture, targets) in [("qwen2", &Projection::ALL[..]), ("qwen3", &Projection::ALL[2..4])] {
        let decoder = decoder(architecture);
        let (layout, values) = adapter(&decoder, targets);
        let (mut slopes, mut workspace) = (vec![0.0; layout.length()], Workspace::default());
        let adapter = Adapter {
            layout: &layout,
            values: &values,
        };
        let _ = decoder.gradients(adapter, &batch(), Kept::Everything, &mut workspace, &mut slopes);
        let head_norms = architecture == "qwen3";
        let of_token = tape::kept_of_token(&decoder.config, head_norms, layout.rank(), targets.len());
        let kept: usize = workspace.tapes.iter().map(LayerTape::length).sum();
        assert_eq!(
            kept,
            of_token * decoder.config.layers * batch().tokens().len(),
            "{architecture}"
        );
    }
}

/// The same decoder in plain operations of candle, which records them.
struct Recorded<'a> {
    decoder: &'a Decoder,
    layout: &'a Layout,
    pairs: Vec<(Var, Var)>,
}

impl<'a> Recorded<'a> {
    fn new(decoder: &'a Decoder, layout: &'a Layout, values: &[f32]) -> Self {
        let variable =
            |values: &[f32], rows, columns| Var::from_tensor(&matrix(values, rows, columns)).expect("a variable");
        let pairs = layout.slots().iter().map(|slot| {
            let pair = layout.pair(values, slot);
            (
                variable(pair.a, pair.rank, slot.inputs),
                variable(pair.b, slot.outputs, pair.rank),
            )
        });
        Self {
            decoder,
            layout,
            pairs: pairs.collect(),
        }
    }

    fn project(&self, layer: usize, projection: Projection, input: &Tensor) -> candle_core::Result<Tensor> {
        let linear = self.decoder.weights.layers[layer].projection(projection);
        let mut out = input.matmul(&matrix(&linear.weight, linear.outputs, linear.inputs).t()?)?;
        if let Some(bias) = &linear.bias {
            out = out.broadcast_add(&vector(bias))?;
        }
        let slots = self.layout.slots();
        let found = slots
            .iter()
            .position(|slot| slot.layer == layer && slot.projection == projection);
        if let Some((a, b)) = found.map(|index| &self.pairs[index]) {
            let added = input.matmul(&a.as_tensor().t()?)?.matmul(&b.as_tensor().t()?)?;
            out = (out + (added * 2.0)?)?;
        }
        Ok(out)
    }

    fn norm(&self, input: &Tensor, weight: &[f32]) -> candle_core::Result<Tensor> {
        let mean = input.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (mean + f64::from(self.decoder.config.norm_epsilon))?.sqrt()?;
        input.broadcast_div(&scale)?.broadcast_mul(&vector(weight))
    }

    /// `[heads, tokens, width]`, turned.
    fn heads(&self, flat: &Tensor, count: usize, weight: Option<&Vec<f32>>) -> candle_core::Result<Tensor> {
        let config = &self.decoder.config;
        let tokens = flat.dim(0)?;
        let mut heads = flat
            .reshape((tokens, count, config.head_width))?
            .transpose(0, 1)?
            .contiguous()?;
        if let Some(weight) = weight {
            heads = self.norm(&heads, weight)?;
        }
        let half = config.head_width / 2;
        let angles: Vec<f32> = (0..tokens)
            .flat_map(|position| {
                config
                    .rope
                    .frequencies
                    .iter()
                    .map(move |frequency| position as f32 * frequency)
            })
            .collect();
        let angles = matrix(&angles, tokens, half);
        let (left, right) = (heads.narrow(2, 0, half)?, heads.narrow(2, half, half)?);
        let (sines, cosines) = (angles.sin()?, angles.cos()?);
        let first = (left.broadcast_mul(&cosines)? - right.broadcast_mul(&sines)?)?;
        let second = (left.broadcast_mul(&sines)? + right.broadcast_mul(&cosines)?)?;
        Tensor::cat(&[first, second], 2)
    }

    fn layer(&self, index: usize, stream: &Tensor) -> candle_core::Result<Tensor> {
        let (config, layer) = (&self.decoder.config, &self.decoder.weights.layers[index]);
        let (tokens, width) = (stream.dim(0)?, config.head_width);
        let normed = self.norm(stream, &layer.attention_norm)?;
        let queries = self.project(index, Projection::Query, &normed)?;
        let queries = self.heads(&queries, config.heads, layer.query_norm.as_ref())?;
        let keys = self.project(index, Projection::Key, &normed)?;
        let keys = self.heads(&keys, config.kv_heads, layer.key_norm.as_ref())?;
        let values = self.project(index, Projection::Value, &normed)?;
        let values = values
            .reshape((tokens, config.kv_heads, width))?
            .transpose(0, 1)?
            .contiguous()?;
        let mask: Vec<f32> = (0..tokens * tokens)
            .map(|at| if at % tokens > at / tokens { -1e9 } else { 0.0 })
            .collect();
        let mut attended = Vec::new();
        for head in 0..config.heads {
            let shared = head * config.kv_heads / config.heads;
            let scores = queries.get(head)?.matmul(&keys.get(shared)?.t()?)?;
            let scores = ((scores / (width as f64).sqrt())? + matrix(&mask, tokens, tokens))?;
            let powers = scores.exp()?;
            let sums = powers.sum_keepdim(D::Minus1)?;
            attended.push(powers.broadcast_div(&sums)?.matmul(&values.get(shared)?)?);
        }
        let attended = Tensor::cat(&attended, 1)?;
        let stream = (stream + self.project(index, Projection::Output, &attended)?)?;
        let normed = self.norm(&stream, &layer.feed_norm)?;
        let gate = self.project(index, Projection::Gate, &normed)?.silu()?;
        let gated = (gate * self.project(index, Projection::Up, &normed)?)?;
        stream + self.project(index, Projection::Down, &gated)?
    }

    fn loss(&self, batch: &Batch) -> candle_core::Result<Tensor> {
        let (config, weights) = (&self.decoder.config, &self.decoder.weights);
        let mut total = Tensor::zeros((), DType::F32, &Device::Cpu)?;
        for tokens in batch.sequences() {
            let ids = Tensor::new(&batch.tokens()[tokens.clone()], &Device::Cpu)?;
            let mut stream = matrix(&weights.embedding, config.vocabulary, config.hidden).index_select(&ids, 0)?;
            for index in 0..config.layers {
                stream = self.layer(index, &stream)?;
            }
            let normed = self.norm(&stream, &weights.norm)?;
            let mut logits = normed.matmul(&matrix(weights.head(), config.vocabulary, config.hidden).t()?)?;
            if let Some(bias) = &weights.head_bias {
                logits = logits.broadcast_add(&vector(bias))?;
            }
            let sums = logits.exp()?.sum(1)?.log()?;
            for target in batch.targets().iter().filter(|target| tokens.contains(&target.row)) {
                let row = target.row - tokens.start;
                let loss = (sums.get(row)? - logits.get(row)?.get(target.token as usize)?)?;
                total = (total + (loss * f64::from(target.weight))?)?;
            }
        }
        Ok(total)
    }
}

fn matrix(values: &[f32], rows: usize, columns: usize) -> Tensor {
    Tensor::from_slice(values, (rows, columns), &Device::Cpu).expect("a tensor")
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).expect("a tensor")
}

#[test]
fn every_gradient_agrees_with_candles() {
    for architecture in ["qwen2", "qwen3"] {
        let decoder = decoder(architecture);
        let (layout, values) = adapter(&decoder, &Projection::ALL);
        let (loss, gradient) = gradient(&decoder, &layout, &values, Kept::Everything);
        let recorded = Recorded::new(&decoder, &layout, &values);
        let recorded_loss = recorded.loss(&batch()).expect("a loss");
        let found = f64::from(recorded_loss.to_scalar::<f32>().expect("a number"));
        assert!((loss - found).abs() < 1e-4 * found, "{loss} {found}");
        let gradients = recorded_loss.backward().expect("gradients");
        for (slot, (a, b)) in layout.slots().iter().zip(&recorded.pairs) {
            let pair = layout.pair(&gradient, slot);
            for (ours, theirs) in [(pair.a, a), (pair.b, b)] {
                let theirs = gradients.get(theirs).expect("a gradient").flatten_all().expect("flat");
                let theirs = theirs.to_vec1::<f32>().expect("numbers");
                let longest = theirs.iter().fold(0.0_f32, |longest, slope| longest.max(slope.abs()));
                for (ours, theirs) in ours.iter().zip(theirs) {
                    let allowed = 2e-4 * longest.max(0.1);
                    assert!(
                        (ours - theirs).abs() < allowed,
                        "{architecture} {slot:?}: {ours} {theirs}"
                    );
                }
            }
        }
    }
}
