//! The heads' outputs on the CPU: f32, or bf16 where only products and the backward pass of attention read them.

use crate::buffer::{In, Out};
use crate::ops::Disjoint;
use crate::simd::bf16::{round_all, widen_all};
use crate::simd::{Vector, fetch_line, for_vectors};

/// A row of a head, which is too short for a call.
#[inline(always)]
pub(super) fn copy<V: Vector>(target: &mut [f32], source: &[f32]) {
    for_vectors!(at in target.len().min(source.len()) => {
        V::load_partial(&source[at.clone()]).store_partial(&mut target[at]);
    });
}

/// Outputs to read.
#[derive(Clone, Copy)]
pub(super) enum Heads<'a> {
    Wide(&'a [f32]),
    Narrow(&'a [u16]),
}

impl<'a> Heads<'a> {
    pub(super) fn new(out: In<'a>) -> Self {
        match out {
            In::CpuBf16(out) => Self::Narrow(out),
            out => Self::Wide(out.cpu()),
        }
    }

    /// Asks for `len` elements from `at` on.
    pub(super) fn fetch(&self, at: usize, len: usize) {
        match self {
            Self::Wide(out) => fetch_line(&raw const out[at], len),
            Self::Narrow(out) => fetch_line(&raw const out[at], len),
        }
    }

    /// As many elements as `memory` has, from `at` on; `memory` holds them where they are not f32.
    pub(super) fn row<'b>(&self, at: usize, memory: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::Wide(out) => &out[at..at + memory.len()],
            Self::Narrow(out) => {
                widen_all(memory, &out[at..at + memory.len()]);
                memory
            }
        }
    }
}

/// Outputs to write, a head and sequence a piece.
pub(super) enum HeadsMut<'a> {
    Wide(Disjoint<'a, f32>),
    Narrow(Disjoint<'a, u16>),
}

impl<'a> HeadsMut<'a> {
    pub(super) fn new(out: Out<'a>) -> Self {
        match out {
            Out::CpuBf16(out) => Self::Narrow(Disjoint::new(out)),
            out => Self::Wide(Disjoint::new(out.cpu())),
        }
    }

    /// Writes `values` from `at` on.
    ///
    /// # Safety
    /// No one else touches these elements at the same time.
    #[inline(always)]
    pub(super) unsafe fn write<V: Vector>(&self, at: usize, values: &[f32]) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self {
                Self::Wide(out) => copy::<V>(out.part(at..at + values.len()), values),
                Self::Narrow(out) => round_all(out.part(at..at + values.len()), values),
            }
        }
    }
}
