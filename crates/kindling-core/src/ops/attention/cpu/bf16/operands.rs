//! Rounding of f32 rows to operands of bf16 words, and transposing of words.
//!
//! Each function uses AVX512-BF16 if the machine has it, and otherwise plain code with the same
//! results.

use std::marker::PhantomData;

use crate::ops::BlockMut;
use crate::ops::attention::cpu::tile::BLOCK;
use crate::simd::{LANES, bf16};

/// Which elements of a tile of scores (keys, queries) count; the others are rounded to zero.
///
/// The softmax computes sixteen queries at a time, for the keys that any of them sees, and masks
/// these. The other elements are unspecified.
#[derive(Clone, Copy)]
pub(super) struct Computed {
    /// Keys of the tile.
    pub(super) keys: usize,
    pub(super) diagonal: bool,
}

impl Computed {
    /// Returns how many keys were computed for the sixteen queries from `column` on.
    #[inline(always)]
    fn keys_at(self, column: usize) -> usize {
        if self.diagonal { self.keys.min(column + LANES) } else { self.keys }
    }
}

/// Sixteen f32 on their way to bf16.
trait Rounded: Copy {
    /// Loads up to sixteen elements of `source` from `start` on, and zeros past its end.
    fn load(source: &[f32], start: usize) -> Self;
    fn zero() -> Self;
    fn times(self, factor: f32) -> Self;
    /// Stores sixteen words, each of a lane of `self` (low half) and the same lane of `second`.
    fn store_interleaved(self, second: Self, target: &mut [u32]);
    /// Stores sixteen words, each of two neighbouring lanes: those of `self`, then of `second`.
    fn store_neighbours(self, second: Self, target: &mut [u32]);
    /// Transposes 16 x 16 words.
    ///
    /// # Safety
    /// Sixteen rows of sixteen words, `stride` words apart, can be read, and as many rows,
    /// `target_stride` words apart, can be written.
    unsafe fn transpose(target: *mut u32, target_stride: usize, source: *const u32, stride: usize);
}

/// Defines a function that runs `$kernel` on vectors where the machine has them.
macro_rules! rounding {
    ($(#[$meta:meta])* fn $name:ident $(<$life:lifetime>)? ($($argument:ident: $type:ty),* $(,)?) = $kernel:ident;) => {
        $(#[$meta])*
        pub(super) fn $name $(<$life>)? ($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
                fn vectors $(<$life>)? ($($argument: $type),*) {
                    $kernel::<avx512::Lanes>($($argument),*);
                }
                if bf16::is_available() {
                    // SAFETY: the machine has the features.
                    unsafe { vectors($($argument),*) };
                    return;
                }
            }
            $kernel::<Plain>($($argument),*);
        }
    };
}

rounding! {
    /// Rounds a tile of scores to words of keys: (32 words, 64 queries).
    fn tile_to_words_of_keys(target: &mut [u32], tile: &[f32], computed: Computed)
        = words_of_keys;
}

#[inline(always)]
fn words_of_keys<R: Rounded>(target: &mut [u32], tile: &[f32], computed: Computed) {
    for column in (0..BLOCK).step_by(LANES) {
        let keys = computed.keys_at(column);
        for key in (0..BLOCK).step_by(2) {
            let (mut first, mut second) = (R::zero(), R::zero());
            if key < keys {
                first = R::load(tile, key * BLOCK + column);
            }
            if key + 1 < keys {
                second = R::load(tile, (key + 1) * BLOCK + column);
            }
            first.store_interleaved(second, &mut target[key / 2 * BLOCK + column..]);
        }
    }
}

rounding! {
    /// Rounds a tile of scores to words of queries: (64 keys, 32 words).
    fn tile_to_words_of_queries(target: &mut [u32], tile: &[f32], computed: Computed)
        = words_of_queries;
}

#[inline(always)]
fn words_of_queries<R: Rounded>(target: &mut [u32], tile: &[f32], computed: Computed) {
    for column in (0..BLOCK).step_by(2 * LANES) {
        for key in 0..BLOCK {
            let (mut first, mut second) = (R::zero(), R::zero());
            if key < computed.keys_at(column) {
                first = R::load(tile, key * BLOCK + column);
            }
            if key < computed.keys_at(column + LANES) {
                second = R::load(tile, key * BLOCK + column + LANES);
            }
            first.store_neighbours(second, &mut target[key * BLOCK / 2 + column / 2..]);
        }
    }
}

/// Rows of a head that are rounded together. Rows past the last one, up to whole blocks, are zeros.
#[derive(Clone, Copy)]
pub(super) struct HeadRows<'a> {
    first: *const f32,
    /// Elements from one row to the next.
    stride: usize,
    count: usize,
    head_size: usize,
    borrow: PhantomData<&'a [f32]>,
}

