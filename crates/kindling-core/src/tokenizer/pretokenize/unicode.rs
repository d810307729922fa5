//! Character classes of the pre-tokenization patterns: `\p{L}`, `\p{N}`, `\s` and the rest.
//!
//! Functions on `text` take the bytes of valid UTF-8 and offsets at character boundaries.

use super::unicode_ranges::{LETTERS, NEW_DIGITS, NUMBERS, WHITE_SPACE};

/// Class of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// `[^\s\p{L}\p{N}]`: punctuation, symbols, marks and controls.
    Other = 0,
    /// `\p{L}`.
    Letter = 1,
    /// `\p{N}`.
    Number = 2,
    /// `\s`.
    Space = 3,
}

/// End of the table, which has two bits per code point. Code points above it are letters or others.
const TABLE_END: usize = 0x2_0000;

const fn fill(table: &mut [u8; TABLE_END / 4], ranges: &[(u32, u32)], class: Class) {
    let mut i = 0;
    while i < ranges.len() {
        let (mut code, last) = ranges[i];
        while code <= last && code < TABLE_END as u32 {
            table[code as usize / 4] |= (class as u8) << (code % 4 * 2);
            code += 1;
        }
        i += 1;
    }
}

static TABLE: [u8; TABLE_END / 4] = {
    let mut table = [0; TABLE_END / 4];
    fill(&mut table, LETTERS, Class::Letter);
    fill(&mut table, NUMBERS, Class::Number);
    fill(&mut table, WHITE_SPACE, Class::Space);
    table
};

/// Returns the class of a code point.
pub fn class_of(code: u32) -> Class {
    let Some(cell) = TABLE.get(code as usize / 4) else {
        let first_above = LETTERS.partition_point(|&(_, last)| last < code);
        let is_letter = LETTERS.get(first_above).is_some_and(|&(first, _)| first <= code);
        return if is_letter { Class::Letter } else { Class::Other };
    };
    match cell >> (code % 4 * 2) & 3 {
        0 => Class::Other,
        1 => Class::Letter,
        2 => Class::Number,
        _ => Class::Space,
    }
}

/// Class of each ASCII byte, and `MULTI_BYTE` for the bytes of longer characters.
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

/// Decodes the character at `at`, which must not be ASCII, to its code point and length.
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

/// Returns the class and length of the character at `at`.
#[inline]
pub fn class_at(text: &[u8], at: usize) -> (Class, usize) {
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

/// Returns the class and length of the character at `at` for a `Digits` pre-tokenizer, which also
/// splits off `NEW_DIGITS`.
#[inline]
pub fn class_beside_digits_at(text: &[u8], at: usize) -> (Class, usize) {
    let (class, length) = class_at(text, at);
    // All new digits take four bytes.
    if class == Class::Other && length == 4 && is_new_digit(decode(text, at).0) {
        return (Class::Number, length);
    }
    (class, length)
}

fn is_new_digit(code: u32) -> bool {
    NEW_DIGITS.iter().any(|&(first, last)| (first..=last).contains(&code))
}

/// Returns the first position from `at` on whose character is not of `class`, or the end of the
/// text.
#[inline]
pub fn run_end(text: &[u8], mut at: usize, class: Class) -> usize {
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

/// Returns whether the character at `at` is white space.
#[inline]
pub fn is_space_at(text: &[u8], at: usize) -> bool {
    match BYTE_CLASS[usize::from(text[at])] {
        MULTI_BYTE => class_at(text, at).0 == Class::Space,
        class => class == Class::Space as u8,
    }
}

/// Returns the start of the character that ends at `end`.
pub fn char_start(text: &[u8], end: usize) -> usize {
    let mut start = end - 1;
    while start > 0 && text[start] & 0xC0 == 0x80 {
        start -= 1;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(ranges: &[(u32, u32)], code: u32) -> bool {
        ranges.iter().any(|&(first, last)| (first..=last).contains(&code))
    }

    #[test]
    fn every_code_point_has_the_class_of_its_range() {
        for code in (0..0x11_0000).filter(|code| code % 7 == 0 || *code < 0x3100) {
            let expected = if contains(LETTERS, code) {
                Class::Letter
            } else if contains(NUMBERS, code) {
                Class::Number
            } else if contains(WHITE_SPACE, code) {
                Class::Space
            } else {
                Class::Other
            };
            assert_eq!(class_of(code), expected, "{code:x}");
        }
    }

    #[test]
    fn only_letters_and_others_are_above_the_table() {
        assert!(NUMBERS.iter().chain(WHITE_SPACE).all(|&(_, last)| last < TABLE_END as u32));
    }
}
