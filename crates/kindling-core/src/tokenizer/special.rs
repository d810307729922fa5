//! Special tokens, which split the text before anything else does.
//!
//! If special tokens overlap in the text, the leftmost match wins, then the longest. Those with the
//! flag `normalized` are found last, in the normalized text that the others leave.
//!
//! Source of the flags' meaning: `AddedVocabulary` in
//! <https://github.com/huggingface/tokenizers/blob/main/tokenizers/src/tokenizer/added_vocabulary.rs>

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, FindIter, MatchKind};
use fancy_regex::Regex;

use super::parts::{AddedFlags, Rules};
use crate::{Error, Result};

/// Most bytes of a special token. Every place where a text may be cut is compared with every byte of
/// every token, so long ones would make encoding slow.
pub const MAX_SPECIAL_TOKEN_BYTES: usize = 1024;

/// The special tokens of a tokenizer, with matchers for all of them.
#[derive(Debug, Default, Clone)]
pub struct SpecialTokens {
    tokens: Vec<(String, u32)>,
    /// Flags of each token.
    flags: Vec<AddedFlags>,
    in_raw_text: Layer,
    in_normalized_text: Layer,
    longest: usize,
    /// Whether some token includes the white space next to it.
    strips: bool,
}

/// A piece of text between special tokens, or a special token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Ordinary text, never empty.
    Text(&'a str),
    /// The special token with this id, and its length in bytes.
    Special { id: u32, length: usize },
}

impl SpecialTokens {
    /// Builds the matcher of special tokens and their ids, without flags.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if a special token is empty, too long or repeated.
    pub fn new(tokens: Vec<(String, u32)>) -> Result<Self> {
        Self::with_rules(tokens, &Rules::default())
    }

    /// Builds the matchers of special tokens and their ids, with the flags of `rules`.
    ///
    /// # Errors
    /// As `new`.
    pub fn with_rules(tokens: Vec<(String, u32)>, rules: &Rules) -> Result<Self> {
        check(tokens.iter().map(|(token, _)| token.as_str()))?;
        let flags: Vec<AddedFlags> = tokens.iter().map(|&(_, id)| rules.flags_of(id)).collect();
        let layer = |normalized: bool| {
            let is_in = |index: &usize| flags[*index].normalized == normalized;
            Layer::new(&tokens, &flags, (0..tokens.len()).filter(is_in).collect())
        };
        let (in_raw_text, in_normalized_text) = (layer(false)?, layer(true)?);
        let longest = tokens.iter().map(|(token, _)| token.len()).max().unwrap_or(0);
        let strips = flags.iter().any(|flags| flags.lstrip || flags.rstrip);
        Ok(Self { tokens, flags, in_raw_text, in_normalized_text, longest, strips })
    }

    /// Returns the special tokens and their ids in the order given.
    pub fn tokens(&self) -> &[(String, u32)] {
        &self.tokens
    }

    /// Returns the length in bytes of the longest special token, or 0 if there is none.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Returns the id of a special token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokens.iter().find(|(name, _)| name == token).map(|&(_, id)| id)
    }

    /// Splits `text` at its special tokens, except those with the flag `normalized`.
    pub fn segments<'a>(&'a self, text: &'a str) -> Segments<'a> {
        self.in_raw_text.segments(text)
    }

    /// Splits normalized text, a piece of what `segments` returns, at the special tokens with the
    /// flag `normalized`.
    pub fn normalized_segments<'a>(&'a self, text: &'a str) -> Segments<'a> {
        self.in_normalized_text.segments(text)
    }

    /// Returns whether a cut of `text` at `at` would split a special token, or separate it from
    /// characters that its flags depend on.
    pub fn spans(&self, text: &str, at: usize) -> bool {
        if self.strips && text[..at].ends_with(char::is_whitespace) {
            return true;
        }
        let spans = |((token, _), flags): (&(String, u32), &AddedFlags)| {
            let (before, after) = (flags.single_word || flags.rstrip, flags.single_word);
            let first = (at + usize::from(!before)).saturating_sub(token.len());
            let last = at + usize::from(after);
            (first..last).any(|start| text.as_bytes()[start..].starts_with(token.as_bytes()))
        };
        self.tokens.iter().zip(&self.flags).any(spans)
    }
}

