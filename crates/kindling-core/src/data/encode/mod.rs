//! Encodes text files (`crate::corpus`) to token stores in one streaming pass, optionally split
//! into training and validation tokens.
//!
//! | file | what |
//! |---|---|
//! | `options.rs` | the options and the summary |
//! | `job.rs` | one encoding, from the first block to the finished stores |
//! | `documents.rs` | encodes one block of text, document by document |
//! | `pipeline.rs` | reads, encodes and writes blocks on all threads |
//! | `journal.rs` | records progress on disk, so that a killed run can be resumed |

mod documents;
#[cfg(test)]
mod format_tests;
mod job;
mod journal;
#[cfg(test)]
mod long_tests;
mod options;
mod pipeline;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod tests;

pub use self::job::encode_files;
pub use self::options::{EncodeOptions, EncodeSummary};
