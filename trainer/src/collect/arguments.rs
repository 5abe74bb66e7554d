//! What the collector is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Keep what serving pods send, on a volume of the user's: prompts and answers for retraining.
///
/// Nothing can be read from it but counts. /livez, /readyz and /metrics are on the same port.
#[derive(Args, Clone)]
pub struct Arguments {
    /// Where it listens.
    #[arg(
        long,
        env = "PERENNIAL_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:9091"
    )]
    pub listen: SocketAddr,
    /// What a serving pod must say to be heard.
    #[arg(long, env = "COLLECT_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    pub token: String,
    /// Where records are kept.
    #[arg(long, env = "COLLECT_DIRECTORY", value_name = "DIRECTORY", default_value = "/data")]
    pub directory: PathBuf,
    /// A segment is closed when it is so old.
    #[arg(long, env = "COLLECT_SEGMENT_SECONDS", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub segment_seconds: u32,
    /// A segment is closed when it is so large.
    #[arg(long, env = "COLLECT_SEGMENT_BYTES", value_name = "BYTES", default_value_t = 8 << 20, value_parser = clap::value_parser!(u64).range(1 << 10..=1 << 30))]
    pub segment_bytes: u64,
    /// Segments are deleted when they are so old.
    #[arg(long, env = "COLLECT_RETENTION_DAYS", value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub retention_days: u32,
    /// The oldest segments are deleted before that when all are larger than this together.
    #[arg(long, env = "COLLECT_MAX_BYTES", value_name = "BYTES", default_value_t = 10 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..))]
    pub max_bytes: u64,
}

fn token(text: &str) -> Result<String, String> {
    // A Secret made with `echo` ends with a line break.
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be printable ASCII without blanks, and not empty".to_owned());
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_command_line_is_consistent_and_a_token_is_needed() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split('|')).map(|cli| cli.arguments);
        let arguments = parse("collect|--token| secret\n").expect("arguments");
        assert_eq!((arguments.token.as_str(), arguments.listen.port()), ("secret", 9091));
        for wrong in [
            "collect|--token| ",
            "collect|--token|a b",
            "collect|--token|a|--segment-seconds|0",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