/// Special tokens that are searched for together.
#[derive(Debug, Default, Clone)]
struct Layer {
    matcher: Option<AhoCorasick>,
    /// The id and flags of each pattern of the matcher.
    tokens: Vec<(u32, AddedFlags)>,
}

impl Layer {
    /// Builds the matcher of the tokens with these indices.
    fn new(all: &[(String, u32)], flags: &[AddedFlags], indices: Vec<usize>) -> Result<Self> {
        if indices.is_empty() {
            return Ok(Self::default());
        }
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(indices.iter().map(|&index| &all[index].0))
            .map_err(|error| {
                Error::argument(format!(
                    "too many special tokens to match ({error}); pass fewer or shorter ones"
                ))
            })?;
        let tokens = indices.into_iter().map(|index| (all[index].1, flags[index])).collect();
        Ok(Self { matcher: Some(matcher), tokens })
    }

    fn segments<'a>(&'a self, text: &'a str) -> Segments<'a> {
        let matches = self.matcher.as_ref().map(|matcher| matcher.find_iter(text));
        Segments { layer: self, text, matches, at: 0, found: None }
    }
}

/// Iterator over the segments of a text.
pub struct Segments<'a> {
    layer: &'a Layer,
    text: &'a str,
    matches: Option<FindIter<'a, 'a>>,
    at: usize,
    /// Start, end and id of the next special token.
    found: Option<(usize, usize, u32)>,
}

impl Segments<'_> {
    fn next_match(&mut self) -> Option<(usize, usize, u32)> {
        for found in self.matches.as_mut()? {
            let (mut start, mut end) = (found.start(), found.end());
            let (id, flags) = self.layer.tokens[found.pattern().as_usize()];
            let (before, after) = (&self.text[..start], &self.text[end..]);
            if flags.single_word
                && (before.chars().next_back().is_some_and(is_word)
                    || after.chars().next().is_some_and(is_word))
            {
                continue;
            }
            if flags.lstrip {
                start = before.trim_end().len();
            }
            if flags.rstrip {
                end = self.text.len() - after.trim_start().len();
            }
            // The token before may have taken the white space already.
            return Some((start.max(self.at), end.max(self.at), id));
        }
        None
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        if self.found.is_none() {
            self.found = self.next_match();
        }
        let text_end = self.found.map_or(self.text.len(), |(start, _, _)| start);
        if self.at < text_end {
            let part = &self.text[self.at..text_end];
            self.at = text_end;
            return Some(Segment::Text(part));
        }
        let (start, end, id) = self.found.take()?;
        self.at = end;
        Some(Segment::Special { id, length: end - start })
    }
}

/// Returns whether `c` is part of a word, like `\w` in Rust's regular expressions.
fn is_word(c: char) -> bool {
    static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\w$").ok());
    let is_match = |word: &Regex| word.is_match(c.encode_utf8(&mut [0; 4])).unwrap_or(false);
    WORD.as_ref().is_some_and(is_match)
}

