//! The pre-tokenization of cl100k and of Llama 3, by hand:
//! `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s`
//!
//! Llama 3 lacks `\s++$`: at the end of a text white space is cut behind its last line break.

use super::gpt2::{char_start, class_at, run_end};
use super::unicode::Class;

/// Digits of one pre-token.
const DIGITS: usize = 3;

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Where the contraction, in any case, that begins with the apostrophe at `at` ends, if there is one. U+017F is a small s.
fn contraction_end(text: &[u8], at: usize) -> Option<usize> {
    let lower = |offset: usize| text.get(at + offset).map(u8::to_ascii_lowercase);
    match (lower(1)?, lower(2)) {
        (b's' | b'd' | b'm' | b't', _) => Some(at + 2),
        (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) | (0xC5, Some(0xBF)) => Some(at + 3),
        _ => None,
    }
}

/// Where the white space that begins at `at` is cut.
fn white_space_end(text: &[u8], at: usize, whole_at_end: bool) -> usize {
    let end = run_end(text, at, Class::Space);
    if end == text.len() && whole_at_end {
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

/// Where the pre-token that begins at `at` ends. `text` is UTF-8 and `at` < its length is a pre-token's start.
pub fn pretoken_end(text: &[u8], at: usize, whole_at_end: bool) -> usize {
    if text[at] == b'\''
        && let Some(end) = contraction_end(text, at)
    {
        return end;
    }
    let (class, length) = class_at(text, at);
    let after = at + length;
    match class {
        Class::Letter => return run_end(text, after, Class::Letter),
        Class::Number => return digits_end(text, at),
        Class::Space | Class::Other => {}
    }
    let next = (after < text.len()).then(|| class_at(text, after).0);
    if next == Some(Class::Letter) && !is_line_break(text[at]) {
        return run_end(text, after, Class::Letter);
    }
    if class == Class::Space && !(text[at] == b' ' && next == Some(Class::Other)) {
        return white_space_end(text, at, whole_at_end);
    }
    let mut end = run_end(text, after, Class::Other);
    while text.get(end).is_some_and(|&byte| is_line_break(byte)) {
        end += 1;
    }
    end
}

fn digits_end(text: &[u8], at: usize) -> usize {
    let mut end = at;
    for _ in 0..DIGITS {
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

/// Whether a pre-token begins at `at` (0 < at < length, a character's start) whatever stands further away.
///
/// Letters take the character before them, symbols the line breaks after them, digits come in threes, and how white space
/// splits depends on what follows it.
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

    fn split(text: &str, whole_at_end: bool) -> Vec<&str> {
        let (mut at, mut parts) = (0, Vec::new());
        while at < text.len() {
            let end = pretoken_end(text.as_bytes(), at, whole_at_end);
            parts.push(&text[at..end]);
            at = end;
        }
        parts
    }

    #[test]
    fn the_pattern_splits_as_it_reads() {
        let expected = [
            "Hello", "'LL", " say", ":", " ", "123", "45", "!\n\n", "(ok", ")", "\t\t", "\tx",
            " \n", "y",
        ];
        assert_eq!(split("Hello'LL say: 12345!\n\n(ok)\t\t\tx \ny", true), expected);
        assert_eq!(split("'\u{17f}a", true), ["'\u{17f}", "a"]);
    }

    #[test]
    fn at_the_end_of_a_text_only_llama3_cuts_white_space() {
        assert_eq!(split("a\n  ", true), ["a", "\n  "]);
        assert_eq!(split("a\n  ", false), ["a", "\n", "  "]);
        assert_eq!(split("a  ", false), ["a", "  "]);
    }

    #[test]
    fn a_cut_at_any_boundary_changes_nothing() {
        let text = "I'll SAY'S: 'tis  12345x3 日本 -- it's\n\n  ok!!\n's a'b \u{3000}x... \n ";
        for whole_at_end in [true, false] {
            let whole = split(text, whole_at_end);
            let mut cuts = 0;
            for at in (1..text.len())
                .filter(|&at| text.is_char_boundary(at) && is_boundary(text.as_bytes(), at))
            {
                let (left, right) = text.split_at(at);
                assert_eq!(
                    [split(left, whole_at_end), split(right, whole_at_end)].concat(),
                    whole,
                    "{at}"
                );
                cuts += 1;
            }
            assert!(cuts > 12, "{cuts}");
        }
    }
}
