//! Where text may be cut so that its parts encode as the whole does, and a cutter for text that
//! arrives in pieces.

use super::pretokenize::Pattern;
use super::special::SpecialTokens;
use super::{Kind, Tokenizer};
use crate::corpus::LossyDecoder;

/// Bytes before a cut that decide whether it is one: more than any pattern looks back at.
const LOOK_BEHIND: usize = 64;
/// Bytes at the end of a block that are searched first.
const WINDOW: usize = 1 << 12;

/// The parts of a tokenizer that decide where text may be cut.
#[derive(Debug, Clone, Copy)]
pub struct Cuts<'a> {
    pub kind: Kind,
    pub pattern: &'a Pattern,
    pub special: &'a SpecialTokens,
}

impl Cuts<'_> {
    /// Returns the last place in `after..=limit` where `text` may be cut.
    ///
    /// Only the text before `limit` + the longest special token matters, so once that much is known,
    /// text that follows changes nothing.
    pub fn last(&self, text: &str, after: usize, limit: usize) -> Option<usize> {
        let last = limit.min(text.len().saturating_sub(1));
        (after.max(1)..=last).rev().find(|&at| {
            text.is_char_boundary(at)
                && (self.kind == Kind::Chars || self.pattern.is_boundary(text, at))
                && !self.special.spans(text, at)
        })
    }

    /// Returns the last place where `bytes`, which more text follows and which may be invalid UTF-8,
    /// may be cut. `at_start` says that no text precedes them.
    ///
    /// ```text
    /// for start in [the last 4 KiB, the beginning]:   // nearly always found in the former
    ///   for each run of valid UTF-8 from start on:
    ///     search it, but for its first bytes (what precedes them may join a special token or a
    ///     contraction) and its last bytes (a special token may begin there)
    ///   return the last cut found, if any
    /// ```
    pub fn last_in_bytes(&self, bytes: &[u8], at_start: bool) -> Option<usize> {
        let longest = self.special.longest().max(1);
        let search = |start: usize| {
            let (mut at, mut found) = (start, None);
            for chunk in bytes[start..].utf8_chunks() {
                let text = chunk.valid();
                let after = if at == 0 && at_start { 0 } else { longest + LOOK_BEHIND };
                let limit = text.len().checked_sub(longest);
                let cut = limit.and_then(|limit| self.last(text, after, limit));
                found = cut.map(|cut| at + cut).or(found);
                at += text.len() + chunk.invalid().len();
            }
            found
        };
        let window = bytes.len().saturating_sub(WINDOW);
        // Start at a character, not at a continuation byte.
        let start = (window..bytes.len()).find(|&at| bytes[at] & 0xC0 != 0x80)?;
        search(start).or_else(|| if start > 0 { search(0) } else { None })
    }
}

impl Tokenizer {
    pub(super) fn cuts(&self) -> Cuts<'_> {
        Cuts { kind: self.kind, pattern: &self.pattern, special: &self.special }
    }

    /// Returns the last place where `bytes`, a part of a text, may be cut, whatever precedes and
    /// follows them: both sides encode as the whole does.
    pub(crate) fn last_cut(&self, bytes: &[u8]) -> Option<usize> {
        self.cuts().last_in_bytes(bytes, false)
    }
}

/// Collects bytes, and returns the text in blocks that can be encoded independently.
///
/// It holds back at most one block, the longest special token, and any run of text without a cut
/// (an endless word).
#[derive(Debug)]
pub struct BlockCutter {
    decoder: LossyDecoder,
    text: String,
    /// There is no cut up to this offset of `text`.
    searched: usize,
    block: usize,
}

impl BlockCutter {
    /// Creates a cutter of blocks of at least `block` bytes.
    pub fn new(block: usize) -> Self {
        Self { decoder: LossyDecoder::default(), text: String::new(), searched: 0, block }
    }

    /// Returns the number of bytes so far that were invalid UTF-8.
    pub fn replaced_bytes(&self) -> u64 {
        self.decoder.replaced_bytes()
    }

    /// Takes bytes, which may end anywhere, and returns the next block if there is one.
    pub fn push(&mut self, bytes: &[u8], cuts: Cuts<'_>) -> Option<String> {
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

    /// Ends the text and returns the rest of it.
    pub fn finish(&mut self) -> String {
        self.decoder.finish(&mut self.text);
        self.searched = 0;
        std::mem::take(&mut self.text)
    }
}
