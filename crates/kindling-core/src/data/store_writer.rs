//! Writes chunk files as the course's numpy.memmap does, and `store.json`. Memory does not depend on the chunks' size.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::files::chunk_name;
use super::metadata::{self, Metadata};
use super::staging::sync_folder;
use super::token_store::checksum;
use crate::{Error, Result};

/// Tokens turned into bytes at a time.
const BLOCK: usize = 1 << 15;

/// Writes one store into an empty folder.
#[derive(Debug)]
pub struct StoreWriter {
    folder: PathBuf,
    chunk_size: u64,
    current: Option<File>,
    /// Tokens in the current chunk.
    filled: u64,
    length: u64,
    max_id: u32,
    hash: Sha256,
    checksums: Vec<String>,
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
            max_id: 0,
            hash: Sha256::new(),
            checksums: Vec::new(),
            bytes: Vec::with_capacity(4 * BLOCK),
        })
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
        let path = self.folder.join(chunk_name(self.checksums.len()));
        let file = match &mut self.current {
            Some(file) => file,
            none => {
                none.insert(File::create(&path).map_err(|error| Error::io("cannot create", &path, error))?)
            }
        };
        file.write_all(&self.bytes).map_err(|error| Error::io("cannot write", &path, error))?;
        self.filled += ids.len() as u64;
        self.length += ids.len() as u64;
        if self.filled == self.chunk_size { self.close_chunk() } else { Ok(()) }
    }

    fn close_chunk(&mut self) -> Result<()> {
        let Some(file) = self.current.take() else { return Ok(()) };
        file.sync_data().map_err(|error| {
            Error::io("cannot write", self.folder.join(chunk_name(self.checksums.len())), error)
        })?;
        self.checksums.push(checksum(&mut self.hash));
        self.filled = 0;
        Ok(())
    }

    /// Ends the store and writes `store.json`; `describe` fills in what the writer does not know.
    ///
    /// # Errors
    /// As `push`.
    pub fn finish(mut self, describe: impl FnOnce(&mut Metadata)) -> Result<Metadata> {
        self.close_chunk()?;
        let mut metadata = Metadata::of_sizes(self.length, self.chunk_size, "int32");
        metadata.max_id = Some(self.max_id);
        metadata.checksums = self.checksums;
        describe(&mut metadata);
        write_metadata(&self.folder, &metadata)?;
        sync_folder(&self.folder)?;
        Ok(metadata)
    }
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
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::io("cannot write", &path, error))
}
