//! What the Job that prepares is told.

use std::path::PathBuf;

use clap::Args;
use perennial_crds::retrain::{CAPTURE_DIRECTORY, GOLDEN_DIRECTORY, PREPARED_DIRECTORY};
use perennial_crds::serving::TERMINATION_PATH;

use crate::collect::bucket::{Bucket, BucketError};
use crate::collect::s3::{self, Address, Credentials};

/// Freeze what may be trained on, and before that hold out what both models are judged by.
///
/// What is told is the contract `prepare/v1`. Running it again changes nothing about a result that is there.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The cycle and its limits: JSON.
    #[arg(long, env = "PREPARE_SETTINGS", value_name = "JSON")]
    pub settings: String,
    /// Why the cycle runs: JSON, which the Job that trains finds as drift/report.json.
    #[arg(long, env = "PREPARE_REPORT", value_name = "JSON", default_value = "{}")]
    pub report: String,
    /// Where the collector keeps records.
    #[arg(long, env = "PREPARE_CAPTURE_DIR", value_name = "DIRECTORY", default_value = CAPTURE_DIRECTORY)]
    pub capture: PathBuf,
    /// Where the user's suites are: a folder each.
    #[arg(long, env = "PREPARE_GOLDEN_DIR", value_name = "DIRECTORY", default_value = GOLDEN_DIRECTORY)]
    pub golden: PathBuf,
    /// Where data/, suites/ and drift/ go; output/ and gate/ are made for the Jobs that follow.
    #[arg(long, env = "PREPARE_OUTPUT_DIR", value_name = "DIRECTORY", default_value = PREPARED_DIRECTORY)]
    pub output: PathBuf,
    /// A bucket to read records from, instead of the directory.
    #[command(flatten)]
    pub s3: S3Arguments,
    /// Where the last words are left; ignored if it cannot be written.
    #[arg(long = "termination", env = "PREPARE_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination: PathBuf,
}

/// A bucket to read records from.
#[derive(Args, Clone, Debug)]
pub struct S3Arguments {
    /// Read segments from this bucket of a store that speaks S3.
    #[arg(long = "s3-bucket", env = "PREPARE_S3_BUCKET", value_name = "BUCKET")]
    pub bucket: Option<String>,
    /// What the keys of objects begin with.
    #[arg(
        long = "s3-prefix",
        env = "PREPARE_S3_PREFIX",
        value_name = "PREFIX",
        default_value = "perennial-capture"
    )]
    pub prefix: String,
    /// Region of the bucket.
    #[arg(
        long = "s3-region",
        env = "PREPARE_S3_REGION",
        value_name = "REGION",
        default_value = "us-east-1"
    )]
    pub region: String,
    /// Address of a store that is not of AWS.
    #[arg(long = "s3-endpoint", env = "PREPARE_S3_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// With a bucket: where its segments lie while they are read. What is there is deleted.
    #[arg(
        long,
        env = "PREPARE_SCRATCH_DIR",
        value_name = "DIRECTORY",
        default_value = "/var/lib/perennial/records"
    )]
    pub scratch: PathBuf,
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
