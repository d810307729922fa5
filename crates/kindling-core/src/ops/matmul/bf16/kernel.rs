//! What multiplies packed panels, as the machine and `KINDLING_ISA` allow.

use super::{dot, pack, tiles};
use crate::simd::bf16;

/// What multiplies the panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
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
    /// The fastest that the machine has, none without AVX512-BF16; `KINDLING_ISA` narrows it: `scalar`, `avx2` and `avx512`
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
        kernels.extend(bf16::is_available().then_some(Self::Dot));
        kernels.extend(tiles::are_available().then_some(Self::Tiles));
        kernels
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dot => "avx512bf16",
            Self::Tiles => "amx",
            Self::Emulated => "emulated",
        }
    }

    /// Rows of a panel of a.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Dot => dot::ROWS,
            Self::Tiles | Self::Emulated => tiles::ROWS,
        }
    }

    /// What the number of pairs along k is rounded up to.
    pub(super) fn pairs(self) -> usize {
        match self {
            Self::Dot => 1,
            Self::Tiles | Self::Emulated => tiles::PAIRS,
        }
    }

    pub(super) fn order(self) -> pack::Order {
        match self {
            Self::Dot => pack::Order::Pairs,
            Self::Tiles | Self::Emulated => pack::Order::Tiles,
        }
    }
}
