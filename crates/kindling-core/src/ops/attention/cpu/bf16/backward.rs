//! Backward pass of one key/value head over one sequence; see `mod.rs` for the products.

use super::forward::transpose_columns;
use super::operands::{
    Computed, HeadRows, rows_to_words, rows_to_words_of_rows, tile_to_words_of_keys,
    tile_to_words_of_queries, transpose_words,
};
#[cfg(target_arch = "x86_64")]
use super::product::ByVectors;
use super::product::{BlockProduct, ByTiles, WordMatmul, with_product};
use super::{Kernel, SIDE, head_words, part, width};
use crate::host_memory::as_words_mut;
use crate::ops::BlockMut;
use crate::ops::attention::cpu::backward::{HeadGroup, Saved, unpack};
use crate::ops::attention::cpu::head_layout::HeadLayout;
use crate::ops::attention::cpu::softmax::softmax_gradient_tile;
use crate::ops::attention::cpu::tile::{BLOCK, Causal, TILE, dot};
use crate::simd::Vector;
use crate::simd::amx::{self, Amx, EmulatedAmx, TILE_SIDE, Tiles};

/// Returns the words of scratch memory that `backward_group` needs. The forward pass needs no more.
pub(in super::super) fn scratch_len(layout: HeadLayout) -> usize {
    let (width, hs) = (width(layout), layout.shape.head_size);
    let head = head_words(layout);
    (3 * head + 4 * head + block_len(width) + hs).max(super::forward::scratch_len(layout))
}

/// Returns the words of scratch memory that a block of queries needs.
fn block_len(width: usize) -> usize {
    5 * BLOCK * width / 2 + 2 * BLOCK * width + 2 * TILE + 3 * TILE / 2 + 2 * BLOCK
}

crate::dispatch! {
    /// Replaces a key/value head and its query heads, the first of which is `first`, by gradients.
    pub(in super::super) fn backward_group(
        kernel: Kernel,
        heads: HeadGroup<'_>,
        saved: Saved<'_>,
        first: HeadLayout,
        scratch: &mut [f32],
    ) = backward_group_vectors;
}

#[inline(always)]
fn backward_group_vectors<V: Vector>(
    kernel: Kernel,
    heads: HeadGroup<'_>,
    saved: Saved<'_>,
    first: HeadLayout,
    scratch: &mut [f32],
) {
    with_product!(kernel, P => backward::<V, P>(heads, saved, first, scratch));
}

/// Operands of the keys and values of a head.
#[derive(Clone, Copy)]
struct KeysAndValues<'a> {
    /// Rows of words of the head size.
    k: &'a [u32],
    v: &'a [u32],
    /// k^T in words of keys, one block of 64 keys after the other.
    k_columns: &'a [u32],
}

#[inline(always)]
fn backward<V: Vector, P: BlockProduct>(
    heads: HeadGroup<'_>,
    saved: Saved<'_>,
    first: HeadLayout,
    scratch: &mut [f32],
) {
    let HeadGroup { mut q, mut k, mut v } = heads;
    let (s, hs, width, head) =
        (first.shape, first.shape.head_size, width(first), head_words(first));
    let (inputs, scratch) = scratch.split_at_mut(3 * head);
    let (gradients, scratch) = scratch.split_at_mut(4 * head);
    let (k_words, rest) = as_words_mut(inputs).split_at_mut(head);
    let (v_words, k_columns) = rest.split_at_mut(head);
    rows_to_words(k_words, HeadRows::of_block(&k, 0, s.positions), width, 1.0);
    rows_to_words(v_words, HeadRows::of_block(&v, 0, s.positions), width, 1.0);
    for start in (0..s.positions).step_by(BLOCK) {
        let staging = &mut as_words_mut(scratch)[..BLOCK * width / 2];
        let rows = HeadRows::of_block(&k, start, BLOCK.min(s.positions - start));
        rows_to_words_of_rows(staging, rows, width);
        transpose_words(&mut k_columns[start * width / 2..], staging, BLOCK / 2, width);
    }
    let inputs = KeysAndValues { k: k_words, v: v_words, k_columns };
    for index in 0..s.group() {
        let q = q.columns_mut(index * hs..(index + 1) * hs);
        let layout = first.query_head(index);
        backward_head::<V, P>(q, inputs, saved, layout, index > 0, gradients, scratch);
    }
    let (dk, dv) = gradients.split_at(2 * head);
    unpack::<V>(&mut k, dk, 0, s.positions, width);
    unpack::<V>(&mut v, dv, 0, s.positions, width);
}

