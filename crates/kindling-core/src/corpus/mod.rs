//! Reads corpora: files of text, JSON Lines or Parquet, plain or compressed, given by names and
//! patterns.
//!
//! | file | what |
//! |---|---|
//! | `inputs.rs` | which files a corpus consists of, and their format |
//! | `reader.rs` | the bytes of one file, decompressed |
//! | `utf8.rs` | bytes to text; invalid UTF-8 becomes U+FFFD |
//! | `json_lines.rs`, `json_field.rs` | the text field of JSON Lines |
//! | `parquet/` | a text column of Parquet, as JSON Lines |
//! | `blocks.rs` | the corpus cut into blocks that can be processed independently |
//! | `long_text.rs` | text without a place to cut, mapped from a temporary file |
//! | `parallel.rs` | all texts of a corpus, read on several threads |
//! | `sample.rs` | documents drawn at random |

pub(crate) mod blocks;
pub(crate) mod inputs;
mod json_field;
pub(crate) mod json_lines;
pub(crate) mod long_text;
pub(crate) mod parallel;
mod parquet;
mod reader;
mod sample;
pub(crate) mod utf8;

pub use self::blocks::Document;
pub use self::inputs::{Corpus, Format, STDIN, TEXT_FIELD, expand_all};
pub use self::parallel::ReadSummary;
pub use self::sample::sample_documents;
pub use self::utf8::LossyDecoder;
