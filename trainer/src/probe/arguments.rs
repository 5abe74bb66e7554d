//! What the Job that asks fixed prompts is told.

use std::path::PathBuf;

use clap::Args;
use perennial_crds::probe::{PROBE_TOKENS, PROMPTS_DIRECTORY};
use perennial_crds::serving::TERMINATION_PATH;
use reqwest::Url;

/// Ask a model server fixed prompts and tell nothing of its answers but their fingerprints.
///
/// What is told is the contract `probe/v1`. Exits with 0 if all were answered or the prompts are none, and with 75 if the server
/// did not answer.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The server, below which /v1/chat/completions and /v1/completions are: http://NAME.NAMESPACE.svc:80.
    #[arg(long, env = "PROBE_URL", value_name = "URL", value_parser = base)]
    pub url: Url,
    /// The name under which it serves the model.
    #[arg(long, env = "PROBE_MODEL", value_name = "NAME")]
    pub model: String,
    /// Where the prompts are: files with one JSON object a line.
    #[arg(long, env = "PROBE_PROMPTS_DIRECTORY", value_name = "DIRECTORY", default_value = PROMPTS_DIRECTORY)]
    pub prompts_directory: PathBuf,
    /// Most tokens of an answer; a prompt may ask for fewer.
    #[arg(long, env = "PROBE_MAX_TOKENS", value_name = "TOKENS", default_value_t = PROBE_TOKENS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Longest wait for one answer.
    #[arg(long, env = "PROBE_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout_seconds: u64,
    /// Pause before a prompt is asked again; every further one is twice as long.
    #[arg(long, env = "PROBE_PAUSE_MILLISECONDS", value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub pause_milliseconds: u64,
    /// Where the last words are left; ignored if it cannot be written.
    #[arg(long, env = "PROBE_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination_path: PathBuf,
}

fn base(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("it begins with http:// or https://".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_one_of_a_server() {
        for good in ["http://a.b.svc:80", "https://a", "http://a/behind/"] {
            assert!(base(good).is_ok(), "{good}");
        }
        for wrong in ["", "a.b.svc:80", "file:///a", "http://", "a"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }
}
