//! A hand-written pre-tokenizer for the patterns of tiktoken's cl100k, Llama 3 and Qwen 2:
//! `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+`
//! `|\s++$|\s*[\r\n]|\s+(?!\S)|\s`
//!
//! Llama 3 lacks `\s++$`: white space at the end of a text is split after its last line break. Qwen
//! 2 lacks it too, and splits digits one by one.
//!
//! Source: <https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py>

use super::unicode::{Class, char_start, class_at, run_end};

/// One of the patterns of this form.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// Maximum number of digits in a pre-token.
    max_digits: usize,
    /// Whether the pattern has the alternative `\s++$`.
    keep_final_space: bool,
}

pub const CL100K: Variant = Variant { max_digits: 3, keep_final_space: true };
pub const LLAMA3: Variant = Variant { max_digits: 3, keep_final_space: false };
pub const QWEN2: Variant = Variant { max_digits: 1, keep_final_space: false };

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Returns the end of the contraction that starts with the apostrophe at `at`, if there is one.
///
/// Case is ignored, and U+017F (0xC5 0xBF) is a lower-case s.
fn contraction_end(text: &[u8], at: usize) -> Option<usize> {
    let lower = |offset: usize| text.get(at + offset).map(u8::to_ascii_lowercase);
    match (lower(1)?, lower(2)) {
        (b's' | b'd' | b'm' | b't', _) => Some(at + 2),
        (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) | (0xC5, Some(0xBF)) => Some(at + 3),
        _ => None,
    }
}

/// Returns the end of the pre-token of white space that starts at `at`.
fn white_space_end(text: &[u8], at: usize, keep_final_space: bool) -> usize {
    let end = run_end(text, at, Class::Space);
    if end == text.len() && keep_final_space {
        return end;
    }
    if let Some(last) = text[at..end].iter().rposition(|&byte| is_line_break(byte)) {
        return at + last + 1;
    }
    if end == text.len() {
        return end;
    }
    let last = char_start(text, end);
    if last > at { last } else { end }
}

/// Returns the end of the run of at most `most` digits that starts at `at`.
fn digits_end(text: &[u8], at: usize, most: usize) -> usize {
    let mut end = at;
    for _ in 0..most {
        if end == text.len() {
            break;
        }
        let (class, length) = class_at(text, end);
        if class != Class::Number {
            break;
        }
        end += length;
    }
    end
}

/// Returns the end of the pre-token that starts at `at` < `text.len()`.
pub fn pretoken_end(text: &[u8], at: usize, variant: Variant) -> usize {
    if text[at] == b'\''
        && let Some(end) = contraction_end(text, at)
    {
        return end;
    }
    let (class, length) = class_at(text, at);
    let after = at + length;
    match class {
        Class::Letter => return run_end(text, after, Class::Letter),
        Class::Number => return digits_end(text, at, variant.max_digits),
        Class::Space | Class::Other => {}
    }
    let next = (after < text.len()).then(|| class_at(text, after).0);
    if next == Some(Class::Letter) && !is_line_break(text[at]) {
        return run_end(text, after, Class::Letter);
    }
    if class == Class::Space && !(text[at] == b' ' && next == Some(Class::Other)) {
        return white_space_end(text, at, variant.keep_final_space);
    }
    let mut end = run_end(text, after, Class::Other);
    while text.get(end).is_some_and(|&byte| is_line_break(byte)) {
        end += 1;
    }
    end
}

/// Returns whether a pre-token starts at `at` (0 < at < length, a character boundary), regardless
/// of the text further away.
///
/// Letters may take the character before them and symbols the line breaks after them, digits come
/// in threes, and where white space is split depends on the character after it.
pub fn is_boundary(text: &[u8], at: usize) -> bool {
    let (before, _) = class_at(text, char_start(text, at));
    let (after, _) = class_at(text, at);
    match (before, after) {
        (Class::Space, _) | (Class::Other, Class::Letter) => false,
        (Class::Other, Class::Space) => !is_line_break(text[at]),
        _ => before != after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, variant: Variant) -> Vec<&str> {
        let (mut at, mut parts) = (0, Vec::new());
        while at < text.len() {
            let end = pretoken_end(text.as_bytes(), at, variant);
            parts.push(&text[at..end]);
            at = end;
        }
        parts
    }

    #[test]
    fn cl100k_splits_a_text_of_every_alternative() {
        let expected = [
            "Hello", "'LL", " say", ":", " ", "123", "45", "!\n\n", "(ok", ")", "\t\t", "\tx",
            " \n", "y",
        ];
        assert_eq!(split("Hello'LL say: 12345!\n\n(ok)\t\t\tx \ny", CL100K), expected);
        assert_eq!(split("'\u{17f}a", CL100K), ["'\u{17f}", "a"]);
    }

    #[test]
    fn digits_of_qwen2_are_single() {
        assert_eq!(split("a12 3\u{b2}", QWEN2), ["a", "1", "2", " ", "3", "\u{b2}"]);
    }

    #[test]
    fn only_cl100k_keeps_white_space_at_the_end_of_a_text() {
        assert_eq!(split("a\n  ", CL100K), ["a", "\n  "]);
        assert_eq!(split("a\n  ", LLAMA3), ["a", "\n", "  "]);
        assert_eq!(split("a  ", LLAMA3), ["a", "  "]);
    }

    #[test]
    fn a_cut_at_a_boundary_does_not_change_the_split() {
        let text = "I'll SAY'S: 'tis  12345x3 日本 -- it's\n\n  ok!!\n's a'b \u{3000}x... \n ";
        for variant in [CL100K, LLAMA3, QWEN2] {
            let whole = split(text, variant);
            let mut cuts = 0;
            for at in (1..text.len())
                .filter(|&at| text.is_char_boundary(at) && is_boundary(text.as_bytes(), at))
            {
                let (left, right) = text.split_at(at);
                assert_eq!([split(left, variant), split(right, variant)].concat(), whole, "{at}");
                cuts += 1;
            }
            assert!(cuts > 12, "{cuts}");
        }
    }
}