/// Replaces one query head by dq. Its dk and dv overwrite `gradients`, or add to them.
#[inline(always)]
fn backward_head<V: Vector, P: BlockProduct>(
    mut queries: BlockMut<'_, f32>,
    inputs: KeysAndValues<'_>,
    saved: Saved<'_>,
    layout: HeadLayout,
    accumulate: bool,
    gradients: &mut [f32],
    scratch: &mut [f32],
) {
    let (hs, width, positions) = (layout.shape.head_size, width(layout), layout.shape.positions);
    let half = BLOCK * width / 2;
    let (dk, dv) = gradients.split_at_mut(2 * head_words(layout));
    let (operands, scratch) = scratch.split_at_mut(5 * half);
    let (dq_columns, scratch) = scratch.split_at_mut(BLOCK * width);
    let (dq, scratch) = scratch.split_at_mut(BLOCK * width);
    let (scores, scratch) = scratch.split_at_mut(TILE);
    let (dscores, scratch) = scratch.split_at_mut(TILE);
    let (rounded, scratch) = scratch.split_at_mut(3 * TILE / 2);
    let (lse, scratch) = scratch.split_at_mut(BLOCK);
    let (delta, out_row) = scratch.split_at_mut(BLOCK);
    let (staging, operands) = as_words_mut(operands).split_at_mut(half);
    let (q_columns, operands) = operands.split_at_mut(half);
    let (dout_columns, operands) = operands.split_at_mut(half);
    let (q, dout) = operands.split_at_mut(half);
    let (p_queries, rounded) = as_words_mut(rounded).split_at_mut(TILE / 2);
    let (ds_queries, ds_keys) = rounded.split_at_mut(TILE / 2);
    let head_lse = layout.lse(saved.lse);
    for start in (0..positions).step_by(BLOCK) {
        let rows = BLOCK.min(positions - start);
        let query_rows = HeadRows::of_block(&queries, start, rows);
        let dout_rows = &saved.dout[layout.out_start(start)..];
        let dout_rows = HeadRows::of_slice(dout_rows, layout.shape.out_width(), rows, hs);
        rows_to_words(staging, query_rows, width, layout.scale());
        transpose_words(q_columns, staging, BLOCK, width / 2);
        rows_to_words(staging, dout_rows, width, 1.0);
        transpose_words(dout_columns, staging, BLOCK, width / 2);
        rows_to_words_of_rows(q, query_rows, width);
        rows_to_words_of_rows(dout, dout_rows, width);
        lse[..rows].copy_from_slice(&head_lse[start..start + rows]);
        lse[rows..].fill(0.0);
        delta[rows..].fill(0.0);
        for (row, delta) in delta[..rows].iter_mut().enumerate() {
            let at = layout.out_start(start + row);
            let out = saved.out.row(at, &mut out_row[..hs]);
            *delta = dot::<V>(&saved.dout[at..at + hs], out);
        }
        let columns = rows.next_multiple_of(SIDE);
        for past in (0..=start).step_by(BLOCK) {
            let diagonal = past == start;
            let keys = if diagonal { rows } else { BLOCK };
            let block = past * width / 2..(past + BLOCK) * width / 2;
            let key_rows = keys.next_multiple_of(SIDE);
            for (out, left, right) in
                [(&mut *scores, inputs.k, &*q_columns), (&mut *dscores, inputs.v, &*dout_columns)]
            {
                WordMatmul {
                    out,
                    a: &left[block.clone()],
                    a_stride: width / 2,
                    b: right,
                    stride: BLOCK,
                    rows: key_rows,
                    columns,
                    depth: width / 2,
                    causal: part(diagonal, Causal::RowsAreKeys),
                    accumulate: false,
                }
                .run::<P>();
            }
            let (scale, size) = (layout.scale(), [keys, rows]);
            softmax_gradient_tile::<V>(scores, dscores, lse, delta, scale, size, diagonal);
            let computed = Computed { keys, diagonal };
            tile_to_words_of_queries(p_queries, scores, computed);
            tile_to_words_of_queries(ds_queries, dscores, computed);
            tile_to_words_of_keys(ds_keys, dscores, computed);
            for (out, left, right) in
                [(&mut *dv, &*p_queries, &*dout), (&mut *dk, &*ds_queries, &*q)]
            {
                WordMatmul {
                    out: &mut out[past * width..(past + BLOCK) * width],
                    a: left,
                    a_stride: BLOCK / 2,
                    b: right,
                    stride: width,
                    rows: key_rows,
                    columns: width,
                    depth: columns / 2,
                    causal: part(diagonal, Causal::DepthIsQueries),
                    accumulate: accumulate || !diagonal,
                }
                .run::<P>();
            }
            WordMatmul {
                out: dq_columns,
                a: &inputs.k_columns[block],
                a_stride: BLOCK / 2,
                b: ds_keys,
                stride: BLOCK,
                rows: width,
                columns,
                depth: keys.div_ceil(2).next_multiple_of(TILE_SIDE),
                causal: part(diagonal, Causal::DepthIsKeys),
                accumulate: past > 0,
            }
            .run::<P>();
        }
        transpose_columns::<V>(dq, dq_columns, width);
        unpack::<V>(&mut queries, dq, start, rows, width);
    }
}
