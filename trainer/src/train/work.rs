//! One training from its arguments to its result.

use std::collections::BTreeMap;
use std::time::Instant;

use perennial_crds::retrain::{ModelKind, Outcome, RETRAIN_CONTRACT, RetrainResult, TrainedModel, UsedData};
use perennial_loader::Digest;
use tokio_util::sync::CancellationToken;

use super::arguments::{Arguments, MergedType};
use super::base::Base;
use super::checkpoint::{Checkpoint, State, VERSION};
use super::curve::curve;
use super::data::{self, Data, DataError};
use super::deliver::{Parcel, Target, push};
use super::error::TrainError;
use super::examples::{Encoder, Examples};
use super::fetch::{digest_of, fetch};
use super::full::{Full, RESULT_FILE, Stored};
use super::merge::{Width, merge};
use super::model::{Adapter, Decoder, Layout, Weights, Workspace};
use super::peft::store_adapter;
use super::plan::{Needs, Plan, plan};
use super::reporter::{Reporter, Stage};
use super::session::{Ended, Session, mean_loss};
use super::store::store;
use crate::contract::message;

const ADAPTER_DIRECTORY: &str = "adapter";
/// Share of what was gained that must be left after rounding; else wider numbers are stored.
const KEPT_GAIN: f32 = 0.9;

/// Trains. `interrupted` is asked with the number of finished steps whether to stop and leave a checkpoint.
///
/// # Errors
/// [`TrainError`] when there is no decision.
pub fn execute(
    arguments: &Arguments,
    cancel: &CancellationToken,
    interrupted: &dyn Fn(u64) -> bool,
) -> Result<RetrainResult, TrainError> {
    let started = Instant::now();
    if arguments.contract != RETRAIN_CONTRACT {
        let told = &arguments.contract;
        return Err(TrainError::Arguments(format!(
            "the contract {told} is not known; {RETRAIN_CONTRACT} is"
        )));
    }
    let target = Target::read(arguments)?;
    let output = &arguments.output_dir;
    std::fs::create_dir_all(output).map_err(TrainError::io("create", output))?;
    let (cause, cycle, champion) = (&arguments.cause, &arguments.cycle_id, &arguments.champion_uri);
    tracing::info!(cycle, cause, base = arguments.base_model_uri, champion, "training");
    let data = match data::read(&arguments.data_manifest, &arguments.cycle_id) {
        Ok(data) => data,
        Err(DataError::Rejected(why)) => return Ok(rejected(&why)),
        Err(DataError::Io { path, source }) => return Err(TrainError::io("read", path)(source)),
    };
    let fingerprint = fingerprint(arguments, &data)?;
    if let Some(full) = Full::read(output, &fingerprint, cancel) {
        tracing::info!("the result of an earlier try is here already");
        return deliver(full, &target, arguments, cancel);
    }
    let mut reporter = Reporter::new(output);
    reporter.stage(Stage::Fetching);
    let digest = Some(arguments.base_model_digest.as_str());
    let local = fetch(&arguments.base_model_uri, digest, &arguments.scratch_directory, cancel)?;
    reporter.stage(Stage::Loading);
    let base = Base::open(local.files)?;
    let (train, validation) = examples(arguments, &base, &data);
    for (split, found) in [("train", &train), ("validation", &validation)] {
        if found.used.is_empty() {
            let (too_long, refused) = (found.too_long, found.refused);
            return Ok(rejected(&format!(
                "no row of split {split} can be used: {too_long} are too long and {refused} are not taken by the model's \
                 chat template or tokenizer"
            )));
        }
    }
    let training = Training {
        arguments,
        cancel,
        interrupted,
        started,
        data: &data,
        base: &base,
        train: &train,
        validation: &validation,
        checkpoint: Checkpoint::new(output, fingerprint.clone()),
        fingerprint,
    };
    let full = training.run(&mut reporter)?;
    let result = deliver(full, &target, arguments, cancel)?;
    reporter.stage(Stage::Finished);
    Ok(result)
}

/// Brings a stored model where it is asked for, and says so in the result.
fn deliver(
    mut full: Full,
    target: &Target,
    arguments: &Arguments,
    cancel: &CancellationToken,
) -> Result<RetrainResult, TrainError> {
    let (Some(stored), Some(model)) = (&full.stored, &mut full.result.model) else {
        return Ok(full.result);
    };
    let before = model.clone();
    (model.uri, model.digest) = match target {
        Target::Volume(uri) => (format!("{uri}/{}", stored.name), stored.digest.clone()),
        Target::Registry(repository, tag) => {
            let data = full.result.data.as_ref();
            let parcel = Parcel {
                path: &arguments.output_dir.join(&stored.name),
                data_digest: data.map_or("", |data| &data.manifest_digest),
                said: &full.result.message,
            };
            let pushed = push(&parcel, repository, tag, arguments, cancel)?;
            (pushed.uri, pushed.digest)
        }
    };
    if *model != before {
        full.write(&arguments.output_dir)?;
    }
    Ok(full.result)
}

