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
        _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    };

    use super::super::{Block, WIDTH};
    use super::ROWS;

    const LANES: usize = 16;
    /// Words along k by which panels are fetched to L1 before they are read: longer ones than L1 holds come from L2 each time.
    const AHEAD: usize = 8;

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
        unsafe { by_size::<Pairs>(a, b, block) }
    }

    /// As `multiply_pairs`, a word one f32.
    ///
    /// # Safety
    /// The machine has AVX-512, and the block may be written.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn multiply_f32(a: &[u32], b: &[u32], block: Block) {
        // SAFETY: the caller's promises.
        unsafe { by_size::<Single>(a, b, block) }
    }

    /// As many rows, two at a time, and registers of columns as the block has.
    ///
    /// # Safety
    /// Those of `multiply_pairs`.
    #[inline(always)]
    unsafe fn by_size<S: Step>(a: &[u32], b: &[u32], block: Block) {
        macro_rules! of_rows {
            ($halves:literal) => {
                match block.rows.div_ceil(2) {
                    0 => {}
                    1 => multiply::<S, 2, $halves>(a, b, block),
                    2 => multiply::<S, 4, $halves>(a, b, block),
                    3 => multiply::<S, 6, $halves>(a, b, block),
                    4 => multiply::<S, 8, $halves>(a, b, block),
                    5 => multiply::<S, 10, $halves>(a, b, block),
                    6 => multiply::<S, 12, $halves>(a, b, block),
                    _ => multiply::<S, ROWS, $halves>(a, b, block),
                }
            };
        }
        // SAFETY: the caller's promises.
        unsafe {
            if block.columns > LANES {
                of_rows!(2);
            } else {
                of_rows!(1);
            }
        }
    }

    /// `R` rows and `V` registers of columns, which hold the block.
    ///
    /// # Safety
    /// Those of `multiply_pairs`.
    #[inline(always)]
    unsafe fn multiply<S: Step, const R: usize, const V: usize>(
        a: &[u32],
        b: &[u32],
        block: Block,
    ) {
        let words = b.len() / WIDTH;
        assert!(
            a.len() == words * ROWS
                && block.rows <= R
                && block.rows + 1 >= R
                && block.columns <= V * LANES
        );
        let mask = |columns: usize| ((1u32 << columns.min(LANES)) - 1) as u16;
        let masks: [u16; V] = std::array::from_fn(|half| mask(block.columns - half * LANES));
        let row = |row: usize, half: usize| {
            // SAFETY: a row of the block.
            unsafe { block.address.add(row * block.stride).wrapping_add(half * LANES) }
        };
        // SAFETY: the caller's promises; words of the panels, asserted above; elements of the block, by the masks.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); V]; R];
            let (mut left, mut right) = (a.as_ptr(), b.as_ptr());
            let mut done = 0;
            for index in 0..=R {
                // The block comes while its sums are made, row by row: to be added to, or for stores that need not wait for it.
                if index < block.rows {
                    for half in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(row(index, half).cast());
                    }
                }
                let end = if index < R { words * (index + 1) / (2 * R) } else { words };
                while done < end {
                    for half in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(
                            right.wrapping_add(AHEAD * WIDTH + half * LANES).cast(),
                        );
                    }
                    _mm_prefetch::<_MM_HINT_T0>(left.wrapping_add(2 * AHEAD * ROWS).cast());
                    let columns: [__m512i; V] = std::array::from_fn(|half| {
                        _mm512_loadu_si512(right.add(half * LANES).cast())
                    });
                    for (index, sums) in sums.iter_mut().enumerate() {
                        let word = _mm512_set1_epi32((*left.add(index)).cast_signed());
                        for half in 0..V {
                            sums[half] = S::step(sums[half], word, columns[half]);
                        }
                    }
                    left = left.add(ROWS);
                    right = right.add(WIDTH);
                    done += 1;
                }
            }
            // Written out, so that the sums stay in registers.
            macro_rules! store {
                ($($index:literal)*) => {
                    $(
                        if $index + 1 < R || $index + 1 == R && block.rows == R {
                            for half in 0..V {
                                let mut sum = sums[$index % R][half];
                                if block.accumulate {
                                    sum = _mm512_add_ps(_mm512_maskz_loadu_ps(masks[half], row($index, half)), sum);
                                }
                                _mm512_mask_storeu_ps(row($index, half), masks[half], sum);
                            }
                        }
                    )*
                };
            }
            store!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
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
