//! The starts of pre-tokens, found by arithmetic on bitmasks for GPT-2's and SmolLM's patterns, and
//! one pre-token at a time for any other.
//!
//! The bitmask scan, for each 64 bytes of text (bit i stands for byte i, so `mask << 1` has the
//! bits of the bytes before):
//!
//! ```text
//! letter, number, space, blank, apostrophe, high = classify(bytes)        masks.rs
//! add the classes of characters outside ASCII                             add_high_classes
//! other       = !(letter | number | space)
//! changes(m)  = m & !(m << 1)                       first byte of each run of a class
//! starts      = (changes(letter) | changes(number) | changes(other)) & !(blank << 1)
//!             | changes(space)
//!             | space & !before_space               last character of a run of white space
//! for each contraction: starts -= its first letter; starts += its end
//! ```
//!
//! 1. A pre-token starts where the class changes. All bytes of a character get its class, so only
//!    the first byte of a character can start anything.
//! 2. ` ?` takes one blank (0x20) into the pre-token. So nothing starts after a blank, and the
//!    blank itself starts a pre-token as the last character of its run (rule 3).
//! 3. `\s+(?!\S)|\s+` leaves the last character of a run of white space to the next pre-token,
//!    unless the text ends there. So the last character of a run is a start too; if it is a blank,
//!    rule 2 joins it to the text after it. The end of the text counts as white space.
//! 4. A contraction (`'s`, `'ll`, ...) counts only where its apostrophe starts a pre-token. These
//!    are rare, so they are handled one by one.
//! 5. In SmolLM's pattern (`DIGITS`) every digit is a start, even after a blank: the first byte of
//!    each character in `number`. White space before a digit stays whole, as at the end of a text.
//! 6. `Carry` passes the class of the last byte, the rest of a character and the effects of a
//!    contraction from one group of 64 bytes to the next.
//! 7. Set bits become positions eight at a time, without a branch per bit (`push_bits`). Their
//!    number is unpredictable, so a branch would be mispredicted for most words.

use super::gpt2::contraction_end;
use super::masks::{Classify, MASK_BYTES, Masks, Portable};
use super::pattern::Pattern;
use super::unicode::{Class, class_at, class_beside_digits_at, is_space_at};
use crate::Result;
use crate::simd::Isa;

/// Bytes of text that one call of `next_window` scans.
pub const WINDOW: usize = 2048;

/// Finds the starts of pre-tokens in one text, window by window.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    pattern: &'a Pattern,
    isa: Isa,
    carry: Carry,
}

/// State that each group of 64 bytes passes on to the next.
#[derive(Debug, Default, Clone, Copy)]
struct Carry {
    /// Classes of the last byte, in bit 0.
    letter: u64,
    number: u64,
    other: u64,
    space: u64,
    blank: u64,
    /// Starts among the next bytes that a contraction adds and removes.
    added: u64,
    removed: u64,
    /// Remaining bytes of a character that began in the last group, and its class.
    tail: usize,
    tail_class: Option<Class>,
}

impl<'a> Scanner<'a> {
    /// Creates a scanner of a whole text.
    pub fn new(text: &'a str, pattern: &'a Pattern, isa: Isa) -> Self {
        Self { text, at: 0, pattern, isa, carry: Carry::default() }
    }

    /// Appends the starts of pre-tokens in the next window to `starts`; returns false at the end of
    /// the text. The end of the text is not a start.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if a regular expression gives up on the text.
    pub fn next_window(&mut self, starts: &mut Vec<usize>) -> Result<bool> {
        if self.at >= self.text.len() {
            return Ok(false);
        }
        let end = self.text.len().min(self.at + WINDOW);
        match self.pattern {
            Pattern::Gpt2 | Pattern::Smollm => {
                starts.reserve(end - self.at + SPARE);
                if matches!(self.pattern, Pattern::Gpt2) {
                    scan::<false>(self.isa, self, end, starts);
                } else {
                    scan::<true>(self.isa, self, end, starts);
                }
                self.at = end;
            }
            _ => {
                while self.at < end {
                    starts.push(self.at);
                    self.at = self.pattern.pretoken_end(self.text, self.at)?;
                }
            }
        }
        Ok(true)
    }

    /// Scans up to `end` in steps of `MASK_BYTES`.
    #[inline(always)]
    fn scan_masks<C: Classify, const DIGITS: bool>(&mut self, end: usize, starts: &mut Vec<usize>) {
        let text = self.text.as_bytes();
        let mut carry = self.carry;
        let mut at = self.at;
        while at < end {
            let bits = if let Some(bytes) = text[at..].first_chunk::<MASK_BYTES>() {
                starts_among::<DIGITS>(text, at, MASK_BYTES, C::masks(bytes), &mut carry)
            } else {
                let mut bytes = [0; MASK_BYTES];
                let length = text.len() - at;
                bytes[..length].copy_from_slice(&text[at..]);
                starts_among::<DIGITS>(text, at, length, C::masks(&bytes), &mut carry)
                    & ((1 << length) - 1)
            };
            push_bits(starts, at, bits);
            at += MASK_BYTES;
        }
        self.carry = carry;
    }
}

