//! `store.json`: the metadata of a token store.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::element::Element;
use crate::checksum::{NO_CHECKSUM, is_sealed, seal};
use crate::whole_file::read_whole;
use crate::{Error, Result};

pub const FILE_NAME: &str = "store.json";
const FORMAT_VERSION: u32 = 1;

/// The metadata of a token store. Without `store.json`, only the sizes and the dtype are set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    pub format_version: u32,
    /// The number of tokens.
    pub length: u64,
    /// Bytes of the text that the tokens encode.
    pub bytes: Option<u64>,
    /// Tokens per chunk file.
    pub chunk_size: u64,
    /// numpy's name of the element type.
    pub dtype: String,
    /// The path of the tokenizer, relative to the store's folder or absolute.
    pub tokenizer_path: Option<String>,
    /// A hash of the tokenizer's content.
    pub tokenizer_hash: Option<String>,
    /// The largest token id.
    pub max_id: Option<u32>,
    /// Bytes of the input that were invalid UTF-8 and became U+FFFD.
    #[serde(default)]
    pub replaced_bytes: u64,
    /// The checksum of each chunk file; empty if unknown.
    #[serde(default)]
    pub checksums: Vec<String>,
    /// The checksum of this file, computed with zeros in place of its own digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

impl Metadata {
    /// Returns the metadata of a store without `store.json`.
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

    /// Returns the element type, if it is known.
    pub fn element(&self) -> Option<Element> {
        Element::of_chunks(&self.dtype)
    }

    /// Sets the checksum of the file, and returns the text of the file.
    pub(super) fn seal(&mut self) -> Result<String> {
        self.checksum = Some(NO_CHECKSUM.to_owned());
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Internal(format!("{FILE_NAME}: {error}")))?;
        text.push('\n');
        let (text, found) = seal(&text);
        self.checksum = Some(found);
        Ok(text)
    }

    /// Compares the file in `folder` with its own checksum.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_STORE` if they differ or there is no checksum, and I/O errors.
    pub fn verify_file(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE_NAME);
        let text = read_whole(&path, Error::InvalidStore)?;
        if self.checksum.as_ref().is_some_and(|expected| is_sealed(&text, expected)) {
            return Ok(());
        }
        Err(damaged(&path))
    }

    /// Reads the file in `folder`, if there is one.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_STORE` if the file is malformed, of an unknown version or differs from
    /// its own checksum, and I/O errors.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE_NAME);
        let text = match read_whole(&path, Error::InvalidStore) {
            Ok(text) => text,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let invalid = |what: String| Error::InvalidStore(format!("{}: {what}", path.display()));
        let metadata: Self = serde_json::from_slice(&text)
            .map_err(|error| invalid(format!("cannot be read: {error}; encode the text again")))?;
        if metadata.format_version != FORMAT_VERSION {
            let version = metadata.format_version;
            return Err(invalid(format!(
                "format_version {version} is unknown; use a newer version of Kindling"
            )));
        }
        if metadata.element().is_none() || metadata.chunk_size == 0 {
            return Err(invalid(
                "dtype must be int32 or uint16, and chunk_size at least 1".to_owned(),
            ));
        }
        // A file without a checksum was written by another program, or edited on purpose.
        if metadata.checksum.as_ref().is_some_and(|expected| !is_sealed(&text, expected)) {
            return Err(damaged(&path));
        }
        Ok(Some(metadata))
    }
}

fn damaged(path: &Path) -> Error {
    Error::InvalidStore(format!(
        "{} is damaged or was edited: its checksum differs; encode the text again",
        path.display()
    ))
}
