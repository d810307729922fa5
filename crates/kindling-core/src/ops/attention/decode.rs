//! CPU half of `decode`: one query a head against the cache.

use super::Shape;
use super::cpu::dot_lanes;
use crate::cpu::Cpu;
use crate::ops::cross_entropy::row_statistics;
use crate::ops::{Disjoint, Pieces, with_scratch};
use crate::simd::{LANES, Vector};

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
fn decode_head_lanes<V: Vector>(
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
        *score = dot_lanes::<V>(q, &keys[at..at + q.len()]) * scale;
    }
    let (largest, sum) = row_statistics::<V>(scores);
    out.fill(0.0);
    for (position, score) in scores.iter().enumerate() {
        let probability = V::splat((score - largest).exp() / sum);
        let value = &values[position * width..position * width + q.len()];
        let mut at = 0;
        while at < out.len() {
            let end = (at + LANES).min(out.len());
            V::load_partial(&value[at..end])
                .mul_add(probability, V::load_partial(&out[at..end]))
                .store_partial(&mut out[at..end]);
            at = end;
        }
    }
}
