//! A block of 14 x 32 by vectors of AVX-512: 28 sums in registers, two registers of b, one word of a broadcast to all lanes. A
//! word is two bf16 for `vdpbf16ps`, or one f32 for a fused multiply-add.

/// Rows of a panel of a.
pub(super) const ROWS: usize = 14;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::{multiply_f32, multiply_pairs};

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_castsi512_ps,
        _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
        _mm512_set1_epi32, _mm512_setzero_ps,
    };

    use super::super::{Block, WIDTH};
    use super::ROWS;

    const LANES: usize = 16;

    /// sum + a b for words of a and b.
    ///
    /// # Safety
    /// The machine has the instruction.
    trait Step {
        unsafe fn step(sum: __m512, a: __m512i, b: __m512i) -> __m512;
    }

    struct Pairs;

    impl Step for Pairs {
        #[inline(always)]
        unsafe fn step(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: the caller's promise; the same 512 bits.
            unsafe {
                _mm512_dpbf16_ps(
                    sum,
                    std::mem::transmute::<__m512i, __m512bh>(a),
                    std::mem::transmute::<__m512i, __m512bh>(b),
                )
            }
        }
    }

    struct Single;

    impl Step for Single {
        #[inline(always)]
        unsafe fn step(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum) }
        }
    }

    /// block = a b (or +=) for a panel of a, [pair][row], and one of b, [pair][column].
    ///
    /// # Safety
    /// The machine has AVX512-BF16, and the block may be written.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(in super::super) unsafe fn multiply_pairs(a: &[u32], b: &[u32], block: Block) {
        // SAFETY: the caller's promises.
        unsafe { multiply::<Pairs>(a, b, block) }
    }

    /// As `multiply_pairs`, a word one f32.
    ///
    /// # Safety
    /// The machine has AVX-512, and the block may be written.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn multiply_f32(a: &[u32], b: &[u32], block: Block) {
        // SAFETY: the caller's promises.
        unsafe { multiply::<Single>(a, b, block) }
    }

    /// # Safety
    /// Those of `multiply_pairs`.
    #[inline(always)]
    unsafe fn multiply<S: Step>(a: &[u32], b: &[u32], block: Block) {
        let words = b.len() / WIDTH;
        assert!(a.len() == words * ROWS);
        let mask = |columns: usize| ((1u32 << columns.min(LANES)) - 1) as u16;
        let masks = [mask(block.columns), mask(block.columns.saturating_sub(LANES))];
        let row = |row: usize, half: usize| {
            // SAFETY: a row of the block, or where its mask is 0 an address that is not used.
            unsafe { block.address.add(row * block.stride).wrapping_add(half * LANES) }
        };
        // SAFETY: the caller's promises; words of the panels, asserted above; elements of the block, by the masks.
        unsafe {
            // The block comes while its sums are made: to be added to, or for stores that need not wait for it.
            for index in 0..block.rows {
                _mm_prefetch::<_MM_HINT_T0>(row(index, 0).cast());
                _mm_prefetch::<_MM_HINT_T0>(row(index, 1).cast());
            }
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            let (mut left, mut right) = (a.as_ptr(), b.as_ptr());
            for _ in 0..words {
                let columns = [_mm512_loadu_si512(right.cast()), _mm512_loadu_si512(right.add(LANES).cast())];
                for (index, sums) in sums.iter_mut().enumerate() {
                    let word = _mm512_set1_epi32((*left.add(index)).cast_signed());
                    sums[0] = S::step(sums[0], word, columns[0]);
                    sums[1] = S::step(sums[1], word, columns[1]);
                }
                left = left.add(ROWS);
                right = right.add(WIDTH);
            }
            for (index, sums) in sums.iter().enumerate().take(block.rows) {
                for half in 0..2 {
                    let mut sum = sums[half];
                    if block.accumulate {
                        sum = _mm512_add_ps(_mm512_maskz_loadu_ps(masks[half], row(index, half)), sum);
                    }
                    _mm512_mask_storeu_ps(row(index, half), masks[half], sum);
                }
            }
        }
    }
}

/// There are no such kernels on other processors.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply_pairs(_a: &[u32], _b: &[u32], _block: super::Block) {
    unreachable!("Kernel::Dot exists on x86-64 only");
}

/// As `multiply_pairs`.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply_f32(_a: &[u32], _b: &[u32], _block: super::Block) {
    unreachable!("Kernel::Fma exists on x86-64 only");
}
