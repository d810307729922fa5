//! Cuts a corpus into blocks that can be encoded or counted independently of each other.
//!
//! ```text
//! next():
//!   block = bytes held back by the last cut
//!   loop:
//!     read until the block has `wanted` bytes
//!     if the input ended:          return all of it
//!     if a cut is found:           hold back what follows it, return the rest
//!     if the block is too long:    move its text to a file, return that
//!     wanted *= 2
//! ```
//!
//! 1. A cut is the end of a document, or a place within one at which the tokenizer splits the text
//!    in any case (`TextCut`). So blocks do not change the tokens.
//! 2. Cuts are offsets in bytes of the decompressed file, so that a killed run can continue at one
//!    (`Position`).
//! 3. `wanted` doubles, so that searching text without a cut takes time linear in its length, not
//!    quadratic.
//! 4. Blocks have about `BLOCK_SIZE` bytes, so that the text, its ids and their bytes fit a core's
//!    cache.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::inputs::{Format, Input};
use super::long_text::{LongText, LongTextWriter};
use super::reader::{Reader, Waiting};
use crate::progress::Report;
use crate::{Error, Result};

/// Usual size of a block in bytes.
pub(crate) const BLOCK_SIZE: usize = 1 << 18;
/// Bytes at the end of a long text that stay in memory while the rest goes to a file. A cut may lie
/// in them, and whether a place is a cut depends on the bytes before it.
const WINDOW: usize = 1 << 12;

/// The unit that counts as a document; no token spans two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Document {
    /// A whole file.
    File,
    /// A line. The line break belongs to no document.
    Line,
    /// A run of lines between blank lines, which belong to no document.
    Block,
}

impl Document {
    /// Returns the documents in files of `format`: lines for JSON Lines and Parquet, `self` for
    /// text.
    pub(crate) fn in_format(self, format: Format) -> Self {
        if format.has_lines() { Self::Line } else { self }
    }
}

/// A place in the corpus: the index of an input, and a byte offset and line number in its
/// decompressed content. Lines are counted in JSON Lines and Parquet only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub input: usize,
    pub offset: u64,
    pub line: u64,
}

/// A piece of the corpus that can be processed without what surrounds it.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Number of the block, from 0.
    pub index: u64,
    pub bytes: Vec<u8>,
    /// The content, in place of `bytes`, if it is too long for memory.
    pub long: Option<LongBlock>,
    /// Index of its input.
    pub input: usize,
    /// Lines of the input before it; counted in JSON Lines and Parquet only.
    pub line: u64,
    /// Whether it begins within a document.
    pub continues: bool,
    /// Whether it ends within a document.
    pub unfinished: bool,
    /// The place after it, if reading can resume there: `None` within a document that must be read
    /// as a whole.
    pub resume_at: Option<Position>,
}

/// The text of a block that is too long for memory.
#[derive(Debug)]
pub(crate) struct LongBlock {
    pub text: LongText,
    /// Progress before and after the block, and in total, in bytes on disk.
    pub done_before: u64,
    pub done_after: u64,
    pub total: u64,
}

/// Returns the last offset at which the given text may be cut; more text follows it.
pub(crate) type TextCut<'a> = &'a (dyn Fn(&[u8]) -> Option<usize> + Sync + 'a);

/// Options for cutting a corpus.
#[derive(Clone, Copy)]
pub(crate) struct BlockOptions<'a> {
    pub inputs: &'a [Input],
    /// Documents of text files. In JSON Lines and Parquet, every line is one.
    pub document: Document,
    pub text_cut: TextCut<'a>,
    /// Usual size of a block in bytes.
    pub block_size: usize,
    /// Ends the corpus after this many decompressed bytes.
    pub max_bytes: u64,
    /// What to do with a long text without a cut.
    pub long: LongTexts<'a>,
    pub report: Report<'a>,
}

/// What to do with a text in which no cut is found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LongTexts<'a> {
    /// Move it to a file in this folder.
    Spill(&'a Path),
    /// Hold it in memory, and fail if it exceeds this many bytes.
    Hold(usize),
}

/// How the filling of a block ended.
enum Filled {
    /// At a cut, at this offset of the bytes.
    Cut(usize),
    /// At this offset, which also ends the corpus because `max_bytes` have been read.
    Limit(usize),
    /// At the end of the input.
    InputEnd,
    /// Without a cut, and with too many bytes for memory.
    TooLong,
}

