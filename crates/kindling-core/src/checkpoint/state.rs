//! `state.json`, which describes a checkpoint and records the checksums of its files.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::tensor_file::{FileRecord, damaged};
use crate::checksum::{NO_CHECKSUM, is_sealed, seal};
use crate::config::ModelConfig;
use crate::whole_file::read_whole;
use crate::{Error, Result};

pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const FILE_NAME: &str = "state.json";

/// Contents of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of the layout of this file.
    pub format_version: u32,
    /// Number of updates made.
    pub iteration: u64,
    pub model: ModelConfig,
    pub optimizer: Option<OptimizerState>,
    /// JSON stored for the caller, kept as text since parsing its numbers could round them.
    #[serde(default)]
    pub run: Box<RawValue>,
    /// Sizes and checksums of the other files, by name; empty in checkpoints of old versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileRecord>,
    /// Checksum of this file, computed with zeros in place of its own digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// The optimizer's part of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OptimizerState {
    /// `adamw` or `sgd`.
    pub kind: String,
    /// Number of updates that this optimizer has made.
    pub steps: u64,
}

impl State {
    /// Returns the text of the file, with its checksum.
    pub(super) fn text(&self) -> Result<String> {
        let unsealed = Self { checksum: Some(NO_CHECKSUM.to_owned()), ..self.clone() };
        let text =
            serde_json::to_string_pretty(&unsealed).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(seal(&text).0)
    }

    /// Lists the settings in which the checkpoint's model and `model` differ, so that the weights
    /// of one are meaningless in the other. `max_seq_length` may differ: the weights do not depend
    /// on it.
    pub(super) fn differences(&self, model: &ModelConfig) -> Result<Vec<String>> {
        let value = |config: &ModelConfig| {
            // An explicit head size may equal the default one.
            let config = ModelConfig { head_size: Some(config.head_size()), ..config.clone() };
            serde_json::to_value(config).map_err(|e| Error::Internal(e.to_string()))
        };
        let (saved, model) = (value(&self.model)?, value(model)?);
        let fields = model.as_object().into_iter().flatten();
        Ok(fields
            .filter(|(name, value)| *name != "max_seq_length" && saved.get(name) != Some(value))
            .map(|(name, value)| {
                let saved = saved.get(name).unwrap_or(&serde_json::Value::Null);
                format!("{name} is {saved} in the checkpoint but {value} in the model")
            })
            .collect())
    }
}

/// Reads and verifies `state.json` of the checkpoint at `path`.
///
/// # Errors
/// Returns `ERR_NOT_FOUND` if there is no checkpoint at `path`, and `ERR_INVALID_CHECKPOINT` if the
/// file is damaged or written by a newer version.
pub fn read_state(path: &Path) -> Result<State> {
    if !path.is_dir() {
        return Err(Error::NotFound { what: "checkpoint", path: path.to_path_buf() });
    }
    let file = path.join(FILE_NAME);
    let text = read_whole(&file, Error::InvalidCheckpoint)?;
    let state: State = serde_json::from_slice(&text).map_err(|e| damaged(&file, &e.to_string()))?;
    if state.format_version > FORMAT_VERSION {
        return Err(Error::InvalidCheckpoint(format!(
            "{} has format_version {}; this version of Kindling reads up to {FORMAT_VERSION}; \
             update Kindling",
            file.display(),
            state.format_version
        )));
    }
    // A flipped bit in the name of `checksum` or `files` must not disable the checks.
    let intact = match &state.checksum {
        Some(expected) => is_sealed(&text, expected),
        None => state.files.is_empty() && !contains(&text, b"xxh3"),
    };
    if !intact {
        return Err(damaged(&file, "its checksum differs"));
    }
    Ok(state)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
