//! Packing: rows of a matrix (of a, or of b's transpose: "lanes") as a panel of 32-bit words, each two neighbours along k
//! as bf16. Lanes past the matrix and the other half of an odd k are zero.

use std::ops::Range;

use super::Operand;
use crate::ops::matmul::gemm::Matrix;
use crate::simd::bf16;

/// Lanes, and pairs, of a square that is turned in registers.
const SIDE: usize = 16;

/// Where the word of a pair and a lane lies in a panel of `width` lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// [pair][lane].
    Pairs,
    /// [16 pairs][16 lanes][lane][pair]: squares whose rows are a cache line each, as AMX loads them.
    Tiles,
}

impl Order {
    fn index(self, width: usize, pair: usize, lane: usize) -> usize {
        match self {
            Self::Pairs => pair * width + lane,
            Self::Tiles => {
                pair / SIDE * SIDE * width + lane / SIDE * SIDE * SIDE + lane % SIDE * SIDE + pair % SIDE
            }
        }
    }
}

/// Packs `pairs` (from a multiple of 16 on) of the rows `first..first + width` of `lanes`, as many as there are, into
/// `target`, the part of the panel that belongs to them.
pub(super) fn panel(
    target: &mut [u32],
    lanes: Operand,
    first: usize,
    width: usize,
    order: Order,
    pairs: Range<usize>,
) {
    match lanes {
        Operand::F32(lanes) => panel_of(target, lanes, first, width, order, pairs),
        Operand::Bf16(lanes) => panel_of(target, lanes, first, width, order, pairs),
    }
}

/// An element of a matrix that is packed.
trait Element: Copy {
    const ZERO: Self;
    /// The bf16 next to it.
    fn round(self) -> u16;
    /// 32 elements from `source` on, those of the mask, as bf16.
    ///
    /// # Safety
    /// The machine has AVX512-BF16, and the elements of the mask can be read.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_row(source: *const Self, mask: u32) -> std::arch::x86_64::__m512i;
    /// 16 elements, as bf16 in the low halves of words.
    ///
    /// # Safety
    /// As `load_row`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_halves(source: *const Self, mask: u16) -> std::arch::x86_64::__m512i;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    fn round(self) -> u16 {
        bf16::round(self)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_row(source: *const Self, mask: u32) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe { avx512::round_row(source, mask) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_halves(source: *const Self, mask: u16) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe { avx512::round_halves(source, mask) }
    }
}

