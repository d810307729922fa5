//! Softmax, log-softmax and cross-entropy. Shapes are those of `src/ops/loss.ts`.

use kindling_core::buffer::zeroed_vec;
use kindling_core::ops::{IGNORED_TARGET, cross_entropy, log_softmax, softmax};
use napi::bindgen_prelude::Float32Array;

use super::{need, rows, run};

/// x (n, columns) -> (n, columns).
#[napi(catch_unwind, namespace = "ops")]
pub fn softmax_forward(x: &[f32], columns: u32) -> napi::Result<Float32Array> {
    let columns = columns as usize;
    run(|dev| {
        let s = softmax::Shape { rows: rows("softmax.forward", "x", x.len(), columns)?, columns };
        let mut out = zeroed_vec(x.len())?;
        softmax::forward(
            dev,
            softmax::Forward { out: out.as_mut_slice().into(), x: x.into(), shape: s },
        )?;
        Ok(out.into())
    })
}

/// dout, out (n, columns) -> dx.
#[napi(catch_unwind, namespace = "ops")]
pub fn softmax_backward(dout: &[f32], out: &[f32], columns: u32) -> napi::Result<Float32Array> {
    let columns = columns as usize;
    run(|dev| {
        let s =
            softmax::Shape { rows: rows("softmax.backward", "out", out.len(), columns)?, columns };
        need("softmax.backward", "dout", dout.len(), &[out.len()])?;
        let mut dx = zeroed_vec(out.len())?;
        softmax::backward(
            dev,
            softmax::Backward {
                dx: dx.as_mut_slice().into(),
                dout: dout.into(),
                out: out.into(),
                shape: s,
            },
        )?;
        Ok(dx.into())
    })
}

/// x (n, columns) -> (n, columns).
#[napi(catch_unwind, namespace = "ops")]
pub fn log_softmax_forward(x: &[f32], columns: u32) -> napi::Result<Float32Array> {
    let columns = columns as usize;
    run(|dev| {
        let s = log_softmax::Shape {
            rows: rows("logSoftmax.forward", "x", x.len(), columns)?,
            columns,
        };
        let mut out = zeroed_vec(x.len())?;
        log_softmax::forward(
            dev,
            log_softmax::Forward { out: out.as_mut_slice().into(), x: x.into(), shape: s },
        )?;
        Ok(out.into())
    })
}

/// dout, out (n, columns) -> dx.
#[napi(catch_unwind, namespace = "ops")]
pub fn log_softmax_backward(dout: &[f32], out: &[f32], columns: u32) -> napi::Result<Float32Array> {
    let columns = columns as usize;
    run(|dev| {
        let s = log_softmax::Shape {
            rows: rows("logSoftmax.backward", "out", out.len(), columns)?,
            columns,
        };
        need("logSoftmax.backward", "dout", dout.len(), &[out.len()])?;
        let mut dx = zeroed_vec(out.len())?;
        log_softmax::backward(
            dev,
            log_softmax::Backward {
                dx: dx.as_mut_slice().into(),
                dout: dout.into(),
                out: out.into(),
                shape: s,
            },
        )?;
        Ok(dx.into())
    })
}

/// The mean loss and each row's log-sum-exp.
#[napi(object)]
pub struct CrossEntropy {
    /// Mean over the targets that are not ignored, in nats.
    pub loss: f64,
    /// The log-sum-exp of each row.
    pub lse: Float32Array,
}

/// logits (n, vocab), targets (n), -100 to ignore a row -> mean loss, lse (n).
#[napi(catch_unwind, namespace = "ops")]
pub fn cross_entropy_forward(
    logits: &[f32],
    targets: &[i32],
    vocab_size: u32,
) -> napi::Result<CrossEntropy> {
    let s = cross_entropy::Shape { rows: targets.len(), vocab_size: vocab_size as usize };
    run(|dev| {
        need("crossEntropy.forward", "logits", logits.len(), &[s.rows, s.vocab_size])?;
        let mut lse = zeroed_vec(s.rows)?;
        let loss = cross_entropy::forward(
            dev,
            cross_entropy::Forward {
                lse: lse.as_mut_slice().into(),
                logits: logits.into(),
                targets,
                shape: s,
            },
        )?;
        Ok(CrossEntropy { loss: loss.mean(), lse: lse.into() })
    })
}

/// logits (n, vocab), targets (n), the lse (n) of the forward pass -> dlogits (n, vocab), the
/// gradient of the mean loss times `scale`.
#[napi(catch_unwind, namespace = "ops")]
pub fn cross_entropy_backward(
    logits: &[f32],
    targets: &[i32],
    lse: &[f32],
    vocab_size: u32,
    scale: f64,
) -> napi::Result<Float32Array> {
    let s = cross_entropy::Shape { rows: targets.len(), vocab_size: vocab_size as usize };
    run(|dev| {
        need("crossEntropy.backward", "logits", logits.len(), &[s.rows, s.vocab_size])?;
        need("crossEntropy.backward", "lse", lse.len(), &[s.rows])?;
        // The caller's scale applies to the mean loss, the engine's to the sum of losses.
        let count = targets.iter().filter(|&&target| target != IGNORED_TARGET).count();
        let mut dlogits = zeroed_vec(logits.len())?;
        cross_entropy::backward(
            dev,
            cross_entropy::Backward {
                dlogits: dlogits.as_mut_slice().into(),
                logits: logits.into(),
                lse: lse.into(),
                targets,
                scale: (scale / count.max(1) as f64) as f32,
                shape: s,
            },
        )?;
        Ok(dlogits.into())
    })
}
