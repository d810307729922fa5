//! Writes and reads safetensors files of f32 tensors, one tensor at a time.
//!
//! ```text
//! u64 length of the header | header: JSON, padded with spaces to a multiple of 8 | tensors
//! ```
//!
//! The format and the order of the tensors, by name, are those of the safetensors crate, whose
//! `Metadata` makes and checks the header. <https://github.com/huggingface/safetensors>

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::checksum::WideChecksum;
use crate::error::IoAction;
use crate::model::{Described, Parameter};
use crate::progress::{Counted, f32_bytes};
use crate::whole_file::open_regular;
use crate::{Error, Result};

const F32: usize = size_of::<f32>();
/// Elements converted, hashed, and written or read at a time.
const BLOCK: usize = 1 << 16;
/// The largest header, as in the safetensors crate.
const LARGEST_HEADER: u64 = 100_000_000;

/// Size and checksums of a file, as `state.json` records them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    pub bytes: u64,
    /// Checksum of everything before the tensors, or of a whole file that has no tensors.
    pub head: String,
    /// Checksum of each tensor, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tensors: BTreeMap<String, String>,
}

/// A tensor to write: the elements of `parameter` in the flat buffer `flat`, named `prefix` + the
/// parameter's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub prefix: &'static str,
    pub parameter: &'a Parameter,
    pub flat: &'a Buffer,
}

/// Writes a file and syncs it, holding one tensor in memory at a time.
///
/// # Errors
/// Returns `ERR_IO`, `ERR_DISK_FULL` or `ERR_NOT_WRITABLE` if the file cannot be written,
/// `ERR_DEVICE` if a tensor cannot be read from its device, and errors of the progress callback.
pub(super) fn write(
    path: &Path,
    sources: &[Source<'_>],
    written: &mut Counted<'_, '_>,
) -> Result<FileRecord> {
    let cannot_write = |error| Error::io(IoAction::Write, path, error);
    let mut sources: Vec<_> =
        sources.iter().map(|s| (format!("{}{}", s.prefix, s.parameter.name), s)).collect();
    sources.sort_by(|(a, _), (b, _)| a.cmp(b));
    let head = header(&sources)?;
    let mut record = FileRecord {
        bytes: head.len() as u64,
        head: WideChecksum::of(&head),
        tensors: BTreeMap::new(),
    };
    let mut file = File::create(path).map_err(|error| Error::io(IoAction::Create, path, error))?;
    file.write_all(&head).map_err(cannot_write)?;
    let mut block = Vec::with_capacity(BLOCK * F32);
    for (name, source) in sources {
        let memory = source.flat.read_range(source.parameter.range.clone())?;
        let mut hash = WideChecksum::default();
        for floats in source.parameter.in_file(&memory).chunks(BLOCK) {
            block.clear();
            block.extend(floats.iter().flat_map(|value| value.to_le_bytes()));
            hash.update(&block);
            file.write_all(&block).map_err(cannot_write)?;
        }
        record.bytes += f32_bytes(memory.len());
        written.add(f32_bytes(memory.len()))?;
        record.tensors.insert(name, hash.finish());
    }
    file.sync_all().map_err(cannot_write)?;
    Ok(record)
}

/// Returns the bytes of the file before the tensors.
fn header(sources: &[(String, &Source<'_>)]) -> Result<Vec<u8>> {
    let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
    let mut end = 0;
    let infos = sources
        .iter()
        .map(|(name, source)| {
            let start = end;
            end += source.parameter.range.len() * F32;
            let shape = source.parameter.file_shape.clone();
            (name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) })
        })
        .collect();
    // Other tools look for this key. A second key would make the order of the keys random.
    let about = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
    let metadata = Metadata::new(Some(about), infos).map_err(|error| internal(&error))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| internal(&error))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut head = (text.len() as u64).to_le_bytes().to_vec();
    head.append(&mut text);
    Ok(head)
}

/// A tensor in a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    name: String,
    shape: Vec<usize>,
    /// Offset of its first byte in the file.
    start: u64,
    elements: usize,
}

impl Described for Entry {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn elements(&self) -> usize {
        self.elements
    }
}

/// An open file whose header has been checked.
#[derive(Debug)]
pub(super) struct TensorFile {
    file: File,
    path: PathBuf,
    /// Checksums of the tensors, if known and not verified yet.
    checksums: Option<BTreeMap<String, String>>,
    /// The tensors in the order of the file.
    pub entries: Vec<Entry>,
}

