//! What a document is, and the ids of a block of them.

use std::borrow::Cow;
use std::path::Path;

use super::blocks::Block;
use super::inputs::{Format, Input};
use super::json_lines::{pieces_of_line, texts_of_lines};
use super::long_text::Collector;
use super::{Document, EncodeOptions};
use crate::tokenizer::{END_OF_TEXT, Tokenizer};
use crate::{Error, Result};

/// How documents are told apart and ended.
pub(super) struct Documents<'a> {
    /// What the caller asked for.
    asked: Option<Document>,
    text_field: &'a str,
    /// Id that ends each, and the bytes it stands for.
    end: Option<(u32, u64)>,
}

/// Bytes of a line of JSON from which its text is put into a file.
const LONG_LINE: usize = 1 << 20;
/// Ids of a long text that are written together.
const PIECE: usize = 1 << 16;

/// Takes ids out of a long text's; told how many bytes of it are encoded.
type Flush<'a> = dyn FnMut(&mut Vec<u32>, u64) -> Result<()> + 'a;

/// A block as ids. Its buffers are used again.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub block: Block,
    pub ids: Vec<u32>,
    /// Bytes of the text the ids stand for.
    pub text_bytes: u64,
    /// Bytes that were no UTF-8.
    pub replaced_bytes: u64,
}

impl<'a> Documents<'a> {
    pub fn new(
        options: &'a EncodeOptions,
        tokenizer: &Tokenizer,
        inputs: &[Input],
    ) -> Result<Self> {
        let json = inputs.iter().find(|input| input.format == Format::Jsonl);
        if let (Some(input), Some(Document::File | Document::Block)) = (json, options.document) {
            let message =
                "is JSON Lines, whose documents are lines; leave document out or give line";
            return Err(Error::argument(format!("{} {message}", input.path.display())));
        }
        let special = tokenizer.special_tokens().iter().find(|(token, _)| token == END_OF_TEXT);
        let end = match (options.append_eot, special) {
            (false, _) => None,
            (true, Some((token, id))) => Some((*id, token.len() as u64)),
            (true, None) => {
                let message = format!("the tokenizer has no special token {END_OF_TEXT} to append");
                return Err(Error::argument(message));
            }
        };
        Ok(Self { asked: options.document, text_field: &options.text_field, end })
    }

    /// What a document of an input is.
    pub fn kind(&self, format: Format) -> Document {
        match format {
            Format::Jsonl => Document::Line,
            Format::Text => self.asked.unwrap_or(Document::File),
        }
    }

    /// Encodes a block into the buffers of `out`. `flush` takes the ids of one that is too long for them as they come.
    pub fn encode(
        &self,
        block: Block,
        input: &Input,
        tokenizer: &Tokenizer,
        out: &mut Encoded,
        flush: &mut Flush<'_>,
    ) -> Result<()> {
        (out.text_bytes, out.replaced_bytes) = (0, 0);
        out.ids.clear();
        out.block = block;
        let begun = out.block.continues;
        let long = out.block.long.as_ref().map(|long| &long.text);
        let flush: Option<&mut Flush<'_>> = if long.is_some() { Some(flush) } else { None };
        let mut writer =
            Writer { documents: self, tokenizer, ids: &mut out.ids, bytes: 0, begun, flush };
        let text = match long {
            Some(long) => {
                out.replaced_bytes = long.replaced;
                Cow::Borrowed(long.text(input)?)
            }
            None => text_of(&out.block.bytes, &mut out.replaced_bytes),
        };
        match (input.format, self.kind(input.format)) {
            (Format::Jsonl, _) => {
                let line = out.block.line;
                let folder = long.map(|long| long.folder.as_path());
                writer.json_lines(&text, line, input, folder, &mut out.replaced_bytes)?;
            }
            (Format::Text, Document::File) => writer.text(&text)?,
            (Format::Text, Document::Line) => writer.lines(&text)?,
            (Format::Text, Document::Block) => writer.paragraphs(&text)?,
        }
        if !out.block.unfinished {
            writer.end();
        }
        out.text_bytes = writer.bytes;
        Ok(())
    }
}

/// `bytes` as text; adds those that are no UTF-8 to `replaced`.
fn text_of<'a>(bytes: &'a [u8], replaced: &mut u64) -> Cow<'a, str> {
    if let Ok(text) = simdutf8::basic::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    *replaced += bytes.utf8_chunks().map(|chunk| chunk.invalid().len() as u64).sum::<u64>();
    String::from_utf8_lossy(bytes)
}

/// Collects the ids of one block.
struct Writer<'a> {
    documents: &'a Documents<'a>,
    tokenizer: &'a Tokenizer,
    ids: &'a mut Vec<u32>,
    /// Bytes of text so far.
    bytes: u64,
    /// The document has text.
    begun: bool,
    flush: Option<&'a mut Flush<'a>>,
}

impl Writer<'_> {
    fn text(&mut self, text: &str) -> Result<()> {
        self.begun |= !text.is_empty();
        let before = self.bytes;
        self.bytes += text.len() as u64;
        let Some(flush) = &mut self.flush else {
            return self.tokenizer.encode_into(text, self.ids);
        };
        self.tokenizer.encode_in_pieces(text, self.ids, &mut |ids, at| {
            if ids.len() < PIECE { Ok(()) } else { flush(ids, before + at as u64) }
        })
    }

    /// Ends the document, unless it is empty.
    fn end(&mut self) {
        if let (Some((id, bytes)), true) = (self.documents.end, self.begun) {
            self.ids.push(id);
            self.bytes += bytes;
        }
        self.begun = false;
    }

    fn lines(&mut self, text: &str) -> Result<()> {
        for line in text.split_inclusive('\n') {
            let whole = line.strip_suffix('\n');
            self.text(whole.map_or(line, |line| line.strip_suffix('\r').unwrap_or(line)))?;
            if whole.is_some() {
                self.end();
            }
        }
        Ok(())
    }

    /// Documents are runs of lines that are not blank; the line breaks between them belong to none.
    fn paragraphs(&mut self, text: &str) -> Result<()> {
        // Text of the document under way: from `start` to the end of its last line.
        let (mut start, mut end) = (0, 0);
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let first_of_continued = at == 0 && self.begun;
            let content = line.trim_end_matches(['\n', '\r']);
            if content.trim_ascii().is_empty() && !first_of_continued {
                if start < end {
                    self.text(&text[start..end])?;
                }
                self.end();
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
        folder: Option<&Path>,
        replaced: &mut u64,
    ) -> Result<()> {
        let (field, path) = (self.documents.text_field, &input.path);
        let mut rest = text;
        if let Some(folder) = folder {
            // A long text is one line, with others before or behind it if at all.
            for (line, number) in text.split('\n').zip(first..) {
                if line.len() < LONG_LINE {
                    self.json_lines(line, number, input, None, replaced)?;
                    continue;
                }
                let mut collector = Collector::into_file(input, folder)?;
                pieces_of_line(line, number, field, path, |bytes| collector.push(bytes))?;
                let long = collector.finish()?;
                *replaced += long.replaced;
                self.text(long.text(input)?)?;
                self.end();
            }
            rest = "";
        }
        texts_of_lines(rest, first, field, path, |bytes| {
            self.text(&text_of(bytes, replaced))?;
            self.end();
            Ok(())
        })
    }
}
