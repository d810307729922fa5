//! Encoding of text that arrives in pieces.

use std::sync::Arc;

use super::Tokenizer;
use super::cuts::Cuts;
use crate::Result;
use crate::corpus::LossyDecoder;

/// Minimum size of a block that is encoded before the text ends, in bytes.
const BLOCK: usize = 1 << 14;

/// Encodes one text from pieces that may end anywhere, even inside a character or a special token.
///
/// The ids are those of one `encode` of the whole text. Invalid UTF-8 is read as U+FFFD.
#[derive(Debug)]
pub struct StreamEncoder {
    tokenizer: Arc<Tokenizer>,
    cutter: BlockCutter,
}

impl StreamEncoder {
    /// Creates an encoder.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self::with_block(tokenizer, BLOCK)
    }

    /// Creates an encoder that holds text back until it has at least `block` bytes.
    pub fn with_block(tokenizer: Arc<Tokenizer>, block: usize) -> Self {
        Self { tokenizer, cutter: BlockCutter::new(block) }
    }

    /// Returns the number of invalid bytes so far.
    pub fn replaced_bytes(&self) -> u64 {
        self.cutter.replaced_bytes()
    }

    /// Takes the next bytes, and appends to `out` the ids that no later text can change.
    ///
    /// # Errors
    /// As `Tokenizer::encode`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u32>) -> Result<()> {
        match self.cutter.push(bytes, self.tokenizer.cuts()) {
            Some(text) => self.tokenizer.encode_into(&text, out),
            None => Ok(()),
        }
    }

    /// Ends the text and appends its last ids to `out`. The encoder can then take another text.
    ///
    /// # Errors
    /// As `Tokenizer::encode`.
    pub fn finish(&mut self, out: &mut Vec<u32>) -> Result<()> {
        let text = self.cutter.finish();
        self.tokenizer.encode_into(&text, out)
    }
}

/// Collects bytes and returns text in blocks that can be encoded separately.
///
/// Holds back at most one block, the longest special token, and any run without a safe cut (such as
/// a very long word).
#[derive(Debug)]
struct BlockCutter {
    decoder: LossyDecoder,
    text: String,
    /// `text` has no cut before this position.
    searched: usize,
    block: usize,
}

impl BlockCutter {
    /// Creates a cutter of blocks of at least `block` bytes.
    fn new(block: usize) -> Self {
        Self { decoder: LossyDecoder::default(), text: String::new(), searched: 0, block }
    }

    /// Returns the number of invalid bytes so far.
    fn replaced_bytes(&self) -> u64 {
        self.decoder.replaced_bytes()
    }

    /// Takes bytes that may end anywhere; returns text that can be encoded now.
    fn push(&mut self, bytes: &[u8], cuts: Cuts<'_>) -> Option<String> {
        self.decoder.push(bytes, &mut self.text);
        if self.text.len() < self.block {
            return None;
        }
        let limit = self.text.len().saturating_sub(cuts.special.longest().max(1));
        let Some(cut) = cuts.last(&self.text, self.searched, limit) else {
            self.searched = self.searched.max(limit + 1);
            return None;
        };
        self.searched = 0;
        let rest = self.text.split_off(cut);
        Some(std::mem::replace(&mut self.text, rest))
    }

    /// Ends the text; returns the rest of it.
    fn finish(&mut self) -> String {
        self.decoder.finish(&mut self.text);
        self.searched = 0;
        std::mem::take(&mut self.text)
    }
}
