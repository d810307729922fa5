//! The text of all inputs, one after the other, in blocks that may be encoded apart.
//!
//! Bytes are cut, not characters: where a cut lies is known in bytes of the file, so a killed run can go on from there.

use std::path::Path;

use super::documents::Documents;
use super::inputs::{Format, Input};
use super::long_text::{Collector, LongText};
use super::reader::{Reader, Waiting};
use super::{Document, Position, Report};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Bytes of a block, about: its text, its ids and their bytes fit a core's cache.
pub(super) const BLOCK: usize = 1 << 18;
/// A document that ends in no such stretch is cut within.
const LONG: usize = 4 * BLOCK;
/// Text without a place to cut that is longer stays in a file.
const HELD: usize = 16 * BLOCK;
/// Bytes at the end of a block in which a cut is looked for first.
const WINDOW: usize = 1 << 12;

/// Bytes that may be encoded apart from what is before and behind them.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Which block, from 0.
    pub index: u64,
    pub bytes: Vec<u8>,
    /// Its text in place of `bytes`, if that is too long for them.
    pub long: Option<Long>,
    /// Which input it is of.
    pub input: usize,
    /// Lines of the input before it, where they are counted (JSON Lines).
    pub line: u64,
    /// It begins within a document.
    pub continues: bool,
    /// It ends within a document.
    pub unfinished: bool,
    /// Where reading goes on, if it can be taken up there.
    pub after: Option<Position>,
}

/// A text that is not held in memory.
#[derive(Debug)]
pub(super) struct Long {
    pub text: LongText,
    /// Bytes on disk before it and behind it, and in all.
    pub disk: (u64, u64, u64),
}

/// What was read for a block.
enum Read {
    /// Bytes, up to a place in them.
    Cut(usize),
    /// Bytes, up to the end of the input.
    Ended,
    /// More than may be held, without a place to cut.
    Uncut,
}

/// Cuts the inputs into blocks.
pub(super) struct Blocks<'a> {
    inputs: &'a [Input],
    documents: &'a Documents<'a>,
    tokenizer: &'a Tokenizer,
    /// Where text may be put that is too long for memory.
    folder: &'a Path,
    reader: Option<Reader<'a>>,
    position: Position,
    /// Read, and behind the last cut.
    held: Vec<u8>,
    /// The last cut was within a document.
    within: bool,
    index: u64,
    /// Bytes on disk of the inputs that are done.
    done: u64,
    total: u64,
    report: Report<'a>,
}

impl<'a> Blocks<'a> {
    pub fn new(
        inputs: &'a [Input],
        documents: &'a Documents<'a>,
        tokenizer: &'a Tokenizer,
        folder: &'a Path,
        position: Position,
        report: Report<'a>,
    ) -> Self {
        let done = inputs[..position.input].iter().map(|input| input.size).sum();
        let total = inputs.iter().map(|input| input.size).sum();
        Self {
            inputs,
            documents,
            tokenizer,
            folder,
            reader: None,
            position,
            held: Vec::new(),
            within: false,
            index: 0,
            done,
            total,
            report,
        }
    }

    /// How many blocks there were.
    pub fn count(&self) -> u64 {
        self.index
    }

    /// The next block, in a buffer to be used again.
    pub fn next(&mut self, mut bytes: Vec<u8>) -> Result<Option<Block>> {
        while let Some(input) = self.inputs.get(self.position.input) {
            let (line, continues, number) = (self.position.line, self.within, self.position.input);
            let begins = self.position.offset == 0;
            let (cut, ended, long) = match self.fill(input, &mut bytes)? {
                Read::Cut(cut) => (cut, false, None),
                Read::Ended => (bytes.len(), true, None),
                Read::Uncut => {
                    let (long, ended) = self.read_long(input, &mut bytes)?;
                    (0, ended, Some(long))
                }
            };
            if long.is_none() {
                self.held.clear();
                self.held.extend_from_slice(&bytes[cut..]);
            }
            bytes.truncate(cut);
            self.advance(input, &bytes, ended);
            if ended && begins && cut == 0 && long.is_none() {
                continue;
            }
            let index = self.index;
            self.index += 1;
            let unfinished = self.within;
            // A file can be taken up at any cut; other documents at their start.
            let anew = !unfinished || self.documents.kind(input.format) == Document::File;
            let after = anew.then_some(self.position);
            return Ok(Some(Block {
                index,
                bytes,
                long,
                input: number,
                line,
                continues,
                unfinished,
                after,
            }));
        }
        Ok(None)
    }

