//! Positions at which text may be cut so that both sides encode as the whole does.

use super::normalize;
use super::parts::Kind;
use super::pretokenize::Pattern;
use super::special::SpecialTokens;

/// Bytes before a position that suffice to decide whether it is a cut: more than any pattern looks
/// back.
const LOOK_BEHIND: usize = 64;
/// Bytes at the end of a block that are searched first.
const WINDOW: usize = 1 << 12;
/// The most bytes without a cut that are processed in memory. Natural text has more only where the
/// pattern is a regular expression, which allows no cuts except at special tokens.
const LONGEST: usize = 64 << 20;
const LONGEST_OF_REGEX: usize = 1 << 30;

/// The parts of a tokenizer that decide where text may be cut.
#[derive(Debug, Clone, Copy)]
pub struct Cuts<'a> {
    pub kind: Kind,
    pub pattern: &'a Pattern,
    pub special: &'a SpecialTokens,
    /// Whether text is normalized before it is split.
    pub nfc: bool,
}

impl Cuts<'_> {
    /// Returns the last position in `after..=limit` at which `text` may be cut.
    ///
    /// Only the text before `limit` + the longest special token matters. Once that much is known,
    /// text that follows does not change the result.
    pub fn last(&self, text: &str, after: usize, limit: usize) -> Option<usize> {
        let last = limit.min(text.len().saturating_sub(1));
        (after.max(1)..=last).rev().find(|&at| {
            text.is_char_boundary(at)
                && (self.kind == Kind::Chars || self.pattern.is_boundary(text, at))
                && (!self.nfc || normalize::is_boundary(text, at))
                && !self.special.spans(text, at)
        })
    }

    /// Returns the most bytes without a cut that may be processed in memory.
    pub fn longest(&self) -> usize {
        match self.pattern {
            Pattern::Regex(_) if self.kind == Kind::Bpe => LONGEST_OF_REGEX,
            _ => LONGEST,
        }
    }

    /// Returns the last position at which `bytes` may be cut. They may be invalid UTF-8, and more
    /// text may follow them. `at_start` means that no text precedes them.
    ///
    /// ```text
    /// for start in [the last 4 KiB, the beginning]:    // the former nearly always has a cut
    ///     for each run of valid UTF-8 from start on:
    ///         search all but its first bytes (a special token or contraction may have begun before
    ///         them) and its last bytes (a special token may begin in them)
    ///     return the last cut found, if any
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
