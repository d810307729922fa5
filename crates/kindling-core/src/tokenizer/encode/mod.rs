//! Text to ids: special tokens, pre-tokens, a cache from pre-token to ids, merges.
//!
//! Threads encode blocks cut at boundaries of pre-tokens, so their number changes nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) mod cache;
mod count_tokens;
mod lookup;
pub(super) mod merge;
pub(super) mod scratch;
mod streaming_bpe;

use self::cache::CACHED_VOCAB;
use self::scratch::{Scratch, SharedCaches};
use self::streaming_bpe::GIANT;
use super::pretokenize::Scanner;
use super::special::Segment;
use super::{Kind, Tokenizer};
use crate::{Error, Result};

/// Bytes of text a thread takes at a time.
const BLOCK: usize = 1 << 17;

impl Tokenizer {
    /// Ids of `text`.
    ///
    /// # Errors
    /// `ERR_UNKNOWN_CHARACTER` where the vocabulary has no token for a character (`Kind::Chars`, or a vocabulary that lacks
    /// some of the 256 bytes).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }

    /// Ids of bytes; what is not UTF-8 is read as U+FFFD.
    ///
    /// # Errors
    /// As `encode`.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>> {
        self.encode(&String::from_utf8_lossy(bytes))
    }

    /// Says that much text is about to be encoded, by several threads perhaps: from now on they share caches of 76 MiB.
    pub fn expect_much_text(&self) {
        if self.tokens.len() <= CACHED_VOCAB {
            self.shared_caches.get_or_init(SharedCaches::new);
        }
    }

    /// Appends the ids of `text` to `ids`.
    ///
    /// # Errors
    /// As `encode`; `ids` then holds those before the unknown character's part.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        self.encode_in_pieces(text, ids, &mut |_, _| Ok(()))
    }

    /// As `encode_into`; now and then `flush` gets `ids` and the bytes of `text` that are encoded, and may take the ids out.
    pub(crate) fn encode_in_pieces(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        let mut scratch = self.scratches.take();
        let (mut result, mut at) = (Ok(()), 0);
        for segment in self.special.segments(text) {
            match (segment, self.kind) {
                (Segment::Special(id), _) => {
                    ids.push(id);
                    at += self.tokens[id as usize].len();
                }
                (Segment::Text(part), Kind::Chars) => result = self.encode_chars(part, ids),
                (Segment::Text(part), Kind::Bpe) => {
                    let flush = &mut |ids: &mut Vec<u32>, within| flush(ids, at + within);
                    result = self.encode_part(part, &mut scratch, ids, flush);
                }
            }
            if let Segment::Text(part) = segment {
                at += part.len();
            }
            if result.is_err() {
                break;
            }
        }
        self.scratches.give(scratch);
        result
    }

    /// Ids of `text`, the work shared by `threads` threads; the same ids for any number.
    ///
    /// # Errors
    /// As `encode`: the first error in the order of the text.
    pub fn encode_parallel(&self, text: &str, threads: usize) -> Result<Vec<u32>> {
        if threads <= 1 || text.len() <= BLOCK {
            return self.encode(text);
        }
        self.expect_much_text();
        self.encode_blocks(text, threads, BLOCK)
    }

    /// `encode_parallel` with blocks of about `block` bytes.
    pub(super) fn encode_blocks(
        &self,
        text: &str,
        threads: usize,
        block: usize,
    ) -> Result<Vec<u32>> {
        let blocks = self.cut(text, block);
        let results: Vec<Mutex<Result<Vec<u32>>>> =
            blocks.iter().map(|_| Mutex::new(Ok(Vec::new()))).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(block) = blocks.get(index) else { break };
                *results[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    self.encode(block);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(blocks.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut ids = Vec::new();
        for result in results {
            ids.append(
                &mut result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?,
            );
        }
        Ok(ids)
    }

    /// `text` in blocks of about `size` bytes that may be encoded apart.
    fn cut<'a>(&self, mut text: &'a str, size: usize) -> Vec<&'a str> {
        let mut blocks = Vec::with_capacity(text.len() / size + 1);
        while text.len() > size {
            let mut searched = 0;
            let mut wanted = size;
            let cut = loop {
                if wanted >= text.len() {
                    break text.len();
                }
                if let Some(cut) = self.cuts().last(text, searched, wanted) {
                    break cut;
                }
                searched = wanted;
                wanted += size;
            };
            let (block, rest) = text.split_at(cut);
            blocks.push(block);
            text = rest;
        }
        blocks.push(text);
        blocks
    }

    fn encode_chars(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        for c in text.chars() {
            ids.push(*self.char_ids.get(&c).ok_or(Error::UnknownCharacter { character: c })?);
        }
        Ok(())
    }

    /// Ids of text without special tokens.
    fn encode_part(
        &self,
        text: &str,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        let mut scanner = Scanner::new(text, &self.pattern, self.isa);
        let mut starts = std::mem::take(&mut scratch.starts);
        starts.clear();
        let mut result = Ok(());
        while result.is_ok() {
            let more = match scanner.next_window(&mut starts) {
                Ok(more) => more,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            if !more {
                starts.push(text.len());
            }
            if text.len() > GIANT {
                result = self.encode_giants(text, &mut starts, scratch, ids, flush);
            }
            if result.is_ok() {
                result = self.encode_pretokens(text, &starts, scratch, ids);
            }
            if result.is_ok() {
                result = flush(ids, starts.last().copied().unwrap_or(0));
            }
            // Where the last one ends is not known yet.
            let last = starts.pop();
            starts.clear();
            starts.extend(last);
            if !more {
                break;
            }
        }
        scratch.starts = starts;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_blocks_and_the_threads_change_nothing() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer");
        let (vocab, merges) = (folder.join("gpt2_vocab.json"), folder.join("gpt2_merges.txt"));
        let special = ["<|endoftext|>".to_owned(), "\n\n".to_owned(), "a b".to_owned()];
        let tokenizer = Tokenizer::from_files(vocab, merges, &special).unwrap();
        let text = std::fs::read_to_string(folder.join("tinystories_sample.txt")).unwrap()
            + "日本語日本語 a b\u{85}\n\n\n";
        let whole = tokenizer.encode(&text).unwrap();
        for (block, threads) in [(1, 1), (2, 5), (7, 2), (64, 5), (1000, 2)] {
            assert_eq!(
                tokenizer.encode_blocks(&text, threads, block).unwrap(),
                whole,
                "blocks of {block}"
            );
        }
    }
}
