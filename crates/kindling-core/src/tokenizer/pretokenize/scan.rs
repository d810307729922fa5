//! Where pre-tokens begin: one by one, and for GPT-2's pattern for 64 bytes at a time by arithmetic on bitmasks. `pretokenize.rs` says the same one
//! pre-token at a time, and is the oracle.
//!
//! A pre-token begins where the class changes, with three exceptions: a blank belongs to the character after it, a run of
//! white space leaves its last character to what follows, and a contraction (`'s`, `'ll`, ...) at a pre-token's start ends
//! where its letters do. All bytes of a character have its class, so that none but the first can begin anything.

use super::gpt2::{class_at, contraction_end, is_space_at};
use super::masks::{Classify, Masks, Portable, WORD};
use super::pattern::Pattern;
use super::unicode::Class;
use crate::Result;
use crate::simd::Isa;

/// Bytes of text that are scanned before their pre-tokens are looked at.
pub const WINDOW: usize = 2048;

/// Scanner of one text, a window after the other.
#[derive(Debug)]
pub struct Scanner<'a> {
    whole: &'a str,
    text: &'a [u8],
    at: usize,
    pattern: &'a Pattern,
    isa: Isa,
    carry: Carry,
}

/// What the bytes before a word mean for it.
#[derive(Debug, Default, Clone, Copy)]
struct Carry {
    /// Classes of the last byte, in bit 0.
    letter: u64,
    number: u64,
    other: u64,
    space: u64,
    blank: u64,
    /// Starts that a contraction adds and takes away.
    added: u64,
    removed: u64,
    /// Bytes of a character that began before, and its class.
    tail: usize,
    tail_class: Option<Class>,
}

impl<'a> Scanner<'a> {
    /// Scanner of `text`, which stands alone: nothing is known of what is around it.
    pub fn new(text: &'a str, pattern: &'a Pattern, isa: Isa) -> Self {
        Self { whole: text, text: text.as_bytes(), at: 0, pattern, isa, carry: Carry::default() }
    }

    /// Appends the starts of pre-tokens in the next window to `starts`; false at the end of the text. The end of the text is
    /// not a start.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` where a regular expression gives up on the text.
    pub fn next_window(&mut self, starts: &mut Vec<usize>) -> Result<bool> {
        if self.at >= self.text.len() {
            return Ok(false);
        }
        let end = self.text.len().min(self.at + WINDOW);
        if matches!(self.pattern, Pattern::Gpt2) {
            starts.reserve(end - self.at + SPARE);
            scan(self.isa, self, end, starts);
            self.at = end;
        } else {
            while self.at < end {
                starts.push(self.at);
                self.at = self.pattern.pretoken_end(self.whole, self.at)?;
            }
        }
        Ok(true)
    }

    #[inline(always)]
    fn words<C: Classify>(&mut self, end: usize, starts: &mut Vec<usize>) {
        let mut carry = self.carry;
        let mut at = self.at;
        while at < end {
            let bits = if let Some(bytes) = self.text[at..].first_chunk::<WORD>() {
                word_starts(self.text, at, WORD, C::masks(bytes), &mut carry)
            } else {
                let mut bytes = [0; WORD];
                let length = self.text.len() - at;
                bytes[..length].copy_from_slice(&self.text[at..]);
                word_starts(self.text, at, length, C::masks(&bytes), &mut carry)
                    & ((1 << length) - 1)
            };
            push_bits(starts, at, bits);
            at += WORD;
        }
        self.carry = carry;
    }
}