/// What decides the result, but for threads and memory.
fn fingerprint(arguments: &Arguments, data: &Data) -> Result<String, TrainError> {
    let decisive = serde_json::to_vec(&(
        VERSION,
        &arguments.base_model_digest,
        &data.manifest_digest,
        arguments.seed,
        &arguments.learning,
    ));
    let decisive = decisive.map_err(|error| TrainError::Arguments(error.to_string()))?;
    Ok(Digest::of(&decisive).hex())
}

fn rejected(why: &str) -> RetrainResult {
    result(Outcome::DataRejected, why)
}

fn result(outcome: Outcome, why: &str) -> RetrainResult {
    RetrainResult {
        schema: RETRAIN_CONTRACT.to_owned(),
        outcome,
        model: None,
        data: None,
        metrics: BTreeMap::new(),
        curve: None,
        result_path: None,
        message: message(why),
    }
}

fn examples(arguments: &Arguments, base: &Base, data: &Data) -> (Examples, Examples) {
    let encoder = Encoder::new(&base.description);
    let most = (arguments.learning.max_sequence_tokens as usize).min(base.description.config.context);
    let of = |rows| Examples::of(&encoder, rows, most);
    let (mut train, mut validation) = (of(&data.train), of(&data.validation));
    if validation.used.is_empty() {
        validation.used = train.hold_out(arguments.seed);
        tracing::warn!(
            held_out = validation.used.len(),
            "no row of split validation can be used; some of split train take their place"
        );
    }
    tracing::info!(
        train = train.used.len(),
        validation = validation.used.len(),
        too_long = train.too_long + validation.too_long,
        refused = train.refused + validation.refused,
        longest = train.longest().max(validation.longest()),
        "rows"
    );
    (train, validation)
}

/// Everything that is fixed once the model and the rows are here.
struct Training<'a> {
    arguments: &'a Arguments,
    cancel: &'a CancellationToken,
    interrupted: &'a dyn Fn(u64) -> bool,
    started: Instant,
    data: &'a Data,
    base: &'a Base,
    train: &'a Examples,
    validation: &'a Examples,
    checkpoint: Checkpoint,
    fingerprint: String,
}

