//! From arguments to a model that has produced a token.

use std::sync::Arc;
use std::time::Duration;

use perennial_crds::serving::{LoadingStage, ResolvedModel};
use perennial_engine::model::{self, LoadOptions, LoadedModel};
use perennial_engine::simulated::SimulatedRunner;
use perennial_engine::tokenizer::{self, ModelTokenizer};
use perennial_engine::{Engine, EngineHandle, ModelRunner, Sampling};
use perennial_loader::{LoadRequest, Source};
use tokio_util::sync::CancellationToken;

use crate::cli::{EngineKind, ServeArguments, SourceArguments};
use crate::lifecycle::Phase;
use crate::observation::StaticEncoder;
use crate::shared::Shared;
use crate::termination::StartupError;
use crate::text::{Asked, ChatTemplate, Demux, Finish, Service, TextOptions};

struct Loaded {
    runner: Box<dyn ModelRunner>,
    tokenizer: ModelTokenizer,
    template: Option<String>,
}

/// Loads the model, produces a token, and lets requests in.
///
/// # Errors
/// [`StartupError`]; its text says what to do.
pub async fn bring_up(
    shared: &Arc<Shared>,
    arguments: &ServeArguments,
    cancel: &CancellationToken,
) -> Result<(), StartupError> {
    let start = std::time::Instant::now();
    let loaded = match arguments.engine {
        EngineKind::Candle => load(shared, arguments, cancel).await?,
        EngineKind::Simulated => simulate(shared, arguments).await?,
    };
    shared.progress.set_stage(LoadingStage::WarmingUp);
    let template = compile(loaded.template, &loaded.tokenizer);
    let (engine, updates) = EngineHandle::start(loaded.runner, arguments.limits())
        .map_err(|error| StartupError::Internal(format!("no thread for the engine: {error}")))?;
    shared.metrics.set_engine(engine.info(), arguments.max_running);
    let demux = Arc::new(Demux::default());
    let (deliver, state) = (Arc::clone(&demux), Arc::clone(shared));
    // Not tracked: it runs until the engine is gone, which is after the last request.
    tokio::spawn(async move { deliver.run(updates, &state).await });
    let service = Service::new(Arc::new(engine), loaded.tokenizer, template, demux);
    warm_up(shared, &service).await?;
    shared.metrics.load.started(start.elapsed());
    let info = service.engine().info().clone();
    shared.set_service(service);
    shared.progress.set_stage(LoadingStage::Ready);
    shared.lifecycle.advance(Phase::Ready);
    tracing::info!(
        model = shared.served_model_name,
        context_tokens = info.max_length,
        cache_blocks = info.blocks,
        seconds = start.elapsed().as_secs_f64(),
        "ready"
    );
    Ok(())
}

/// Reads the encoder of prompts that the arguments name.
///
/// # Errors
/// [`StartupError`]; its text says what to do.
pub async fn encoder(arguments: &ServeArguments) -> Result<Option<StaticEncoder>, StartupError> {
    let Some(directory) = arguments.encoder.clone() else {
        return Ok(None);
    };
    let pinned = arguments.encoder_sha256;
    let loading = tokio::task::spawn_blocking(move || StaticEncoder::load(&directory, pinned));
    let encoder = loading
        .await
        .map_err(|error| StartupError::Internal(format!("loading the encoder: {error}")))??;
    tracing::info!(
        sha256 = encoder.digest().hex(),
        pinned = pinned.is_some(),
        rows = encoder.rows(),
        dimension = encoder.dimension(),
        memory_bytes = encoder.bytes(),
        "prompts are embedded by the encoder that was given"
    );
    Ok(Some(encoder))
}