/// Reads the inputs one after the other and cuts them into blocks.
pub(crate) struct BlockReader<'a> {
    options: BlockOptions<'a>,
    reader: Option<Reader<'a>>,
    position: Position,
    /// Bytes read beyond the last cut.
    held: Vec<u8>,
    /// Whether the last cut was within a document.
    within: bool,
    /// Number of blocks returned so far.
    count: u64,
    /// Decompressed bytes read so far.
    bytes_read: u64,
    /// Bytes on disk of the inputs read to the end.
    done: u64,
    total: u64,
}

impl<'a> BlockReader<'a> {
    pub fn new(options: BlockOptions<'a>, start: Position) -> Self {
        let size = |inputs: &[Input]| inputs.iter().map(|input| input.size).sum::<u64>();
        Self {
            options,
            reader: None,
            position: start,
            held: Vec::new(),
            within: false,
            count: 0,
            bytes_read: 0,
            done: size(&options.inputs[..start.input]),
            total: size(options.inputs).min(options.max_bytes),
        }
    }

    /// Returns the number of blocks returned so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the number of decompressed bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Reads the next block into `bytes`, a buffer to reuse. Returns `None` at the end of the
    /// corpus.
    pub fn next(&mut self, mut bytes: Vec<u8>) -> Result<Option<Block>> {
        let inputs = self.options.inputs;
        while let Some(input) = inputs.get(self.position.input) {
            let Position { input: number, offset, line } = self.position;
            let continues = self.within;
            let (cut, ended, long) = match self.fill(input, &mut bytes)? {
                Filled::Cut(cut) => (cut, false, None),
                Filled::Limit(cut) => (cut, true, None),
                Filled::InputEnd => (bytes.len(), true, None),
                Filled::TooLong => {
                    let (long, ended) = self.read_long(input, &mut bytes)?;
                    (0, ended, Some(long))
                }
            };
            if long.is_none() {
                self.held.clear();
                self.held.extend_from_slice(&bytes[cut..]);
            }
            bytes.truncate(cut);
            if ended {
                self.end_input(input);
            } else {
                self.advance(input, &bytes);
            }
            if ended && offset == 0 && cut == 0 && long.is_none() {
                // An empty input.
                continue;
            }
            let index = self.count;
            self.count += 1;
            let unfinished = self.within;
            // Reading can resume at any cut of a file, and at the start of smaller documents.
            let whole_file = self.options.document.in_format(input.format) == Document::File;
            let resume_at = (!unfinished || whole_file).then_some(self.position);
            return Ok(Some(Block {
                index,
                bytes,
                long,
                input: number,
                line,
                continues,
                unfinished,
                resume_at,
            }));
        }
        Ok(None)
    }

