//! Decoding: one query per head of each row against the cached keys and values, with a task per run
//! of heads.

use std::ops::Range;

use super::super::Shape;
use super::tile::dot;
use crate::cpu::Cpu;
use crate::ops::cross_entropy::row_statistics;
use crate::ops::{RowsMut, Tasks, split_rows, with_dirty_scratch};
use crate::simd::{Vector, exp, for_vectors, prefetch_run};

/// How many cached tokens ahead to prefetch. A head's rows of successive tokens are too far apart
/// in memory for the hardware prefetcher.
const AHEAD: usize = 16;

/// Inputs of `decode`, with the shapes of `super::super::Decode`.
#[derive(Clone, Copy)]
pub(in super::super) struct DecodeInputs<'a> {
    pub(in super::super) qkv: &'a [f32],
    pub(in super::super) keys: &'a [f32],
    pub(in super::super) values: &'a [f32],
    pub(in super::super) cached: &'a [Range<usize>],
    pub(in super::super) shape: Shape,
}

pub(in super::super) fn decode(cpu: &Cpu, out: &mut [f32], inputs: DecodeInputs) {
    let DecodeInputs { qkv, keys, values, cached, shape: s } = inputs;
    let (hs, width) = (s.head_size, s.num_kv_heads * s.head_size);
    let longest = cached.iter().map(Range::len).max().unwrap_or(0);
    let smallest = (1 << 14) / (longest * hs).max(1) + 1;
    let tasks = Tasks::new(cached.len() * s.num_heads, smallest);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, hs), |heads, out| {
        for (index, out) in heads.zip(out.chunks_exact_mut(hs)) {
            let (row, head) = (index / s.num_heads, index % s.num_heads);
            let tokens = &cached[row];
            let start = tokens.start * width + head / s.group() * hs;
            let cache = HeadCache { keys: &keys[start..], values: &values[start..], width };
            let q = &qkv[row * s.qkv_width() + head * hs..][..hs];
            with_dirty_scratch(tokens.len(), |scores| {
                decode_head(cpu.isa, out, q, cache, scores);
            });
        }
    });
}

/// Keys and values of one head. Those of neighbouring tokens are `width` elements apart.
#[derive(Clone, Copy)]
struct HeadCache<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    width: usize,
}

crate::dispatch! {
    /// Computes out (hs) of one head. `scores` has an element per cached token.
    fn decode_head(out: &mut [f32], q: &[f32], cache: HeadCache<'_>, scores: &mut [f32])
        = decode_head_vectors;
}

#[inline(always)]
fn decode_head_vectors<V: Vector>(
    out: &mut [f32],
    q: &[f32],
    cache: HeadCache<'_>,
    scores: &mut [f32],
) {
    let HeadCache { keys, values, width } = cache;
    let scale = 1.0 / (q.len() as f32).sqrt();
    for (token, score) in scores.iter_mut().enumerate() {
        let start = token * width;
        prefetch_run(keys.as_ptr().wrapping_add(start + AHEAD * width), q.len());
        *score = dot::<V>(q, &keys[start..start + q.len()]) * scale;
    }
    let (max, sum) = row_statistics::<V>(scores);
    let (max, factor) = (V::splat(max), V::splat(1.0 / sum));
    for_vectors!(at in scores.len() => {
        let probabilities = exp(V::load_partial(&scores[at.clone()]).sub(max)).mul(factor);
        probabilities.store_partial(&mut scores[at]);
    });
    out.fill(0.0);
    for (token, probability) in scores.iter().enumerate() {
        let start = token * width;
        prefetch_run(values.as_ptr().wrapping_add(start + AHEAD * width), out.len());
        let (value, probability) = (&values[start..start + out.len()], V::splat(*probability));
        for_vectors!(at in out.len() => {
            let sum = V::load_partial(&out[at.clone()]);
            let sum = V::load_partial(&value[at.clone()]).mul_add(probability, sum);
            sum.store_partial(&mut out[at]);
        });
    }
}