impl TensorFile {
    /// Opens a file and reads its header. If `record` is given, the header must have its checksum.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND` if the file does not exist, and `ERR_INVALID_CHECKPOINT` if it is
    /// damaged or holds a tensor of another dtype than f32.
    pub fn open(path: &Path, record: Option<&FileRecord>) -> Result<Self> {
        let (mut file, bytes) = open_regular(path, Error::InvalidCheckpoint)?;
        let cannot_read = |error| Error::io(IoAction::Read, path, error);
        let damaged = |what: &str| damaged(path, what);
        if bytes < 8 {
            return Err(damaged("it is too short for a header"));
        }
        let mut head = vec![0; 8];
        file.read_exact(&mut head).map_err(cannot_read)?;
        let length = head.iter().rev().fold(0, |length: u64, byte| length << 8 | u64::from(*byte));
        if length > LARGEST_HEADER.min(bytes - 8) {
            return Err(damaged("its header is longer than the file"));
        }
        head.resize(8 + length as usize, 0);
        file.read_exact(&mut head[8..]).map_err(cannot_read)?;
        if record.is_some_and(|record| record.head != WideChecksum::of(&head)) {
            return Err(damaged("the checksum of its header differs from state.json"));
        }
        let metadata: Metadata =
            serde_json::from_slice(&head[8..]).map_err(|error| damaged(&error.to_string()))?;
        let start = head.len() as u64;
        if start.checked_add(metadata.data_len() as u64) != Some(bytes) {
            return Err(damaged("its length does not match its header"));
        }
        let mut entries = Vec::new();
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            if info.dtype != Dtype::F32 {
                let dtype = info.dtype;
                return Err(damaged(&format!("{name} has dtype {dtype:?} instead of F32")));
            }
            let (from, to) = info.data_offsets;
            entries.push(Entry {
                name,
                shape: info.shape.clone(),
                start: start + from as u64,
                elements: (to - from) / F32,
            });
        }
        let checksums = record.map(|record| record.tensors.clone());
        Ok(Self { file, path: path.to_path_buf(), checksums, entries })
    }

    /// Returns the number of bytes that `verify` reads.
    pub fn bytes_to_verify(&self) -> u64 {
        let elements = self.entries.iter().map(|entry| entry.elements).sum();
        if self.checksums.is_some() { f32_bytes(elements) } else { 0 }
    }

    /// Compares the tensors with their checksums, if these are known and not verified yet.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_CHECKPOINT` naming the first tensor that differs, I/O errors, and those
    /// of the progress.
    pub fn verify(&mut self, read: &mut Counted<'_, '_>) -> Result<()> {
        let Some(checksums) = self.checksums.take() else { return Ok(()) };
        for entry in self.entries.clone() {
            let mut hash = WideChecksum::default();
            self.read_blocks(&entry, |block| hash.update(block))?;
            if checksums.get(&entry.name) != Some(&hash.finish()) {
                let what = format!("the checksum of {} differs from state.json", entry.name);
                return Err(damaged(&self.path, &what));
            }
            read.add(f32_bytes(entry.elements))?;
        }
        Ok(())
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// Returns I/O errors.
    pub fn read(&mut self, entry: &Entry) -> Result<Vec<f32>> {
        let mut data = Vec::with_capacity(entry.elements);
        self.read_blocks(entry, |block| {
            let words = block.chunks_exact(F32);
            data.extend(words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        })?;
        Ok(data)
    }

    fn read_blocks(&mut self, entry: &Entry, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let cannot_read = |error| Error::io(IoAction::Read, &self.path, error);
        self.file.seek(SeekFrom::Start(entry.start)).map_err(cannot_read)?;
        let mut block = vec![0; BLOCK.min(entry.elements) * F32];
        let mut left = entry.elements * F32;
        while left > 0 {
            let block = &mut block[..left.min(BLOCK * F32)];
            self.file.read_exact(block).map_err(cannot_read)?;
            visit(block);
            left -= block.len();
        }
        Ok(())
    }
}

/// Returns the error for a damaged file of a checkpoint.
pub(super) fn damaged(path: &Path, what: &str) -> Error {
    Error::InvalidCheckpoint(format!(
        "{} is damaged: {what}; use an earlier checkpoint",
        path.display()
    ))
}
