//! What all Jobs of a cycle have in common: what they are told, how they leave files and last words, and [`check`], which tells
//! whether somebody else's Job keeps to it.
//!
//! Nothing here may put any text of a prompt or answer into a log, an error or last words.

mod arguments;
pub mod check;
mod files;
mod items;
mod suites;
mod words;

pub use arguments::parse_json;
pub use files::{Sha256Sum, clean_path, sha256_of_file, write_atomically, write_bytes};
pub(crate) use files::{hex, sync_directory_of};
pub(crate) use items::{ItemsError, Placed, read_items};
pub use suites::{check_item, check_question, suites_digest};
pub use words::{fail, failure, leave, message, retry, words};
