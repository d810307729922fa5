//! Where text may be cut so that its parts encode as the whole does, and bytes in any pieces to such parts.

use super::pretokenize::Pattern;
use super::special::SpecialTokens;
use super::{Kind, Tokenizer};
use crate::corpus::LossyDecoder;

/// Bytes of text before a cut that are more than any pattern looks back at.
const LOOKED_BACK: usize = 64;
/// Bytes at the end of a block in which a cut is looked for first.
const WINDOW: usize = 1 << 12;

/// What decides where text may be cut.
#[derive(Debug, Clone, Copy)]
pub struct Cuts<'a> {
    pub kind: Kind,
    pub pattern: &'a Pattern,
    pub special: &'a SpecialTokens,
}

impl Cuts<'_> {
    /// The last place in `after..=limit` where `text` may be cut, if there is one.
    ///
    /// Nothing from `limit` + the longest special token on is looked at, so text that comes later changes nothing as long as
    /// that much is known.
    pub fn last(&self, text: &str, after: usize, limit: usize) -> Option<usize> {
        let last = limit.min(text.len().saturating_sub(1));
        (after.max(1)..=last).rev().find(|&at| {
            text.is_char_boundary(at)
                && (self.kind == Kind::Chars || self.pattern.is_boundary(text, at))
                && !self.special.spans(text, at)
        })
    }

    /// `last` of bytes that need not be UTF-8, in a text that goes on behind them and begins with them.
    pub fn last_of_bytes(&self, bytes: &[u8]) -> Option<usize> {
        let from = |start: usize| {
            let (mut at, mut found) = (start, None);
            for chunk in bytes[start..].utf8_chunks() {
                let text = chunk.valid();
                let longest = self.special.longest().max(1);
                // What is before this part may belong to a special token or a contraction in it.
                let after = if at == 0 { 0 } else { longest + LOOKED_BACK };
                let cut =
                    text.len().checked_sub(longest).and_then(|limit| self.last(text, after, limit));
                found = cut.map(|cut| at + cut).or(found);
                at += text.len() + chunk.invalid().len();
            }
            found
        };
        let window = bytes.len().saturating_sub(WINDOW);
        // No character begins with a byte that continues one.
        let start = (window..bytes.len()).find(|&at| bytes[at] & 0xC0 != 0x80)?;
        from(start).or_else(|| if start > 0 { from(0) } else { None })
    }
}

impl Tokenizer {
    /// What decides where text may be cut.
    pub(super) fn cuts(&self) -> Cuts<'_> {
        Cuts { kind: self.kind, pattern: &self.pattern, special: &self.special }
    }

    /// The last place at which `text` may be cut in two, whatever text comes before and after it: both sides encode as the
    /// whole does.
    pub(crate) fn last_cut(&self, text: &str) -> Option<usize> {
        let longest = self.special.longest().max(1);
        let limit = text.len().checked_sub(longest)?;
        self.cuts().last(text, longest + LOOKED_BACK, limit)
    }
}

/// Collects bytes, and gives text off in blocks that may be encoded apart.
///
/// It holds back at most one block, the longest special token, and any run that has no place to be cut (a word without end).
#[derive(Debug)]
pub struct BlockCutter {
    decoder: LossyDecoder,
    text: String,
    /// No cut up to here.
    searched: usize,
    block: usize,
}

impl BlockCutter {
    /// Blocks of at least `block` bytes.
    pub fn new(block: usize) -> Self {
        Self { decoder: LossyDecoder::default(), text: String::new(), searched: 0, block }
    }

    /// Bytes that were not UTF-8 so far.
    pub fn replaced_bytes(&self) -> u64 {
        self.decoder.replaced_bytes()
    }

    /// Takes bytes, cut anywhere; returns text that may be encoded now.
    pub fn push(&mut self, bytes: &[u8], cuts: Cuts<'_>) -> Option<String> {
        self.decoder.push(bytes, &mut self.text);
        if self.text.len() < self.block {
            return None;
        }
        let limit = self.text.len().saturating_sub(cuts.special.longest().max(1));
        let cut = cuts.last(&self.text, self.searched, limit);
        let Some(cut) = cut else {
            self.searched = self.searched.max(limit + 1);
            return None;
        };
        self.searched = 0;
        let rest = self.text.split_off(cut);
        Some(std::mem::replace(&mut self.text, rest))
    }

    /// Ends the text; returns the rest of it.
    pub fn finish(&mut self) -> String {
        self.decoder.finish(&mut self.text);
        self.searched = 0;
        std::mem::take(&mut self.text)
    }
}
