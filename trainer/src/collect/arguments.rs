//! What the collector is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::bucket::{Bucket, BucketError};
use super::s3::{self, Address, Credentials};

/// Keep what serving pods send, on a volume or in a bucket of the user's: prompts and answers for retraining.
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
    /// Where records are kept, or wait for the bucket.
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
    /// With a bucket: when so much waits for it, no more is taken.
    #[arg(long, env = "COLLECT_SPOOL_BYTES", value_name = "BYTES", default_value_t = 1792 << 20, value_parser = clap::value_parser!(u64).range(64 << 20..))]
    pub spool_bytes: u64,
    /// A bucket to keep records in, instead of the directory.
    #[command(flatten)]
    pub s3: S3Arguments,
}

/// A bucket to keep records in.
#[derive(Args, Clone, Debug)]
pub struct S3Arguments {
    /// Keep segments in this bucket of a store that speaks S3; the directory is where they wait for it.
    #[arg(long = "s3-bucket", env = "COLLECT_S3_BUCKET", value_name = "BUCKET")]
    pub bucket: Option<String>,
    /// What the keys of objects begin with.
    #[arg(
        long = "s3-prefix",
        env = "COLLECT_S3_PREFIX",
        value_name = "PREFIX",
        default_value = "perennial-capture"
    )]
    pub prefix: String,
    /// Region of the bucket.
    #[arg(
        long = "s3-region",
        env = "COLLECT_S3_REGION",
        value_name = "REGION",
        default_value = "us-east-1"
    )]
    pub region: String,
    /// Address of a store that is not of AWS.
    #[arg(long = "s3-endpoint", env = "COLLECT_S3_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Who asks.
    #[command(flatten)]
    pub credentials: Credentials,
}

impl S3Arguments {
    /// A client, if there is a bucket.
    ///
    /// # Errors
    /// What is wrong about the arguments.
    pub fn open(&self) -> Result<Option<Bucket>, BucketError> {
        let open = |bucket: &String| {
            let address = Address {
                bucket,
                prefix: &self.prefix,
                region: &self.region,
                endpoint: self.endpoint.as_deref(),
            };
            s3::open(&address, &self.credentials)
        };
        self.bucket.as_ref().map(open).transpose()
    }
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