    /// Reads on from the last cut to the next one, or to the end of the input.
    fn fill(&mut self, input: &Input, bytes: &mut Vec<u8>) -> Result<Filled> {
        let BlockOptions { block_size, max_bytes, long, report, .. } = self.options;
        let mut wanted = block_size.max(1);
        let mut filled = self.held.len();
        if bytes.len() < filled {
            bytes.resize(filled, 0);
        }
        bytes[..filled].copy_from_slice(&self.held);
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => {
                    let (done, total) = (self.done, self.total);
                    let waiting: Waiting<'a> = Box::new(move || report(done, total.max(done)));
                    none.insert(Reader::open(input, self.position.offset, waiting)?)
                }
            };
            let missing = wanted.saturating_sub(filled);
            let left = max_bytes - self.bytes_read;
            let allowed = missing.min(usize::try_from(left).unwrap_or(missing));
            let read = reader.read_at(bytes, filled, allowed, input)?;
            filled = bytes.len();
            self.bytes_read += read as u64;
            let done = self.done + reader.disk_bytes();
            report(done, self.total.max(done))?;
            if read < allowed {
                return Ok(Filled::InputEnd);
            }
            if self.bytes_read == max_bytes {
                return Ok(Filled::Limit(self.cut_at_limit(input, bytes)?));
            }
            // A document that spans several blocks is cut within, where its text allows it.
            let is_long = filled >= 4 * block_size;
            if let Some(cut) = self.cut(bytes, input.format, is_long) {
                return Ok(Filled::Cut(cut));
            }
            match long {
                LongTexts::Spill(_) if wanted >= 16 * block_size => return Ok(Filled::TooLong),
                LongTexts::Hold(most) if filled >= most => return Err(too_long(input, filled)),
                LongTexts::Spill(_) => wanted *= 2,
                LongTexts::Hold(most) => wanted = (wanted * 2).min(most),
            }
        }
    }

    /// Returns where to cut `bytes` when no more may be read: at their end if the input ends there
    /// too, otherwise at the last cut.
    fn cut_at_limit(&mut self, input: &Input, bytes: &mut Vec<u8>) -> Result<usize> {
        let length = bytes.len();
        let has_more = match &mut self.reader {
            Some(reader) => reader.read(bytes, 1, input)? > 0,
            None => false,
        };
        bytes.truncate(length);
        if !has_more {
            return Ok(length);
        }
        // Without a cut, text ends at the limit: half a word is still text. Half a line of JSON is
        // not JSON.
        let otherwise = if input.format.has_lines() { 0 } else { length };
        Ok(self.cut(bytes, input.format, true).unwrap_or(otherwise))
    }

    /// Moves to a file the text that begins with `bytes`, which have no cut, up to the next cut or
    /// the end of the input. Holds back the bytes after the cut. Returns the text, and whether the
    /// input ended.
    fn read_long(&mut self, input: &Input, bytes: &mut Vec<u8>) -> Result<(LongBlock, bool)> {
        let BlockOptions { block_size, report, .. } = self.options;
        let (Some(reader), LongTexts::Spill(folder)) = (&self.reader, self.options.long) else {
            return Err(Error::Internal("a long text has no reader or no folder".to_owned()));
        };
        let done_before = self.done + reader.disk_bytes().saturating_sub(bytes.len() as u64);
        let total = self.total.max(done_before);
        let mut writer = LongTextWriter::new(folder)?;
        let ended = loop {
            let kept = bytes.len().min(WINDOW);
            let known = bytes.len() - kept;
            self.advance(input, &bytes[..known]);
            writer.push(&bytes[..known])?;
            bytes.drain(..known);
            let Some(reader) = &mut self.reader else { break true };
            let read = reader.read_at(bytes, kept, block_size, input)?;
            self.bytes_read += read as u64;
            let ended = read < block_size;
            report(done_before, total)?;
            let cut = if ended { Some(bytes.len()) } else { self.cut(bytes, input.format, true) };
            if let Some(cut) = cut {
                self.held.clear();
                self.held.extend_from_slice(&bytes[cut..]);
                self.advance(input, &bytes[..cut]);
                writer.push(&bytes[..cut])?;
                break ended;
            }
        };
        let done_after =
            self.reader.as_ref().map_or(done_before, |reader| self.done + reader.disk_bytes());
        let text = writer.finish()?;
        Ok((LongBlock { text, done_before, done_after, total: total.max(done_after) }, ended))
    }

    /// Returns where `bytes` may be cut, within a document only if it is long, and records whether
    /// the cut is within one.
    fn cut(&mut self, bytes: &[u8], format: Format, is_long: bool) -> Option<usize> {
        let document = self.options.document.in_format(format);
        let end = match document {
            Document::File => None,
            Document::Line => memchr::memrchr(b'\n', bytes).map(|at| at + 1),
            Document::Block => last_blank_line(bytes),
        };
        self.within = end.is_none();
        let splits = format == Format::Text && (is_long || document == Document::File);
        let within = || if splits { (self.options.text_cut)(bytes) } else { None };
        // White space that turns out to separate two documents belongs to neither, so none is cut
        // off here.
        let is_inside =
            |&cut: &usize| document == Document::File || !bytes[cut - 1].is_ascii_whitespace();
        end.or_else(|| within().filter(is_inside))
    }

    /// Moves the position past `bytes`.
    fn advance(&mut self, input: &Input, bytes: &[u8]) {
        self.position.offset += bytes.len() as u64;
        if input.format.has_lines() {
            self.position.line += memchr::memchr_iter(b'\n', bytes).count() as u64;
        }
    }

    /// Moves the position to the next input, or to the end of the corpus if the limit is reached.
    fn end_input(&mut self, input: &Input) {
        self.within = false;
        self.held.clear();
        self.done += match self.reader.take() {
            Some(reader) if input.is_stdin() => reader.disk_bytes(),
            _ => input.size,
        };
        let at_limit = self.bytes_read == self.options.max_bytes;
        let next = if at_limit { self.options.inputs.len() } else { self.position.input + 1 };
        self.position = Position { input: next, offset: 0, line: 0 };
    }
}

/// Returns the error for a text without a cut that is too long for memory.
pub(super) fn too_long(input: &Input, bytes: usize) -> Error {
    let what = if input.format.has_lines() { "a line" } else { "a word" };
    Error::InvalidCorpus(format!(
        "{} has {what} of more than {} MiB; check that it is text, or split it",
        input.path.display(),
        bytes >> 20
    ))
}

/// Returns the offset after the last blank line.
fn last_blank_line(bytes: &[u8]) -> Option<usize> {
    let mut end = memchr::memrchr(b'\n', bytes)?;
    while let Some(before) = memchr::memrchr(b'\n', &bytes[..end]) {
        if bytes[before + 1..end].trim_ascii().is_empty() {
            return Some(end + 1);
        }
        end = before;
    }
    None
}
