//! One query per head against the cached keys and values, a task per run of heads.

use super::super::Shape;
use super::tile::dot;
use crate::cpu::Cpu;
use crate::ops::cross_entropy::row_statistics;
use crate::ops::{RowsMut, Tasks, split_rows, with_scratch};
use crate::simd::{LANES, Vector};

/// Inputs of `decode`, with the shapes of `super::super::Decode`.
#[derive(Clone, Copy)]
pub(in super::super) struct DecodeInputs<'a> {
    pub(in super::super) q: &'a [f32],
    pub(in super::super) keys: &'a [f32],
    pub(in super::super) values: &'a [f32],
    pub(in super::super) length: usize,
    pub(in super::super) shape: Shape,
}

pub(in super::super) fn decode(cpu: &Cpu, out: &mut [f32], inputs: DecodeInputs) {
    let DecodeInputs { q, keys, values, length, shape: s } = inputs;
    let (hs, width) = (s.head_size, s.num_kv_heads * s.head_size);
    let smallest = (1 << 14) / (length * hs).max(1) + 1;
    let tasks = Tasks::new(s.num_heads, smallest);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, hs), |heads, out| {
        for (head, out) in heads.zip(out.chunks_exact_mut(hs)) {
            let column = head / s.group() * hs;
            let (q, keys, values) =
                (&q[head * hs..(head + 1) * hs], &keys[column..], &values[column..]);
            with_scratch(length, |scores| {
                decode_head(cpu.isa, out, q, keys, values, width, scores);
            });
        }
    });
}

crate::dispatch! {
    /// Computes out (hs) of one head. Keys and values are `width` elements apart.
    fn decode_head(
        out: &mut [f32],
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        width: usize,
        scores: &mut [f32],
    ) = decode_head_vectors;
}

#[inline(always)]
fn decode_head_vectors<V: Vector>(
    out: &mut [f32],
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    width: usize,
    scores: &mut [f32],
) {
    let scale = 1.0 / (q.len() as f32).sqrt();
    for (position, score) in scores.iter_mut().enumerate() {
        let start = position * width;
        *score = dot::<V>(q, &keys[start..start + q.len()]) * scale;
    }
    let (max, sum) = row_statistics::<V>(scores);
    out.fill(0.0);
    for (position, score) in scores.iter().enumerate() {
        let probability = V::splat((score - max).exp() / sum);
        let value = &values[position * width..position * width + q.len()];
        let mut start = 0;
        while start < out.len() {
            let end = (start + LANES).min(out.len());
            V::load_partial(&value[start..end])
                .mul_add(probability, V::load_partial(&out[start..end]))
                .store_partial(&mut out[start..end]);
            start = end;
        }
    }
}