async fn load(
    shared: &Arc<Shared>,
    arguments: &ServeArguments,
    cancel: &CancellationToken,
) -> Result<Loaded, StartupError> {
    let request = load_request(&arguments.source)?;
    let local = perennial_loader::fetch(&request, &shared.progress, cancel).await?;
    tracing::info!(
        uri = local.resolved.uri,
        bytes = local.resolved.size_bytes,
        "the model's files are here"
    );
    shared.progress.set_stage(LoadingStage::LoadingWeights);
    let options = LoadOptions {
        max_length: arguments.max_context_tokens.map(|tokens| tokens as usize),
        max_running: arguments.max_running as usize,
        memory: remaining(
            arguments.memory.or_else(perennial_engine::memory::limit),
            shared.observer.encoder_bytes(),
        ),
    };
    let loading = tokio::task::spawn_blocking(move || model::load(&local.files, &options));
    let loaded = loading
        .await
        .map_err(|error| StartupError::Internal(format!("loading the model: {error}")))??;
    let LoadedModel {
        runner,
        tokenizer,
        chat_template,
        plan,
    } = loaded;
    tracing::info!(
        plan = serde_json::to_string(&plan).unwrap_or_default(),
        "the model is loaded"
    );
    Ok(Loaded {
        runner: Box::new(runner),
        tokenizer,
        template: chat_template,
    })
}

/// What the encoder takes is not there for the model.
fn remaining(limit: Option<u64>, encoder: u64) -> Option<u64> {
    limit.map(|limit| limit.saturating_sub(encoder))
}

async fn simulate(shared: &Shared, arguments: &ServeArguments) -> Result<Loaded, StartupError> {
    shared.progress.set_stage(LoadingStage::LoadingWeights);
    tokio::time::sleep(Duration::from_secs_f64(
        arguments.simulated.simulated_cold_start_seconds,
    ))
    .await;
    let tokenizer = tokenizer::simulated().map_err(|error| StartupError::Internal(error.to_string()))?;
    Ok(Loaded {
        runner: Box::new(SimulatedRunner::new(arguments.simulated_settings())),
        tokenizer,
        template: Some(tokenizer::SIMULATED_CHAT_TEMPLATE.to_owned()),
    })
}

/// A template that cannot be compiled costs the chat endpoint, not the server.
fn compile(template: Option<String>, tokenizer: &ModelTokenizer) -> Option<ChatTemplate> {
    let template = template?;
    ChatTemplate::new(template, tokenizer.special_tokens().clone())
        .inspect_err(|error| tracing::warn!(%error, "the model's chat template cannot be used"))
        .ok()
}

async fn warm_up(shared: &Arc<Shared>, service: &Service) -> Result<(), StartupError> {
    let fail = |error: &dyn std::fmt::Display| StartupError::WarmUp(error.to_string());
    let prompt = service
        .encode_prompt("Hello".to_owned())
        .await
        .map_err(|error| fail(&error))?;
    let sampling = Sampling {
        ignore_end: true,
        ..Sampling::default()
    };
    let options = TextOptions {
        max_tokens: Some(1),
        sampling,
        stop: Vec::new(),
    };
    let mut generation = service
        .generate(shared, prompt, options, Asked::default())
        .map_err(|error| fail(&error))?;
    while let Some(piece) = generation.next().await {
        if let Some(Finish::Failed(reason)) = piece.finish {
            return Err(fail(&reason));
        }
    }
    Ok(())
}

/// Finds out what exactly a source holds now.
///
/// # Errors
/// [`StartupError`]; its text says what to do.
pub async fn resolve(source: &SourceArguments, cancel: &CancellationToken) -> Result<ResolvedModel, StartupError> {
    Ok(perennial_loader::resolve(&load_request(source)?, cancel).await?)
}

fn load_request(arguments: &SourceArguments) -> Result<LoadRequest, StartupError> {
    let Some(source) = arguments.source.as_deref() else {
        return Err(StartupError::Arguments(
            "--source is missing; say where the model is".to_owned(),
        ));
    };
    Ok(LoadRequest {
        source: Source::parse(source)?,
        digest: arguments.digest.clone(),
        scratch: arguments.scratch_directory.clone(),
    })
}
