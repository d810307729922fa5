//! How text becomes a store.

use std::path::PathBuf;

use serde::Serialize;

use crate::corpus::Format;
use crate::data::element::Element;

/// Where a document ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Document {
    /// With its file.
    File,
    /// With its line; the line break belongs to none.
    Line,
    /// At blank lines, which belong to none.
    Block,
}

/// How text becomes a store.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// Tokens a chunk file.
    pub chunk_size: u64,
    /// Share of the tokens, from the end, that is for validation: from 0 to below 1.
    pub valid_fraction: f64,
    /// int32, or uint16 where the vocabulary fits.
    pub element: Element,
    /// Threads that encode; the tokens do not depend on it.
    pub threads: usize,
    /// Where the tokenizer can be opened, for a store without one beside it.
    pub tokenizer_path: Option<PathBuf>,
    /// What the files hold; by default told by their names.
    pub format: Option<Format>,
    /// The field of JSON Lines that is the text.
    pub text_field: String,
    /// What a document is: by default a line of JSON Lines, and a whole file of text. No token crosses from one into the
    /// next.
    pub document: Option<Document>,
    /// Put <|endoftext|> after every document that is not empty.
    pub append_eot: bool,
    /// Go on with what a killed run of the same work left.
    pub resume: bool,
    /// Leave what is done so far for a later run when `progress` ends this one with `Error::Cancelled`.
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
            text_field: "text".to_owned(),
            document: None,
            append_eot: false,
            resume: true,
            keep_when_cancelled: false,
        }
    }
}
