//! GPT-2's pre-tokenization, by hand:
//! `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
//!
//! ASCII is told apart by a table of bytes, the rest by `unicode::class_of`. No merge crosses the bounds found here.

use super::unicode::{Class, class_of};

/// Class of each ASCII byte; `MULTI_BYTE` for the bytes of longer characters.
static BYTE_CLASS: [u8; 256] = {
    let mut table = [Class::Other as u8; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter as u8,
            b'0'..=b'9' => Class::Number as u8,
            b' ' | 9..=13 => Class::Space as u8,
            0x80.. => MULTI_BYTE,
            _ => Class::Other as u8,
        };
        byte += 1;
    }
    table
};
const MULTI_BYTE: u8 = 4;

/// Code point and length of the character whose first byte, at `at`, is not ASCII. `text` is UTF-8.
#[inline]
fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let tail = |offset: usize| u32::from(text[at + offset] & 0x3F);
    let first = u32::from(text[at]);
    match first {
        0xF0.. => ((first & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4),
        0xE0.. => ((first & 0x0F) << 12 | tail(1) << 6 | tail(2), 3),
        _ => ((first & 0x1F) << 6 | tail(1), 2),
    }
}

/// Class and length of the character at `at`.
#[inline]
pub(super) fn class_at(text: &[u8], at: usize) -> (Class, usize) {
    match text[at] {
        b'a'..=b'z' | b'A'..=b'Z' => (Class::Letter, 1),
        b'0'..=b'9' => (Class::Number, 1),
        b' ' | 9..=13 => (Class::Space, 1),
        0x80.. => {
            let (code, length) = decode(text, at);
            (class_of(code), length)
        }
        _ => (Class::Other, 1),
    }
}

/// Where the run of characters of `class` that goes on at `at` ends.
#[inline]
pub(super) fn run_end(text: &[u8], mut at: usize, class: Class) -> usize {
    while let Some(&byte) = text.get(at) {
        let found = BYTE_CLASS[usize::from(byte)];
        if found == class as u8 {
            at += 1;
        } else if found == MULTI_BYTE {
            let (code, length) = decode(text, at);
            if class_of(code) != class {
                break;
            }
            at += length;
        } else {
            break;
        }
    }
    at
}

/// Where the contraction that begins with the apostrophe at `at` ends, if there is one.
#[inline]
pub(super) fn contraction_end(text: &[u8], at: usize) -> Option<usize> {
    match (text.get(at + 1)?, text.get(at + 2)) {
        (b's' | b'd' | b'm' | b't', _) => Some(at + 2),
        (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) => Some(at + 3),
        _ => None,
    }
}

/// Whether white space stands at `at`, a character's start.
#[inline]
pub(super) fn is_space_at(text: &[u8], at: usize) -> bool {
    match BYTE_CLASS[usize::from(text[at])] {
        MULTI_BYTE => class_at(text, at).0 == Class::Space,
        class => class == Class::Space as u8,
    }
}

/// Start of the character that ends at `end`.
pub(super) fn char_start(text: &[u8], end: usize) -> usize {
    let mut start = end - 1;
    while start > 0 && text[start] & 0xC0 == 0x80 {
        start -= 1;
    }
    start
}

/// A run of white space leaves its last character to what follows, unless nothing follows or it has only that one.
fn white_space_end(text: &[u8], at: usize) -> usize {
    let end = run_end(text, at, Class::Space);
    if end == text.len() {
        return end;
    }
    let last = char_start(text, end);
    if last > at { last } else { end }
}

/// Where the pre-token that begins at `at` ends. `text` is UTF-8 and `at` < its length is a pre-token's start.
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

/// The pre-tokens of `text`, in order; together they are the text.
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

/// Whether a pre-token begins at `at` (0 < at < length, a character's start) whatever stands further away: text may be cut
/// there and both sides split as the whole would.
///
/// A pre-token holds one class but for a leading space and for a contraction, which goes from an apostrophe to a letter; and
/// how white space splits depends on what follows it, so never after white space.
pub fn is_boundary(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    let (before, _) = class_at(bytes, char_start(bytes, at));
    let (after, _) = class_at(bytes, at);
    match (before, after) {
        (Class::Space, _) => false,
        (Class::Other, Class::Letter) => bytes[at - 1] != b'\'',
        _ => before != after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        pretokens(text).collect()
    }

    #[test]
    fn the_courses_example_splits_as_its_notes_say() {
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
    fn contractions_are_lower_case_and_only_at_a_start() {
        assert_eq!(
            split("I've we're DON'T it's"),
            ["I", "'ve", " we", "'re", " DON", "'", "T", " it", "'s"]
        );
        assert_eq!(split("!'s 's"), ["!'", "s", " '", "s"]);
        assert_eq!(split("'lx'v"), ["'", "lx", "'", "v"]);
    }

    #[test]
    fn classes_of_other_scripts_are_told_apart() {
        assert_eq!(split("日本語123、x²"), ["日本語", "123", "、", "x", "²"]);
        assert_eq!(split("नमस्ते"), ["नमस", "्", "त", "े"]);
    }

    #[test]
    fn a_cut_at_any_boundary_changes_nothing() {
        let text = "I'll say: 'tis  12x3 日本 -- it's\n\n  ok!!'s a'b ";
        let whole = split(text);
        let mut cuts = 0;
        for at in (1..text.len()).filter(|&at| text.is_char_boundary(at) && is_boundary(text, at)) {
            let (left, right) = text.split_at(at);
            assert_eq!([split(left), split(right)].concat(), whole, "{at}");
            cuts += 1;
        }
        assert!(cuts > 15);
    }
}