/// Starts among the `length` bytes at `at`, whose masks are given.
#[inline(always)]
fn word_starts(text: &[u8], at: usize, length: usize, mut masks: Masks, carry: &mut Carry) -> u64 {
    let mut spaces_left = 0;
    if masks.high != 0 {
        spaces_left = classify_high(text, at, &mut masks, carry);
    }
    let Masks { letter, number, space, blank, apostrophe, high } = masks;
    let other = !(letter | number | space);
    let after = |mask: u64, carried: u64| mask << 1 | carried;
    let after_blank = after(blank, carry.blank);
    let changes = |mask: u64, carried: u64| mask & !after(mask, carried);
    let other_starts = changes(other, carry.other) & !after_blank;
    let word_starts =
        (changes(letter, carry.letter) | changes(number, carry.number)) & !after_blank;
    // The end of the text counts as white space: a run that ends there stays whole.
    let next_is_space =
        at + length >= text.len() || ((space & !high) >> 63 != 0 && is_space_at(text, at + length));
    let before_space = space >> 1 | u64::from(next_is_space) << (length - 1);
    let space_starts = changes(space, carry.space) | space & !high & !before_space | spaces_left;
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

/// Enters the characters that are not ASCII in the masks; gives the starts of those that are white space and stand before
/// something else (`\s+(?!\S)` leaves them).
#[inline(never)]
fn classify_high(text: &[u8], at: usize, masks: &mut Masks, carry: &mut Carry) -> u64 {
    let mut enter = |class: Option<Class>, bits: u64| match class {
        Some(Class::Letter) => masks.letter |= bits,
        Some(Class::Number) => masks.number |= bits,
        Some(Class::Space) => masks.space |= bits,
        Some(Class::Other) | None => {}
    };
    let tail = (1 << carry.tail) - 1;
    enter(carry.tail_class.take(), tail);
    carry.tail = 0;
    let mut rest = masks.high & !tail;
    let mut spaces_left = 0;
    while rest != 0 {
        let i = rest.trailing_zeros() as usize;
        let (class, length) = class_at(text, at + i);
        let bits = ((1 << length) - 1) << i;
        enter(Some(class), bits);
        rest &= !bits;
        if i + length > WORD {
            (carry.tail, carry.tail_class) = (i + length - WORD, Some(class));
        }
        let end = at + i + length;
        if class == Class::Space && end < text.len() && !is_space_at(text, end) {
            spaces_left |= 1 << i;
        }
    }
    spaces_left
}

/// Room that `push_bits` may write beyond the bits there are.
const SPARE: usize = WORD;

/// Appends `base` + the place of each bit; `starts` has room for `SPARE` more than it will get.
#[inline(always)]
fn push_bits(starts: &mut Vec<usize>, base: usize, mut bits: u64) {
    let count = bits.count_ones() as usize;
    let length = starts.len();
    debug_assert!(starts.capacity() - length >= SPARE);
    // SAFETY: `next_window` reserved a place for every byte of the window and `SPARE` more; at most 64 are written, in
    // groups of eight, of which the first `count` are kept.
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

/// `Scanner::words` on an instruction set.
fn scan(isa: Isa, scanner: &mut Scanner, end: usize, starts: &mut Vec<usize>) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt")]
        fn avx512(scanner: &mut Scanner, end: usize, starts: &mut Vec<usize>) {
            scanner.words::<super::masks::Avx512>(end, starts);
        }
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt")]
        fn avx2(scanner: &mut Scanner, end: usize, starts: &mut Vec<usize>) {
            scanner.words::<super::masks::Avx2>(end, starts);
        }
        match isa {
            // SAFETY: an Isa above Scalar only exists where the machine has been asked for these features (every machine
            // with AVX2 has BMI and POPCNT).
            Isa::Avx512 => return unsafe { avx512(scanner, end, starts) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2(scanner, end, starts) },
            Isa::Scalar => {}
        }
    }
    let _ = isa;
    scanner.words::<Portable>(end, starts);
}

#[cfg(test)]
mod tests {
    use super::super::gpt2::pretokens;
    use super::*;
    use crate::random::{Purpose, below};

    fn starts(text: &str, isa: Isa) -> Vec<usize> {
        let (mut scanner, mut starts) = (Scanner::new(text, &Pattern::Gpt2, isa), Vec::new());
        while scanner.next_window(&mut starts).unwrap() {}
        starts
    }

    fn expected(text: &str) -> Vec<usize> {
        let mut at = 0;
        pretokens(text)
            .map(|pretoken| {
                let start = at;
                at += pretoken.len();
                start
            })
            .collect()
    }

    #[test]
    fn random_texts_split_as_the_pattern_one_by_one_says() {
        let pieces = [
            "a",
            "Z",
            "s",
            "t",
            "ll",
            "ve",
            "re",
            "'",
            "'",
            "'s",
            "'ll",
            "'re",
            "1",
            "9",
            " ",
            " ",
            "  ",
            "\n",
            "\t",
            "\r\n",
            "!",
            "-",
            "_",
            "\0",
            "é",
            "ß",
            "日",
            "本",
            "、",
            "²",
            "Ⅷ",
            "٣",
            "\u{a0}",
            "\u{2003}",
            "\u{3000}",
            "\u{85}",
            "\u{301}",
            "😀",
            "𝟘",
            "𠀀",
            "\u{10ffff}",
            "\u{7f}",
            "\u{fffd}",
        ];
        for seed in 0..3000u64 {
            let draw =
                |i: u64, bound: usize| below(seed, Purpose::Benchmark, i, 0, bound as u64) as usize;
            let (length, kinds) = (draw(0, 200), 1 + draw(1, pieces.len()));
            let first = draw(2, pieces.len());
            let text: String = (0..length as u64)
                .map(|i| pieces[(first + draw(3 + i, kinds)) % pieces.len()])
                .collect();
            for isa in Isa::available() {
                assert_eq!(starts(&text, isa), expected(&text), "{text:?} on {isa:?}, seed {seed}");
            }
        }
    }

    #[test]
    fn every_exception_at_every_place_of_a_word_and_across_windows() {
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
        ];
        for core in cores {
            for before in (0..140).chain(WINDOW - 70..WINDOW + 2) {
                for fill in ["a", " ", "!", "1", "\n"] {
                    for after in ["", "a", " b", "\n"] {
                        let text = fill.repeat(before) + core + after;
                        for isa in Isa::available() {
                            assert_eq!(
                                starts(&text, isa),
                                expected(&text),
                                "{before} x {fill:?} {core:?} {after:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}
