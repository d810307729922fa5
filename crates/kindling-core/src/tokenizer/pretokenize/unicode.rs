//! Class of a character as GPT-2's pattern tells them apart: \p{L}, \p{N}, \s, anything else.

use super::unicode_ranges::{LETTERS, NUMBERS, WHITE_SPACE};

/// What the pre-tokenization pattern sees in a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Punctuation, symbols, marks, controls: `[^\s\p{L}\p{N}]`.
    Other = 0,
    /// `\p{L}`.
    Letter = 1,
    /// `\p{N}`.
    Number = 2,
    /// `\s`.
    Space = 3,
}

/// Code points below this are looked up in a table of two bits each; above it there are only letters and others.
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

/// Class of a code point.
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
    fn above_the_table_there_are_only_letters() {
        assert!(NUMBERS.iter().chain(WHITE_SPACE).all(|&(_, last)| last < TABLE_END as u32));
    }
}
