//! Reads the chunk files of a store at any offset, and detects when one has changed.
//!
//! Files are read, not mapped: if another process shortens a mapped file, this one is killed by
//! SIGBUS, whereas a short read is only an error. A chunk is identified by its device, inode, size
//! and modification time. They are recorded when the store is opened and compared before every
//! read, so a run never mixes two stores that were written to the same path one after the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::files::ChunkFile;
use super::identity::Identity;
use crate::error::IoAction;
use crate::{Error, Result};

/// Maximum number of files that a store keeps open.
const MOST_OPEN: usize = 64;

/// The open files of a store.
#[derive(Debug, Default)]
pub(super) struct ChunkReader(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    /// Indexed by chunk number.
    files: Vec<Option<Arc<File>>>,
    /// Chunk numbers of the open files, oldest first.
    order: VecDeque<usize>,
}

impl ChunkReader {
    /// Fills `out` with the bytes of chunk `number`, starting at `offset`.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_STORE` if the file has changed since the store was opened, and I/O
    /// errors.
    pub fn read(
        &self,
        number: usize,
        chunk: &ChunkFile,
        out: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let file = self.file(number, chunk)?;
        check(&file, chunk)?;
        match read_at(&file, out, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(changed(&chunk.path)),
            read => read.map_err(|error| Error::io(IoAction::Read, &chunk.path, error)),
        }
    }

    fn file(&self, number: usize, chunk: &ChunkFile) -> Result<Arc<File>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(file)) = open.files.get(number) {
            return Ok(Arc::clone(file));
        }
        if open.order.len() == MOST_OPEN
            && let Some(oldest) = open.order.pop_front()
        {
            open.files[oldest] = None;
        }
        let file = Arc::new(self::open(chunk)?);
        // Windows are drawn at random, so reading ahead would fetch pages that are not needed.
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            // SAFETY: advice about an open descriptor, whose failure has no effect.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
        }
        if open.files.len() <= number {
            open.files.resize(number + 1, None);
        }
        open.files[number] = Some(Arc::clone(&file));
        open.order.push_back(number);
        Ok(file)
    }
}

/// Opens a chunk file.
///
/// # Errors
/// Returns `ERR_INVALID_STORE` if it has changed since the store was opened, and I/O errors.
pub(super) fn open(chunk: &ChunkFile) -> Result<File> {
    let file = File::open(&chunk.path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => changed(&chunk.path),
        _ => Error::io(IoAction::Read, &chunk.path, error),
    })?;
    check(&file, chunk)?;
    Ok(file)
}

fn check(file: &File, chunk: &ChunkFile) -> Result<()> {
    let status = file.metadata().map_err(|error| Error::io(IoAction::Read, &chunk.path, error))?;
    if Identity::of(&status) == chunk.identity { Ok(()) } else { Err(changed(&chunk.path)) }
}

pub(super) fn changed(path: &Path) -> Error {
    Error::InvalidStore(format!(
        "{} has changed since the store was opened; open it again",
        path.display()
    ))
}

#[cfg(unix)]
fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    // One reader at a time, since all share the file's position.
    static READING: Mutex<()> = Mutex::new(());
    let _guard = READING.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}
