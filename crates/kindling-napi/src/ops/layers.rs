//! RMSNorm, rotary position embedding, SiLU and SwiGLU. Shapes are those of `src/ops/layers.ts`.

use kindling_core::Error;
use kindling_core::buffer::zeroed_vec;
use kindling_core::buffer::{In, Out};
use kindling_core::device::Device;
use kindling_core::ops::{rms_norm, rope, silu, swiglu};
use napi::bindgen_prelude::Float32Array;

use super::{need, rows, run};

/// RMSNorm of each row: x (n, width), weight (width) -> out (n, width), rstd (n).
#[napi(catch_unwind, namespace = "ops")]
pub fn rms_norm_forward(
    x: &[f32],
    weight: &[f32],
    width: u32,
    eps: f64,
) -> napi::Result<(Float32Array, Float32Array)> {
    let width = width as usize;
    run(|dev| {
        let rows = rows("rmsNorm.forward", "x", x.len(), width)?;
        need("rmsNorm.forward", "weight", weight.len(), &[width])?;
        let (mut out, mut rstd) = (zeroed_vec(x.len())?, zeroed_vec(rows)?);
        let s = rms_norm::Shape { rows, width, eps: eps as f32 };
        rms_norm::forward(
            dev,
            rms_norm::Forward {
                out: out.as_mut_slice().into(),
                rstd: rstd.as_mut_slice().into(),
                x: x.into(),
                weight: weight.into(),
                shape: s,
            },
        )?;
        Ok((out.into(), rstd.into()))
    })
}

/// dout, x (n, width), weight (width), rstd (n) -> dx (n, width), dweight (width).
#[napi(catch_unwind, namespace = "ops")]
pub fn rms_norm_backward(
    dout: &[f32],
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    width: u32,
) -> napi::Result<(Float32Array, Float32Array)> {
    let width = width as usize;
    run(|dev| {
        let op = "rmsNorm.backward";
        let rows = rows(op, "x", x.len(), width)?;
        need(op, "dout", dout.len(), &[rows, width])?;
        need(op, "weight", weight.len(), &[width])?;
        need(op, "rstd", rstd.len(), &[rows])?;
        let (mut dx, mut dweight) = (zeroed_vec(x.len())?, zeroed_vec(width)?);
        let s = rms_norm::Shape { rows, width, eps: 0.0 };
        rms_norm::backward(
            dev,
            rms_norm::Backward {
                dx: dx.as_mut_slice().into(),
                rounded: None,
                normed: None,
                dweight: dweight.as_mut_slice().into(),
                dout: dout.into(),
                x: x.into(),
                weight: weight.into(),
                rstd: rstd.into(),
                shape: s,
            },
        )?;
        Ok((dx.into(), dweight.into()))
    })
}

struct RopeSizes {
    positions: u32,
    heads: u32,
    head_size: u32,
    theta: f64,
    first_position: u32,
}

/// Rotates a copy of x (b, t, heads, hs). `rotate` gets it with the tables of cosines and sines.
fn rotated(
    op: &'static str,
    x: &[f32],
    sizes: &RopeSizes,
    rotate: impl FnOnce(&Device, Out, In, In, rope::Shape) -> kindling_core::Result<()>,
) -> napi::Result<Float32Array> {
    let [positions, heads, head_size, first_position] =
        [sizes.positions, sizes.heads, sizes.head_size, sizes.first_position]
            .map(|size| size as usize);
    let theta = sizes.theta;
    run(|dev| {
        if head_size % 2 != 0 {
            return Err(Error::argument(format!(
                "{op}: headSize is {head_size}; it must be even, since RoPE rotates pairs"
            )));
        }
        if theta <= 0.0 {
            return Err(Error::argument(format!("{op}: theta is {theta}; it must be positive")));
        }
        let row_width = heads * head_size;
        let rows = rows(op, "x", x.len(), row_width)?;
        need(op, "x", x.len(), &[rows / positions * positions, row_width])?;
        let (cos, sin) = rope::tables(first_position + positions, head_size, theta);
        let shape = rope::Shape { rows, row_width, heads, head_size, positions, first_position };
        let mut out = x.to_vec();
        rotate(
            dev,
            out.as_mut_slice().into(),
            cos.as_slice().into(),
            sin.as_slice().into(),
            shape,
        )?;
        Ok(out.into())
    })
}

