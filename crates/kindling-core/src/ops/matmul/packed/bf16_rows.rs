//! Vectors and matrices kept as bf16, for products of a few rows, whose time is that of reading the
//! weight.

use crate::ops::{RowsMut, Tasks, split_rows};
use crate::pool::Pool;
use crate::simd::bf16;

/// Rounds values to bf16, on all threads.
pub(crate) fn round_to_bf16(pool: &Pool, values: &[f32]) -> Vec<u16> {
    let mut rounded = vec![0; values.len()];
    let tasks = Tasks::of_rows(values.len(), 1);
    split_rows(pool, tasks, RowsMut::new(&mut rounded, 1), |range, rounded| {
        bf16::round_all(rounded, &values[range]);
    });
    rounded
}

/// Computes out[o] = x . weight[o], for rows of `x.len()` bf16, with sums in f32. Reads each weight
/// once.
pub(crate) fn dot_rows(out: &mut [f32], x: &[u16], weight: &[u16]) {
    assert!(weight.len() == out.len() * x.len());
    #[cfg(target_arch = "x86_64")]
    if bf16::is_available() {
        // SAFETY: the machine has AVX512-BF16.
        unsafe { avx512::dot_rows(out, x, weight) };
        return;
    }
    for (out, row) in out.iter_mut().zip(weight.chunks_exact(x.len().max(1))) {
        *out = x.iter().zip(row).map(|(x, w)| bf16::widen(*x) * bf16::widen(*w)).sum();
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_maskz_loadu_epi16,
        _mm512_reduce_add_ps, _mm512_setzero_ps,
    };

    /// bf16 in a register.
    const VALUES: usize = 32;

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn dot_rows(out: &mut [f32], x: &[u16], weight: &[u16]) {
        for (out, row) in out.iter_mut().zip(weight.chunks_exact(x.len().max(1))) {
            let mut sums = [_mm512_setzero_ps(); 4];
            let mut step = |x: &[u16], row: &[u16], sum: usize| {
                let mask = u32::MAX >> (VALUES - x.len());
                // SAFETY: the mask covers the values of x and row; the transmutes keep the 512
                // bits.
                let (x, row) = unsafe {
                    (
                        std::mem::transmute::<__m512i, __m512bh>(_mm512_maskz_loadu_epi16(
                            mask,
                            x.as_ptr().cast(),
                        )),
                        std::mem::transmute::<__m512i, __m512bh>(_mm512_maskz_loadu_epi16(
                            mask,
                            row.as_ptr().cast(),
                        )),
                    )
                };
                sums[sum] = _mm512_dpbf16_ps(sums[sum], x, row);
            };
            let whole = x.len() / (4 * VALUES) * (4 * VALUES);
            for at in (0..whole).step_by(4 * VALUES) {
                for sum in 0..4 {
                    let at = at + sum * VALUES;
                    step(&x[at..at + VALUES], &row[at..at + VALUES], sum);
                }
            }
            for (x, row) in x[whole..].chunks(VALUES).zip(row[whole..].chunks(VALUES)) {
                step(x, row, 0);
            }
            let both = [_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])];
            *out = _mm512_reduce_add_ps(_mm512_add_ps(both[0], both[1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_products_of_bf16_rows_match_sums_in_f64() {
        let pool = Pool::new(2);
        for (rows, columns) in [(1, 1), (3, 31), (5, 32), (7, 129), (2, 1000)] {
            let values = |seed: f32, len: usize| -> Vec<f32> {
                (0..len).map(|i| (i as f32 * seed).sin()).collect()
            };
            let (x, weight) = (
                round_to_bf16(&pool, &values(0.7, columns)),
                round_to_bf16(&pool, &values(1.3, rows * columns)),
            );
            let mut out = vec![9.0; rows];
            dot_rows(&mut out, &x, &weight);
            for (out, row) in out.iter().zip(weight.chunks(columns)) {
                let product =
                    |(x, w): (&u16, &u16)| f64::from(bf16::widen(*x)) * f64::from(bf16::widen(*w));
                let expected: f64 = x.iter().zip(row).map(product).sum();
                assert!(
                    (f64::from(*out) - expected).abs() < 1e-4,
                    "{rows} {columns}: {out} {expected}"
                );
            }
        }
    }
}
