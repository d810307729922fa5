//! Forward pass of one head over one sequence; see `mod.rs` for the algorithm.

use super::head_layout::HeadLayout;
use super::out_rows::OutBlock;
use super::softmax::softmax_tile;
use super::tile::{BLOCK, Causal, Left, TILE, TileMatmul, pack, pack_columns};
use crate::simd::{LANES, Vector, prefetch_run};

/// Returns the f32 elements of scratch memory that `forward_head` needs.
pub(super) fn scratch_len(layout: HeadLayout) -> usize {
    let (hs, width) = (layout.shape.head_size, layout.width());
    2 * layout.packed_len() + BLOCK * (hs + width) + TILE + 3 * BLOCK
}

crate::dispatch! {
    /// Computes the rows of `out` and the `lse` of one head and sequence.
    pub(super) fn forward_head(
        out: &mut OutBlock<'_>,
        lse: &mut [f32],
        qkv: &[f32],
        layout: HeadLayout,
        scratch: &mut [f32],
    ) = forward_head_vectors;
}

#[inline(always)]
fn forward_head_vectors<V: Vector>(
    out: &mut OutBlock<'_>,
    lse: &mut [f32],
    qkv: &[f32],
    layout: HeadLayout,
    scratch: &mut [f32],
) {
    let (hs, width, positions) = (layout.shape.head_size, layout.width(), layout.shape.positions);
    let (k, scratch) = scratch.split_at_mut(layout.packed_len());
    let (v, scratch) = scratch.split_at_mut(layout.packed_len());
    let (q, scratch) = scratch.split_at_mut(BLOCK * hs);
    let (sums, scratch) = scratch.split_at_mut(BLOCK * width);
    // Per query of a block: maximum, sum, and the factor by which earlier sums shrink.
    let (scores, running) = scratch.split_at_mut(TILE);
    prefetch_first_block(qkv, layout);
    pack::<V>(k, width, |t| layout.key(qkv, t), positions, hs);
    pack::<V>(v, width, |t| layout.value(qkv, t), positions, hs);
    for start in (0..positions).step_by(BLOCK) {
        let queries = BLOCK.min(positions - start);
        pack_columns::<V>(q, |row| layout.query(qkv, start + row), queries, hs, layout.scale());
        running[..BLOCK].fill(f32::NEG_INFINITY);
        running[BLOCK..2 * BLOCK].fill(0.0);
        for past in (0..=start).step_by(BLOCK) {
            let diagonal = past == start;
            let keys = if diagonal { queries } else { BLOCK };
            let block = past * width..(past + BLOCK) * width;
            TileMatmul {
                out: scores,
                a: Left { elements: &k[block.clone()], row: width, depth: 1 },
                b: q,
                stride: BLOCK,
                rows: keys,
                depth: hs,
                columns: queries,
                causal: if diagonal { Causal::RowsAreKeys } else { Causal::Full },
                accumulate: false,
            }
            .run::<V>();
            softmax_tile::<V>(scores, running, keys, queries, diagonal);
            if past > 0 {
                scale_rows::<V>(sums, width, &running[2 * BLOCK..2 * BLOCK + queries]);
            }
            TileMatmul {
                out: sums,
                a: Left { elements: scores, row: 1, depth: BLOCK },
                b: &v[block],
                stride: width,
                rows: queries,
                depth: keys,
                columns: width,
                causal: if diagonal { Causal::DepthIsKeys } else { Causal::Full },
                accumulate: past > 0,
            }
            .run::<V>();
        }
        for row in 0..queries {
            let (max, sum) = (running[row], running[BLOCK + row]);
            lse[start + row] = max + sum.ln();
            running[2 * BLOCK + row] = 1.0 / sum;
        }
        scale_rows::<V>(sums, width, &running[2 * BLOCK..2 * BLOCK + queries]);
        for (row, sums) in sums.chunks_exact(width).take(queries).enumerate() {
            out.write::<V>(start + row, &sums[..hs]);
        }
    }
}

/// Prefetches the first block of keys, values and queries: rows of a head are far apart in memory,
/// and waiting for one after the other takes longer than the work on them.
#[inline(always)]
fn prefetch_first_block(qkv: &[f32], layout: HeadLayout) {
    for t in 0..BLOCK.min(layout.shape.positions) {
        for row in [layout.key(qkv, t), layout.value(qkv, t), layout.query(qkv, t)] {
            prefetch_run(row.as_ptr(), row.len());
        }
    }
}

/// Multiplies each row of `width` elements by its factor.
#[inline(always)]
fn scale_rows<V: Vector>(rows: &mut [f32], width: usize, factors: &[f32]) {
    for (row, factor) in rows.chunks_exact_mut(width).zip(factors) {
        let factor = V::splat(*factor);
        // Not `for_each`: a closure would not be compiled for the caller's instruction set.
        for lanes in row.chunks_exact_mut(LANES) {
            V::load(lanes).mul(factor).store(lanes);
        }
    }
}
