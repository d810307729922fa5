//! Text files read in blocks that may be looked at apart, by several threads: each takes the next block, and works on it while
//! another reads.
//!
//! Memory holds a block for each thread, and any run that has no place to be cut (a word without end).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::blocks::Cuts;
use crate::progress::Progress;
use crate::{Error, Result};

/// Bytes of a block: its text, and what is made of it, fit a core's cache.
pub const BLOCK: usize = 1 << 18;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of them that were not UTF-8 and were read as U+FFFD.
    pub replaced_bytes: u64,
}

/// Files to be read, no token or pre-token of which goes into the next one.
pub struct Source<'a> {
    pub files: &'a [PathBuf],
    pub cuts: Cuts<'a>,
    pub threads: usize,
    /// Bytes of a block, about.
    pub block: usize,
    /// Bytes to be read at most.
    pub max_bytes: u64,
}

impl Source<'_> {
    /// Gives every block of text to `work`, on several threads, each with a state of its own. Progress is told of bytes read.
    ///
    /// # Errors
    /// `ERR_NOT_FOUND`, `ERR_INVALID_ARGUMENT` for a folder or no file at all, `ERR_EMPTY_CORPUS`, the system's errors, what
    /// `progress` and `work` return.
    pub fn read_all<S: Send>(
        &self,
        progress: &mut Progress,
        new_state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &str) -> Result<()> + Sync,
    ) -> Result<(Vec<S>, ReadSummary)> {
        let total = self.total_bytes()?.min(self.max_bytes);
        let reader = Mutex::new(Reader {
            source: self,
            files: self.files.iter(),
            open: None,
            held: Vec::new(),
            bytes: 0,
        });
        let stop = AtomicBool::new(false);
        let serve = |report: &mut dyn FnMut(u64) -> Result<()>| -> Result<(S, u64)> {
            let (mut state, mut replaced, mut block) = (new_state(), 0, Vec::new());
            let mut next = || {
                let mut reader = lock(&reader);
                let more = !stop.load(Ordering::Relaxed) && reader.next(&mut block)?;
                report(reader.bytes)?;
                drop(reader);
                if more {
                    work(&mut state, to_text(&mut block, &mut replaced))?;
                }
                Ok(more)
            };
            loop {
                match next() {
                    Ok(true) => {}
                    Ok(false) => return Ok((state, replaced)),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        let results = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..self.threads).map(|_| scope.spawn(|| serve(&mut |_| Ok(())))).collect();
            let own = serve(&mut |read| progress(read, total.max(read)));
            let failed = |_| Err(Error::Internal("a thread that reads text failed".to_owned()));
            let others = workers.into_iter().map(|worker| worker.join().unwrap_or_else(failed));
            std::iter::once(own).chain(others).collect::<Vec<_>>()
        });
        let mut summary = ReadSummary { bytes: lock(&reader).bytes, replaced_bytes: 0 };
        let mut states = Vec::with_capacity(results.len());
        for result in results {
            let (state, replaced) = result?;
            states.push(state);
            summary.replaced_bytes += replaced;
        }
        match self.files.first() {
            Some(path) if summary.bytes == 0 => Err(Error::EmptyCorpus { path: path.clone() }),
            _ => Ok((states, summary)),
        }
    }

    /// Bytes of all files; every one must be there before work begins.
    fn total_bytes(&self) -> Result<u64> {
        if self.files.is_empty() {
            return Err(Error::argument("no file to read; give one or more"));
        }
        let size = |path: &PathBuf| match std::fs::metadata(path) {
            Ok(status) if status.is_dir() => {
                Err(Error::argument(format!("{} is a folder; give text files", path.display())))
            }
            Ok(status) => Ok(status.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound { what: "corpus", path: path.clone() })
            }
            Err(error) => Err(cannot_read(path, error)),
        };
        self.files.iter().map(size).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    Error::io("cannot read", path, error)
}

/// The text of `bytes`, in which invalid ones are replaced and counted.
fn to_text<'a>(bytes: &'a mut Vec<u8>, replaced: &mut u64) -> &'a str {
    if simdutf8::basic::from_utf8(bytes).is_err() {
        *replaced += bytes.utf8_chunks().map(|chunk| chunk.invalid().len() as u64).sum::<u64>();
        *bytes = String::from_utf8_lossy(bytes).into_owned().into_bytes();
    }
    simdutf8::basic::from_utf8(bytes).unwrap_or_default()
}

/// The files' bytes, cut into blocks.
struct Reader<'a> {
    source: &'a Source<'a>,
    files: std::slice::Iter<'a, PathBuf>,
    open: Option<(File, &'a Path)>,
    /// Read, and behind the last cut.
    held: Vec<u8>,
    bytes: u64,
}

impl Reader<'_> {
    /// The next block, never empty; false at the end of the last file.
    fn next(&mut self, block: &mut Vec<u8>) -> Result<bool> {
        loop {
            block.clear();
            let Some((file, path)) = &mut self.open else {
                let Some(path) = self.files.next() else { return Ok(false) };
                let file = File::open(path).map_err(|error| cannot_read(path, error))?;
                self.open = Some((file, path));
                continue;
            };
            block.append(&mut self.held);
            let mut wanted = self.source.block.max(1);
            let cut = loop {
                let missing =
                    (wanted.saturating_sub(block.len()) as u64).min(self.source.max_bytes - self.bytes);
                let read = file.take(missing).read_to_end(block).map_err(|error| cannot_read(path, error))?;
                self.bytes += read as u64;
                if block.len() < wanted {
                    // Text that the limit ends is cut where a word does.
                    let goes_on = self.bytes == self.source.max_bytes
                        && file.read(&mut [0]).map_err(|error| cannot_read(path, error))? > 0;
                    if goes_on {
                        let cut = self.source.cuts.last_of_bytes(block);
                        block.truncate(cut.unwrap_or(block.len()));
                    }
                    break None;
                }
                if let Some(cut) = self.source.cuts.last_of_bytes(block) {
                    break Some(cut);
                }
                wanted *= 2;
            };
            match cut {
                Some(cut) => {
                    self.held.extend_from_slice(&block[cut..]);
                    block.truncate(cut);
                }
                None => self.open = None,
            }
            if self.bytes == self.source.max_bytes {
                self.files = [].iter();
            }
            if !block.is_empty() {
                return Ok(true);
            }
        }
    }
}
