//! What the Jobs that write and read a tag are told.

use std::path::PathBuf;

use clap::Args;
use perennial_crds::serving::TERMINATION_PATH;

/// Give the model that serves a tag in its repository, with where it comes from.
///
/// Exits with 0 if the tag names it, with 1 if that is refused, and with 75 if the registry cannot be reached.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The model: oci://HOST/REPOSITORY@sha256:HEX.
    #[arg(long, env = "PUBLISH_URI", value_name = "URI")]
    pub uri: String,
    /// The tag that it gets; whatever had it before loses it.
    #[arg(long, env = "PUBLISH_TAG", value_name = "TAG")]
    pub tag: String,
    /// Where it comes from: a JSON object.
    #[arg(long, env = "PUBLISH_LINEAGE", value_name = "JSON")]
    pub lineage: String,
    /// Where the last words are left; ignored if it cannot be written.
    #[arg(long, env = "PUBLISH_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination_path: PathBuf,
}

/// Find the model that a tag names, and where it comes from.
///
/// Exits with 0 if that is known, also if there is no such tag, with 1 if the tag names no learned model, and with 75 if the
/// registry cannot be reached.
#[derive(Args, Clone, Debug)]
pub struct RestoreArguments {
    /// The tag: oci://HOST/REPOSITORY:TAG.
    #[arg(long, env = "RESTORE_URI", value_name = "URI")]
    pub uri: String,
    /// Where the last words are left; ignored if it cannot be written.
    #[arg(long, env = "RESTORE_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination_path: PathBuf,
}
