//! Positions of one head of one sequence in qkv, out, dout and lse, and its sizes in scratch
//! memory.

use super::super::Shape;
use super::tile::BLOCK;
use crate::simd::LANES;

/// One query head of one sequence, with the key/value head that it reads.
#[derive(Clone, Copy)]
pub(super) struct HeadLayout {
    pub(super) shape: Shape,
    /// The sequence's first row in qkv and out.
    first_row: usize,
    head: usize,
    /// Columns where the head's queries, keys and values start in qkv.
    q: usize,
    k: usize,
    v: usize,
}

impl HeadLayout {
    pub(super) fn new(shape: Shape, sequence: usize, head: usize) -> Self {
        let kv_head = head / shape.group();
        Self {
            shape,
            first_row: sequence * shape.positions,
            head,
            q: head * shape.head_size,
            k: (shape.num_heads + kv_head) * shape.head_size,
            v: (shape.num_heads + shape.num_kv_heads + kv_head) * shape.head_size,
        }
    }

    /// Returns the query head `index` heads further on, which reads the same key/value head.
    pub(super) fn query_head(self, index: usize) -> Self {
        let head = self.head + index;
        Self { head, q: head * self.shape.head_size, ..self }
    }

    /// Elements of a packed row: the head size padded to whole vectors.
    pub(super) fn width(&self) -> usize {
        self.shape.head_size.next_multiple_of(LANES)
    }

    /// Elements of the packed rows of all positions.
    pub(super) fn packed_len(&self) -> usize {
        self.shape.positions.next_multiple_of(BLOCK) * self.width()
    }

    /// 1 / sqrt(hs).
    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.shape.head_size as f32).sqrt()
    }

    /// The query at position `t`.
    pub(super) fn query<'a>(&self, qkv: &'a [f32], t: usize) -> &'a [f32] {
        self.row(qkv, t, self.q)
    }

    /// The key at position `t`.
    pub(super) fn key<'a>(&self, qkv: &'a [f32], t: usize) -> &'a [f32] {
        self.row(qkv, t, self.k)
    }

    /// The value at position `t`.
    pub(super) fn value<'a>(&self, qkv: &'a [f32], t: usize) -> &'a [f32] {
        self.row(qkv, t, self.v)
    }

    /// Indices in qkv where the query, key and value at position `t` start.
    pub(super) fn starts(&self, t: usize) -> [usize; 3] {
        let row = (self.first_row + t) * self.shape.qkv_width();
        [row + self.q, row + self.k, row + self.v]
    }

    fn row<'a>(&self, qkv: &'a [f32], t: usize, column: usize) -> &'a [f32] {
        let start = (self.first_row + t) * self.shape.qkv_width() + column;
        &qkv[start..start + self.shape.head_size]
    }

    /// Index in out and dout where the head's row of position `t` starts.
    pub(super) fn out_start(&self, t: usize) -> usize {
        (self.first_row + t) * self.shape.out_width() + self.q
    }

    /// The head's lse, one per position.
    pub(super) fn lse<'a>(&self, lse: &'a [f32]) -> &'a [f32] {
        let start = self.first_row * self.shape.num_heads + self.head * self.shape.positions;
        &lse[start..start + self.shape.positions]
    }
}