/// Checks a list of special tokens.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT` if one is empty, longer than `MAX_SPECIAL_TOKEN_BYTES` or repeated.
pub fn check<'a>(tokens: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for token in tokens {
        if token.is_empty() {
            return Err(Error::argument(
                "a special token is empty; pass at least one character for each",
            ));
        }
        if token.len() > MAX_SPECIAL_TOKEN_BYTES {
            let start: String = token.chars().take(20).collect();
            return Err(Error::argument(format!(
                "the special token that starts with {start:?} has {} bytes; use at most \
                 {MAX_SPECIAL_TOKEN_BYTES}",
                token.len()
            )));
        }
        if !seen.insert(token) {
            return Err(Error::argument(format!(
                "special token {token:?} is repeated; pass it once"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(tokens: &[&str]) -> SpecialTokens {
        let tokens = tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
        SpecialTokens::new(tokens).unwrap()
    }

    #[test]
    fn the_longest_of_overlapping_tokens_wins() {
        let tokens = special(&["<e>", "<e><e>"]);
        let found: Vec<_> = tokens.segments("a<e><e><e>b").collect();
        let expected = [
            Segment::Text("a"),
            Segment::Special { id: 1, length: 6 },
            Segment::Special { id: 0, length: 3 },
            Segment::Text("b"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_cut_inside_a_special_token_is_detected() {
        let tokens = special(&["<e>"]);
        let inside: Vec<usize> = (1..7).filter(|&at| tokens.spans("ab<e>cd", at)).collect();
        assert_eq!(inside, [3, 4]);
    }

    fn flagged(token: &str, flags: AddedFlags) -> SpecialTokens {
        let rules = Rules { flags: [(0, flags)].into(), ..Rules::default() };
        SpecialTokens::with_rules(vec![(token.to_owned(), 0), ("<e>".to_owned(), 1)], &rules)
            .unwrap()
    }

    /// Formats the segments of `text`: ordinary text, and tokens as [id:length].
    fn written(tokens: &SpecialTokens, text: &str) -> String {
        let write = |segment| match segment {
            Segment::Text(part) => format!("{part}|"),
            Segment::Special { id, length } => format!("[{id}:{length}]|"),
        };
        tokens.segments(text).map(write).collect()
    }

    #[test]
    fn flags_take_white_space_and_look_at_neighbors() {
        let flags = AddedFlags::default();
        let left = flagged("<m>", AddedFlags { lstrip: true, ..flags });
        assert_eq!(written(&left, "a \u{3000}<m> b<e>\n<m>"), "a|[0:7]| b|[1:3]|[0:4]|");
        let both = flagged("<m>", AddedFlags { lstrip: true, rstrip: true, ..flags });
        assert_eq!(written(&both, "a <m> \n<m> b"), "a|[0:6]|[0:4]|b|");
        let word = flagged("x", AddedFlags { single_word: true, ..flags });
        let text = "x ax x1 x_ x\u{301} x-x é x";
        assert_eq!(written(&word, text), "[0:1]| ax x1 x_ x\u{301} |[0:1]|-|[0:1]| é |[0:1]|");
        let late = flagged("<m><e>", AddedFlags { normalized: true, ..flags });
        assert_eq!(written(&late, "<m><e>"), "<m>|[1:3]|");
        assert!(late.normalized_segments("<m><e>").eq([Segment::Special { id: 0, length: 6 }]));
    }

    #[test]
    fn a_cut_does_not_hide_what_flags_look_at() {
        let flags = AddedFlags::default();
        let cuts = |tokens: &SpecialTokens, text: &str| -> Vec<usize> {
            (1..text.len()).filter(|&at| !tokens.spans(text, at)).collect()
        };
        let word = flagged("xy", AddedFlags { single_word: true, ..flags });
        assert_eq!(cuts(&word, "a xy b"), [1, 5]);
        let right = flagged("xy", AddedFlags { rstrip: true, ..flags });
        assert_eq!(cuts(&right, "a xy  b"), [1]);
        let left = flagged("xy", AddedFlags { lstrip: true, ..flags });
        assert_eq!(cuts(&left, "a  xyb"), [1, 5]);
    }

    #[test]
    fn empty_long_and_repeated_tokens_are_rejected() {
        let long = "é".repeat(MAX_SPECIAL_TOKEN_BYTES / 2);
        assert_eq!(special(&[&long]).longest(), MAX_SPECIAL_TOKEN_BYTES);
        for tokens in [vec![""], vec!["a", "a"], vec![&format!("{long}x")]] {
            let tokens = tokens.into_iter().map(|token| (token.to_owned(), 0)).collect();
            assert_eq!(SpecialTokens::new(tokens).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        }
    }
}
