//! A store of token ids on disk.
//!
//! Opening reads names and sizes only, and a batch reads only its windows. A file that changes
//! while the store is open causes an error (`chunk_reader.rs`).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::batch::Batch;
use super::chunk_reader::{self, ChunkReader};
use super::element::not_an_id;
use super::files::{self, StoreFiles};
use super::metadata::Metadata;
use super::window_order::{BatchSpec, check_shape, count_starts, starts};
use crate::buffer::{extend_zeroed, zeroed_vec};
use crate::checksum::Checksum;
use crate::error::IoAction;
use crate::progress::Progress;
use crate::{Error, Result};

/// Bytes read at a time when reading a whole store; a multiple of every element's size.
const BLOCK: usize = 1 << 20;
/// Maximum number of damaged chunks that an error names.
const DAMAGE_NAMED: usize = 5;

#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    files: StoreFiles,
    reader: ChunkReader,
    /// The largest id, once known.
    max_id: OnceLock<u32>,
}

impl TokenStore {
    /// Opens a folder of chunk files, a single .npy (int32, int64, uint16) or a single raw .bin of
    /// uint16.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND`, and `ERR_INVALID_STORE` if a chunk is missing, a file's size is not
    /// a multiple of the element's or disagrees with `store.json`, or a file does not hold token
    /// ids.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self::of_files(path, files::find(path)?))
    }

    pub(super) fn of_files(path: &Path, files: StoreFiles) -> Self {
        let max_id = files.metadata.max_id.map_or_else(OnceLock::new, OnceLock::from);
        Self { path: path.to_path_buf(), files, reader: ChunkReader::default(), max_id }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> u64 {
        self.files.metadata.length
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the contents of `store.json`, or without it what follows from the sizes of the
    /// files.
    pub fn metadata(&self) -> &Metadata {
        &self.files.metadata
    }

    /// Returns the tokens `start..end`.
    ///
    /// # Errors
    /// Returns `ERR_RANGE_OUT_OF_BOUNDS`, and I/O errors.
    pub fn load_by_range(&self, start: u64, end: u64) -> Result<Vec<i32>> {
        self.check_range(start, end)?;
        let mut out = zeroed_vec((end - start) as usize)?;
        self.copy_range(start, &mut out)?;
        Ok(out)
    }

    /// Fills `out` with the tokens from `start` on.
    ///
    /// # Errors
    /// As `load_by_range`, and `ERR_INVALID_STORE` if a 64-bit value is not a token id.
    pub fn copy_range(&self, start: u64, out: &mut [i32]) -> Result<()> {
        self.check_range(start, start.saturating_add(out.len() as u64))?;
        let size = self.files.element.size();
        let mut bytes = zeroed_vec((out.len() * size).min(BLOCK))?;
        let (mut rest, mut position) = (out, start);
        while !rest.is_empty() {
            let number = (position / self.metadata().chunk_size) as usize;
            let first = position % self.metadata().chunk_size;
            let chunk = &self.files.chunks[number];
            let tokens = (chunk.tokens - first).min((BLOCK / size).min(rest.len()) as u64) as usize;
            let bytes = &mut bytes[..tokens * size];
            let offset = self.files.offset + first * size as u64;
            self.reader.read(number, chunk, bytes, offset)?;
            let (part, others) = rest.split_at_mut(tokens);
            self.files.element.read(bytes, part, position)?;
            position += tokens as u64;
            rest = others;
        }
        Ok(())
    }

    /// Returns a batch of a run.
    ///
    /// # Errors
    /// Returns `ERR_STORE_TOO_SHORT`, `ERR_INVALID_ARGUMENT`, and `ERR_INVALID_STORE` for a
    /// negative id.
    pub fn batch(&self, spec: &BatchSpec) -> Result<Batch> {
        check_shape(spec.batch_size, spec.seq_length)?;
        // Allocated first, since it rejects sizes for which even the starts would take too much
        // memory.
        let batch = Batch::zeros(spec.batch_size, spec.seq_length)?;
        self.fill(batch, &starts(self.len(), spec)?)
    }

    /// Returns the number of consecutive windows of `seq_length` tokens. Tokens after the last
    /// whole window are dropped.
    ///
    /// # Errors
    /// Returns `ERR_STORE_TOO_SHORT` if none fits, and `ERR_INVALID_ARGUMENT` for a length of 0.
    pub fn num_windows(&self, seq_length: usize) -> Result<u64> {
        if seq_length == 0 {
            return Err(Error::argument("seq_length must be at least 1"));
        }
        count_starts(self.len(), seq_length)?;
        Ok((self.len() - 1) / seq_length as u64)
    }

    /// Returns windows `first..first + count` of the consecutive windows of `seq_length` tokens.
    ///
    /// # Errors
    /// As `num_windows`, and `ERR_INVALID_ARGUMENT` for windows that do not exist.
    pub fn evaluation_batch(&self, seq_length: usize, first: u64, count: usize) -> Result<Batch> {
        let windows = self.num_windows(seq_length)?;
        if count == 0 || first.checked_add(count as u64).is_none_or(|end| end > windows) {
            return Err(Error::argument(format!(
                "windows {first} to {} do not exist: the store has {windows} windows",
                first.saturating_add(count as u64)
            )));
        }
        let batch = Batch::zeros(count, seq_length)?;
        let starts: Vec<_> =
            (first..first + count as u64).map(|window| window * seq_length as u64).collect();
        self.fill(batch, &starts)
    }

    fn fill(&self, mut batch: Batch, starts: &[u64]) -> Result<Batch> {
        for (row, &start) in starts.iter().enumerate() {
            self.read_window(start, batch.row_mut(row))?;
        }
        Ok(batch)
    }

    /// Reads the window at `start` and its targets, which are shifted by one token.
    pub(super) fn read_window(
        &self,
        start: u64,
        (x, targets): (&mut [u32], &mut [i32]),
    ) -> Result<()> {
        let mut ids = vec![0; targets.len() + 1];
        self.copy_range(start, &mut ids)?;
        if let Some(i) = ids.iter().position(|&id| id < 0) {
            return Err(not_an_id(i64::from(ids[i]), start + i as u64));
        }
        targets.copy_from_slice(&ids[1..]);
        for (x, id) in x.iter_mut().zip(ids) {
            *x = id as u32;
        }
        Ok(())
    }

    /// Checks that every id is below `vocab_size`. Reads the whole store, unless the largest id is
    /// known from `store.json` or an earlier check.
    ///
    /// # Errors
    /// Returns `ERR_TOKEN_OUT_OF_RANGE` with the first such id and its position, any error of
    /// `progress`, and I/O errors.
    pub fn check_vocab(&self, vocab_size: usize, progress: &mut Progress<'_>) -> Result<()> {
        if self.max_id.get().is_some_and(|&id| (id as usize) < vocab_size) {
            return Ok(());
        }
        let mut max_id = 0;
        self.for_each_block(progress, |ids, position| {
            let outside = |id: i32| id < 0 || id as usize >= vocab_size;
            if let Some(i) = ids.iter().position(|&id| outside(id)) {
                let (id, position) = (i64::from(ids[i]), position + i as u64);
                return Err(Error::TokenOutOfRange { id, position, vocab_size });
            }
            max_id = ids.iter().fold(max_id, |max, &id| max.max(id as u32));
            Ok(())
        })?;
        let _ = self.max_id.set(max_id);
        Ok(())
    }

    /// Returns how often each id occurs, up to the largest that does.
    ///
    /// # Errors
    /// As `check_vocab`, and `ERR_OUT_OF_MEMORY`.
    pub fn token_counts(&self, vocab_size: usize, progress: &mut Progress<'_>) -> Result<Vec<u64>> {
        let mut counts: Vec<u64> = Vec::new();
        self.for_each_block(progress, |ids, position| {
            for (i, &id) in ids.iter().enumerate() {
                let Some(index) = usize::try_from(id).ok().filter(|&index| index < vocab_size)
                else {
                    let (id, position) = (i64::from(id), position + i as u64);
                    return Err(Error::TokenOutOfRange { id, position, vocab_size });
                };
                if index >= counts.len() {
                    extend_zeroed(&mut counts, index + 1)?;
                }
                counts[index] += 1;
            }
            Ok(())
        })?;
        Ok(counts)
    }

    /// Compares every chunk with its checksum in `store.json`, and that file with its own checksum.
    /// Returns the number of chunks compared, which is 0 for a store without checksums.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_STORE` with the chunks that differ, any error of `progress`, and I/O
    /// errors.
    pub fn verify(&self, progress: &mut Progress<'_>) -> Result<u64> {
        let Metadata { checksums, checksum, .. } = self.metadata();
        if checksums.is_empty() && checksum.is_none() {
            return Ok(0);
        }
        self.metadata().verify_file(&self.path)?;
        let total = self.files.chunks.iter().map(|chunk| chunk.file_bytes).sum();
        let (mut block, mut done, mut damaged) = (zeroed_vec(BLOCK)?, 0, Vec::new());
        progress(0, total)?;
        for (chunk, expected) in self.files.chunks.iter().zip(checksums) {
            if !Checksum::is_known(expected) {
                return Err(Error::InvalidStore(format!(
                    "{}: unknown checksum {expected}; use a newer version of Kindling",
                    self.path.display()
                )));
            }
            let mut hash = Checksum::new();
            let cannot_read = |error| Error::io(IoAction::Read, &chunk.path, error);
            let mut file = chunk_reader::open(chunk)?;
            loop {
                let length = file.read(&mut block).map_err(cannot_read)?;
                if length == 0 {
                    break;
                }
                hash.update(&block[..length]);
                done += length as u64;
                progress(done.min(total), total)?;
            }
            if hash.finish() != *expected {
                damaged.push(chunk.path.display().to_string());
            }
        }
        if damaged.is_empty() {
            return Ok(checksums.len() as u64);
        }
        let more = damaged.len().saturating_sub(DAMAGE_NAMED);
        damaged.truncate(DAMAGE_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let (are, their) = if damaged.len() == 1 {
            ("is", "its checksum differs")
        } else {
            ("are", "their checksums differ")
        };
        Err(Error::InvalidStore(format!(
            "{}{more} {are} damaged: {their} from store.json; {}",
            damaged.join(", "),
            files::RESTORE
        )))
    }

    /// Reads the whole store in order. Calls `visit` with each block of ids and the position of its
    /// first.
    fn for_each_block(
        &self,
        progress: &mut Progress<'_>,
        mut visit: impl FnMut(&[i32], u64) -> Result<()>,
    ) -> Result<()> {
        let size = self.files.element.size();
        let total = self.len() * size as u64;
        let (mut bytes, mut ids) = (zeroed_vec(BLOCK)?, zeroed_vec(BLOCK / size)?);
        let mut position = 0;
        progress(0, total)?;
        for chunk in &self.files.chunks {
            let cannot_read = |error| Error::io(IoAction::Read, &chunk.path, error);
            let mut file = chunk_reader::open(chunk)?;
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(self.files.offset))
                .map_err(cannot_read)?;
            let mut left = chunk.tokens as usize;
            while left > 0 {
                let tokens = left.min(BLOCK / size);
                let (bytes, ids) = (&mut bytes[..tokens * size], &mut ids[..tokens]);
                file.read_exact(bytes).map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => chunk_reader::changed(&chunk.path),
                    _ => cannot_read(error),
                })?;
                self.files.element.read(bytes, ids, position)?;
                visit(ids, position)?;
                position += tokens as u64;
                left -= tokens;
                progress(position * size as u64, total)?;
            }
        }
        Ok(())
    }

    fn check_range(&self, start: u64, end: u64) -> Result<()> {
        if start <= end && end <= self.len() {
            return Ok(());
        }
        Err(Error::RangeOutOfBounds { start, end, length: self.len() })
    }
}
