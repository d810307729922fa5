//! Where one head of one sequence lies, and how its rows come to scratch and go back.

use super::Shape;
use super::heads::copy;
use super::tile::{BLOCK, pack};
use crate::ops::Disjoint;
use crate::simd::{LANES, Vector, fetch_line};

/// Where one head of one sequence lies in qkv and out (and dout).
#[derive(Clone, Copy)]
pub(super) struct HeadLayout {
    pub(super) s: Shape,
    pub(super) first_row: usize,
    /// Column of the queries in qkv, and of the head in out.
    pub(super) q: usize,
    pub(super) k: usize,
    pub(super) v: usize,
}

impl HeadLayout {
    pub(super) fn new(s: Shape, b: usize, head: usize) -> Self {
        let kv_head = head / s.group();
        Self {
            s,
            first_row: b * s.positions,
            q: head * s.head_size,
            k: (s.num_heads + kv_head) * s.head_size,
            v: (s.num_heads + s.num_kv_heads + kv_head) * s.head_size,
        }
    }

    /// Width of a row in scratch: whole vectors.
    pub(super) fn width(&self) -> usize {
        self.s.head_size.next_multiple_of(LANES)
    }

    /// Elements of all positions in scratch.
    pub(super) fn whole(&self) -> usize {
        self.s.positions.next_multiple_of(BLOCK) * self.width()
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.s.head_size as f32).sqrt()
    }

    /// Where position `t` of the part at `column` begins in qkv.
    pub(super) fn in_qkv(&self, t: usize, column: usize) -> usize {
        (self.first_row + t) * self.s.qkv_width() + column
    }

    /// Where position `t` of the head begins in out.
    pub(super) fn in_out(&self, t: usize) -> usize {
        (self.first_row + t) * self.s.out_width() + self.q
    }

    /// Where the head's positions begin in lse.
    pub(super) fn in_lse(&self) -> usize {
        self.first_row * self.s.num_heads + self.q / self.s.head_size * self.s.positions
    }

    /// Asks for the first block of its queries, keys and values: rows of a head lie far apart, and waiting for one after the
    /// other takes longer than what is done with them.
    pub(super) fn fetch(&self, qkv: *const f32) {
        for t in 0..BLOCK.min(self.s.positions) {
            for column in [self.k, self.v, self.q] {
                fetch_line(qkv.wrapping_add(self.in_qkv(t, column)), self.s.head_size);
            }
        }
    }

    /// Lays out a part of qkv from position `t` on.
    ///
    /// # Safety
    /// No one writes these rows of this part at the same time.
    #[inline(always)]
    pub(super) unsafe fn pack<V: Vector>(
        &self,
        target: &mut [f32],
        qkv: &Disjoint<'_, f32>,
        t: usize,
        rows: usize,
        column: usize,
    ) {
        let row = |row: usize| {
            let at = self.in_qkv(t + row, column);
            // SAFETY: by the caller's promise.
            unsafe { qkv.read(at..at + self.s.head_size) }
        };
        pack::<V>(target, self.width(), row, rows, self.s.head_size);
    }

    /// Writes rows of scratch to a part of qkv, as its gradient, from position `t` on.
    ///
    /// # Safety
    /// No one else touches these rows of this part at the same time.
    #[inline(always)]
    pub(super) unsafe fn unpack<V: Vector>(
        &self,
        qkv: &Disjoint<'_, f32>,
        source: &[f32],
        t: usize,
        rows: usize,
        column: usize,
    ) {
        for (row, source) in source.chunks_exact(self.width()).take(rows).enumerate() {
            let at = self.in_qkv(t + row, column);
            // SAFETY: by the caller's promise.
            let target = unsafe { qkv.part(at..at + self.s.head_size) };
            copy::<V>(target, source);
        }
    }
}
