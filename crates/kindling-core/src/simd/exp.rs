//! Vector exponential and sigmoid.
//!
//! exp splits x = k ln 2 + r, |r| <= ln 2 / 2, takes a polynomial of degree 6 for e^r, and scales
//! it by 2^k. The split of ln 2 is Cody and Waite's; the coefficients are those of expf in Cephes.

use super::Vector;

/// Returns e^x, within 2 units in the last place.
///
/// Finite x are clamped to -87.3..88.3, so that the result is a normal number. e^-inf is 0, and NaN
/// stays NaN.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    exp_clamped(x).zero_where_negative_infinity(x)
}

/// Like `exp`, but clamps -inf as well.
#[inline(always)]
fn exp_clamped<V: Vector>(x: V) -> V {
    // max and min return their second operand if either is NaN, so x comes second: NaN stays NaN.
    let clamped = V::splat(-87.336_54).max(V::splat(88.376_26).min(x));
    let k = clamped.mul(V::splat(std::f32::consts::LOG2_E)).round();
    let r = k.mul_add(V::splat(-0.693_359_4), clamped);
    let r = k.mul_add(V::splat(2.121_944_4e-4), r);
    let mut p = V::splat(1.987_569_1e-4);
    p = p.mul_add(r, V::splat(1.398_199_9e-3));
    p = p.mul_add(r, V::splat(8.333_452e-3));
    p = p.mul_add(r, V::splat(4.166_579_6e-2));
    p = p.mul_add(r, V::splat(1.666_666_5e-1));
    p = p.mul_add(r, V::splat(0.5));
    let e = p.mul_add(r.mul(r), r).add(V::splat(1.0));
    e.scale_by_power_of_two(k)
}

/// Returns 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(x: V) -> V {
    let one = V::splat(1.0);
    one.div(one.add(exp_clamped(V::splat(0.0).sub(x))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, LANES};

    #[inline(always)]
    fn exp_vector<V: Vector>(x: &[f32], out: &mut [f32]) {
        exp(V::load(x)).store(out);
    }
    crate::dispatch! { fn exp_slice(x: &[f32], out: &mut [f32]) = exp_vector; }

    #[test]
    fn exp_is_within_two_ulps_on_every_instruction_set() {
        for isa in Isa::available() {
            let mut worst = 0.0f64;
            for step in 0..20_000 {
                let x: [f32; LANES] = std::array::from_fn(|i| {
                    -87.0 + (step * LANES + i) as f32 * (175.0 / 320_000.0)
                });
                let mut out = [0.0; LANES];
                exp_slice(isa, &x, &mut out);
                for (x, y) in x.iter().zip(out) {
                    let exact = f64::from(*x).exp();
                    let unit = f64::from(f32::EPSILON) * 2f64.powi(exact.log2().floor() as i32);
                    worst = worst.max((f64::from(y) - exact).abs() / unit);
                }
            }
            assert!(worst <= 2.0, "{isa:?}: {worst}");
        }
    }

    #[test]
    fn exp_of_minus_infinity_is_zero_and_of_any_other_number_is_not() {
        for isa in Isa::available() {
            let mut x = [f32::MIN; LANES];
            x[3] = f32::NEG_INFINITY;
            x[12] = f32::NEG_INFINITY;
            let mut out = [9.0; LANES];
            exp_slice(isa, &x, &mut out);
            for (x, y) in x.iter().zip(out) {
                let right = if x.is_finite() { (1e-38..2e-38).contains(&y) } else { y == 0.0 };
                assert!(right, "{isa:?}: exp({x}) is {y}");
            }
        }
    }

    #[test]
    fn exp_of_nan_is_nan() {
        for isa in Isa::available() {
            let mut out = [0.0; LANES];
            exp_slice(isa, &[f32::NAN; LANES], &mut out);
            assert!(out.iter().all(|x| x.is_nan()));
        }
    }

    #[inline(always)]
    fn partial_kernel<V: Vector>(x: &[f32], out: &mut [f32]) -> (f32, f32, f32) {
        let v = V::load_partial(x);
        v.swap_pairs().negate_even().store_partial(out);
        (v.sum(), v.maximum(), v.round().sum())
    }
    crate::dispatch! { fn partial(x: &[f32], out: &mut [f32]) -> (f32, f32, f32) = partial_kernel; }

    #[test]
    fn partial_loads_pad_with_zeros_and_partial_stores_stop_at_the_end() {
        for isa in Isa::available() {
            for len in 1..=LANES {
                let x: Vec<f32> = (0..len).map(|i| i as f32 * 0.75 - 2.0).collect();
                let mut out = vec![9.0; len];
                let (sum, maximum, rounded) = partial(isa, &x, &mut out);
                assert!((sum - x.iter().sum::<f32>()).abs() < 1e-5);
                let padded = if len < LANES { x[len - 1].max(0.0) } else { x[len - 1] };
                assert!((maximum - padded).abs() < 1e-6, "{isa:?} {len}");
                assert!(
                    (rounded - x.iter().map(|v| v.round_ties_even()).sum::<f32>()).abs() < 1e-5
                );
                for i in 0..len {
                    let swapped = x.get(i ^ 1).copied().unwrap_or(0.0);
                    let wanted = if i % 2 == 0 { -swapped } else { swapped };
                    assert!((out[i] - wanted).abs() < 1e-6);
                }
            }
        }
    }
}