/// Returns the starts among the `length` bytes at `at`, given the masks of their ASCII characters.
#[inline(always)]
fn starts_among<const DIGITS: bool>(
    text: &[u8],
    at: usize,
    length: usize,
    mut masks: Masks,
    carry: &mut Carry,
) -> u64 {
    let mut high = High::default();
    if masks.high != 0 {
        high = add_high_classes::<DIGITS>(text, at, &mut masks, carry);
    }
    let High { space_starts: high_space_starts, continued } = high;
    let Masks { letter, number, space, blank, apostrophe, high } = masks;
    let other = !(letter | number | space);
    let after = |mask: u64, carried: u64| mask << 1 | carried;
    let after_blank = after(blank, carry.blank);
    let changes = |mask: u64, carried: u64| mask & !after(mask, carried);
    let other_starts = changes(other, carry.other) & !after_blank;
    let letter_starts = changes(letter, carry.letter) & !after_blank;
    let number_starts =
        if DIGITS { number & !continued } else { changes(number, carry.number) & !after_blank };
    let word_starts = letter_starts | number_starts;
    // A run of white space at the end of the text stays whole, as if more white space followed.
    let next_is_space = at + length >= text.len()
        || ((space & !high) >> 63 != 0 && keeps_space::<DIGITS>(text, at + length));
    let keeping = if DIGITS { space | number } else { space };
    let before_space = keeping >> 1 | u64::from(next_is_space) << (length - 1);
    let space_starts =
        changes(space, carry.space) | space & !high & !before_space | high_space_starts;
    let mut starts = other_starts | word_starts | space_starts;
    starts = starts & !carry.removed | carry.added;
    (carry.added, carry.removed) = (0, 0);
    let mut apostrophes = apostrophe & other_starts;
    while apostrophes != 0 {
        let i = apostrophes.trailing_zeros();
        apostrophes &= apostrophes - 1;
        if let Some(contraction) = contraction_end(text, at + i as usize) {
            let removed = 2u128 << i;
            let added = 1u128 << (contraction - at);
            starts = starts & !(removed as u64) | added as u64;
            carry.removed |= (removed >> 64) as u64;
            carry.added |= (added >> 64) as u64;
        }
    }
    carry.letter = letter >> 63;
    carry.number = number >> 63;
    carry.other = other >> 63;
    carry.space = space >> 63;
    carry.blank = blank >> 63;
    starts
}

/// Returns whether white space before the character at `at` stays whole.
#[inline]
fn keeps_space<const DIGITS: bool>(text: &[u8], at: usize) -> bool {
    is_space_at(text, at) || DIGITS && class_beside_digits_at(text, at).0 == Class::Number
}

/// Masks of the bytes of characters outside ASCII.
#[derive(Default)]
struct High {
    /// First bytes of those that are white space and precede another class (rule 3).
    space_starts: u64,
    /// All bytes but the first of each.
    continued: u64,
}

/// Adds the classes of characters outside ASCII to the masks.
#[inline(never)]
fn add_high_classes<const DIGITS: bool>(
    text: &[u8],
    at: usize,
    masks: &mut Masks,
    carry: &mut Carry,
) -> High {
    let mut add = |class: Option<Class>, bits: u64| match class {
        Some(Class::Letter) => masks.letter |= bits,
        Some(Class::Number) => masks.number |= bits,
        Some(Class::Space) => masks.space |= bits,
        Some(Class::Other) | None => {}
    };
    let tail = (1 << carry.tail) - 1;
    add(carry.tail_class.take(), tail);
    carry.tail = 0;
    let mut rest = masks.high & !tail;
    let mut high = High { space_starts: 0, continued: tail };
    while rest != 0 {
        let i = rest.trailing_zeros() as usize;
        let (class, length) =
            if DIGITS { class_beside_digits_at(text, at + i) } else { class_at(text, at + i) };
        let bits = ((1 << length) - 1) << i;
        add(Some(class), bits);
        rest &= !bits;
        high.continued |= bits & !(1 << i);
        if i + length > MASK_BYTES {
            (carry.tail, carry.tail_class) = (i + length - MASK_BYTES, Some(class));
        }
        let end = at + i + length;
        if class == Class::Space && end < text.len() && !keeps_space::<DIGITS>(text, end) {
            high.space_starts |= 1 << i;
        }
    }
    high
}

