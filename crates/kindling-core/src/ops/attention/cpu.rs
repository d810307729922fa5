//! CPU half of whole passes. A piece is one sequence and one head; its queries, keys and values are laid out once in
//! blocks of 64 positions, zero-padded to whole vectors, and met tile by tile, so a tile of scores stays in the first cache.
//!
//! Tiles of scores are held as (keys, queries): a vector is one key and sixteen queries, and the maximum, sum, lse and delta
//! of sixteen queries are vectors too. Forward keeps a running maximum and sum (online softmax, arXiv 2205.14135).

use super::Shape;
use super::head_layout::HeadLayout;
use super::heads::{Heads, HeadsMut};
use super::tile::{BLOCK, Causal, Left, pack, pack_transposed, product};
use crate::buffer::{In, Out};
use crate::cpu::Cpu;
use crate::ops::{Disjoint, with_dirty_scratch};
use crate::simd::{LANES, Vector, exp, fetch_line};

const TILE: usize = BLOCK * BLOCK;

pub(super) fn forward(cpu: &Cpu, out: Out, lse: &mut [f32], qkv: &[f32], s: Shape) {
    let (out, lse) = (HeadsMut::new(out), Disjoint::new(lse));
    cpu.pool.run(s.batch * s.num_heads, |piece| {
        let layout = HeadLayout::new(s, piece / s.num_heads, piece % s.num_heads);
        // SAFETY: each piece has its own run of lse.
        let lse = unsafe { lse.part(piece * s.positions..(piece + 1) * s.positions) };
        let len = 2 * layout.whole() + BLOCK * (s.head_size + layout.width()) + TILE + 3 * BLOCK;
        with_dirty_scratch(len, |scratch| forward_head(cpu.isa, &out, lse, qkv, layout, scratch));
    });
}

/// `qkv` becomes its gradient: a piece has read what it needs of its heads before it writes there.
pub(super) fn backward_in_place(
    cpu: &Cpu,
    qkv: &mut [f32],
    dout: &[f32],
    out: In,
    lse: &[f32],
    s: Shape,
) {
    let (qkv, out) = (Disjoint::new(qkv), Heads::new(out));
    cpu.pool.run(s.batch * s.num_kv_heads, |piece| {
        let (b, kv_head) = (piece / s.num_kv_heads, piece % s.num_kv_heads);
        let first = HeadLayout::new(s, b, kv_head * s.group());
        let len = 4 * first.whole()
            + BLOCK * (2 * s.head_size + 3 * first.width())
            + 2 * TILE
            + 2 * BLOCK;
        with_dirty_scratch(len, |scratch| {
            backward_group(cpu.isa, &qkv, dout, out, lse, first, scratch)
        });
    });
}

/// What backward reads beside the queries.
#[derive(Clone, Copy)]
struct Given<'a> {
    dout: &'a [f32],
    out: Heads<'a>,
    /// Of this head's positions.
    lse: &'a [f32],
    /// Laid out.
    k: &'a [f32],
    v: &'a [f32],
}

crate::dispatch! {
    fn forward_head(
        out: &HeadsMut<'_>,
        lse: &mut [f32],
        qkv: &[f32],
        layout: HeadLayout,
        scratch: &mut [f32],
    ) = forward_head_lanes;
}
crate::dispatch! {
    /// Puts their gradients in place of a key/value head and of the query heads that share it, of which `first` is the first.
    fn backward_group(
        qkv: &Disjoint<'_, f32>,
        dout: &[f32],
        out: Heads<'_>,
        lse: &[f32],
        first: HeadLayout,
        scratch: &mut [f32],
    ) = backward_group_lanes;
}

