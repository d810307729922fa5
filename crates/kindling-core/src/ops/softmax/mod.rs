//! Softmax. out = exp(x) / sum(exp(x)) of each row, with exponentials of x - max(x).
//!
//! x, out, dx, dout: (rows, columns). dx = out (dout - sum(dout out)) of each row.
//!
//! A score of -inf has probability 0. A row that is all -inf has no softmax and becomes NaN.

pub(super) mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::cpu::Cpu;
use crate::cuda::Launch;
use crate::device::Device;
use crate::ops::check;

/// Rows are normalized one by one.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub columns: usize,
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub x: In<'a>,
    pub shape: Shape,
}

/// Computes out.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    run_forward("softmax::forward", dev, args, cpu::forward, cuda::forward)
}

/// Buffers of `backward`. `out` is the output of the forward pass.
#[derive(Debug)]
pub struct Backward<'a> {
    pub dx: Out<'a>,
    pub dout: In<'a>,
    pub out: In<'a>,
    pub shape: Shape,
}

/// Computes dx.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    run_backward("softmax::backward", dev, args, cpu::backward, cuda::backward)
}

/// Checks and dispatches a forward pass, of softmax or of log-softmax.
pub(super) fn run_forward(
    op: &'static str,
    dev: &Device,
    args: Forward,
    on_cpu: fn(&Cpu, Forward),
    launch: fn(&Forward) -> Launch,
) -> Result<()> {
    let len = args.shape.rows * args.shape.columns;
    check(op, "x", len, args.x.len())?;
    check(op, "out", len, args.out.len())?;
    let _span = dev.span(op);
    match dev {
        Device::Cpu(cpu) => on_cpu(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[launch(&args)])?,
    }
    Ok(())
}

/// Checks and dispatches a backward pass, of softmax or of log-softmax.
pub(super) fn run_backward(
    op: &'static str,
    dev: &Device,
    args: Backward,
    on_cpu: fn(&Cpu, Backward),
    launch: fn(&Backward) -> Launch,
) -> Result<()> {
    let len = args.shape.rows * args.shape.columns;
    check(op, "dx", len, args.dx.len())?;
    check(op, "dout", len, args.dout.len())?;
    check(op, "out", len, args.out.len())?;
    let _span = dev.span(op);
    match dev {
        Device::Cpu(cpu) => on_cpu(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[launch(&args)])?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cpu::MatmulBackend;
    use crate::ops::{cross_entropy, log_softmax};
    use crate::simd::Isa;

    const INF: f32 = f32::INFINITY;

    fn devices() -> impl Iterator<Item = Device> {
        let device = |isa| Device::Cpu(Arc::new(Cpu::new(2, isa, MatmulBackend::Gemm)));
        Isa::available().into_iter().map(device)
    }

    #[test]
    fn a_score_of_minus_infinity_has_probability_zero_on_every_instruction_set() {
        // The last column is past a whole vector.
        let shape = Shape { rows: 1, columns: 19 };
        let mut x = [-INF; 19];
        (x[1], x[7]) = (2.0, 2.0);
        for dev in devices() {
            let (mut out, mut log) = ([9.0f32; 19], [9.0f32; 19]);
            forward(&dev, Forward { out: (&mut out[..]).into(), x: (&x[..]).into(), shape })
                .unwrap();
            let args = Forward { out: (&mut log[..]).into(), x: (&x[..]).into(), shape };
            log_softmax::forward(&dev, args).unwrap();
            for (column, score) in x.iter().enumerate() {
                let (p, log_p) = if score.is_finite() { (0.5, 0.5f32.ln()) } else { (0.0, -INF) };
                assert_eq!((out[column], log[column]), (p, log_p), "{column}");
            }
            let (dout, mut dx) = ([1.0f32; 19], [9.0f32; 19]);
            let args = Backward {
                dx: (&mut dx[..]).into(),
                dout: (&dout[..]).into(),
                out: (&log[..]).into(),
                shape,
            };
            log_softmax::backward(&dev, args).unwrap();
            assert_eq!((dx[0], dx[18]), (1.0, 1.0));
        }
    }

    #[test]
    fn cross_entropy_gives_a_score_of_minus_infinity_no_gradient() {
        let shape = cross_entropy::Shape { rows: 1, vocab_size: 3 };
        for dev in devices() {
            let mut logits = [1.0, -INF, 1.0];
            let args = cross_entropy::ForwardBackward {
                logits: (&mut logits[..]).into(),
                targets: &[0],
                scale: 1.0,
                shape,
            };
            cross_entropy::forward_backward(&dev, args).unwrap();
            assert_eq!(logits, [-0.5, 0.0, 0.5]);
        }
    }

    #[test]
    fn a_row_of_minus_infinity_becomes_nan() {
        let shape = Shape { rows: 2, columns: 2 };
        let x = [-INF, -INF, 0.0, 0.0];
        for dev in devices() {
            let (mut out, mut log) = ([9.0f32; 4], [9.0f32; 4]);
            forward(&dev, Forward { out: (&mut out[..]).into(), x: (&x[..]).into(), shape })
                .unwrap();
            let args = Forward { out: (&mut log[..]).into(), x: (&x[..]).into(), shape };
            log_softmax::forward(&dev, args).unwrap();
            assert!(out[0].is_nan() && out[1].is_nan() && log[0].is_nan() && log[1].is_nan());
            assert_eq!(out[2..], [0.5, 0.5]);
        }
    }
}