impl<'a> HeadRows<'a> {
    /// Takes `count` rows, `stride` elements apart, the first at the start of `elements`.
    pub(super) fn of_slice(
        elements: &'a [f32],
        stride: usize,
        count: usize,
        head_size: usize,
    ) -> Self {
        assert!(count > 0 && (count - 1) * stride + head_size <= elements.len());
        Self { first: elements.as_ptr(), stride, count, head_size, borrow: PhantomData }
    }

    /// Takes `count` rows of a block of a matrix from row `start` on.
    pub(super) fn of_block(block: &'a BlockMut<'_, f32>, start: usize, count: usize) -> Self {
        assert!(start + count <= block.rows());
        let (stride, head_size) = (block.stride(), block.columns());
        let first = block.as_ptr().wrapping_add(start * stride);
        Self { first, stride, count, head_size, borrow: PhantomData }
    }

    #[inline(always)]
    fn load<R: Rounded>(self, row: usize, column: usize) -> R {
        if row >= self.count || column >= self.head_size {
            return R::zero();
        }
        // SAFETY: the row is inside the slice or the block (asserted), which is borrowed for 'a.
        let row = unsafe {
            std::slice::from_raw_parts(self.first.add(row * self.stride), self.head_size)
        };
        R::load(row, column)
    }
}

rounding! {
    /// Rounds rows, times `factor`, to words of the head size: (rows, width / 2).
    fn rows_to_words<'a>(target: &mut [u32], rows: HeadRows<'a>, width: usize, factor: f32)
        = words_of_columns;
}

#[inline(always)]
fn words_of_columns<R: Rounded>(target: &mut [u32], rows: HeadRows<'_>, width: usize, factor: f32) {
    for column in (0..width).step_by(2 * LANES) {
        for (row, target) in target.chunks_exact_mut(width / 2).enumerate() {
            let first: R = rows.load(row, column);
            let second: R = rows.load(row, column + LANES);
            first.times(factor).store_neighbours(second.times(factor), &mut target[column / 2..]);
        }
    }
}

rounding! {
    /// Rounds rows to words of rows: (rows / 2, width).
    fn rows_to_words_of_rows<'a>(target: &mut [u32], rows: HeadRows<'a>, width: usize)
        = words_of_rows;
}

#[inline(always)]
fn words_of_rows<R: Rounded>(target: &mut [u32], rows: HeadRows<'_>, width: usize) {
    for column in (0..width).step_by(LANES) {
        for (word, target) in target.chunks_exact_mut(width).enumerate() {
            let first: R = rows.load(2 * word, column);
            first.store_interleaved(rows.load(2 * word + 1, column), &mut target[column..]);
        }
    }
}

rounding! {
    /// Transposes words (rows, columns), both multiples of 16, to (columns, rows).
    fn transpose_words(target: &mut [u32], source: &[u32], rows: usize, columns: usize)
        = transposed;
}

