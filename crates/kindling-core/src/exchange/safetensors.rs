//! Reads one safetensors file, or the shards listed in an index, and writes one.
//!
//! ```text
//! u64 length of the header | header: JSON | tensors
//! ```
//! Source: <https://github.com/huggingface/safetensors>. That crate's `Metadata` checks the header.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use super::tensor_files::{MOST_DIMENSIONS, TensorFiles, damaged};
use super::tensor_type::TensorType;
use super::tensor_writer::{NewTensor, ReadTensor, TensorWriter};
use crate::error::IoAction;
use crate::whole_file::read_whole;
use crate::{Error, Result};

/// The largest header, as in the safetensors crate.
const LARGEST_HEADER: u64 = 100_000_000;

/// The part of model.safetensors.index.json that maps tensors to shards.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens model.safetensors in a folder, or the shards that model.safetensors.index.json lists.
///
/// # Errors
/// Returns `ERR_NOT_FOUND` if there is neither or a shard is missing, `ERR_INVALID_MODEL` if the
/// index is damaged, and the errors of `open_file`.
pub(super) fn open_folder(folder: &Path) -> Result<TensorFiles> {
    let (single, index) =
        (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    let mut files = TensorFiles::default();
    if single.exists() || !index.exists() {
        if !single.exists() {
            return Err(Error::NotFound { what: "model file", path: single });
        }
        open_file(&mut files, &single)?;
        return Ok(files);
    }
    let text = read_whole(&index, Error::InvalidModel)?;
    let map: Index = serde_json::from_slice(&text).map_err(|error| damaged(&index, error))?;
    let shards: BTreeSet<&String> = map.weight_map.values().collect();
    for shard in shards {
        if shard.contains(['/', '\\']) || shard.starts_with('.') {
            return Err(damaged(&index, format_args!("{shard:?} is not a valid name for a shard")));
        }
        let path = folder.join(shard);
        if !path.exists() {
            return Err(Error::NotFound { what: "shard", path });
        }
        open_file(&mut files, &path)?;
    }
    match map.weight_map.keys().find(|name| files.get(name).is_none()) {
        Some(name) => Err(damaged(&index, format_args!("no shard has the tensor {name}"))),
        None => Ok(files),
    }
}

/// Opens a file and adds its tensors to `files`.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, `ERR_INVALID_MODEL` if it is damaged, `ERR_UNSUPPORTED` if a tensor is
/// neither f32, f16 nor bf16.
pub(super) fn open_file(files: &mut TensorFiles, path: &Path) -> Result<()> {
    let file = files.open(path)?;
    let bytes = files.file(file).1;
    let cannot_read = |error| Error::io(IoAction::Read, path, error);
    let reader = files.reader(file);
    let mut length = [0; 8];
    if bytes < 8 {
        return Err(damaged(path, "it is too short for a header"));
    }
    reader.read_exact(&mut length).map_err(cannot_read)?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST_HEADER.min(bytes - 8) {
        return Err(damaged(path, "its header is longer than the file"));
    }
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header).map_err(cannot_read)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(path, error))?;
    let start = 8 + length;
    if start.checked_add(metadata.data_len() as u64) != Some(bytes) {
        return Err(damaged(path, "its length does not match its header"));
    }
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let kind = match info.dtype {
            Dtype::F32 => TensorType::F32,
            Dtype::F16 => TensorType::F16,
            Dtype::BF16 => TensorType::Bf16,
            other => {
                return Err(Error::Unsupported(format!(
                    "{}: {name} has dtype {other:?}; convert it to f32, f16 or bf16",
                    path.display()
                )));
            }
        };
        if info.shape.len() > MOST_DIMENSIONS {
            let what = format_args!(
                "{name} has {} dimensions, more than {MOST_DIMENSIONS}",
                info.shape.len()
            );
            return Err(damaged(path, what));
        }
        files.add(file, &name, info.shape.clone(), kind, start + info.data_offsets.0 as u64)?;
    }
    Ok(())
}

/// Writes a file and syncs it, holding one tensor in memory at a time. The tensors are stored in
/// the order given.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT` for a quantized type, `ERR_NOT_WRITABLE`, `ERR_DISK_FULL` and
/// other I/O errors, and those of `read`.
pub(super) fn write(path: &Path, tensors: &[NewTensor], read: &mut ReadTensor<'_>) -> Result<()> {
    let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
    let mut end = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let dtype = match tensor.kind {
            TensorType::F32 => Dtype::F32,
            TensorType::F16 => Dtype::F16,
            TensorType::Bf16 => Dtype::BF16,
            other => {
                return Err(Error::argument(format!(
                    "safetensors files cannot store {}; use f32, bf16 or f16",
                    other.name()
                )));
            }
        };
        let start = end;
        end += tensor.bytes()? as usize;
        let info = TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (start, end) };
        infos.push((tensor.name.clone(), info));
    }
    // Other tools look for this key.
    let about = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
    let metadata = Metadata::new(Some(about), infos).map_err(|error| internal(&error))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| internal(&error))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = TensorWriter::create(path)?;
    file.bytes(&(header.len() as u64).to_le_bytes())?;
    file.bytes(&header)?;
    for (index, tensor) in tensors.iter().enumerate() {
        file.tensor(tensor.kind, &read(index)?)?;
    }
    file.finish()
}
