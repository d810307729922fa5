//! `store.json`: what a token store says of itself.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checksum::checksum;
use super::element::Element;
use crate::{Error, Result};

/// The file's name.
pub const FILE_NAME: &str = "store.json";
const FORMAT_VERSION: u32 = 1;
/// Stands in the file's own place for its checksum while that is computed.
const NO_CHECKSUM: &str = "xxh3:0000000000000000";

/// What is known of a token store. Of a store without `store.json` only the sizes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Version of this form.
    pub format_version: u32,
    /// Tokens.
    pub length: u64,
    /// Bytes of the text they stand for.
    pub bytes: Option<u64>,
    /// Tokens a chunk file.
    pub chunk_size: u64,
    /// numpy's name of the elements.
    pub dtype: String,
    /// Where the tokenizer is, as seen from the store's folder.
    pub tokenizer_path: Option<String>,
    /// Hash of the tokenizer's contents.
    pub tokenizer_hash: Option<String>,
    /// The largest token id.
    pub max_id: Option<u32>,
    /// Bytes of the input that were no UTF-8 and became U+FFFD.
    #[serde(default)]
    pub replaced_bytes: u64,
    /// `xxh3:<hex>` of each chunk file (`sha256:<hex>` in stores of before); empty where unknown.
    #[serde(default)]
    pub checksums: Vec<String>,
    /// Checksum of this file with zeros for the digits of this very value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

impl Metadata {
    /// What can be said of files found without `store.json`.
    pub fn of_sizes(length: u64, chunk_size: u64, dtype: &str) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            length,
            bytes: None,
            chunk_size,
            dtype: dtype.to_owned(),
            tokenizer_path: None,
            tokenizer_hash: None,
            max_id: None,
            replaced_bytes: 0,
            checksums: Vec::new(),
            checksum: None,
        }
    }

    /// Kind of the elements.
    pub fn element(&self) -> Option<Element> {
        Element::of_chunks(&self.dtype)
    }

    /// Fills in the checksum of the file, and gives its text.
    pub(super) fn seal(&mut self) -> Result<String> {
        self.checksum = Some(NO_CHECKSUM.to_owned());
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Internal(format!("store.json: {error}")))?;
        text.push('\n');
        let found = checksum(text.as_bytes());
        let text = replace_last(&text, NO_CHECKSUM, &found);
        self.checksum = Some(found);
        Ok(text)
    }

    /// Compares the file of `folder` with its own checksum, where there is one.
    ///
    /// # Errors
    /// `ERR_INVALID_STORE` if they differ; the system's errors.
    pub fn verify_file(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE_NAME);
        let text = std::fs::read(&path).map_err(|error| Error::io("cannot read", &path, error))?;
        let holds = match &self.checksum {
            Some(said) => std::str::from_utf8(&text).is_ok_and(|text| {
                checksum(replace_last(text, said, NO_CHECKSUM).as_bytes()) == *said
            }),
            // Stores of before have none.
            None => !self.checksums.iter().any(|chunk| chunk.starts_with("xxh3")),
        };
        if holds {
            return Ok(());
        }
        Err(Error::InvalidStore(format!(
            "{} is damaged or was edited: it differs from its checksum",
            path.display()
        )))
    }

    /// The file of `folder`, or none.
    ///
    /// # Errors
    /// `ERR_INVALID_STORE` if it is no such file or of a later version; the system's errors.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE_NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("cannot read", path, error)),
        };
        let invalid = |what: String| Error::InvalidStore(format!("{}: {what}", path.display()));
        let metadata: Self = serde_json::from_slice(&text)
            .map_err(|error| invalid(format!("cannot be read: {error}")))?;
        if metadata.format_version != FORMAT_VERSION {
            let version = metadata.format_version;
            return Err(invalid(format!(
                "format_version {version} is unknown; use a newer kindling"
            )));
        }
        if metadata.element().is_none() || metadata.chunk_size == 0 {
            return Err(invalid(
                "dtype must be int32 or uint16 and chunk_size at least 1".to_owned(),
            ));
        }
        Ok(Some(metadata))
    }
}

fn replace_last(text: &str, from: &str, to: &str) -> String {
    match text.rfind(from) {
        Some(at) => [&text[..at], to, &text[at + from.len()..]].concat(),
        None => text.to_owned(),
    }
}
