//! Packing: copies rows of a matrix (of a, or of the transpose of b) to a panel of 32-bit words.
//!
//! A word is one f32, or two bf16 that are neighbours along k. Rows past the end of the matrix, and
//! the second half of the last word of an odd k, are zero.

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use super::geometry::PanelLayout;
use super::operand::Operand;
use crate::ops::matmul::matrix::Matrix;
use crate::simd::bf16;

/// The part of a panel to pack: `k_words`, which start at a multiple of 16, of `height` rows from
/// `first_row` on.
#[derive(Clone)]
pub(super) struct PanelPart {
    pub first_row: usize,
    pub height: usize,
    pub k_words: Range<usize>,
    pub layout: PanelLayout,
}

/// Packs part of a panel. `target` is the memory of that part, which is contiguous.
pub(super) fn pack_panel(target: &mut [u32], rows: Operand, part: &PanelPart) {
    match rows {
        Operand::F32(rows) if part.layout == PanelLayout::F32 => {
            pack::<F32Word>(target, rows, part);
        }
        Operand::F32(rows) => pack::<RoundedWord>(target, rows, part),
        Operand::Bf16(_) if part.layout == PanelLayout::F32 => {
            panic!("bf16 was passed to a product of f32")
        }
        Operand::Bf16(rows) => pack::<Bf16Word>(target, rows, part),
    }
}

fn pack<W: Word>(target: &mut [u32], matrix: Matrix<W::Element>, part: &PanelPart) {
    let end = matrix.height.min(part.first_row + part.height);
    let rows = matrix.rows(part.first_row..end);
    #[cfg(target_arch = "x86_64")]
    if W::is_available() && (rows.row_stride() == 1 || rows.column_stride() == 1) {
        // SAFETY: the machine has the instructions.
        unsafe {
            if part.layout == PanelLayout::F32 {
                avx512::pack_f32::<W>(target, rows, part);
            } else {
                avx512::pack_bf16::<W>(target, rows, part);
            }
        }
        return;
    }
    pack_plain::<W>(target, rows, part);
}

fn pack_plain<W: Word>(target: &mut [u32], rows: Matrix<W::Element>, part: &PanelPart) {
    for k_word in part.k_words.clone() {
        for row in 0..part.height {
            let at = part.layout.index(part.height, k_word - part.k_words.start, row);
            target[at] = W::word(|index| {
                let k = W::ELEMENTS * k_word + index;
                (row < rows.height && k < rows.width).then(|| rows.element(row, k))
            });
        }
    }
}

/// A conversion of matrix elements to words.
trait Word {
    type Element: Copy;
    const ELEMENTS: usize;
    /// Returns whether the machine has the instructions of `load_row` and `load_column`.
    #[cfg(target_arch = "x86_64")]
    fn is_available() -> bool;
    /// Makes a word of elements, some of which may lie past the matrix.
    fn word(element: impl Fn(usize) -> Option<Self::Element>) -> u32;
    /// Loads 16 neighbouring words of a row. Only `present` elements exist; the others become zero.
    ///
    /// # Safety
    /// The machine has the instructions, and the elements that exist can be read.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_row(source: *const Self::Element, present: usize) -> std::arch::x86_64::__m512i;
    /// Loads the same word of 16 rows, which are neighbours in a column. `sources` point to the
    /// first and second elements of the word in the first row, and the masks say which rows exist;
    /// the others become zero.
    ///
    /// # Safety
    /// As for `load_row`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_column(
        sources: [*const Self::Element; 2],
        masks: [u16; 2],
    ) -> std::arch::x86_64::__m512i;
}

/// f32 as it is.
struct F32Word;
/// f32, rounded to bf16.
struct RoundedWord;
/// bf16 as it is.
struct Bf16Word;

