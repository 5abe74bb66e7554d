//! `perennial-trainer`: parses arguments, runs a command, says how it ended.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use perennial_crds::serving::TERMINATION_PATH;
use perennial_trainer::{collect, contract, evaluate, prepare, probe, publish, train, verify};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// From captured requests to a better model: the collector and the default Jobs of a retraining cycle.
///
/// The operator runs these with an environment that the contracts describe. Exit codes of Jobs: 0 for a decision, whichever it
/// is; 75 if another try may go better; others for failures. RUST_LOG sets what is logged (default: info); no text of a prompt
/// or answer ever is.
#[derive(Parser)]
#[command(name = "perennial-trainer", version, max_term_width = 100)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
    /// How log lines look.
    #[arg(long, env = "PERENNIAL_LOG_FORMAT", default_value = "json", global = true)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    Collect(Box<collect::Arguments>),
    Prepare(Box<prepare::Arguments>),
    Train(Box<train::Arguments>),
    Verify(Box<verify::Arguments>),
    Probe(Box<probe::Arguments>),
    Evaluate(Box<evaluate::Arguments>),
    Publish(Box<publish::Arguments>),
    Restore(Box<publish::RestoreArguments>),
    CheckContract(Box<contract::check::Arguments>),
}

/// How log lines look.
#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            // Nobody reads the log of a pod whose arguments are wrong, if its status says so.
            let said = wrong_arguments(&error.to_string());
            match job_termination_path() {
                Some(path) => contract::leave(&path, &contract::failure(&said)),
                None => drop(std::fs::write(TERMINATION_PATH, said)),
            }
        }
        error.exit()
    });
    start_logging(cli.log_format);
    match cli.command {
        Command::Prepare(arguments) => prepare::run(&arguments),
        // These have threads and signals of their own.
        Command::Train(arguments) => train::run(*arguments),
        Command::Evaluate(arguments) => evaluate::run(*arguments),
        Command::Collect(arguments) => served(async |stop| collect::run(*arguments, stop).await),
        Command::Verify(arguments) => served(async |stop| verify::run(*arguments, stop).await),
        Command::Probe(arguments) => served(async |stop| probe::run(*arguments, stop).await),
        Command::Publish(arguments) => served(async |stop| publish::run(*arguments, stop).await),
        Command::Restore(arguments) => served(async |stop| publish::run_restore(*arguments, stop).await),
        Command::CheckContract(arguments) => served(async |stop| contract::check::run(*arguments, stop).await),
    }
}

fn start_logging(format: LogFormat) {
    // Of a bucket that is away, what tries again tells once; the client would tell of each try.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,object_store=warn"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.init(),
    }
}

/// Where the last words go, in a Job.
fn job_termination_path() -> Option<PathBuf> {
    let mut told = ["PREPARE", "RETRAIN", "GATE", "VERIFY", "PROBE", "PUBLISH", "RESTORE"].iter();
    let path = told.find_map(|job| std::env::var_os(format!("{job}_TERMINATION_PATH")));
    path.map(PathBuf::from)
}

/// clap's answer without the usage.
fn wrong_arguments(answer: &str) -> String {
    let problem: Vec<&str> = answer.lines().take_while(|line| !line.starts_with("Usage")).collect();
    let problem = problem.join(" ");
    let problem = problem.trim().trim_start_matches("error: ");
    contract::message(&format!(
        "perennial-trainer does not take its arguments or environment: {problem}"
    ))
}

/// Runs what waits for others: few threads, and a token that SIGTERM and SIGINT cancel.
fn served(work: impl AsyncFnOnce(&CancellationToken) -> ExitCode) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::error!("no signals");
            return ExitCode::FAILURE;
        };
        let stop = CancellationToken::new();
        let told = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("told to stop");
            stop.cancel();
            std::future::pending().await
        };
        tokio::select! {
            code = work(&stop) => code,
            code = told => code,
        }
    });
    runtime.shutdown_background();
    code
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_says_what_it_is_for() {
        Cli::command().debug_assert();
        let commands: Vec<String> = Cli::command()
            .get_subcommands()
            .map(|command| {
                assert!(command.get_about().is_some(), "{}", command.get_name());
                command.get_name().to_owned()
            })
            .collect();
        assert_eq!(
            commands,
            [
                "collect",
                "prepare",
                "train",
                "verify",
                "probe",
                "evaluate",
                "publish",
                "restore",
                "check-contract"
            ]
        );
    }

    #[test]
    fn wrong_arguments_are_one_line() {
        let answer =
            "error: the following required arguments were not provided:\n  --token <TOKEN>\n\nUsage: perennial";
        let said = wrong_arguments(answer);
        assert!(said.ends_with("were not provided: --token <TOKEN>"), "{said}");
    }
}
