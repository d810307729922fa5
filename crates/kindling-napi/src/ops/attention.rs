//! Causal attention. Shapes are those of `src/ops/layers.ts`; the engine keeps q, k and v side by
//! side in one row.

use kindling_core::buffer::zeroed_vec;
use kindling_core::ops::attention;
use kindling_core::{Error, Result};
use napi::bindgen_prelude::Float32Array;

use super::{need, run};

/// Joins arrays side by side into rows of q|k|v, the engine's layout.
fn joined(parts: &[(&[f32], usize)], rows: usize) -> Vec<f32> {
    let width: usize = parts.iter().map(|(_, width)| width).sum();
    let mut out = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for (part, width) in parts {
            out.extend_from_slice(&part[row * width..][..*width]);
        }
    }
    out
}

/// Splits rows of q|k|v into three arrays.
fn split(joined: &[f32], widths: [usize; 3]) -> [Vec<f32>; 3] {
    let mut parts = widths.map(|_| Vec::new());
    for row in joined.chunks_exact(widths.iter().sum()) {
        let mut rest = row;
        for (part, width) in parts.iter_mut().zip(widths) {
            let (columns, after) = rest.split_at(width);
            part.extend_from_slice(columns);
            rest = after;
        }
    }
    parts
}

/// Sizes of attention: b `batch` sequences of t `positions`, nh `numHeads` query heads, nkv
/// `numKvHeads` key/value heads (a divisor of nh), hs `headSize`.
#[napi(object)]
pub struct AttentionSizes {
    pub batch: u32,
    pub positions: u32,
    pub num_heads: u32,
    pub num_kv_heads: u32,
    pub head_size: u32,
}

/// Checks the lengths of q, k and v. Returns the engine's shape, and the widths of their rows.
fn attention_shape(
    op: &'static str,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    sizes: &AttentionSizes,
) -> Result<(attention::Shape, [usize; 3])> {
    let s = attention::Shape {
        batch: sizes.batch as usize,
        positions: sizes.positions as usize,
        num_heads: sizes.num_heads as usize,
        num_kv_heads: sizes.num_kv_heads as usize,
        head_size: sizes.head_size as usize,
    };
    if !s.num_heads.is_multiple_of(s.num_kv_heads.max(1)) {
        return Err(Error::argument(format!(
            "{op}: numHeads {} is not divisible by numKvHeads {}; choose a multiple",
            s.num_heads, s.num_kv_heads
        )));
    }
    need(op, "q", q.len(), &[s.batch, s.positions, s.num_heads, s.head_size])?;
    need(op, "k", k.len(), &[s.batch, s.positions, s.num_kv_heads, s.head_size])?;
    need(op, "v", v.len(), &[s.batch, s.positions, s.num_kv_heads, s.head_size])?;
    let kv_width = s.num_kv_heads * s.head_size;
    Ok((s, [s.num_heads * s.head_size, kv_width, kv_width]))
}

/// Causal attention: q (b, t, nh, hs), k and v (b, t, nkv, hs) -> out as q, lse (b, nh, t).
#[napi(catch_unwind, namespace = "ops")]
pub fn attention_forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    sizes: AttentionSizes,
) -> napi::Result<(Float32Array, Float32Array)> {
    run(|dev| {
        let (s, [wq, wk, wv]) = attention_shape("attention.forward", q, k, v, &sizes)?;
        let rows = s.batch * s.positions;
        let qkv = joined(&[(q, wq), (k, wk), (v, wv)], rows);
        let (mut out, mut lse) = (zeroed_vec(q.len())?, zeroed_vec(rows * s.num_heads)?);
        attention::forward(
            dev,
            attention::Forward {
                out: out.as_mut_slice().into(),
                lse: lse.as_mut_slice().into(),
                qkv: qkv.as_slice().into(),
                shape: s,
            },
        )?;
        Ok((out.into(), lse.into()))
    })
}

/// dout, q, k, v, and the out and lse of the forward pass -> dq, dk, dv in the shapes of q, k, v.
#[napi(catch_unwind, namespace = "ops")]
pub fn attention_backward(
    dout: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    sizes: AttentionSizes,
) -> napi::Result<(Float32Array, Float32Array, Float32Array)> {
    run(|dev| {
        let op = "attention.backward";
        let (s, widths) = attention_shape(op, q, k, v, &sizes)?;
        let rows = s.batch * s.positions;
        need(op, "dout", dout.len(), &[q.len()])?;
        need(op, "out", out.len(), &[q.len()])?;
        need(op, "lse", lse.len(), &[rows, s.num_heads])?;
        let qkv = joined(&[(q, widths[0]), (k, widths[1]), (v, widths[2])], rows);
        let mut dqkv = zeroed_vec(qkv.len())?;
        attention::backward(
            dev,
            attention::Backward {
                dqkv: dqkv.as_mut_slice().into(),
                dout: dout.into(),
                qkv: qkv.as_slice().into(),
                out: out.into(),
                lse: lse.into(),
                rotation: None,
                shape: s,
            },
        )?;
        let [dq, dk, dv] = split(&dqkv, widths);
        Ok((dq.into(), dk.into(), dv.into()))
    })
}
