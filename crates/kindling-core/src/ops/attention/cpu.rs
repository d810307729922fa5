//! CPU half. A piece is one sequence and one key/value head; blocks of queries meet all keys up to their last position, so
//! that a block of scores stays in the second cache.

use super::Shape;
use crate::device::Cpu;
use crate::ops::cross_entropy::row_statistics;
use crate::ops::matmul::gemm::{Matrix, MatrixMut, gemm};
use crate::ops::{Disjoint, Pieces, with_scratch};
use crate::simd::{LANES, Lanes, exp};

/// Queries of a block.
const BLOCK: usize = 64;

/// Where the parts of one sequence's head lie in qkv (and dqkv) and out.
#[derive(Clone, Copy)]
struct Place {
    first_row: usize,
    q: usize,
    k: usize,
    v: usize,
    out: usize,
}

impl Place {
    fn new(s: Shape, b: usize, head: usize) -> Self {
        let kv_head = head / s.group();
        Self {
            first_row: b * s.positions,
            q: head * s.head_size,
            k: (s.num_heads + kv_head) * s.head_size,
            v: (s.num_heads + s.num_kv_heads + kv_head) * s.head_size,
            out: head * s.head_size,
        }
    }
}

/// Rows of a head within rows of a fused buffer.
fn head_rows(
    slice: &[f32],
    first_row: usize,
    rows: usize,
    width: usize,
    column: usize,
    s: Shape,
) -> Matrix<'_> {
    let start = first_row * width + column;
    Matrix::strided(&slice[start..], rows, s.head_size, width)
}

fn scale_of(s: Shape) -> f32 {
    1.0 / (s.head_size as f32).sqrt()
}

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], lse: &mut [f32], qkv: &[f32], s: Shape) {
    let (width, out_width, hs) = (s.qkv_width(), s.out_width(), s.head_size);
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    let pieces = s.batch * s.num_heads;
    cpu.pool.run(pieces, |piece| {
        let (b, head) = (piece / s.num_heads, piece % s.num_heads);
        let place = Place::new(s, b, head);
        // SAFETY: each piece has its own run of lse.
        let lse = unsafe { lse.part(piece * s.positions..(piece + 1) * s.positions) };
        with_scratch(BLOCK.min(s.positions) * s.positions, |scores| {
            for start in (0..s.positions).step_by(BLOCK) {
                let end = (start + BLOCK).min(s.positions);
                let rows = end - start;
                let scores = &mut scores[..rows * end];
                let q = head_rows(qkv, place.first_row + start, rows, width, place.q, s);
                let k = head_rows(qkv, place.first_row, end, width, place.k, s);
                let v = head_rows(qkv, place.first_row, end, width, place.v, s);
                gemm(MatrixMut::rows(scores, rows, end), q, k.transposed(), false);
                softmax_block(cpu.isa, scores, &mut lse[start..end], start, scale_of(s));
                let address = out.address((place.first_row + start) * out_width + place.out);
                // SAFETY: these rows and this head's columns belong to this piece alone.
                let block = unsafe { MatrixMut::block(address, rows, hs, out_width) };
                gemm(block, Matrix::rows(scores, rows, end), v, false);
            }
        });
    });
}

pub(super) fn backward(
    cpu: &Cpu,
    dqkv: &mut [f32],
    dout: &[f32],
    qkv: &[f32],
    out: &[f32],
    lse: &[f32],
    s: Shape,
) {
    let dqkv = Disjoint::new(dqkv);
    let pieces = s.batch * s.num_kv_heads;
    let block = BLOCK.min(s.positions) * s.positions;
    cpu.pool.run(pieces, |piece| {
        let (b, kv_head) = (piece / s.num_kv_heads, piece % s.num_kv_heads);
        with_scratch(2 * block + BLOCK, |scratch| {
            for (index, head) in (kv_head * s.group()..(kv_head + 1) * s.group()).enumerate() {
                let place = Place::new(s, b, head);
                let lse = &lse[(b * s.num_heads + head) * s.positions..][..s.positions];
                backward_head(cpu, &dqkv, dout, qkv, out, lse, s, place, index > 0, scratch);
            }
        });
    });
}

