//! Products of operands made of bf16 words, in blocks of 32 x 32.

use std::marker::PhantomData;

use super::SIDE;
use crate::ops::attention::cpu::tile::Causal;
use crate::simd::amx::{TILE_SIDE, Tiles};

/// out (rows, columns) = a b, or += a b, over `depth` words.
///
/// Rows and columns are multiples of 32, and the depth is one of 16.
pub(super) struct WordMatmul<'a> {
    pub(super) out: &'a mut [f32],
    /// (rows, depth), rows `a_stride` words apart.
    pub(super) a: &'a [u32],
    pub(super) a_stride: usize,
    /// (depth, columns), rows `stride` words apart.
    pub(super) b: &'a [u32],
    /// Elements from one row of out, and of b, to the next.
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) depth: usize,
    /// What is skipped, in whole blocks. Queries are columns, except where they are the depth.
    pub(super) causal: Causal,
    pub(super) accumulate: bool,
}

impl WordMatmul<'_> {
    #[inline(always)]
    pub(super) fn run<P: BlockProduct>(self) {
        let Self { a, a_stride, b, stride, rows, columns, depth, causal, accumulate, .. } = self;
        assert!(rows.is_multiple_of(SIDE) && columns.is_multiple_of(SIDE));
        assert!(depth.is_multiple_of(TILE_SIDE) && columns <= stride && depth <= a_stride);
        assert!(rows * stride <= self.out.len() && depth * stride <= b.len());
        assert!(rows * a_stride <= a.len());
        for row in (0..rows).step_by(SIDE) {
            for column in (0..columns).step_by(SIDE) {
                let words = match causal {
                    Causal::Full => 0..depth,
                    // Keys after all queries of the block.
                    Causal::RowsAreKeys => 0..if row > column { 0 } else { depth },
                    Causal::DepthIsKeys => 0..depth.min(column / 2 + SIDE / 2),
                    Causal::DepthIsQueries => (row / 2).min(depth)..depth,
                };
                if words.is_empty() {
                    continue;
                }
                // SAFETY: the block is inside out, and its operands are inside a and b, by the
                // assertions above.
                unsafe {
                    P::block(
                        self.out.as_mut_ptr().add(row * stride + column),
                        [
                            a.as_ptr().add(row * a_stride + words.start),
                            b.as_ptr().add(words.start * stride + column),
                        ],
                        [a_stride, stride],
                        words.len() / TILE_SIDE,
                        accumulate,
                    );
                }
            }
        }
    }
}

/// Runs `$call` with the type `$product` standing for the kernel's code. AMX tiles are configured
/// before and released afterwards.
macro_rules! with_product {
    ($kernel:expr, $product:ident => $call:expr) => {
        match $kernel {
            Kernel::Amx => {
                type $product = ByTiles<Amx>;
                Amx::configure();
                $call;
                amx::release();
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Bf16 => {
                type $product = ByVectors;
                $call;
            }
            Kernel::EmulatedAmx => {
                type $product = ByTiles<EmulatedAmx>;
                $call;
            }
        }
    };
}
pub(super) use with_product;

/// Code that multiplies a block.
pub(super) trait BlockProduct {
    /// Multiplies 32 rows of a by 32 columns of b, over `steps` times 16 words.
    ///
    /// # Safety
    /// The machine has the instructions, and tiles are configured. 32 rows by 32 columns of out, 32
    /// rows by `16 steps` words of a, and `16 steps` words by 32 columns of b are valid. `strides`
    /// are the words between rows of a, and between those of b and of out.
    unsafe fn block(
        out: *mut f32,
        operands: [*const u32; 2],
        strides: [usize; 2],
        steps: usize,
        accumulate: bool,
    );
}

/// Multiplies by AMX, in 2 x 2 tiles.
pub(super) struct ByTiles<T>(PhantomData<T>);

impl<T: Tiles> BlockProduct for ByTiles<T> {
    #[inline(always)]
    unsafe fn block(
        out: *mut f32,
        [a, b]: [*const u32; 2],
        [a_stride, stride]: [usize; 2],
        steps: usize,
        accumulate: bool,
    ) {
        let out = out.cast::<u32>();
        let down = TILE_SIDE * stride;
        // SAFETY: by the caller's promise.
        unsafe {
            if accumulate {
                T::load::<0>(out, stride);
                T::load::<1>(out.add(TILE_SIDE), stride);
                T::load::<2>(out.add(down), stride);
                T::load::<3>(out.add(down + TILE_SIDE), stride);
            } else {
                T::zero::<0>();
                T::zero::<1>();
                T::zero::<2>();
                T::zero::<3>();
            }
            for step in 0..steps {
                let (a, b) = (a.add(step * TILE_SIDE), b.add(step * TILE_SIDE * stride));
                T::load::<4>(a, a_stride);
                T::load::<6>(b, stride);
                T::load::<7>(b.add(TILE_SIDE), stride);
                T::dot::<0, 4, 6>();
                T::dot::<1, 4, 7>();
                T::load::<5>(a.add(TILE_SIDE * a_stride), a_stride);
                T::dot::<2, 5, 6>();
                T::dot::<3, 5, 7>();
            }
            T::store::<0>(out, stride);
            T::store::<1>(out.add(TILE_SIDE), stride);
            T::store::<2>(out.add(down), stride);
            T::store::<3>(out.add(down + TILE_SIDE), stride);
        }
    }
}

/// Multiplies by `vdpbf16ps`, which does 2 x 16 multiply-adds.
#[cfg(target_arch = "x86_64")]
pub(super) struct ByVectors;

#[cfg(target_arch = "x86_64")]
impl BlockProduct for ByVectors {
    #[inline(always)]
    unsafe fn block(
        out: *mut f32,
        operands: [*const u32; 2],
        strides: [usize; 2],
        steps: usize,
        accumulate: bool,
    ) {
        // SAFETY: by the caller's promise.
        unsafe { avx512::multiply_block(out, operands, strides, TILE_SIDE * steps, accumulate) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::SIDE;
    use crate::simd::LANES;

    /// Rows and vectors of sums in registers.
    const ROWS: usize = 8;
    const VECTORS: usize = SIDE / LANES;

    /// Multiplies a block over `words` words.
    ///
    /// # Safety
    /// As for `BlockProduct::block`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn multiply_block(
        out: *mut f32,
        [a, b]: [*const u32; 2],
        [a_stride, stride]: [usize; 2],
        words: usize,
        accumulate: bool,
    ) {
        // SAFETY: reinterprets 512 bits.
        let bf16s = |words: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(words) };
        for row in (0..SIDE).step_by(ROWS) {
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            for word in 0..words {
                // SAFETY: by the caller's promise.
                let right = unsafe {
                    let right = b.add(word * stride);
                    [
                        bf16s(_mm512_loadu_si512(right.cast())),
                        bf16s(_mm512_loadu_si512(right.add(LANES).cast())),
                    ]
                };
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: by the caller's promise.
                    let left = unsafe { *a.add((row + r) * a_stride + word) };
                    let left = bf16s(_mm512_set1_epi32(left.cast_signed()));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = _mm512_dpbf16_ps(*sum, left, right);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (v, mut sum) in sums.into_iter().enumerate() {
                    // SAFETY: by the caller's promise.
                    unsafe {
                        let target = out.add((row + r) * stride + v * LANES);
                        if accumulate {
                            sum = _mm512_add_ps(_mm512_loadu_ps(target), sum);
                        }
                        _mm512_storeu_ps(target, sum);
                    }
                }
            }
        }
    }
}
