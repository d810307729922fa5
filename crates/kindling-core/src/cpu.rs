//! The CPU as a device: its threads, its instruction set, and the code that multiplies matrices.

use crate::dtype::Dtype;
use crate::host_memory::HostScratch;
use crate::pool::Pool;
use crate::profile::Profile;
use crate::simd::{Isa, amx, bf16};

/// The CPU: the engine's own threads, and the instruction sets chosen at run time.
#[derive(Debug)]
pub struct Cpu {
    pub pool: Pool,
    /// Instruction set of the inner loops.
    pub isa: Isa,
    pub matmul: MatmulBackend,
    /// Scratch memory for packed or transposed operands of the current product.
    pub(crate) scratch: HostScratch,
    pub profile: Profile,
}

impl Cpu {
    /// Creates the device and starts its pool of `threads` threads.
    pub fn new(threads: usize, isa: Isa, matmul: MatmulBackend) -> Self {
        let (scratch, profile) = (HostScratch::default(), Profile::default());
        Self { pool: Pool::new(threads), isa, matmul, scratch, profile }
    }
}

/// The code that multiplies matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatmulBackend {
    /// The `gemm` crate, in f32. It chooses its own instruction set.
    Gemm,
    /// A kernel of the engine over packed operands. Small f32 products still go to the `gemm`
    /// crate.
    Packed(MatmulKernel),
}

impl MatmulBackend {
    /// Selects this machine's fastest backend for operands of `dtype`. Falls back from bf16 to f32
    /// if the CPU has no bf16 instructions.
    pub fn detect(dtype: Dtype) -> Self {
        let kernel = match dtype {
            Dtype::F32 => MatmulKernel::detect_f32(),
            Dtype::Bf16 => MatmulKernel::detect_bf16().or_else(MatmulKernel::detect_f32),
        };
        kernel.map_or(Self::Gemm, Self::Packed)
    }

    /// Returns the dtype that operands are rounded to.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::Gemm => Dtype::F32,
            Self::Packed(kernel) => kernel.dtype(),
        }
    }
}

/// A kernel that multiplies packed panels (`ops::matmul::packed`).
///
/// Only the functions below construct one, so a value proves that the machine can run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatmulKernel {
    /// f32, by fused multiply-adds of AVX-512.
    #[non_exhaustive]
    Avx512,
    /// bf16, by `vdpbf16ps` of AVX512-BF16.
    #[non_exhaustive]
    Avx512Bf16,
    /// bf16, by the tiles of AMX-BF16.
    #[non_exhaustive]
    Amx,
    /// bf16, by plain code that does the arithmetic of `Amx`, to test its packing and blocking on
    /// any machine.
    EmulatedAmx,
}

impl MatmulKernel {
    /// Returns the kernel for f32, or `None` if the CPU lacks AVX-512 or `KINDLING_ISA` is `scalar`
    /// or `avx2`.
    pub fn detect_f32() -> Option<Self> {
        (Isa::detect() == Isa::Avx512).then_some(Self::Avx512)
    }

    /// Returns the fastest kernel for bf16, or `None` if the CPU lacks AVX512-BF16.
    ///
    /// `KINDLING_ISA` caps the choice: `scalar`, `avx2` and `avx512` allow none, and `avx512bf16`
    /// excludes `Amx`.
    pub fn detect_bf16() -> Option<Self> {
        Self::capped_bf16(std::env::var("KINDLING_ISA").ok().as_deref())
    }

    fn capped_bf16(cap: Option<&str>) -> Option<Self> {
        if !bf16::is_available() {
            return None;
        }
        match cap {
            Some("scalar" | "avx2" | "avx512") => None,
            Some("avx512bf16") => Some(Self::Avx512Bf16),
            _ => Some(if amx::is_available() { Self::Amx } else { Self::Avx512Bf16 }),
        }
    }

    /// Returns every kernel that this machine can run.
    pub fn available() -> Vec<Self> {
        let mut kernels = vec![Self::EmulatedAmx];
        kernels.extend(Isa::has_avx512().then_some(Self::Avx512));
        kernels.extend(bf16::is_available().then_some(Self::Avx512Bf16));
        kernels.extend(amx::is_available().then_some(Self::Amx));
        kernels
    }

    /// Returns `Amx` without a check of the CPU, for a test that emulates the instructions. Returns
    /// `None` if these do not compute what `EmulatedAmx` does.
    ///
    /// # Safety
    /// Either this process may use AMX-BF16, or a SIGILL handler emulates its instructions.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub unsafe fn amx_unchecked() -> Option<Self> {
        amx::matches_emulation().then_some(Self::Amx)
    }

    /// Returns the name as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
            Self::EmulatedAmx => "emulated",
        }
    }

    /// Returns the dtype that operands are rounded to.
    pub fn dtype(self) -> Dtype {
        if self == Self::Avx512 { Dtype::F32 } else { Dtype::Bf16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kindling_isa_caps_the_bf16_kernel() {
        for name in ["scalar", "avx2", "avx512"] {
            assert_eq!(MatmulKernel::capped_bf16(Some(name)), None);
        }
        if bf16::is_available() {
            let capped = MatmulKernel::capped_bf16(Some("avx512bf16"));
            assert_eq!(capped, Some(MatmulKernel::Avx512Bf16));
            assert!(MatmulKernel::capped_bf16(None).is_some());
        }
    }
}
