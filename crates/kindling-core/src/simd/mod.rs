//! Vector code, written once and run on the widest instruction set of the machine.
//!
//! Kernels are generic over `Vector`, sixteen f32, and marked `#[inline(always)]`. `dispatch!`
//! wraps a kernel in one `#[target_feature]` function per instruction set and selects one at run
//! time. The layout follows the `arch` folder of the memchr crate.

pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod bf16;
pub(crate) mod cache;
mod exp;
pub(crate) mod out_tile;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, transposed};
pub(crate) use exp::{exp, sigmoid};
pub(crate) use scalar::Scalar;

/// The number of f32 in a `Vector`, on every instruction set.
pub(crate) const LANES: usize = 16;

/// An instruction set, ordered from the narrowest to the widest.
///
/// Only `detect` and `available` make one, so a value never names a set that the machine lacks.
/// `dispatch!` relies on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    #[non_exhaustive]
    Scalar,
    /// AVX2 with FMA, BMI and POPCNT.
    #[non_exhaustive]
    Avx2,
    /// AVX-512 (F, BW, DQ, VL).
    #[non_exhaustive]
    Avx512,
}

impl Isa {
    /// Returns the widest instruction set of the machine, capped by `KINDLING_ISA` (`scalar`,
    /// `avx2`, `avx512`).
    ///
    /// The cap applies to the kernels of this crate. Below AVX-512 the `gemm` crate multiplies
    /// matrices, and selects its instructions itself.
    pub fn detect() -> Self {
        Self::capped(std::env::var("KINDLING_ISA").ok().as_deref(), Self::widest())
    }

    fn capped(cap: Option<&str>, widest: Self) -> Self {
        match cap {
            Some("scalar") => Self::Scalar,
            Some("avx2") => Self::Avx2.min(widest),
            _ => widest,
        }
    }

