//! The pattern that cuts text into pre-tokens: a named one, found by hand-written code, or any regular expression.

use fancy_regex::Regex;

use super::{cl100k, gpt2};
use crate::{Error, Result};

/// GPT-2's pattern as tokenizer.json files and tiktoken write it; the first is how it is saved.
const GPT2: [&str; 3] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
];
const CL100K: [&str; 1] = [
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
];
const LLAMA3: [&str; 1] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// How text is cut into pre-tokens.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// GPT-2's.
    Gpt2,
    /// That of tiktoken's cl100k.
    Cl100k,
    /// That of Llama 3.
    Llama3,
    /// Any other. What it does not match is a pre-token too.
    Regex(Box<Regex>),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Pattern {
    /// The pattern with a name (gpt2, cl100k, llama3), or of a regular expression.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for what is neither.
    pub fn new(text: &str) -> Result<Self> {
        let is = |name: &str, sources: &[&str]| text == name || sources.contains(&text);
        if is("gpt2", &GPT2) {
            return Ok(Self::Gpt2);
        }
        if is("cl100k", &CL100K) {
            return Ok(Self::Cl100k);
        }
        if is("llama3", &LLAMA3) {
            return Ok(Self::Llama3);
        }
        let regex = Regex::new(text).map_err(|error| {
            Error::argument(format!(
                "the pattern {text:?} is no regular expression ({error}); give one, or gpt2, cl100k or llama3"
            ))
        })?;
        Ok(Self::Regex(Box::new(regex)))
    }

    /// The regular expression it stands for.
    pub fn source(&self) -> &str {
        match self {
            Self::Gpt2 => GPT2[0],
            Self::Cl100k => CL100K[0],
            Self::Llama3 => LLAMA3[0],
            Self::Regex(regex) => regex.as_str(),
        }
    }

    /// Where the pre-token that begins at `at` ends.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` where a regular expression gives up on the text.
    pub fn pretoken_end(&self, text: &str, at: usize) -> Result<usize> {
        match self {
            Self::Gpt2 => Ok(gpt2::pretoken_end(text.as_bytes(), at)),
            Self::Cl100k => Ok(cl100k::pretoken_end(text.as_bytes(), at, true)),
            Self::Llama3 => Ok(cl100k::pretoken_end(text.as_bytes(), at, false)),
            Self::Regex(regex) => match_end(regex, text, at),
        }
    }

    /// Whether a pre-token begins at `at` (0 < at < length, a character's start) whatever stands further away. Of a regular
    /// expression nothing is known.
    pub fn is_boundary(&self, text: &str, at: usize) -> bool {
        match self {
            Self::Gpt2 => gpt2::is_boundary(text, at),
            Self::Cl100k | Self::Llama3 => cl100k::is_boundary(text.as_bytes(), at),
            Self::Regex(_) => false,
        }
    }
}

/// The end of the match at `at`, or of what is before the next one.
fn match_end(regex: &Regex, text: &str, at: usize) -> Result<usize> {
    let mut from = at;
    loop {
        let found = regex.find_from_pos(text, from).map_err(|error| {
            Error::argument(format!(
                "the pattern gave up on the text at byte {at}: {error}; simplify it"
            ))
        })?;
        match found {
            None => return Ok(text.len()),
            Some(found) if found.start() > at => return Ok(found.start()),
            Some(found) if found.end() > at => return Ok(found.end()),
            // An empty match: look behind the character.
            Some(_) => from = at + text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, below};

    fn split<'a>(pattern: &Pattern, text: &'a str) -> Vec<&'a str> {
        let (mut at, mut parts) = (0, Vec::new());
        while at < text.len() {
            let end = pattern.pretoken_end(text, at).unwrap();
            parts.push(&text[at..end]);
            at = end;
        }
        parts
    }

    #[test]
    fn named_patterns_split_random_texts_as_their_regular_expressions_do() {
        let pieces = [
            "a", "Z", "s", "S", "T", "ll", "vE", "re", "'", "'s", "'LL", "1", "9", " ", " ", "  ",
            "\n", "\t", "\r", "!", "-", "\0", "é", "日", "、", "²", "٣", "\u{a0}", "\u{3000}",
            "\u{85}", "\u{301}", "😀", "\u{17f}", "'\u{17f}",
        ];
        for pattern in [Pattern::Gpt2, Pattern::Cl100k, Pattern::Llama3] {
            let regex = Pattern::Regex(Box::new(Regex::new(pattern.source()).unwrap()));
            for seed in 0..4000u64 {
                let draw = |i: u64, bound: usize| {
                    below(seed, Purpose::Benchmark, i, 0, bound as u64) as usize
                };
                let (length, kinds, first) =
                    (draw(0, 30), 1 + draw(1, pieces.len()), draw(2, pieces.len()));
                let piece = |i| pieces[(first + draw(3 + i, kinds)) % pieces.len()];
                let text: String = (0..length as u64).map(piece).collect();
                assert_eq!(split(&pattern, &text), split(&regex, &text), "{pattern:?} {text:?}");
            }
        }
    }

    #[test]
    fn what_a_regular_expression_does_not_match_is_a_pretoken_too() {
        let pattern = Pattern::new("[a-z]+").unwrap();
        assert_eq!(split(&pattern, "ab, C日d"), ["ab", ", C日", "d"]);
        assert_eq!(Pattern::new("(").unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    }

    #[test]
    fn a_pattern_is_known_by_its_name_and_by_its_source() {
        for name in ["gpt2", "cl100k", "llama3"] {
            let named = Pattern::new(name).unwrap();
            assert_eq!(Pattern::new(named.source()).unwrap(), named);
        }
    }
}
