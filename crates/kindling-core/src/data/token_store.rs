//! A store of token ids on disk, mapped into memory a chunk at a time, as it is used.
//!
//! Opening looks at names and sizes only; a batch touches the pages its windows lie in. The files must not be cut
//! shorter while a store is open.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::batch::Batch;
use super::checksum::Checksum;
use super::element::not_an_id;
use super::files::{self, Files};
use super::metadata::Metadata;
use super::window_order::{BatchSpec, starts, window_starts};
use crate::progress::Progress;
use crate::{Error, Result};
use memmap2::Mmap;

/// Bytes read at a time where a whole store is gone through: a multiple of every element's size.
const BLOCK: usize = 1 << 20;
/// Damaged chunks that an error names.
const DAMAGE_NAMED: usize = 5;

/// An opened store.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    files: Files,
    maps: Vec<OnceLock<Mmap>>,
    /// The largest id, once known.
    max_id: OnceLock<u32>,
}

impl TokenStore {
    /// Opens a folder of chunk files, one .npy (int32, int64, uint16) or one raw .bin of uint16.
    ///
    /// # Errors
    /// `ERR_NOT_FOUND`; `ERR_INVALID_STORE` for damage (a missing chunk, a size that is no multiple of an element's or
    /// disagrees with `store.json`) and for files that hold no token ids.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self::of_files(path, files::find(path)?))
    }

    pub(super) fn of_files(path: &Path, files: Files) -> Self {
        let maps = files.chunks.iter().map(|_| OnceLock::new()).collect();
        let max_id = files.metadata.max_id.map_or_else(OnceLock::new, OnceLock::from);
        Self { path: path.to_path_buf(), files, maps, max_id }
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens in the store.
    pub fn len(&self) -> u64 {
        self.files.metadata.length
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `store.json` says, or what the sizes of the files tell.
    pub fn metadata(&self) -> &Metadata {
        &self.files.metadata
    }

    /// Tokens `start..end`.
    ///
    /// # Errors
    /// `ERR_RANGE_OUT_OF_BOUNDS`; the system's errors.
    pub fn load_by_range(&self, start: u64, end: u64) -> Result<Vec<i32>> {
        self.check_range(start, end)?;
        let mut out = vec![0; (end - start) as usize];
        self.copy_range(start, &mut out)?;
        Ok(out)
    }

    /// Fills `out` with the tokens from `start` on.
    ///
    /// # Errors
    /// As `load_by_range`; `ERR_INVALID_STORE` if a 64-bit value is no token id.
    pub fn copy_range(&self, start: u64, out: &mut [i32]) -> Result<()> {
        self.check_range(start, start.saturating_add(out.len() as u64))?;
        let mut rest = out;
        let mut position = start;
        while !rest.is_empty() {
            let bytes = self.mapped(position, rest.len() as u64)?;
            let (part, others) = rest.split_at_mut(bytes.len() / self.files.element.size());
            self.files.element.read(bytes, part, position)?;
            position += part.len() as u64;
            rest = others;
        }
        Ok(())
    }

    /// The bytes of at most `tokens` tokens from `position` on, as far as one chunk holds them.
    fn mapped(&self, position: u64, tokens: u64) -> Result<&[u8]> {
        let size = self.files.element.size();
        let number = (position / self.metadata().chunk_size) as usize;
        let first = position % self.metadata().chunk_size;
        let tokens = (self.files.chunks[number].tokens - first).min(tokens) as usize;
        let offset = self.files.offset as usize + first as usize * size;
        Ok(&self.map(number)?[offset..offset + tokens * size])
    }

    /// A batch of random windows.
    ///
    /// # Errors
    /// `ERR_STORE_TOO_SHORT`, `ERR_INVALID_ARGUMENT`, `ERR_INVALID_STORE` for a negative id.
    pub fn batch(&self, spec: &BatchSpec) -> Result<Batch> {
        let starts = starts(self.len(), spec)?;
        self.batch_at(&starts, spec.seq_length)
    }

    /// How many consecutive windows of `seq_length` tokens there are; the rest is dropped.
    ///
    /// # Errors
    /// `ERR_STORE_TOO_SHORT` if not one fits, `ERR_INVALID_ARGUMENT` for a length of 0.
    pub fn num_windows(&self, seq_length: usize) -> Result<u64> {
        if seq_length == 0 {
            return Err(Error::argument("seq_length must be at least 1"));
        }
        window_starts(self.len(), seq_length)?;
        Ok((self.len() - 1) / seq_length as u64)
    }

    /// Windows `first..first + count` of the consecutive windows of `seq_length` tokens, for evaluation.
    ///
    /// # Errors
    /// As `num_windows`, and `ERR_INVALID_ARGUMENT` for windows that are not there.
    pub fn evaluation_batch(&self, seq_length: usize, first: u64, count: usize) -> Result<Batch> {
        let windows = self.num_windows(seq_length)?;
        if count == 0 || first.checked_add(count as u64).is_none_or(|end| end > windows) {
            return Err(Error::argument(format!(
                "windows {first} to {} are not among the {windows} of the store",
                first.saturating_add(count as u64)
            )));
        }
        let starts: Vec<_> =
            (first..first + count as u64).map(|window| window * seq_length as u64).collect();
        self.batch_at(&starts, seq_length)
    }

    pub(super) fn batch_at(&self, starts: &[u64], seq_length: usize) -> Result<Batch> {
        let mut batch = Batch::zeros(starts.len(), seq_length)?;
        for (row, &start) in starts.iter().enumerate() {
            self.read_window(start, batch.row_mut(row))?;
        }
        Ok(batch)
    }

    /// Reads a window and its shifted target straight out of the mapped chunks.
    pub(super) fn read_window(
        &self,
        start: u64,
        (x, targets): (&mut [u32], &mut [i32]),
    ) -> Result<()> {
        self.copy_range(start + 1, targets)?;
        let mut first = [0];
        self.copy_range(start, &mut first)?;
        let negative = first.iter().chain(&*targets).position(|&id| id < 0);
        if let Some(i) = negative {
            let id = if i == 0 { first[0] } else { targets[i - 1] };
            return Err(not_an_id(i64::from(id), start + i as u64));
        }
        // Every token of x but the first is a target too, and lies in the cache now.
        x[0] = first[0] as u32;
        for (x, &id) in x[1..].iter_mut().zip(&*targets) {
            *x = id as u32;
        }
        Ok(())
    }

    /// Checks that every id is below `vocab_size`: by the largest one that `store.json` names or an earlier check
    /// found, otherwise by going through the whole store once.
    ///
    /// # Errors
    /// `ERR_TOKEN_OUT_OF_RANGE` naming the first such id and its position; what `progress` returns; the system's errors.
    pub fn check_vocab(&self, vocab_size: usize, progress: &mut Progress<'_>) -> Result<()> {
        if self.max_id.get().is_some_and(|&id| (id as usize) < vocab_size) {
            return Ok(());
        }
        let mut max_id = 0;
        self.for_each_block(progress, |ids, position, _| {
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

    /// How often each id below `vocab_size` occurs.
    ///
    /// # Errors
    /// As `check_vocab`.
    pub fn token_counts(&self, vocab_size: usize, progress: &mut Progress<'_>) -> Result<Vec<u64>> {
        let mut counts = vec![0; vocab_size];
        self.for_each_block(progress, |ids, position, _| {
            for (i, &id) in ids.iter().enumerate() {
                let Some(count) = usize::try_from(id).ok().and_then(|id| counts.get_mut(id)) else {
                    let (id, position) = (i64::from(id), position + i as u64);
                    return Err(Error::TokenOutOfRange { id, position, vocab_size });
                };
                *count += 1;
            }
            Ok(())
        })?;
        Ok(counts)
    }

    /// Compares every chunk with its checksum in `store.json`, and that file with its own, where there are any; gives how
    /// many chunks were compared.
    ///
    /// # Errors
    /// `ERR_INVALID_STORE` naming the chunks that differ; what `progress` returns; the system's errors.
    pub fn verify(&self, progress: &mut Progress<'_>) -> Result<u64> {
        let Metadata { checksums, checksum, .. } = self.metadata();
        if checksums.is_empty() && checksum.is_none() {
            return Ok(0);
        }
        self.metadata().verify_file(&self.path)?;
        let total = self.files.chunks.iter().map(|chunk| chunk.file_bytes).sum();
        let (mut block, mut done, mut damaged) = (vec![0; BLOCK], 0, Vec::new());
        progress(0, total)?;
        for (chunk, said) in self.files.chunks.iter().zip(checksums) {
            let Some(mut hash) = Checksum::like(said) else {
                let message =
                    format!("{}: checksum {said} is of an unknown kind", self.path.display());
                return Err(Error::InvalidStore(message));
            };
            let cannot_read = |error| Error::io("cannot read", &chunk.path, error);
            let mut file = File::open(&chunk.path).map_err(cannot_read)?;
            loop {
                let length = file.read(&mut block).map_err(cannot_read)?;
                if length == 0 {
                    break;
                }
                hash.update(&block[..length]);
                done += length as u64;
                progress(done.min(total), total)?;
            }
            if hash.finish() != *said {
                damaged.push(chunk.path.display().to_string());
            }
        }
        if damaged.is_empty() {
            return Ok(checksums.len() as u64);
        }
        let more = damaged.len().saturating_sub(DAMAGE_NAMED);
        damaged.truncate(DAMAGE_NAMED);
        Err(Error::InvalidStore(format!(
            "damaged: {}{}; the checksum differs from that of store.json; encode the text again",
            damaged.join(", "),
            if more > 0 { format!(" and {more} more") } else { String::new() }
        )))
    }

    /// Reads the whole store in order; `visit` gets ids, the position of the first, and their bytes.
    fn for_each_block(
        &self,
        progress: &mut Progress<'_>,
        mut visit: impl FnMut(&[i32], u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let size = self.files.element.size();
        let total = self.len() * size as u64;
        let (mut bytes, mut ids) = (vec![0; BLOCK], vec![0; BLOCK / size]);
        let mut position = 0;
        progress(0, total)?;
        for chunk in &self.files.chunks {
            let cannot_read = |error| Error::io("cannot read", &chunk.path, error);
            // Read, not mapped: the pages of a store need not count as this process's memory.
            let mut file = File::open(&chunk.path).map_err(cannot_read)?;
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(self.files.offset))
                .map_err(cannot_read)?;
            let mut left = chunk.tokens as usize;
            while left > 0 {
                let tokens = left.min(BLOCK / size);
                let (bytes, ids) = (&mut bytes[..tokens * size], &mut ids[..tokens]);
                file.read_exact(bytes).map_err(cannot_read)?;
                self.files.element.read(bytes, ids, position)?;
                visit(ids, position, bytes)?;
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

    /// The bytes of chunk file `number`. The file is closed again; the mapping stays.
    fn map(&self, number: usize) -> Result<&Mmap> {
        let place = &self.maps[number];
        if let Some(map) = place.get() {
            return Ok(map);
        }
        let chunk = &self.files.chunks[number];
        let file = File::open(&chunk.path)
            .map_err(|error| Error::io("cannot read", &chunk.path, error))?;
        // SAFETY: only plain bytes are read through the map, and whatever they are is a valid byte. That no one cuts the
        // file shorter meanwhile is the store's stated condition: files are replaced as a whole, never in place.
        let map = unsafe { Mmap::map(&file) }
            .map_err(|error| Error::io("cannot map", &chunk.path, error))?;
        if map.len() as u64 != chunk.file_bytes {
            let message =
                format!("{} has changed since the store was opened", chunk.path.display());
            return Err(Error::InvalidStore(message));
        }
        // Windows are drawn at random: reading ahead would fetch pages nobody asked for.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Random);
        Ok(place.get_or_init(|| map))
    }
}
