//! The parameters as named tensors in the layout of files: reading, and strict loading.

use std::collections::BTreeMap;

use super::params::Parameter;
use super::transformer::Transformer;
use crate::{Error, Result};

/// A named tensor in the layout of files.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// As in the course that the model comes from.
    pub name: String,
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

impl Parameter {
    /// Copies this parameter out of a flat buffer, into the layout of files.
    pub fn to_file(&self, flat: &[f32]) -> NamedTensor {
        let memory = &flat[self.range.clone()];
        let data = match self.file_shape[..] {
            [rows, columns] if self.transposed => transpose(memory, columns, rows),
            _ => memory.to_vec(),
        };
        NamedTensor { name: self.name.clone(), shape: self.file_shape.clone(), data }
    }

    /// Copies a tensor in the layout of files into a flat buffer.
    pub fn copy_from_file(&self, flat: &mut [f32], data: &[f32]) {
        let memory = &mut flat[self.range.clone()];
        match self.file_shape[..] {
            [rows, columns] if self.transposed => {
                memory.copy_from_slice(&transpose(data, rows, columns));
            }
            _ => memory.copy_from_slice(data),
        }
    }
}

/// Transposes (rows, columns) to (columns, rows), tile by tile.
fn transpose(source: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut target = vec![0.0; source.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..(top + TILE).min(rows) {
                for column in left..(left + TILE).min(columns) {
                    target[column * rows + row] = source[row * columns + column];
                }
            }
        }
    }
    target
}

impl Transformer {
    /// Returns every weight.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if a queued update was skipped, `ERR_DEVICE` if the device failed.
    pub fn state_dict(&self) -> Result<Vec<NamedTensor>> {
        self.norm.check_updates(&self.device)?;
        let weights = self.weights.read()?;
        Ok(self.layout.parameters.iter().map(|p| p.to_file(&weights)).collect())
    }

    /// Returns every gradient, named as its parameter.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the device failed.
    pub fn gradients(&mut self) -> Result<Vec<NamedTensor>> {
        self.norm.apply_pending_clip(&self.device, &mut self.gradients)?;
        let gradients = self.gradients.read()?;
        Ok(self.layout.parameters.iter().map(|p| p.to_file(&gradients)).collect())
    }

    /// Replaces every weight.
    ///
    /// Ignores rotary tables, and reads `Feed_Foward`, a spelling of the course, as `Feed_Forward`.
    ///
    /// # Errors
    /// Returns `ERR_CHECKPOINT_MISMATCH`, with the names of all missing, unexpected and misshapen
    /// tensors, and changes nothing; `ERR_DEVICE` if the device failed.
    pub fn load_state_dict(&mut self, tensors: &[NamedTensor]) -> Result<()> {
        let by_name = match_tensors(&self.layout.parameters, tensors, "")?;
        self.decode_weights_bf16 = None;
        let parameters = &self.layout.parameters;
        self.weights.write(|weights| {
            for parameter in parameters {
                parameter.copy_from_file(weights, &by_name[&parameter.name].data);
            }
        })?;
        self.refresh_bf16_weights()
    }
}

/// Finds the tensor named `prefix` + name of each parameter, by name. Strict, as `load_state_dict`.
pub(crate) fn match_tensors<'a>(
    parameters: &[Parameter],
    tensors: &'a [NamedTensor],
    prefix: &str,
) -> Result<BTreeMap<String, &'a NamedTensor>> {
    let mut given: BTreeMap<String, &NamedTensor> = tensors
        .iter()
        .filter(|t| !t.name.ends_with("rope.cos_values") && !t.name.ends_with("rope.sin_values"))
        .filter_map(|t| {
            t.name.strip_prefix(prefix).map(|name| (name.replace("Feed_Foward", "Feed_Forward"), t))
        })
        .collect();
    let mut found = BTreeMap::new();
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    for parameter in parameters {
        match given.remove(&parameter.name) {
            None => missing.push(format!("{prefix}{}", parameter.name)),
            Some(t) if t.shape != parameter.file_shape || t.data.len() != parameter.range.len() => {
                misshapen.push(format!(
                    "{} has shape {:?}, the model {:?}",
                    t.name, t.shape, parameter.file_shape
                ));
            }
            Some(t) => {
                found.insert(parameter.name.clone(), t);
            }
        }
    }
    let unexpected: Vec<String> = given.values().map(|t| t.name.clone()).collect();
    let parts: Vec<String> =
        [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", names.join(", ")))
            .collect();
    if parts.is_empty() { Ok(found) } else { Err(Error::CheckpointMismatch(parts.join("; "))) }
}
