//! Backward pass of one key/value head over one sequence; see `mod.rs` for the algorithm.

use super::head_layout::HeadLayout;
use super::out_rows::{OutRows, copy};
use super::softmax::softmax_gradient_tile;
use super::tile::{BLOCK, Causal, Left, TILE, TileMatmul, dot, pack, pack_columns};
use crate::ops::BlockMut;
use crate::simd::{Vector, prefetch_run};

/// Queries, keys and values of a key/value head and sequence, to be replaced by their gradients.
pub(super) struct HeadGroup<'a> {
    /// (t, group hs): the query heads that share the keys and values.
    pub(super) q: BlockMut<'a, f32>,
    /// (t, hs).
    pub(super) k: BlockMut<'a, f32>,
    /// (t, hs).
    pub(super) v: BlockMut<'a, f32>,
}

/// The other inputs of the backward pass, of all heads.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) dout: &'a [f32],
    pub(super) out: OutRows<'a>,
    pub(super) lse: &'a [f32],
}

/// Packed keys and values of a head.
#[derive(Clone, Copy)]
struct KeysAndValues<'a> {
    k: &'a [f32],
    v: &'a [f32],
}

/// Returns the f32 elements of scratch memory that `backward_group` needs.
pub(super) fn scratch_len(layout: HeadLayout) -> usize {
    let (hs, width) = (layout.shape.head_size, layout.width());
    4 * layout.packed_len() + BLOCK * (2 * hs + 3 * width) + 2 * TILE + 2 * BLOCK
}

crate::dispatch! {
    /// Replaces a key/value head and its query heads, the first of which is `first`, by gradients.
    pub(super) fn backward_group(
        heads: HeadGroup<'_>,
        saved: Saved<'_>,
        first: HeadLayout,
        scratch: &mut [f32],
    ) = backward_group_vectors;
}

#[inline(always)]
fn backward_group_vectors<V: Vector>(
    heads: HeadGroup<'_>,
    saved: Saved<'_>,
    first: HeadLayout,
    scratch: &mut [f32],
) {
    let HeadGroup { mut q, mut k, mut v } = heads;
    let (s, hs, width) = (first.shape, first.shape.head_size, first.width());
    prefetch_first_block([&k, &v, &q], saved, first);
    let (packed, scratch) = scratch.split_at_mut(4 * first.packed_len());
    let (inputs, gradients) = packed.split_at_mut(2 * first.packed_len());
    let (packed_k, packed_v) = inputs.split_at_mut(first.packed_len());
    pack::<V>(packed_k, width, |t| k.row(t), s.positions, hs);
    pack::<V>(packed_v, width, |t| v.row(t), s.positions, hs);
    let inputs = KeysAndValues { k: packed_k, v: packed_v };
    for index in 0..s.group() {
        let q = q.columns_mut(index * hs..(index + 1) * hs);
        let layout = first.query_head(index);
        backward_head::<V>(q, inputs, saved, layout, index > 0, gradients, scratch);
    }
    let (dk, dv) = gradients.split_at(first.packed_len());
    unpack::<V>(&mut k, dk, 0, s.positions, width);
    unpack::<V>(&mut v, dv, 0, s.positions, width);
}

