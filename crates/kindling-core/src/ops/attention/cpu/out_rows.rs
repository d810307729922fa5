//! Outputs of the heads on the CPU: f32, or bf16 if only products and attention's own backward pass
//! read them.

use crate::buffer::In;
use crate::ops::BlockMut;
use crate::simd::bf16::{round_all, widen_all};
use crate::simd::{Vector, for_vectors, prefetch_run};

/// Copies a row of a head, which is too short to be worth a call to `memcpy`.
#[inline(always)]
pub(super) fn copy<V: Vector>(target: &mut [f32], source: &[f32]) {
    for_vectors!(at in target.len().min(source.len()) => {
        V::load_partial(&source[at.clone()]).store_partial(&mut target[at]);
    });
}

/// The whole output, to read.
#[derive(Clone, Copy)]
pub(super) enum OutRows<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

impl<'a> OutRows<'a> {
    pub(super) fn new(out: In<'a>) -> Self {
        match out {
            In::CpuBf16(out) => Self::Bf16(out),
            out => Self::F32(out.cpu()),
        }
    }

    /// Prefetches `len` elements from `start` on.
    pub(super) fn prefetch(&self, start: usize, len: usize) {
        match self {
            Self::F32(out) => prefetch_run(&raw const out[start], len),
            Self::Bf16(out) => prefetch_run(&raw const out[start], len),
        }
    }

    /// Returns `scratch.len()` elements from `start` on, widened into `scratch` if they are bf16.
    pub(super) fn row<'b>(&self, start: usize, scratch: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::F32(out) => &out[start..start + scratch.len()],
            Self::Bf16(out) => {
                widen_all(scratch, &out[start..start + scratch.len()]);
                scratch
            }
        }
    }
}

/// The rows of one head and sequence, to write.
pub(super) enum OutBlock<'a> {
    F32(BlockMut<'a, f32>),
    Bf16(BlockMut<'a, u16>),
}

impl OutBlock<'_> {
    /// Writes the head's row of position `t`.
    #[inline(always)]
    pub(super) fn write<V: Vector>(&mut self, t: usize, values: &[f32]) {
        match self {
            Self::F32(out) => copy::<V>(out.row_mut(t), values),
            Self::Bf16(out) => round_all(out.row_mut(t), values),
        }
    }
}
