//! Text to ids: special tokens, pre-tokens, a cache from pre-token to ids, merges.
//!
//! The cache is a table of fixed size: a pre-token has one place, and a newcomer takes it over. Nothing is allocated for a
//! pre-token. Threads encode blocks cut at boundaries of pre-tokens, so their number changes nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::blocks::last_cut;
use super::merge::MergeWork;
use super::pretokenize::pretoken_end;
use super::special::Segment;
use super::{Kind, Tokenizer};
use crate::{Error, Result};

/// Bytes of the longest pre-token the cache keeps.
const CACHED_BYTES: usize = 15;
/// Ids the cache keeps of one pre-token.
const CACHED_IDS: usize = 3;
const CACHE_BITS: u32 = 15;
/// Bytes of text a thread takes at a time.
const BLOCK: usize = 1 << 17;

/// A pre-token of at most `CACHED_BYTES` bytes, its length in the highest byte, and its ids; key 0 is an empty place.
#[derive(Debug, Clone, Copy, Default)]
struct Cached {
    key: u128,
    count: u32,
    ids: [u32; CACHED_IDS],
}

/// What one thread needs to encode; kept by the tokenizer between calls, so the cache stays warm.
#[derive(Debug)]
pub struct Scratch {
    cache: Vec<Cached>,
    symbols: Vec<u32>,
    merge: MergeWork,
}

impl Scratch {
    fn new() -> Self {
        Self {
            cache: vec![Cached::default(); 1 << CACHE_BITS],
            symbols: Vec::new(),
            merge: MergeWork::default(),
        }
    }
}

/// Scratches that no call uses at the moment.
#[derive(Debug, Default)]
pub struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    fn take(&self) -> Scratch {
        let kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        kept.unwrap_or_else(Scratch::new)
    }

    fn give(&self, scratch: Scratch) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(scratch);
    }
}

/// The bytes `start..end` (at most `CACHED_BYTES`) of `text` as the cache's key.
#[inline]
fn cache_key(text: &[u8], start: usize, end: usize) -> u128 {
    let length = end - start;
    let bytes = if let Some(sixteen) = text.get(start..start + 16) {
        let mut all = [0; 16];
        all.copy_from_slice(sixteen);
        u128::from_le_bytes(all) & ((1 << (length * 8)) - 1)
    } else {
        let mut all = [0; 16];
        all[..length].copy_from_slice(&text[start..end]);
        u128::from_le_bytes(all)
    };
    bytes | (length as u128) << 120
}

#[inline]
fn cache_place(key: u128) -> usize {
    let folded = (key as u64) ^ ((key >> 64) as u64).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - CACHE_BITS)) as usize
}

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

    /// Appends the ids of `text` to `ids`.
    ///
    /// # Errors
    /// As `encode`; `ids` then holds those before the unknown character's part.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let mut scratch = self.scratches.take();
        let mut result = Ok(());
        for segment in self.special.segments(text) {
            match (segment, self.kind) {
                (Segment::Special(id), _) => ids.push(id),
                (Segment::Text(part), Kind::Chars) => result = self.encode_chars(part, ids),
                (Segment::Text(part), Kind::Bpe) => result = self.encode_part(part, &mut scratch, ids),
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
        self.encode_blocks(text, threads, BLOCK)
    }

    /// `encode_parallel` with blocks of about `block` bytes.
    pub(super) fn encode_blocks(&self, text: &str, threads: usize, block: usize) -> Result<Vec<u32>> {
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
            ids.append(&mut result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?);
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
                if let Some(cut) = last_cut(text, searched, wanted, self.kind, &self.special) {
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
            ids.push(*self.char_ids.get(&c).ok_or_else(|| unknown_character(c))?);
        }
        Ok(())
    }

    /// Ids of text without special tokens.
    fn encode_part(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<()> {
        let bytes = text.as_bytes();
        let mut start = 0;
        while start < bytes.len() {
            let end = pretoken_end(bytes, start);
            if end - start <= CACHED_BYTES {
                let key = cache_key(bytes, start, end);
                let place = cache_place(key);
                let cached = &scratch.cache[place];
                if cached.key == key {
                    ids.extend_from_slice(&cached.ids[..cached.count as usize]);
                } else {
                    self.encode_pretoken(&text[start..end], scratch)?;
                    let found = &scratch.symbols;
                    ids.extend_from_slice(found);
                    if found.len() <= CACHED_IDS {
                        let mut cached = Cached { key, count: found.len() as u32, ids: [0; CACHED_IDS] };
                        cached.ids[..found.len()].copy_from_slice(found);
                        scratch.cache[place] = cached;
                    }
                }
            } else {
                self.encode_pretoken(&text[start..end], scratch)?;
                ids.extend_from_slice(&scratch.symbols);
            }
            start = end;
        }
        Ok(())
    }

    /// Leaves the ids of one pre-token in `scratch.symbols`.
    fn encode_pretoken(&self, pretoken: &str, scratch: &mut Scratch) -> Result<()> {
        let symbols = &mut scratch.symbols;
        symbols.clear();
        symbols.extend(pretoken.bytes().map(|byte| self.byte_ids[usize::from(byte)]));
        if self.lacks_bytes && symbols.contains(&u32::MAX) {
            let has_all = |c: &char| {
                let mut buffer = [0; 4];
                c.encode_utf8(&mut buffer).bytes().all(|byte| self.byte_ids[usize::from(byte)] != u32::MAX)
            };
            let c = pretoken.chars().find(|c| !has_all(c)).unwrap_or(char::REPLACEMENT_CHARACTER);
            return Err(unknown_character(c));
        }
        self.merge_table.merge(symbols, &mut scratch.merge);
        Ok(())
    }
}

fn unknown_character(c: char) -> Error {
    Error::UnknownCharacter { character: c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_blocks_and_the_threads_change_nothing() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer");
        let (vocab, merges) = (folder.join("gpt2_vocab.json"), folder.join("gpt2_merges.txt"));
        let special = ["<|endoftext|>".to_owned(), "\n\n".to_owned(), "a b".to_owned()];
        let tokenizer = Tokenizer::from_files(vocab, merges, &special).unwrap();
        let text = std::fs::read_to_string(folder.join("tinystories_sample.txt")).unwrap()
            + "日本語日本語 a b\u{85}\n\n\n";
        let whole = tokenizer.encode(&text).unwrap();
        for (block, threads) in [(1, 1), (2, 5), (7, 2), (64, 5), (1000, 2)] {
            assert_eq!(tokenizer.encode_blocks(&text, threads, block).unwrap(), whole, "blocks of {block}");
        }
    }

    #[test]
    fn a_cached_pretoken_is_told_apart_from_all_others() {
        let text = b"ab\0 abc abcdefghijklmnopq";
        let keys = [(0, 1), (0, 2), (0, 3), (1, 2), (4, 7), (8, 23), (9, 23)]
            .map(|(start, end)| cache_key(text, start, end));
        for (i, key) in keys.iter().enumerate() {
            assert!(*key != 0 && !keys[..i].contains(key));
        }
        assert_eq!(cache_key(b"abc", 0, 2), cache_key(text, 0, 2));
    }
}
