//! API types of Perennial and the small contracts between its parts.
//!
//! Everything here is data: no client, no I/O, no clock. The generated YAML lies at the top level of this folder.

pub mod serving;
