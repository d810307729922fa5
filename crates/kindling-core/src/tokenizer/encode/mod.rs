//! Encoding: text to ids.
//!
//! ```text
//! for each segment between special tokens, normalized if the rules say so:
//!     for each window of pre-tokens (pretokenize/scan.rs):
//!         pre-tokens over 1 MiB: streaming_bpe.rs
//!         others, 32 at a time: lookup.rs
//!             cache/ has the ids, or merge.rs computes them and cache/ takes them
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `lookup.rs` | looking up pre-tokens in the caches, prefetched in batches |
//! | `cache/` | the caches: one per thread, and a larger one that threads share |
//! | `merge.rs` | merging one pre-token by rank |
//! | `streaming_bpe.rs` | merging pre-tokens of any length in bounded memory |
//! | `scratch.rs` | memory that a thread reuses from call to call |

mod cache;
mod lookup;
mod merge;
mod scratch;
mod streaming_bpe;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use self::cache::{CACHED_VOCAB, SharedCaches};
use self::merge::{MergeScratch, MergeTable};
use self::scratch::{Scratch, ScratchPool};
use super::normalize::nfc;
use super::parts::{Kind, Parts};
use super::pretokenize::Scanner;
use super::special::{Segment, SpecialTokens};
use crate::simd::Isa;
use crate::{Error, Result};

/// Id of a byte that the vocabulary lacks.
const NO_ID: u32 = u32::MAX;

/// Map from the bytes of an ordinary token to its id.
pub type TokenIds = HashMap<Box<[u8]>, u32>;

/// Everything that encoding needs. Threads can use it at once, each with its own `Scratch`.
#[derive(Debug)]
pub struct Encoder {
    parts: Arc<Parts>,
    special: SpecialTokens,
    merge_table: MergeTable,
    /// Id of each byte, or `NO_ID`.
    byte_ids: [u32; 256],
    lacks_bytes: bool,
    token_ids: Arc<TokenIds>,
    char_ids: HashMap<char, u32>,
    scratch_pool: ScratchPool,
    /// Empty until much text is expected; `None` if there is not enough memory.
    shared_caches: OnceLock<Option<SharedCaches>>,
    isa: Isa,
}

impl Encoder {
    /// Creates the encoder of `parts`, whose special tokens are `special`.
    pub fn new(parts: Arc<Parts>, special: SpecialTokens, token_ids: Arc<TokenIds>) -> Self {
        let is_special: HashSet<u32> = special.tokens().iter().map(|&(_, id)| id).collect();
        let (mut byte_ids, mut char_ids) = ([NO_ID; 256], HashMap::new());
        for (id, token) in (0..).zip(&parts.tokens).filter(|(id, _)| !is_special.contains(id)) {
            match parts.kind {
                Kind::Bpe => {
                    if let [byte] = token[..] {
                        byte_ids[usize::from(byte)] = id;
                    }
                }
                Kind::Chars => {
                    let character = std::str::from_utf8(token).ok().and_then(|t| t.chars().next());
                    char_ids.extend(character.map(|c| (c, id)));
                }
            }
        }
        let merge_table = MergeTable::new(&parts.merges, &byte_ids);
        Self {
            parts,
            special,
            merge_table,
            byte_ids,
            lacks_bytes: byte_ids.contains(&NO_ID),
            token_ids,
            char_ids,
            scratch_pool: ScratchPool::default(),
            shared_caches: OnceLock::new(),
            isa: Isa::detect(),
        }
    }

    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Allocates the caches that threads share, unless they exist or the vocabulary is too large.
    pub fn share_caches(&self) {
        if self.parts.tokens.len() <= CACHED_VOCAB {
            self.shared_caches.get_or_init(SharedCaches::new);
        }
    }

    /// Appends the ids of `text` to `ids`. Calls `flush` now and then with `ids`, which it may take
    /// out, and the number of bytes of `text` encoded so far.
    ///
    /// # Errors
    /// Returns `ERR_UNKNOWN_CHARACTER` if the vocabulary has no token for a character, and
    /// `ERR_INVALID_ARGUMENT` if a regular expression gives up. Errors of `flush` are passed on.
    pub fn encode(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        let mut scratch = self.scratch_pool.take();
        let (mut result, mut at) = (Ok(()), 0);
        for segment in self.special.segments(text) {
            match segment {
                Segment::Special { id, length } => {
                    ids.push(id);
                    at += length;
                }
                Segment::Text(part) => {
                    // Normalizing may change the length, so positions within the part are
                    // approximate.
                    let flush = &mut |ids: &mut Vec<u32>, within: usize| {
                        flush(ids, at + within.min(part.len()))
                    };
                    result = self.encode_text(part, &mut scratch, ids, flush);
                    at += part.len();
                }
            }
            if result.is_err() {
                break;
            }
        }
        self.scratch_pool.put_back(scratch);
        result
    }

