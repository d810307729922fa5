//! The options of an encoding, and its summary.

use std::path::PathBuf;

use crate::corpus::{Document, Format, TEXT_FIELD};
use crate::data::destination::Destination;
use crate::data::element::Element;
use crate::data::store_writer::check_chunk_size;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Options for encoding text files.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// Tokens per chunk file.
    pub chunk_size: u64,
    /// The share of the tokens, taken from the end, that goes to the validation store. At least 0
    /// and below 1.
    pub valid_fraction: f64,
    /// The type of the stored ids: int32, or uint16 if the vocabulary fits.
    pub element: Element,
    /// The number of threads. It does not change the tokens.
    pub threads: usize,
    /// The path of the tokenizer, recorded in a store that has none beside it.
    pub tokenizer_path: Option<PathBuf>,
    /// The format of the files. By default their names decide.
    pub format: Option<Format>,
    /// The field of JSON Lines that holds the text.
    pub text_field: String,
    /// The unit that no token crosses. By default a line of JSON Lines, or a text file.
    pub document: Option<Document>,
    /// Whether to append `<|endoftext|>` to every document that is not empty.
    pub append_eot: bool,
    /// Whether to resume from what a killed run with the same files and options left.
    pub resume: bool,
    /// Whether to keep what is done for a later run when `progress` returns `Error::Cancelled`.
    pub keep_when_cancelled: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            chunk_size: 500_000,
            valid_fraction: 0.0,
            element: Element::Int32,
            threads: 1,
            tokenizer_path: None,
            format: None,
            text_field: TEXT_FIELD.to_owned(),
            document: None,
            append_eot: false,
            resume: true,
            keep_when_cancelled: false,
        }
    }
}

impl EncodeOptions {
    /// Checks the options against each other, the tokenizer and the destination.
    pub(super) fn check(&self, tokenizer: &Tokenizer, destination: &Destination<'_>) -> Result<()> {
        check_chunk_size(self.chunk_size)?;
        let valid_fraction = self.valid_fraction;
        if !(0.0..1.0).contains(&valid_fraction) {
            let message =
                format!("valid_fraction is {valid_fraction}; it must be at least 0 and below 1");
            return Err(Error::argument(message));
        }
        if valid_fraction > 0.0 {
            destination.check_holds_two()?;
        }
        let (element, vocab_size) = (self.element, tokenizer.vocab_size());
        if Element::of_chunks(element.name()).is_none() || vocab_size > element.ids() {
            let name = element.name();
            let message =
                format!("a vocabulary of {vocab_size} does not fit token_dtype {name}; use int32");
            return Err(Error::argument(message));
        }
        Ok(())
    }
}

/// The result of an encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeSummary {
    /// The number of tokens in all stores.
    pub tokens: u64,
    /// Bytes of the text that the tokens encode.
    pub bytes: u64,
    /// Bytes of the files that were invalid UTF-8 and became U+FFFD.
    pub replaced_bytes: u64,
    /// Bytes of text that an earlier, killed run had encoded.
    pub resumed_bytes: u64,
    /// The store of the training tokens.
    pub train: PathBuf,
    /// The store of the validation tokens.
    pub valid: Option<PathBuf>,
}