#[inline(always)]
fn transposed<R: Rounded>(target: &mut [u32], source: &[u32], rows: usize, columns: usize) {
    assert!(rows.is_multiple_of(LANES) && columns.is_multiple_of(LANES));
    assert!(source.len() >= rows * columns && target.len() >= rows * columns);
    for row in (0..rows).step_by(LANES) {
        for column in (0..columns).step_by(LANES) {
            // SAFETY: the square is inside both (asserted).
            unsafe {
                let to = target.as_mut_ptr().add(column * rows + row);
                R::transpose(to, rows, source.as_ptr().add(row * columns + column), columns);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Plain([f32; LANES]);

impl Rounded for Plain {
    fn load(source: &[f32], start: usize) -> Self {
        let mut lanes = [0.0; LANES];
        let count = LANES.min(source.len() - start);
        lanes[..count].copy_from_slice(&source[start..start + count]);
        Self(lanes)
    }

    fn zero() -> Self {
        Self([0.0; LANES])
    }

    fn times(self, factor: f32) -> Self {
        Self(self.0.map(|lane| lane * factor))
    }

    fn store_interleaved(self, second: Self, target: &mut [u32]) {
        for ((word, first), second) in target[..LANES].iter_mut().zip(self.0).zip(second.0) {
            *word = bf16::pair(first, second);
        }
    }

    fn store_neighbours(self, second: Self, target: &mut [u32]) {
        let pairs = self.0.chunks_exact(2).chain(second.0.chunks_exact(2));
        for (word, pair) in target[..LANES].iter_mut().zip(pairs) {
            *word = bf16::pair(pair[0], pair[1]);
        }
    }

    unsafe fn transpose(target: *mut u32, target_stride: usize, source: *const u32, stride: usize) {
        for (row, column) in (0..LANES * LANES).map(|i| (i / LANES, i % LANES)) {
            // SAFETY: by the caller's promise.
            unsafe {
                *target.add(column * target_stride + row) = *source.add(row * stride + column);
            };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    #![allow(clippy::undocumented_unsafe_blocks, reason = "the SAFETY note below holds for all")]
    // SAFETY: the methods run only inside a function that `rounding!` compiled for AVX512-BF16, on a
    // machine that has it. Loads and stores stay inside the slice: its length is asserted, or
    // becomes the mask. Transmutes keep the 512 bits.

    use std::arch::x86_64::*;

    use super::{LANES, Rounded};
    use crate::simd::{sixteen, transposed};

    #[derive(Clone, Copy)]
    pub(super) struct Lanes(__m512);

    impl Rounded for Lanes {
        #[inline(always)]
        fn load(source: &[f32], start: usize) -> Self {
            let source = &source[start..];
            let mask = if source.len() >= LANES { !0 } else { (1u16 << source.len()) - 1 };
            unsafe { Self(_mm512_maskz_loadu_ps(mask, source.as_ptr())) }
        }

        #[inline(always)]
        fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps()) }
        }

        #[inline(always)]
        fn times(self, factor: f32) -> Self {
            unsafe { Self(_mm512_mul_ps(self.0, _mm512_set1_ps(factor))) }
        }

        #[inline(always)]
        fn store_interleaved(self, second: Self, target: &mut [u32]) {
            assert!(target.len() >= LANES);
            unsafe {
                let halves: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second.0, self.0));
                let order = _mm512_set_epi16(
                    31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                    5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
                );
                let words = _mm512_permutexvar_epi16(order, halves);
                _mm512_storeu_si512(target.as_mut_ptr().cast(), words);
            }
        }

        #[inline(always)]
        fn store_neighbours(self, second: Self, target: &mut [u32]) {
            assert!(target.len() >= LANES);
            unsafe {
                let words: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second.0, self.0));
                _mm512_storeu_si512(target.as_mut_ptr().cast(), words);
            }
        }

        #[inline(always)]
        unsafe fn transpose(to: *mut u32, to_stride: usize, from: *const u32, stride: usize) {
            unsafe {
                let rows = sixteen!(i => _mm512_loadu_si512(from.add(i * stride).cast()));
                let columns = transposed(rows);
                let _: [(); LANES] =
                    sixteen!(i => _mm512_storeu_si512(to.add(i * to_stride).cast(), columns[i]));
            }
        }
    }
}