/// Spare capacity for `push_bits`, which writes in groups of eight.
const SPARE: usize = MASK_BYTES;

/// Appends `base` + i for each set bit i. `starts` must have `SPARE` more capacity than it needs.
#[inline(always)]
fn push_bits(starts: &mut Vec<usize>, base: usize, mut bits: u64) {
    let count = bits.count_ones() as usize;
    let length = starts.len();
    debug_assert!(starts.capacity() - length >= SPARE);
    // SAFETY: `next_window` reserved one element per byte of the window and `SPARE` more. At most
    // 64 are written, in groups of eight, and the first `count` of them are kept.
    unsafe {
        let out = starts.as_mut_ptr().add(length);
        let mut written = 0;
        while written < count {
            for i in 0..8 {
                out.add(written + i).write(base + bits.trailing_zeros() as usize);
                bits &= bits.wrapping_sub(1);
            }
            written += 8;
        }
        starts.set_len(length + count);
    }
}

/// Runs `Scanner::scan_masks` with an instruction set.
fn scan<const DIGITS: bool>(isa: Isa, scanner: &mut Scanner, end: usize, starts: &mut Vec<usize>) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt")]
        fn avx512<const DIGITS: bool>(scanner: &mut Scanner, end: usize, starts: &mut Vec<usize>) {
            scanner.scan_masks::<super::masks::Avx512, DIGITS>(end, starts);
        }
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt")]
        fn avx2<const DIGITS: bool>(scanner: &mut Scanner, end: usize, starts: &mut Vec<usize>) {
            scanner.scan_masks::<super::masks::Avx2, DIGITS>(end, starts);
        }
        match isa {
            // SAFETY: detection returns an Isa above Scalar only where it finds these features.
            Isa::Avx512 => return unsafe { avx512::<DIGITS>(scanner, end, starts) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2::<DIGITS>(scanner, end, starts) },
            Isa::Scalar => {}
        }
    }
    let _ = isa;
    scanner.scan_masks::<Portable, DIGITS>(end, starts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, below};

    /// Checks the scan against one pre-token at a time, on every instruction set.
    fn check(text: &str, says: &str) {
        for pattern in [Pattern::Gpt2, Pattern::Smollm] {
            let (mut at, mut expected) = (0, Vec::new());
            while at < text.len() {
                expected.push(at);
                at = pattern.pretoken_end(text, at).unwrap();
            }
            for isa in Isa::available() {
                let (mut scanner, mut starts) = (Scanner::new(text, &pattern, isa), Vec::new());
                while scanner.next_window(&mut starts).unwrap() {}
                assert_eq!(starts, expected, "{pattern:?} on {isa:?}: {says} {text:?}");
            }
        }
    }

    #[test]
    fn random_texts_split_as_one_pretoken_at_a_time() {
        let pieces = "a Z s t ll ve re ' ' 's 'll 're 1 9 ! - _ \0 é ß 日 本 、 ² Ⅷ ٣ \u{301} 😀 𝟘 𠀀 \
                      \u{10ffff} \u{7f} \u{fffd} \u{11de0} \u{16ff6}";
        let spaces =
            [" ", " ", "  ", "\n", "\t", "\r\n", "\u{a0}", "\u{2003}", "\u{3000}", "\u{85}"];
        let pieces: Vec<&str> = pieces.split(' ').chain(spaces).collect();
        for seed in 0..3000u64 {
            let draw =
                |i: u64, bound: usize| below(seed, Purpose::Benchmark, i, 0, bound as u64) as usize;
            let (length, kinds) = (draw(0, 200), 1 + draw(1, pieces.len()));
            let first = draw(2, pieces.len());
            let text: String = (0..length as u64)
                .map(|i| pieces[(first + draw(3 + i, kinds)) % pieces.len()])
                .collect();
            check(&text, &format!("seed {seed}"));
        }
    }

    #[test]
    fn exceptions_hold_at_every_position_in_the_masks_and_across_windows() {
        let cores = [
            "'s x",
            "'ll",
            "'rex",
            "'ve's",
            "  \u{3000}x",
            "\u{a0}\u{a0}",
            " \n x",
            "é's日",
            "'t",
            " '",
            "''d",
            "  5",
            "\u{3000}\u{3000}\u{1d7d8}",
            "\u{663}\u{664} \u{b2}x",
            "\u{11de0}'s \u{16ff4}x",
        ];
        for core in cores {
            for before in (0..140).chain(WINDOW - 70..WINDOW + 2) {
                for fill in ["a", " ", "!", "1", "\n"] {
                    for after in ["", "a", " b", "\n"] {
                        let text = fill.repeat(before) + core + after;
                        check(&text, &format!("{before} x {fill:?} {core:?} {after:?}"));
                    }
                }
            }
        }
    }
}
