//! The parameters as named tensors in the layout of files: reading, and strict loading.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::params::Parameter;
use super::transformer::Transformer;
use crate::buffer::Buffer;
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

/// A tensor that loading matches with a parameter by its name.
pub(crate) trait Described {
    fn name(&self) -> &str;
    fn shape(&self) -> &[usize];
    fn elements(&self) -> usize;
}

impl Described for NamedTensor {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn elements(&self) -> usize {
        self.data.len()
    }
}

impl Parameter {
    /// Copies this parameter out of a flat buffer, into the layout of files.
    pub fn to_file(&self, flat: &[f32]) -> NamedTensor {
        let data = self.in_file(&flat[self.range.clone()]).into_owned();
        NamedTensor { name: self.name.clone(), shape: self.file_shape.clone(), data }
    }

    /// Converts the elements of this parameter from the layout of memory to that of files.
    pub(crate) fn in_file<'a>(&self, memory: &'a [f32]) -> Cow<'a, [f32]> {
        match self.file_shape[..] {
            [rows, columns] if self.transposed => transpose(memory, columns, rows).into(),
            _ => memory.into(),
        }
    }

    /// Converts the elements of this parameter from the layout of files to that of memory.
    pub(crate) fn in_memory<'a>(&self, data: &'a [f32]) -> Cow<'a, [f32]> {
        match self.file_shape[..] {
            [rows, columns] if self.transposed => transpose(data, rows, columns).into(),
            _ => data.into(),
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
        let weights = self.current_weights()?.read()?;
        Ok(self.layout.parameters.iter().map(|p| p.to_file(&weights)).collect())
    }

    /// Returns the weights after all queued updates.
    ///
    /// # Errors
    /// As `state_dict`.
    pub(crate) fn current_weights(&self) -> Result<&Buffer> {
        self.norm.check_updates(&self.device)?;
        Ok(&self.weights)
    }

    /// Returns every gradient under the name of its parameter.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the device failed.
    pub fn gradients(&mut self) -> Result<Vec<NamedTensor>> {
        let gradients = self.gradients.get(&self.device)?;
        self.norm.apply_pending_clip(&self.device, gradients)?;
        let gradients = gradients.read()?;
        Ok(self.layout.parameters.iter().map(|p| p.to_file(&gradients)).collect())
    }

    /// Replaces every weight.
    ///
    /// Ignores rotary tables, and reads `Feed_Foward`, as the course spells it, as `Feed_Forward`.
    ///
    /// # Errors
    /// Returns `ERR_CHECKPOINT_MISMATCH`, with the names of all missing, unexpected and misshapen
    /// tensors, and changes nothing; `ERR_DEVICE` if the device failed.
    pub fn load_state_dict(&mut self, tensors: &[NamedTensor]) -> Result<()> {
        let by_name = match_tensors(&self.layout.parameters, &[""], tensors)
            .map_err(Error::CheckpointMismatch)?;
        self.weights_change();
        let parameters = &self.layout.parameters;
        self.weights.write(|weights| {
            for parameter in parameters {
                let data = parameter.in_memory(&by_name[&parameter.name].data);
                weights[parameter.range.clone()].copy_from_slice(&data);
            }
        })?;
        self.refresh_bf16_weights()
    }

    /// Replaces every weight with what `read` returns, in the layout of files.
    ///
    /// # Errors
    /// Returns the errors of `read`, and `ERR_DEVICE`. Some weights have been replaced then.
    pub(crate) fn set_weights(
        &mut self,
        mut read: impl FnMut(&Parameter) -> Result<Vec<f32>>,
    ) -> Result<()> {
        self.weights_change();
        for parameter in &self.layout.parameters {
            let data = read(parameter)?;
            self.weights.write_range(parameter.range.clone(), &parameter.in_memory(&data))?;
        }
        self.refresh_bf16_weights()
    }

    /// Replaces every weight with what `read` returns, in the layout of memory.
    ///
    /// # Errors
    /// As `set_weights`.
    pub(crate) fn set_weights_in_memory(
        &mut self,
        mut read: impl FnMut(&Parameter) -> Result<Vec<f32>>,
    ) -> Result<()> {
        self.weights_change();
        for parameter in &self.layout.parameters {
            self.weights.write_range(parameter.range.clone(), &read(parameter)?)?;
        }
        self.refresh_bf16_weights()
    }
}

/// Finds the tensor named prefix + parameter name for each of `prefixes` and each parameter, and
/// returns them by these names. Strict like `load_state_dict`: the error lists all differences.
pub(crate) fn match_tensors<'a, T: Described>(
    parameters: &[Parameter],
    prefixes: &[&str],
    tensors: &'a [T],
) -> std::result::Result<BTreeMap<String, &'a T>, String> {
    let is_table =
        |name: &str| name.ends_with("rope.cos_values") || name.ends_with("rope.sin_values");
    let mut given: BTreeMap<String, &T> = tensors
        .iter()
        .filter(|t| !is_table(t.name()))
        .map(|t| (t.name().replace("Feed_Foward", "Feed_Forward"), t))
        .collect();
    let mut found = BTreeMap::new();
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    let names = prefixes.iter().flat_map(|prefix| {
        parameters.iter().map(move |parameter| (format!("{prefix}{}", parameter.name), parameter))
    });
    for (name, parameter) in names {
        match given.remove(&name) {
            None => missing.push(name),
            Some(t)
                if *t.shape() != *parameter.file_shape || t.elements() != parameter.range.len() =>
            {
                let (name, shape, wanted) = (t.name(), t.shape(), &parameter.file_shape);
                misshapen.push(format!("{name} has shape {shape:?} instead of {wanted:?}"));
            }
            Some(t) => {
                found.insert(name, t);
            }
        }
    }
    let unexpected: Vec<String> = given.values().map(|t| t.name().to_owned()).collect();
    let parts: Vec<String> =
        [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", names.join(", ")))
            .collect();
    if parts.is_empty() { Ok(found) } else { Err(parts.join("; ")) }
}
