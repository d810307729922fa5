//! The pattern that splits text into pre-tokens: a named one, matched by hand-written code, or any
//! regular expression.

use fancy_regex::Regex;

use super::{cl100k, gpt2, oniguruma};
use crate::{Error, Result};

/// GPT-2's pattern, as tokenizer.json files and tiktoken write it.
const GPT2: [&str; 3] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
];
/// cl100k's pattern, as tiktoken writes it and as Kindling saves it (see `oniguruma.rs`).
const CL100K: [&str; 2] = [
    concat!(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+",
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
    concat!(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|(?>\p{N}{1,3})",
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
];
/// Llama 3's pattern.
const LLAMA3: [&str; 1] = [concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)];

/// Qwen 2's and Qwen 3's pattern.
const QWEN2: [&str; 1] = [concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)];
/// SmolLM's: single digits first, then GPT-2's pattern on the text between them.
const SMOLLM: [&str; 1] = [concat!(
    r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+",
    r"|\s+(?![^\s\p{N}])|\s+",
)];
/// Most bytes of a regular expression; those of known tokenizers have less than 1,000.
const MAX_PATTERN_BYTES: usize = 16 * 1024;
/// The names of patterns, for messages.
const NAMES: &str = "gpt2, smollm, cl100k, llama3 or qwen2";

/// A pattern that splits text into pre-tokens. Text that it does not match is a pre-token too.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// GPT-2's pattern.
    Gpt2,
    /// The pattern of tiktoken's cl100k.
    Cl100k,
    /// Llama 3's pattern.
    Llama3,
    /// The pattern of Qwen 2 and Qwen 3.
    Qwen2,
    /// The pattern of SmolLM.
    Smollm,
    /// Any other regular expression.
    Regex(Box<Regex>),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Pattern {
    /// Returns the pattern with the name `text` (gpt2, smollm, cl100k, llama3, qwen2), or that of a
    /// regular expression.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if `text` is neither, or longer than `MAX_PATTERN_BYTES`.
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
        if is("qwen2", &QWEN2) {
            return Ok(Self::Qwen2);
        }
        if is("smollm", &SMOLLM) {
            return Ok(Self::Smollm);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(Error::argument(format!(
                "the pattern has {} bytes; pass at most {MAX_PATTERN_BYTES}, or {NAMES}",
                text.len()
            )));
        }
        let regex = Regex::new(&oniguruma::to_portable(text)).map_err(|error| {
            Error::argument(format!(
                "the pattern {text:?} is not a regular expression ({error}); pass one, or {NAMES}"
            ))
        })?;
        Ok(Self::Regex(Box::new(regex)))
    }

    /// Returns the pattern of a regular expression in a tokenizer.json, which Hugging Face
    /// `tokenizers` runs with Oniguruma.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if Kindling's engine does not accept it.
    pub fn from_tokenizer_json(regex: &str) -> Result<Self> {
        Self::new(&oniguruma::from_oniguruma(regex))
    }

    /// Returns the regular expression, as its source writes it.
    pub fn source(&self) -> &str {
        match self {
            Self::Gpt2 => GPT2[0],
            Self::Cl100k => CL100K[0],
            Self::Llama3 => LLAMA3[0],
            Self::Qwen2 => QWEN2[0],
            Self::Smollm => SMOLLM[0],
            Self::Regex(regex) => regex.as_str(),
        }
    }

    /// Returns the regular expression for a tokenizer.json: `from_tokenizer_json` reads it back,
    /// and Hugging Face `tokenizers` splits text with it as Kindling does.
    pub fn portable_source(&self) -> &str {
        match self {
            Self::Cl100k => CL100K[1],
            _ => self.source(),
        }
    }

    /// Returns whether the matches are known to cover every text.
    pub fn matches_everything(&self) -> bool {
        !matches!(self, Self::Regex(_))
    }

    /// Returns the end of the pre-token that starts at `at` < `text.len()`.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if a regular expression gives up on the text.
    pub fn pretoken_end(&self, text: &str, at: usize) -> Result<usize> {
        match self {
            Self::Gpt2 => Ok(gpt2::pretoken_end(text.as_bytes(), at)),
            Self::Smollm => Ok(gpt2::pretoken_end_around_digits(text.as_bytes(), at)),
            Self::Cl100k => Ok(cl100k::pretoken_end(text.as_bytes(), at, cl100k::CL100K)),
            Self::Llama3 => Ok(cl100k::pretoken_end(text.as_bytes(), at, cl100k::LLAMA3)),
            Self::Qwen2 => Ok(cl100k::pretoken_end(text.as_bytes(), at, cl100k::QWEN2)),
            Self::Regex(regex) => match_end(regex, text, at),
        }
    }

    /// Returns whether a pre-token is known to start at `at` (0 < at < length, a character
    /// boundary), regardless of the text further away. Always false for a regular expression.
    pub fn is_boundary(&self, text: &str, at: usize) -> bool {
        match self {
            Self::Gpt2 => gpt2::is_boundary(text.as_bytes(), at),
            Self::Smollm => gpt2::is_boundary_around_digits(text.as_bytes(), at),
            Self::Cl100k | Self::Llama3 | Self::Qwen2 => cl100k::is_boundary(text.as_bytes(), at),
            Self::Regex(_) => false,
        }
    }
}