/// Replaces one query head by dq. Its dk and dv overwrite `gradients`, or add to them.
#[inline(always)]
fn backward_head<V: Vector>(
    mut queries: BlockMut<'_, f32>,
    KeysAndValues { k, v }: KeysAndValues<'_>,
    saved: Saved<'_>,
    layout: HeadLayout,
    accumulate: bool,
    gradients: &mut [f32],
    scratch: &mut [f32],
) {
    let (hs, width, positions) = (layout.shape.head_size, layout.width(), layout.shape.positions);
    let (dk, dv) = gradients.split_at_mut(layout.packed_len());
    let (q, scratch) = scratch.split_at_mut(BLOCK * width);
    let (dout, scratch) = scratch.split_at_mut(BLOCK * width);
    let (dq, scratch) = scratch.split_at_mut(BLOCK * width);
    let (q_columns, scratch) = scratch.split_at_mut(BLOCK * hs);
    let (dout_columns, scratch) = scratch.split_at_mut(BLOCK * hs);
    let (scores, scratch) = scratch.split_at_mut(TILE);
    let (dscores, scratch) = scratch.split_at_mut(TILE);
    let (lse, delta) = scratch.split_at_mut(BLOCK);
    let head_lse = layout.lse(saved.lse);
    for start in (0..positions).step_by(BLOCK) {
        let rows = BLOCK.min(positions - start);
        let dout_row = |row: usize| &saved.dout[layout.out_start(start + row)..][..hs];
        pack::<V>(q, width, |row| queries.row(start + row), rows, hs);
        pack::<V>(dout, width, dout_row, rows, hs);
        pack_columns::<V>(q_columns, |row| &q[row * width..][..hs], rows, hs, layout.scale());
        pack_columns::<V>(dout_columns, |row| &dout[row * width..][..hs], rows, hs, 1.0);
        lse[..rows].copy_from_slice(&head_lse[start..start + rows]);
        lse[rows..].fill(0.0);
        delta[rows..].fill(0.0);
        for (row, delta) in delta[..rows].iter_mut().enumerate() {
            // dq is not in use yet; its memory takes the row if that has to be widened.
            let out = saved.out.row(layout.out_start(start + row), &mut dq[..hs]);
            *delta = dot::<V>(&dout[row * width..row * width + hs], out);
        }
        for past in (0..=start).step_by(BLOCK) {
            let diagonal = past == start;
            let causal = |part| if diagonal { part } else { Causal::Full };
            let keys = if diagonal { rows } else { BLOCK };
            let block = past * width..(past + BLOCK) * width;
            for (out, left, right) in
                [(&mut *scores, k, &*q_columns), (&mut *dscores, v, &*dout_columns)]
            {
                TileMatmul {
                    out,
                    a: Left { elements: &left[block.clone()], row: width, depth: 1 },
                    b: right,
                    stride: BLOCK,
                    rows: keys,
                    depth: hs,
                    columns: rows,
                    causal: causal(Causal::RowsAreKeys),
                    accumulate: false,
                }
                .run::<V>();
            }
            let (scale, size) = (layout.scale(), [keys, rows]);
            softmax_gradient_tile::<V>(scores, dscores, lse, delta, scale, size, diagonal);
            for (out, left, right) in [(&mut *dv, &*scores, &*dout), (&mut *dk, &*dscores, &*q)] {
                TileMatmul {
                    out: &mut out[block.clone()],
                    a: Left { elements: left, row: BLOCK, depth: 1 },
                    b: right,
                    stride: width,
                    rows: keys,
                    depth: rows,
                    columns: width,
                    causal: causal(Causal::DepthIsQueries),
                    accumulate: accumulate || !diagonal,
                }
                .run::<V>();
            }
            TileMatmul {
                out: dq,
                a: Left { elements: dscores, row: 1, depth: BLOCK },
                b: &k[block],
                stride: width,
                rows,
                depth: keys,
                columns: width,
                causal: causal(Causal::DepthIsKeys),
                accumulate: past > 0,
            }
            .run::<V>();
        }
        unpack::<V>(&mut queries, dq, start, rows, width);
    }
}

/// Prefetches the first block of the inputs of the first query head; see `forward.rs`.
#[inline(always)]
fn prefetch_first_block(heads: [&BlockMut<'_, f32>; 3], saved: Saved<'_>, first: HeadLayout) {
    let (block, hs) = (BLOCK.min(first.shape.positions), first.shape.head_size);
    for t in 0..block {
        for head in heads {
            prefetch_run(head.row(t).as_ptr(), hs);
        }
    }
    for t in 0..block {
        prefetch_run(&raw const saved.dout[first.out_start(t)], hs);
        saved.out.prefetch(first.out_start(t), hs);
    }
}

/// Writes `rows` packed rows of `width` elements to the rows of `target` from `start` on.
#[inline(always)]
pub(super) fn unpack<V: Vector>(
    target: &mut BlockMut<'_, f32>,
    source: &[f32],
    start: usize,
    rows: usize,
    width: usize,
) {
    for (row, source) in source.chunks_exact(width).take(rows).enumerate() {
        copy::<V>(target.row_mut(start + row), source);
    }
}
