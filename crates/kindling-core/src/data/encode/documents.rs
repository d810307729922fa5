//! Encodes one block of text, document by document.

use std::borrow::Cow;
use std::path::Path;

use super::options::EncodeOptions;
use crate::corpus::blocks::{Block, Document};
use crate::corpus::inputs::{Format, Input};
use crate::corpus::json_lines::JsonLines;
use crate::corpus::long_text::LongTextWriter;
use crate::corpus::utf8::decode_lossy;
use crate::tokenizer::{END_OF_TEXT, Tokenizer};
use crate::{Error, Result};

/// Lines of JSON of this length or more are unescaped into a file.
const LONG_LINE: usize = 1 << 20;
/// Number of ids of a long text that are written at a time.
const FLUSH_IDS: usize = 1 << 16;

/// Takes the ids of a long text so far. The second argument is the number of its bytes that they
/// encode.
type Flush<'a> = dyn FnMut(&mut Vec<u32>, u64) -> Result<()> + 'a;

/// A block and its ids. The buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub block: Block,
    pub ids: Vec<u32>,
    /// Bytes of the text that the ids encode.
    pub text_bytes: u64,
    /// Bytes that were invalid UTF-8.
    pub replaced_bytes: u64,
}

/// Encodes blocks. All blocks of a run share it.
pub(super) struct DocumentEncoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The unit that is a document in text files.
    pub document: Document,
    text_field: &'a str,
    /// The id that ends each document, and the length of its text in bytes.
    end: Option<(u32, u64)>,
}

impl<'a> DocumentEncoder<'a> {
    pub fn new(
        options: &'a EncodeOptions,
        tokenizer: &'a Tokenizer,
        inputs: &[Input],
    ) -> Result<Self> {
        let json = inputs.iter().find(|input| input.format.has_lines());
        if let (Some(input), Some(Document::File | Document::Block)) = (json, options.document) {
            return Err(Error::argument(format!(
                "{} has a document in each line or row; omit document or set it to line",
                input.path.display()
            )));
        }
        let special = tokenizer.special_tokens().iter().find(|(token, _)| token == END_OF_TEXT);
        let end = match (options.append_eot, special) {
            (false, _) => None,
            (true, Some((token, id))) => Some((*id, token.len() as u64)),
            (true, None) => {
                let message = format!(
                    "the tokenizer has no special token {END_OF_TEXT}; omit append_eot, or use a \
                     tokenizer with this token"
                );
                return Err(Error::argument(message));
            }
        };
        let document = options.document.unwrap_or(Document::File);
        Ok(Self { tokenizer, document, text_field: &options.text_field, end })
    }

    /// Encodes a block into the buffers of `out`. The ids of a long text are passed to `flush`
    /// piece by piece.
    pub fn encode(
        &self,
        block: Block,
        input: &Input,
        out: &mut Encoded,
        flush: &mut Flush<'_>,
    ) -> Result<()> {
        (out.text_bytes, out.replaced_bytes) = (0, 0);
        out.ids.clear();
        out.block = block;
        let has_text = out.block.continues;
        let long = out.block.long.as_ref().map(|long| &long.text);
        let flush: Option<&mut Flush<'_>> = if long.is_some() { Some(flush) } else { None };
        let mut writer = IdWriter { encoder: self, ids: &mut out.ids, bytes: 0, has_text, flush };
        let text = match long {
            Some(long) => {
                out.replaced_bytes = long.replaced;
                Cow::Borrowed(long.text()?)
            }
            None => decode_lossy(&out.block.bytes, &mut out.replaced_bytes),
        };
        match (input.format, self.document) {
            (Format::Jsonl | Format::Parquet, _) => {
                let (line, replaced) = (out.block.line, &mut out.replaced_bytes);
                match long {
                    Some(long) => writer.long_lines(&text, line, input, &long.folder, replaced)?,
                    None => writer.json_lines(&text, line, input, replaced)?,
                }
            }
            (Format::Text, Document::File) => writer.text(&text)?,
            (Format::Text, Document::Line) => writer.lines(&text)?,
            (Format::Text, Document::Block) => writer.paragraphs(&text)?,
        }
        if !out.block.unfinished {
            writer.end_document();
        }
        out.text_bytes = writer.bytes;
        Ok(())
    }
}

/// Collects the ids of one block.
struct IdWriter<'a> {
    encoder: &'a DocumentEncoder<'a>,
    ids: &'a mut Vec<u32>,
    /// Bytes of text so far.
    bytes: u64,
    /// Whether the current document is not empty.
    has_text: bool,
    flush: Option<&'a mut Flush<'a>>,
}

impl IdWriter<'_> {
    fn text(&mut self, text: &str) -> Result<()> {
        self.has_text |= !text.is_empty();
        let before = self.bytes;
        self.bytes += text.len() as u64;
        let tokenizer = self.encoder.tokenizer;
        let Some(flush) = &mut self.flush else {
            return tokenizer.encode_into(text, self.ids);
        };
        tokenizer.encode_in_pieces(text, self.ids, &mut |ids, at| {
            if ids.len() < FLUSH_IDS { Ok(()) } else { flush(ids, before + at as u64) }
        })
    }

    /// Ends the current document, unless it is empty.
    fn end_document(&mut self) {
        if let (Some((id, bytes)), true) = (self.encoder.end, self.has_text) {
            self.ids.push(id);
            self.bytes += bytes;
        }
        self.has_text = false;
    }

    fn lines(&mut self, text: &str) -> Result<()> {
        for line in text.split_inclusive('\n') {
            let complete = line.strip_suffix('\n');
            self.text(complete.map_or(line, |line| line.strip_suffix('\r').unwrap_or(line)))?;
            if complete.is_some() {
                self.end_document();
            }
        }
        Ok(())
    }

    /// Documents are runs of lines that are not blank. The line breaks between them belong to none.
    fn paragraphs(&mut self, text: &str) -> Result<()> {
        // The current document is `start..end`, where `end` is the end of its last line.
        let (mut start, mut end) = (0, 0);
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let continues_document = at == 0 && self.has_text;
            let content = line.trim_end_matches(['\n', '\r']);
            if content.trim_ascii().is_empty() && !continues_document {
                if start < end {
                    self.text(&text[start..end])?;
                }
                self.end_document();
                start = at + line.len();
                end = start;
            } else {
                end = at + content.len();
            }
            at += line.len();
        }
        if start < end { self.text(&text[start..end]) } else { Ok(()) }
    }

    fn json_lines(
        &mut self,
        text: &str,
        first: u64,
        input: &Input,
        replaced: &mut u64,
    ) -> Result<()> {
        let lines = JsonLines { path: &input.path, text_field: self.encoder.text_field };
        lines.each_text(text, first, replaced, |text| {
            self.text(text)?;
            self.end_document();
            Ok(())
        })
    }

    /// Like `json_lines`, but for text with a line too long for memory. Other lines may surround
    /// it.
    fn long_lines(
        &mut self,
        text: &str,
        first: u64,
        input: &Input,
        folder: &Path,
        replaced: &mut u64,
    ) -> Result<()> {
        let lines = JsonLines { path: &input.path, text_field: self.encoder.text_field };
        for (line, number) in text.split('\n').zip(first..) {
            if line.len() < LONG_LINE {
                self.json_lines(line, number, input, replaced)?;
                continue;
            }
            let mut writer = LongTextWriter::new(folder)?;
            lines.each_piece(line, number, replaced, |piece| writer.push(piece.as_bytes()))?;
            let long = writer.finish()?;
            self.text(long.text()?)?;
            self.end_document();
        }
        Ok(())
    }
}
