//! `perennial-server`: parses arguments, runs a command, says why it failed.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use perennial_crds::serving::TERMINATION_PATH;
use perennial_engine::memory::display;
use perennial_engine::model::{self, LoadOptions};
use perennial_server::cli::{Cli, Command, LogFormat, PlanArguments, ResolveArguments, ServeArguments};
use perennial_server::termination::{StartupError, leave};
use perennial_server::{serve, startup};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            // Nobody reads the log of a pod whose arguments are wrong, if its status says so.
            let error = StartupError::Arguments(wrong_arguments(&error.to_string()));
            leave(Path::new(TERMINATION_PATH), &error.termination());
        }
        error.exit()
    });
    start_logging(cli.log_format);
    let outcome = match &cli.command {
        Command::Serve(arguments) => run_serve(arguments),
        Command::Resolve(arguments) => run_resolve(arguments),
        Command::Plan(arguments) => run_plan(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perennial-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.init(),
    }
}

/// clap's answer without the usage.
fn wrong_arguments(answer: &str) -> String {
    let problem: Vec<&str> = answer.lines().take_while(|line| !line.starts_with("Usage")).collect();
    let problem = problem.join(" ");
    let problem = problem.trim().trim_start_matches("error: ");
    format!("the server does not take its arguments: {problem}. Correct spec.runtime.extraArgs")
}

fn run_serve(arguments: &ServeArguments) -> Result<(), StartupError> {
    let threads = arguments
        .threads
        .map_or_else(perennial_engine::threads::available, usize::from);
    #[expect(unsafe_code, reason = "candle takes its thread count from the environment only")]
    // SAFETY: `main` has started no thread yet.
    unsafe {
        perennial_engine::threads::limit(threads);
    }
    let outcome = runtime(threads.max(2)).and_then(|runtime| {
        let outcome = runtime.block_on(async { serve::serve(arguments, stop_token()?).await });
        runtime.shutdown_background();
        outcome
    });
    outcome.inspect_err(|error| give_up(error, &arguments.source.termination_path))
}

fn run_resolve(arguments: &ResolveArguments) -> Result<(), StartupError> {
    let path = &arguments.source.termination_path;
    let resolved = runtime(2)
        .and_then(|runtime| runtime.block_on(async { startup::resolve(&arguments.source, &stop_token()?).await }));
    let resolved = resolved.inspect_err(|error| give_up(error, path))?;
    leave(path, &resolved);
    print_json(&resolved)
}

fn run_plan(arguments: &PlanArguments) -> Result<(), StartupError> {
    let options = LoadOptions {
        max_length: arguments.max_context_tokens.map(|tokens| tokens as usize),
        max_running: arguments.max_running as usize,
        memory: arguments.memory,
    };
    let plan = model::plan(&arguments.model, &options)?;
    if arguments.json {
        return print_json(&plan);
    }
    println!("architecture     {}", plan.architecture);
    println!("weights          {}", display(plan.weights_bytes + plan.packed_bytes));
    println!(
        "key-value cache  {} ({} sequences of {} tokens)",
        display(plan.cache_bytes),
        plan.full_sequences,
        plan.context_tokens
    );
    println!("working memory   {}", display(plan.activation_bytes));
    println!("reserve          {}", display(plan.reserve_bytes));
    println!("total            {}", display(plan.total_bytes));
    println!(
        "limit            {}",
        plan.limit_bytes.map_or_else(|| "none".to_owned(), display)
    );
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<(), StartupError> {
    let json = serde_json::to_string_pretty(value);
    println!("{}", json.map_err(|error| StartupError::Internal(error.to_string()))?);
    Ok(())
}

fn give_up(error: &StartupError, path: &Path) {
    let words = error.termination();
    tracing::error!(reason = %words.reason, message = words.message, "cannot start");
    leave(path, &words);
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, StartupError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| StartupError::Internal(format!("no runtime: {error}")))
}

/// Cancelled by the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_token() -> Result<CancellationToken, StartupError> {
    let listen = |kind| signal(kind).map_err(|error| StartupError::Internal(format!("signals: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        for times in 1.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if times > 1 {
                tracing::warn!("told to stop twice; ending at once");
                std::process::exit(130);
            }
            stop.cancel();
        }
    });
    Ok(token)
}
