//! Embedding. out[row] = weight[ids[row]].
//!
//! ids: (rows); weight, dweight: (`vocab_size`, `d_model`); out, dout: (rows, `d_model`). dweight[ids[row]] += dout[row].

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_ids, check_positive};

/// Sizes of an embedding.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Tokens.
    pub rows: usize,
    /// Width of a row.
    pub d_model: usize,
    /// Rows of the table.
    pub vocab_size: usize,
}

/// out[row] = weight[ids[row]].
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`; `ERR_TOKEN_OUT_OF_RANGE` before anything is written.
pub fn forward(dev: &Device, out: Out, ids: &[u32], weight: In, s: Shape) -> Result<()> {
    const OP: &str = "embedding::forward";
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
            gpu.run(&[cuda::forward(out.pointer(), ids, weight.pointer(), s)])?;
        }
    }
    Ok(())
}

/// dweight[ids[row]] += dout[row], rows in order.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`; `ERR_TOKEN_OUT_OF_RANGE` before anything is written.
pub fn backward(dev: &Device, dweight: Out, dout: In, ids: &[u32], s: Shape) -> Result<()> {
    const OP: &str = "embedding::backward";
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
            gpu.run(&[cuda::backward(dweight.pointer(), dout.pointer(), groups, s)])?;
        }
    }
    Ok(())
}
