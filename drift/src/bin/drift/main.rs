//! `drift`: a policy played over recorded requests, before it is turned on. Reads files, writes reports, never the network.

mod arguments;
mod compare;
mod html;
mod input;
mod json;
mod learning;
mod panes;
mod policy_file;
mod replay;
mod series;
mod terminal;
mod text;
mod words;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use perennial_drift::decision::Phase;

use arguments::{Arguments, Command, PolicyArguments};
use replay::Outcome;
use terminal::Style;

/// The input ends Drifted, and that is a failure.
const DRIFTED: u8 = 3;
/// Wrong usage, or input that cannot be used.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        // A reader that has had enough, as `head` does, is no error.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drift: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Replay(replay) => {
            let outcome = replay::replay(&replay.files, &replay.input, &replay.stored)?;
            if let Some(path) = &replay.html {
                write_page(path, &outcome)?;
            }
            if replay.json {
                let mut line = serde_json::to_string(&json::report(&outcome)?)?;
                line.push('\n');
                print(&line)?;
            } else {
                print(&text::report(&outcome, Style::of_terminal()))?;
            }
            Ok(code(&outcome, replay.fail_on_drift))
        }
        Command::Report(report) => {
            let outcome = replay::replay(&report.files, &report.input, &report.stored)?;
            write_page(&report.html, &outcome)?;
            print(&format!(
                "{}\n{} is written\n",
                text::headline(&outcome),
                report.html.display()
            ))?;
            Ok(code(&outcome, report.fail_on_drift))
        }
        Command::Compare(arguments) => {
            print(&compare::compare(&arguments)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Policy(arguments) => policy(&arguments),
    }
}

fn policy(arguments: &PolicyArguments) -> Result<ExitCode> {
    let Some(path) = &arguments.file else {
        print(policy_file::DEFAULT)?;
        return Ok(ExitCode::SUCCESS);
    };
    let loaded = policy_file::load(Some(path))?;
    let mut said = format!(
        "{} is well-formed: {} signals, ",
        path.display(),
        loaded.policy.signals.len()
    );
    said.push_str(&text::budget(&loaded.policy, words::Clock::Time));
    if !loaded.unused.is_empty() {
        said.push_str(&format!(
            "\nOnly the operator acts on these: {}",
            loaded.unused.join(", ")
        ));
    }
    said.push('\n');
    print(&said)?;
    Ok(ExitCode::SUCCESS)
}

fn write_page(path: &Path, outcome: &Outcome) -> Result<()> {
    std::fs::write(path, html::page(outcome, &command_line()))
        .with_context(|| format!("cannot write the page {}", path.display()))
}

/// As it was given, for the page's foot.
fn command_line() -> String {
    let mut words = std::env::args();
    words.next();
    words.fold("drift".to_owned(), |line, word| format!("{line} {word}"))
}

fn code(outcome: &Outcome, fail_on_drift: bool) -> ExitCode {
    if fail_on_drift && outcome.verdict.phase == Phase::Drifted {
        ExitCode::from(DRIFTED)
    } else {
        ExitCode::SUCCESS
    }
}

fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()?;
    Ok(())
}