/// Rotates interleaved pairs of each head by their position: x (b, t, heads, hs) -> out as x. The
/// first position of each sequence is `firstPosition`.
#[napi(catch_unwind, namespace = "ops")]
pub fn rope_forward(
    x: &[f32],
    positions: u32,
    heads: u32,
    head_size: u32,
    theta: f64,
    first_position: u32,
) -> napi::Result<Float32Array> {
    let sizes = RopeSizes { positions, heads, head_size, theta, first_position };
    rotated("rope.forward", x, &sizes, |dev, x, cos, sin, shape| {
        rope::forward(dev, rope::Forward { x, cos, sin, shape })
    })
}

/// dout (b, t, heads, hs) -> dx: the rotation by the negative angles.
#[napi(catch_unwind, namespace = "ops")]
pub fn rope_backward(
    dout: &[f32],
    positions: u32,
    heads: u32,
    head_size: u32,
    theta: f64,
    first_position: u32,
) -> napi::Result<Float32Array> {
    let sizes = RopeSizes { positions, heads, head_size, theta, first_position };
    rotated("rope.backward", dout, &sizes, |dev, dx, cos, sin, shape| {
        rope::backward(dev, rope::Backward { dx, cos, sin, shape })
    })
}

/// x -> x sigmoid(x), element by element.
#[napi(catch_unwind, namespace = "ops")]
pub fn silu_forward(x: &[f32]) -> napi::Result<Float32Array> {
    run(|dev| {
        let mut out = zeroed_vec(x.len())?;
        silu::forward(dev, silu::Forward { out: out.as_mut_slice().into(), x: x.into() })?;
        Ok(out.into())
    })
}

/// dout, x -> dx, all of the same length.
#[napi(catch_unwind, namespace = "ops")]
pub fn silu_backward(dout: &[f32], x: &[f32]) -> napi::Result<Float32Array> {
    run(|dev| {
        need("silu.backward", "dout", dout.len(), &[x.len()])?;
        let mut dx = zeroed_vec(x.len())?;
        silu::backward(
            dev,
            silu::Backward { dx: dx.as_mut_slice().into(), dout: dout.into(), x: x.into() },
        )?;
        Ok(dx.into())
    })
}

/// gate, up -> silu(gate) up, element by element.
#[napi(catch_unwind, namespace = "ops")]
pub fn swiglu_forward(gate: &[f32], up: &[f32]) -> napi::Result<Float32Array> {
    run(|dev| {
        need("swiglu.forward", "up", up.len(), &[gate.len()])?;
        // One row will do, since the op works element by element.
        let s = swiglu::Shape { rows: 1, width: gate.len() };
        let mut out = zeroed_vec(gate.len())?;
        swiglu::forward(
            dev,
            swiglu::Forward {
                out: out.as_mut_slice().into(),
                gate_up: [gate, up].concat().as_slice().into(),
                shape: s,
            },
        )?;
        Ok(out.into())
    })
}

/// dout, gate, up -> dgate, dup, all of the same length.
#[napi(catch_unwind, namespace = "ops")]
pub fn swiglu_backward(
    dout: &[f32],
    gate: &[f32],
    up: &[f32],
) -> napi::Result<(Float32Array, Float32Array)> {
    run(|dev| {
        need("swiglu.backward", "up", up.len(), &[gate.len()])?;
        need("swiglu.backward", "dout", dout.len(), &[gate.len()])?;
        let s = swiglu::Shape { rows: 1, width: gate.len() };
        let gate_up = [gate, up].concat();
        let mut dgate_up = zeroed_vec(gate_up.len())?;
        swiglu::backward(
            dev,
            swiglu::Backward {
                dgate_up: dgate_up.as_mut_slice().into(),
                dout: dout.into(),
                gate_up: gate_up.as_slice().into(),
                shape: s,
            },
        )?;
        let dup = dgate_up.split_off(gate.len());
        Ok((dgate_up.into(), dup.into()))
    })
}