/// The gradients of one query head; the first head of a group overwrites dk and dv, the others add.
fn backward_head(
    cpu: &Cpu,
    dqkv: &Disjoint<'_, f32>,
    dout: &[f32],
    qkv: &[f32],
    out: &[f32],
    lse: &[f32],
    s: Shape,
    place: Place,
    accumulate: bool,
    scratch: &mut [f32],
) {
    let (width, out_width, hs) = (s.qkv_width(), s.out_width(), s.head_size);
    let (delta, scratch) = scratch.split_at_mut(BLOCK);
    let (probabilities, dscores) = scratch.split_at_mut(scratch.len() / 2);
    let target = |first_row: usize, rows: usize, column: usize| {
        let address = dqkv.address((place.first_row + first_row) * width + column);
        // SAFETY: these rows and this head's columns belong to this piece alone, and each view is used up before the next.
        unsafe { MatrixMut::block(address, rows, hs, width) }
    };
    // The last block goes first: it meets every key, so it may overwrite what the others add to.
    for (turn, start) in (0..s.positions).step_by(BLOCK).rev().enumerate() {
        let end = (start + BLOCK).min(s.positions);
        let rows = end - start;
        let add = accumulate || turn > 0;
        let (probabilities, dscores) = (&mut probabilities[..rows * end], &mut dscores[..rows * end]);
        let q = head_rows(qkv, place.first_row + start, rows, width, place.q, s);
        let k = head_rows(qkv, place.first_row, end, width, place.k, s);
        let v = head_rows(qkv, place.first_row, end, width, place.v, s);
        let dout_block = head_rows(dout, place.first_row + start, rows, out_width, place.out, s);
        for (row, delta) in delta[..rows].iter_mut().enumerate() {
            let at = (place.first_row + start + row) * out_width + place.out;
            *delta = dot(cpu.isa, &dout[at..at + hs], &out[at..at + hs]);
        }
        gemm(MatrixMut::rows(probabilities, rows, end), q, k.transposed(), false);
        gemm(MatrixMut::rows(dscores, rows, end), dout_block, v.transposed(), false);
        gradient_block(cpu.isa, probabilities, dscores, &lse[start..end], delta, start, scale_of(s));
        let (p, ds) = (Matrix::rows(probabilities, rows, end), Matrix::rows(dscores, rows, end));
        gemm(target(0, end, place.v), p.transposed(), dout_block, add);
        gemm(target(0, end, place.k), ds.transposed(), q, add);
        gemm(target(start, rows, place.q), ds, k, false);
    }
}

pub(super) fn decode(
    cpu: &Cpu,
    out: &mut [f32],
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    length: usize,
    s: Shape,
) {
    let (hs, width) = (s.head_size, s.num_kv_heads * s.head_size);
    let smallest = (1 << 14) / (length * hs).max(1) + 1;
    let pieces = Pieces::new(s.num_heads, smallest);
    let out = Disjoint::new(out);
    cpu.pool.run(pieces.count, |piece| {
        for head in pieces.range(piece) {
            let column = head / s.group() * hs;
            // SAFETY: each head has its own run of out.
            let out = unsafe { out.part(head * hs..(head + 1) * hs) };
            with_scratch(length, |scores| {
                decode_head(
                    cpu.isa,
                    out,
                    &q[head * hs..(head + 1) * hs],
                    &keys[column..],
                    &values[column..],
                    width,
                    scores,
                );
            });
        }
    });
}

