//! Where text may be cut so that its parts encode as the whole does, and bytes in any pieces to such parts.

use super::pretokenize::is_boundary;
use super::special::SpecialTokens;
use super::utf8::LossyDecoder;
use super::{Kind, Tokenizer};

/// The last place in `after..=limit` where `text` may be cut, if there is one.
///
/// Nothing from `limit` + the longest special token on is looked at, so text that comes later changes nothing as long as
/// that much is known.
pub fn last_cut(
    text: &str,
    after: usize,
    limit: usize,
    kind: Kind,
    special: &SpecialTokens,
) -> Option<usize> {
    let last = limit.min(text.len().saturating_sub(1));
    (after.max(1)..=last).rev().find(|&at| {
        text.is_char_boundary(at)
            && (kind == Kind::Chars || is_boundary(text, at))
            && !special.spans(text, at)
    })
}

/// Bytes of text before a cut that are more than any pattern looks back at.
const LOOKED_BACK: usize = 64;

impl Tokenizer {
    /// The last place at which `text` may be cut in two, whatever text comes before and after it: both sides encode as the
    /// whole does.
    pub(crate) fn last_cut(&self, text: &str) -> Option<usize> {
        let longest = self.special.longest().max(1);
        let limit = text.len().checked_sub(longest)?;
        last_cut(text, longest + LOOKED_BACK, limit, self.kind, &self.special)
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
    kind: Kind,
}

impl BlockCutter {
    /// Blocks of at least `block` bytes.
    pub fn new(kind: Kind, block: usize) -> Self {
        Self { decoder: LossyDecoder::default(), text: String::new(), searched: 0, block, kind }
    }

    /// Bytes that were not UTF-8 so far.
    pub fn replaced_bytes(&self) -> u64 {
        self.decoder.replaced_bytes()
    }

    /// Takes bytes, cut anywhere; returns text that may be encoded now.
    pub fn push(&mut self, bytes: &[u8], special: &SpecialTokens) -> Option<String> {
        self.decoder.push(bytes, &mut self.text);
        if self.text.len() < self.block {
            return None;
        }
        let limit = self.text.len().saturating_sub(special.longest().max(1));
        let cut = last_cut(&self.text, self.searched, limit, self.kind, special);
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
