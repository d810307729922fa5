//! A corpus read in blocks that may be looked at apart, by several threads: each takes the next block, and works on it while
//! another reads.
//!
//! Memory holds a block for each thread, and any run that has no place to be cut (a word or a line of JSON without end).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::corpus::inputs::Input;
use crate::corpus::json_lines::texts_of_lines;
use crate::corpus::reader::{Reader, Waiting};
use crate::corpus::{Corpus, Format};
use crate::progress::SendProgress;
use crate::tokenizer::cuts::Cuts;
use crate::{Error, Result};

/// Bytes of a block: its text, and what is made of it, fit a core's cache.
pub const BLOCK: usize = 1 << 18;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Bytes of all files, decompressed.
    pub bytes: u64,
    /// Bytes of them that were not UTF-8 and were read as U+FFFD.
    pub replaced_bytes: u64,
}

/// A corpus to be read, no token or pre-token of which goes from one file or line of JSON into the next.
pub struct Source<'a> {
    pub corpus: &'a Corpus,
    pub cuts: Cuts<'a>,
    pub threads: usize,
    /// Bytes of a block, about.
    pub block: usize,
    /// Bytes to be read at most, decompressed.
    pub max_bytes: u64,
}

impl Source<'_> {
    /// Gives every text to `work`, on several threads, each with a state of its own. Progress is told of bytes as they are on
    /// the disk.
    ///
    /// # Errors
    /// `ERR_NOT_FOUND`, `ERR_INVALID_CORPUS`, `ERR_EMPTY_CORPUS`, the system's errors, what `progress` and `work` return.
    pub fn read_all<S: Send>(
        &self,
        progress: &mut SendProgress<'_>,
        new_state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &str) -> Result<()> + Sync,
    ) -> Result<(Vec<S>, ReadSummary)> {
        let total = self.corpus.size().min(self.max_bytes);
        let progress = Mutex::new(progress);
        let report = |done: u64| (lock(&progress))(done, total.max(done));
        let blocks = Mutex::new(Blocks::new(self, &report));
        let stop = AtomicBool::new(false);
        let serve = || -> Result<(S, Found)> {
            let (mut state, mut found, mut block) =
                (new_state(), Found::default(), Block::default());
            let mut next = || {
                let more = !stop.load(Ordering::Relaxed) && lock(&blocks).next(&mut block)?;
                if more {
                    self.in_each_text(&mut block, &mut found, |text| work(&mut state, text))?;
                }
                Ok(more)
            };
            loop {
                match next() {
                    Ok(true) => {}
                    Ok(false) => return Ok((state, found)),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        let results = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..self.threads).map(|_| scope.spawn(serve)).collect();
            let own = serve();
            let failed = |_| Err(Error::Internal("a thread that reads text failed".to_owned()));
            let others = workers.into_iter().map(|worker| worker.join().unwrap_or_else(failed));
            std::iter::once(own).chain(others).collect::<Vec<_>>()
        });
        let mut summary = ReadSummary { bytes: lock(&blocks).bytes, replaced_bytes: 0 };
        let (mut states, mut holds_text) = (Vec::with_capacity(results.len()), false);
        for result in results {
            let (state, found) = result?;
            states.push(state);
            summary.replaced_bytes += found.replaced;
            holds_text |= found.text;
        }
        if holds_text { Ok((states, summary)) } else { Err(self.corpus.empty()) }
    }

    /// Gives `work` the text of a block, or of each of its lines of JSON.
    fn in_each_text(
        &self,
        block: &mut Block,
        found: &mut Found,
        mut work: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let input = &self.corpus.inputs[block.input];
        let text = to_text(&mut block.bytes, &mut found.replaced);
        match input.format {
            Format::Text => {
                found.text |= !text.is_empty();
                work(text)
            }
            Format::Jsonl => {
                let field = &self.corpus.text_field;
                texts_of_lines(text, block.line, field, &input.path, |bytes| {
                    // Halves of surrogate pairs stand alone in some JSON.
                    let mut bytes = bytes.to_vec();
                    found.text |= !bytes.is_empty();
                    work(to_text(&mut bytes, &mut found.replaced))
                })
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text of `bytes`, in which invalid ones are replaced and counted.
fn to_text<'a>(bytes: &'a mut Vec<u8>, replaced: &mut u64) -> &'a str {
    if simdutf8::basic::from_utf8(bytes).is_err() {
        *replaced += bytes.utf8_chunks().map(|chunk| chunk.invalid().len() as u64).sum::<u64>();
        *bytes = String::from_utf8_lossy(bytes).into_owned().into_bytes();
    }
    simdutf8::basic::from_utf8(bytes).unwrap_or_default()
}

/// What a thread found.
#[derive(Debug, Default)]
struct Found {
    /// Some text.
    text: bool,
    /// Bytes that were not UTF-8.
    replaced: u64,
}

/// Bytes that may be looked at apart from what is before and behind them.
#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    /// Which input it is of.
    input: usize,
    /// Lines of the input before it.
    line: u64,
}

