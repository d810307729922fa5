//! `store.json`: what a token store says of itself.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The file's name.
pub const FILE_NAME: &str = "store.json";
const FORMAT_VERSION: u32 = 1;

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
    /// `sha256:<hex>` of each chunk file; empty where unknown.
    #[serde(default)]
    pub checksums: Vec<String>,
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
        }
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
        let metadata: Self =
            serde_json::from_slice(&text).map_err(|error| invalid(format!("cannot be read: {error}")))?;
        if metadata.format_version != FORMAT_VERSION {
            let version = metadata.format_version;
            return Err(invalid(format!("format_version {version} is unknown; use a newer kindling")));
        }
        if metadata.dtype != "int32" || metadata.chunk_size == 0 {
            return Err(invalid("dtype must be int32 and chunk_size at least 1".to_owned()));
        }
        Ok(Some(metadata))
    }
}
