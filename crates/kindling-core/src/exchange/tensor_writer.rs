//! Writes tensors to a file, one at a time.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::tensor_type::TensorType;
use crate::error::IoAction;
use crate::{Error, Result};

/// Elements converted at a time, a multiple of every type's block.
const BLOCK: usize = 1 << 14;

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    pub name: String,
    /// Sizes of the dimensions, row-major: the outermost first.
    pub shape: Vec<usize>,
    pub kind: TensorType,
}

impl NewTensor {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the number of bytes that it takes in a file.
    ///
    /// # Errors
    /// Returns `ERR_INTERNAL` if it is not made of whole blocks.
    pub fn bytes(&self) -> Result<u64> {
        self.kind.bytes(self.elements() as u64).ok_or_else(|| {
            Error::Internal(format!("{} does not consist of whole blocks", self.name))
        })
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct TensorWriter {
    path: PathBuf,
    file: BufWriter<File>,
    at: u64,
}

impl TensorWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// Returns `ERR_NOT_WRITABLE`, `ERR_DISK_FULL` and other I/O errors.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| Error::io(IoAction::Create, path, error))?;
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file), at: 0 })
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// As `create`.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| Error::io(IoAction::Write, &self.path, error))
    }

    /// Writes zeros up to a multiple of `alignment`.
    ///
    /// # Errors
    /// As `create`.
    pub fn align(&mut self, alignment: u64) -> Result<()> {
        let zeros = self.at.next_multiple_of(alignment) - self.at;
        self.bytes(&vec![0; zeros as usize])
    }

    /// Writes the elements of a tensor as `kind`.
    ///
    /// # Errors
    /// As `create`.
    pub fn tensor(&mut self, kind: TensorType, values: &[f32]) -> Result<()> {
        let mut block = Vec::new();
        for values in values.chunks(BLOCK) {
            block.clear();
            kind.encode(values, &mut block)?;
            self.bytes(&block)?;
        }
        Ok(())
    }

    /// Flushes the buffer and syncs the file.
    ///
    /// # Errors
    /// As `create`.
    pub fn finish(self) -> Result<()> {
        let failed = |error| Error::io(IoAction::Write, &self.path, error);
        let file = self.file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)
    }
}

/// A callback that returns the elements of the tensor with the given index.
pub type ReadTensor<'a> = dyn FnMut(usize) -> Result<Cow<'a, [f32]>> + 'a;