impl Word for F32Word {
    type Element = f32;
    const ELEMENTS: usize = 1;
    #[cfg(target_arch = "x86_64")]
    fn is_available() -> bool {
        crate::simd::Isa::has_avx512()
    }
    fn word(element: impl Fn(usize) -> Option<f32>) -> u32 {
        element(0).unwrap_or(0.0).to_bits()
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_row(source: *const f32, present: usize) -> std::arch::x86_64::__m512i {
        // SAFETY: by the caller's promise.
        unsafe { avx512::load_f32(source, avx512::mask16(present)) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_column(sources: [*const f32; 2], masks: [u16; 2]) -> std::arch::x86_64::__m512i {
        // SAFETY: by the caller's promise.
        unsafe { avx512::load_f32(sources[0], masks[0]) }
    }
}

fn bf16_word<T>(element: impl Fn(usize) -> Option<T>, round: impl Fn(T) -> u16) -> u32 {
    let half = |index| u32::from(element(index).map_or(0, &round));
    half(0) | half(1) << 16
}

impl Word for RoundedWord {
    type Element = f32;
    const ELEMENTS: usize = 2;
    #[cfg(target_arch = "x86_64")]
    fn is_available() -> bool {
        bf16::is_available()
    }
    fn word(element: impl Fn(usize) -> Option<f32>) -> u32 {
        bf16_word(element, bf16::round)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_row(source: *const f32, present: usize) -> std::arch::x86_64::__m512i {
        // SAFETY: by the caller's promise.
        unsafe { avx512::round_32(source, avx512::mask32(present)) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_column(sources: [*const f32; 2], masks: [u16; 2]) -> std::arch::x86_64::__m512i {
        // SAFETY: by the caller's promise.
        unsafe { avx512::round_and_interleave(sources, masks) }
    }
}

impl Word for Bf16Word {
    type Element = u16;
    const ELEMENTS: usize = 2;
    #[cfg(target_arch = "x86_64")]
    fn is_available() -> bool {
        bf16::is_available()
    }
    fn word(element: impl Fn(usize) -> Option<u16>) -> u32 {
        bf16_word(element, |bits| bits)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_row(source: *const u16, present: usize) -> std::arch::x86_64::__m512i {
        // SAFETY: by the caller's promise.
        unsafe { avx512::load_bf16(source, avx512::mask32(present)) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_column(sources: [*const u16; 2], masks: [u16; 2]) -> std::arch::x86_64::__m512i {
        // SAFETY: by the caller's promise.
        unsafe { avx512::load_and_interleave(sources, masks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(
        rows: Operand,
        part: &PanelPart,
        k_words: impl IntoIterator<Item = Range<usize>>,
    ) -> Vec<u32> {
        let mut packed = vec![9; part.k_words.len() * part.height];
        for k_words in k_words {
            let target = &mut packed[k_words.start * part.height..k_words.end * part.height];
            pack_panel(target, rows, &PanelPart { k_words, ..part.clone() });
        }
        packed
    }

    #[test]
    fn panels_packed_by_vectors_equal_those_packed_by_plain_code() {
        for (height, depth) in [(1usize, 1usize), (14, 32), (15, 33), (40, 70), (32, 384), (3, 129)]
        {
            let values: Vec<f32> = (0..height * depth).map(|i| (i as f32 * 0.731).sin()).collect();
            let transposed: Vec<f32> =
                (0..height * depth).map(|i| values[i % height * depth + i / height]).collect();
            let bf16_of =
                |values: &[f32]| -> Vec<u16> { values.iter().map(|x| bf16::round(*x)).collect() };
            let (bf16_values, bf16_transposed) = (bf16_of(&values), bf16_of(&transposed));
            let by_rows = Matrix::new(&values, height, depth);
            let by_columns = Matrix::new(&transposed, depth, height).transposed();
            let bf16_by_rows = Matrix::new(&bf16_values, height, depth);
            let bf16_by_columns = Matrix::new(&bf16_transposed, depth, height).transposed();
            for (panel_height, layout) in [
                (14, PanelLayout::F32),
                (32, PanelLayout::F32),
                (30, PanelLayout::F32),
                (20, PanelLayout::Bf16),
                (14, PanelLayout::Bf16),
                (32, PanelLayout::Bf16),
                (32, PanelLayout::Bf16Tiles),
            ] {
                let k_words = match layout {
                    PanelLayout::F32 => depth,
                    PanelLayout::Bf16 => depth.div_ceil(2),
                    PanelLayout::Bf16Tiles => depth.div_ceil(2).next_multiple_of(16),
                };
                for first_row in (0..height).step_by(panel_height) {
                    let what = format!("{height} {depth} {panel_height} {layout:?}");
                    let part =
                        PanelPart { first_row, height: panel_height, k_words: 0..k_words, layout };
                    let mut expected = vec![7; k_words * panel_height];
                    let rows = by_rows.rows(first_row..height.min(first_row + panel_height));
                    if layout == PanelLayout::F32 {
                        pack_plain::<F32Word>(&mut expected, rows, &part);
                    } else {
                        pack_plain::<RoundedWord>(&mut expected, rows, &part);
                    }
                    let cut = k_words.min(32);
                    let parts = [0..cut, cut..k_words];
                    assert!(packed(Operand::F32(by_rows), &part, parts) == expected, "{what}");
                    for rows in [Operand::F32(by_rows), Operand::F32(by_columns)] {
                        assert!(
                            packed(rows, &part, std::iter::once(0..k_words)) == expected,
                            "{what}"
                        );
                    }
                    if layout == PanelLayout::F32 {
                        continue;
                    }
                    for rows in [Operand::Bf16(bf16_by_rows), Operand::Bf16(bf16_by_columns)] {
                        assert!(
                            packed(rows, &part, std::iter::once(0..k_words)) == expected,
                            "bf16 {what}"
                        );
                    }
                }
            }
        }
    }
}
