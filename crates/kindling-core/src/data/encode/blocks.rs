//! The text of all inputs, one after the other, in blocks that may be encoded apart.
//!
//! Bytes are cut, not characters: where a cut lies is known in bytes of the file, so a killed run can go on from there.

use super::documents::Documents;
use super::inputs::{Format, Input};
use super::reader::{Reader, Waiting};
use super::{Document, Position, Report};
use crate::Result;
use crate::tokenizer::Tokenizer;

/// Bytes of a block, about: its text, its ids and their bytes fit a core's cache.
const BLOCK: usize = 1 << 18;
/// A document that ends in no such stretch is cut within.
const LONG: usize = 4 * BLOCK;
/// Bytes at the end of a block in which a cut is looked for first.
const WINDOW: usize = 1 << 12;

/// Bytes that may be encoded apart from what is before and behind them.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Which block, from 0.
    pub index: u64,
    pub bytes: Vec<u8>,
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

/// Cuts the inputs into blocks.
pub(super) struct Blocks<'a> {
    inputs: &'a [Input],
    documents: &'a Documents<'a>,
    tokenizer: &'a Tokenizer,
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
        position: Position,
        report: Report<'a>,
    ) -> Self {
        let done = inputs[..position.input].iter().map(|input| input.size).sum();
        let total = inputs.iter().map(|input| input.size).sum();
        Self {
            inputs,
            documents,
            tokenizer,
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
            let (cut, ended) = self.fill(input, &mut bytes)?;
            self.held.clear();
            self.held.extend_from_slice(&bytes[cut..]);
            bytes.truncate(cut);
            let (line, continues) = (self.position.line, self.within);
            let empty = ended && cut == 0 && self.position.offset == 0;
            let number = self.position.input;
            self.advance(input, &bytes, ended);
            if empty {
                continue;
            }
            let index = self.index;
            self.index += 1;
            let unfinished = self.within;
            // A file can be taken up at any cut; other documents at their start.
            let anew = !unfinished || self.documents.kind(input.format) == Document::File;
            let after = anew.then_some(self.position);
            return Ok(Some(Block { index, bytes, input: number, line, continues, unfinished, after }));
        }
        Ok(None)
    }

    /// Reads what follows the last cut until it can be cut or the input ends; gives the place of the cut, and whether it is
    /// the end.
    fn fill(&mut self, input: &Input, bytes: &mut Vec<u8>) -> Result<(usize, bool)> {
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
                return Ok((bytes.len(), true));
            }
            if let Some(cut) = self.cut(bytes, input.format) {
                return Ok((cut, false));
            }
            wanted *= 2;
        }
    }

    /// Where `bytes` may be cut; notes whether that is within a document.
    fn cut(&mut self, bytes: &[u8], format: Format) -> Option<usize> {
        let document = self.documents.kind(format);
        let end = match document {
            Document::File => None,
            Document::Line => memchr::memrchr(b'\n', bytes).map(|at| at + 1),
            Document::Block => last_blank_line(bytes),
        };
        self.within = end.is_none();
        let cut_within = document == Document::File || (format == Format::Text && bytes.len() >= LONG);
        let within = || if cut_within { text_cut(bytes, self.tokenizer) } else { None };
        // White space that turns out to stand between two documents belongs to neither.
        let apart = |&cut: &usize| document == Document::File || !bytes[cut - 1].is_ascii_whitespace();
        end.or_else(|| within().filter(apart))
    }

    fn advance(&mut self, input: &Input, bytes: &[u8], ended: bool) {
        if !ended {
            self.position.offset += bytes.len() as u64;
            if input.format == Format::Jsonl {
                self.position.line += memchr::memchr_iter(b'\n', bytes).count() as u64;
            }
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
