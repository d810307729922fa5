//! Reads PyTorch checkpoints (`torch.save`): archives of a pickle that describes the tensors, and a
//! file of bytes for each storage.
//!
//! `pickle.rs` reads the pickle. It knows only the few opcodes that tensors need, and never runs
//! code.
//! Source: torch/serialization.py and torch/_utils.py.

use std::path::Path;

use super::tensor_files::{MOST_DIMENSIONS, TensorFiles, damaged};
use super::tensor_type::TensorType;
use crate::{Error, Result};

mod archive;
mod pickle;

use archive::Archive;
use pickle::{Node, NodeId, Pickle};

/// Keys under which a checkpoint may hold the weights.
const MODEL_KEYS: [&str; 4] = ["model", "model_state_dict", "state_dict", "state_model"];

/// Opens a checkpoint and finds the weights, at its top level or under one of `MODEL_KEYS`.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, `ERR_INVALID_MODEL` if it is not such an archive, is damaged, or its
/// pickle calls anything but what builds tensors; `ERR_UNSUPPORTED` for a dtype other than f32, f16
/// and bf16, or a tensor that is not contiguous.
pub(super) fn open(path: &Path) -> Result<TensorFiles> {
    let mut files = TensorFiles::default();
    let file = files.open(path)?;
    let bytes = files.file(file).1;
    let archive = Archive::open(path, files.reader(file), bytes)?;
    let text = archive.read(files.reader(file), "data.pkl")?;
    let pickle = Pickle::read(&text).map_err(|what| damaged(path, what))?;
    for (name, tensor) in named_tensors(&pickle, path)? {
        let Node::Tensor { storage, offset, shape, stride } = pickle.node(tensor) else { continue };
        let Node::Storage { kind, key } = pickle.node(*storage) else {
            return Err(damaged(path, format_args!("{name} has no storage")));
        };
        let kind = tensor_type(kind).ok_or_else(|| {
            Error::Unsupported(format!(
                "{}: {name} is a {kind}; save it as float32, float16 or bfloat16",
                path.display()
            ))
        })?;
        if shape.len() > MOST_DIMENSIONS || !is_contiguous(shape, stride) {
            return Err(Error::Unsupported(format!(
                "{}: {name} is not contiguous; save tensor.contiguous()",
                path.display()
            )));
        }
        let (start, size) = archive.locate(files.reader(file), &format!("data/{key}"))?;
        let from = offset.checked_mul(kind.block_bytes() as u64);
        let needed = shape
            .iter()
            .try_fold(kind.block_bytes() as u64, |n, d| n.checked_mul(*d))
            .and_then(|needed| needed.checked_add(from?));
        let (Some(from), true) = (from, needed.is_some_and(|needed| needed <= size)) else {
            return Err(damaged(path, format_args!("{name} is larger than its storage")));
        };
        let shape = shape.iter().map(|d| *d as usize).collect();
        files.add(file, &name, shape, kind, start + from)?;
    }
    Ok(files)
}

/// Returns the names and the tensors in the dictionary of weights.
fn named_tensors(pickle: &Pickle, path: &Path) -> Result<Vec<(String, NodeId)>> {
    let mut weights = pickle.root();
    if let Some(inner) = MODEL_KEYS.iter().find_map(|key| pickle.item(weights, key))
        && matches!(pickle.node(inner), Node::Dict(_))
    {
        weights = inner;
    }
    let Node::Dict(items) = pickle.node(weights) else {
        return Err(damaged(path, "it holds no dictionary of tensors"));
    };
    let mut tensors = Vec::new();
    for (key, value) in items {
        if let (Node::Text(name), Node::Tensor { .. }) = (pickle.node(*key), pickle.node(*value)) {
            tensors.push((name.clone(), *value));
        }
    }
    if tensors.is_empty() {
        return Err(damaged(path, "its dictionary holds no tensors"));
    }
    Ok(tensors)
}

fn tensor_type(storage: &str) -> Option<TensorType> {
    match storage {
        "FloatStorage" => Some(TensorType::F32),
        "HalfStorage" => Some(TensorType::F16),
        "BFloat16Storage" => Some(TensorType::Bf16),
        _ => None,
    }
}

/// Returns whether the strides are those of a row-major tensor. A dimension of size 1 may have any.
fn is_contiguous(shape: &[u64], stride: &[u64]) -> bool {
    let mut expected = 1u64;
    shape.len() == stride.len()
        && shape.iter().zip(stride).rev().all(|(size, stride)| {
            let matches = *size == 1 || *stride == expected;
            expected = expected.saturating_mul(*size);
            matches
        })
}
