//! Tensors in model files: named ranges of bytes in open files, read one tensor at a time.
//!
//! Readers of safetensors, GGUF and PyTorch's archives produce them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::tensor_type::TensorType;
use crate::error::IoAction;
use crate::whole_file::open_regular;
use crate::{Error, Result, available_memory};

/// Quantization blocks (or plain elements) converted at a time.
const BLOCK: usize = 1 << 14;
/// Most tensors in a model.
pub(super) const MOST_TENSORS: usize = 1 << 18;
/// Most dimensions of a tensor.
pub(super) const MOST_DIMENSIONS: usize = 4;

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Sizes of the dimensions, row-major: the outermost first.
    pub shape: Vec<usize>,
    pub kind: TensorType,
    /// Index of its file in `TensorFiles`.
    file: usize,
    /// Offset of its first byte in the file.
    start: u64,
    elements: usize,
}

/// Open files and the tensors in them, by name.
#[derive(Debug, Default)]
pub struct TensorFiles {
    files: Vec<(PathBuf, File, u64)>,
    entries: BTreeMap<String, TensorEntry>,
}

impl TensorFiles {
    /// Opens a file and adds it. Returns its index.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND`, `ERR_INVALID_MODEL` if it is not a regular file, and I/O errors.
    pub fn open(&mut self, path: &Path) -> Result<usize> {
        let (file, bytes) = open_regular(path, Error::InvalidModel)?;
        self.files.push((path.to_path_buf(), file, bytes));
        Ok(self.files.len() - 1)
    }

    /// Returns the path of a file and its size in bytes.
    pub fn file(&self, file: usize) -> (&Path, u64) {
        let (path, _, bytes) = &self.files[file];
        (path, *bytes)
    }

    /// Returns an open file, from which the caller reads the header.
    pub fn reader(&mut self, file: usize) -> &mut File {
        &mut self.files[file].1
    }

    /// Adds a tensor of an open file.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_MODEL` if it is not inside its file, its shape is impossible, its name
    /// is taken, or there are too many tensors.
    pub fn add(
        &mut self,
        file: usize,
        name: &str,
        shape: Vec<usize>,
        kind: TensorType,
        start: u64,
    ) -> Result<()> {
        let (path, bytes) = self.file(file);
        let wrong = |what: &str| Err(damaged(path, format_args!("tensor {name} {what}")));
        if self.entries.len() >= MOST_TENSORS {
            return wrong(&format!("exceeds the limit of {MOST_TENSORS} tensors"));
        }
        let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64));
        let size = elements.and_then(|elements| kind.bytes(elements));
        let rows_are_blocks =
            shape.last().is_none_or(|row| row.is_multiple_of(kind.block_elements()));
        let (Some(elements), Some(size), true) = (elements, size, rows_are_blocks) else {
            return wrong(&format!("has the impossible shape {shape:?}"));
        };
        if start.checked_add(size).is_none_or(|end| end > bytes) {
            return wrong(
                "extends past the end of the file, which may not have been copied completely",
            );
        }
        if self.entries.contains_key(name) {
            return wrong("occurs twice");
        }
        let elements = elements as usize;
        let entry = TensorEntry { shape, kind, file, start, elements };
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.entries.get(name)
    }

    /// Returns the names and entries of all tensors, in the order of their names.
    pub fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    /// Removes the tensors whose names `keep` rejects.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.entries.retain(|name, _| keep(name));
    }

    /// Renames a tensor.
    pub fn rename(&mut self, from: &str, to: String) {
        if let Some(entry) = self.entries.remove(from) {
            self.entries.insert(to, entry);
        }
    }

    /// Reads a tensor, converted to f32.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_MODEL` if there is no such tensor, `ERR_OUT_OF_MEMORY`, and I/O errors.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some(entry) = self.entries.get(name) else {
            return Err(Error::InvalidModel(format!("the model has no tensor {name}")));
        };
        let (path, file, _) = &mut self.files[entry.file];
        let cannot_read = |error| Error::io(IoAction::Read, &*path, error);
        available_memory::require(4 * entry.elements as u64)?;
        let mut values = Vec::with_capacity(entry.elements);
        file.seek(SeekFrom::Start(entry.start)).map_err(cannot_read)?;
        let size = entry.kind.block_bytes();
        let mut left = entry.elements / entry.kind.block_elements();
        let mut bytes = vec![0; left.min(BLOCK) * size];
        while left > 0 {
            let bytes = &mut bytes[..left.min(BLOCK) * size];
            file.read_exact(bytes).map_err(cannot_read)?;
            entry.kind.decode(bytes, &mut values);
            left -= bytes.len() / size;
        }
        Ok(values)
    }
}

/// Returns the error for a damaged model file.
pub(super) fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::InvalidModel(format!(
        "{} is damaged: {what}; download or convert it again",
        path.display()
    ))
}