crate::dispatch! { fn dot(a: &[f32], b: &[f32]) -> f32 = dot_lanes; }
crate::dispatch! {
    /// Scores (rows, columns) to probabilities of the keys each query may see, and their lse.
    fn softmax_block(scores: &mut [f32], lse: &mut [f32], first: usize, scale: f32) = softmax_block_lanes;
}
crate::dispatch! {
    /// Scores to probabilities, and their gradients to gradients of the unscaled scores.
    fn gradient_block(
        scores: &mut [f32],
        dscores: &mut [f32],
        lse: &[f32],
        delta: &[f32],
        first: usize,
        scale: f32,
    ) = gradient_block_lanes;
}
crate::dispatch! {
    fn decode_head(
        out: &mut [f32],
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        width: usize,
        scores: &mut [f32],
    ) = decode_head_lanes;
}

#[inline(always)]
fn dot_lanes<L: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = L::splat(0.0);
    let mut at = 0;
    while at < a.len() {
        let end = (at + LANES).min(a.len());
        sum = L::load_partial(&a[at..end]).mul_add(L::load_partial(&b[at..end]), sum);
        at = end;
    }
    sum.sum()
}

#[inline(always)]
fn softmax_block_lanes<L: Lanes>(scores: &mut [f32], lse: &mut [f32], first: usize, scale: f32) {
    let columns = scores.len() / lse.len();
    let scaling = L::splat(scale);
    for (index, (row, lse)) in scores.chunks_exact_mut(columns).zip(lse).enumerate() {
        let (seen, hidden) = row.split_at_mut(first + index + 1);
        hidden.fill(0.0);
        let mut at = 0;
        while at < seen.len() {
            let end = (at + LANES).min(seen.len());
            L::load_partial(&seen[at..end]).mul(scaling).store_partial(&mut seen[at..end]);
            at = end;
        }
        let (largest, sum) = row_statistics::<L>(seen);
        *lse = largest + sum.ln();
        let (largest, inverse) = (L::splat(largest), L::splat(1.0 / sum));
        let mut at = 0;
        while at < seen.len() {
            let end = (at + LANES).min(seen.len());
            exp(L::load_partial(&seen[at..end]).sub(largest)).mul(inverse).store_partial(&mut seen[at..end]);
            at = end;
        }
    }
}

#[inline(always)]
fn gradient_block_lanes<L: Lanes>(
    scores: &mut [f32],
    dscores: &mut [f32],
    lse: &[f32],
    delta: &[f32],
    first: usize,
    scale: f32,
) {
    let columns = scores.len() / lse.len();
    let scaling = L::splat(scale);
    for (index, (row, drow)) in
        scores.chunks_exact_mut(columns).zip(dscores.chunks_exact_mut(columns)).enumerate()
    {
        let seen = first + index + 1;
        row[seen..].fill(0.0);
        drow[seen..].fill(0.0);
        let (lse, delta) = (L::splat(-lse[index]), L::splat(delta[index]));
        let mut at = 0;
        while at < seen {
            let end = (at + LANES).min(seen);
            let probability = exp(L::load_partial(&row[at..end]).mul_add(scaling, lse));
            let slope = L::load_partial(&drow[at..end]).sub(delta).mul(scaling);
            probability.mul(slope).store_partial(&mut drow[at..end]);
            probability.store_partial(&mut row[at..end]);
            at = end;
        }
    }
}

#[inline(always)]
fn decode_head_lanes<L: Lanes>(
    out: &mut [f32],
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    width: usize,
    scores: &mut [f32],
) {
    let scale = 1.0 / (q.len() as f32).sqrt();
    for (position, score) in scores.iter_mut().enumerate() {
        let at = position * width;
        *score = dot_lanes::<L>(q, &keys[at..at + q.len()]) * scale;
    }
    let (largest, sum) = row_statistics::<L>(scores);
    out.fill(0.0);
    for (position, score) in scores.iter().enumerate() {
        let probability = L::splat((score - largest).exp() / sum);
        let value = &values[position * width..position * width + q.len()];
        let mut at = 0;
        while at < out.len() {
            let end = (at + LANES).min(out.len());
            L::load_partial(&value[at..end])
                .mul_add(probability, L::load_partial(&out[at..end]))
                .store_partial(&mut out[at..end]);
            at = end;
        }
    }
}