#[inline(always)]
fn forward_head_lanes<V: Vector>(
    out: &HeadsMut<'_>,
    lse: &mut [f32],
    qkv: &[f32],
    layout: HeadLayout,
    scratch: &mut [f32],
) {
    let (hs, width, s) = (layout.s.head_size, layout.width(), layout.s);
    let (k, scratch) = scratch.split_at_mut(layout.whole());
    let (v, scratch) = scratch.split_at_mut(layout.whole());
    let (q, scratch) = scratch.split_at_mut(BLOCK * hs);
    let (sums, scratch) = scratch.split_at_mut(BLOCK * width);
    let (scores, running) = scratch.split_at_mut(TILE);
    let part = |t: usize, column: usize| &qkv[layout.in_qkv(t, column)..][..hs];
    layout.fetch(qkv.as_ptr());
    pack::<V>(k, width, |row| part(row, layout.k), s.positions, hs);
    pack::<V>(v, width, |row| part(row, layout.v), s.positions, hs);
    for start in (0..s.positions).step_by(BLOCK) {
        let rows = BLOCK.min(s.positions - start);
        pack_transposed::<V>(q, |row| part(start + row, layout.q), rows, hs, layout.scale());
        running[..BLOCK].fill(f32::NEG_INFINITY);
        running[BLOCK..2 * BLOCK].fill(0.0);
        for past in (0..=start).step_by(BLOCK) {
            let diagonal = past == start;
            let keys = if diagonal { rows } else { BLOCK };
            let block = past * width..(past + BLOCK) * width;
            let left = Left { slice: &k[block.clone()], row: width, depth: 1 };
            let skip = if diagonal { Causal::QueriesBefore } else { Causal::Whole };
            product::<V>(scores, BLOCK, left, q, [keys, hs, rows], skip, false);
            softmax_tile::<V>(scores, running, keys, rows, diagonal);
            if past > 0 {
                scale_rows::<V>(sums, width, &running[2 * BLOCK..2 * BLOCK + rows]);
            }
            let left = Left { slice: scores, row: 1, depth: BLOCK };
            let skip = if diagonal { Causal::KeysAfter } else { Causal::Whole };
            product::<V>(sums, width, left, &v[block], [rows, keys, width], skip, past > 0);
        }
        for row in 0..rows {
            let (largest, sum) = (running[row], running[BLOCK + row]);
            lse[start + row] = largest + sum.ln();
            running[2 * BLOCK + row] = 1.0 / sum;
        }
        scale_rows::<V>(sums, width, &running[2 * BLOCK..2 * BLOCK + rows]);
        for (row, sums) in sums.chunks_exact(width).take(rows).enumerate() {
            let at = layout.in_out(start + row);
            // SAFETY: this head's columns of this sequence's rows belong to this piece alone.
            unsafe { out.write::<V>(at, &sums[..hs]) };
        }
    }
}

#[inline(always)]
fn backward_group_lanes<V: Vector>(
    qkv: &Disjoint<'_, f32>,
    dout: &[f32],
    out: Heads<'_>,
    lse: &[f32],
    first: HeadLayout,
    scratch: &mut [f32],
) {
    let s = first.s;
    first.fetch(qkv.address(0));
    for t in 0..BLOCK.min(s.positions) {
        fetch_line(&raw const dout[first.in_out(t)], s.head_size);
        out.fetch(first.in_out(t), s.head_size);
    }
    let (keys, rest) = scratch.split_at_mut(4 * first.whole());
    let (inputs, gradients) = keys.split_at_mut(2 * first.whole());
    let (k, v) = inputs.split_at_mut(first.whole());
    // SAFETY: the keys and values of this sequence and head belong to this piece alone.
    unsafe {
        first.pack::<V>(k, qkv, 0, s.positions, first.k);
        first.pack::<V>(v, qkv, 0, s.positions, first.v);
    }
    for index in 0..s.group() {
        let layout = HeadLayout { q: first.q + index * s.head_size, ..first };
        let lse = &lse[layout.in_lse()..][..s.positions];
        let given = Given { dout, out, lse, k, v };
        backward_head_lanes::<V>(qkv, given, layout, index > 0, gradients, rest);
    }
    let (dk, dv) = gradients.split_at(first.whole());
    // SAFETY: as above.
    unsafe {
        first.unpack::<V>(qkv, dk, 0, s.positions, first.k);
        first.unpack::<V>(qkv, dv, 0, s.positions, first.v);
    }
}

