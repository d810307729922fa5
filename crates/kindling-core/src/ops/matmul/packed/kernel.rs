//! What multiplies packed panels, as the machine and `KINDLING_ISA` allow.

use super::{block, pack, tiles};
use crate::dtype::Dtype;
use crate::simd::{Isa, bf16};

/// What multiplies the panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// f32 by fused multiply-adds of AVX-512.
    #[non_exhaustive]
    Fma,
    /// `vdpbf16ps` of AVX512-BF16.
    #[non_exhaustive]
    Dot,
    /// Tiles of AMX-BF16.
    #[non_exhaustive]
    Tiles,
    /// The tiles' arithmetic in plain code, to test the packing and blocking of `Tiles` on any machine.
    Emulated,
}

impl Kernel {
    /// That of f32: none without AVX-512; `KINDLING_ISA` narrows it: `scalar` and `avx2` have none.
    pub fn detect_f32() -> Option<Self> {
        (Isa::detect() == Isa::Avx512).then_some(Self::Fma)
    }

    /// The fastest of bf16 that the machine has, none without AVX512-BF16; `KINDLING_ISA` narrows it: `scalar`, `avx2` and `avx512`
    /// have none, `avx512bf16` has `Dot`.
    pub fn detect() -> Option<Self> {
        Self::narrowed(std::env::var("KINDLING_ISA").ok().as_deref())
    }

    pub(super) fn narrowed(asked: Option<&str>) -> Option<Self> {
        if !bf16::is_available() {
            return None;
        }
        match asked {
            Some("scalar" | "avx2" | "avx512") => None,
            Some("avx512bf16") => Some(Self::Dot),
            _ => Some(if tiles::are_available() { Self::Tiles } else { Self::Dot }),
        }
    }

    /// Every one that can run here.
    pub fn available() -> Vec<Self> {
        let mut kernels = vec![Self::Emulated];
        kernels.extend(Isa::has_avx512().then_some(Self::Fma));
        kernels.extend(bf16::is_available().then_some(Self::Dot));
        kernels.extend(tiles::are_available().then_some(Self::Tiles));
        kernels
    }

    /// `Tiles` without asking the processor, for a test that does the work of instructions it lacks; none where they do not
    /// compute what `Emulated` does.
    ///
    /// # Safety
    /// This process may use AMX-BF16, or a handler of SIGILL does the work of its instructions.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub unsafe fn tiles_unasked() -> Option<Self> {
        tiles::agree_with_plain().then_some(Self::Tiles)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fma => "avx512",
            Self::Dot => "avx512bf16",
            Self::Tiles => "amx",
            Self::Emulated => "emulated",
        }
    }

    /// What it rounds operands to.
    pub fn dtype(self) -> Dtype {
        if self == Self::Fma { Dtype::F32 } else { Dtype::Bf16 }
    }

    /// Rows of a panel of a.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Fma | Self::Dot => block::ROWS,
            Self::Tiles | Self::Emulated => tiles::ROWS,
        }
    }

    /// Elements along k of a word.
    pub(super) fn in_word(self) -> usize {
        if self == Self::Fma { 1 } else { 2 }
    }

    /// What the number of words along k is rounded up to.
    pub(super) fn words(self) -> usize {
        match self {
            Self::Fma | Self::Dot => 1,
            Self::Tiles | Self::Emulated => tiles::PAIRS,
        }
    }

    /// Most words along k of one run, and most rows of a in one task: 224 KiB of a in a run, which stay in L2. A run has 512
    /// elements, so that a product of that depth writes its sums once.
    pub(super) fn run(self) -> (usize, usize) {
        if self == Self::Fma { (512, 112) } else { (256, 224) }
    }

    /// Order of a panel of a.
    pub(super) fn order(self) -> pack::Order {
        match self {
            Self::Tiles | Self::Emulated => pack::Order::Tiles,
            rows => rows.order_of_columns(),
        }
    }

    /// Order of a panel of b.
    pub(super) fn order_of_columns(self) -> pack::Order {
        if self == Self::Fma { pack::Order::Single } else { pack::Order::Pairs }
    }
}
