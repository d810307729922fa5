//! Text files as commands name them: names and patterns, plain or compressed, text or JSON Lines.
//!
//! | file | what |
//! |---|---|
//! | `inputs.rs` | which files, and what they hold |
//! | `reader.rs` | their bytes, decompressed |
//! | `json_lines.rs` | the texts of JSON Lines |
//! | `sample.rs` | documents drawn at random |

pub(crate) mod each_text;
pub(crate) mod inputs;
pub(crate) mod json_lines;
pub(crate) mod reader;
mod sample;
mod utf8;

use std::path::{Path, PathBuf};

use self::inputs::Input;
use crate::{Error, Result};

pub use self::each_text::ReadSummary;
pub use self::inputs::{Format, STDIN, expand_all};
pub use self::sample::sample_documents;
pub use self::utf8::LossyDecoder;

/// The field of JSON Lines that is the text, where nobody says otherwise.
pub const TEXT_FIELD: &str = "text";

/// Files to be read one after the other. Nothing goes from one of their documents into the next.
#[derive(Debug, Clone)]
pub struct Corpus {
    pub(crate) inputs: Vec<Input>,
    pub(crate) text_field: String,
}

impl Corpus {
    /// The files that `names` stand for: names, patterns, `-` for standard input. They hold `format`, by default what their
    /// names tell.
    ///
    /// # Errors
    /// `ERR_NOT_FOUND`, `ERR_INVALID_ARGUMENT` for no name at all, a folder, or standard input twice.
    pub fn find(names: &[PathBuf], format: Option<Format>, text_field: &str) -> Result<Self> {
        Ok(Self { inputs: inputs::find(names, format)?, text_field: text_field.to_owned() })
    }

    /// The error that there is no text in it.
    pub(crate) fn empty(&self) -> Error {
        Error::EmptyCorpus {
            path: self.inputs.first().map_or_else(PathBuf::new, |input| input.path.clone()),
        }
    }

    /// Bytes of the files as they are on the disk; 0 for standard input.
    pub(crate) fn size(&self) -> u64 {
        self.inputs.iter().map(|input| input.size).sum()
    }
}

/// The error of a line of JSON Lines, by its number from 0.
fn invalid_line(path: &Path, line: u64, reason: &str) -> Error {
    Error::InvalidCorpus(format!("{}, line {}: {reason}", path.display(), line + 1))
}