    /// Returns every instruction set of this machine, the narrowest first.
    pub fn available() -> Vec<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512]
            .into_iter()
            .filter(|isa| *isa <= Self::widest())
            .collect()
    }

    /// Returns whether this machine has AVX-512.
    pub(crate) fn has_avx512() -> bool {
        Self::widest() == Self::Avx512
    }

    /// Returns the name that `KINDLING_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn widest() -> Self {
        use std::arch::is_x86_feature_detected as has;
        let features = [
            has!("avx2") && has!("fma"),
            // Processors with AVX2 have them, but a hypervisor may hide any feature.
            has!("bmi1") && has!("bmi2") && has!("popcnt"),
            has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl"),
        ];
        Self::of_features(features)
    }

    /// Returns the widest instruction set, given whether the machine has AVX2 and FMA, BMI and
    /// POPCNT, and AVX-512.
    #[cfg(target_arch = "x86_64")]
    fn of_features(features: [bool; 3]) -> Self {
        match features {
            [true, true, true] => Self::Avx512,
            [true, true, false] => Self::Avx2,
            _ => Self::Scalar,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn widest() -> Self {
        Self::Scalar
    }
}

/// Sixteen f32. Operations are lane-wise; `sum` folds the lanes in one fixed order.
///
/// The methods may run only on a machine that has the instruction set. `dispatch!` ensures this,
/// and the implementations are private to the crate.
pub(crate) trait Vector: Copy {
    /// The number of vectors that fit in the registers of the machine.
    const REGISTERS: usize;
    /// Returns `value` in every lane.
    fn splat(value: f32) -> Self;
    /// Loads the first sixteen elements of `source`. Panics if there are fewer.
    fn load(source: &[f32]) -> Self;
    /// Loads up to sixteen elements of `source`, and zeros in the lanes past its end.
    fn load_partial(source: &[f32]) -> Self;
    /// Loads up to sixteen bf16, and zeros in the lanes past the end of `source`.
    fn load_partial_bf16(source: &[u16]) -> Self {
        let mut lanes = [0.0; LANES];
        lanes.iter_mut().zip(source).for_each(|(lane, bits)| *lane = bf16::widen(*bits));
        Self::load(&lanes)
    }
    /// Stores to the first sixteen elements of `target`. Panics if there are fewer.
    fn store(self, target: &mut [f32]);
    /// Stores to up to sixteen elements of `target`.
    fn store_partial(self, target: &mut [f32]);
    #[must_use]
    fn add(self, other: Self) -> Self;
    #[must_use]
    fn sub(self, other: Self) -> Self;
    #[must_use]
    fn mul(self, other: Self) -> Self;
    #[must_use]
    fn div(self, other: Self) -> Self;
    /// Returns self * factor + addend, rounded once if the instruction set can fuse them.
    #[must_use]
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// Returns the larger value, `other` if either is NaN.
    #[must_use]
    fn max(self, other: Self) -> Self;
    /// Returns the smaller value, `other` if either is NaN.
    #[must_use]
    fn min(self, other: Self) -> Self;
    #[must_use]
    fn sqrt(self) -> Self;
    /// Rounds to the nearest integer, ties to even.
    #[must_use]
    fn round(self) -> Self;
    /// Returns self * 2^power, for integer powers in -126..=127.
    #[must_use]
    fn scale_by_power_of_two(self, power: Self) -> Self;
    /// Returns zero in the lanes where `x` is -inf, and `self` in the others.
    #[must_use]
    fn zero_where_negative_infinity(self, x: Self) -> Self;
    /// Swaps the lanes of each pair: (1, 0, 3, 2, ...).
    #[must_use]
    fn swap_pairs(self) -> Self;
    /// Negates the even lanes.
    #[must_use]
    fn negate_even(self) -> Self;
    /// Transposes a square: lane j of vector i becomes lane i of vector j.
    #[must_use]
    fn transposed(square: [Self; LANES]) -> [Self; LANES] {
        let mut lanes = [[0.0; LANES]; LANES];
        square.iter().zip(&mut lanes).for_each(|(vector, lanes)| vector.store(lanes));
        std::array::from_fn(|column| Self::load(&lanes.map(|lanes| lanes[column])))
    }
    /// Sums the lanes by halving: lanes 8 apart first, then 4, 2 and 1.
    fn sum(self) -> f32;
    /// Returns the largest lane.
    fn maximum(self) -> f32;
}

/// Prefetches the cache line at `address` to L1. Any address will do.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which accepts any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Prefetches the cache line at `address` to L2. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_to_l2<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which accepts any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Prefetches the cache line at `address` for writing. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_write<T>(address: *const T) {
    // Not `_MM_HINT_ET0`, which the compiler turns into a plain prefetch unless the target is known
    // to have this instruction.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which accepts any address. Processors without it ignore it.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Prefetches `len` elements from `start` on to L2. Any address will do.
#[cfg(target_arch = "x86_64")]
pub(crate) fn prefetch_run<T>(start: *const T, len: usize) {
    const CACHE_LINE: usize = 64;
    let bytes = start.cast::<i8>();
    // From the start of a cache line, so that the last line is not skipped.
    let skew = bytes.addr() % CACHE_LINE;
    for at in (0..skew + len * size_of::<T>()).step_by(CACHE_LINE) {
        prefetch_to_l2(bytes.wrapping_sub(skew).wrapping_add(at));
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch_run<T>(_start: *const T, _len: usize) {}

/// Defines a function that runs a generic kernel on a given instruction set.
///
/// `dispatch! { fn name(a: &[f32], b: &mut [f32]) -> f32 = kernel; }` defines `name(isa, a, b)`,
/// which calls `kernel::<Avx512>(a, b)` and so on. The kernel is declared as
/// `#[inline(always)] fn kernel<V: Vector>(..)`.
macro_rules! dispatch {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? = $kernel:ident;) => {
        $(#[$meta])*
        $visibility fn $name(isa: $crate::simd::Isa, $($argument: $type),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($argument: $type),*) $(-> $output)? {
                    $kernel::<$crate::simd::Avx512>($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) $(-> $output)? {
                    $kernel::<$crate::simd::Avx2>($($argument),*)
                }
                match isa {
                    // SAFETY: an Isa above Scalar exists only on a machine that has its features.
                    $crate::simd::Isa::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::simd::Isa::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::simd::Isa::Scalar => {}
                }
            }
            let _ = isa;
            $kernel::<$crate::simd::Scalar>($($argument),*)
        }
    };
}
pub(crate) use dispatch;

/// Builds an array from an expression of the index 0 to 15. The expression is written out sixteen
/// times, since a loop would keep the array in memory rather than in registers.
macro_rules! sixteen {
    ($index:ident => $value:expr) => {
        $crate::simd::sixteen!(@ $index $value, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $index:ident $value:expr, $($at:literal)*) => {
        [$({ let $index: usize = $at; $value }),*]
    };
}
pub(crate) use sixteen;

/// Runs a body over `0..len`, sixteen elements at a time: `for_vectors!(range in len => { ... })`.
/// The last range may be shorter.
///
/// The body is written out twice. In the first copy the compiler knows the length of the range, and
/// turns partial loads into full ones.
macro_rules! for_vectors {
    ($range:ident in $len:expr => $body:block) => {{
        let len: usize = $len;
        let whole = len - len % $crate::simd::LANES;
        let mut at = 0;
        while at < whole {
            let $range = at..at + $crate::simd::LANES;
            $body
            at += $crate::simd::LANES;
        }
        if whole < len {
            let $range = whole..len;
            $body
        }
    }};
}
pub(crate) use for_vectors;

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn kindling_isa_caps_the_instruction_set_and_never_widens_it() {
        assert_eq!(Isa::capped(Some("scalar"), Isa::Avx512), Isa::Scalar);
        assert_eq!(Isa::capped(Some("avx2"), Isa::Avx512), Isa::Avx2);
        assert_eq!(Isa::capped(Some("avx2"), Isa::Scalar), Isa::Scalar);
        assert_eq!(Isa::capped(Some("avx512"), Isa::Avx2), Isa::Avx2);
        assert_eq!(Isa::capped(None, Isa::Avx512), Isa::Avx512);
        assert_eq!(Isa::available().first(), Some(&Isa::Scalar));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_machine_that_hides_bmi_runs_the_scalar_code() {
        assert_eq!(Isa::of_features([true, true, false]), Isa::Avx2);
        assert_eq!(Isa::of_features([true, false, true]), Isa::Scalar);
        assert_eq!(Isa::of_features([false, true, true]), Isa::Scalar);
    }
}
