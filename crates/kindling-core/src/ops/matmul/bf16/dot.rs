//! A block of 14 x 32 by `vdpbf16ps`: 28 sums in registers, two registers of b, one pair of a broadcast to all lanes.

use super::{Block, WIDTH};

/// Rows of a panel of a.
pub(super) const ROWS: usize = 14;

/// block = a b (or += ) for a panel of a, [pair][row], and one of b, [pair][column].
///
/// # Safety
/// The machine has AVX512-BF16, and the block may be written.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply(a: &[u32], b: &[u32], block: Block) {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    };
    const LANES: usize = 16;
    let pairs = b.len() / WIDTH;
    assert!(a.len() == pairs * ROWS);
    let mask = |columns: usize| ((1u32 << columns.min(LANES)) - 1) as u16;
    let masks = [mask(block.columns), mask(block.columns.saturating_sub(LANES))];
    let row = |row: usize, half: usize| {
        // SAFETY: a row of the block, or where its mask is 0 an address that is not used.
        unsafe { block.address.add(row * block.stride).wrapping_add(half * LANES) }
    };
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    if block.accumulate {
        for (index, sums) in sums.iter_mut().enumerate().take(block.rows) {
            for half in 0..2 {
                // SAFETY: the block's elements, by the mask.
                sums[half] = unsafe { _mm512_maskz_loadu_ps(masks[half], row(index, half)) };
            }
        }
    }
    let (mut left, mut right) = (a.as_ptr(), b.as_ptr());
    for _ in 0..pairs {
        // SAFETY: `pairs` rows of ROWS and WIDTH elements, asserted above.
        unsafe {
            let columns: [__m512bh; 2] = [
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.cast())),
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.add(LANES).cast())),
            ];
            for (index, sums) in sums.iter_mut().enumerate() {
                let pair = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(
                    (*left.add(index)).cast_signed(),
                ));
                sums[0] = _mm512_dpbf16_ps(sums[0], pair, columns[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], pair, columns[1]);
            }
            left = left.add(ROWS);
            right = right.add(WIDTH);
        }
    }
    for (index, sums) in sums.iter().enumerate().take(block.rows) {
        for half in 0..2 {
            // SAFETY: the block's elements, by the mask.
            unsafe { _mm512_mask_storeu_ps(row(index, half), masks[half], sums[half]) };
        }
    }
}

/// There is no such kernel on other processors.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply(_a: &[u32], _b: &[u32], _block: Block) {
    unreachable!("Kernel::Dot exists on x86-64 only");
}
