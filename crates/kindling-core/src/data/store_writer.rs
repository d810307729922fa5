//! Writes `store.json` and chunk files as the course's numpy.memmap does. Memory use does not
//! depend on the size of the chunks.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::element::{Element, largest};
use super::files::{self, chunk_name, chunk_number};
use super::metadata::{self, Metadata};
use super::token_store::TokenStore;
use crate::checksum::Checksum;
use crate::error::IoAction;
use crate::simd::Isa;
use crate::staging::sync_files;
use crate::{Error, Result};

/// Tokens read at a time.
const BLOCK: usize = 1 << 16;
/// Tokens processed at a time when writing, so few that they stay in the L1 cache between computing
/// the maximum and the checksum.
const PIECE: usize = 1 << 12;

/// The checksum and the largest id of a full chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClosedChunk {
    checksum: String,
    max_id: u32,
}

/// Writes one store into a folder.
#[derive(Debug)]
pub struct StoreWriter {
    folder: PathBuf,
    chunk_size: u64,
    element: Element,
    isa: Isa,
    /// The file of the current chunk and its path, once the chunk has tokens.
    current: Option<(File, PathBuf)>,
    /// Tokens in the current chunk.
    filled: u64,
    length: u64,
    hash: Checksum,
    /// The largest id of the current chunk.
    max_id: u32,
    chunks: Vec<ClosedChunk>,
    /// The bytes of ids as files store them, where those in memory differ.
    buffer: Vec<u8>,
}

impl StoreWriter {
    /// Creates `folder` and a writer of its store. `element` is int32 or uint16.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for a chunk size of 0, and I/O errors.
    pub fn create(folder: &Path, chunk_size: u64, element: Element) -> Result<Self> {
        check_chunk_size(chunk_size)?;
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::io(IoAction::Create, folder, error))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            chunk_size,
            element,
            isa: Isa::detect(),
            current: None,
            filled: 0,
            length: 0,
            hash: Checksum::new(),
            max_id: 0,
            chunks: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// Continues the store in `folder` after `length` tokens, and drops all tokens after them.
    /// `chunks` are the chunks that these tokens fill, `partial` the checksum of the rest, if
    /// known.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_STORE` if the files hold fewer tokens or `chunks` do not match, and I/O
    /// errors.
    pub(super) fn resume(
        folder: &Path,
        chunk_size: u64,
        element: Element,
        chunks: Vec<ClosedChunk>,
        length: u64,
        partial: Option<u64>,
    ) -> Result<Self> {
        let mut writer = Self::create(folder, chunk_size, element)?;
        let (full, rest) = ((length / chunk_size) as usize, length % chunk_size);
        if chunks.len() != full {
            return Err(not_as_written(folder));
        }
        remove_from(folder, full + usize::from(rest > 0))?;
        for (number, chunk) in chunks.iter().enumerate() {
            let path = folder.join(chunk_name(number));
            if std::fs::metadata(&path)
                .is_ok_and(|file| file.len() == chunk_size.saturating_mul(element.size() as u64))
            {
                let (hash, _) = read_chunk(&path, chunk_size, element)?;
                if hash.finish() == chunk.checksum {
                    continue;
                }
            }
            return Err(not_as_written(&path));
        }
        writer.chunks = chunks;
        writer.length = length;
        if rest > 0 {
            let path = folder.join(chunk_name(full));
            (writer.hash, writer.max_id) = truncate_chunk(&path, rest, element)?;
            if partial.is_some_and(|expected| writer.hash.value() != expected) {
                return Err(not_as_written(&path));
            }
            writer.filled = rest;
            let open = File::options().append(true).open(&path);
            let file = open.map_err(|error| Error::io(IoAction::Write, &path, error))?;
            writer.current = Some((file, path));
        }
        Ok(writer)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the number of tokens written so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the checksum of the tokens in the current chunk.
    pub(super) fn partial_checksum(&self) -> u64 {
        self.hash.value()
    }

    /// Returns the chunks that the first `tokens` tokens fill, from number `first` on.
    pub(super) fn closed(&self, first: usize, tokens: u64) -> &[ClosedChunk] {
        &self.chunks[first..(tokens / self.chunk_size) as usize]
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// Returns `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, `ERR_TOKEN_OUT_OF_RANGE` for an id that the
    /// element type cannot represent, and I/O errors.
    pub fn push(&mut self, mut ids: &[u32]) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut pushed = Ok(());
        while !ids.is_empty() && pushed.is_ok() {
            let room = (self.chunk_size - self.filled).min(ids.len() as u64) as usize;
            let (now, later) = ids.split_at(room);
            pushed = self.write(now, self.element.bytes(now, &mut buffer));
            ids = later;
        }
        self.buffer = buffer;
        pushed
    }

    /// Writes tokens that fit into the current chunk.
    fn write(&mut self, ids: &[u32], bytes: &[u8]) -> Result<()> {
        for (ids, bytes) in ids.chunks(PIECE).zip(bytes.chunks(PIECE * self.element.size())) {
            self.max_id = self.max_id.max(largest(self.isa, ids));
            self.hash.update(bytes);
        }
        if self.max_id as usize >= self.element.ids() {
            let (position, vocab_size) = (self.length, self.element.ids());
            return Err(Error::TokenOutOfRange {
                id: i64::from(self.max_id),
                position,
                vocab_size,
            });
        }
        let (file, path) = match &mut self.current {
            Some(current) => current,
            none => {
                let path = self.folder.join(chunk_name(self.chunks.len()));
                let file = File::create(&path)
                    .map_err(|error| Error::io(IoAction::Create, &path, error))?;
                none.insert((file, path))
            }
        };
        file.write_all(bytes).map_err(|error| Error::io(IoAction::Write, &*path, error))?;
        self.filled += ids.len() as u64;
        self.length += ids.len() as u64;
        if self.filled == self.chunk_size {
            self.close_chunk();
        }
        Ok(())
    }

    fn close_chunk(&mut self) {
        if self.current.take().is_none() {
            return;
        }
        let hash = std::mem::replace(&mut self.hash, Checksum::new());
        self.chunks.push(ClosedChunk { checksum: hash.finish(), max_id: self.max_id });
        self.filled = 0;
        self.max_id = 0;
    }

    /// Closes the last chunk and opens the store as it is. No tokens may be pushed after this.
    pub(super) fn read_back(&mut self) -> Result<TokenStore> {
        self.close_chunk();
        let metadata = Metadata::of_sizes(self.length, self.chunk_size, self.element.name());
        Ok(TokenStore::of_files(&self.folder, files::folder(&self.folder, Some(metadata))?))
    }

    /// Drops all tokens from position `length` on. No tokens may be pushed after this.
    ///
    /// # Errors
    /// As `push`.
    pub fn truncate(&mut self, length: u64) -> Result<()> {
        self.close_chunk();
        if length >= self.length {
            return Ok(());
        }
        let (full, rest) = ((length / self.chunk_size) as usize, length % self.chunk_size);
        remove_from(&self.folder, full + usize::from(rest > 0))?;
        self.chunks.truncate(full);
        if rest > 0 {
            let (hash, max_id) =
                truncate_chunk(&self.folder.join(chunk_name(full)), rest, self.element)?;
            self.chunks.push(ClosedChunk { checksum: hash.finish(), max_id });
        }
        self.length = length;
        Ok(())
    }

    /// Closes the last chunk and writes `store.json`. `describe` sets the metadata that the writer
    /// does not know.
    ///
    /// # Errors
    /// As `push`.
    pub fn finish(mut self, describe: impl FnOnce(&mut Metadata)) -> Result<Metadata> {
        self.close_chunk();
        let mut metadata = Metadata::of_sizes(self.length, self.chunk_size, self.element.name());
        metadata.max_id = self.chunks.iter().map(|chunk| chunk.max_id).max();
        metadata.checksums = self.chunks.into_iter().map(|chunk| chunk.checksum).collect();
        describe(&mut metadata);
        write_metadata(&self.folder, &mut metadata)?;
        sync_files(&self.folder)?;
        Ok(metadata)
    }
}

fn not_as_written(path: &Path) -> Error {
    Error::InvalidStore(format!(
        "{} has changed since it was written; encode the text again",
        path.display()
    ))
}

/// Removes the chunk files from number `first` on.
fn remove_from(folder: &Path, first: usize) -> Result<()> {
    let cannot_write = |error| Error::io(IoAction::Write, folder, error);
    for entry in std::fs::read_dir(folder).map_err(cannot_write)? {
        let entry = entry.map_err(cannot_write)?;
        if entry.file_name().to_str().and_then(chunk_number).is_some_and(|number| number >= first) {
            std::fs::remove_file(entry.path()).map_err(cannot_write)?;
        }
    }
    Ok(())
}

/// Shortens a chunk file to `tokens`. Returns the checksum and the largest id of what remains.
fn truncate_chunk(path: &Path, tokens: u64, element: Element) -> Result<(Checksum, u32)> {
    let bytes = tokens * element.size() as u64;
    let cannot_write = |error| Error::io(IoAction::Write, path, error);
    let file = match File::options().write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_as_written(path));
        }
        file => file.map_err(cannot_write)?,
    };
    if file.metadata().map_err(cannot_write)?.len() < bytes {
        return Err(not_as_written(path));
    }
    file.set_len(bytes).map_err(cannot_write)?;
    read_chunk(path, tokens, element)
}

