//! Vector code written once, run on the widest instruction set the machine has.
//!
//! Kernels are generic over `Vector`, sixteen f32 at a time, and marked `#[inline(always)]`; `dispatch!` wraps each in one
//! function an instruction set (`#[target_feature]`) and picks at run time. The layout follows memchr's `arch` folder.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod bf16;
mod exp;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, transposed};
pub(crate) use exp::{exp, sigmoid};
pub(crate) use scalar::Scalar;

/// Number of f32 in one `Vector` value, on every instruction set.
pub(crate) const LANES: usize = 16;

/// An instruction set, from the plainest to the widest. Only `detect` and `available` make one, so that there is none the
/// machine lacks: kernels rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Portable code.
    #[non_exhaustive]
    Scalar,
    /// AVX2 with FMA.
    #[non_exhaustive]
    Avx2,
    /// AVX-512 (F, BW, DQ, VL).
    #[non_exhaustive]
    Avx512,
}

impl Isa {
    /// The widest the machine has, or a narrower one that `KINDLING_ISA` (scalar, avx2, avx512) names. It chooses for the
    /// kernels of this crate; below AVX-512 matrix products are the `gemm` crate's, which chooses by itself.
    pub fn detect() -> Self {
        Self::narrowed(std::env::var("KINDLING_ISA").ok().as_deref(), Self::widest())
    }

    /// The one asked for by name where the machine has it, otherwise the widest.
    fn narrowed(asked: Option<&str>, widest: Self) -> Self {
        match asked {
            Some("scalar") => Self::Scalar,
            Some("avx2") => Self::Avx2.min(widest),
            _ => widest,
        }
    }

    /// Every instruction set this machine can run, the plainest first.
    pub fn available() -> Vec<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512]
            .into_iter()
            .filter(|isa| *isa <= Self::widest())
            .collect()
    }

    /// Whether this machine has AVX-512.
    pub(crate) fn has_avx512() -> bool {
        Self::widest() == Self::Avx512
    }

    /// Its name, as `KINDLING_ISA` takes it.
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
        if !(has!("avx2") && has!("fma")) {
            return Self::Scalar;
        }
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            Self::Avx512
        } else {
            Self::Avx2
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn widest() -> Self {
        Self::Scalar
    }
}

/// Sixteen f32. Every operation is lane by lane; sums fold the lanes in one fixed order.
///
/// The methods of an implementation may only run where its instruction set is available: `dispatch!` sees to it, and the
/// implementations are private to the crate.
pub(crate) trait Vector: Copy {
    /// How many values the machine's registers hold at once.
    const REGISTERS: usize;
    /// The same value in every lane.
    fn splat(value: f32) -> Self;
    /// The first sixteen elements of `source`, which has at least as many.
    fn load(source: &[f32]) -> Self;
    /// The elements of `source` (at most sixteen), zero in the lanes past its end.
    fn load_partial(source: &[f32]) -> Self;
    /// Writes the first sixteen elements of `target`, which has at least as many.
    fn store(self, target: &mut [f32]);
    /// Writes as many lanes as `target` has elements (at most sixteen).
    fn store_partial(self, target: &mut [f32]);
    /// Sum.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// Difference.
    #[must_use]
    fn sub(self, other: Self) -> Self;
    /// Product.
    #[must_use]
    fn mul(self, other: Self) -> Self;
    /// Quotient.
    #[must_use]
    fn div(self, other: Self) -> Self;
    /// self x factor + addend, rounded once where the machine can.
    #[must_use]
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The larger of both; `other` where either is NaN.
    #[must_use]
    fn max(self, other: Self) -> Self;
    /// The smaller of both; `other` where either is NaN.
    #[must_use]
    fn min(self, other: Self) -> Self;
    /// Square root.
    #[must_use]
    fn sqrt(self) -> Self;
    /// Nearest whole number, ties to even.
    #[must_use]
    fn round(self) -> Self;
    /// self x 2^power for whole powers in -126..=127.
    #[must_use]
    fn scale_by_power_of_two(self, power: Self) -> Self;
    /// Returns zero in the lanes where `x` is -inf, and `self` in the others.
    #[must_use]
    fn zero_where_negative_infinity(self, x: Self) -> Self;
    /// Swaps the two lanes of each pair: (1, 0, 3, 2, ...).
    #[must_use]
    fn swap_pairs(self) -> Self;
    /// Negates the even lanes: (-0, 1, -2, 3, ...).
    #[must_use]
    fn negate_even(self) -> Self;
    /// Lane j of value i becomes lane i of value j.
    #[must_use]
    fn transposed(square: [Self; LANES]) -> [Self; LANES] {
        let mut lanes = [[0.0; LANES]; LANES];
        square.iter().zip(&mut lanes).for_each(|(value, lanes)| value.store(lanes));
        std::array::from_fn(|column| Self::load(&lanes.map(|lanes| lanes[column])))
    }
    /// Sum of the lanes: ((0+8)+(4+12)) and so on, halving.
    fn sum(self) -> f32;
    /// Largest lane.
    fn maximum(self) -> f32;
}

/// Asks for the line of the cache at `place` to come to L1; takes any address.
#[inline(always)]
pub(crate) fn fetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Asks for `len` elements from `start` on to come to L2; takes any address.
#[cfg(target_arch = "x86_64")]
pub(crate) fn fetch_line<T>(start: *const T, len: usize) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    const CACHE_LINE: usize = 64;
    let bytes = start.cast::<i8>();
    // From where a cache line begins, so that none is left out.
    let skew = bytes.addr() % CACHE_LINE;
    for at in (0..skew + len * size_of::<T>()).step_by(CACHE_LINE) {
        // SAFETY: a hint that takes any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.wrapping_sub(skew).wrapping_add(at)) };
    }
}

/// There is no such hint elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn fetch_line<T>(_start: *const T, _len: usize) {}

/// Defines a function that runs a generic kernel on the chosen instruction set.
///
/// `dispatch! { pub fn name(isa, a: &[f32], b: &mut [f32]) -> f32 = kernel; }` calls `kernel::<Avx512>(a, b)` and so on;
/// `kernel` is `#[inline(always)] fn kernel<V: Vector>(...)`.
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
                    // SAFETY: an Isa above Scalar only exists where the machine has been asked for these features.
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

/// An array of what an expression gives for 0 to 15, written out: a loop would keep it in memory.
macro_rules! sixteen {
    ($index:ident => $value:expr) => {
        $crate::simd::sixteen!(@ $index $value, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $index:ident $value:expr, $($at:literal)*) => {
        [$({ let $index: usize = $at; $value }),*]
    };
}
pub(crate) use sixteen;

/// Runs a body over `0..len`, sixteen elements at a time, the rest at the end: `for_vectors!(range in len => { ... })`.
///
/// The body is written out twice, so that in the first the compiler knows the length and drops the partial loads' checks.
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
    fn a_name_narrows_the_instruction_set_and_never_widens_it() {
        assert_eq!(Isa::narrowed(Some("scalar"), Isa::Avx512), Isa::Scalar);
        assert_eq!(Isa::narrowed(Some("avx2"), Isa::Avx512), Isa::Avx2);
        assert_eq!(Isa::narrowed(Some("avx2"), Isa::Scalar), Isa::Scalar);
        assert_eq!(Isa::narrowed(Some("avx512"), Isa::Avx2), Isa::Avx2);
        assert_eq!(Isa::narrowed(None, Isa::Avx512), Isa::Avx512);
        assert_eq!(Isa::available().first(), Some(&Isa::Scalar));
    }
}
