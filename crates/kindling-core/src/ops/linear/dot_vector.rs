//! The vectors that a dot product reads, for each element type and instruction set.

use crate::simd::{LANES, Vector};

/// Neighbouring elements of a row, whose products are added to vectors of f32.
pub(super) trait DotVector: Copy {
    type Element: Copy;
    type Sums: Copy;
    /// Elements in a vector.
    const LEN: usize;
    /// Whether the registers hold a block of 4 x 4 sums, or only one of 2 x 2.
    const MANY_REGISTERS: bool;
    fn zero() -> Self::Sums;
    /// Loads the first `LEN` elements of `source`. Panics if there are fewer.
    fn load(source: &[Self::Element]) -> Self;
    /// Loads up to `LEN` elements of `source`, and zeros past its end.
    fn load_partial(source: &[Self::Element]) -> Self;
    /// Adds the products of the elements to `sums`.
    fn multiply_add(self, other: Self, sums: Self::Sums) -> Self::Sums;
    fn total(sums: Self::Sums) -> f32;
}

impl<V: Vector> DotVector for V {
    type Element = f32;
    type Sums = V;
    const LEN: usize = LANES;
    const MANY_REGISTERS: bool = V::REGISTERS >= 32;
    #[inline(always)]
    fn zero() -> V {
        V::splat(0.0)
    }
    #[inline(always)]
    fn load(source: &[f32]) -> V {
        <V as Vector>::load(source)
    }
    #[inline(always)]
    fn load_partial(source: &[f32]) -> V {
        <V as Vector>::load_partial(source)
    }
    #[inline(always)]
    fn multiply_add(self, other: V, sums: V) -> V {
        self.mul_add(other, sums)
    }
    #[inline(always)]
    fn total(sums: V) -> f32 {
        sums.sum()
    }
}
