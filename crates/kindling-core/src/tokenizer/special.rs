//! Special tokens, which split the text before anything else does.
//!
//! If special tokens overlap in the text, the leftmost match wins, then the longest.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::{Error, Result};

/// The special tokens of a tokenizer, with a matcher for all of them.
#[derive(Debug, Default, Clone)]
pub struct SpecialTokens {
    tokens: Vec<(String, u32)>,
    matcher: Option<AhoCorasick>,
    longest: usize,
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
    /// Builds the matcher of special tokens and their ids.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if a special token is empty or repeated.
    pub fn new(tokens: Vec<(String, u32)>) -> Result<Self> {
        check(tokens.iter().map(|(token, _)| token.as_str()))?;
        let build = || {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(tokens.iter().map(|t| &t.0))
        };
        let matcher = if tokens.is_empty() {
            None
        } else {
            Some(build().map_err(|error| {
                Error::argument(format!(
                    "too many special tokens to match ({error}); pass fewer or shorter ones"
                ))
            })?)
        };
        let longest = tokens.iter().map(|(token, _)| token.len()).max().unwrap_or(0);
        Ok(Self { tokens, matcher, longest })
    }

    /// Returns the special tokens and their ids in the order given.
    pub fn tokens(&self) -> &[(String, u32)] {
        &self.tokens
    }

    /// Returns the length in bytes of the longest special token, 0 if there is none.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Returns the id of a special token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokens.iter().find(|(name, _)| name == token).map(|&(_, id)| id)
    }

    /// Splits `text` at its special tokens.
    pub fn segments<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Segment<'a>> + 'a {
        let mut matches = self.matcher.as_ref().map(|matcher| matcher.find_iter(text));
        let mut at = 0;
        let mut found: Option<(usize, usize, u32)> = None;
        std::iter::from_fn(move || {
            if found.is_none() {
                found = matches
                    .as_mut()
                    .and_then(Iterator::next)
                    .map(|m| (m.start(), m.end(), self.tokens[m.pattern().as_usize()].1));
            }
            let text_end = found.map_or(text.len(), |(start, _, _)| start);
            if at < text_end {
                let part = &text[at..text_end];
                at = text_end;
                return Some(Segment::Text(part));
            }
            let (start, end, id) = found.take()?;
            at = end;
            Some(Segment::Special { id, length: end - start })
        })
    }

    /// Returns whether a special token in `text` spans `at`, so that a cut there would split it.
    pub fn spans(&self, text: &str, at: usize) -> bool {
        self.tokens.iter().any(|(token, _)| {
            let first = at.saturating_sub(token.len() - 1);
            (first..at).any(|start| text.as_bytes()[start..].starts_with(token.as_bytes()))
        })
    }
}

/// Checks a list of special tokens.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT` if one is empty or repeated.
pub fn check<'a>(tokens: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for token in tokens {
        if token.is_empty() {
            return Err(Error::argument(
                "a special token is empty; pass at least one character for each",
            ));
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

    #[test]
    fn empty_and_repeated_tokens_are_rejected() {
        for tokens in [vec![(String::new(), 0)], vec![("a".to_owned(), 0), ("a".to_owned(), 1)]] {
            assert_eq!(SpecialTokens::new(tokens).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        }
    }
}
