//! Special tokens: they split the text before anything else. Where they overlap, the leftmost wins, and of those that begin
//! at the same place the longest.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::{Error, Result};

/// The special tokens of a tokenizer and a matcher for all of them.
#[derive(Debug, Default)]
pub struct SpecialTokens {
    tokens: Vec<(String, u32)>,
    matcher: Option<AhoCorasick>,
    longest: usize,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Ordinary text, never empty.
    Text(&'a str),
    /// A special token's id.
    Special(u32),
}

impl SpecialTokens {
    /// Special tokens with their ids.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for an empty or repeated one.
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
                Error::argument(format!("the special tokens are too many: {error}"))
            })?)
        };
        let longest = tokens.iter().map(|(token, _)| token.len()).max().unwrap_or(0);
        Ok(Self { tokens, matcher, longest })
    }

    /// Each token with its id.
    pub fn tokens(&self) -> &[(String, u32)] {
        &self.tokens
    }

    /// Bytes of the longest one.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Id of a special token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokens.iter().find(|(name, _)| name == token).map(|&(_, id)| id)
    }

    /// The parts of `text`, in order.
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
            let (_, end, id) = found.take()?;
            at = end;
            Some(Segment::Special(id))
        })
    }

    /// Whether a special token stands across `at`, so that the text must not be cut there.
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
/// `ERR_INVALID_ARGUMENT` for an empty or repeated one.
pub fn check<'a>(tokens: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for token in tokens {
        if token.is_empty() {
            return Err(Error::argument("a special token is empty; give it some characters"));
        }
        if !seen.insert(token) {
            return Err(Error::argument(format!(
                "special token {token:?} is given twice; give it once"
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
        let expected =
            [Segment::Text("a"), Segment::Special(1), Segment::Special(0), Segment::Text("b")];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_cut_inside_a_special_token_is_seen() {
        let tokens = special(&["<e>"]);
        let inside: Vec<usize> = (1..7).filter(|&at| tokens.spans("ab<e>cd", at)).collect();
        assert_eq!(inside, [3, 4]);
    }

    #[test]
    fn empty_and_repeated_tokens_are_refused() {
        for tokens in [vec![(String::new(), 0)], vec![("a".to_owned(), 0), ("a".to_owned(), 1)]] {
            assert_eq!(SpecialTokens::new(tokens).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        }
    }
}
