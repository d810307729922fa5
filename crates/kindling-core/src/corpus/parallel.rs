//! Reads all texts of a corpus on several threads. Each thread reads the next block, and processes
//! it while another one reads.
//!
//! Memory holds one block per thread. A text without a cut, such as a long word or line, makes a
//! block larger, up to `longest` bytes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::blocks::{Block, BlockOptions, BlockReader, Document, LongTexts, Position, TextCut};
use super::inputs::{Corpus, Format};
use super::json_lines::JsonLines;
use super::utf8::decode_lossy;
use crate::progress::{SendProgress, shared};
use crate::{Error, Result};

/// The size of what was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Bytes of all files, decompressed.
    pub bytes: u64,
    /// Bytes that were invalid UTF-8 and became U+FFFD.
    pub replaced_bytes: u64,
}

/// A corpus and how to read it. No text spans two files, or two lines of JSON Lines.
pub(crate) struct ParallelReader<'a> {
    pub corpus: &'a Corpus,
    pub text_cut: TextCut<'a>,
    pub threads: usize,
    /// Usual size of a block in bytes.
    pub block_size: usize,
    /// Most bytes of a text without a cut, or of a line of JSON Lines.
    pub longest: usize,
    /// Ends the corpus after this many decompressed bytes.
    pub max_bytes: u64,
}

impl ParallelReader<'_> {
    /// Calls `work` with every text, in any order. Returns the state of each thread, made by
    /// `new_state`. Progress counts bytes on disk.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND`, `ERR_INVALID_CORPUS`, `ERR_EMPTY_CORPUS` if there is no text, I/O
    /// errors, and any error of `progress` and `work`.
    pub fn read_all<S: Send>(
        &self,
        progress: &mut SendProgress<'_>,
        new_state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &str) -> Result<()> + Sync,
    ) -> Result<(Vec<S>, ReadSummary)> {
        let report = shared(progress);
        let options = BlockOptions {
            inputs: &self.corpus.inputs,
            document: Document::File,
            text_cut: self.text_cut,
            block_size: self.block_size,
            max_bytes: self.max_bytes,
            long: LongTexts::Hold(self.longest),
            report: &report,
        };
        let blocks = Mutex::new(BlockReader::new(options, Position::default()));
        let failed = AtomicBool::new(false);
        let run = || {
            let (mut state, mut found) = (new_state(), Found::default());
            let mut buffer = Vec::new();
            let mut read_and_work = || -> Result<bool> {
                if failed.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                let block = lock(&blocks).next(std::mem::take(&mut buffer))?;
                let Some(block) = block else { return Ok(false) };
                self.each_text(&block, &mut found, |text| work(&mut state, text))?;
                buffer = block.bytes;
                Ok(true)
            };
            loop {
                match Error::catch("a thread that reads text", &mut read_and_work) {
                    Ok(true) => {}
                    Ok(false) => return Ok((state, found)),
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        let results = std::thread::scope(|scope| {
            // If the system allows no more threads, fewer do the work.
            let start = |_| std::thread::Builder::new().spawn_scoped(scope, run).ok();
            let workers: Vec<_> = (1..self.threads).map_while(start).collect();
            let own = run();
            let panicked = |_| Err(Error::Internal("a thread that reads text panicked".to_owned()));
            let others = workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked));
            std::iter::once(own).chain(others).collect::<Vec<_>>()
        });
        let mut summary = ReadSummary { bytes: lock(&blocks).bytes_read(), replaced_bytes: 0 };
        let (mut states, mut has_text) = (Vec::with_capacity(results.len()), false);
        for result in results {
            let (state, found) = result?;
            states.push(state);
            summary.replaced_bytes += found.replaced;
            has_text |= found.text;
        }
        if has_text { Ok((states, summary)) } else { Err(self.corpus.empty()) }
    }

    /// Calls `work` with the text of a block, or with the text of each of its lines of JSON.
    fn each_text(
        &self,
        block: &Block,
        found: &mut Found,
        mut work: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let input = &self.corpus.inputs[block.input];
        let text = decode_lossy(&block.bytes, &mut found.replaced);
        match input.format {
            Format::Text => {
                found.text |= !text.is_empty();
                work(&text)
            }
            Format::Jsonl | Format::Parquet => {
                let lines = JsonLines { path: &input.path, text_field: &self.corpus.text_field };
                lines.each_text(&text, block.line, &mut found.replaced, |text| {
                    found.text |= !text.is_empty();
                    work(text)
                })
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one thread found.
#[derive(Debug, Default)]
struct Found {
    /// Whether any text was not empty.
    text: bool,
    /// Bytes replaced by U+FFFD.
    replaced: u64,
}
