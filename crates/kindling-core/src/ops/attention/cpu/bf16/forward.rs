//! Forward pass of one head over one sequence; see `mod.rs` for the products.

use super::operands::{
    Computed, HeadRows, rows_to_words, rows_to_words_of_rows, tile_to_words_of_keys,
    transpose_words,
};
#[cfg(target_arch = "x86_64")]
use super::product::ByVectors;
use super::product::{BlockProduct, ByTiles, WordMatmul, with_product};
use super::{Kernel, SIDE, head_words, part, width};
use crate::host_memory::as_words_mut;
use crate::ops::attention::cpu::head_layout::HeadLayout;
use crate::ops::attention::cpu::out_rows::OutBlock;
use crate::ops::attention::cpu::softmax::softmax_tile;
use crate::ops::attention::cpu::tile::{BLOCK, Causal, TILE};
use crate::simd::amx::{self, Amx, EmulatedAmx, TILE_SIDE, Tiles};
use crate::simd::{LANES, Vector, sixteen};

/// Indices in `HeadLayout::starts`.
const QUERIES: usize = 0;
const KEYS: usize = 1;
const VALUES: usize = 2;

/// Returns the words of scratch memory that `forward_head` needs.
pub(in super::super) fn scratch_len(layout: HeadLayout) -> usize {
    let width = width(layout);
    2 * head_words(layout) + 3 * BLOCK * width + TILE + TILE / 2 + 3 * BLOCK
}

crate::dispatch! {
    /// Computes the rows of `out` and the `lse` of one head and sequence.
    pub(in super::super) fn forward_head(
        kernel: Kernel,
        out: &mut OutBlock<'_>,
        lse: &mut [f32],
        qkv: &[f32],
        layout: HeadLayout,
        scratch: &mut [f32],
    ) = forward_head_vectors;
}

#[inline(always)]
fn forward_head_vectors<V: Vector>(
    kernel: Kernel,
    out: &mut OutBlock<'_>,
    lse: &mut [f32],
    qkv: &[f32],
    layout: HeadLayout,
    scratch: &mut [f32],
) {
    with_product!(kernel, P => forward::<V, P>(out, lse, qkv, layout, scratch));
}

#[inline(always)]
fn forward<V: Vector, P: BlockProduct>(
    out: &mut OutBlock<'_>,
    lse: &mut [f32],
    qkv: &[f32],
    layout: HeadLayout,
    scratch: &mut [f32],
) {
    let (width, positions) = (width(layout), layout.shape.positions);
    let stride = layout.shape.qkv_width();
    let rows = |[start, count]: [usize; 2], column: usize| {
        let first = layout.starts(start)[column];
        HeadRows::of_slice(&qkv[first..], stride, count, layout.shape.head_size)
    };
    let (k, scratch) = scratch.split_at_mut(head_words(layout));
    let (v, scratch) = scratch.split_at_mut(head_words(layout));
    let (staging, scratch) = scratch.split_at_mut(BLOCK * width / 2);
    let (q, scratch) = scratch.split_at_mut(BLOCK * width / 2);
    let (out_columns, scratch) = scratch.split_at_mut(BLOCK * width);
    let (out_rows, scratch) = scratch.split_at_mut(BLOCK * width);
    let (scores, scratch) = scratch.split_at_mut(TILE);
    let (probabilities, running) = scratch.split_at_mut(TILE / 2);
    let (k, v, q) = (as_words_mut(k), as_words_mut(v), as_words_mut(q));
    let (staging, probabilities) = (as_words_mut(staging), as_words_mut(probabilities));
    rows_to_words(k, rows([0, positions], KEYS), width, 1.0);
    for start in (0..positions).step_by(BLOCK) {
        let count = BLOCK.min(positions - start);
        rows_to_words_of_rows(staging, rows([start, count], VALUES), width);
        transpose_words(&mut v[start * width / 2..], staging, BLOCK / 2, width);
    }
    for start in (0..positions).step_by(BLOCK) {
        let queries = BLOCK.min(positions - start);
        let columns = queries.next_multiple_of(SIDE);
        rows_to_words(staging, rows([start, queries], QUERIES), width, layout.scale());
        transpose_words(q, staging, BLOCK, width / 2);
        running[..BLOCK].fill(f32::NEG_INFINITY);
        running[BLOCK..2 * BLOCK].fill(0.0);
        for past in (0..=start).step_by(BLOCK) {
            let diagonal = past == start;
            let keys = if diagonal { queries } else { BLOCK };
            let block = past * width / 2..(past + BLOCK) * width / 2;
            WordMatmul {
                out: scores,
                a: &k[block.clone()],
                a_stride: width / 2,
                b: q,
                stride: BLOCK,
                rows: keys.next_multiple_of(SIDE),
                columns,
                depth: width / 2,
                causal: part(diagonal, Causal::RowsAreKeys),
                accumulate: false,
            }
            .run::<P>();
            softmax_tile::<V>(scores, running, keys, queries, diagonal);
            tile_to_words_of_keys(probabilities, scores, Computed { keys, diagonal });
            if past > 0 {
                scale_columns::<V>(out_columns, &running[2 * BLOCK..]);
            }
            WordMatmul {
                out: out_columns,
                a: &v[block],
                a_stride: BLOCK / 2,
                b: probabilities,
                stride: BLOCK,
                rows: width,
                columns,
                depth: keys.div_ceil(2).next_multiple_of(TILE_SIDE),
                causal: part(diagonal, Causal::DepthIsKeys),
                accumulate: past > 0,
            }
            .run::<P>();
        }
        running[2 * BLOCK..].fill(0.0);
        for row in 0..queries {
            let (max, sum) = (running[row], running[BLOCK + row]);
            lse[start + row] = max + sum.ln();
            running[2 * BLOCK + row] = 1.0 / sum;
        }
        scale_columns::<V>(out_columns, &running[2 * BLOCK..]);
        transpose_columns::<V>(out_rows, out_columns, width);
        for (row, values) in out_rows.chunks_exact(width).take(queries).enumerate() {
            out.write::<V>(start + row, &values[..layout.shape.head_size]);
        }
    }
}

/// Multiplies each column of (rows, 64) by its factor.
#[inline(always)]
fn scale_columns<V: Vector>(columns: &mut [f32], factors: &[f32]) {
    for row in columns.chunks_exact_mut(BLOCK) {
        // Not a closure, which would not be compiled for the caller's instruction set.
        for at in (0..BLOCK).step_by(LANES) {
            V::load(&row[at..]).mul(V::load(&factors[at..])).store(&mut row[at..]);
        }
    }
}

/// Transposes (width, 64) to (64, width).
#[inline(always)]
pub(super) fn transpose_columns<V: Vector>(target: &mut [f32], columns: &[f32], width: usize) {
    for row in (0..width).step_by(LANES) {
        for column in (0..BLOCK).step_by(LANES) {
            let square: [V; LANES] = sixteen!(i => V::load(&columns[(row + i) * BLOCK + column..]));
            let lines = V::transposed(square);
            let _: [(); LANES] =
                sixteen!(i => lines[i].store(&mut target[(column + i) * width + row..]));
        }
    }
}
