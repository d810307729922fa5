//! `Vector` in portable code.

use super::{LANES, Vector};

/// Sixteen f32 in an array.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar([f32; LANES]);

impl Scalar {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Scalar {
    const REGISTERS: usize = 4;
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    fn load(source: &[f32]) -> Self {
        Self(std::array::from_fn(|i| source[i]))
    }
    #[inline(always)]
    fn load_partial(source: &[f32]) -> Self {
        if source.len() >= LANES {
            return Self::load(source);
        }
        Self(std::array::from_fn(|i| source.get(i).copied().unwrap_or(0.0)))
    }
    #[inline(always)]
    fn store(self, target: &mut [f32]) {
        target[..LANES].copy_from_slice(&self.0);
    }
    #[inline(always)]
    fn store_partial(self, target: &mut [f32]) {
        if target.len() >= LANES {
            return self.store(target);
        }
        let len = target.len().min(LANES);
        target[..len].copy_from_slice(&self.0[..len]);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Not `f32::mul_add`, which would call libm for each lane.
        Self(std::array::from_fn(|i| self.0[i] * factor.0[i] + addend.0[i]))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    fn round(self) -> Self {
        // Adding and subtracting 1.5 * 2^23 rounds to even for |x| < 2^22, without a call to libm.
        const MAGIC: f32 = 12_582_912.0;
        Self(self.0.map(|x| if x.abs() < 4_194_304.0 { (x + MAGIC) - MAGIC } else { x }))
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, power: Self) -> Self {
        self.zip(power, |x, p| x * f32::from_bits(((p as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn zero_where_negative_infinity(self, x: Self) -> Self {
        self.zip(x, |value, x| if x == f32::NEG_INFINITY { 0.0 } else { value })
    }
    #[inline(always)]
    fn swap_pairs(self) -> Self {
        Self(std::array::from_fn(|i| self.0[i ^ 1]))
    }
    #[inline(always)]
    fn negate_even(self) -> Self {
        Self(std::array::from_fn(|i| if i % 2 == 0 { -self.0[i] } else { self.0[i] }))
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        fold(self.0, |a, b| a + b)
    }
    #[inline(always)]
    fn maximum(self) -> f32 {
        fold(self.0, |a, b| if a > b { a } else { b })
    }
}

/// Folds the lanes by halving, in the order of the vector instruction sets.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}