/// bf16 itself.
impl Element for u16 {
    const ZERO: Self = 0;
    fn round(self) -> u16 {
        self
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_row(source: *const Self, mask: u32) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe { avx512::row(source, mask) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_halves(source: *const Self, mask: u16) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe { avx512::halves(source, mask) }
    }
}

fn panel_of<T: Element>(
    target: &mut [u32],
    lanes: Matrix<T>,
    first: usize,
    width: usize,
    order: Order,
    pairs: Range<usize>,
) {
    let lanes = lanes.lines(first..lanes.height.min(first + width));
    #[cfg(target_arch = "x86_64")]
    if bf16::is_available() && (lanes.row_stride() == 1 || lanes.column_stride() == 1) {
        // SAFETY: the machine has the instructions.
        unsafe { avx512::panel(target, lanes, width, order, pairs) };
        return;
    }
    plain(target, lanes, width, order, pairs);
}

fn plain<T: Element>(target: &mut [u32], lanes: Matrix<T>, width: usize, order: Order, pairs: Range<usize>) {
    let element = |lane: usize, k: usize| {
        let inside = lane < lanes.height && k < lanes.width;
        u32::from(if inside { lanes.element(lane, k) } else { T::ZERO }.round())
    };
    for pair in pairs.clone() {
        for lane in 0..width {
            target[order.index(width, pair - pairs.start, lane)] =
                element(lane, 2 * pair) | element(lane, 2 * pair + 1) << 16;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m256bh, __m256i, __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm512_cvtepu16_epi32,
        _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi16,
        _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_setzero_si512, _mm512_shuffle_i32x4,
        _mm512_slli_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
        _mm512_unpacklo_epi64,
    };

    use std::ops::Range;

    use super::{Element, Matrix, Order, SIDE};

    /// Sixteen words of each of sixteen lanes, or of sixteen pairs.
    type Square = [__m512i; SIDE];

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) fn panel<T: Element>(
        target: &mut [u32],
        lanes: Matrix<T>,
        width: usize,
        order: Order,
        pairs: Range<usize>,
    ) {
        for pair in pairs.clone().step_by(SIDE) {
            for lane in (0..width).step_by(SIDE) {
                let along = lanes.column_stride() == 1;
                let mut square =
                    if along { words_of_lanes(lanes, lane, pair) } else { words_of_pairs(lanes, lane, pair) };
                if along == (order == Order::Pairs) {
                    square = transposed(&square);
                }
                let rest = match order {
                    Order::Pairs => (pairs.end - pair, width - lane),
                    Order::Tiles => (width - lane, pairs.end - pair),
                };
                let mask = mask(rest.1);
                for (row, words) in square.into_iter().enumerate().take(rest.0) {
                    let at = pair - pairs.start;
                    let (pair, lane) =
                        if order == Order::Pairs { (at + row, lane) } else { (at, lane + row) };
                    let target = &mut target[order.index(width, pair, lane)..];
                    assert!(target.len() >= rest.1.min(SIDE));
                    // SAFETY: as many words as the mask has bits, asserted above.
                    unsafe { _mm512_mask_storeu_epi32(target.as_mut_ptr().cast(), mask, words) };
                }
            }
        }
    }

    fn mask(count: usize) -> u16 {
        ((1u32 << count.min(SIDE)) - 1) as u16
    }

    /// 32 of f32, rounded.
    ///
    /// # Safety
    /// The elements of the mask can be read.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn round_row(source: *const f32, mask: u32) -> __m512i {
        // SAFETY: elements of the mask; the same 512 bits.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask as u16, source);
            let high = _mm512_maskz_loadu_ps((mask >> SIDE) as u16, source.wrapping_add(SIDE));
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
        }
    }

    /// 16 of f32, rounded, in the low halves of words.
    ///
    /// # Safety
    /// The elements of the mask can be read.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn round_halves(source: *const f32, mask: u16) -> __m512i {
        // SAFETY: elements of the mask; the same 256 bits.
        let rounded = unsafe {
            let values = _mm512_maskz_loadu_ps(mask, source);
            std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values))
        };
        _mm512_cvtepu16_epi32(rounded)
    }

    /// 32 of bf16.
    ///
    /// # Safety
    /// The elements of the mask can be read.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn row(source: *const u16, mask: u32) -> __m512i {
        // SAFETY: elements of the mask.
        unsafe { _mm512_maskz_loadu_epi16(mask, source.cast()) }
    }

    /// 16 of bf16, in the low halves of words.
    ///
    /// # Safety
    /// The elements of the mask can be read.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn halves(source: *const u16, mask: u16) -> __m512i {
        // SAFETY: elements of the mask.
        _mm512_cvtepu16_epi32(unsafe { _mm256_maskz_loadu_epi16(mask, source.cast()) })
    }

    /// Where k is contiguous: word p of vector l is the pair `pair + p` of lane `lane + l`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn words_of_lanes<T: Element>(lanes: Matrix<T>, lane: usize, pair: usize) -> Square {
        let mut square = [_mm512_setzero_si512(); SIDE];
        let first = 2 * pair;
        let rest = lanes.width.saturating_sub(first);
        let mask = ((1u64 << rest.min(2 * SIDE)) - 1) as u32;
        for (row, words) in square.iter_mut().enumerate().take(lanes.height.saturating_sub(lane)) {
            // SAFETY: elements of the row, by the mask.
            *words = unsafe { T::load_row(lanes.address(lane + row, first), mask) };
        }
        square
    }

    /// Where lanes are contiguous: word l of vector p is the pair `pair + p` of lane `lane + l`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn words_of_pairs<T: Element>(lanes: Matrix<T>, lane: usize, pair: usize) -> Square {
        let mut square = [_mm512_setzero_si512(); SIDE];
        let columns = mask(lanes.height.saturating_sub(lane));
        let half = |k: usize| {
            let columns = if k < lanes.width { columns } else { 0 };
            // SAFETY: elements of column k, by the mask.
            unsafe { T::load_halves(lanes.address(lane, k), columns) }
        };
        for (row, words) in square.iter_mut().enumerate() {
            let k = 2 * (pair + row);
            if k >= lanes.width {
                break;
            }
            *words = _mm512_or_si512(half(k), _mm512_slli_epi32::<16>(half(k + 1)));
        }
        square
    }

    /// Word j of vector i becomes word i of vector j.
    #[target_feature(enable = "avx512f")]
    fn transposed(rows: &Square) -> Square {
        let mut by_two = *rows;
        for i in (0..SIDE).step_by(2) {
            by_two[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            by_two[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        // Four rows' words of one column, a column a 128-bit quarter.
        let mut by_four = by_two;
        for i in (0..SIDE).step_by(4) {
            by_four[i] = _mm512_unpacklo_epi64(by_two[i], by_two[i + 2]);
            by_four[i + 1] = _mm512_unpackhi_epi64(by_two[i], by_two[i + 2]);
            by_four[i + 2] = _mm512_unpacklo_epi64(by_two[i + 1], by_two[i + 3]);
            by_four[i + 3] = _mm512_unpackhi_epi64(by_two[i + 1], by_two[i + 3]);
        }
        let mut columns = *rows;
        for i in 0..4 {
            let (low, high) = (
                _mm512_shuffle_i32x4::<0x88>(by_four[i], by_four[i + 4]),
                _mm512_shuffle_i32x4::<0x88>(by_four[i + 8], by_four[i + 12]),
            );
            columns[i] = _mm512_shuffle_i32x4::<0x88>(low, high);
            columns[i + 8] = _mm512_shuffle_i32x4::<0xDD>(low, high);
            let (low, high) = (
                _mm512_shuffle_i32x4::<0xDD>(by_four[i], by_four[i + 4]),
                _mm512_shuffle_i32x4::<0xDD>(by_four[i + 8], by_four[i + 12]),
            );
            columns[i + 4] = _mm512_shuffle_i32x4::<0x88>(low, high);
            columns[i + 12] = _mm512_shuffle_i32x4::<0xDD>(low, high);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_packed_by_vectors_equal_those_packed_plainly() {
        for (rows, depth) in [(1, 1), (14, 32), (15, 33), (40, 70), (32, 384), (3, 129)] {
            let values: Vec<f32> = (0..rows * depth).map(|i| (i as f32 * 0.731).sin()).collect();
            let turned: Vec<f32> = (0..rows * depth).map(|i| values[i % rows * depth + i / rows]).collect();
            for (width, order) in [(14, Order::Pairs), (32, Order::Pairs), (32, Order::Tiles)] {
                let pairs =
                    usize::div_ceil(depth, 2).next_multiple_of(if order == Order::Tiles { SIDE } else { 1 });
                for first in (0..rows).step_by(width) {
                    let mut expected = vec![7; pairs * width];
                    let lanes = Matrix::rows(&values, rows, depth);
                    plain(&mut expected, lanes.lines(first..rows.min(first + width)), width, order, 0..pairs);
                    let mut packed = vec![9; pairs * width];
                    let (head, tail) = packed.split_at_mut(pairs.min(32) * width);
                    panel(head, Operand::F32(lanes), first, width, order, 0..pairs.min(32));
                    panel(tail, Operand::F32(lanes), first, width, order, pairs.min(32)..pairs);
                    assert!(packed == expected, "along: {rows} {depth} {width} {order:?}");
                    let mut packed = vec![9; pairs * width];
                    let lanes = Matrix::rows(&turned, depth, rows).transposed();
                    panel(&mut packed, Operand::F32(lanes), first, width, order, 0..pairs);
                    assert!(packed == expected, "across: {rows} {depth} {width} {order:?}");
                    let narrow: Vec<u16> = values.iter().map(|value| bf16::round(*value)).collect();
                    let mut packed = vec![9; pairs * width];
                    let lanes = Operand::Bf16(Matrix::rows(&narrow, rows, depth));
                    panel(&mut packed, lanes, first, width, order, 0..pairs);
                    assert!(packed == expected, "bf16 along: {rows} {depth} {width} {order:?}");
                    let narrow: Vec<u16> = turned.iter().map(|value| bf16::round(*value)).collect();
                    let mut packed = vec![9; pairs * width];
                    let lanes = Operand::Bf16(Matrix::rows(&narrow, depth, rows).transposed());
                    panel(&mut packed, lanes, first, width, order, 0..pairs);
                    assert!(packed == expected, "bf16 across: {rows} {depth} {width} {order:?}");
                }
            }
        }
    }
}