    /// Appends the ids of text without special tokens, except those found in normalized text.
    fn encode_text(
        &self,
        text: &str,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        let text = if self.parts.rules.nfc { nfc(text) } else { Cow::Borrowed(text) };
        let mut at = 0;
        for segment in self.special.normalized_segments(&text) {
            match segment {
                Segment::Special { id, length } => {
                    ids.push(id);
                    at += length;
                }
                Segment::Text(part) => {
                    let flush = &mut |ids: &mut Vec<u32>, within| flush(ids, at + within);
                    match self.parts.kind {
                        Kind::Chars => self.encode_chars(part, ids)?,
                        Kind::Bpe => self.encode_segment(part, scratch, ids, flush)?,
                    }
                    at += part.len();
                }
            }
        }
        Ok(())
    }

    fn encode_chars(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        for c in text.chars() {
            ids.push(*self.char_ids.get(&c).ok_or(Error::UnknownCharacter { character: c })?);
        }
        Ok(())
    }

    /// Appends the ids of text without special tokens.
    fn encode_segment(
        &self,
        text: &str,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        let mut starts = std::mem::take(&mut scratch.starts);
        let result = self.encode_windows(text, &mut starts, scratch, ids, flush);
        scratch.starts = starts;
        result
    }

    fn encode_windows(
        &self,
        text: &str,
        starts: &mut Vec<usize>,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        let mut scanner = Scanner::new(text, &self.parts.pattern, self.isa);
        starts.clear();
        loop {
            let more = scanner.next_window(starts)?;
            if !more {
                starts.push(text.len());
            }
            self.encode_long_pretokens(text, starts, scratch, ids, flush)?;
            self.encode_pretokens(text, starts, scratch, ids)?;
            flush(ids, starts.last().copied().unwrap_or(0))?;
            if !more {
                return Ok(());
            }
            // The end of the last pre-token is not known yet.
            let last = starts.pop();
            starts.clear();
            starts.extend(last);
        }
    }

    /// Merges `bytes`, all of which the vocabulary has, and writes their ids to `symbols`.
    fn merge_bytes(&self, bytes: &[u8], symbols: &mut Vec<u32>, scratch: &mut MergeScratch) {
        symbols.clear();
        symbols.extend(bytes.iter().map(|&byte| self.byte_ids[usize::from(byte)]));
        self.merge_table.merge(bytes, symbols, scratch);
    }

    /// Returns the first of `ids` whose bytes do not merge to exactly that token.
    pub fn first_unmerged(&self, mut ids: impl Iterator<Item = u32>) -> Option<u32> {
        let (mut symbols, mut scratch) = (Vec::new(), MergeScratch::default());
        ids.find(|&id| {
            self.merge_bytes(&self.parts.tokens[id as usize], &mut symbols, &mut scratch);
            symbols != [id]
        })
    }

    /// Returns the token that equals a whole pre-token, if the rules say to use it without merging.
    fn whole_word(&self, pretoken: &[u8]) -> Option<u32> {
        if !self.parts.rules.ignore_merges {
            return None;
        }
        let id = *self.token_ids.get(pretoken)?;
        let is_raw = self.parts.raw_texts.binary_search_by_key(&id, |&(id, _)| id).is_ok();
        (!is_raw).then_some(id)
    }

    /// Returns an error if the vocabulary lacks a byte of `text`.
    fn check_bytes(&self, text: &str) -> Result<()> {
        if !self.lacks_bytes {
            return Ok(());
        }
        let is_unknown = |&c: &char| {
            c.encode_utf8(&mut [0; 4]).bytes().any(|byte| self.byte_ids[usize::from(byte)] == NO_ID)
        };
        match text.chars().find(is_unknown) {
            Some(character) => Err(Error::UnknownCharacter { character }),
            None => Ok(()),
        }
    }
}
