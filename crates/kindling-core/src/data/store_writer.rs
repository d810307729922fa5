//! Writes chunk files as the course's numpy.memmap does, and `store.json`. Memory does not depend on the chunks' size.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::element::{Element, largest};
use super::files::{self, chunk_name, chunk_number};
use super::metadata::{self, Metadata};
use super::token_store::TokenStore;
use crate::staging::sync_files;
use crate::{Error, Result};

/// Tokens read at a time.
const BLOCK: usize = 1 << 16;
/// Tokens looked at together: they stay in the fastest cache.
const PIECE: usize = 1 << 12;

/// What is kept of a chunk that is full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClosedChunk {
    checksum: String,
    max_id: u32,
}

/// Writes one store into a folder of its own.
#[derive(Debug)]
pub struct StoreWriter {
    folder: PathBuf,
    chunk_size: u64,
    element: Element,
    /// The file of the current chunk and its path, once it has tokens.
    current: Option<(File, PathBuf)>,
    /// Tokens in the current chunk.
    filled: u64,
    length: u64,
    hash: Checksum,
    /// Largest id of the current chunk.
    max_id: u32,
    chunks: Vec<ClosedChunk>,
    /// For elements that memory holds in another way.
    buffer: Vec<u8>,
}

impl StoreWriter {
    /// A writer into `folder`, which is created. `element` is int32 or uint16.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a chunk size of 0; the system's errors.
    pub fn create(folder: &Path, chunk_size: u64, element: Element) -> Result<Self> {
        check_chunk_size(chunk_size)?;
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::io("cannot create", folder, error))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            chunk_size,
            element,
            current: None,
            filled: 0,
            length: 0,
            hash: Checksum::new(),
            max_id: 0,
            chunks: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// A writer that goes on in `folder` after `length` tokens, of which `chunks` are known; whatever lies behind them is
    /// dropped.
    ///
    /// # Errors
    /// `ERR_INVALID_STORE` if the files do not hold so many tokens, or others than were written; the system's errors.
    pub(super) fn resume(
        folder: &Path,
        chunk_size: u64,
        element: Element,
        chunks: Vec<ClosedChunk>,
        length: u64,
    ) -> Result<Self> {
        let mut writer = Self::create(folder, chunk_size, element)?;
        let (whole, rest) = ((length / chunk_size) as usize, length % chunk_size);
        if chunks.len() != whole {
            return Err(not_as_written(folder));
        }
        remove_from(folder, whole + usize::from(rest > 0))?;
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
            let path = folder.join(chunk_name(whole));
            (writer.hash, writer.max_id) = cut_chunk(&path, rest, element)?;
            writer.filled = rest;
            let open = File::options().append(true).open(&path);
            let file = open.map_err(|error| Error::io("cannot write", &path, error))?;
            writer.current = Some((file, path));
        }
        Ok(writer)
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

    /// The chunks from number `first` on that the first `tokens` fill.
    pub(super) fn closed(&self, first: usize, tokens: u64) -> &[ClosedChunk] {
        &self.chunks[first..(tokens / self.chunk_size) as usize]
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, `ERR_TOKEN_OUT_OF_RANGE` for an id the elements cannot hold; the system's
    /// errors.
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

    /// Writes tokens that fit the current chunk.
    fn write(&mut self, ids: &[u32], bytes: &[u8]) -> Result<()> {
        for (ids, bytes) in ids.chunks(PIECE).zip(bytes.chunks(PIECE * self.element.size())) {
            self.max_id = self.max_id.max(largest(ids));
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
                    .map_err(|error| Error::io("cannot create", &path, error))?;
                none.insert((file, path))
            }
        };
        file.write_all(bytes).map_err(|error| Error::io("cannot write", &*path, error))?;
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

    /// Ends the last chunk and opens what is written; there may be no more tokens.
    pub(super) fn read_back(&mut self) -> Result<TokenStore> {
        self.close_chunk();
        let metadata = Metadata::of_sizes(self.length, self.chunk_size, self.element.name());
        Ok(TokenStore::of_files(&self.folder, files::folder(&self.folder, Some(metadata))?))
    }

    /// Drops all tokens from `length` on.
    ///
    /// # Errors
    /// As `push`.
    pub fn cut(&mut self, length: u64) -> Result<()> {
        self.close_chunk();
        if length >= self.length {
            return Ok(());
        }
        let (whole, rest) = ((length / self.chunk_size) as usize, length % self.chunk_size);
        remove_from(&self.folder, whole + usize::from(rest > 0))?;
        self.chunks.truncate(whole);
        if rest > 0 {
            let (hash, max_id) =
                cut_chunk(&self.folder.join(chunk_name(whole)), rest, self.element)?;
            self.chunks.push(ClosedChunk { checksum: hash.finish(), max_id });
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
    Error::InvalidStore(format!("{} is not as it was written", path.display()))
}

/// Removes the chunk files from number `first` on.
fn remove_from(folder: &Path, first: usize) -> Result<()> {
    let cannot_write = |error| Error::io("cannot write", folder, error);
    for entry in std::fs::read_dir(folder).map_err(cannot_write)? {
        let entry = entry.map_err(cannot_write)?;
        if entry.file_name().to_str().and_then(chunk_number).is_some_and(|number| number >= first) {
            std::fs::remove_file(entry.path()).map_err(cannot_write)?;
        }
    }
    Ok(())
}

/// Shortens a chunk file to `tokens` and looks at what is left.
fn cut_chunk(path: &Path, tokens: u64, element: Element) -> Result<(Checksum, u32)> {
    let bytes = tokens * element.size() as u64;
    let cannot_write = |error| Error::io("cannot write", path, error);
    let file = File::options().write(true).open(path).map_err(cannot_write)?;
    if file.metadata().map_err(cannot_write)?.len() < bytes {
        return Err(not_as_written(path));
    }
    file.set_len(bytes).map_err(cannot_write)?;
    read_chunk(path, tokens, element)
}

/// The checksum and the largest id of a chunk file's `tokens`.
fn read_chunk(path: &Path, tokens: u64, element: Element) -> Result<(Checksum, u32)> {
    let cannot_read = |error| Error::io("cannot read", path, error);
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

/// # Errors
/// `ERR_INVALID_ARGUMENT` for a chunk size of 0.
pub(super) fn check_chunk_size(chunk_size: u64) -> Result<()> {
    if chunk_size > 0 { Ok(()) } else { Err(Error::argument("chunk_size must be at least 1")) }
}

/// Writes `store.json` of a folder in the making.
fn write_metadata(folder: &Path, metadata: &mut Metadata) -> Result<()> {
    let path = folder.join(metadata::FILE_NAME);
    let text = metadata.seal()?;
    let mut file = File::create(&path).map_err(|error| Error::io("cannot create", &path, error))?;
    file.write_all(text.as_bytes()).map_err(|error| Error::io("cannot write", &path, error))
}
