//! Matrix products and the embedding. Shapes are those of `src/ops/dense.ts`.

use kindling_core::buffer::zeroed_vec;
use kindling_core::ops::{embedding, linear, matmul};
use napi::bindgen_prelude::Float32Array;

use super::{need, run, transposed};

/// a (m, k), b (k, n) -> a b (m, n).
#[napi(catch_unwind, namespace = "ops")]
pub fn matmul_forward(a: &[f32], b: &[f32], m: u32, k: u32, n: u32) -> napi::Result<Float32Array> {
    let (m, k, n) = (m as usize, k as usize, n as usize);
    run(|dev| {
        need("matmul.forward", "a", a.len(), &[m, k])?;
        need("matmul.forward", "b", b.len(), &[k, n])?;
        let mut out = zeroed_vec(m * n)?;
        matmul::forward(
            dev,
            matmul::Forward {
                out: out.as_mut_slice().into(),
                a: a.into(),
                b: b.into(),
                shape: matmul::Shape { m, k, n },
            },
        )?;
        Ok(out.into())
    })
}

/// dout (m, n), a (m, k), b (k, n) -> da = dout b^T, db = a^T dout.
#[napi(catch_unwind, namespace = "ops")]
pub fn matmul_backward(
    dout: &[f32],
    a: &[f32],
    b: &[f32],
    m: u32,
    k: u32,
    n: u32,
) -> napi::Result<(Float32Array, Float32Array)> {
    let (m, k, n) = (m as usize, k as usize, n as usize);
    run(|dev| {
        need("matmul.backward", "dout", dout.len(), &[m, n])?;
        need("matmul.backward", "a", a.len(), &[m, k])?;
        need("matmul.backward", "b", b.len(), &[k, n])?;
        let (mut da, mut db) = (zeroed_vec(m * k)?, zeroed_vec(k * n)?);
        matmul::backward(
            dev,
            matmul::Backward {
                da: da.as_mut_slice().into(),
                db: db.as_mut_slice().into(),
                dout: dout.into(),
                a: a.into(),
                b: b.into(),
                shape: matmul::Shape { m, k, n },
            },
        )?;
        Ok((da.into(), db.into()))
    })
}

/// x (rows, inputs), weight (inputs, outputs), bias (outputs) -> x weight + bias (rows, outputs).
#[napi(catch_unwind, namespace = "ops")]
pub fn linear_forward(
    x: &[f32],
    weight: &[f32],
    rows: u32,
    inputs: u32,
    outputs: u32,
    bias: Option<Float32Array>,
) -> napi::Result<Float32Array> {
    let s =
        linear::Shape { rows: rows as usize, inputs: inputs as usize, outputs: outputs as usize };
    run(|dev| {
        need("linear.forward", "x", x.len(), &[s.rows, s.inputs])?;
        need("linear.forward", "weight", weight.len(), &[s.inputs, s.outputs])?;
        if let Some(bias) = &bias {
            need("linear.forward", "bias", bias.len(), &[s.outputs])?;
        }
        let weight = transposed(weight, s.inputs, s.outputs);
        let mut out = zeroed_vec(s.rows * s.outputs)?;
        let bias = bias.as_ref().map(|bias| (&bias[..]).into());
        linear::forward(
            dev,
            linear::Forward {
                out: out.as_mut_slice().into(),
                x: x.into(),
                weight: weight.as_slice().into(),
                bias,
                shape: s,
            },
        )?;
        Ok(out.into())
    })
}

/// dout (rows, outputs), x (rows, inputs), weight (inputs, outputs) -> dx, dweight, dbias.
#[napi(catch_unwind, namespace = "ops")]
pub fn linear_backward(
    dout: &[f32],
    x: &[f32],
    weight: &[f32],
    rows: u32,
    inputs: u32,
    outputs: u32,
) -> napi::Result<(Float32Array, Float32Array, Float32Array)> {
    let s =
        linear::Shape { rows: rows as usize, inputs: inputs as usize, outputs: outputs as usize };
    run(|dev| {
        need("linear.backward", "dout", dout.len(), &[s.rows, s.outputs])?;
        need("linear.backward", "x", x.len(), &[s.rows, s.inputs])?;
        need("linear.backward", "weight", weight.len(), &[s.inputs, s.outputs])?;
        let weight = transposed(weight, s.inputs, s.outputs);
        let (mut dx, mut dweight) = (zeroed_vec(x.len())?, zeroed_vec(weight.len())?);
        let mut dbias = zeroed_vec(s.outputs)?;
        linear::backward_input(
            dev,
            linear::BackwardInput {
                dx: dx.as_mut_slice().into(),
                dout: dout.into(),
                weight: weight.as_slice().into(),
                shape: s,
                accumulate: false,
            },
        )?;
        linear::backward_weight(
            dev,
            linear::BackwardWeight {
                dweight: dweight.as_mut_slice().into(),
                dbias: Some(dbias.as_mut_slice().into()),
                dout: dout.into(),
                x: x.into(),
                shape: s,
            },
        )?;
        Ok((dx.into(), transposed(&dweight, s.outputs, s.inputs).into(), dbias.into()))
    })
}

/// ids (n), weight (vocab, c) -> the rows of weight with these ids (n, c).
#[napi(catch_unwind, namespace = "ops")]
pub fn embedding_forward(
    ids: &[u32],
    weight: &[f32],
    vocab_size: u32,
    d_model: u32,
) -> napi::Result<Float32Array> {
    let s = embedding::Shape {
        rows: ids.len(),
        d_model: d_model as usize,
        vocab_size: vocab_size as usize,
    };
    run(|dev| {
        need("embedding.forward", "weight", weight.len(), &[s.vocab_size, s.d_model])?;
        let mut out = zeroed_vec(s.rows * s.d_model)?;
        let args = embedding::Forward {
            out: out.as_mut_slice().into(),
            ids,
            weight: weight.into(),
            shape: s,
        };
        embedding::forward(dev, args)?;
        Ok(out.into())
    })
}

/// dout (n, c), ids (n) -> dweight (vocab, c).
#[napi(catch_unwind, namespace = "ops")]
pub fn embedding_backward(
    dout: &[f32],
    ids: &[u32],
    vocab_size: u32,
    d_model: u32,
) -> napi::Result<Float32Array> {
    let s = embedding::Shape {
        rows: ids.len(),
        d_model: d_model as usize,
        vocab_size: vocab_size as usize,
    };
    run(|dev| {
        need("embedding.backward", "dout", dout.len(), &[s.rows, s.d_model])?;
        let mut dweight = zeroed_vec(s.vocab_size * s.d_model)?;
        let args = embedding::Backward {
            dweight: dweight.as_mut_slice().into(),
            dout: dout.into(),
            ids,
            shape: s,
        };
        embedding::backward(dev, args)?;
        Ok(dweight.into())
    })
}
