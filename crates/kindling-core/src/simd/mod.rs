//! Instruction sets of the inner loops, chosen once at run time.

/// An instruction set, from the plainest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Portable code.
    Scalar,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL).
    Avx512,
}

impl Isa {
    /// The widest the machine has, or the one `KINDLING_ISA` (scalar, avx2, avx512) names if the machine has it.
    pub fn detect() -> Self {
        let widest = Self::widest();
        let asked = match std::env::var("KINDLING_ISA").as_deref() {
            Ok("scalar") => Self::Scalar,
            Ok("avx2") => Self::Avx2,
            Ok("avx512") => Self::Avx512,
            _ => widest,
        };
        asked.min(widest)
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
