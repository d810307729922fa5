//! Encoding bytes that come in pieces, and decoding ids that come one by one.

use std::sync::Arc;

use super::Tokenizer;
use super::cuts::BlockCutter;
use crate::Result;
use crate::corpus::LossyDecoder;

/// Text kept back at least until it is this long, in bytes for each thread.
const BLOCK: usize = 1 << 14;

/// Encodes a text that comes in pieces cut anywhere, even inside a character or a special token: the ids are those of one
/// `encode` of the whole. Bytes that are not UTF-8 are read as U+FFFD.
#[derive(Debug)]
pub struct StreamEncoder {
    tokenizer: Arc<Tokenizer>,
    cutter: BlockCutter,
    threads: usize,
}

impl StreamEncoder {
    /// Encoder of one text. `threads` work on a push where it is long enough (some hundred KiB).
    pub fn new(tokenizer: Arc<Tokenizer>, threads: usize) -> Self {
        Self::with_block(tokenizer, threads, BLOCK)
    }

    /// `new` with another least block.
    pub fn with_block(tokenizer: Arc<Tokenizer>, threads: usize, block: usize) -> Self {
        let cutter = BlockCutter::new(block);
        Self { tokenizer, cutter, threads }
    }

    /// Bytes that were not UTF-8 so far.
    pub fn replaced_bytes(&self) -> u64 {
        self.cutter.replaced_bytes()
    }

    /// Takes the next bytes and appends the ids that are certain by now to `out`.
    ///
    /// # Errors
    /// As `Tokenizer::encode`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u32>) -> Result<()> {
        match self.cutter.push(bytes, self.tokenizer.cuts()) {
            Some(text) => self.encode(&text, out),
            None => Ok(()),
        }
    }

    /// Ends the text and appends the rest of its ids. The encoder can then take another text.
    ///
    /// # Errors
    /// As `Tokenizer::encode`.
    pub fn finish(&mut self, out: &mut Vec<u32>) -> Result<()> {
        let text = self.cutter.finish();
        self.encode(&text, out)
    }

    fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        if self.threads <= 1 {
            return self.tokenizer.encode_into(text, out);
        }
        out.append(&mut self.tokenizer.encode_parallel(text, self.threads)?);
        Ok(())
    }
}

/// Decodes ids that come one by one to text that can be printed at once: an incomplete character waits for its rest.
#[derive(Debug)]
pub struct StreamDecoder {
    tokenizer: Arc<Tokenizer>,
    decoder: LossyDecoder,
}

impl StreamDecoder {
    /// Decoder of one text.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, decoder: LossyDecoder::default() }
    }

    /// The text that `id` completes; often empty within a character of several tokens.
    ///
    /// # Errors
    /// `ERR_TOKEN_OUT_OF_RANGE`.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let mut out = String::new();
        self.decoder.push(self.tokenizer.token_bytes(id)?, &mut out);
        Ok(out)
    }

    /// Ends the text: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.decoder.finish(&mut out);
        out
    }
}