/// Puts dq of one query head in place of q; its dk and dv are added to `gradients`, or overwrite them unless `accumulate`.
#[inline(always)]
fn backward_head_lanes<V: Vector>(
    qkv: &Disjoint<'_, f32>,
    given: Given<'_>,
    layout: HeadLayout,
    accumulate: bool,
    gradients: &mut [f32],
    scratch: &mut [f32],
) {
    let (hs, width, s) = (layout.s.head_size, layout.width(), layout.s);
    let (dk, dv) = gradients.split_at_mut(layout.whole());
    let (q, scratch) = scratch.split_at_mut(BLOCK * width);
    let (dout, scratch) = scratch.split_at_mut(BLOCK * width);
    let (dq, scratch) = scratch.split_at_mut(BLOCK * width);
    let (q_columns, scratch) = scratch.split_at_mut(BLOCK * hs);
    let (dout_columns, scratch) = scratch.split_at_mut(BLOCK * hs);
    let (scores, scratch) = scratch.split_at_mut(TILE);
    let (dscores, scratch) = scratch.split_at_mut(TILE);
    let (lse, delta) = scratch.split_at_mut(BLOCK);
    for start in (0..s.positions).step_by(BLOCK) {
        let rows = BLOCK.min(s.positions - start);
        // SAFETY: the queries of this sequence and head belong to this piece alone.
        unsafe { layout.pack::<V>(q, qkv, start, rows, layout.q) };
        pack::<V>(dout, width, |row| &given.dout[layout.in_out(start + row)..][..hs], rows, hs);
        pack_transposed::<V>(q_columns, |row| &q[row * width..][..hs], rows, hs, layout.scale());
        pack_transposed::<V>(dout_columns, |row| &dout[row * width..][..hs], rows, hs, 1.0);
        lse[..rows].copy_from_slice(&given.lse[start..start + rows]);
        lse[rows..].fill(0.0);
        delta[rows..].fill(0.0);
        for (row, delta) in delta[..rows].iter_mut().enumerate() {
            let out = given.out.row(layout.in_out(start + row), &mut dq[..hs]);
            *delta = dot_lanes::<V>(&dout[row * width..row * width + hs], out);
        }
        for past in (0..=start).step_by(BLOCK) {
            let diagonal = past == start;
            let keys = if diagonal { rows } else { BLOCK };
            let block = past * width..(past + BLOCK) * width;
            let add = accumulate || !diagonal;
            let columns = if diagonal { Causal::QueriesBefore } else { Causal::Whole };
            let key_rows = if diagonal { Causal::DepthBefore } else { Causal::Whole };
            let query_rows = if diagonal { Causal::KeysAfter } else { Causal::Whole };
            let k = Left { slice: &given.k[block.clone()], row: width, depth: 1 };
            product::<V>(scores, BLOCK, k, q_columns, [keys, hs, rows], columns, false);
            let v = Left { slice: &given.v[block.clone()], row: width, depth: 1 };
            product::<V>(dscores, BLOCK, v, dout_columns, [keys, hs, rows], columns, false);
            gradient_tile::<V>(scores, dscores, lse, delta, layout.scale(), [keys, rows], diagonal);
            let p = Left { slice: scores, row: BLOCK, depth: 1 };
            product::<V>(
                &mut dv[block.clone()],
                width,
                p,
                dout,
                [keys, rows, width],
                key_rows,
                add,
            );
            let ds = Left { slice: dscores, row: BLOCK, depth: 1 };
            product::<V>(&mut dk[block.clone()], width, ds, q, [keys, rows, width], key_rows, add);
            let ds = Left { slice: dscores, row: 1, depth: BLOCK };
            product::<V>(dq, width, ds, &given.k[block], [rows, keys, width], query_rows, past > 0);
        }
        // SAFETY: as above.
        unsafe { layout.unpack::<V>(qkv, dq, start, rows, layout.q) };
    }
}
#[inline(always)]
pub(super) fn dot_lanes<V: Vector>(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = V::splat(0.0);
    let mut at = 0;
    while at < a.len() {
        let end = (at + LANES).min(a.len());
        sum = V::load_partial(&a[at..end]).mul_add(V::load_partial(&b[at..end]), sum);
        at = end;
    }
    sum.sum()
}

