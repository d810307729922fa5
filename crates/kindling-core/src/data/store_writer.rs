//! Writes chunk files as the course's numpy.memmap does, and `store.json`. Memory does not depend on the chunks' size.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::files::chunk_name;
use super::metadata::{self, Metadata};
use super::staging::sync_files;
use super::token_store::checksum;
use crate::{Error, Result};

/// Tokens turned into bytes at a time.
const BLOCK: usize = 1 << 15;

#[derive(Debug)]
struct ClosedChunk {
    checksum: String,
    max_id: u32,
}

/// Writes one store into an empty folder.
#[derive(Debug)]
pub struct StoreWriter {
    folder: PathBuf,
    chunk_size: u64,
    current: Option<File>,
    /// Tokens in the current chunk.
    filled: u64,
    length: u64,
    hash: Sha256,
    /// Largest id of the current chunk.
    max_id: u32,
    chunks: Vec<ClosedChunk>,
    bytes: Vec<u8>,
}

impl StoreWriter {
    /// A writer into `folder`, which is created.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a chunk size of 0; the system's errors.
    pub fn create(folder: &Path, chunk_size: u64) -> Result<Self> {
        check_chunk_size(chunk_size)?;
        std::fs::create_dir_all(folder).map_err(|error| Error::io("cannot create", folder, error))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            chunk_size,
            current: None,
            filled: 0,
            length: 0,
            hash: Sha256::new(),
            max_id: 0,
            chunks: Vec::new(),
            bytes: Vec::with_capacity(4 * BLOCK),
        })
    }

    /// Where it writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tokens written so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether none was written.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, the system's errors.
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        let mut rest = ids;
        while !rest.is_empty() {
            let room = (self.chunk_size - self.filled).min(BLOCK as u64) as usize;
            let (block, others) = rest.split_at(room.min(rest.len()));
            self.write(block)?;
            rest = others;
        }
        Ok(())
    }

    /// Writes tokens that fit the current chunk.
    fn write(&mut self, ids: &[u32]) -> Result<()> {
        self.bytes.clear();
        self.bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        self.max_id = ids.iter().fold(self.max_id, |max, &id| max.max(id));
        self.hash.update(&self.bytes);
        let path = self.current_path();
        let file = match &mut self.current {
            Some(file) => file,
            none => {
                none.insert(File::create(&path).map_err(|error| Error::io("cannot create", &path, error))?)
            }
        };
        file.write_all(&self.bytes).map_err(|error| Error::io("cannot write", &path, error))?;
        self.filled += ids.len() as u64;
        self.length += ids.len() as u64;
        if self.filled == self.chunk_size {
            self.close_chunk();
        }
        Ok(())
    }

    fn current_path(&self) -> PathBuf {
        self.folder.join(chunk_name(self.chunks.len()))
    }

    fn close_chunk(&mut self) {
        if self.current.take().is_none() {
            return;
        }
        self.chunks.push(ClosedChunk { checksum: checksum(&mut self.hash), max_id: self.max_id });
        self.filled = 0;
        self.max_id = 0;
    }

    /// Ends the last chunk: the files can be read, and there may be no more tokens.
    pub fn end(&mut self) {
        self.close_chunk();
    }

    /// Drops all tokens from `length` on.
    ///
    /// # Errors
    /// As `push`.
    pub fn cut(&mut self, length: u64) -> Result<()> {
        self.close_chunk();
        let whole = (length / self.chunk_size) as usize;
        let rest = length % self.chunk_size;
        if length >= self.length {
            return Ok(());
        }
        for number in (whole..self.chunks.len()).rev() {
            let path = self.folder.join(chunk_name(number));
            if number == whole && rest > 0 {
                self.chunks[whole] = cut_chunk(&path, rest)?;
            } else {
                std::fs::remove_file(&path).map_err(|error| Error::io("cannot write", &path, error))?;
                self.chunks.pop();
            }
        }
        self.length = length;
        Ok(())
    }

    /// Ends the store and writes `store.json`; `describe` fills in what the writer does not know.
    ///
    /// # Errors
    /// As `push`.
    pub fn finish(mut self, describe: impl FnOnce(&mut Metadata)) -> Result<Metadata> {
        self.close_chunk();
        let mut metadata = Metadata::of_sizes(self.length, self.chunk_size, "int32");
        metadata.max_id = self.chunks.iter().map(|chunk| chunk.max_id).max();
        metadata.checksums = self.chunks.into_iter().map(|chunk| chunk.checksum).collect();
        describe(&mut metadata);
        write_metadata(&self.folder, &metadata)?;
        sync_files(&self.folder)?;
        Ok(metadata)
    }
}

/// Shortens a chunk file to `tokens` and looks at what is left.
fn cut_chunk(path: &Path, tokens: u64) -> Result<ClosedChunk> {
    let cannot_write = |error| Error::io("cannot write", path, error);
    let mut file = File::options().read(true).write(true).open(path).map_err(cannot_write)?;
    file.set_len(4 * tokens).map_err(cannot_write)?;
    let (mut hash, mut max_id) = (Sha256::new(), 0);
    let mut bytes = vec![0; 4 * BLOCK];
    let mut left = 4 * tokens as usize;
    while left > 0 {
        let part = &mut bytes[..left.min(4 * BLOCK)];
        file.read_exact(part).map_err(|error| Error::io("cannot read", path, error))?;
        hash.update(&*part);
        max_id = part.as_chunks().0.iter().fold(max_id, |max, id| max.max(u32::from_le_bytes(*id)));
        left -= part.len();
    }
    Ok(ClosedChunk { checksum: checksum(&mut hash), max_id })
}

/// # Errors
/// `ERR_INVALID_ARGUMENT` for a chunk size of 0.
pub(super) fn check_chunk_size(chunk_size: u64) -> Result<()> {
    if chunk_size > 0 { Ok(()) } else { Err(Error::argument("chunk_size must be at least 1")) }
}

/// Writes `store.json` of a folder in the making.
fn write_metadata(folder: &Path, metadata: &Metadata) -> Result<()> {
    let path = folder.join(metadata::FILE_NAME);
    let mut text = serde_json::to_vec_pretty(metadata)
        .map_err(|error| Error::Internal(format!("store.json: {error}")))?;
    text.push(b'\n');
    let mut file = File::create(&path).map_err(|error| Error::io("cannot create", &path, error))?;
    file.write_all(&text).map_err(|error| Error::io("cannot write", &path, error))
}