/// Returns the checksum and the largest id of the first `tokens` of a chunk file.
fn read_chunk(path: &Path, tokens: u64, element: Element) -> Result<(Checksum, u32)> {
    let cannot_read = |error| Error::io(IoAction::Read, path, error);
    let mut file = File::open(path).map_err(cannot_read)?;
    let (mut hash, mut max_id) = (Checksum::new(), 0);
    let (mut bytes, mut ids) = (vec![0; BLOCK * element.size()], vec![0; BLOCK]);
    let mut left = tokens as usize;
    while left > 0 {
        let count = left.min(BLOCK);
        let (bytes, ids) = (&mut bytes[..count * element.size()], &mut ids[..count]);
        file.read_exact(bytes).map_err(cannot_read)?;
        hash.update(bytes);
        element.read(bytes, ids, 0)?;
        max_id = ids.iter().fold(max_id, |max, &id| max.max(id as u32));
        left -= count;
    }
    Ok((hash, max_id))
}

pub(super) fn check_chunk_size(chunk_size: u64) -> Result<()> {
    if chunk_size > 0 { Ok(()) } else { Err(Error::argument("chunk_size must be at least 1")) }
}

fn write_metadata(folder: &Path, metadata: &mut Metadata) -> Result<()> {
    let path = folder.join(metadata::FILE_NAME);
    let text = metadata.seal()?;
    let mut file =
        File::create(&path).map_err(|error| Error::io(IoAction::Create, &path, error))?;
    file.write_all(text.as_bytes()).map_err(|error| Error::io(IoAction::Write, &path, error))
}