/// Told of the bytes taken from the disk.
type Report<'a> = &'a (dyn Fn(u64) -> Result<()> + Sync + 'a);

/// The corpus, cut into blocks.
struct Blocks<'a> {
    source: &'a Source<'a>,
    report: Report<'a>,
    reader: Option<Reader<'a>>,
    /// Which input is being read, and lines of it before `held`.
    input: usize,
    line: u64,
    /// Read, and behind the last cut.
    held: Vec<u8>,
    /// Bytes read, decompressed.
    bytes: u64,
    /// Bytes on the disk of the inputs that are done.
    done: u64,
}

impl<'a> Blocks<'a> {
    fn new(source: &'a Source<'a>, report: Report<'a>) -> Self {
        Self {
            source,
            report,
            reader: None,
            input: 0,
            line: 0,
            held: Vec::new(),
            bytes: 0,
            done: 0,
        }
    }

    /// The next block, never empty; false at the end of the last input.
    fn next(&mut self, block: &mut Block) -> Result<bool> {
        while let Some(input) = self.source.corpus.inputs.get(self.input) {
            block.bytes.clear();
            block.bytes.append(&mut self.held);
            (block.input, block.line) = (self.input, self.line);
            let (cut, ended) = self.fill(input, &mut block.bytes)?;
            self.held.extend_from_slice(&block.bytes[cut..]);
            block.bytes.truncate(cut);
            self.line += lines_in(&block.bytes, input);
            if ended {
                self.end(input);
            }
            if !block.bytes.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads until `bytes` can be cut or the input ends; gives the place of the cut, and whether it is the end.
    fn fill(&mut self, input: &'a Input, bytes: &mut Vec<u8>) -> Result<(usize, bool)> {
        let (report, done, cuts) = (self.report, self.done, self.source.cuts);
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let waiting: Waiting<'a> = Box::new(move || report(done));
                none.insert(Reader::open(input, 0, waiting)?)
            }
        };
        let mut wanted = self.source.block.max(1);
        loop {
            let missing = wanted.saturating_sub(bytes.len());
            let allowed =
                missing.min(usize::try_from(self.source.max_bytes - self.bytes).unwrap_or(missing));
            let read = reader.read(bytes, allowed, input)?;
            self.bytes += read as u64;
            report(done + reader.taken())?;
            if read < allowed {
                return Ok((bytes.len(), true));
            }
            if self.bytes == self.source.max_bytes {
                return Ok((self.last_cut(input, bytes)?, true));
            }
            if let Some(cut) = cut(bytes, input.format, cuts) {
                return Ok((cut, false));
            }
            wanted *= 2;
        }
    }

    /// Where text that the limit ends is cut: where a word or a line does, unless it ends there by itself.
    fn last_cut(&mut self, input: &Input, bytes: &mut Vec<u8>) -> Result<usize> {
        let length = bytes.len();
        let goes_on = match &mut self.reader {
            Some(reader) => reader.read(bytes, 1, input)? > 0,
            None => false,
        };
        bytes.truncate(length);
        if !goes_on {
            return Ok(length);
        }
        let found = cut(bytes, input.format, self.source.cuts);
        // A line of JSON that was cut off is none.
        let otherwise = if input.format == Format::Jsonl { 0 } else { length };
        Ok(found.unwrap_or(otherwise))
    }

    /// Goes on to the next input, or to the end where the limit is reached.
    fn end(&mut self, input: &Input) {
        self.held.clear();
        self.line = 0;
        self.done += match self.reader.take() {
            Some(reader) if input.is_stdin() => reader.taken(),
            _ => input.size,
        };
        let whole = self.bytes == self.source.max_bytes;
        self.input = if whole { self.source.corpus.inputs.len() } else { self.input + 1 };
    }
}

/// Where `bytes`, which more of the input follows, may be cut.
fn cut(bytes: &[u8], format: Format, cuts: Cuts<'_>) -> Option<usize> {
    match format {
        Format::Text => cuts.last_of_bytes(bytes),
        Format::Jsonl => memchr::memrchr(b'\n', bytes).map(|at| at + 1),
    }
}

/// Lines of a block, where they are counted.
fn lines_in(bytes: &[u8], input: &Input) -> u64 {
    match input.format {
        Format::Text => 0,
        Format::Jsonl => memchr::memchr_iter(b'\n', bytes).count() as u64,
    }
}
