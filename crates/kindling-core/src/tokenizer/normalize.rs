//! Unicode's normalization form C, as Hugging Face `tokenizers` implements it.
//!
//! `tokenizers` has the tables of Unicode 9, in which every later character is a starter that
//! combines with nothing. So text is normalized piece by piece between later characters, which stay
//! as they are.

use std::borrow::Cow;

use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The first byte of U+0300. Text whose bytes are all below it is already normalized.
const FIRST_MARK_BYTE: u8 = 0xCC;

/// Ranges of the 221 characters that take part in normalization only since a Unicode version after
/// 9 (up to 18). Written by `scripts/fixtures/nfc_later.py`.
#[rustfmt::skip]
const LATER: &[(u32, u32)] = &[
    (0x5c8, 0x5c9), (0x7fd, 0x7fd), (0x897, 0x89f), (0x8ca, 0x8d3), (0x9fe, 0x9fe), (0xc3c, 0xc3c),
    (0xd3b, 0xd3c), (0xeba, 0xeba), (0x1715, 0x1715), (0x1abf, 0x1af0), (0x1df6, 0x1dfa),
    (0xa82c, 0xa82c), (0x105c9, 0x105c9), (0x105d2, 0x105d2), (0x105da, 0x105da),
    (0x105e4, 0x105e4), (0x10d24, 0x10d27), (0x10d69, 0x10d6d), (0x10eab, 0x10eac),
    (0x10ecb, 0x10ecf), (0x10ef0, 0x10efb), (0x10efd, 0x10eff), (0x10f46, 0x10f50),
    (0x10f82, 0x10f85), (0x11070, 0x11070), (0x1133b, 0x1133b), (0x11382, 0x11385),
    (0x1138b, 0x1138b), (0x1138e, 0x1138e), (0x11390, 0x11391), (0x113c2, 0x113c2),
    (0x113c5, 0x113c5), (0x113c7, 0x113c8), (0x113ce, 0x113d0), (0x1145e, 0x1145e),
    (0x11839, 0x1183a), (0x11935, 0x11935), (0x11938, 0x11938), (0x1193d, 0x1193e),
    (0x11943, 0x11943), (0x119e0, 0x119e0), (0x11a34, 0x11a34), (0x11a47, 0x11a47),
    (0x11a99, 0x11a99), (0x11d42, 0x11d42), (0x11d44, 0x11d45), (0x11d97, 0x11d97),
    (0x11f41, 0x11f42), (0x1611e, 0x1611e), (0x16121, 0x16129), (0x1612f, 0x1612f),
    (0x16d63, 0x16d63), (0x16d67, 0x16d6a), (0x16ff0, 0x16ff1), (0x1d127, 0x1d128),
    (0x1d250, 0x1d252), (0x1d25b, 0x1d25c), (0x1d25f, 0x1d25f), (0x1d280, 0x1d281),
    (0x1e08f, 0x1e08f), (0x1e130, 0x1e136), (0x1e2ae, 0x1e2ae), (0x1e2ec, 0x1e2ef),
    (0x1e4ec, 0x1e4ef), (0x1e5ee, 0x1e5ef), (0x1e6e3, 0x1e6e3), (0x1e6e6, 0x1e6e6),
    (0x1e6ee, 0x1e6ef), (0x1e6f5, 0x1e6f5),
];

fn is_later(c: char) -> bool {
    let at = LATER.partition_point(|&(_, last)| last < u32::from(c));
    LATER.get(at).is_some_and(|&(first, _)| first <= u32::from(c))
}

/// Returns `text` in normalization form C.
pub fn nfc(text: &str) -> Cow<'_, str> {
    let is_low = text.bytes().all(|byte| byte < FIRST_MARK_BYTE);
    if is_low || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_later) {
        let last = piece.chars().next_back().filter(|&c| is_later(c));
        out.extend(piece[..piece.len() - last.map_or(0, char::len_utf8)].nfc());
        out.extend(last);
    }
    Cow::Owned(out)
}

/// Returns whether both sides of a cut at `at` (0 < at < length, a character boundary) normalize as
/// the whole does, and keep the characters next to the cut.
pub fn is_boundary(text: &str, at: usize) -> bool {
    let is_inert = |c: char| {
        canonical_combining_class(c) == 0 && is_nfc_quick([c].into_iter()) == IsNormalized::Yes
    };
    let (before, after) = (text[..at].chars().next_back(), text[at..].chars().next());
    before.is_none_or(is_inert) && after.is_none_or(is_inert)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_composed_and_marks_are_ordered() {
        for (text, expected) in [
            ("plain", "plain"),
            ("e\u{301}", "\u{e9}"),
            ("q\u{323}\u{307} q\u{307}\u{323}", "q\u{323}\u{307} q\u{323}\u{307}"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"),
            ("\u{212a}\u{2126}\u{f900}", "K\u{3a9}\u{8c48}"),
            ("\u{958}", "\u{915}\u{93c}"),
        ] {
            assert_eq!(nfc(text), expected, "{text:?}");
        }
    }

    #[test]
    fn characters_after_unicode_9_stay_and_separate_what_surrounds_them() {
        // U+0898 has class 220 since Unicode 14; U+105D2 and U+0307 compose since Unicode 16.
        for text in ["q\u{301}\u{898}\u{323}", "\u{105d2}\u{307}", "\u{16121}"] {
            assert_eq!(nfc(text), text, "{text:?}");
        }
        assert_eq!(nfc("e\u{301}\u{898}o\u{308}"), "\u{e9}\u{898}\u{f6}");
    }

    #[test]
    fn both_sides_of_a_boundary_normalize_as_the_whole() {
        let pieces = "a e \u{301} \u{323} \u{1112} \u{1161} \u{11ab} \u{ac00} \u{212a} \u{898} 日 \u{915} \
                      \u{93c} \u{9c7} \u{9be} \u{344} x";
        let pieces: Vec<&str> = pieces.split(' ').collect();
        let mut cuts = 0;
        for seed in 0..4000usize {
            let pick = |i: usize| pieces[(seed * (2 * i + 1) + i * i + seed / 17) % pieces.len()];
            let text: String = (0..8).map(pick).collect();
            for at in (1..text.len()).filter(|&at| text.is_char_boundary(at)) {
                if is_boundary(&text, at) {
                    cuts += 1;
                    let (left, right) = text.split_at(at);
                    assert_eq!([nfc(left), nfc(right)].concat(), nfc(&text), "{text:?} at {at}");
                }
            }
        }
        assert!(cuts > 1000, "{cuts}");
    }
}
