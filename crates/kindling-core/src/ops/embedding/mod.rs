//! Embedding: out[row] = weight[ids[row]].
//!
//! ids: (rows); weight, dweight: (`vocab_size`, `d_model`); out, dout: (rows, `d_model`).
//! Backward: dweight[ids[row]] += dout[row].

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_ids, check_positive};

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub d_model: usize,
    pub vocab_size: usize,
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub ids: &'a [u32],
    pub weight: In<'a>,
    pub shape: Shape,
}

/// Computes out[row] = weight[ids[row]].
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, `ERR_INVALID_ARGUMENT` if
/// `d_model` is 0, and `ERR_TOKEN_OUT_OF_RANGE` if an id is outside the vocabulary; nothing is
/// written then.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    const OP: &str = "embedding::forward";
    let Forward { out, ids, weight, shape: s } = args;
    check_positive(OP, "d_model", s.d_model)?;
    check(OP, "ids", s.rows, ids.len())?;
    check(OP, "weight", s.vocab_size * s.d_model, weight.len())?;
    check(OP, "out", s.rows * s.d_model, out.len())?;
    check_ids(ids, s.vocab_size)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, out.cpu(), ids, weight.cpu(), s),
        Device::Cuda(gpu) => {
            let ids = gpu.staged(ids)?;
            let addresses = cuda::Forward { out: out.pointer(), ids, weight: weight.pointer() };
            gpu.run(&[cuda::forward(addresses, s)])?;
        }
    }
    Ok(())
}

/// Buffers of `backward`. dweight is added to.
#[derive(Debug)]
pub struct Backward<'a> {
    pub dweight: Out<'a>,
    pub dout: In<'a>,
    pub ids: &'a [u32],
    pub shape: Shape,
}

/// Computes dweight[ids[row]] += dout[row], in the order of the rows.
///
/// # Errors
/// As for `forward`.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    const OP: &str = "embedding::backward";
    let Backward { dweight, dout, ids, shape: s } = args;
    check_positive(OP, "d_model", s.d_model)?;
    check(OP, "ids", s.rows, ids.len())?;
    check(OP, "dweight", s.vocab_size * s.d_model, dweight.len())?;
    check(OP, "dout", s.rows * s.d_model, dout.len())?;
    check_ids(ids, s.vocab_size)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, dweight.cpu(), dout.cpu(), ids, s),
        Device::Cuda(gpu) => {
            let groups = gpu.staged(&cuda::Groups::of(ids, s.vocab_size, &mut Vec::new()).data)?;
            let addresses =
                cuda::Backward { dweight: dweight.pointer(), dout: dout.pointer(), groups };
            gpu.run(&[cuda::backward(addresses, s)])?;
        }
    }
    Ok(())
}