    /// Reads what follows the last cut until it can be cut or the input ends.
    fn fill(&mut self, input: &Input, bytes: &mut Vec<u8>) -> Result<Read> {
        let mut wanted = BLOCK;
        let mut filled = self.held.len();
        if bytes.len() < filled {
            bytes.resize(filled, 0);
        }
        bytes[..filled].copy_from_slice(&self.held);
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => {
                    let (report, done, total) = (self.report, self.done, self.total);
                    let waiting: Waiting<'a> = Box::new(move || (report.0)(done, total.max(done)));
                    none.insert(Reader::open(input, self.position.offset, waiting)?)
                }
            };
            let missing = wanted.saturating_sub(filled);
            let ended = reader.read_behind(bytes, filled, missing, input)? < missing;
            filled = bytes.len();
            let done = self.done + reader.taken();
            (self.report.0)(done, self.total.max(done))?;
            if ended {
                return Ok(Read::Ended);
            }
            if let Some(cut) = self.cut(bytes, input.format, bytes.len() >= LONG) {
                return Ok(Read::Cut(cut));
            }
            if wanted >= HELD {
                return Ok(Read::Uncut);
            }
            wanted *= 2;
        }
    }

    /// Reads on from `bytes`, which cannot be cut, to the next place that can be, or the end of the input. Says whether it is
    /// the end; what is behind the place is held.
    fn read_long(&mut self, input: &'a Input, bytes: &mut Vec<u8>) -> Result<(Long, bool)> {
        let (report, done, start) = (self.report, self.done, self.position.offset);
        let Some(reader) = &self.reader else {
            return Err(Error::Internal("no reader".to_owned()));
        };
        let before = done + reader.taken().saturating_sub(bytes.len() as u64);
        let total = self.total.max(before);
        let mut collector = Collector::new(input, reader, start, self.folder)?;
        let ended = loop {
            // What a place to cut is told by, and may lie in, stays.
            let kept = bytes.len().min(WINDOW);
            let known = bytes.len() - kept;
            self.go_on(input, &bytes[..known]);
            collector.push(&bytes[..known])?;
            bytes.drain(..known);
            let Some(reader) = &mut self.reader else { break true };
            let ended = reader.read_behind(bytes, kept, BLOCK, input)? < BLOCK;
            (report.0)(before, total)?;
            let cut = if ended { Some(bytes.len()) } else { self.cut(bytes, input.format, true) };
            if let Some(cut) = cut {
                self.held.clear();
                self.held.extend_from_slice(&bytes[cut..]);
                self.go_on(input, &bytes[..cut]);
                collector.push(&bytes[..cut])?;
                break ended;
            }
        };
        let after = self.reader.as_ref().map_or(before, |reader| done + reader.taken());
        Ok((Long { text: collector.finish()?, disk: (before, after, total.max(after)) }, ended))
    }

    /// Where `bytes` may be cut, within a long document if need be; notes whether that is within a document.
    fn cut(&mut self, bytes: &[u8], format: Format, long: bool) -> Option<usize> {
        let document = self.documents.kind(format);
        let end = match document {
            Document::File => None,
            Document::Line => memchr::memrchr(b'\n', bytes).map(|at| at + 1),
            Document::Block => last_blank_line(bytes),
        };
        self.within = end.is_none();
        let cut_within = document == Document::File || (format == Format::Text && long);
        let within = || if cut_within { text_cut(bytes, self.tokenizer) } else { None };
        // White space that turns out to stand between two documents belongs to neither.
        let apart =
            |&cut: &usize| document == Document::File || !bytes[cut - 1].is_ascii_whitespace();
        end.or_else(|| within().filter(apart))
    }

    /// Goes on behind `bytes`.
    fn go_on(&mut self, input: &Input, bytes: &[u8]) {
        self.position.offset += bytes.len() as u64;
        if input.format == Format::Jsonl {
            self.position.line += memchr::memchr_iter(b'\n', bytes).count() as u64;
        }
    }

    fn advance(&mut self, input: &Input, bytes: &[u8], ended: bool) {
        if !ended {
            self.go_on(input, bytes);
            return;
        }
        self.within = false;
        self.done += match self.reader.take() {
            Some(reader) if input.is_stdin() => reader.taken(),
            _ => input.size,
        };
        self.position = Position { input: self.position.input + 1, offset: 0, line: 0 };
    }
}

/// The end of the last line that is blank.
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

/// Where text, of which `bytes` are a part, may be cut: near their end, or else anywhere.
fn text_cut(bytes: &[u8], tokenizer: &Tokenizer) -> Option<usize> {
    let window = bytes.len().saturating_sub(WINDOW);
    // No character begins with a byte that continues one.
    let start = (window..bytes.len()).find(|&at| bytes[at] & 0xC0 != 0x80)?;
    text_cut_from(bytes, start, tokenizer).or_else(|| text_cut_from(bytes, 0, tokenizer))
}

fn text_cut_from(bytes: &[u8], start: usize, tokenizer: &Tokenizer) -> Option<usize> {
    let (mut at, mut found) = (start, None);
    for chunk in bytes[start..].utf8_chunks() {
        if let Some(cut) = tokenizer.last_cut(chunk.valid()) {
            found = Some(at + cut);
        }
        at += chunk.valid().len() + chunk.invalid().len();
    }
    found
}
