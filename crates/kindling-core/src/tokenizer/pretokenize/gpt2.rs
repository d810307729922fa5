//! A hand-written pre-tokenizer for GPT-2's pattern, one pre-token at a time:
//! `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
//!
//! SmolLM's pre-tokenization (the functions named `around_digits`) first splits off each digit,
//! that is any `\p{N}` and some newer ones, and then splits the text between digits by this
//! pattern.
//!
//! Encoding uses the faster `scan.rs`; this code is its oracle in tests.
//!
//! Source of the pattern: <https://github.com/openai/gpt-2/blob/master/src/encoder.py>

use super::unicode::{Class, char_start, class_at, class_beside_digits_at, run_end};

/// Returns the end of the contraction that starts with the apostrophe at `at`, if there is one.
#[inline]
pub fn contraction_end(text: &[u8], at: usize) -> Option<usize> {
    match (text.get(at + 1)?, text.get(at + 2)) {
        (b's' | b'd' | b'm' | b't', _) => Some(at + 2),
        (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) => Some(at + 3),
        _ => None,
    }
}

/// Returns the end of the pre-token of white space at `at`: `\s+(?!\S)|\s+`.
///
/// A run of white space leaves its last character to the next pre-token, unless the text ends
/// there or the run has only that one character.
fn white_space_end(text: &[u8], at: usize) -> usize {
    let end = run_end(text, at, Class::Space);
    if end == text.len() {
        return end;
    }
    let last = char_start(text, end);
    if last > at { last } else { end }
}

/// Returns the end of the pre-token that starts at `at` < `text.len()`.
#[inline]
pub fn pretoken_end(text: &[u8], at: usize) -> usize {
    let first = text[at];
    if first == b' ' {
        if at + 1 == text.len() {
            return at + 1;
        }
        let (class, length) = class_at(text, at + 1);
        if class == Class::Space {
            return white_space_end(text, at);
        }
        return run_end(text, at + 1 + length, class);
    }
    if first == b'\''
        && let Some(end) = contraction_end(text, at)
    {
        return end;
    }
    let (class, length) = class_at(text, at);
    if class == Class::Space {
        return white_space_end(text, at);
    }
    run_end(text, at + length, class)
}

/// Returns the end of the pre-token of SmolLM that starts at `at` < `text.len()`.
pub fn pretoken_end_around_digits(text: &[u8], at: usize) -> usize {
    let (class, length) = class_beside_digits_at(text, at);
    let after = at + length;
    if class == Class::Number {
        return after;
    }
    if class == Class::Space {
        // White space before a digit ends its piece of text, so it stays whole.
        let end = run_end(text, at, Class::Space);
        if end < text.len() && class_beside_digits_at(text, end).0 == Class::Number {
            return end;
        }
    }
    let end = pretoken_end(text, at);
    // GPT-2's pattern treats new digits as punctuation.
    let mut next = after;
    while next < end {
        let (class, length) = class_beside_digits_at(text, next);
        if class == Class::Number {
            return next;
        }
        next += length;
    }
    end
}

/// Iterates over the pre-tokens of `text` by GPT-2's pattern. Concatenated, they are the text.
pub fn pretokens(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == text.len() {
            return None;
        }
        let end = pretoken_end(text.as_bytes(), start);
        let pretoken = &text[start..end];
        start = end;
        Some(pretoken)
    })
}

/// Returns whether a pre-token starts at `at` (0 < at < length, a character boundary), regardless
/// of the text further away, so that both sides of a cut there split as the whole does.
///
/// A pre-token holds a single class, except for a leading space and for a contraction, which goes
/// from an apostrophe to a letter. After white space there is never a safe cut, since where a run
/// is split depends on the character that follows it.
pub fn is_boundary(text: &[u8], at: usize) -> bool {
    let (before, _) = class_at(text, char_start(text, at));
    let (after, _) = class_at(text, at);
    match (before, after) {
        (Class::Space, _) => false,
        (Class::Other, Class::Letter) => text[at - 1] != b'\'',
        _ => before != after,
    }
}

/// Like `is_boundary`, for SmolLM: digits end the text on both sides.
pub fn is_boundary_around_digits(text: &[u8], at: usize) -> bool {
    let is_number = |at: usize| class_beside_digits_at(text, at).0 == Class::Number;
    is_number(at) || is_number(char_start(text, at)) || is_boundary(text, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        pretokens(text).collect()
    }

    #[test]
    fn the_example_of_the_course_notes_splits_as_they_say() {
        let expected = ["some", " text", " that", " i", "'ll", " pre", "-", "tokenize"];
        assert_eq!(split("some text that i'll pre-tokenize"), expected);
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_next_word() {
        assert_eq!(split("a   b"), ["a", "  ", " b"]);
        assert_eq!(split("a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(split("a \nb  "), ["a", " ", "\n", "b", "  "]);
        assert_eq!(split("\u{3000}\u{3000}x"), ["\u{3000}", "\u{3000}", "x"]);
        assert_eq!(split(" "), [" "]);
        assert_eq!(split(""), [""; 0]);
    }

    #[test]
    fn contractions_are_lower_case_and_start_a_pretoken() {
        assert_eq!(
            split("I've we're DON'T it's"),
            ["I", "'ve", " we", "'re", " DON", "'", "T", " it", "'s"]
        );
        assert_eq!(split("!'s 's"), ["!'", "s", " '", "s"]);
        assert_eq!(split("'lx'v"), ["'", "lx", "'", "v"]);
    }

    #[test]
    fn classes_of_other_scripts_are_distinguished() {
        assert_eq!(split("日本語123、x²"), ["日本語", "123", "、", "x", "²"]);
        assert_eq!(split("नमस्ते"), ["नमस", "्", "त", "े"]);
    }

    #[test]
    fn digits_of_smollm_are_those_of_unicode_17() {
        // The output of `Sequence[Digits, ByteLevel]` in Hugging Face's tokenizers 0.23.3.
        let cases: [(&str, &[&str]); 4] = [
            ("a\u{11de0}'s 's ", &["a", "\u{11de0}", "'s", " '", "s", " "]),
            ("!\u{11de9}\u{11de0}!", &["!", "\u{11de9}", "\u{11de0}", "!"]),
            ("x  \u{16ff4}", &["x", "  ", "\u{16ff4}"]),
            ("-\u{16ff6}'ll", &["-", "\u{16ff6}", "'ll"]),
        ];
        for (text, expected) in cases {
            let (mut at, mut found) = (0, Vec::new());
            while at < text.len() {
                let end = pretoken_end_around_digits(text.as_bytes(), at);
                found.push(&text[at..end]);
                at = end;
            }
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_cut_at_a_boundary_does_not_change_the_split() {
        let text = "I'll say: 'tis  12x3 日本 -- it's\n\n  ok!!'s a'b ";
        let whole = split(text);
        let mut cuts = 0;
        for at in (1..text.len())
            .filter(|&at| text.is_char_boundary(at) && is_boundary(text.as_bytes(), at))
        {
            let (left, right) = text.split_at(at);
            assert_eq!([split(left), split(right)].concat(), whole, "{at}");
            cuts += 1;
        }
        assert!(cuts > 15);
    }
}