/// Returns the end of the match at `at`, or of the text before the next match.
fn match_end(regex: &Regex, text: &str, at: usize) -> Result<usize> {
    let mut from = at;
    loop {
        let found = regex.find_from_pos(text, from).map_err(|error| {
            Error::argument(format!(
                "the pattern gave up on the text at byte {at} ({error}); simplify the pattern"
            ))
        })?;
        match found {
            None => return Ok(text.len()),
            Some(found) if found.start() > at => return Ok(found.start()),
            Some(found) if found.end() > at => return Ok(found.end()),
            // An empty match: search again after the character at `at`.
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
        for name in ["gpt2", "smollm", "cl100k", "llama3", "qwen2"] {
            let pattern = Pattern::new(name).unwrap();
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
    fn text_without_a_match_is_a_pretoken_too() {
        let pattern = Pattern::new("[a-z]+").unwrap();
        assert_eq!(split(&pattern, "ab, C日d"), ["ab", ", C日", "d"]);
        for wrong in ["(", &"a|".repeat(MAX_PATTERN_BYTES)] {
            assert_eq!(Pattern::new(wrong).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        }
    }

    #[test]
    fn a_named_pattern_is_recognized_by_its_source() {
        for name in ["gpt2", "smollm", "cl100k", "llama3", "qwen2"] {
            let named = Pattern::new(name).unwrap();
            assert_eq!(Pattern::new(named.source()).unwrap(), named);
            let read = Pattern::from_tokenizer_json(named.portable_source()).unwrap();
            assert_eq!(read.source(), named.source());
        }
        assert!(matches!(Pattern::from_tokenizer_json(CL100K[1]).unwrap(), Pattern::Cl100k));
        assert_eq!(CL100K[1], oniguruma::to_portable(CL100K[0]));
    }

    #[test]
    fn a_possessive_interval_in_a_tokenizer_json_repeats_its_group_as_in_oniguruma() {
        let theirs = Pattern::from_tokenizer_json(r"\p{N}{1,3}+").unwrap();
        assert_eq!(split(&theirs, "a12345"), ["a", "12345"]);
        let ours = Pattern::new(r"\p{N}{1,3}+").unwrap();
        assert_eq!(split(&ours, "a12345"), ["a", "123", "45"]);
        let read = Pattern::from_tokenizer_json(ours.portable_source()).unwrap();
        assert_eq!(
            (read.source(), split(&read, "a12345")),
            (ours.source(), vec!["a", "123", "45"])
        );
    }
}