/// Rows of `width` times a factor each.
#[inline(always)]
fn scale_rows<V: Vector>(rows: &mut [f32], width: usize, factors: &[f32]) {
    for (row, factor) in rows.chunks_exact_mut(width).zip(factors) {
        let factor = V::splat(*factor);
        row.chunks_exact_mut(LANES).for_each(|v| V::load(v).mul(factor).store(v));
    }
}

/// Sixteen zeros, then sixteen ones.
const SEEN: [f32; 2 * LANES] = {
    let mut lanes = [0.0; 2 * LANES];
    let mut i = LANES;
    while i < 2 * LANES {
        lanes[i] = 1.0;
        i += 1;
    }
    lanes
};

/// 1 in the lanes from `first` on (the queries that may see a key), 0 before.
#[inline(always)]
fn seen_from<V: Vector>(first: usize) -> V {
    V::load(&SEEN[LANES - first..])
}

/// For sixteen queries from `column` on: the keys that all of them see, and those that any of them sees.
#[inline(always)]
fn seen_keys(column: usize, keys: usize, diagonal: bool) -> (usize, usize) {
    if diagonal { ((column + 1).min(keys), (column + LANES).min(keys)) } else { (keys, keys) }
}

/// Scores (keys, queries) to exponentials of their distance from the running maximum. `running`: maxima, sums, and (out) the
/// factors by which earlier sums shrink, `BLOCK` each.
#[inline(always)]
fn softmax_tile<V: Vector>(
    scores: &mut [f32],
    running: &mut [f32],
    keys: usize,
    rows: usize,
    diagonal: bool,
) {
    let (largest, running) = running.split_at_mut(BLOCK);
    let (sums, shrink) = running.split_at_mut(BLOCK);
    let hidden = V::splat(-1e30);
    let one = V::splat(1.0);
    for column in (0..rows).step_by(LANES) {
        let (whole, part) = seen_keys(column, keys, diagonal);
        let before = V::load(&largest[column..]);
        let mut top = before;
        for key in 0..whole {
            top = top.max(V::load(&scores[key * BLOCK + column..]));
        }
        for key in whole..part {
            let away = one.sub(seen_from::<V>(key - column)).mul(hidden);
            top = top.max(V::load(&scores[key * BLOCK + column..]).add(away));
        }
        let mut sum = V::splat(0.0);
        for key in 0..whole {
            let lanes = &mut scores[key * BLOCK + column..];
            let e = exp(V::load(lanes).sub(top));
            e.store(lanes);
            sum = sum.add(e);
        }
        for key in whole..part {
            let lanes = &mut scores[key * BLOCK + column..];
            let e = exp(V::load(lanes).sub(top)).mul(seen_from::<V>(key - column));
            e.store(lanes);
            sum = sum.add(e);
        }
        let factor = exp(before.sub(top));
        top.store(&mut largest[column..]);
        factor.store(&mut shrink[column..]);
        V::load(&sums[column..]).mul_add(factor, sum).store(&mut sums[column..]);
    }
}

/// Scores to probabilities, and their gradients to gradients of the unscaled scores; both (keys, queries).
#[inline(always)]
fn gradient_tile<V: Vector>(
    scores: &mut [f32],
    dscores: &mut [f32],
    lse: &[f32],
    delta: &[f32],
    scale: f32,
    [keys, rows]: [usize; 2],
    diagonal: bool,
) {
    let scale = V::splat(scale);
    for column in (0..rows).step_by(LANES) {
        let (whole, part) = seen_keys(column, keys, diagonal);
        let (lse, delta) = (V::load(&lse[column..]), V::load(&delta[column..]));
        for key in 0..part {
            let at = key * BLOCK + column;
            let mut p = exp(V::load(&scores[at..]).sub(lse));
            if key >= whole {
                p = p.mul(seen_from::<V>(key - column));
            }
            let slope = V::load(&dscores[at..]).sub(delta).mul(scale);
            p.mul(slope).store(&mut dscores[at..]);
            p.store(&mut scores[at..]);
        }
    }
}
