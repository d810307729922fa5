//! RMSNorm over each query head and each key head, in place, as Qwen3 does before the rotation.
//! Source: `Qwen3Attention` of Hugging Face's transformers.
//!
//! x, dx: (rows, `row_width`), each row q | k | v, of which the first `q_heads` + `k_heads` heads
//! are normed; saved: (rows, (`q_heads` + `k_heads`) hs), those heads before the norm; weight,
//! dweight: (2 hs), the gain of queries, then that of keys. With h a head and g its gain:
//!
//! ```text
//! out = h rstd g,  rstd = 1 / sqrt(mean(h^2) + eps)
//! dh  = rstd (g dout - h rstd^2 mean(g dout h))      dg += sum over rows and heads of dout h rstd
//! ```

mod cpu;
pub mod cuda;
pub mod reference;

use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_positive};
use crate::{Error, Result};

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub row_width: usize,
    /// Query heads, at the start of each row.
    pub q_heads: usize,
    /// Key heads, which follow them.
    pub k_heads: usize,
    pub head_size: usize,
    /// Added to the mean square.
    pub eps: f32,
}

impl Shape {
    /// Heads of a row that are normed.
    pub fn heads(&self) -> usize {
        self.q_heads + self.k_heads
    }

    /// Elements of a row that are normed.
    pub fn normed_width(&self) -> usize {
        self.heads() * self.head_size
    }

    fn check(&self, op: &'static str, x: usize, weight: usize) -> Result<()> {
        check_positive(op, "head_size", self.head_size)?;
        check_positive(op, "q_heads", self.q_heads)?;
        check(op, "x", self.rows * self.row_width, x)?;
        check(op, "heads", self.normed_width(), self.normed_width().min(self.row_width))?;
        check(op, "weight", 2 * self.head_size, weight)
    }

    /// Checks that there are CUDA kernels for these sizes.
    fn check_cuda(&self, op: &'static str) -> Result<()> {
        if self.head_size <= cuda::MAX_HEAD_SIZE {
            return Ok(());
        }
        Err(Error::Unsupported(format!(
            "{op} on cuda takes head sizes up to {}; the model's is {}",
            cuda::MAX_HEAD_SIZE,
            self.head_size
        )))
    }
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    /// Normed in place.
    pub x: Out<'a>,
    /// Receives a copy of the heads before the norm, for the backward pass.
    pub saved: Option<Out<'a>>,
    pub weight: In<'a>,
    pub shape: Shape,
}

/// Norms the query and key heads of x in place.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, `ERR_INVALID_ARGUMENT` if a
/// size is 0, and `ERR_UNSUPPORTED` if CUDA has no kernel for the head size.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    const OP: &str = "head_norm::forward";
    let s = args.shape;
    s.check(OP, args.x.len(), args.weight.len())?;
    if let Some(saved) = &args.saved {
        check(OP, "saved", s.rows * s.normed_width(), saved.len())?;
    }
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, args),
        Device::Cuda(gpu) => {
            s.check_cuda(OP)?;
            gpu.run(&[cuda::forward(&args)])?;
        }
    }
    Ok(())
}

/// Buffers of `backward`.
#[derive(Debug)]
pub struct Backward<'a> {
    /// On entry the gradient of the normed heads, on return that of the heads before the norm.
    pub dx: Out<'a>,
    pub dweight: Out<'a>,
    /// `Forward::saved`.
    pub saved: In<'a>,
    pub weight: In<'a>,
    pub shape: Shape,
}

/// Replaces dx by the gradient before the norm, and adds to dweight.
///
/// # Errors
/// As for `forward`.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    const OP: &str = "head_norm::backward";
    let s = args.shape;
    s.check(OP, args.dx.len(), args.weight.len())?;
    check(OP, "saved", s.rows * s.normed_width(), args.saved.len())?;
    check(OP, "dweight", 2 * s.head_size, args.dweight.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, args),
        Device::Cuda(gpu) => {
            s.check_cuda(OP)?;
            let [partial] = gpu.scratch([cuda::partial_len(s) * size_of::<f32>()])?;
            gpu.run(&cuda::backward(&args, partial))?;
        }
    }
    Ok(())
}