impl Training<'_> {
    fn run(&self, reporter: &mut Reporter) -> Result<Full, TrainError> {
        let learning = &self.arguments.learning;
        let config = &self.base.description.config;
        let layout = Layout::new(
            config,
            &learning.targets,
            usize::from(learning.rank),
            learning.alpha as f32,
        );
        let plan = self.plan(&layout)?;
        let mut decoder = Decoder {
            config: config.clone(),
            weights: self.base.weights()?,
        };
        let stored = self.checkpoint.load(layout.length())?;
        if let Some(state) = &stored {
            tracing::info!(step = state.record.step, "going on from a checkpoint");
        }
        let mut state = stored.unwrap_or_else(|| State::new(layout.start(self.arguments.seed)));
        let mut workspace = Workspace::default();
        let session = Session {
            decoder: &decoder,
            layout: &layout,
            train: &self.train.used,
            validation: &self.validation.used,
            learning,
            seed: self.arguments.seed,
            batch_tokens: plan.batch_tokens,
            kept: plan.kept(),
            deadline_seconds: self.arguments.deadline_seconds,
            started: self.started,
            checkpoint_steps: self.arguments.checkpoint_steps,
            checkpoint: &self.checkpoint,
            interrupted: self.interrupted,
        };
        let ended = session.run(&mut state, &mut workspace, reporter)?;
        // Whatever happens to the pod now, nothing needs to be learned again.
        self.checkpoint.save(&state)?;
        // What was kept of the last batch makes room for the tensors that are read and written.
        drop(workspace);
        reporter.stage(Stage::Writing);
        let (result, stored) = self.conclude(&mut decoder, &layout, &state, ended, &plan)?;
        let full = Full {
            fingerprint: self.fingerprint.clone(),
            cause: self.arguments.cause.clone(),
            champion: self.arguments.champion_uri.clone(),
            result,
            stored,
            record: state.record,
        };
        full.write(&self.arguments.output_dir)?;
        self.checkpoint.remove();
        Ok(full)
    }

    fn plan(&self, layout: &Layout) -> Result<Plan, TrainError> {
        let needs = Needs {
            config: &self.base.description.config,
            tied: self.base.description.tied,
            layout,
            longest: self.train.longest().max(self.validation.longest()),
            wanted: self.arguments.batch_tokens as usize,
        };
        let limit = self.arguments.memory.or_else(perennial_engine::memory::limit);
        let plan = plan(&needs, limit).map_err(TrainError::Memory)?;
        tracing::info!(plan = serde_json::to_string(&plan).unwrap_or_default(), "memory");
        Ok(plan)
    }

    /// Decides, and writes the model if it is better.
    fn conclude(
        &self,
        decoder: &mut Decoder,
        layout: &Layout,
        state: &State,
        ended: Ended,
        plan: &Plan,
    ) -> Result<(RetrainResult, Option<Stored>), TrainError> {
        let mut metrics = self.metrics(state, ended);
        let record = &state.record;
        let (start, best) = (record.measurements.first(), record.best());
        let gained = match (start, best) {
            (Some(start), Some(best)) if best.loss < start.loss => Some((start.loss, best.loss)),
            _ => None,
        };
        let Some((start, best)) = gained else {
            let said = "no step lowered the loss on the validation rows";
            return Ok((self.with(result(Outcome::NoImprovement, said), metrics), None));
        };
        let adapter = Adapter {
            layout,
            values: &state.best,
        };
        let (width, merged) = self.merge(decoder, adapter, (start, best), plan)?;
        metrics.insert("mergedLoss".to_owned(), format!("{merged:.4}"));
        if merged.is_nan() || merged >= start {
            let said = "what was learned is lost when the merged model's numbers are rounded";
            return Ok((self.with(result(Outcome::NoImprovement, said), metrics), None));
        }
        let output = &self.arguments.output_dir;
        let asked = self.arguments.learning.merged_type;
        let path = store(self.base, &decoder.weights, layout, (asked, width), output)?;
        let alpha = self.arguments.learning.alpha;
        store_adapter(
            adapter,
            &self.arguments.base_model_uri,
            alpha,
            &output.join(ADAPTER_DIRECTORY),
        )?;
        let stored = Stored {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            digest: digest_of(&path, self.cancel)?,
        };
        let said = format!("the loss on the validation rows fell from {start:.4} to {merged:.4}");
        let result = RetrainResult {
            model: Some(TrainedModel {
                uri: format!("file://{}", path.display()),
                digest: stored.digest.clone(),
                base_digest: self.arguments.base_model_digest.clone(),
                kind: ModelKind::Merged,
            }),
            ..result(Outcome::Succeeded, &said)
        };
        let curve = Some(curve(record));
        let result = self.with(RetrainResult { curve, ..result }, metrics);
        Ok((result, Some(stored)))
    }

    /// Merges in the asked type, or in a wider one if too much is lost in it. Returns which, and the loss with it.
    fn merge(
        &self,
        decoder: &mut Decoder,
        adapter: Adapter,
        (start, best): (f32, f32),
        plan: &Plan,
    ) -> Result<(Width, f32), TrainError> {
        let asked: MergedType = self.arguments.learning.merged_type;
        let mut measured = f32::NAN;
        for width in [Width::Asked, Width::Wider] {
            if width == Width::Wider {
                // What was rounded off is gone. Both at the same time would not fit.
                decoder.weights = Weights::default();
                decoder.weights = self.base.weights()?;
            }
            merge(self.base, &mut decoder.weights, adapter, asked, width)?;
            let (rows, tokens) = (&self.validation.used, plan.batch_tokens);
            let stop = || self.cancel.is_cancelled();
            let loss = mean_loss(decoder, None, rows, tokens, &mut Workspace::default(), &stop);
            measured = loss.ok_or(TrainError::Interrupted)?;
            tracing::info!(?width, validation_loss = measured, "merged");
            if start - measured >= KEPT_GAIN * (start - best) {
                return Ok((width, measured));
            }
        }
        Ok((Width::Wider, measured))
    }

    fn metrics(&self, state: &State, ended: Ended) -> BTreeMap<String, String> {
        let record = &state.record;
        let loss = |loss: Option<f32>| loss.map_or_else(String::new, |loss| format!("{loss:.4}"));
        let best = record.best();
        let (train, validation) = (self.train, self.validation);
        let metrics = [
            ("startLoss", loss(record.measurements.first().map(|start| start.loss))),
            ("bestLoss", loss(best.map(|best| best.loss))),
            ("bestStep", best.map_or(0, |best| best.step).to_string()),
            ("steps", record.step.to_string()),
            ("ended", format!("{ended:?}")),
            ("trainRows", train.used.len().to_string()),
            ("validationRows", validation.used.len().to_string()),
            ("rowsTooLong", (train.too_long + validation.too_long).to_string()),
            ("rowsRefused", (train.refused + validation.refused).to_string()),
            ("tokens", record.tokens.to_string()),
            ("seconds", format!("{:.0}", record.seconds)),
        ];
        metrics.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn with(&self, result: RetrainResult, metrics: BTreeMap<String, String>) -> RetrainResult {
        RetrainResult {
            data: Some(UsedData {
                manifest_digest: self.data.manifest_digest.clone(),
            }),
            metrics,
            result_path: Some(RESULT_FILE.to_owned()),
            ..result
        }
    }
}
